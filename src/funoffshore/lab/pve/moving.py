"""Disks moved to another storage, or given to another machine.

Facts from qemu-server ``PVE/API2/Qemu.pm`` (``move_vm_disk``).
"""

from __future__ import annotations

from funoffshore import pveapi
from funoffshore.lab.pve import drives, power
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die, invalid_fields
from funoffshore.lab.pve.tasks import Task, TaskError

_STALE = "checksum mismatch (file change by other user?)"


def move(call: Call) -> str:
    """POST …/move_disk, to another storage; the machine may run. The old disk stays as unused unless ``delete``."""
    house, node, vmid, option = call.house, call.node, call.vmid, call.text("disk")
    if "target-vmid" in call.values:
        return _begin_giving(call)
    if not call.text("storage"):
        raise invalid_fields({"storage": "no target specified"})
    call.need(f"/storage/{call.text('storage')}", "Datastore.AllocateSpace")
    _check(call, house.machines.on_node(node, vmid))

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = house.machines.in_task(node, vmid)
            power.check_lock(machine)
            if option not in machine.config:
                raise TaskError(f"disk '{option}' does not exist")
            _move(call, machine, task)

    return call.begin("qmmove", str(vmid), work)


def _begin_giving(call: Call) -> str:
    """To another machine of the same node, whose volume it becomes by name; both have to be off."""
    house, node, vmid, target = call.house, call.node, call.vmid, call.number("target-vmid")
    option = call.text("disk")
    slot = call.text("target-disk") or option
    if call.text("storage"):
        raise invalid_fields({"storage": "either set 'storage' or 'target-vmid', but not both"})
    call.need(f"/vms/{target}", "VM.Config.Disk")
    if target == vmid:
        raise invalid_fields({"target-vmid": "must be different than source VM"})
    source, other = house.machines.on_node(node, vmid), house.machines.on_node(node, target)
    for machine in (source, other):
        if "lock" in machine.config:
            raise die(f"VM is locked ({machine.config['lock']})")
    if option not in source.config:
        raise die(f"disk '{option}' does not exist")
    if slot in other.config:
        raise invalid_fields({"target-disk": f"disk key '{slot}' is already in use for VM '{target}'"})
    if house.machines.is_on(source) and not option.startswith("unused"):
        raise die(f"cannot move disk of running VM '{vmid}' to another VM")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task), house.machines.locked(target, task):
            _give(call, option, slot, target, task)

    return call.begin("qmmove", str(vmid), work)


def _give(call: Call, option: str, slot: str, target: int, task: Task) -> None:
    house, node = call.house, call.node
    source, other = house.machines.in_task(node, call.vmid), house.machines.in_task(node, target)
    if option not in source.config:
        raise TaskError(f"disk '{option}' does not exist")
    drive = source.parts(option)
    before = drive["file"] if pveapi.privileges.is_drive(option) else str(source.config[option])
    task.log(f"moving disk '{option}' from VM '{call.vmid}' to '{target}'")
    task.pause(house.kit.latencies.task)
    size = house.volumes.size(node, before)
    if size is None:
        raise TaskError(f"volume '{before}' does not exist")
    # Renamed by its owner: the bytes stay where they are.
    fresh = house.volumes.allocate(node, house.volumes.parse(before).storage, target, size, _form(before))
    house.volumes.delete(node, before)
    task.log(f"removing disk '{option}' from VM '{call.vmid}' config")
    del source.config[option]
    other.config[slot] = fresh if slot.startswith("unused") else drives.printed({**drive, "file": fresh})
    house.machines.save(source)
    house.machines.save(other)


def _check(call: Call, machine: Machine) -> None:
    option = call.text("disk")
    if call.text("digest") not in ("", machine.digest):
        raise die(_STALE)
    if "lock" in machine.config:
        raise die(f"VM is locked ({machine.config['lock']})")
    if option not in machine.config:
        raise die(f"disk '{option}' does not exist")
    drive = machine.parts(option)
    if drives.is_cdrom(drive):
        raise die("you can't move a cdrom")
    volume = call.house.volumes.parse(drive["file"])
    if "images" not in call.house.volumes.usable(call.text("storage"), call.node).content:
        raise die(f"storage '{call.text('storage')}' does not support content-type 'images'")
    if volume.storage.name == call.text("storage") and call.text("format", _form(drive["file"])) == _form(
        drive["file"]
    ):
        raise die("you can't move to the same storage with same format")


def _form(volid: str) -> str:
    return volid.rpartition(".")[2] if volid.endswith((".qcow2", ".vmdk", ".raw")) else "raw"


def _move(call: Call, machine: Machine, task: Task) -> None:
    house, option = call.house, call.text("disk")
    drive = machine.parts(option)
    before = drive["file"]
    size = house.volumes.size(machine.node, before)
    if size is None:
        raise TaskError(f"storage migration failed: volume '{before}' does not exist")
    task.log(f"create full clone of drive {option} ({before})")
    shop = drives.Workshop(house, machine.node, machine.vmid, task)
    fresh = shop.allocate(house.volumes.storage(call.text("storage")), size, call.text("format") or _form(before))
    try:
        task.pause(house.kit.latencies.create)
    except TaskError as why:
        house.volumes.delete(machine.node, fresh)
        raise TaskError(f"storage migration failed: {why}") from why
    if house.machines.is_on(machine):
        task.log(f"drive mirror is starting for drive-{option}", "all 'mirror' jobs are ready")
        task.log(f"drive-{option}: mirror-job finished")
    drive["file"] = fresh
    machine.config[option] = drives.printed(drive) if pveapi.privileges.is_drive(option) else fresh
    if call.flag("delete"):
        house.volumes.delete(machine.node, before)
    else:
        power.keep_unused(machine, before)
    house.machines.save(machine)
