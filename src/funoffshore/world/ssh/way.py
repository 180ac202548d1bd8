"""How TCP gets to a host: straight, or through the one jump host. What comes back speaks nothing yet."""

from __future__ import annotations

import socket
import threading

import paramiko

from funoffshore import errors
from funoffshore.config import model
from funoffshore.world.routes import Routes
from funoffshore.world.ssh import handshake, known, login, streams

CONNECT_TIMEOUT = 10.0
"""Wall seconds for TCP."""
PULSE = 20
"""Seconds after which an idle connection says something, so that no router forgets it."""
Stream = socket.socket | paramiko.Channel


def dial(routes: Routes, address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection. Raises OSError."""
    connection = socket.create_connection(routes.resolve(address, port), timeout=timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Way:
    """The way to every host of one cluster. Thread safe; keeps one connection to the jump host until ``close``.

    The jump host sees where we go and nothing of what is said there: it is no agent's host, and what it forwards is
    an SSH connection of its own, from here to the node.
    """

    def __init__(self, settings: model.Ssh, routes: Routes, key: login.Login) -> None:
        self._settings = settings
        self._routes = routes
        self._key = key
        self._lock = threading.Lock()
        self._jump: paramiko.Transport | None = None

    def open(self, address: str, port: int, where: str, timeout: float = CONNECT_TIMEOUT) -> Stream:
        """A connection to ``address``. ``where`` names it for messages, ``timeout`` is wall seconds.

        Raises UnreachableError; TrustError or RefusedError when the jump host is not the right one or does not let
        us in, PreflightError without a key to log in with.
        """
        over = self._settings.jump
        if over is None:
            try:
                return dial(self._routes, address, port, timeout)
            except OSError as why:
                raise errors.UnreachableError(
                    f"{where} does not answer over SSH: {handshake.said(why)}",
                    fix="is the machine on, and its address reachable from here?",
                ) from None
        jump, fresh = self._jumped(over)
        try:
            return forwarded(jump, over, address, port, where, timeout)
        except errors.UnreachableError:
            if fresh or jump.is_active():
                raise
        # The kept connection had died unnoticed.
        jump, _ = self._jumped(over)
        return forwarded(jump, over, address, port, where, timeout)

    def _jumped(self, jump: model.Jump) -> tuple[paramiko.Transport, bool]:
        """The connection to the jump host, and whether it was made just now."""
        with self._lock:
            if self._jump is not None and self._jump.is_active():
                return self._jump, False
            self._jump = self._connect(jump)
            return self._jump, True

    def _connect(self, jump: model.Jump) -> paramiko.Transport:
        """Pinned and logged in, or nothing."""
        where = f"the jump host ({jump})"
        try:
            tcp = dial(self._routes, jump.host, jump.port, CONNECT_TIMEOUT)
        except OSError as why:
            raise errors.UnreachableError(
                f"{where} does not answer over SSH: {handshake.said(why)}", fix="check SSH_JUMP, and that it is on"
            ) from None
        transport = handshake.begin(tcp, where)
        try:
            fix = "if you know why, put its new key into SSH_JUMP_HOST_KEY; otherwise find out who answers there"
            handshake.check(transport, where, known.parse(jump.host_key), fix)
            self._key.log_in(transport, where, jump.user)
        except BaseException:
            transport.close()
            raise
        transport.set_keepalive(PULSE)
        return transport

    def close(self) -> None:
        """The next ``open`` makes a new connection to the jump host."""
        with self._lock:
            if self._jump is not None:
                self._jump.close()
            self._jump = None


def forwarded(
    transport: paramiko.Transport, jump: model.Jump, address: str, port: int, where: str, timeout: float
) -> paramiko.Channel:
    """``address`` as the jump host reaches it (RFC 4254, 7.2). Raises UnreachableError; a transport that has died is
    closed then."""
    try:
        return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout)
    except paramiko.ChannelException as why:
        raise errors.UnreachableError(
            f"{where} does not answer over SSH through the jump host ({jump}): {handshake.said(why)}",
            fix="is the machine on, does the jump host reach its address, and does its sshd allow TCP forwarding?",
        ) from None
    except (paramiko.SSHException, EOFError, OSError) as why:
        if transport.is_active() and streams.answers(transport):
            # Others go the same way; it is the machine that keeps silent.
            raise errors.UnreachableError(
                f"{where} does not answer over SSH through the jump host ({jump}) within {timeout:.0f} s",
                fix="is the machine on, and does the jump host reach its address?",
            ) from None
        transport.close()
        raise errors.UnreachableError(
            f"the SSH connection to the jump host ({jump}) is gone: {handshake.said(why)}"
        ) from None
