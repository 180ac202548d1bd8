"""Snapshots of machines: configuration and disks of a moment, and the way back to it.

Facts from qemu-server ``PVE/API2/Qemu.pm``, ``PVE/QemuConfig.pm`` and guest-common ``PVE/AbstractConfig.pm``; recorded
from a real 8.4 API.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.guests import Keeps
from funoffshore.lab.pve import drives, power
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die
from funoffshore.lab.pve.tasks import Task, TaskError

_KIND = "snapshot"
_RESERVED = ("current", "pending")


def names(house: House, vmid: int) -> list[str]:
    """The machine's snapshots, in the order of their names."""
    return sorted(house.shelf(_KIND).get(str(vmid)) or {})


def config_of(house: House, vmid: int, name: str) -> dict[str, Any] | None:
    """The configuration that a snapshot kept."""
    found = (house.shelf(_KIND).get(str(vmid)) or {}).get(name)
    return dict(found["config"]) if found else None


def forget(house: House, vmid: int) -> None:
    """The machine is gone, and so are its snapshots."""
    house.shelf(_KIND).delete(str(vmid))
    shutil.rmtree(_folder(house, vmid), ignore_errors=True)


def _folder(house: House, vmid: int) -> Path:
    return house.kit.directory / "pve" / "snapshots" / str(vmid)


def listed(call: Call) -> list[dict[str, Any]]:
    """GET …/snapshot: all of them, and where the machine is now."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    found = []
    for name, body in sorted((call.house.shelf(_KIND).get(str(machine.vmid)) or {}).items()):
        row = {"name": name, "snaptime": body["snaptime"], "description": body["description"]}
        found.append({**row, "vmstate": body["vmstate"], **({"parent": body["parent"]} if body["parent"] else {})})
    now = {"name": "current", "description": "You are here!", "digest": machine.digest}
    parent = {"parent": machine.config["parent"]} if "parent" in machine.config else {}
    return [*found, {**now, "running": int(call.house.machines.is_on(machine)), **parent}]


def take(call: Call) -> str:
    """POST …/snapshot."""
    house, node, vmid, name = call.house, call.node, call.vmid, call.text("snapname")
    if name in _RESERVED:
        raise die(f"unable to use snapshot name '{name}' (reserved name)")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = house.machines.in_task(node, vmid)
            power.check_lock(machine)
            if name in names(house, vmid):
                raise TaskError(f"snapshot name '{name}' already used")
            disks = _disks(house, machine)
            task.log(*(f"snapshotting 'drive-{option}' ({volid})" for option, volid in disks.items()))
            task.pause(house.kit.latencies.task)
            _keep(call, machine, name)

    return call.begin("qmsnapshot", str(vmid), work)


def _disks(house: House, machine: Machine) -> dict[str, str]:
    """Disks by option. Raises TaskError where a storage has no snapshots."""
    found = {}
    for option in sorted(machine.config):
        drive = machine.parts(option) if pveapi.privileges.is_drive(option) else {}
        if drive and not drives.is_cdrom(drive):
            if house.volumes.parse(drive["file"]).storage.type != "lvmthin" and not drive["file"].endswith(".qcow2"):
                raise TaskError("snapshot feature is not available")
            found[option] = drive["file"]
    return found


def _keep(call: Call, machine: Machine, name: str) -> None:
    house = call.house
    folder = _folder(house, machine.vmid)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(house.guests, Keeps):
        house.guests.save_disks(machine.vmid, folder / f"{name}.disks")
    shelf = house.shelf(_KIND)
    body = {
        "config": {key: value for key, value in machine.config.items() if key not in ("parent", "lock")},
        "snaptime": int(house.kit.clock.now()),
        "description": call.text("description"),
        "parent": machine.config.get("parent", ""),
        "vmstate": int(call.flag("vmstate") and house.machines.is_on(machine)),
        "origin": machine.origin,
    }
    with shelf.guard:
        shelf.put(str(machine.vmid), {**(shelf.get(str(machine.vmid)) or {}), name: body})
    machine.config["parent"] = name
    house.machines.save(machine)


def delete(call: Call) -> str:
    """DELETE …/snapshot/{snapname}: whoever descends from it descends from its parent then."""
    house, node, vmid, name = call.house, call.node, call.vmid, call.text("snapname")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = house.machines.in_task(node, vmid)
            power.check_lock(machine)
            found = house.shelf(_KIND).get(str(vmid)) or {}
            if name not in found:
                raise TaskError(f"snapshot '{name}' does not exist")
            task.pause(house.kit.latencies.task)
            parent = found.pop(name)["parent"]
            for body in (body for body in found.values() if body["parent"] == name):
                body["parent"] = parent
            house.shelf(_KIND).put(str(vmid), found)
            (_folder(house, vmid) / f"{name}.disks").unlink(missing_ok=True)
            if machine.config.get("parent") == name:
                machine.config.pop("parent")
                machine.config |= {"parent": parent} if parent else {}
            house.machines.save(machine)

    return call.begin("qmdelsnapshot", str(vmid), work)


def roll_back(call: Call) -> str:
    """POST …/snapshot/{snapname}/rollback: stops the machine; starts it where its memory was kept, or if told to."""
    house, node, vmid, name = call.house, call.node, call.vmid, call.text("snapname")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = house.machines.in_task(node, vmid)
            power.check_lock(machine)
            body = (house.shelf(_KIND).get(str(vmid)) or {}).get(name)
            if body is None:
                raise TaskError(f"snapshot '{name}' does not exist")
            power.switch_off(house, machine)
            task.pause(house.kit.latencies.task)
            if isinstance(house.guests, Keeps):
                house.guests.load_disks(vmid, _folder(house, vmid) / f"{name}.disks")
            machine.config, machine.pending = {**body["config"], "parent": name}, {}
            machine.origin = body["origin"]
            house.machines.save(machine)
            if body["vmstate"] or call.flag("start"):
                power.start(house, node, vmid, task)

    return call.begin("qmrollback", str(vmid), work)
