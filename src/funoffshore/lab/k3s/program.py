"""The ``k3s`` command, other than its long-running halves. Outputs recorded from a real run."""

from __future__ import annotations

import base64
import datetime
import secrets
from typing import TYPE_CHECKING

from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.k3s import (
    certificates,
    executable,
    files,
    log,
    nodes,
    reset,
    settings,
    snapshotting,
    tokens,
    words,
)  # fmt: skip
from funoffshore.lab.k3s.plane import Plane
from funoffshore.lab.k3s.process import Process
from funoffshore.lab.k3s.server import Server
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


def call(planes: Planes, machine: Machine, argv: list[str], process: Process | None = None) -> Result:
    """Runs ``k3s …`` to its end. ``process`` is the machine's server or agent, if one was ever started."""
    rest = argv[1:]
    running = process if process is not None and not process.stopped.is_set() else None
    if rest[:1] in (["--version"], ["-v"]):
        version = executable.version_of(machine.path("/usr/local/bin/k3s"))
        commit = tokens.hash_of(version.encode())[:8]
        return Result(0, f"k3s version {version} ({commit})\ngo version go1.26.8\n".encode())
    if not rest or rest[0] in ("--help", "-h", "help"):
        return Result(0, _USAGE)
    now = machine.kit.clock.now()
    try:
        match rest[0]:
            case "server" | "agent":
                return _foreground(planes, machine, rest, running)
            case "token":
                return _token(machine, rest, running)
            case "etcd-snapshot":
                return snapshotting.run(_server(machine, running), rest)
            case "secrets-encrypt":
                return _encryption(machine, rest, running)
            case "certificate":
                return _certificates(machine, rest, running)
    except log.Fatal as why:
        return Result(1, b"", (log.line(now, "fatal", str(why)) + "\n").encode())
    return Result(1, _USAGE, f"No help topic for '{rest[0]}'\n".encode())


def _foreground(planes: Planes, machine: Machine, rest: list[str], running: Process | None) -> Result:
    told = settings.read(machine.path, ["k3s", *rest])
    if rest[0] == "server" and reset.wanted(told):
        return reset.run(planes, machine, told, running=running is not None)
    raise log.Fatal(f"Error: the lab runs k3s {rest[0]} only as a unit of systemd")


def _server(machine: Machine, running: Process | None) -> Server:
    """The machine's server, whose API answers. Raises Fatal."""
    if not machine.path(f"{files.SERVER}/token").exists():
        raise log.Fatal(f"Error: open {files.SERVER}/token: no such file or directory")
    if not isinstance(running, Server) or running.stage != "ready":
        raise log.Fatal(
            'Error: Get "https://127.0.0.1:6443/version": dial tcp 127.0.0.1:6443: connect: connection refused'
        )
    return running


def _token(machine: Machine, rest: list[str], running: Process | None) -> Result:
    verb = rest[1] if len(rest) > 1 else ""
    identity, secret = tokens.generate()
    if verb == "generate":
        return Result(0, f"{identity}.{secret}\n".encode())
    server = _server(machine, running)
    plane = server.plane
    if verb == "create":
        ttl, description = words.option(rest, "ttl", "24h"), words.option(rest, "description")
        _keep_token(plane, identity, secret, machine.kit.clock.now() + _seconds(ttl), description)
        return Result(0, f"K10{tokens.hash_of(plane.ca)}::{identity}.{secret}\n".encode())
    if verb == "list":
        return Result(0, _token_table(plane, machine.kit.clock.now()))
    if verb == "delete" and len(rest) > 2:
        plane.kube.delete("v1/Secret", "kube-system", f"bootstrap-token-{rest[2][:6]}")
        return Result(0, f'bootstrap token "{rest[2][:6]}" deleted\n'.encode())
    if verb == "rotate":
        return _rotate(machine, server, rest)
    return Result(1, b"", b"Incorrect Usage: k3s token create|delete|generate|list|rotate\n")


def _rotate(machine: Machine, server: Server, rest: list[str]) -> Result:
    """Asks the server beside it, with the old token. Raises Fatal."""
    given = words.option(rest, "token", words.option(rest, "t"))
    old = given or machine.path(f"{files.SERVER}/token").read_text().strip()
    try:
        token = tokens.parse(old)
    except tokens.HashLengthError:
        raise log.Fatal("Error: invalid token CA hash length") from None
    real = tokens.hash_of(server.plane.ca)
    if token.ca_hash and token.ca_hash != real:
        why = f"token CA hash does not match the Cluster CA certificate hash: {token.ca_hash} != {real}"
        raise log.Fatal(f"Error: {why}")
    if server.role_of("server", token.password) != "server":
        raise log.Fatal("Error: not authorized")
    server.rotate(words.option(rest, "new-token") or secrets.token_hex(16))
    warning = (
        "\033[33mWARNING\033[0m: Recommended to keep a record of the old token. If restoring from a snapshot, you must "
        "use the token associated with that snapshot.\n"
    )
    return Result(0, f"{warning}Token rotated, restart k3s nodes with new token\n".encode())


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
    return words.table(rows)


def _encryption(machine: Machine, rest: list[str], running: Process | None) -> Result:
    _server(machine, running)
    if rest[1:2] != ["status"]:
        return Result(1, b"", b"Incorrect Usage: the lab knows only k3s secrets-encrypt status\n")
    if not machine.path(f"{files.SERVER}/cred/encryption-config.json").exists():
        return Result(0, b"Encryption Status: Disabled, no configuration file found\n")
    head = b"Encryption Status: Enabled\nCurrent Rotation Stage: start\nServer Encryption Hashes: All hashes match\n\n"
    return Result(0, head + words.table([("Active", "Key Type", "Name"), (" *", "AES-CBC", "aescbckey")]))


def _certificates(machine: Machine, rest: list[str], running: Process | None) -> Result:
    if rest[1:2] == ["check"]:
        plane = getattr(running, "plane", None)
        if running is not None and isinstance(plane, Plane):
            certificates.age(machine, plane, running.node)
        return certificates.check(machine, rest)
    if rest[1:2] == ["rotate"]:
        return certificates.rotate(machine, rest)
    return Result(1, b"", b"Incorrect Usage: the lab knows only k3s certificate check and rotate\n")


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        return float(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        raise log.Fatal(f'Error: invalid value "{text}" for flag -ttl: parse error') from None
