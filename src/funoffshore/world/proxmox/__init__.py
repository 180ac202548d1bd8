"""The door to the hypervisor's API, certificate pinned."""

from funoffshore.world.proxmox.api import Proxmox, already_exists, is_missing
from funoffshore.world.proxmox.door import grant_line
from funoffshore.world.proxmox.shapes import (
    NodeStatus,
    Storage,
    TaskRow,
    TaskState,
    Version,
    VmConfig,
    VmRow,
    Volume,
)

__all__ = [
    "NodeStatus",
    "Proxmox",
    "Storage",
    "TaskRow",
    "TaskState",
    "Version",
    "VmConfig",
    "VmRow",
    "Volume",
    "already_exists",
    "grant_line",
    "is_missing",
]
