"""One SSH connection: pinned host key, public key authentication, one command at a time under our own deadline."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import paramiko

from funoffshore import errors, hostkeys
from funoffshore.config import model
from funoffshore.world.ssh import handshake, known, listed, login
from funoffshore.world.ssh.handshake import said
from funoffshore.world.ssh.streams import SLICE, Command, Ended, Streams, Watch
from funoffshore.world.ssh.way import CONNECT_TIMEOUT, PULSE, Way

SESSIONS = 8
"""Commands at once on one connection; OpenSSH opens ten (sshd_config(5), MaxSessions) and refuses the next."""

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it prints tracebacks of what we turn into errors


class UnknownKeyError(errors.TrustError):
    """No host key is known yet, so nothing was contacted."""


class DroppedError(errors.UnreachableError):
    """The connection was lost while a command ran; what it did is not known here."""


def pinned_key(config: model.ClusterConfig, node: model.Node) -> known.HostKey:
    """The public host key that the node must show: the one it was given in its seed, listed or recorded.

    Raises UnknownKeyError when there is none yet, StateError when the record cannot be relied on, and as
    ``listed.find``.
    """
    key = known_key(config, node)
    if key is not None:
        return key
    trust = config.ssh.trust_of(node)
    fix = f"fo bootstrap learns it (SSH_TRUST={trust}) once the machine is up."
    if trust == "known":
        keyscan = f"ssh-keyscan -t ed25519 -p {config.ssh.port} {node.address}"
        fix = f"add its line to SSH_KNOWN_HOSTS ({keyscan}), once you have compared it at the machine's console."
    raise UnknownKeyError(
        f"the host key of {node.name} ({node.address}) is not known yet, and without it nothing is sent there", fix=fix
    )


def known_key(config: model.ClusterConfig, node: model.Node) -> known.HostKey | None:
    """The same; None when there is none yet."""
    match config.ssh.trust_of(node):
        case "seed":
            private = hostkeys.private(config.ssh.host_key_seed.get_secret_value(), node.name)
            return known.parse(hostkeys.openssh_public(private))
        case "known":
            return listed.find(config.ssh, node)
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

    def run(self, channel: paramiko.Channel, command: Command, stdin: bytes, deadline: float) -> Ended:
        """One exec. ``deadline`` is wall seconds. Raises DroppedError when the connection drops and DeadlineError
        when it lasts too long."""
        streams = Streams(channel, time.monotonic() + deadline)
        try:
            with Watch(self._transport, streams):
                channel.settimeout(SLICE)
                channel.exec_command(command.text)
                if command.talks and not streams.begin(command):
                    channel.shutdown_write()
                else:
                    streams.send(stdin)
                return streams.drain()
        except TimeoutError:
            raise errors.DeadlineError(
                f"{self._node} did not answer over SSH within {deadline:.0f} s",
                fix="look at the machine's console; a hanging disk or an overloaded host answers TCP and nothing else",
                evidence=tuple(bytes(streams.err).decode("utf-8", "replace").splitlines()[-5:]),
            ) from None
        except (paramiko.SSHException, EOFError, OSError) as why:
            raise DroppedError(
                f"the SSH connection to {self._node} dropped while it was working: {said(why)}",
                fix="run it again: what was done is seen, and not done twice",
            ) from None
        finally:
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # over a connection that has gone
                channel.close()


def connect(config: model.ClusterConfig, way: Way, key: login.Login, node: model.Node) -> Connection:
    """Raises UnknownKeyError before anything is sent, UnreachableError; TrustError, before any authentication, when
    the host does not show its key; what ``login.Login`` raises when it does not take ours."""
    where, pinned = place(config, node), pinned_key(config, node)
    transport = handshake.begin(way.open(str(node.address), config.ssh.port, where), where)
    try:
        handshake.check(transport, where, pinned, _wrong_key_fix(config, node))
        key.log_in(transport, where, config.ssh.user)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(PULSE)
    return Connection(transport, node.name)


def shown_key(config: model.ClusterConfig, way: Way, node: model.Node) -> known.HostKey:
    """The ed25519 key that whoever answers at the node's address proves to hold. Proves nothing about who that is;
    nothing is sent there, not even a user name. Raises UnreachableError, TrustError when it has no such key."""
    where = place(config, node)
    transport = handshake.begin(way.open(str(node.address), config.ssh.port, where), where)
    try:
        return known.HostKey(handshake.greet(transport, where).asbytes())
    except handshake.UnprovenError as why:
        raise errors.TrustError(f"{where} has no ed25519 host key to be known by: {why.message}") from None
    finally:
        transport.close()


def place(config: model.ClusterConfig, node: model.Node) -> str:
    """For messages: name, address and port."""
    return f"{node.name} ({node.address} port {config.ssh.port})"


def _wrong_key_fix(config: model.ClusterConfig, node: model.Node) -> str:
    match config.ssh.trust_of(node):
        case "seed":
            return (
                "another machine answers at this address, or its host key was replaced: look at its console "
                "(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); a machine made by fo has the expected key"
            )
        case "known":
            return (
                "if you know why its host key changed, replace its line in SSH_KNOWN_HOSTS; otherwise another machine "
                f"answers at {node.address}: find out which"
            )
    return known.relearn(config, node)


class Line:
    """The place of one node's connection, which one thread at a time may (re)make."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions = threading.Semaphore(SESSIONS)
        self.connection: Connection | None = None
