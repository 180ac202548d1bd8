"""Machines made from backup archives.

Facts from qemu-server ``PVE/API2/Qemu.pm`` (``create_vm`` with ``archive``) and ``PVE/QemuServer.pm``
(``restore_vma_archive``, ``restore_update_config_line``).
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from typing import Any
from urllib.parse import quote

from funoffshore import pveapi
from funoffshore.lab.guests import Keeps
from funoffshore.lab.pve import archives, drives, power
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die
from funoffshore.lab.pve.tasks import Task, TaskError
from funoffshore.lab.pve.volumes import Volume, parse_size

_PLAIN = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~äöüÄÖÜß"
"""What Proxmox leaves as it is when it writes a description into a configuration file."""


def begin(call: Call, settings: dict[str, Any]) -> str:
    """POST …/qemu with ``archive``; ``settings`` go over what the archive holds. The caller may create."""
    house, vmid = call.house, call.vmid
    volume = _archive(call, call.text("archive"), vmid)
    machine = _target(call)

    def work(task: Task) -> None:
        try:
            _restore(call, machine, volume, settings, task)
        except TaskError as why:
            raise TaskError(f"unable to restore VM {vmid} - {why}") from why
        if call.text("pool"):
            house.machines.join_pool(call.text("pool"), vmid)
        if call.flag("start"):
            task.log("Execute autostart")
            power.begin_start(call)

    return call.begin("qmrestore", str(vmid), work, lambda: house.machines.release(vmid))


def check(call: Call) -> None:
    """Refuses an archive that the caller may not read, before anything else of the machine is looked at."""
    _archive(call, call.text("archive"), call.vmid)


def _archive(call: Call, volid: str, own: int | None) -> Volume:
    """The archive; of a machine that is not ``own`` only for who may back that one up."""
    volume = call.house.volumes.parse(volid)
    if volume.kind != "backup":
        raise die(f"unable to parse backup volume name '{volid}'")
    if volume.owner is None and not call.may(f"/storage/{volume.storage.name}", "Datastore.Allocate"):
        raise die(f"missing privileges to access {volid}")
    if volume.owner is not None and volume.owner != own:
        call.need(f"/storage/{volume.storage.name}", "Datastore.AllocateSpace")
        call.need(f"/vms/{volume.owner}", "VM.Backup")
    return volume


def extract(call: Call) -> str:
    """GET …/vzdump/extractconfig: the machine's configuration file as the archive keeps it."""
    volume = _archive(call, call.text("volume"), None)
    path, shown = call.house.volumes.file(call.node, volume), call.house.volumes.shown_path(volume)
    try:
        body = _body(path, shown)
    except TaskError as why:
        raise die(str(why)) from None
    config = body["config"]
    lines = [f"#{quote(line, safe=_PLAIN)}" for line in str(config.get("description", "")).split("\n") if line]
    lines += [f"{key}: {config[key]}" for key in sorted(config) if key != "description"]
    lines += [f"#qmdump#map:{option}:drive-{option}:{_place(disk)}:raw:" for option, disk in body["disks"].items()]
    return "\n".join(lines) + "\n"


def _place(disk: dict[str, Any]) -> str:
    return str(disk["volid"]).partition(":")[0]


def _target(call: Call) -> Machine:
    """The machine to fill, locked and its lock file held. With ``force`` one that is there and off is overwritten."""
    house, vmid = call.house, call.vmid
    there = house.machines.find(vmid)
    if there is None:
        return house.machines.reserve(call.node, vmid, house.kit.clock.now())
    why = ""
    if not call.flag("force"):
        why = f"VM {vmid} already exists on node '{there.node}'"
    elif there.node != call.node:
        why = f"unable to find configuration file for VM {vmid} on node '{call.node}'"
    elif house.machines.is_on(there):
        why = "vm is running"
    elif there.config.get("protection"):
        why = "- protection mode enabled"
    elif "lock" in there.config:
        why = f"VM is locked ({there.config['lock']})"
    if why:
        raise die(f"unable to restore VM {vmid} - {why}")
    call.need(f"/vms/{vmid}", "VM.Backup")
    house.machines.hold(vmid)
    there.config["lock"] = "create"
    house.machines.save(there)
    return there


def _restore(call: Call, machine: Machine, volume: Volume, settings: dict[str, Any], task: Task) -> None:
    house = call.house
    path = house.volumes.file(machine.node, volume)
    shown = house.volumes.shown_path(volume)
    old = list(house.volumes.disks_of(machine.node, machine.vmid))
    shop = drives.Workshop(house, machine.node, machine.vmid, task, call.text("storage"))
    try:
        task.log(f"restore vma archive: vma extract -v -r /var/tmp/vzdumptmp{task.pid}.fifo {shown}")
        body = _body(path, shown)
        task.pause(house.kit.latencies.create)
        for volid in old:
            house.volumes.delete(machine.node, volid)
        config = _config(call, shop, body, task)
    except TaskError:
        for volid in shop.made:
            house.volumes.delete(machine.node, volid)
        _back_out(house, machine, had_disks=bool(old))
        raise
    house.guests.destroy(machine.vmid)
    if isinstance(house.guests, Keeps):
        house.guests.load_disks(machine.vmid, archives.beside(path, ".disks"))
    machine.config, machine.pending, machine.origin = {**config, **settings}, {}, str(body["origin"])
    house.machines.save(machine)
    task.log("progress 100%", "rescan volumes...")


def _back_out(house: House, machine: Machine, *, had_disks: bool) -> None:
    if len(machine.config) > 1 or had_disks:
        machine.config.pop("lock", None)
        house.machines.save(machine)
    else:
        house.machines.forget(machine.vmid)


def _body(path: Any, shown: str) -> dict[str, Any]:
    try:
        return archives.read(path)
    except FileNotFoundError:
        raise TaskError(f"volume '{shown}' does not exist") from None
    except (ValueError, json.JSONDecodeError):
        raise TaskError(f"command 'vma extract -v -r {shown}' failed: exit code 1") from None


def _config(call: Call, shop: drives.Workshop, body: dict[str, Any], task: Task) -> dict[str, Any]:
    """The archive's configuration, its disks made anew; with ``unique`` also what may not be there twice."""
    house, unique = call.house, call.flag("unique")
    found: dict[str, Any] = {}
    for option, value in body["config"].items():
        if option in body["disks"]:
            found[option] = _disk(call, shop, option, str(value), body["disks"][option], task)
        elif pveapi.privileges.is_drive(option) and "cloudinit" in str(value):
            storage = house.volumes.storage(call.text("storage") or str(value).split(":")[0])
            volid = shop.allocate(storage, drives.CLOUD_INIT_SIZE, "qcow2", "cloudinit")
            found[option] = f"{volid},media=cdrom"
        elif option == "vmgenid" and value != "0":
            found[option] = str(uuid.uuid4())
        elif unique and option == "smbios1":
            found[option] = re.sub(r"uuid=[0-9a-fA-F-]+", f"uuid={uuid.uuid4()}", str(value))
        elif unique and re.match(r"net\d+\Z", option):
            tail = ":".join(f"{b:02X}" for b in secrets.token_bytes(3))
            found[option] = re.sub(r"=(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", f"=BC:24:11:{tail}", str(value), count=1)
        elif option not in ("lock", "parent", "digest") and not re.match(r"unused\d+\Z", option):
            found[option] = value
    return found


def _disk(call: Call, shop: drives.Workshop, option: str, value: str, disk: dict[str, Any], task: Task) -> str:
    volumes = call.house.volumes
    name = call.text("storage") or str(disk["volid"]).split(":")[0]
    storage = volumes.find(name)
    if storage is None:
        raise TaskError(f"storage '{name}' does not exist")
    rest = value.partition(",")[2]
    size = int(disk["size"]) or parse_size(dict(part.split("=") for part in rest.split(",")).get("size", "0"))
    task.log(f"CFG: device drive-{option}: size {size}")
    volid = shop.allocate(storage, size, "raw")
    task.log(f"new volume ID is '{volid}'")
    return f"{volid},{rest}" if rest else volid
