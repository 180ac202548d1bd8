"""The host keys that were learned: ``known_hosts`` in fo's state, as OpenSSH's own client reads it.

A line is a machine's by the identity in its comment, not by name or address: those are there for ``ssh`` and people.
Lines without an identity are left alone and prove nothing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from funoffshore import atomic, errors
from funoffshore.config import model

NAME = "known_hosts"
_KIND = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
"""How every ed25519 public key begins (RFC 8709); 32 bytes follow."""
_MARK = re.compile(r"fo-identity=([0-9a-f-]{36})(?:\s|$)")
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class HostKey:
    """An ed25519 public host key."""

    blob: bytes
    """As it goes over the wire."""

    @property
    def line(self) -> str:
        """``ssh-ed25519 AAAA…``, without comment."""
        return f"ssh-ed25519 {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen prints it: ``SHA256:`` and unpadded base64."""
        import hashlib

        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def parse(text: str) -> HostKey:
    """The key of an OpenSSH public key line, its comment dropped. Raises ValueError, without the text, for anything
    but one whole ed25519 key."""
    words = text.split()
    if len(words) < 2 or words[0] != "ssh-ed25519" or len(text.strip().splitlines()) != 1:
        raise ValueError("not one line with an ed25519 public key")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("an ed25519 public key that is not base64") from None
    if len(blob) != len(_KIND) + 32 or not blob.startswith(_KIND):
        raise ValueError("an ed25519 public key that is cut off")
    return HostKey(blob)


def path(config: model.ClusterConfig) -> Path:
    """The file, be it there or not."""
    return config.state / NAME


def find(config: model.ClusterConfig, identity: uuid.UUID) -> HostKey | None:
    """What was recorded for that machine. Raises StateError when the file cannot be relied on."""
    found = {key.line: key for name, key in _records(config) if name == str(identity)}
    if len(found) > 1:
        raise errors.StateError(
            f"{path(config)} has two host keys for one machine ({identity})", fix="Delete the line that is not true."
        )
    return next(iter(found.values()), None)


def record(config: model.ClusterConfig, node: model.Node, key: HostKey, how: str) -> None:
    """Writes the key down, on disk when this returns. ``how`` and the time end up in the line's comment.

    Recording the same key again does nothing; raises TrustError when another one is recorded for that machine.
    """
    with _exclusive(config):
        known = find(config, node.identity)
        if known == key:
            return
        if known is not None:
            raise errors.TrustError(
                f"{node.name} is known by host key {known.fingerprint}, so {key.fingerprint} was not recorded",
                fix=relearn(config, node),
            )
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        where = str(node.address) if config.ssh.port == 22 else f"[{node.address}]:{config.ssh.port}"
        line = f"{where},{node.name} {key.line} fo-identity={node.identity} {how}, {now}\n"
        _write(config, [*_lines(config), line])


def forget(config: model.ClusterConfig, identity: uuid.UUID) -> None:
    """Drops what was recorded for that machine; every other line stays as it is."""
    if not path(config).exists():
        return
    with _exclusive(config):
        lines = _lines(config)
        kept = [line for line in lines if _owner(line) != str(identity)]
        if kept != lines:
            _write(config, kept)


def relearn(config: model.ClusterConfig, node: model.Node) -> str:
    """What an operator does who knows that the machine's key was replaced."""
    return (
        f"If you know why its host key changed, delete the line with fo-identity={node.identity} from {path(config)} "
        f"and run the same command again; otherwise another machine answers at {node.address}: find out which."
    )


def _records(config: model.ClusterConfig) -> Iterator[tuple[str, HostKey]]:
    for number, line in enumerate(_lines(config), 1):
        owner = _owner(line)
        if not owner:
            continue
        try:
            yield owner, parse(" ".join(line.split()[1:3]))
        except ValueError as why:
            raise errors.StateError(
                f"{path(config)}, line {number}: {why}",
                fix="Delete the line; the key is learned anew at the next run, as SSH_TRUST says.",
            ) from None


def _owner(line: str) -> str:
    """Identity of the machine that the line is about; empty for a line that is none of ours."""
    found = _MARK.search(line)
    return found[1] if found and not line.lstrip().startswith("#") else ""


def _lines(config: model.ClusterConfig) -> list[str]:
    """As they stand in the file, each with its end. Raises StateError."""
    file = path(config)
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            text = stream.read().decode()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as why:
        raise errors.StateError(
            f"{file} cannot be read: {why}", fix="It holds the machines' host keys; make it readable, or restore it."
        ) from None
    if mode & 0o022:
        raise errors.StateError(
            f"{file} can be written by others (mode {mode & 0o777:04o}), so its host keys prove nothing",
            fix=f"Check it, then: chmod 600 {file}",
        )
    return [f"{line}\n" for line in text.splitlines()]


def _write(config: model.ClusterConfig, lines: list[str]) -> None:
    try:
        atomic.write(path(config), "".join(lines).encode())
    except OSError as why:
        raise errors.StateError(
            f"{path(config)} cannot be written: {why.strerror or why}", fix="Make room, or make the folder writable."
        ) from None


@contextlib.contextmanager
def _exclusive(config: model.ClusterConfig) -> Iterator[None]:
    """Between threads, and between the runs of clusters that share a folder."""
    with _LOCK:
        try:
            config.state.mkdir(parents=True, exist_ok=True)
            handle = os.open(config.state / f".{NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as why:
            raise errors.StateError(
                f"{config.state} cannot be written: {why.strerror or why}", fix="Make the folder writable."
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
