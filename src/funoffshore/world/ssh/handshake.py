"""The part of an SSH connection before anybody logs in: who is there."""

from __future__ import annotations

import base64
import hashlib
import socket

import paramiko

from funoffshore import errors
from funoffshore.world.ssh import known

HANDSHAKE_TIMEOUT = 30.0
"""Wall seconds: a small host under load takes its time over cryptography."""


class UnprovenError(errors.TrustError):
    """The host has no ed25519 key to prove itself with."""


def said(why: BaseException) -> str:
    """The exception's own words, or its name where it has none."""
    return str(why) or type(why).__name__


def fingerprint(key: paramiko.PKey) -> str:
    """As ssh-keygen prints it: ``SHA256:`` and unpadded base64."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def begin(stream: socket.socket | paramiko.Channel, where: str) -> paramiko.Transport:
    """Connected, and nothing said yet. Raises UnreachableError."""
    try:
        return paramiko.Transport(stream, strict_kex=True)
    except (paramiko.SSHException, OSError) as why:
        stream.close()
        raise errors.UnreachableError(f"{where} does not speak SSH: {said(why)}") from None


def greet(transport: paramiko.Transport, where: str) -> paramiko.PKey:
    """Key exchange: the key that the host has proved to hold. Nothing is accepted or learned by that."""
    transport.banner_timeout = transport.handshake_timeout = HANDSHAKE_TIMEOUT
    transport.get_security_options().key_types = ["ssh-ed25519"]
    try:
        transport.start_client(timeout=HANDSHAKE_TIMEOUT)
        # Also tells a handshake that ran out of time, or died unnoticed, of which start_client says nothing.
        return transport.get_remote_server_key()
    except paramiko.ssh_exception.IncompatiblePeer as why:
        raise UnprovenError(said(why)) from None
    except (paramiko.SSHException, EOFError, OSError) as why:
        raise errors.UnreachableError(f"{where} broke off the SSH handshake: {said(why)}") from None


def check(transport: paramiko.Transport, where: str, pinned: known.HostKey, fix: str) -> None:
    """Raises TrustError unless the host shows exactly that key; nothing but keys was exchanged then."""
    try:
        seen = greet(transport, where)
    except UnprovenError as why:
        raise errors.TrustError(
            f"{where} cannot prove who it is: expected host key {pinned.fingerprint}, and {why.message}", fix=fix
        ) from None
    if seen.asbytes() != pinned.blob:
        raise errors.TrustError(
            f"{where} has another host key: expected {pinned.fingerprint}, seen {fingerprint(seen)}", fix=fix
        )
