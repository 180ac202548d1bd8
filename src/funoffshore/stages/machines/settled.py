"""When a host has become what its machine was made for. Pure."""

from __future__ import annotations

from funoffshore.reading import Present, Unreadable
from funoffshore.world.ssh import HostFacts

CLOUD_INIT_OFF = "/etc/cloud/cloud-init.disabled"
"""While this file exists cloud-init does nothing at boot (cloud-init, ds-identify)."""
_GIB = 1 << 30


def is_settled(host: HostFacts) -> bool:
    """Whether cloud-init has done its work, or is not there, and will not run again."""
    if host.cloud_init in {"disabled", "absent"}:
        return True
    # Written by fo only after a good end; written by hand it is the operator's word that an error was mended.
    return host.cloud_init != "running" and isinstance(host.file(CLOUD_INIT_OFF), Present)


def filesystem_lags(host: HostFacts) -> str:
    """Which file systems do not fill their disks, a clause; empty when all do. Never guesses: a file system whose
    size cannot be told (shared, or of a kind that fo does not grow) is none of its business."""
    parts = []
    for path, reading in sorted(host.file_systems.items()):
        match reading:
            case Present(found) if found.unused:
                parts.append(f"the file system of {path} fills {_gib(found.bytes)} of {_gib(found.disk_bytes)} GiB")
            case Unreadable(why):
                parts.append(f"nobody can tell whether the file system of {path} fills its disk ({why})")
    return ", ".join(parts)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f}"
