"""The roles that every Proxmox VE has. Facts from pve-access-control ``PVE/AccessControl.pm``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_MACHINES = (
    "VM.Config.Disk VM.Config.CPU VM.Config.Memory VM.Config.Network VM.Config.HWType VM.Config.Options "
    "VM.Allocate VM.Clone VM.Migrate VM.Snapshot VM.Snapshot.Rollback"
)
_GROUPS: dict[str, tuple[str, str, str]] = {
    "VM": (
        _MACHINES,
        "VM.Config.CDROM VM.Config.Cloudinit VM.Console VM.Backup VM.PowerMgmt",
        "VM.Audit",
    ),
    "Sys": ("Sys.Console Sys.Syslog", "", "Sys.Audit"),
    "Datastore": ("Datastore.Allocate Datastore.AllocateTemplate", "Datastore.AllocateSpace", "Datastore.Audit"),
    "SDN": ("SDN.Allocate", "SDN.Use", "SDN.Audit"),
    "User": ("User.Modify Group.Allocate Realm.AllocateUser", "", ""),
    "Pool": ("Pool.Allocate", "", "Pool.Audit"),
    "Mapping": ("Mapping.Modify", "Mapping.Use", "Mapping.Audit"),
}
"""What only an administrator gets, what a user gets, too, and what everybody may see."""


def builtin(release: str, everything: Iterable[str]) -> dict[str, list[str]]:
    """The roles that cannot be changed, by name."""
    groups = {name: tuple(part.split() for part in parts) for name, parts in _GROUPS.items()}
    if release < "9":
        groups["VM"][0].append("VM.Monitor")
    else:
        agent = ("FileRead", "FileSystemMgmt", "FileWrite", "Unrestricted")
        groups["VM"][0].extend(("VM.Replicate", *(f"VM.GuestAgent.{what}" for what in agent)))
        groups["VM"][2].append("VM.GuestAgent.Audit")
    found = {"Administrator": list(everything), "NoAccess": []}
    for name, (admin, user, audit) in groups.items():
        found[f"PVE{name}Admin"] = [*admin, *user, *audit]
        if user:
            found[f"PVE{name}User"] = [*user, *audit]
    found["PVEAdmin"] = [privilege for parts in groups.values() for part in parts for privilege in part]
    found["PVEAuditor"] = [privilege for _, _, audit in groups.values() for privilege in audit]
    found["PVETemplateUser"] = ["VM.Clone", "VM.Audit"]
    return {name: sorted(privileges) for name, privileges in sorted(found.items())}


def name_of(privileges: Iterable[str]) -> str:
    """What the lab calls a set of privileges that no role was made for."""
    return f"Lab-{hashlib.sha1(','.join(privileges).encode(), usedforsecurity=False).hexdigest()[:8]}"
