"""What the Proxmox API answers, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from funoffshore.errors import RefusedError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Version:
    """Release of the API server."""

    release: tuple[int, int]
    text: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One Proxmox node. Memory is in bytes, 0 when the token may not see it."""

    name: str
    online: bool
    memory_total: int
    memory_used: int
    cpus: int = 0
    """Logical CPUs, 0 when the token may not see them."""
    cpu: float = 0.0
    """Load, 0 to 1."""

    @property
    def memory_free(self) -> int:
        return self.memory_total - self.memory_used


@dataclass(frozen=True, slots=True)
class Storage:
    """One storage as one Proxmox node sees it."""

    name: str
    content: frozenset[str]
    available: int
    """Bytes."""
    active: bool
    shared: bool
    node: str = ""
    """The Proxmox node that sees it so."""
    kind: str = ""
    """``dir``, ``lvmthin``, ``zfspool``, ``rbd``, ``pbs``, …"""
    total: int = 0
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume on a storage."""

    volid: str
    """``local:iso/x.iso``."""
    content: str
    size: int = 0
    """Bytes."""


@dataclass(frozen=True, slots=True)
class VmRow:
    """A guest in a list: enough to see that its id is taken, not enough to know whose it is."""

    vmid: int
    node: str
    name: str
    running: bool
    tags: frozenset[str]
    kind: str = "qemu"
    """``qemu`` or ``lxc``."""
    status: str = ""
    """``running``, ``stopped``, or ``unknown`` for one that was made a moment ago."""
    memory: int = 0
    """Bytes that it may grow to."""
    cpus: int = 0
    disk: int = 0
    """Bytes of its boot disk."""
    pool: str = ""
    template: bool = False
    lock: str = ""
    ha: str = ""
    """State as an HA resource; empty when it is none."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The whole Proxmox cluster in one answer, as last broadcast (up to ten seconds old)."""

    guests: list[VmRow]
    nodes: list[NodeStatus]
    storages: list[Storage]
    """Once for each Proxmox node that sees it."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The Proxmox nodes among themselves."""

    name: str
    """Empty for a single node that belongs to no cluster."""
    quorate: bool
    nodes: Mapping[str, bool]
    """Name → whether it is online."""


@dataclass(frozen=True, slots=True)
class VmConfig:
    """The configuration of a VM, pending changes counted as if they had come into force."""

    options: Mapping[str, str]
    """Every option as text, as Proxmox stores it (``scsi0``, ``net0``, ``cores``, ``smbios1``, …)."""
    digest: str = ""
    """SHA-1 of the configuration; a write that carries it is refused once the configuration has changed."""

    def parts(self, option: str, default_key: str = "") -> dict[str, str]:
        """The fields of an option that is a property string; empty when it is not set."""
        return properties(self.options.get(option, ""), default_key)

    @property
    def name(self) -> str:
        return self.options.get("name", "")

    @property
    def identity(self) -> str:
        """SMBIOS system UUID in lower case; empty while the VM is being created, or when it has none."""
        return self.parts("smbios1").get("uuid", "").lower()

    @property
    def lock(self) -> str:
        return self.options.get("lock", "")

    @property
    def cores(self) -> int:
        return int(self.options.get("cores") or 1) * int(self.options.get("sockets") or 1)

    @property
    def memory_mib(self) -> int:
        return int(properties(self.options.get("memory") or "512", "current")["current"])

    def disk_gib(self, disk: str = "scsi0") -> float:
        """Size of ``disk``; 0 when there is none."""
        return size_bytes(self.parts(disk, "file").get("size", "")) / GIB

    def volume(self, drive: str) -> str:
        """Volume in ``drive``; empty when there is none (``none``, ``cdrom``)."""
        volid = self.parts(drive, "file").get("file", "")
        return "" if volid in {"none", "cdrom"} else volid

    @property
    def cdrom(self) -> str:
        """Volume in the drive ide2, or empty."""
        return self.volume("ide2")

    @property
    def protected(self) -> bool:
        return self.options.get("protection", "0") not in {"", "0"}


@dataclass(frozen=True, slots=True)
class TaskState:
    """What a task is doing, or how it ended."""

    running: bool
    exitstatus: str
    """Empty while it runs. ``OK`` and ``WARNINGS: n`` are success."""

    @property
    def succeeded(self) -> bool:
        return self.exitstatus == "OK" or re.fullmatch(r"WARNINGS: \d+", self.exitstatus) is not None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list."""

    upid: str
    type: str
    id: str
    user: str
    """``user@realm!token`` for a task that a token began."""
    ended: bool = False
    exitstatus: str = ""
    """Empty while it runs."""
    started: float = 0.0
    """Unix time on the Proxmox node's clock."""
    finished: float = 0.0
    """Unix time on the Proxmox node's clock; 0 while it runs."""

    @property
    def state(self) -> TaskState:
        return TaskState(not self.ended, self.exitstatus)


@dataclass(frozen=True, slots=True)
class VmBackup:
    """A backup of a VM on a storage."""

    volid: str
    vmid: int
    at: float
    """Unix time."""
    size: int
    """Bytes."""
    notes: str
    protected: bool
    """Kept by whoever prunes."""
    verified: str = ""
    """``ok`` or ``failed``, as a Proxmox Backup Server says; empty where the storage says nothing."""


@dataclass(frozen=True, slots=True)
class UrlMetadata:
    """What a web server says of a file."""

    filename: str
    mimetype: str
    size: int
    """Bytes, 0 when it does not say."""


def properties(text: str, default_key: str = "") -> dict[str, str]:
    """The fields of a property string: ``virtio=AA:…,bridge=vmbr0``. A part without ``=`` gets ``default_key``."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, sign, value = part.partition("=")
        if sign:
            fields[key.strip()] = value.strip()
        elif part.strip():
            fields[default_key] = part.strip()
    return fields


def size_bytes(text: str) -> int:
    """Bytes of a drive's ``size=`` (``300M``, ``1.5G``, ``2T``); 0 for what is not a size."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)([KMGT]?)", text)
    return int(float(match[1]) * _UNITS[match[2]]) if match else 0


def task_node(upid: str) -> str:
    """The Proxmox node that runs the task (``UPID:node:…``). Raises RefusedError for what is no UPID."""
    parts = upid.split(":")
    if len(parts) < 9 or parts[0] != "UPID":
        raise RefusedError(f"Proxmox knows no task {upid[:80]!r}")
    return parts[1]
