"""The ``k3s`` command, other than its long-running halves. Outputs recorded from a real run."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.k3s import executable, files, log, nodes, pki, settings, tokens
from funoffshore.lab.k3s.plane import Plane
from funoffshore.lab.kube.api import ApiError

if TYPE_CHECKING:
    from funoffshore.lab.k3s.service import Planes

_USAGE = b"""NAME:
   k3s - Kubernetes, but small and simple

USAGE:
   k3s [global options] command [command options]

COMMANDS:
   server           Run management server
   agent            Run node agent
   etcd-snapshot    Manage etcd snapshots
   secrets-encrypt  Control secrets encryption and keys rotation
   certificate      Manage K3s certificates
   token            Manage tokens
"""
_SNAPSHOTS = f"{files.SERVER}/db/snapshots"


def call(planes: Planes, machine: Machine, argv: list[str]) -> Result:
    """Runs ``k3s …`` to its end."""
    words = argv[1:]
    if words[:1] in (["--version"], ["-v"]):
        version = executable.version_of(machine.path("/usr/local/bin/k3s"))
        commit = tokens.hash_of(version.encode())[:8]
        return Result(0, f"k3s version {version} ({commit})\ngo version go1.26.8\n".encode())
    if not words or words[0] in ("--help", "-h", "help"):
        return Result(0, _USAGE)
    commands: dict[str, Callable[[Planes, Machine, list[str]], Result]] = {
        "server": _foreground,
        "agent": _foreground,
        "token": _token,
        "etcd-snapshot": _snapshot,
        "secrets-encrypt": _encryption,
        "certificate": _certificates,
    }
    command = commands.get(words[0])
    if command is None:
        return Result(1, _USAGE, f"No help topic for '{words[0]}'\n".encode())
    try:
        return command(planes, machine, words)
    except log.Fatal as why:
        return Result(1, b"", (log.line(machine.kit.clock.now(), "fatal", str(why)) + "\n").encode())


def _foreground(planes: Planes, machine: Machine, words: list[str]) -> Result:
    settings.read(machine.path, ["k3s", *words])
    raise log.Fatal(f"Error: the lab runs k3s {words[0]} only as a unit of systemd")


def _plane(planes: Planes, machine: Machine) -> Plane:
    """The cluster of a server whose API answers."""
    if not machine.path(f"{files.SERVER}/token").exists():
        raise log.Fatal(f"Error: open {files.SERVER}/token: no such file or directory")
    plane = planes.get(files.database(machine))
    servers = list(plane.servers.values()) if plane else []
    if plane is None or not any(s.machine.vmid == machine.vmid and s.stage == "ready" for s in servers):
        raise log.Fatal(
            'Error: Get "https://127.0.0.1:6443/version": dial tcp 127.0.0.1:6443: connect: connection refused'
        )
    return plane


def _token(planes: Planes, machine: Machine, words: list[str]) -> Result:
    verb = words[1] if len(words) > 1 else ""
    identity, secret = tokens.generate()
    if verb == "generate":
        return Result(0, f"{identity}.{secret}\n".encode())
    plane = _plane(planes, machine)
    if verb == "create":
        ttl, description = _option(words, "ttl", "24h"), _option(words, "description", "")
        _keep_token(plane, identity, secret, machine.kit.clock.now() + _seconds(ttl), description)
        return Result(0, f"K10{tokens.hash_of(plane.ca)}::{identity}.{secret}\n".encode())
    if verb == "list":
        return Result(0, _token_table(plane, machine.kit.clock.now()))
    if verb == "delete" and len(words) > 2:
        plane.kube.delete("v1/Secret", "kube-system", f"bootstrap-token-{words[2][:6]}")
        return Result(0, f'bootstrap token "{words[2][:6]}" deleted\n'.encode())
    return Result(1, b"", b"Incorrect Usage: k3s token create|delete|generate|list\n")


def _keep_token(plane: Plane, identity: str, secret: str, until: float, description: str) -> None:
    data = {
        "token-id": identity,
        "token-secret": secret,
        "expiration": nodes.stamp(until),
        "description": description,
        "auth-extra-groups": "system:bootstrappers:k3s:default-node-token",
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
    }
    try:
        plane.kube.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": f"bootstrap-token-{identity}", "namespace": "kube-system"},
                "type": "bootstrap.kubernetes.io/token",
                "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
            },
            "k3s",
        )
    except ApiError as why:
        raise log.Fatal(f"Error: {why.message}") from None


def _token_table(plane: Plane, now: float) -> bytes:
    rows: list[tuple[str, ...]] = [("TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")]
    for secret in plane.kube.list("v1/Secret", "kube-system"):
        if secret.get("type") != "bootstrap.kubernetes.io/token":
            continue
        data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        left = datetime.datetime.fromisoformat(data["expiration"]).timestamp() - now
        ttl = f"{int(left // 3600)}h" if left >= 3600 else f"{max(int(left // 60), 0)}m"
        rows.append(
            (data["token-id"], ttl, data["expiration"], "authentication,signing", data["description"] or "<none>",
             data["auth-extra-groups"])
        )  # fmt: skip
    return _table(rows)


def _snapshot(planes: Planes, machine: Machine, words: list[str]) -> Result:
    now = machine.kit.clock.now()
    skipped = settings.foreign(machine.path)
    warned = "".join(log.line(now, "warning", settings.SKIPPING.format(key)) + "\n" for key in skipped).encode()
    done = _snapshot_command(planes, machine, words, now)
    return Result(done.code, done.out, warned + done.err)


def _snapshot_command(planes: Planes, machine: Machine, words: list[str], now: float) -> Result:
    verb = next((w for w in words[1:] if not w.startswith("-")), "save")
    plane = _plane(planes, machine)
    node = next(s.node for s in plane.servers.values() if s.machine.vmid == machine.vmid)
    if verb == "save":
        name = f"{_option(words, 'name', 'on-demand')}-{node}-{int(now)}"
        folder = files.folder(machine, _SNAPSHOTS, 0o700)
        while (folder / name).exists():
            name += "0"
        files.write(machine, f"{_SNAPSHOTS}/{name}", f"snapshot of {plane.identity}\n".ljust(4096), 0o600)
        return Result(0, b"", (log.line(now, "info", f"Snapshot {name} saved.") + "\n").encode())
    if verb in ("ls", "list"):
        found = sorted(machine.path(_SNAPSHOTS).glob("*")) if machine.path(_SNAPSHOTS).is_dir() else []
        facts = [(p.name, p.stat().st_size, nodes.stamp(p.stat().st_mtime)) for p in found]
        if "json" in (_option(words, "o", ""), _option(words, "output", "")):
            items = [_snapshot_object(node, *fact) for fact in facts]
            return Result(0, json.dumps({"kind": "List", "apiVersion": "v1", "items": items}).encode() + b"\n")
        rows = [(n, f"file://{_SNAPSHOTS}/{n}", str(size), made) for n, size, made in facts]
        return Result(0, _table([("Name", "Location", "Size", "Created"), *rows]))
    return Result(1, b"", f"No help topic for '{verb}'\n".encode())


def _snapshot_object(node: str, name: str, size: int, made: str) -> dict[str, object]:
    return {
        "apiVersion": "k3s.cattle.io/v1",
        "kind": "ETCDSnapshotFile",
        "metadata": {"name": f"local-{name}"},
        "spec": {"snapshotName": name, "nodeName": node, "location": f"file://{_SNAPSHOTS}/{name}"},
        "status": {"readyToUse": True, "size": str(size), "creationTime": made},
    }


def _encryption(planes: Planes, machine: Machine, words: list[str]) -> Result:
    _plane(planes, machine)
    if words[1:2] != ["status"]:
        return Result(1, b"", b"Incorrect Usage: the lab knows only k3s secrets-encrypt status\n")
    if not machine.path(f"{files.SERVER}/cred/encryption-config.json").exists():
        return Result(0, b"Encryption Status: Disabled, no configuration file found\n")
    head = b"Encryption Status: Enabled\nCurrent Rotation Stage: start\nServer Encryption Hashes: All hashes match\n\n"
    return Result(0, head + _table([("Active", "Key Type", "Name"), (" *", "AES-CBC", "aescbckey")]))


def _certificates(planes: Planes, machine: Machine, words: list[str]) -> Result:
    if words[1:2] != ["check"]:
        return Result(1, b"", b"Incorrect Usage: the lab knows only k3s certificate check\n")
    folders = [machine.path(p) for p in (f"{files.SERVER}/tls", f"{files.SERVER}/tls/etcd", files.AGENT)]
    found = [(p.name, *pki.subject_of(p.read_bytes())) for folder in folders for p in sorted(folder.glob("*.crt"))]
    if "table" in (_option(words, "o", ""), _option(words, "output", "")):
        rows: list[tuple[str, ...]] = [("FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL TIME", "STATUS")]
        for name, subject, uses, end in found:
            days = (end - datetime.datetime.now(datetime.UTC)).days
            left = f"{days // 365}y" if days >= 730 else f"{days}d"
            rows.append((name, subject, uses, end.strftime("%b %d, %Y %H:%M UTC"), left, "OK"))
        return Result(0, _table(rows))
    now = machine.kit.clock.now()
    lines = []
    for name, subject, uses, end in found:
        until = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(log.line(now, "info", f"{name}: certificate {subject} ({uses}) is ok, expires at {until}"))
    return Result(0, b"", "".join(line + "\n" for line in lines).encode())


def _option(words: list[str], name: str, default: str) -> str:
    for index, word in enumerate(words):
        bare, given, value = word.partition("=")
        if bare.lstrip("-") == name and word.startswith("-"):
            return value if given else (words[index + 1] if index + 1 < len(words) else default)
    return default


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        return float(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        raise log.Fatal(f'Error: invalid value "{text}" for flag -ttl: parse error') from None


def _table(rows: list[tuple[str, ...]]) -> bytes:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    ).encode()
