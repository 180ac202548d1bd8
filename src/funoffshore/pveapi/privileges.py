"""Who may do what: permission checks as values, and the privilege behind each option of a machine.

Facts from pve-access-control ``PVE/RPCEnvironment.pm`` and qemu-server ``PVE/API2/Qemu.pm``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from typing import cast

from funoffshore.pveapi.schema import Tree

Held = Callable[[str], Set[str]]
"""Privileges that the caller holds at a path, inherited ones included."""


def denied(allowed: Tree, parameters: Mapping[str, object], held: Held, user: str = "") -> str | None:
    """None when ``allowed`` is fulfilled, else what Proxmox puts in the brackets of its refusal, perhaps nothing.

    ``user``: who asks, for what everybody may do to themselves.
    """
    if not allowed:
        return None
    kind = allowed[0]
    if kind == "perm":
        return _denied_at(allowed, parameters, held)
    if kind == "perm-modify":
        return _denied_rights(str(parameters.get("path", "")), held)
    if kind in ("userid-param", "userid-group"):
        return _denied_person(allowed, str(parameters.get("userid", "")), held, user)
    branches = [denied(cast(Tree, branch), parameters, held, user) for branch in allowed[1:]]
    if kind == "or":
        return None if None in branches else ""
    return next((why for why in branches if why is not None), None)


def _denied_at(allowed: Tree, parameters: Mapping[str, object], held: Held) -> str | None:
    template, wanted = cast(str, allowed[1]), cast(list[str], allowed[2])
    names = re.findall(r"{([\w-]+)}", template)
    if any(name not in parameters for name in names):
        return ""
    path = template
    for name in names:
        path = path.replace(f"{{{name}}}", str(parameters[name]))
    have = held(path)
    if "any" in allowed[3:]:
        return None if any(p in have for p in wanted) else f"{path}, {'|'.join(wanted)}"
    missing = next((p for p in wanted if p not in have), None)
    return f"{path}, {missing}" if missing else None


def _denied_rights(path: str, held: Held) -> str | None:
    """Whether somebody may say who has which rights at ``path``."""
    of_kind = {"storage": "Datastore.Allocate", "vms": "VM.Allocate", "pool": "Pool.Allocate"}
    top = path.lstrip("/").partition("/")[0]
    wanted = [*([of_kind[top]] if top in of_kind else []), "Permissions.Modify"]
    return None if set(wanted) & held(path) else f"{path}, {'|'.join(wanted)}"


def _denied_person(allowed: Tree, person: str, held: Held, user: str) -> str | None:
    if allowed[1] == "self":
        return None if person == user else ""
    if allowed[0] == "userid-param":
        return _denied_at(("perm", f"/access/realm/{person.rpartition('@')[2]}", [allowed[1]]), {}, held)
    return _denied_at(("perm", "/access/groups", allowed[1], "any"), {}, held)


_BY_PRIVILEGE: dict[str, str] = {
    "VM.Config.CPU": "cores cpu cpulimit cpuunits numa smp sockets vcpus",
    "VM.Config.Memory": "memory balloon shares allow-ksm",
    "VM.Config.HWType": "acpi hotplug kvm machine rng0 scsihw smbios1 tablet vga watchdog",
    "VM.Config.Options": "agent autostart bios description keyboard localtime migrate_downtime migrate_speed name "
    "onboot ostype protection reboot startdate startup tdf template",
    "VM.Config.Disk": "boot bootdisk vmstatestorage",
    "VM.PowerMgmt": "freeze",
}
_OF_OPTION: dict[str, tuple[str, ...]] = {
    option: (privilege,) for privilege, options in _BY_PRIVILEGE.items() for option in options.split()
}
_CLOUD_INIT = ("cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys")
_DRIVE = re.compile(r"(?:ide|sata|scsi|virtio|efidisk|tpmstate)\d+\Z")


def of_option(option: str) -> tuple[str, ...] | None:
    """Privileges of which one is needed at ``/vms/{vmid}`` (or the pool, at create) to set ``option``.

    Empty where the option's value decides (drives, serial ports, USB, PCI) or nothing is needed (tags at create);
    None where only ``root@pam`` may.
    """
    if _DRIVE.match(option) or option in ("cdrom", "tags") or re.match(r"(?:unused|serial|usb|hostpci)\d+\Z", option):
        return ()
    if re.match(r"net\d+\Z", option):
        return ("VM.Config.Network",)
    if option in _CLOUD_INIT or re.match(r"ipconfig\d+\Z", option):
        return ("VM.Config.Cloudinit", "VM.Config.Network")
    if re.match(r"numa\d+\Z", option):
        return ("VM.Config.CPU",)
    return _OF_OPTION.get(option)


def is_drive(option: str) -> bool:
    """Whether ``option`` names a disk or CD-ROM drive."""
    return _DRIVE.match(option) is not None


def role(release: str, *, whole: bool = False) -> dict[str, tuple[str, ...]]:
    """What fo needs, by path: the least that makes, starts, changes and destroys its machines.

    ``whole``: also what high availability, backups, snapshots, a start order, mapped devices and reading files through
    the guest agent take.
    """
    agent = ("VM.Monitor",) if release < "9" else ("VM.GuestAgent.Audit",)
    files = ("VM.GuestAgent.FileRead",) if release >= "9" else ()
    found: dict[str, tuple[str, ...]] = {
        "/": ("Sys.Audit",),
        "/nodes": ("Sys.Audit",) if release < "8.4" else ("Sys.Audit", "Sys.AccessNetwork"),
        "/pool": ("Pool.Allocate", "Pool.Audit"),
        "/sdn/zones/localnetwork": ("SDN.Use",),
        "/storage": ("Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit"),
        "/vms": (
            "VM.Allocate", "VM.Audit", "VM.Clone", "VM.Config.CDROM", "VM.Config.CPU", "VM.Config.Cloudinit",
            "VM.Config.Disk", "VM.Config.HWType", "VM.Config.Memory", "VM.Config.Network", "VM.Config.Options",
            "VM.PowerMgmt", *agent,
        ),
    }  # fmt: skip
    if whole:
        found["/"] += ("Sys.Console", "Sys.Modify")
        found["/mapping"] = ("Mapping.Audit", "Mapping.Use")
        found["/vms"] += ("VM.Backup", "VM.Snapshot", "VM.Snapshot.Rollback", *files)
    return found
