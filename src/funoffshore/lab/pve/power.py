"""Machines started and stopped.

Facts from qemu-server ``PVE/QemuServer.pm`` (``vm_start``, ``vm_stop``); recorded from a real 8.4 API.
"""

from __future__ import annotations

import re
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.guests import AgentSilentError, Hardware
from funoffshore.lab.pve import availability, cloudinit, drives, mappings
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die
from funoffshore.lab.pve.tasks import Task, TaskError

SHUTDOWN_SECONDS = 180


def check_lock(machine: Machine) -> None:
    """Raises TaskError for a machine whose configuration is locked."""
    if "lock" in machine.config:
        raise TaskError(f"VM is locked ({machine.config['lock']})")


def begin_start(call: Call) -> str:
    """POST …/status/start."""
    call.refuse_skiplock()
    house, node, vmid = call.house, call.node, call.vmid
    if availability.managed(house, vmid):
        return _ask(call, "hastart", "started")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            start(house, node, vmid, task)

    return call.begin("qmstart", str(vmid), work)


def _ask(call: Call, kind: str, wanted: str, timeout: int | None = None) -> str:
    """A task that only tells the HA manager, and ends before that has acted."""
    house, vmid = call.house, call.vmid

    def work(task: Task) -> None:
        task.log(f"Requesting HA {'start' if wanted == 'started' else 'stop'} for VM {vmid}")
        task.pause(0)
        trouble = availability.in_error(house, vmid) if wanted == "started" else ""
        if trouble:
            task.log(trouble)
            raise TaskError(f"command 'ha-manager set vm:{vmid} --state started' failed: exit code 255")
        availability.request(house, vmid, wanted, timeout)

    return call.begin(kind, str(vmid), work)


def start(house: House, node: str, vmid: int, task: Task) -> None:
    """The worker behind a start: pending values take effect, then the guest gets power."""
    machine = house.machines.in_task(node, vmid)
    if machine.config.get("template"):
        raise TaskError("you can't start a vm if it's a template")
    check_lock(machine)
    if house.machines.is_on(machine):
        raise TaskError(f"VM {vmid} already running")
    apply_pending(machine)
    task.pause(house.kit.latencies.task)
    _check_devices(house, machine, task)
    if cloudinit.has_drive(machine):
        task.log("generating cloud-init ISO")
        cloudinit.write(house, machine)
    switch_on(house, machine, task)


def _check_devices(house: House, machine: Machine, task: Task) -> None:
    for option in sorted(machine.config):
        if pveapi.privileges.is_drive(option):
            volid = machine.parts(option).get("file", "none")
            if ":" in volid and house.volumes.size(machine.node, volid) is None:
                raise TaskError(f"volume '{volid}' does not exist")
        if re.match(r"net\d+\Z", option):
            bridge = machine.parts(option).get("bridge", "")
            if bridge not in house.bridges:
                task.log(f"bridge '{bridge}' does not exist")
                raise TaskError("start failed: QEMU exited with code 1")
    mappings.check_start(house, machine)
    if machine.config.get("bios") == "ovmf" and "efidisk0" not in machine.config:
        task.warn("no efidisk configured! Using temporary efivars disk.")


def switch_on(house: House, machine: Machine, task: Task | None = None) -> None:
    """Power for the guest. Raises TaskError with QEMU's words when it cannot start."""
    try:
        house.guests.power_on(hardware(house, machine))
    except ValueError as why:
        if task is not None:
            task.log(str(why))
        raise TaskError("start failed: QEMU exited with code 1") from why
    machine.on, machine.started = True, house.kit.clock.now()
    machine.pid = task.pid + 6 if task is not None else 4000 + machine.vmid
    house.machines.save(machine)


def hardware(house: House, machine: Machine) -> Hardware:
    """The machine as its guest sees it."""
    seed, disk, data = None, 0, 0
    for option in sorted(machine.config):
        if not pveapi.privileges.is_drive(option):
            continue
        drive = machine.parts(option)
        if drives.is_cdrom(drive):
            if drives.is_cloud_init(drive) and seed is None:
                seed = cloudinit.folder(house, machine)
            elif ":iso/" in drive["file"] and seed is None:
                seed = house.volumes.file(machine.node, house.volumes.parse(drive["file"]))
        elif drive.get("serial") == "fo-data":
            data = house.volumes.size(machine.node, drive["file"]) or drives.disk_size(drive)
        elif option != "efidisk0" and not disk:
            disk = house.volumes.size(machine.node, drive["file"]) or drives.disk_size(drive)
    nets = sorted(option for option in machine.config if re.match(r"net\d+\Z", option))
    return Hardware(
        vmid=machine.vmid,
        name=machine.name,
        uuid=machine.parts("smbios1").get("uuid", "").lower(),
        cores=machine.cores,
        memory_mib=machine.memory,
        disk_gib=disk / 1024**3,
        image=machine.origin,
        seed=seed,
        macs=tuple(machine.parts(option).get("macaddr", "") for option in nets),
        agent=machine.agent,
        data_disk_gib=data / 1024**3,
    )


def show_disks(house: House, machine: Machine) -> None:
    """A running guest sees that its disks have grown, where its driver knows how to tell it."""
    tell = getattr(house.guests, "resize", None)
    if tell is not None:
        seen = hardware(house, machine)
        tell(machine.vmid, seen.disk_gib, seen.data_disk_gib)


def apply_pending(machine: Machine) -> None:
    """Pending values become the live ones. The caller saves."""
    for option, value in machine.pending.items():
        settle(machine, option, value)
    machine.pending = {}


def settle(machine: Machine, option: str, value: Any) -> None:
    """One value becomes the live one, None removes it; a disk that makes room stays as unused."""
    before = machine.config.pop(option, None)
    if value is not None:
        machine.config[option] = value
    replaced = value is None or str(before).split(",")[0] != str(value).split(",")[0]
    if before is not None and replaced and pveapi.privileges.is_drive(option):
        keep_unused(machine, str(before))


def keep_unused(machine: Machine, drive: str) -> None:
    """A detached disk of the machine's own stays as ``unused<n>``; CD-ROMs just go."""
    volid = drive.split(",")[0]
    if "media=cdrom" in drive or ":" not in volid or f"vm-{machine.vmid}-" not in volid:
        return
    for index in range(256):
        if f"unused{index}" not in machine.config:
            machine.config[f"unused{index}"] = volid
            return


def begin_stop(call: Call) -> str:
    """POST …/status/stop."""
    call.refuse_skiplock()
    house, node, vmid = call.house, call.node, call.vmid
    if availability.managed(house, vmid):
        return _ask(call, "hastop", "stopped", 0)

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = _in_power_task(house, node, vmid)
            task.pause(house.kit.latencies.task)
            switch_off(house, machine)

    return call.begin("qmstop", str(vmid), work)


def _in_power_task(house: House, node: str, vmid: int) -> Machine:
    machine = house.machines.in_task(node, vmid, f"unable to find configuration file for VM {vmid} on node '{node}'")
    check_lock(machine)
    return machine


def switch_off(house: House, machine: Machine) -> None:
    """Pulls the plug, if it is in."""
    if house.machines.is_on(machine):
        house.guests.power_off(machine.vmid)
        machine.on = False
        house.machines.save(machine)


def begin_shutdown(call: Call) -> str:
    """POST …/status/shutdown."""
    call.refuse_skiplock()
    house, node, vmid = call.house, call.node, call.vmid
    seconds, force = call.number("timeout", SHUTDOWN_SECONDS), call.flag("forceStop")
    if availability.managed(house, vmid):
        return _ask(call, "hashutdown", "stopped", call.number("timeout", 60))

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = _in_power_task(house, node, vmid)
            task.pause(house.kit.latencies.task)
            if house.machines.is_on(machine) and not shut_down(house, machine, task, seconds):
                if not force:
                    raise TaskError("VM quit/powerdown failed - got timeout")
                task.log("VM still running - terminating now with SIGTERM")
                switch_off(house, machine)

    return call.begin("qmshutdown", str(vmid), work)


def shut_down(house: House, machine: Machine, task: Task, seconds: float) -> bool:
    """Asks the guest to power off and waits; whether it did."""
    if machine.agent:
        try:
            house.guests.agent(machine.vmid, "ping", {})
        except AgentSilentError:
            text = f"VM {machine.vmid} qmp command 'guest-ping' failed - got timeout"
            task.log(f"QEMU Guest Agent is not running - {text}")
    house.guests.shut_down(machine.vmid)
    end = house.kit.clock.monotonic() + seconds
    step = 0.01
    while house.machines.is_on(machine):
        if house.kit.clock.monotonic() >= end or task.hurry:
            return False
        task.pause(step)
        step = min(step * 1.5, 1.0)
    return True


def begin_reset(call: Call) -> str:
    """POST …/status/reset."""
    call.refuse_skiplock()
    house, node, vmid = call.house, call.node, call.vmid
    _need_running(call)

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = house.machines.in_task(node, vmid)
            check_lock(machine)
            task.pause(house.kit.latencies.task)
            switch_off(house, machine)
            switch_on(house, machine, task)

    return call.begin("qmreset", str(vmid), work)


def begin_reboot(call: Call) -> str:
    """POST …/status/reboot: shut down, pending values, start."""
    house, node, vmid = call.house, call.node, call.vmid
    _need_running(call)
    seconds = call.number("timeout", SHUTDOWN_SECONDS)

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = house.machines.in_task(node, vmid)
            check_lock(machine)
            task.pause(house.kit.latencies.task)
            if not shut_down(house, machine, task, seconds):
                raise TaskError("VM quit/powerdown failed - got timeout")
            apply_pending(machine)
            if cloudinit.has_drive(machine):
                cloudinit.write(house, machine)
            switch_on(house, machine, task)

    return call.begin("qmreboot", str(vmid), work)


def _need_running(call: Call) -> None:
    machine = call.house.machines.find(call.vmid)
    if machine is None or not call.house.machines.is_on(machine):
        raise die(f"VM {call.vmid} not running")
