"""What a host showed: the helper's reply as frozen values. Pure; a reply that is not one raises ReplyError."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from pydantic import SecretStr

from funoffshore.reading import Reading, Unreadable
from funoffshore.world import hostdisks
from funoffshore.world.ssh.wire import ReplyError, bytes_of, count, number, ports, reading, table, text, words

T = TypeVar("T")

CloudInit = Literal["done", "running", "error", "degraded", "disabled", "absent", "unknown"]
"""``unknown``: the program is there and did not say."""


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
class ModeFact:
    """Who may do what with a file, and its size; a link is itself."""

    kind: Literal["file", "directory", "other"]
    mode: int
    """Permission bits, ``0o600``."""
    owner: str
    """``uid:gid`` in numbers."""
    size: int
    mtime: float
    """Unix time of its last change, on the host's clock."""


@dataclass(frozen=True, slots=True)
class CommandFact:
    """What a program said, its tokens blanked out, and how it ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class ConnectFact:
    """Whether a place took a TCP connection from the host within two seconds."""

    open: bool
    said: str
    """Why not: ``Connection refused``."""


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
    addresses: tuple[str, ...] = ()
    """Its own IPv4 and IPv6 addresses, without localhost and link-local ones."""
    systemd: bool = False
    """Whether systemd is its first process."""
    memory_cgroup: bool = False
    """Whether its kernel can limit memory."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """``vm.panic_on_oom`` and the others that ``protect-kernel-defaults`` asks for; left out where it has none."""
    commands: Mapping[str, Reading[CommandFact]] = field(default_factory=dict)
    """By the name in ``Look.commands``; Absent where there is no such program."""
    modes: Mapping[str, Reading[ModeFact]] = field(default_factory=dict)
    """By path; by the pattern, Absent, where nothing fits it."""
    connect: Mapping[str, Reading[ConnectFact]] = field(default_factory=dict)
    """By ``host:port``."""

    @property
    def architecture(self) -> Literal["amd64", "arm64", ""]:
        """As Kubernetes and K3s name it; empty for one that fo knows no binary for."""
        names: dict[str, Literal["amd64", "arm64"]] = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
        return names.get(self.arch, "")

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
    facts = own(answer)
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
        addresses=words(facts, "addresses"),
        systemd=facts.get("systemd") is True,
        memory_cgroup=facts.get("memory_cgroup") is True,
        sysctls=texts(facts, "sysctls"),
        commands=each(commands, "commands", command_fact),
        modes=each(answer.get("modes", {}), "modes", mode_fact),
        connect=each(answer.get("connect", {}), "connect", connect_fact),
    )


def own(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the host says of itself."""
    facts = table(answer.get("facts"), "facts")
    if "error" in facts:
        raise ReplyError(f"the host could not look at itself: {text(facts, 'error')}")
    return facts


def texts(item: Mapping[str, Any], key: str) -> Mapping[str, str]:
    found = table(item.get(key, {}), key)
    return {name: text(found, name) for name in found}


def mode_fact(item: Mapping[str, Any]) -> ModeFact:
    kind = text(item, "kind")
    if kind not in ("file", "directory", "other"):
        raise ReplyError("a file is of no known kind")
    try:
        mode = int(text(item, "mode"), 8)
    except ValueError:
        raise ReplyError("a file's mode is not octal") from None
    size, changed = int(number(item, "size")), number(item, "mtime")
    return ModeFact(cast(Literal["file", "directory", "other"], kind), mode, text(item, "owner"), size, changed)


def command_fact(item: Mapping[str, Any]) -> CommandFact:
    return CommandFact(int(number(item, "code")), text(item, "out"), text(item, "err"))


def connect_fact(item: Mapping[str, Any]) -> ConnectFact:
    return ConnectFact(item.get("open") is True, text(item, "said"))


def file_fact(item: Mapping[str, Any]) -> FileFact:
    shown = mode_fact(item)
    return FileFact(
        kind=shown.kind,
        mode=shown.mode,
        owner=shown.owner,
        size=shown.size,
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


def space_fact(item: Mapping[str, Any]) -> Space:
    return Space(int(number(item, "bytes")), int(number(item, "inodes")))


def file_system_fact(item: Mapping[str, Any]) -> FileSystem:
    return FileSystem(
        type=text(item, "type"),
        bytes=int(number(item, "bytes")),
        device=text(item, "device"),
        device_bytes=int(number(item, "device_bytes")),
        disk=text(item, "disk"),
        disk_bytes=int(number(item, "disk_bytes")),
        tail=int(number(item, "tail")),
        ids=words(item, "ids"),
    )


def unit_fact(item: Mapping[str, Any]) -> UnitFact:
    return UnitFact(
        active=text(item, "ActiveState"),
        sub=text(item, "SubState"),
        enabled=text(item, "UnitFileState"),
        result=text(item, "Result"),
        exit_status=count(text(item, "ExecMainStatus")),
        restarts=count(text(item, "NRestarts")),
        journal=words(item, "journal"),
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
