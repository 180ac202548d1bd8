"""Copies of etcd snapshots on this computer, each with its escrow beside it. Private, whole or not there at all."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funoffshore import atomic, errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.reading import Present, Reading, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import escrow
from funoffshore.world.ssh import FileLook, Look

if TYPE_CHECKING:
    from funoffshore.world.world import World

FOLDER = "/var/lib/rancher/k3s/server/db/snapshots"
"""Where K3s keeps its snapshots on a server."""
CHUNK = 8 << 20
"""Bytes that one round trip brings."""
PATIENCE = 600.0
"""Wall seconds for one round trip: the host may have to read gigabytes for a digest."""
_IGNORED = "# Snapshots hold the whole cluster; they belong in no repository.\n*\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """A snapshot file on a server's disk."""

    size: int
    sha256: str


def folder(config: ClusterConfig) -> Path:
    """Where the copies of this cluster lie, 0700. A lab's never lie beside a real cluster's."""
    return config.lab.directory / "snapshots" if config.lab else _root(config) / config.name / "snapshots"


def copies(config: ClusterConfig) -> Reading[list[tuple[str, int]]]:
    """Name and size in bytes of every finished copy. A folder that is not there holds none."""
    try:
        with os.scandir(folder(config)) as entries:
            files = [
                (e.name, e.stat(follow_symlinks=False).st_size) for e in entries if e.is_file(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return Present([])
    except OSError as why:
        return Unreadable(f"{folder(config)}: {why.strerror}")
    return Present(
        sorted((name, size) for name, size in files if not name.startswith(".") and not name.endswith(escrow.SUFFIX))
    )


def look(world: World, node: Node, name: str) -> Reading[Seen]:
    """The snapshot ``name`` on the disk of ``node``, with the digest of its bytes."""
    path = f"{FOLDER}/{name}"
    asked = Look(files=(FileLook(path),), units=(), commands=(), space=(), file_systems=())
    match world.hosts.observe(node, asked):
        case Present(host):
            match host.file(path):
                case Present(file) if file.kind == "file" and file.sha256:
                    return Present(Seen(file.size, file.sha256))
                case Present():
                    return Unreadable(f"{path} on {node.name} is no regular file")
                case other:
                    return other
        case other:
            return other


def bring(world: World, config: ClusterConfig, node: Node, name: str, content: escrow.Escrow, step: Step) -> Path:
    """Copies the snapshot ``name`` off ``node``, proven by ``content.sha256``, its escrow first.

    What an earlier attempt brought is kept and gone on with. Raises PreflightError without an age key or without room,
    DigestError when the bytes are not those that the host told of, and what the SSH door raises.
    """
    target = prepare(config) / name
    sealed = escrow.seal(config, content)
    try:
        atomic.write(escrow.beside(target), sealed)
        if target.exists() and digest(target) == content.sha256:
            return target
        part = target.with_name(f".{name}.{content.sha256[:16]}.part")
        _fetch(world, node, f"{FOLDER}/{name}", part, step)
        if (found := digest(part)) != content.sha256:
            part.unlink()
            raise errors.DigestError(
                f"{name} came from {node.name} with sha256 {found}, not {content.sha256}",
                fix="run the same command again; when it happens again, look at that host's disk",
            )
        os.replace(part, target)
        atomic.sync(target.parent)
    except OSError as why:
        raise errors.PreflightError(
            f"{target} cannot be written: {why.strerror}", fix="make room, or the folder writable, on this computer"
        ) from None
    return target


def forget(config: ClusterConfig, name: str) -> None:
    """Deletes a copy, then its escrow: never is there a copy without one. Raises StateError."""
    path = folder(config) / name
    try:
        path.unlink(missing_ok=True)
        escrow.beside(path).unlink(missing_ok=True)
    except OSError as why:
        raise errors.StateError(f"{path} cannot be deleted: {why.strerror}", fix="delete it by hand") from None


def digest(path: Path) -> str:
    """SHA-256 of the file, hex. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def prepare(config: ClusterConfig) -> Path:
    """The folder, made where it is missing: 0700, and ignored by Git whatever the repository's own rules say."""
    place = folder(config)
    try:
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o700)
        if config.lab is None and not (_root(config) / ".gitignore").exists():
            atomic.write(_root(config) / ".gitignore", _IGNORED.encode(), mode=0o644)
    except OSError as why:
        raise errors.PreflightError(f"{place} cannot be made: {why.strerror}", fix="make it by hand") from None
    return place


def _root(config: ClusterConfig) -> Path:
    return config.root / "config" / "backup"


def _fetch(world: World, node: Node, path: str, part: Path, step: Step) -> None:
    """Appends to ``part`` what it lacks of the remote file, each piece on disk before the next is asked for."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(part, flags, 0o600)
    try:
        have = os.fstat(handle).st_size
        while True:
            step.checkpoint()
            data, size = _piece(world, node, path, have)
            if have > size:
                os.ftruncate(handle, 0)
                have = 0
                continue
            os.write(handle, data)
            os.fsync(handle)
            have += len(data)
            step.say(f"copying {Path(path).name} from {node.name}: {have >> 20} of {size >> 20} MiB")
            if have == size:
                return
            if not data:
                raise errors.UnreachableError(f"{path} on {node.name} ended after {have} of {size} bytes")
    finally:
        os.close(handle)


def _piece(world: World, node: Node, path: str, offset: int) -> tuple[bytes, int]:
    """At most CHUNK bytes from ``offset`` on, and the size of the whole file."""
    asked = {"read": {"fetch": [{"path": path, "offset": offset, "length": CHUNK}]}}
    answer: Any = world.hosts.call(node, asked, PATIENCE)
    try:
        item = answer["read"]["fetch"][path]
        if item["state"] == "present":
            return base64.b64decode(item["data"], validate=True), int(item["size"])
        why = "it is not there any more" if item["state"] == "absent" else str(item.get("error", "it did not say why"))
    except (LookupError, TypeError, ValueError, binascii.Error):
        why = "the answer is no piece of a file"
    raise errors.UnreachableError(f"{path} on {node.name} cannot be read: {why}", fix="run the same command again")
