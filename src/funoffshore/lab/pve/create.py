"""Machines made and destroyed.

Facts from qemu-server ``PVE/API2/Qemu.pm`` (``create_vm``, ``destroy_vm``); recorded from a real 8.4 API.
"""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import unquote

from funoffshore import pveapi
from funoffshore.lab.pve import (
    availability,
    clones,
    cloudinit,
    drives,
    firewall,
    jobs,
    mishaps,
    power,
    restore,
    snapshots,
)
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die, forbidden
from funoffshore.lab.pve.tasks import Task, TaskError

_NOT_OPTIONS = frozenset(
    (
        "node", "vmid", "archive", "bwlimit", "force", "ha-managed", "import-working-storage", "live-restore", "pool",
        "start", "storage", "unique",
    )
)  # fmt: skip
_KEY = re.compile(r"(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-\S+|sk-\S+) +[A-Za-z0-9+/]{16,}={0,2}(?: .*)?\Z")


def create(call: Call) -> str:
    """POST …/qemu: checks in Proxmox's order, takes the ID, answers with the UPID of the rest."""
    vmid, pool = call.vmid, call.text("pool")
    settings = {key: call.text(key) for key in call.values if key not in _NOT_OPTIONS}
    check_keys(settings)
    if pool and pool not in call.house.machines.pools:
        raise forbidden(f"pool '{pool}' does not exist")
    if call.text("storage"):
        call.need(f"/storage/{call.text('storage')}", "Datastore.AllocateSpace")
    if not call.may(f"/vms/{vmid}", "VM.Allocate") and not (pool and call.may(f"/pool/{pool}", "VM.Allocate")):
        raise forbidden()
    if "archive" in call.values:
        restore.check(call)
    if "cdrom" in settings:
        settings["ide2"] = settings.pop("cdrom") + ",media=cdrom"
    drives.check_storage_access(call, vmid, settings)
    drives.check_option_privileges(call, vmid, pool, settings)
    drives.check_devices(call, vmid, pool, settings)
    drives.check_import_syntax(call, settings)
    if "archive" in call.values:
        return restore.begin(call, {k: stored_value(call.house, k, value) for k, value in settings.items()})
    mishaps.take_the_id(call, vmid)
    machine = call.house.machines.reserve(call.node, vmid, call.house.kit.clock.now())

    def work(task: Task) -> None:
        _build(call, machine, settings, task)

    return call.begin("qmcreate", str(vmid), work, lambda: call.house.machines.release(vmid))


def check_keys(settings: dict[str, str]) -> None:
    """Refuses SSH keys that are none with 500, as the real API does whatever else is wrong."""
    lines = unquote(settings.get("sshkeys", "")).split("\n")
    if any(line.strip() and not line.startswith("#") and not _KEY.match(line.strip()) for line in lines):
        raise die("SSH public key validation error")


def _build(call: Call, machine: Machine, settings: dict[str, str], task: Task) -> None:
    """The worker: disks, then the whole configuration at once, then the pool."""
    house, vmid = call.house, machine.vmid
    shop = drives.Workshop(house, machine.node, vmid, task, call.text("storage"))
    try:
        origin = drives.realise(shop, settings)
        task.pause(0 if origin else house.kit.latencies.task)
    except TaskError as why:
        for volid in shop.made:
            house.volumes.delete(machine.node, volid)
        house.machines.forget(vmid)
        raise TaskError(f"unable to create VM {vmid} - {why}") from why
    machine.config = configuration(house, settings)
    machine.origin = origin
    house.machines.save(machine)
    if call.text("pool"):
        house.machines.join_pool(call.text("pool"), vmid)
    if call.flag("start"):
        task.log("Execute autostart")
        power.begin_start(call)


def configuration(house: House, settings: dict[str, str]) -> dict[str, Any]:
    """What is stored for ``settings`` whose drives are already real."""
    config: dict[str, Any] = {}
    for option, value in settings.items():
        stored = stored_value(house, option, value)
        if stored is not None:
            config[option] = stored
    config.setdefault("boot", drives.default_boot(config))
    config["meta"] = f"creation-qemu={house.qemu},ctime={int(house.kit.clock.now())}"
    if config.get("vmgenid", "1") == "1":
        config["vmgenid"] = str(uuid.uuid4())
    config.setdefault("smbios1", f"uuid={uuid.uuid4()}")
    return config


def stored_value(house: House, option: str, value: str) -> Any:
    """The value as the configuration holds it; None when it means that the option is not set."""
    if re.match(r"net\d+\Z", option):
        return drives.printed_net(pveapi.parse(_parts(house, option), value))
    if option == "description":
        return value.rstrip("\n") or None
    if option == "tags":
        return value or " "
    known = pveapi.table(house.release)["POST", "/nodes/{node}/qemu"].parameter(option)
    if known is not None and known.type in ("integer", "boolean"):
        return int(value)
    return value


def _parts(house: House, option: str) -> Any:
    known = pveapi.table(house.release)["POST", "/nodes/{node}/qemu"].parameter(option)
    return pveapi.parts_of(known) if known is not None else {}


def destroy(call: Call) -> str:
    """DELETE …/qemu/{vmid}: refuses what it can see at once, the rest is the task's."""
    call.refuse_skiplock()
    house, node, vmid = call.house, call.node, call.vmid
    machine = house.machines.on_node(node, vmid)
    if machine.config.get("protection"):
        raise die(f"can't remove VM {vmid} - protection mode enabled")
    purge, everything = call.flag("purge"), call.flag("destroy-unreferenced-disks")
    if availability.configured(house, vmid) and not purge:
        raise die(f"unable to remove VM {vmid} - used in HA resources and purge parameter not set.")
    if house.machines.is_on(machine):
        raise die(f"VM {vmid} is running - destroy failed")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            if call.flag("skiplock") and (machine := house.machines.find(vmid)) is not None:
                machine.config.pop("lock", None)
            _destroy(house, node, vmid, task, purge, everything)

    return call.begin("qmdestroy", str(vmid), work)


def _destroy(house: House, node: str, vmid: int, task: Task, purge: bool, everything: bool) -> None:
    machine = house.machines.in_task(node, vmid)
    power.check_lock(machine)
    if house.machines.is_on(machine):
        raise TaskError(f"VM {vmid} is running - destroy failed")
    clones.refuse_bases_in_use(house, machine)
    task.pause(house.kit.latencies.task)
    for volid in _referenced(machine) | (set(house.volumes.disks_of(node, vmid)) if everything else set()):
        if house.volumes.parse(volid).owner == vmid:
            house.volumes.delete(node, volid)
    house.guests.destroy(vmid)
    firewall.forget(house, vmid)
    cloudinit.forget(house, vmid)
    snapshots.forget(house, vmid)
    if purge:
        task.log(f"purging VM {vmid} from related configurations..")
        jobs.forget(house, vmid)
        if availability.remove(house, vmid):
            task.log(f"NOTE: removed VM {vmid} from HA resource configuration.")
    house.machines.forget(vmid)


def _referenced(machine: Machine) -> set[str]:
    """Disk volumes that the configuration names."""
    found = set()
    for option, value in {**machine.config, **machine.pending}.items():
        if value is not None and (pveapi.privileges.is_drive(option) or re.match(r"unused\d+\Z", option)):
            volid = str(value).split(",")[0]
            if ":" in volid and "/iso/" not in volid and ":iso/" not in volid:
                found.add(volid)
    return found
