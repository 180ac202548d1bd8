"""Changes of a machine that runs: what takes effect at once, what waits for the next start, what cannot be plugged.

Facts from qemu-server ``PVE/QemuServer.pm`` (``vmconfig_hotplug_pending``, ``vmconfig_update_disk``); errors recorded
from a real 8.4 API.
"""

from __future__ import annotations

import re
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve import drives, power
from funoffshore.lab.pve.machines import Machine

_AT_ONCE = re.compile(
    r"(?:lock|name|onboot|shares|startup|description|protection|vmstatestorage|hookscript|tags|cpuunits|cpulimit|tablet"
    r"|hotplug|cicustom|cipassword|citype|ciupgrade|ciuser|nameserver|searchdomain|sshkeys|ipconfig\d+)\Z"
)
_FIXED = ("aio", "discard", "iothread", "product", "queues", "ro", "ssd", "vendor")
"""Properties of a disk that a running machine cannot change."""
_SOFT = ("freeze-fs", "freeze-fs-on-backup", "fstrim_cloned_disks", "guest-fsfreeze")
"""Properties of the agent that are about what Proxmox asks, not about the device."""


def plug(machine: Machine, option: str, value: Any, *, given: str) -> str:
    """Applies a pending value where that is possible; returns why plugging failed, if it did.

    ``given`` is what the caller sent for it.
    """
    drive = pveapi.privileges.is_drive(option)
    unplugged = drive and value is None and option.rstrip("0123456789") in ("scsi", "virtio")
    if unplugged and option in _boot_disks(machine) and "disk" in _features(machine):
        return f"can't unplug bootdisk '{option}'"
    changed_net = re.match(r"net\d+\Z", option) and option in machine.config and value is not None
    if changed_net and "network" in _features(machine) and not re.search(r"(?:[0-9A-Fa-f]{2}:){5}", given):
        return f"error on hot-unplugging device '{option}'"
    if _takes_effect(machine, option, value):
        power.settle(machine, option, machine.pending.pop(option))
    return ""


def _takes_effect(machine: Machine, option: str, value: Any) -> bool:
    kind = option.rstrip("0123456789")
    if _AT_ONCE.match(option) or kind == "unused":
        return True
    if kind == "net":
        return "network" in _features(machine)
    if kind == "usb":
        return "usb" in _features(machine)
    if option == "balloon":
        return bool((machine.config.get("balloon") != 0) == (value != 0))
    if option == "agent":
        return _hard(machine, machine.config.get("agent")) == _hard(machine, value)
    return pveapi.privileges.is_drive(option) and _drive_takes_effect(machine, option, value)


def _drive_takes_effect(machine: Machine, option: str, value: Any) -> bool:
    now = machine.parts(option)
    wanted = machine.read(option, str(value)) if value is not None else {}
    if now and wanted and drives.is_cdrom(now) and drives.is_cdrom(wanted):
        return True
    if now and wanted and now["file"] == wanted["file"]:
        return all(now.get(key) == wanted.get(key) for key in _FIXED)
    return "disk" in _features(machine) and option.rstrip("0123456789") in ("scsi", "virtio")


def _features(machine: Machine) -> set[str]:
    """What the machine's ``hotplug`` allows."""
    chosen = str(machine.config.get("hotplug", "1"))
    if chosen in ("0", "1"):
        return {"network", "disk", "usb"} if chosen == "1" else set()
    return set(pveapi.split_list(chosen))


def _hard(machine: Machine, value: Any) -> dict[str, str]:
    """What of the agent's settings is the device itself."""
    parts = machine.read("agent", str(value)) if value is not None else {}
    return {key: text for key, text in {"enabled": "0", **parts}.items() if key not in _SOFT}


def _boot_disks(machine: Machine) -> list[str]:
    order = str(machine.config.get("boot", "")).removeprefix("order=").split(";")
    return [device for device in order if pveapi.privileges.is_drive(device) and device in machine.config]
