"""Reads the Proxmox API's answers as values. Shapes as recorded from a real 8.4 API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

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
)

T = TypeVar("T")
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
"""What a parser of this module raises for an answer of another shape."""


def each(parse: Callable[[Mapping[str, Any]], T]) -> Callable[[Any], list[T]]:
    """Reads a list of rows."""
    return lambda rows: [parse(row) for row in rows]


def parse_volume(row: Mapping[str, Any]) -> Volume:
    return Volume(str(row["volid"]), str(row.get("content") or ""), int(row.get("size") or 0))


def parse_backup(row: Mapping[str, Any]) -> VmBackup:
    return VmBackup(
        volid=str(row["volid"]),
        vmid=int(row.get("vmid") or 0),
        at=float(row.get("ctime") or 0),
        size=int(row.get("size") or 0),
        notes=str(row.get("notes") or ""),
        protected=_flag(row.get("protected")),
        verified=str((row.get("verification") or {}).get("state") or ""),
    )


def parse_metadata(answer: Mapping[str, Any]) -> UrlMetadata:
    return UrlMetadata(
        str(answer.get("filename") or ""), str(answer.get("mimetype") or ""), int(answer.get("size") or 0)
    )


def parse_config_text(text: str) -> VmConfig:
    """A configuration file as a backup holds it: comments are the description, sections behind it are snapshots."""
    options: dict[str, str] = {}
    described: list[str] = []
    for line in text.splitlines():
        if line.startswith("["):
            break
        if line.startswith("#"):
            described += [] if line.startswith("#qmdump#") else [unquote(line[1:])]
        elif match := re.match(r"([a-z][a-z0-9_-]*):\s*(.*\S)\s*$", line):
            options[match[1]] = match[2]
    if described:
        options["description"] = "\n".join(described)
    return parse_config(options)


def _flag(value: Any, otherwise: bool = False) -> bool:
    """A boolean as Proxmox writes it: 0 and 1, as number or text."""
    return otherwise if value is None or value == "" else bool(int(value))


def flat(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as texts. What Proxmox took apart (``prune-backups``) is a property string again, keys in order."""
    texts: dict[str, str] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            texts[str(name)] = ",".join(f"{key}={value[key]}" for key in sorted(value))
        elif isinstance(value, list):
            texts[str(name)] = ",".join(str(part) for part in value)
        elif value is not None:
            texts[str(name)] = str(int(value)) if isinstance(value, bool) else str(value)
    return texts


def keyed(key: str) -> Callable[[Any], dict[str, dict[str, str]]]:
    """Reads a list of rows as texts by their ``key``; neither the key nor a digest stays in the row."""

    def parse(rows: Any) -> dict[str, dict[str, str]]:
        return {
            str(row[key]): {name: text for name, text in flat(row).items() if name not in (key, "digest")}
            for row in rows
        }

    return parse


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
        cpus=int(row.get("maxcpu") or 0),
        cpu=float(row.get("cpu") or 0),
    )


def parse_storage(row: Mapping[str, Any], node: str = "") -> Storage:
    """A row of one node's own list of storages."""
    return Storage(
        name=str(row["storage"]),
        content=_content(row),
        available=int(row.get("avail") or 0),
        active=_flag(row.get("active"), True) and _flag(row.get("enabled"), True),
        shared=_flag(row.get("shared")),
        node=node,
        kind=str(row.get("type") or ""),
        total=int(row.get("total") or 0),
    )


def _content(row: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(row.get("content") or "").split(",")) - {""}


def _parse_storage_resource(row: Mapping[str, Any]) -> Storage:
    return Storage(
        name=str(row["storage"]),
        content=_content(row),
        available=max(0, int(row.get("maxdisk") or 0) - int(row.get("disk") or 0)),
        active=row.get("status") == "available",
        shared=_flag(row.get("shared")),
        node=str(row["node"]),
        kind=str(row.get("plugintype") or ""),
        total=int(row.get("maxdisk") or 0),
    )


def parse_resources(rows: Sequence[Mapping[str, Any]]) -> Resources:
    """The unfiltered list of the whole cluster; kinds that nobody asked for are passed over."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(str(row["type"]), []).append(row)
    return Resources(
        guests=[parse_vm_row(row) for kind in ("qemu", "lxc") for row in kinds.get(kind, [])],
        nodes=[parse_node(row) for row in kinds.get("node", [])],
        storages=[_parse_storage_resource(row) for row in kinds.get("storage", [])],
    )


def parse_cluster_status(rows: Sequence[Mapping[str, Any]]) -> ClusterStatus:
    """A list without a row of type ``cluster`` is that of a single node, which needs no quorum."""
    head = [row for row in rows if row["type"] == "cluster"]
    nodes = {str(row["name"]): _flag(row.get("online")) for row in rows if row["type"] == "node"}
    if not head:
        return ClusterStatus("", True, nodes)
    return ClusterStatus(str(head[0].get("name") or ""), _flag(head[0].get("quorate")), nodes)


def parse_pending(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str | None, str | None]]:
    """Option → its value now, and its value once what is pending has come into force; None: it is not set."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for row in rows:
        if row["key"] == "digest":
            continue
        now = None if row.get("value") is None else str(row["value"])
        then = now if row.get("pending") is None else str(row["pending"])
        found[str(row["key"])] = (now, None if _flag(row.get("delete")) else then)
    return found


def parse_mapping(rows: Sequence[Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """Resource mapping → Proxmox nodes that have such a device."""
    return {
        str(row["id"]): frozenset(properties(str(line)).get("node", "") for line in row.get("map") or ()) - {""}
        for row in rows
    }


def parse_file(answer: Mapping[str, Any]) -> bytes:
    """The bytes of a file read through the guest agent. Raises ValueError for one that was cut off."""
    if _flag(answer.get("truncated")):
        raise ValueError("the file is too long and was cut off")
    text = str(answer["content"])
    try:
        return text.encode("latin-1")  # every byte of the file travels as the character of that number
    except UnicodeEncodeError:
        return text.encode()


def parse_vm_row(row: Mapping[str, Any], node: str = "") -> VmRow:
    return VmRow(
        vmid=int(row["vmid"]),
        node=str(row.get("node") or node),
        name=str(row.get("name") or ""),
        running=row.get("status") == "running",
        tags=frozenset(re.split(r"[;, ]+", str(row.get("tags") or ""))) - {""},
        kind=str(row.get("type") or "qemu"),
        status=str(row.get("status") or ""),
        memory=int(row.get("maxmem") or 0),
        cpus=int(row.get("maxcpu") or row.get("cpus") or 0),
        disk=int(row.get("maxdisk") or 0),
        pool=str(row.get("pool") or ""),
        template=_flag(row.get("template")),
        lock=str(row.get("lock") or ""),
        ha=str(row.get("hastate") or ""),
    )


def parse_config(data: Mapping[str, Any]) -> VmConfig:
    options = {str(key): str(value) for key, value in data.items() if key != "digest" and value is not None}
    found = VmConfig(options, str(data.get("digest") or ""))
    # Said here, where an answer of another shape is refused, and not wherever a number is first asked for.
    _ = (found.cores, found.memory_mib)
    return found


def parse_task(data: Mapping[str, Any]) -> TaskState:
    running = data.get("status") != "stopped"
    return TaskState(running, "" if running else str(data.get("exitstatus") or "unexpected status"))


def parse_task_row(row: Mapping[str, Any]) -> TaskRow:
    """The list of active tasks carries the token inside ``user``, the archive beside it in ``tokenid``."""
    user, token = str(row.get("user") or ""), str(row.get("tokenid") or "")
    ended = bool(row.get("endtime"))
    return TaskRow(
        upid=str(row["upid"]),
        type=str(row.get("type") or ""),
        id=str(row.get("id") or ""),
        user=f"{user}!{token}" if token and "!" not in user else user,
        ended=ended,
        exitstatus=str(row.get("status") or "unexpected status") if ended else "",
        started=float(row.get("starttime") or 0),
        finished=float(row.get("endtime") or 0),
    )


def parse_log(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a page. A task without output shows one line that says so, which is none (pve-common)."""
    lines = [str(row.get("t") or "") for row in rows]
    return [] if lines == ["no content"] else lines
