"""Machines backed up: one task, one machine after the other, an archive each.

Facts from pve-manager ``PVE/API2/VZDump.pm``, ``PVE/VZDump.pm`` and qemu-server ``PVE/VZDump/QemuServer.pm``.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.guests import Keeps
from funoffshore.lab.pve import archives, availability, drives
from funoffshore.lab.pve.access import Caller
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import RefusalError, invalid_fields
from funoffshore.lab.pve.tasks import Task, TaskError
from funoffshore.lab.pve.volumes import Storage, print_size

_NO_STOP = (
    "Cannot execute a backup with stop mode on a HA managed and enabled Service. "
    "Use snapshot mode or disable the Service."
)
ROOT_ONLY = ("dumpdir", "script", "tmpdir")
_QUIET = frozenset(("node", "id", "type", "schedule", "enabled", "comment", "repeat-missed", "job-id", "next-run"))


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be backed up, and how."""

    options: Mapping[str, Any]
    """As a job holds them; ``prune-backups`` by key."""
    storage: Storage
    vmids: tuple[int, ...]

    @property
    def command(self) -> str:
        """As the log's first line shows it."""
        shown = {key: value for key, value in self.options.items() if key not in (*_QUIET, "vmid")}
        keep = shown.get("prune-backups")
        if isinstance(keep, Mapping):
            shown["prune-backups"] = ",".join(f"{key}={keep[key]}" for key in sorted(keep))
        words = [str(vmid) for vmid in self.vmids] if "vmid" in self.options else []
        return " ".join(["vzdump", *words, *(f"--{key} {shlex.quote(str(shown[key]))}" for key in sorted(shown))])


def check(call: Call, *, job: bool) -> None:
    """Refuses what contradicts itself, and what the caller may not ask for."""
    chosen = [name for name in ("all", "pool") if call.text(name, "0") not in ("0", "")]
    for name in chosen if "vmid" in call.values else []:
        raise invalid_fields({name: "option conflicts with option 'vmid'"})
    if "exclude" in call.values and "vmid" in call.values:
        raise invalid_fields({"exclude": "option conflicts with option 'vmid'"})
    for name in ROOT_ONLY:
        if name in call.values:
            raise invalid_fields({name: "Only root may set this option."})
    if {"bwlimit", "ionice", "performance"} & set(call.values):
        call.need("/", "Sys.Modify")
    storage = f"/storage/{call.text('storage', 'local')}"
    if not job and "storage" in call.values:
        call.need(storage, "Datastore.AllocateSpace")
    if job or {"prune-backups", "maxfiles"} & set(call.values):
        call.need(storage, "Datastore.Allocate")


def options_of(call: Call, hidden: frozenset[str] = frozenset(("node", "id", "delete"))) -> dict[str, Any]:
    """The call's options as a job stores them: numbers as numbers, the retention by key."""
    operation = pveapi.table(call.house.release)["POST", "/cluster/backup"]
    found: dict[str, Any] = {}
    for key in call.values:
        known = operation.parameter(key)
        if key in hidden:
            continue
        if key == "prune-backups":
            parts = pveapi.parts_of(operation.parameters[key])
            found[key] = pveapi.parse(parts or {}, call.text(key))
        elif known is not None and known.type in ("integer", "boolean"):
            found[key] = call.number(key)
        else:
            found[key] = call.text(key)
    return found


def begin(call: Call) -> str:
    """POST /nodes/{node}/vzdump. ``OK`` instead of a task when nothing of it is on this node."""
    check(call, job=False)
    options = options_of(call)
    if not ({"vmid", "pool", "exclude"} & set(options) or options.get("all")):
        raise invalid_fields({"vmid": "property is missing"})
    vmids = chosen(call.house, call.node, options)
    if not vmids:
        return "OK"
    refused = [] if options.get("all") else [vmid for vmid in vmids if not call.may(f"/vms/{vmid}", "VM.Backup")]
    allowed = [vmid for vmid in vmids if call.may(f"/vms/{vmid}", "VM.Backup")]

    def work(task: Task) -> None:
        order = ordered(call.house, call.node, options)
        task.log(f"INFO: starting new backup job: {order.command}")
        if refused:
            raise TaskError(f"403 Permission check failed (/vms/{refused[0]}, VM.Backup)")
        _back_up_all(call.house, call.node, dataclasses.replace(order, vmids=tuple(allowed)), task)

    return call.begin("vzdump", str(vmids[0]) if len(vmids) == 1 else "", work)


def ordered(house: House, node: str, options: Mapping[str, Any]) -> Order:
    """What the options mean on that node. Raises TaskError for a storage that cannot be used."""
    name = str(options.get("storage", "local"))
    why = f"could not get storage information for '{name}'"
    try:
        storage = house.volumes.usable(name, node)
    except RefusalError as refusal:
        raise TaskError(f"could not activate storage '{name}': {refusal.text}\n{why}: {refusal.text}") from None
    if "backup" not in storage.content:
        raise TaskError(f"{why}: can't use storage '{name}' for backups - wrong content type")
    return Order(options, storage, tuple(chosen(house, node, options)))


def chosen(house: House, node: str, options: Mapping[str, Any]) -> list[int]:
    """The guests on ``node`` that a backup with these options is of; also those asked for that are nowhere."""
    here = [machine.vmid for machine in house.machines.all() if machine.node == node]
    if "vmid" in options:
        wanted = [int(part) for part in pveapi.split_list(str(options["vmid"]))]
        elsewhere = {machine.vmid for machine in house.machines.all()} - set(here)
        return [vmid for vmid in wanted if vmid not in elsewhere]
    excluded = {int(part) for part in pveapi.split_list(str(options.get("exclude", "")))}
    pool = options.get("pool")
    return [vmid for vmid in here if vmid not in excluded and pool in (None, house.machines.pool_of(vmid))]


def start(house: House, node: str, options: Mapping[str, Any], caller: Caller) -> str:
    """Begins the task of a job; empty when there is nothing to do on that node."""
    vmids = chosen(house, node, options)
    if not vmids:
        return ""

    def work(task: Task) -> None:
        order = ordered(house, node, options)
        task.log(f"INFO: starting new backup job: {order.command}")
        _back_up_all(house, node, order, task)

    return house.tasks.start(node, "vzdump", str(vmids[0]) if len(vmids) == 1 else "", caller, work, _quiet)


def _back_up_all(house: House, node: str, order: Order, task: Task) -> None:
    failed = [vmid for vmid in order.vmids if not _back_up(house, node, order, vmid, task)]
    task.log(f"INFO: Backup job finished {'with errors' if failed else 'successfully'}")
    if failed:
        raise TaskError("job errors")


def _quiet() -> None:
    return


def _back_up(house: House, node: str, order: Order, vmid: int, task: Task) -> bool:
    """One machine; a failure is told and does not keep the next one from being tried."""
    began = house.kit.clock.now()
    task.log(f"INFO: Starting Backup of VM {vmid} (qemu)", f"INFO: Backup started at {_told(began)}")
    try:
        _archive(house, node, order, vmid, task)
    except TaskError as why:
        if task.stopping:
            raise
        text = f"ERROR: Backup of VM {vmid} failed - {why}"
        task.log(text, f"INFO: Failed at {_told(house.kit.clock.now())}")
        return False
    took = time.strftime("%H:%M:%S", time.gmtime(house.kit.clock.now() - began))
    task.log(f"INFO: Finished Backup of VM {vmid} ({took})", f"INFO: Backup finished at {_told(house.kit.clock.now())}")
    return True


def _told(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _archive(house: House, node: str, order: Order, vmid: int, task: Task) -> None:
    missing = f"unable to find VM '{vmid}'"
    with house.machines.locked(vmid, task):
        machine = house.machines.in_task(node, vmid, missing)
        if order.options.get("mode") == "stop" and availability.wants_on(house, vmid):
            raise TaskError(_NO_STOP)
        task.log(f"INFO: status = {'running' if house.machines.is_on(machine) else 'stopped'}")
        if "lock" in machine.config:
            raise TaskError(f"VM is locked ({machine.config['lock']})")
        kept = {key: value for key, value in machine.config.items() if key != "lock"}
        machine.config["lock"] = "backup"
        house.machines.save(machine)
    try:
        path = _write(house, order, machine, kept, task)
    finally:
        if not task.killed:
            with house.machines.locked(vmid, task):
                machine.config.pop("lock", None)
                house.machines.save(machine)
    _annotate(house, order, machine, path, task)
    _prune(order, path, vmid, task)


def _write(house: House, order: Order, machine: Machine, kept: Mapping[str, Any], task: Task) -> Path:
    on = house.machines.is_on(machine)
    disks = _disks(house, machine, kept)
    mode = str(order.options.get("mode", "snapshot")) if on else "stop"
    about = [f"INFO: VM Name: {machine.name}"]
    about += [
        f"INFO: include disk '{name}' '{disk['volid']}' {print_size(disk['size'])}" for name, disk in disks.items()
    ]
    how = [f"INFO: backup mode: {mode}", f"INFO: ionice priority: {order.options.get('ionice', 7)}"]
    task.log(*(about + how if mode == "snapshot" else how + about))
    folder = house.volumes.folder(machine.node, order.storage, "backup")
    pbs, compress = order.storage.type == "pbs", str(order.options.get("compress", "0"))
    path = folder / archives.name(machine.vmid, house.kit.clock.now(), compress, pbs=pbs)
    archive = archives.of(path)
    shown = archive.volume.removeprefix("backup/") if pbs and archive else f"{order.storage.path}/dump/{path.name}"
    task.log(f"INFO: creating {'Proxmox Backup Server' if pbs else 'vzdump'} archive '{shown}'")
    task.pause(house.kit.latencies.create)
    if isinstance(house.guests, Keeps):
        house.guests.save_disks(machine.vmid, archives.beside(path, ".disks"))
    archives.write(path, {"config": dict(kept), "disks": disks, "origin": machine.origin})
    total = sum(int(disk["size"]) for disk in disks.values())
    task.log(f"INFO: 100% ({_size(total)} of {_size(total)})", f"INFO: transferred {_size(total)}")
    task.log(f"INFO: archive file size: {_short(path.stat().st_size)}")
    return path


def _disks(house: House, machine: Machine, kept: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The disks that a backup takes along: no CD-ROMs, none with ``backup=0``."""
    found = {}
    for option in sorted(kept):
        drive = machine.parts(option) if pveapi.privileges.is_drive(option) else {}
        if drive and not drives.is_cdrom(drive) and drive.get("backup", "1") != "0":
            size = house.volumes.size(machine.node, drive["file"]) or 0
            found[option] = {"volid": drive["file"], "size": size}
    return found


def _short(size: int) -> str:
    if size < 1 << 20:
        return f"{size >> 10}KB"
    return f"{size >> 20}MB" if size < 1 << 30 else f"{size / (1 << 30):.2f}GB"


def _size(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"


def _annotate(house: House, order: Order, machine: Machine, path: Path, task: Task) -> None:
    template = str(order.options.get("notes-template", ""))
    if template:
        task.log("INFO: adding notes to backup")
        text, unknown = _notes(house, machine, template)
        if unknown:
            task.log(f"WARN: unable to add notes - unexpected variable name '{unknown}'")
        else:
            archives.beside(path, ".notes").write_text(text)
    if order.options.get("protected"):
        task.log("INFO: marking backup as protected")
        archives.beside(path, ".protected").touch()


def _notes(house: House, machine: Machine, template: str) -> tuple[str, str]:
    """The notes, and the first variable in them that Proxmox does not know."""
    known = {"guestname": machine.name, "node": machine.node, "vmid": str(machine.vmid)}
    known["cluster"] = "lab" if len(house.nodes) > 1 else ""
    text = re.sub(r"\\(n|\\)", lambda found: "\n" if found[1] == "n" else "\\", template)
    text = re.sub(r"{{([^{}\s]+)}}", lambda found: known.get(found[1], found[0]), text)
    unknown = re.search(r"{{([^{}\s]+)}}", text)
    return text, unknown[1] if unknown else ""


def _prune(order: Order, path: Path, vmid: int, task: Task) -> None:
    keep = order.options.get("prune-backups")
    if not isinstance(keep, Mapping):
        return
    told = ", ".join(f"{key}={keep[key]}" for key in sorted(keep))
    task.log(f"INFO: prune older backups with retention: {told}")
    gone = archives.superfluous(archives.listed(path.parent, vmid), keep)
    for archive in gone:
        task.log(f"INFO: removing backup '{order.storage.name}:{archive.volume}'")
        archives.remove(archive.path)
    task.log(f"INFO: pruned {len(gone)} backup(s){' not covered by keep-retention policy' if gone else ''}")
