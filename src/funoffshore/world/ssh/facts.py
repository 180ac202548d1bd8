"""What a host showed: the helper's reply as frozen values. Pure; a reply that is not one raises ReplyError."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from pydantic import SecretStr

from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world import hostdisks

T = TypeVar("T")

CloudInit = Literal["done", "running", "error", "degraded", "disabled", "absent", "unknown"]
"""``unknown``: the program is there and did not say."""


class ReplyError(ValueError):
    """The bytes are not an answer of the helper. Never holds the bytes."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file, a directory or whatever else is at a path; of a link, what it leads to."""

    kind: Literal["file", "directory", "other"]
    mode: int
    """Permission bits, ``0o600``."""
    owner: str
    """``uid:gid`` in numbers."""
    size: int
    sha256: str = ""
    """Empty for anything but a file, and where it was not asked for."""
    content: SecretStr | None = None
    """Only where it was asked for, and only UTF-8."""
    link: str = ""
    """Where the path leads when it is a symbolic link."""


@dataclass(frozen=True, slots=True)
class UnitFact:
    """A systemd unit as ``systemctl show`` names its state."""

    active: str
    """``active``, ``activating``, ``inactive``, ``failed``, ``deactivating``, ``reloading``."""
    sub: str
    enabled: str
    """``enabled``, ``disabled``, ``static``, …; empty when systemd does not say."""
    result: str
    """``success``, ``exit-code``, ``start-limit-hit``, …"""
    exit_status: int
    restarts: int
    journal: tuple[str, ...] = ()
    """Last lines, oldest first, when asked for."""


@dataclass(frozen=True, slots=True)
class Space:
    """Room on the file system that holds, or would hold, a path."""

    bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What is mounted at a folder, with its device and disk. Sizes are bytes; 0 where they cannot be told, as with
    file systems that share a device or have none."""

    type: str
    """``ext4``, ``overlay``, …"""
    bytes: int
    """What the file system itself says it spans."""
    device: str
    """Kernel name: ``sda1``."""
    device_bytes: int
    disk: str
    """Kernel name of the disk: ``sda``; the device itself where it has no partitions."""
    disk_bytes: int
    tail: int
    """Free bytes right behind the partition, into which it could grow."""
    ids: tuple[str, ...] = ()
    """Names of the device below /dev/disk/by-id."""

    @property
    def unused(self) -> int:
        """Bytes of its disk that it could fill and does not; 0 where it fills it, or where nobody can tell."""
        behind = self.device_bytes - self.bytes
        tail = self.tail if self.tail > hostdisks.TAIL else 0
        return tail + (behind if behind > hostdisks.ROUNDING else 0) if self.bytes else 0


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host in one look. What it did not show is Unreadable, and empty or zero in the plain fields."""

    hostname: str
    uuid: str
    """SMBIOS system UUID, lower case."""
    boot_id: str
    arch: str
    """As uname says: ``x86_64``, ``aarch64``."""
    os: str
    """``debian 12``."""
    kernel: str
    clock_skew: float
    """Seconds the host is ahead of us; known to within half a round trip."""
    clock_synced: bool
    cloud_init: CloudInit
    memory_mib: int
    swap_mib: int
    cpus: int
    cgroup2: bool
    default_route: str
    """Gateway, empty when there is none."""
    listening: frozenset[int]
    """TCP ports."""
    cloud_init_said: tuple[str, ...] = ()
    """Its errors, recoverable ones included."""
    k3s_version: str | None = None
    """``v1.36.4+k3s1``; None when there is no binary, or it does not run."""
    files: Mapping[str, Reading[FileFact]] = field(default_factory=dict)
    units: Mapping[str, Reading[UnitFact]] = field(default_factory=dict)
    space: Mapping[str, Reading[Space]] = field(default_factory=dict)
    file_systems: Mapping[str, Reading[FileSystem]] = field(default_factory=dict)
    """By folder; Absent where nothing is mounted just there."""

    def file(self, path: str) -> Reading[FileFact]:
        """Unreadable for a path that was not looked at."""
        return self.files.get(path, Unreadable(f"{path} was not looked at"))

    def unit(self, name: str) -> Reading[UnitFact]:
        """Unreadable for a unit that was not looked at. ``name`` as it was asked for."""
        return self.units.get(name, Unreadable(f"{name} was not looked at"))


def parse(reply: object, seen_at: float | None = None) -> HostFacts:
    """``reply`` is the helper's whole answer; ``seen_at`` our Unix time when it was made (None: no skew).

    Raises ReplyError for anything else, however it is broken.
    """
    answer = table(table(reply, "reply").get("read"), "read")
    facts = table(answer.get("facts"), "facts")
    if "error" in facts:
        raise ReplyError(f"the host could not look at itself: {text(facts, 'error')}")
    commands = table(answer.get("commands", {}), "commands")
    state, said = cloud_init(table(commands.get("cloud-init", {}), "cloud-init"))
    return HostFacts(
        hostname=text(facts, "hostname"),
        uuid=text(facts, "uuid").lower(),
        boot_id=text(facts, "boot_id"),
        arch=text(facts, "arch"),
        os=f"{text(facts, 'os')} {text(facts, 'os_version')}".strip(),
        kernel=text(facts, "kernel"),
        clock_skew=number(facts, "clock") - seen_at if seen_at is not None else 0.0,
        clock_synced=facts.get("clock_synced") is True,
        cloud_init=state,
        cloud_init_said=said,
        memory_mib=int(number(facts, "memory_kib")) // 1024,
        swap_mib=int(number(facts, "swap_kib")) // 1024,
        cpus=int(number(facts, "cpus")),
        cgroup2=facts.get("cgroup2") is True,
        default_route=text(facts, "default_route"),
        listening=frozenset(ports(facts.get("listening", []))),
        k3s_version=k3s_version(table(commands.get("k3s-version", {}), "k3s-version")),
        files=each(answer.get("files", {}), "files", file_fact),
        units=each(answer.get("units", {}), "units", unit_fact),
        space=each(answer.get("space", {}), "space", space_fact),
        file_systems=each(answer.get("file_systems", {}), "file systems", file_system_fact),
    )


def file_fact(item: Mapping[str, Any]) -> FileFact:
    kind = text(item, "kind")
    if kind not in ("file", "directory", "other"):
        raise ReplyError("a file is of no known kind")
    try:
        mode = int(text(item, "mode"), 8)
    except ValueError:
        raise ReplyError("a file's mode is not octal") from None
    return FileFact(
        kind=cast(Literal["file", "directory", "other"], kind),
        mode=mode,
        owner=text(item, "owner"),
        size=int(number(item, "size")),
        sha256=text(item, "sha256"),
        content=content_of(item),
        link=text(item, "link"),
    )


def content_of(item: Mapping[str, Any]) -> SecretStr | None:
    raw = bytes_of(item)
    try:
        return None if raw is None else SecretStr(raw.decode())
    except UnicodeDecodeError:
        return None


def bytes_of(item: Mapping[str, Any]) -> bytes | None:
    """The content that came with a file, if it did."""
    if "content" not in item:
        return None
    try:
        return base64.b64decode(text(item, "content"), validate=True)
    except (binascii.Error, ValueError):
        raise ReplyError("a file's content is not base64") from None


def space_fact(item: Mapping[str, Any]) -> Space:
    return Space(int(number(item, "bytes")), int(number(item, "inodes")))


def file_system_fact(item: Mapping[str, Any]) -> FileSystem:
    ids = item.get("ids", [])
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise ReplyError("a disk's identities are not a list of names")
    return FileSystem(
        type=text(item, "type"),
        bytes=int(number(item, "bytes")),
        device=text(item, "device"),
        device_bytes=int(number(item, "device_bytes")),
        disk=text(item, "disk"),
        disk_bytes=int(number(item, "disk_bytes")),
        tail=int(number(item, "tail")),
        ids=tuple(ids),
    )


def unit_fact(item: Mapping[str, Any]) -> UnitFact:
    journal = item.get("journal", [])
    if not isinstance(journal, list) or not all(isinstance(line, str) for line in journal):
        raise ReplyError("a journal is not lines")
    return UnitFact(
        active=text(item, "ActiveState"),
        sub=text(item, "SubState"),
        enabled=text(item, "UnitFileState"),
        result=text(item, "Result"),
        exit_status=count(text(item, "ExecMainStatus")),
        restarts=count(text(item, "NRestarts")),
        journal=tuple(journal),
    )


def k3s_version(command: Mapping[str, Any]) -> str | None:
    """``k3s version v1.36.4+k3s1 (abcdef12)``, recorded from a real run."""
    words = text(command, "out").split()
    if command.get("code") != 0 or words[:2] != ["k3s", "version"] or len(words) < 3:
        return None
    return words[2]


def cloud_init(command: Mapping[str, Any]) -> tuple[CloudInit, tuple[str, ...]]:
    """State and complaints, from either form of ``cloud-init status`` (cloudinit/cmd/status.py).

    Exit 2 means *done, with recoverable errors* since 23.4; before, only the text tells.
    """
    if not command:
        return "unknown", ()
    if command.get("state") == "absent":
        return "absent", ()
    out, code = text(command, "out"), command.get("code")
    if out.lstrip().startswith("{"):
        try:
            said = table(json.loads(out), "cloud-init")
        except (ValueError, RecursionError):
            return "unknown", ()
        return state_of(str(said.get("status", "")), code), complaints(said)
    lines = [line.strip() for line in out.splitlines()]
    status = next((line.removeprefix("status:").strip() for line in lines if line.startswith("status:")), "")
    return state_of(status, code), tuple(line for line in lines if "error" in line.lower())


def state_of(status: str, code: object) -> CloudInit:
    if status in ("running", "not run", "not started"):
        return "running"
    if status == "disabled":
        return "disabled"
    if status == "error" or code == 1:
        return "error"
    if "degraded" in status or (status == "done" and code == 2):
        return "degraded"
    return "done" if status == "done" and code == 0 else "unknown"


def complaints(said: Mapping[str, Any]) -> tuple[str, ...]:
    errors = said.get("errors")
    found = [str(line) for line in errors] if isinstance(errors, list) else []
    recoverable = said.get("recoverable_errors")
    for level, lines in recoverable.items() if isinstance(recoverable, dict) else ():
        found += [f"{level}: {line}" for line in lines] if isinstance(lines, list) else []
    return tuple(found)


def each(answer: object, name: str, read: Callable[[Mapping[str, Any]], T]) -> Mapping[str, Reading[T]]:
    return {key: reading(table(item, name), read) for key, item in table(answer, name).items()}


def reading(item: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> Reading[T]:
    """Absent only where the host said so in so many words."""
    match item.get("state"):
        case "present":
            return Present(read(item))
        case "absent":
            return Absent()
        case "unreadable":
            return Unreadable(text(item, "error") or "the host did not say why")
    raise ReplyError("a reading is neither present, absent nor unreadable")


def table(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ReplyError(f"{name} is not a table")
    return value


def text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key, "")
    if not isinstance(value, str):
        raise ReplyError(f"{key} is not text")
    return value


def number(item: Mapping[str, Any], key: str) -> float:
    value = item.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e18:
        raise ReplyError(f"{key} is not a sensible number")
    return value


def count(digits: str) -> int:
    """systemd leaves out what it does not know."""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def ports(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(port) is int and 0 < port < 65536 for port in value):
        raise ReplyError("listening is not a list of ports")
    return value
