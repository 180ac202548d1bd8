"""Machines moved to another node, running or not.

Facts from qemu-server ``PVE/API2/Qemu.pm`` (``migrate_vm``, ``migrate_vm_precondition``) and ``PVE/QemuMigrate.pm``.
"""

from __future__ import annotations

from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve import drives, power
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die, invalid
from funoffshore.lab.pve.tasks import Task, TaskError


def _local(call: Call, machine: Machine) -> list[dict[str, Any]]:
    """The volumes that only the machine's own node has."""
    found = []
    for option in machine.config:
        drive = machine.parts(option) if pveapi.privileges.is_drive(option) else {}
        if ":" in drive.get("file", ""):
            volume = call.house.volumes.parse(drive["file"])
            if not volume.storage.shared:
                size = call.house.volumes.size(machine.node, drive["file"]) or 0
                cdrom = int(drives.is_cdrom(drive) and not drives.is_cloud_init(drive))
                found.append({"volid": drive["file"], "drivename": option, "size": size, "cdrom": cdrom})
    return found


def asked(call: Call) -> dict[str, Any]:
    """GET …/migrate: what would be in the way."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    on = call.house.machines.is_on(machine)
    found: dict[str, Any] = {"running": int(on), "local_disks": _local(call, machine), "local_resources": []}
    found |= {"mapped-resources": [], "not_allowed_nodes": {}}
    if on:
        return found
    others = [n for n in call.house.nodes if n != machine.node and call.house.cluster.online(n)]
    lacking = {node: missing for node in others if (missing := _missing(call, machine, node))}
    allowed = [node for node in others if node not in lacking]
    refused = {node: {"unavailable_storages": missing} for node, missing in lacking.items()}
    return {**found, "allowed_nodes": allowed, "not_allowed_nodes": refused}


def _missing(call: Call, machine: Machine, node: str) -> list[str]:
    """The storages of the machine that ``node`` does not have."""
    volids = [machine.parts(o).get("file", "") for o in machine.config if pveapi.privileges.is_drive(o)]
    storages = {call.house.volumes.parse(volid).storage for volid in volids if ":" in volid}
    return sorted(storage.name for storage in storages if not storage.on(node))


def migrate(call: Call) -> str:
    """POST …/migrate: refuses what it can see at once, the rest is the task's."""
    house, node, vmid, target = call.house, call.node, call.vmid, call.text("target")
    if target == node:
        raise invalid(target="target is local node.")
    if target not in house.nodes:
        raise die(f"no such cluster node '{target}'")
    machine = house.machines.on_node(node, vmid)
    if "lock" in machine.config:
        raise die(f"VM is locked ({machine.config['lock']})")
    if house.machines.is_on(machine) and not call.flag("online"):
        raise die("can't migrate running VM without --online")
    if (missing := _missing(call, machine, target)) and "targetstorage" not in call.values:
        raise die(f"storage '{missing[0]}' is not available on node '{target}'")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            _migrate(call, target, task)

    return call.begin("qmigrate", str(vmid), work)


def _migrate(call: Call, target: str, task: Task) -> None:
    house, machine = call.house, call.house.machines.in_task(call.node, call.vmid)
    power.check_lock(machine)
    on, local = house.machines.is_on(machine), _local(call, machine)
    task.log(f"starting migration of VM {call.vmid} to node '{target}' ({house.address})")
    for disk in local:
        if disk["cdrom"]:
            task.log(f"can't migrate local disk '{disk['volid']}': local cdrom image")
            raise TaskError("migration aborted")
        if on and not call.flag("with-local-disks"):
            task.log("can't live migrate attached local disks without with-local-disks option")
            raise TaskError("migration aborted")
        task.log(f"found local disk '{disk['volid']}' ({'attached' if on else 'in current VM config'})")
    task.pause(house.kit.latencies.task)
    if not house.cluster.online(target):
        raise TaskError("migration aborted")
    house.volumes.carry(call.vmid, machine.node, target)
    machine.node = target
    house.machines.save(machine)
    task.log("migration finished successfully (duration 00:00:01)")
