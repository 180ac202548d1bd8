"""``k3s server --cluster-reset``, run by hand while the unit is stopped: one member is left, or older objects are back.

Order, files, words: K3s repository, ``pkg/cli/server/server.go``, ``pkg/cluster/managed.go``, ``pkg/etcd/etcd.go``.
"""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING, Any

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.k3s import executable, files, log, sealed, settings, tokens
from funoffshore.lab.k3s.plane import SEALED_BUCKET, Plane

if TYPE_CHECKING:
    from funoffshore.lab.k3s.service import Planes

FLAG = f"{files.SERVER}/db/reset-flag"
ETCD = f"{files.SERVER}/db/etcd"
PREPARING = "Error: preparing server: failed to start cluster: start managed database: "
DIFFERENT = "bootstrap data already found and encrypted with different token"
DONE = (
    "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete "
    "${datadir}/server/db on each peer etcd server and rejoin the nodes"
)
_BEFORE = (
    "Managed etcd cluster membership was previously reset, please remove the cluster-reset flag and start k3s "
    f"normally. If you need to perform another cluster reset, you must first manually delete the file at {FLAG}"
)


def wanted(told: settings.Settings) -> bool:
    """Whether this start is a reset. Raises Fatal for a restore without one."""
    if told.text("cluster-reset-restore-path") and not told.flag("cluster-reset"):
        raise log.Fatal("Error: invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
    return told.flag("cluster-reset")


def run(planes: Planes, machine: Machine, told: settings.Settings, *, running: bool) -> Result:
    """The whole command. Raises Fatal with what K3s says."""
    said: list[str] = []
    node = told.text("node-name") or machine.name
    address = (told.many("node-ip") or [machine.address])[0]

    def say(level: str, text: str) -> None:
        said.append(log.line(machine.kit.clock.now(), level, text))

    try:
        path, token = _checked(machine, told)
        say("info", f"Starting k3s {executable.version_of(machine.path('/usr/local/bin/k3s'))}")
        if running:
            why = "listen tcp :6443: bind: address already in use"
            raise log.Fatal(
                f"Error: preparing server: failed to start cluster: init cluster datastore and https: {why}"
            )
        circumstances.check_write(machine, f"{files.SERVER}/db/reset-flag")
        machine.kit.clock.sleep(machine.kit.latencies.k3s_first / 2)
        state = _restored(machine, path, token, say) if path else _current(planes, machine, token)
        _settle(planes, machine, state, node, address, removed=not path)
    except log.Fatal as why:
        say("fatal", str(why))
        return Result(1, b"", _text(said))
    except OSError as why:
        say("fatal", f"Error: preparing server: {str(why.strerror).lower()}")
        return Result(1, b"", _text(said))
    say("info", DONE)
    return Result(0, b"", _text(said))


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _checked(machine: Machine, told: settings.Settings) -> tuple[str, str]:
    """Path of the snapshot (empty: none) and the token's password. Raises Fatal."""
    if told.text("server"):
        raise log.Fatal(
            "Error: cannot perform cluster-reset while server URL is set - remove server from configuration before "
            "resetting"
        )
    path = told.text("cluster-reset-restore-path")
    kept = machine.path(f"{files.SERVER}/token")
    token = told.text("token") or (kept.read_text().strip() if kept.is_file() else "")
    if path and not token:
        raise log.Fatal(f"Error: {files.SERVER}/token does not exist, please pass --token to complete the restoration")
    if not path and machine.path(FLAG).exists():
        raise log.Fatal(PREPARING + _BEFORE)
    return path, tokens.password_of(token)


def _restored(machine: Machine, path: str, password: str, say: Any) -> sealed.State:
    """The state in the snapshot; the old database is put aside first. Raises Fatal."""
    real = machine.path(path)
    if real.is_dir():
        raise log.Fatal(PREPARING + f"etcd: snapshot path must be a file, not a directory: {path}")
    if not real.is_file():
        raise log.Fatal(PREPARING + f"etcd: snapshot path does not exist: {path}")
    try:
        data = sealed.plain(real.read_bytes())
        sealed.parse(data)
    except sealed.BrokenSnapshotError:
        raise log.Fatal(PREPARING + "snapshot file integrity check failed, possibly corrupted") from None
    if machine.path(ETCD).is_dir():
        aside = f"{ETCD}-old-{int(machine.kit.clock.now())}"
        machine.path(ETCD).rename(machine.path(aside))
        say("info", f"Pre-restore etcd database moved to {aside}")
    _flag(machine)
    try:
        return sealed.read(data, password)
    except sealed.OtherTokenError:
        # The database is in its place by then; it opens to nobody but who has its token.
        identity = _identity()
        machine.kit.store.put(SEALED_BUCKET, identity, {})
        _member(machine, identity, "")
        raise log.Fatal(DIFFERENT) from None


def _current(planes: Planes, machine: Machine, password: str) -> sealed.State:
    """The state in the database on the disk. Raises Fatal."""
    identity = files.database(machine)
    plane = planes.get(identity) if identity else None
    if plane is None:
        raise log.Fatal(f"Error: etcd database not found in {files.SERVER}")
    _flag(machine)
    if password and password != plane.password:
        raise log.Fatal(DIFFERENT)
    return plane.state()


def _flag(machine: Machine) -> None:
    files.folder(machine, f"{files.SERVER}", 0o700)
    files.folder(machine, f"{files.SERVER}/db", 0o700)
    files.write(machine, FLAG, b"", 0o600)


def _identity() -> str:
    return "k3s-" + secrets.token_hex(8)


def _settle(
    planes: Planes, machine: Machine, state: sealed.State, node: str, address: str, *, removed: bool
) -> None:  # fmt: skip
    """The state becomes a cluster of its own, with this server as its only member."""
    now = int(machine.kit.clock.now())
    if machine.path(f"{files.SERVER}/tls").is_dir():
        aside = machine.path(f"{files.SERVER}/tls-{now}")
        shutil.copytree(machine.path(f"{files.SERVER}/tls"), aside, dirs_exist_ok=True)
    name = f"{node}-{secrets.token_hex(4)}"
    member = {"etcd_name": name, "address": address, "voter": True, "vmid": machine.vmid}
    identity = _identity()
    document = {**state.document, "members": {node: member}, "superseded": None}
    plane = planes.adopt(identity, sealed.State(document, state.objects, state.version), removed=removed)
    files.write_authorities(machine, plane)
    _member(machine, identity, name)


def _member(machine: Machine, identity: str, name: str) -> None:
    for folder in (ETCD, f"{ETCD}/member", f"{files.SERVER}/db/snapshots"):
        files.folder(machine, folder, 0o700)
    files.write(machine, f"{ETCD}/member/cluster", identity, 0o600)
    files.write(machine, f"{ETCD}/name", name, 0o600)


def clear(machine: Machine, plane: Plane, node: str) -> None:
    """A normal start after a reset: the flag goes, and so does the password of this node, which may be another's."""
    flag = machine.path(FLAG)
    if flag.exists():
        flag.unlink()
        plane.kube.delete("v1/Secret", "kube-system", f"{node}.node-password.k3s")
