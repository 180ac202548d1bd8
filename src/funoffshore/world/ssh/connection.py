"""One SSH connection: pinned host key, public key authentication, one command at a time under our own deadline."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import socket
import threading
import time
from dataclasses import dataclass

import paramiko

from funoffshore import errors, hostkeys
from funoffshore.config import model
from funoffshore.world.routes import Routes
from funoffshore.world.ssh import known

CONNECT_TIMEOUT = 10.0
"""Wall seconds for TCP, key exchange and authentication each."""
HANDSHAKE_TIMEOUT = 30.0
"""Wall seconds: a small host under load takes its time over cryptography."""
REPLY_LIMIT = 32 << 20
SLICE = 0.25
"""Seconds a read waits on one stream before the other gets its turn."""
CHUNK = 32768
SESSIONS = 8
"""Commands at once on one connection; OpenSSH opens ten (sshd_config(5), MaxSessions) and refuses the next."""

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it prints tracebacks of what we turn into errors


@dataclass(frozen=True, slots=True)
class Ended:
    """How a remote command ended."""

    code: int
    out: bytes
    err: bytes


class UnknownKeyError(errors.TrustError):
    """No host key is known yet, so nothing was contacted."""


def fingerprint(key: paramiko.PKey) -> str:
    """As ssh-keygen prints it: ``SHA256:`` and unpadded base64."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def pinned_key(config: model.ClusterConfig, node: model.Node) -> paramiko.PKey:
    """The public host key that the node must show: the one it was given in its seed, or the one that was recorded.

    Raises UnknownKeyError when none was recorded yet, StateError when the record cannot be relied on.
    """
    key = known_key(config, node)
    if key is None:
        raise UnknownKeyError(
            f"the host key of {node.name} ({node.address}) is not known yet, and without it nothing is sent there",
            fix=f"fo bootstrap learns it (SSH_TRUST={config.ssh.trust}) once the machine is up.",
        )
    return paramiko.Ed25519Key(data=key.blob)


def known_key(config: model.ClusterConfig, node: model.Node) -> known.HostKey | None:
    """The same as a value; None when none was recorded yet."""
    if config.ssh.trust == "seed":
        private = hostkeys.private(config.ssh.host_key_seed.get_secret_value(), node.name)
        return known.parse(hostkeys.openssh_public(private))
    return known.find(config, node.identity)


class Connection:
    """A live transport to one node. Made by ``connect``; several threads may ``run`` at once."""

    def __init__(self, transport: paramiko.Transport, node: str) -> None:
        self._transport = transport
        self._node = node

    def alive(self) -> bool:
        return self._transport.is_active()

    def close(self) -> None:
        self._transport.close()

    def open(self) -> paramiko.Channel:
        """A channel for one command. Raises UnreachableError; nothing has been run then."""
        try:
            return self._transport.open_session(timeout=CONNECT_TIMEOUT)
        except (paramiko.SSHException, EOFError, OSError) as why:
            raise errors.UnreachableError(f"the SSH connection to {self._node} is gone: {said(why)}") from None

    def run(self, channel: paramiko.Channel, command: str, stdin: bytes, deadline: float) -> Ended:
        """One exec. ``deadline`` is wall seconds. Raises UnreachableError when the connection drops (what the
        command did is then unknown) and DeadlineError when it lasts too long."""
        stream = Streams(channel, time.monotonic() + deadline)
        try:
            channel.settimeout(SLICE)
            channel.exec_command(command)
            stream.send(stdin)
            return stream.drain()
        except TimeoutError:
            raise errors.DeadlineError(
                f"{self._node} did not answer over SSH within {deadline:.0f} s",
                fix="look at the machine's console; a hanging disk or an overloaded host answers TCP and nothing else",
                evidence=tuple(bytes(stream.err).decode("utf-8", "replace").splitlines()[-5:]),
            ) from None
        except (paramiko.SSHException, EOFError, OSError) as why:
            raise errors.UnreachableError(
                f"the SSH connection to {self._node} dropped while it was working: {said(why)}",
                fix="run it again: what was done is seen, and not done twice",
            ) from None
        finally:
            channel.close()


class Streams:
    """stdin, stdout and stderr of one command.

    ``recv_exit_status`` heeds no timeout, and either output can fill its window while we wait for the other
    (paramiko issues 1778 and 1815); so both are emptied in turns, and the time is ours.
    """

    def __init__(self, channel: paramiko.Channel, end: float) -> None:
        self._channel = channel
        self._end = end
        self.out = bytearray()
        self.err = bytearray()

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._channel.closed:
            try:
                view = view[self._channel.send(bytes(view[:CHUNK])) :]
            except TimeoutError:
                self._empty()
        self._channel.shutdown_write()

    def drain(self) -> Ended:
        while True:
            try:
                data = self._channel.recv(CHUNK)
            except TimeoutError:
                self._empty()
                continue
            self.out += data
            self._empty()
            if not data:
                break
        while not self._channel.exit_status_ready():
            self._empty()
            self._channel.status_event.wait(SLICE)
            if self._channel.closed and not self._channel.exit_status_ready():
                break
        while self._channel.recv_stderr_ready():
            self.err += self._channel.recv_stderr(CHUNK)
        code = self._channel.exit_status
        if code < 0:
            raise EOFError("it ended without an exit status")
        return Ended(code, bytes(self.out), bytes(self.err))

    def _empty(self) -> None:
        while self._channel.recv_stderr_ready():
            self.err += self._channel.recv_stderr(CHUNK)
        if len(self.out) + len(self.err) > REPLY_LIMIT:
            raise EOFError("it says more than any answer could hold")
        if time.monotonic() > self._end:
            raise TimeoutError
        if not self._channel.get_transport().is_active() and not self._channel.recv_ready():
            raise EOFError("connection lost")


def said(why: BaseException) -> str:
    return str(why) or type(why).__name__


def dial(routes: Routes, address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection. Raises OSError."""
    connection = socket.create_connection(routes.resolve(address, port), timeout=timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connect(config: model.ClusterConfig, routes: Routes, node: model.Node) -> Connection:
    """Raises UnknownKeyError before anything is sent, UnreachableError; TrustError, before any authentication, when
    the host does not show its key; RefusedError when it does not take ours."""
    where, pinned = place(config, node), pinned_key(config, node)
    transport = open_transport(config, routes, node)
    try:
        expected = fingerprint(pinned)
        fix = _wrong_key_fix(config, node)
        try:
            seen = greet(transport, where)
        except UnprovenError as why:
            raise errors.TrustError(
                f"{where} cannot prove who it is: expected host key {expected}, and {why.message}", fix=fix
            ) from None
        if seen.asbytes() != pinned.asbytes():
            raise errors.TrustError(
                f"{where} has another host key: expected {expected}, seen {fingerprint(seen)}", fix=fix
            )
        log_in(transport, where, config.ssh)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(20)
    return Connection(transport, node.name)


def shown_key(config: model.ClusterConfig, routes: Routes, node: model.Node) -> known.HostKey:
    """The ed25519 key that whoever answers at the node's address proves to hold. Proves nothing about who that is;
    nothing is sent there, not even a user name. Raises UnreachableError, TrustError when it has no such key."""
    where = place(config, node)
    transport = open_transport(config, routes, node)
    try:
        return known.HostKey(greet(transport, where).asbytes())
    except UnprovenError as why:
        raise errors.TrustError(f"{where} has no ed25519 host key to be known by: {why.message}") from None
    finally:
        transport.close()


def place(config: model.ClusterConfig, node: model.Node) -> str:
    """For messages: name, address and port."""
    return f"{node.name} ({node.address} port {config.ssh.port})"


def open_transport(config: model.ClusterConfig, routes: Routes, node: model.Node) -> paramiko.Transport:
    """Connected, and nothing said yet. Raises UnreachableError."""
    where = place(config, node)
    try:
        tcp = dial(routes, str(node.address), config.ssh.port, CONNECT_TIMEOUT)
    except OSError as why:
        raise errors.UnreachableError(
            f"{where} does not answer over SSH: {said(why)}",
            fix="is the machine on, and its address reachable from here?",
        ) from None
    try:
        return paramiko.Transport(tcp, strict_kex=True)
    except (paramiko.SSHException, OSError) as why:
        tcp.close()
        raise errors.UnreachableError(f"{where} does not speak SSH: {said(why)}") from None


class UnprovenError(errors.TrustError):
    """The host has no ed25519 key to prove itself with."""


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


def _wrong_key_fix(config: model.ClusterConfig, node: model.Node) -> str:
    if config.ssh.trust != "seed":
        return known.relearn(config, node)
    return (
        "another machine answers at this address, or its host key was replaced: look at its console "
        "(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); a machine made by fo has the expected key"
    )


def log_in(transport: paramiko.Transport, where: str, settings: model.Ssh) -> None:
    try:
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(settings.private_key.get_secret_value()))
    except (paramiko.SSHException, ValueError):
        raise errors.ConfigError("the SSH private key of the config is not an ed25519 key in OpenSSH form") from None
    transport.auth_timeout = HANDSHAKE_TIMEOUT
    try:
        left = transport.auth_publickey(settings.user, key)
    except paramiko.AuthenticationException as why:
        raise errors.RefusedError(
            f"{where} does not let {settings.user} in with our key: {said(why)}",
            fix="cloud-init did not make the user (see the machine's console), or the key in the env file was changed",
        ) from None
    except (paramiko.SSHException, EOFError, OSError) as why:
        raise errors.UnreachableError(f"{where} broke off the SSH login: {said(why)}") from None
    if left:
        raise errors.RefusedError(f"{where} asks {settings.user} for more than a key: {', '.join(left)}")


class Line:
    """The place of one node's connection, which one thread at a time may (re)make."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions = threading.Semaphore(SESSIONS)
        self.connection: Connection | None = None
