"""The door to the hypervisor's API, certificate pinned."""

from funoffshore.world.proxmox.api import Proxmox, release_of
from funoffshore.world.proxmox.grants import Grants, grant_line
from funoffshore.world.proxmox.refusals import already_exists, has_changed, is_busy, is_missing
from funoffshore.world.proxmox.shapes import (
    ClusterStatus,
    NodeStatus,
    Resources,
    Storage,
    TaskRow,
    TaskState,
    UrlMetadata,
    Version,
    VmBackup,
    VmConfig,
    VmRow,
    Volume,
    properties,
    size_bytes,
)

__all__ = [
    "ClusterStatus",
    "Grants",
    "NodeStatus",
    "Proxmox",
    "Resources",
    "Storage",
    "TaskRow",
    "TaskState",
    "UrlMetadata",
    "Version",
    "VmBackup",
    "VmConfig",
    "VmRow",
    "Volume",
    "already_exists",
    "grant_line",
    "has_changed",
    "is_busy",
    "is_missing",
    "properties",
    "release_of",
    "size_bytes",
]
