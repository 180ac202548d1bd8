"""What a host sees of its network: whether its neighbours answer."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import types
from typing import Any

from funoffshore.lab.hosts import circumstances, rooted
from funoffshore.lab.hosts.machine import Session


def connect(session: Session, host: str, port: int, timeout: float = 5.0) -> socket.socket:
    """A TCP connection to where the lab listens for ``host:port``. Raises OSError."""
    circumstances.resolve(session.host, host)
    if circumstances.blocked(session.host, host, port):
        session.kit.clock.sleep(timeout)
        raise TimeoutError("timed out")
    moved, _, number = rooted.detour(session, f"{host}:{port}").rpartition(":")
    if not moved and not is_lab(host):
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    try:
        return socket.create_connection((moved, int(number)) if moved else (host, port), timeout=timeout)
    except ConnectionRefusedError:
        there = session.host.neighbours(host)
        if there is None or port not in there.ports:
            raise
        # Only noted by whoever "listens" on that host (K3s' etcd and kubelet); nothing of the lab accepts there.
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours


def is_lab(host: str) -> bool:
    """Whether it is an address of loopback, where all of a lab lives; nothing else is reached from its hosts."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def socket_of(session: Session) -> Any:
    """``socket``: TCP connections to where the lab listens, and addresses as text."""

    def create_connection(place: tuple[str, int], timeout: float = 60.0, **options: Any) -> socket.socket:
        return connect(session, *place, timeout)

    return types.SimpleNamespace(
        create_connection=create_connection, inet_ntop=socket.inet_ntop, inet_pton=socket.inet_pton,
        AF_INET=socket.AF_INET, AF_INET6=socket.AF_INET6, timeout=TimeoutError, error=OSError,
    )  # fmt: skip
