"""What the Proxmox API answers, as values. Shapes as recorded from a real 8.4 API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from funoffshore.errors import RefusedError

T = TypeVar("T")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
GIB = 2**30
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What a parser of this module raises for an answer of another shape."""


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


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume on a storage."""

    volid: str
    """``local:iso/x.iso``."""
    content: str


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


@dataclass(frozen=True, slots=True)
class VmConfig:
    """The configuration of a VM, pending changes counted as if they had come into force."""

    name: str
    identity: str
    """SMBIOS system UUID in lower case; empty while the VM is being created, or when it has none."""
    lock: str
    cores: int
    memory_mib: int
    disk_gib: float
    """Size of scsi0; 0 when there is none."""
    cdrom: str
    """Volume in the drive ide2, or empty."""
    protected: bool


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
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    return int(float(match[1]) * _UNITS[match[2]]) if match else 0


def each(parse: Callable[[Mapping[str, Any]], T]) -> Callable[[Any], list[T]]:
    """Reads a list of rows."""
    return lambda rows: [parse(row) for row in rows]


def parse_volume(row: Mapping[str, Any]) -> Volume:
    return Volume(str(row["volid"]), str(row.get("content") or ""))


def parse_interfaces(answer: Mapping[str, Any] | None) -> list[str]:
    """``name: address`` for each address of the guest agent's answer."""
    return [
        f"{face.get('name')}: {where.get('ip-address')}"
        for face in (answer or {}).get("result") or []
        for where in face.get("ip-addresses") or []
    ]


def parse_version(data: Mapping[str, Any]) -> Version:
    """Raises ValueError for an answer without a release."""
    text = str(data.get("version") or data.get("release") or "")
    match = re.match(r"(\d+)\.(\d+)", text)
    if not match:
        raise ValueError(f"no release in {text!r}")
    return Version((int(match[1]), int(match[2])), text)


def parse_node(row: Mapping[str, Any]) -> NodeStatus:
    return NodeStatus(
        name=str(row["node"]),
        online=row.get("status") != "offline",
        memory_total=int(row.get("maxmem") or 0),
        memory_used=int(row.get("mem") or 0),
    )


def parse_storage(row: Mapping[str, Any]) -> Storage:
    return Storage(
        name=str(row["storage"]),
        content=frozenset(str(row.get("content") or "").split(",")) - {""},
        available=int(row.get("avail") or 0),
        active=bool(int(row.get("active", 1))) and bool(int(row.get("enabled", 1))),
        shared=bool(int(row.get("shared") or 0)),
    )


def parse_vm_row(row: Mapping[str, Any], node: str = "") -> VmRow:
    return VmRow(
        vmid=int(row["vmid"]),
        node=str(row.get("node") or node),
        name=str(row.get("name") or ""),
        running=row.get("status") == "running",
        tags=frozenset(re.split(r"[;, ]+", str(row.get("tags") or ""))) - {""},
        kind=str(row.get("type") or "qemu"),
    )


def parse_config(data: Mapping[str, Any]) -> VmConfig:
    cdrom = properties(str(data.get("ide2") or ""), "file").get("file", "")
    return VmConfig(
        name=str(data.get("name") or ""),
        identity=properties(str(data.get("smbios1") or "")).get("uuid", "").lower(),
        lock=str(data.get("lock") or ""),
        cores=int(data.get("cores") or 1) * int(data.get("sockets") or 1),
        memory_mib=int(properties(str(data.get("memory") or "512"), "current")["current"]),
        disk_gib=size_bytes(properties(str(data.get("scsi0") or "")).get("size", "")) / GIB,
        cdrom="" if cdrom in {"none", "cdrom"} else cdrom,
        protected=bool(int(data.get("protection") or 0)),
    )


def parse_task(data: Mapping[str, Any]) -> TaskState:
    running = data.get("status") != "stopped"
    return TaskState(running, "" if running else str(data.get("exitstatus") or "unexpected status"))


def parse_task_row(row: Mapping[str, Any]) -> TaskRow:
    """The list of active tasks carries the token inside ``user``, the archive beside it in ``tokenid``."""
    user, token = str(row.get("user") or ""), str(row.get("tokenid") or "")
    return TaskRow(
        upid=str(row["upid"]),
        type=str(row.get("type") or ""),
        id=str(row.get("id") or ""),
        user=f"{user}!{token}" if token and "!" not in user else user,
        ended=bool(row.get("endtime")),
    )


def task_node(upid: str) -> str:
    """The Proxmox node that runs the task (``UPID:node:…``). Raises RefusedError for what is no UPID."""
    parts = upid.split(":")
    if len(parts) < 9 or parts[0] != "UPID":
        raise RefusedError(f"Proxmox knows no task {upid[:80]!r}")
    return parts[1]
