"""The SSH servers of all hosts: one thread accepts for everybody, paramiko speaks, a small sh does what is asked."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_REQUEST,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
)

from funoffshore.lab.hosts import neighbours, shell, sudo
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.hosts.machine import Host, Session
from funoffshore.lab.hosts.systemctl import host_of

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # a client that hangs up is no news

BANNER = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7"
PATIENCE = 120.0
"""Real seconds for a client's part of the handshake (sshd's LoginGraceTime); a busy test machine takes its time."""
MAX_SESSIONS = 10
"""Of one connection, as OpenSSH has it (sshd_config(5), recorded from a real sshd)."""
CANNOT_BIND = 255
"""sshd's exit status for any fatal error."""


class Door:
    """Accepts connections for any number of listeners on one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._todo: deque[Callable[[], None]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def open(self, listener: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        """``accept`` gets each connection, on the door's thread; it must be quick."""
        listener.setblocking(False)
        self._do(lambda: self._register(listener, accept))

    def shut(self, listener: socket.socket) -> None:
        """Nothing is accepted from it any more when this returns."""
        number = listener.fileno()
        listener.close()
        self._do(lambda: self._unregister(number))

    def close(self) -> None:
        """Ends the thread; listeners that are still open belong to whoever opened them."""
        self._closed = True
        self._do(lambda: None)
        if self._thread:
            self._thread.join(timeout=5)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _register(self, listener: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        if listener.fileno() >= 0:
            self._selector.register(listener, selectors.EVENT_READ, (listener, accept))

    def _unregister(self, number: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(number)

    def _do(self, task: Callable[[], None]) -> None:
        self._todo.append(task)
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._loop, name="lab-sshd", daemon=True)
                self._thread.start()
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def _loop(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._woken.recv(4096)
                    continue
                listener, accept = key.data
                with contextlib.suppress(Exception):  # one bad client must not close the door for everybody
                    connection, _ = listener.accept()
                    connection.setblocking(True)
                    accept(connection)
            while self._todo:
                self._todo.popleft()()


class Sshd:
    """Service ``sshd``: listens at the host's address on the ports of its sshd_config."""

    def __init__(self, door: Door, default_port: int) -> None:
        self._door = door
        self._default = default_port
        self._lock = threading.Lock()
        self._open: dict[int, list[tuple[int, socket.socket]]] = {}

    def start(self, machine: Machine, argv: list[str], ready: Callable[[], None], ended: Callable[[int], None]) -> None:
        host = host_of(machine)
        keys = host_keys(host)
        listeners: list[tuple[int, socket.socket]] = []
        for port in ports(host, self._default) if host.address else []:
            try:
                listener = host.kit.routes.listen(host.address, port)
            except OSError as why:
                host.journal(
                    "ssh", f"error: Bind to port {port} on {host.address} failed: {os.strerror(why.errno or 0)}."
                )
                continue
            listeners.append((port, listener))
            host.listen_port(port)
            host.journal("ssh", f"Server listening on {host.address} port {port}.")
        with self._lock:
            self._open[host.vmid] = listeners
        if not listeners and host.address:
            host.journal("ssh", "fatal: Cannot bind any address.")
            return ended(CANNOT_BIND)
        for _, listener in listeners:
            self._door.open(listener, lambda connection: serve(host, keys, connection))
        return ready()

    def stop(self, machine: Machine) -> None:
        """Closes the listeners; who is logged in stays, as with the real one."""
        with self._lock:
            listeners = self._open.pop(machine.vmid, [])
        for port, listener in listeners:
            self._door.shut(listener)
            machine.kit.routes.forget(machine.address, port)
            machine.unlisten_port(port)


def ports(host: Host, default: int) -> list[int]:
    """Every ``Port`` of sshd_config and its drop-ins, or the default (sshd_config(5): Port may come repeatedly)."""
    drop_ins = sorted(host.path("/etc/ssh/sshd_config.d").glob("*.conf"))
    texts = [*(file.read_text() for file in drop_ins), host.files.read("/etc/ssh/sshd_config")]
    words = [line.split() for text in texts for line in text.splitlines()]
    found = [int(w[1]) for w in words if len(w) == 2 and w[0].lower() == "port" and w[1].isdigit()]
    return list(dict.fromkeys(found)) or [default]


def host_keys(host: Host) -> list[paramiko.PKey]:
    """The host's private keys that can be read, in the order of their names."""
    keys: list[paramiko.PKey] = []
    for file in sorted(host.path("/etc/ssh").glob("ssh_host_*_key")):
        kinds: dict[str, type[paramiko.PKey]] = {
            "ssh_host_ed25519_key": paramiko.Ed25519Key,
            "ssh_host_ecdsa_key": paramiko.ECDSAKey,
            "ssh_host_rsa_key": paramiko.RSAKey,
        }
        try:
            keys.append(kinds[file.name].from_private_key(io.StringIO(file.read_text())))
        except (KeyError, paramiko.SSHException, ValueError, OSError) as why:
            host.journal("ssh", f'error: Could not load host key "/etc/ssh/{file.name}": {type(why).__name__}')
    return keys


def serve(host: Host, keys: list[paramiko.PKey], connection: socket.socket) -> None:
    """Begins one SSH connection; everything further happens on its own thread."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = _Transport(connection)
    transport.local_version = BANNER
    transport.banner_timeout = transport.handshake_timeout = PATIENCE
    for key in keys:
        transport.add_server_key(key)
    host.sessions = {cut for cut in host.sessions if cut.__self__.is_active()} | {transport.close}  # type: ignore[attr-defined]
    transport.start_server(event=threading.Event(), server=Login(host, transport))


def _answer_then_begin(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """A command may be over before its request is answered; OpenSSH complains of a channel that is closed by then."""
    channel._handle_request(message)  # type: ignore[attr-defined] # the stubs leave paramiko's own names out
    login = channel.get_transport().server_object
    if isinstance(login, Login):
        login.begin(channel)


class _Transport(paramiko.Transport):
    _channel_handler_table = {  # noqa: RUF012 - paramiko's own shape
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined] # not in the stubs either
        MSG_CHANNEL_REQUEST: _answer_then_begin,
    }

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        """paramiko's own hook for a channel that is open now. Its queue is what keeps channels alive."""
        super()._queue_incoming_channel(channel)  # type: ignore[misc] # not in the stubs
        if isinstance(self.server_object, Login):
            self.server_object.opened(channel)


class Login(paramiko.ServerInterface):
    """One connection: who may log in, and what a session may do."""

    def __init__(self, host: Host, transport: paramiko.Transport) -> None:
        self._host = host
        self._transport = transport
        self._user = ""
        self._asked: dict[int, threading.Thread] = {}
        self._forwards: dict[int, socket.socket] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        text = self._host.files.read(f"{home_of(self._host, username)}/.ssh/authorized_keys")
        known = [words[1] for words in map(str.split, text.splitlines()) if len(words) > 1]
        if key.get_base64() not in known:
            self._host.journal("ssh", f"Failed publickey for {username}")
            return AUTH_FAILED
        self._user = username
        self._host.journal("ssh", f"Accepted publickey for {username}: {key.get_name()}")
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind != "session":
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        taken = len(self._transport._channels)  # type: ignore[attr-defined] # the stubs leave it out
        return OPEN_SUCCEEDED if taken < MAX_SESSIONS else OPEN_FAILED_CONNECT_FAILED

    def check_channel_pty_request(self, channel: paramiko.Channel, *size: object) -> bool:
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        text = command.decode("utf-8", "replace")

        def work(session: Session) -> Result:
            talked = sudo.talk(session, text, _Terminal(channel))
            return talked or shell.run(session, text, lambda: read_all(channel))

        self._begin(channel, work)
        return True

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: tuple[str, int]) -> int:
        """Any host is a jump host to whatever it reaches, unless its sshd_config says ``AllowTcpForwarding no``."""
        if not forwards(self._host):
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            target = neighbours.connect(Session(self._host, "root", 0, outside=False), *destination)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        target.settimeout(None)
        self._forwards[chanid] = target
        return OPEN_SUCCEEDED

    def opened(self, channel: paramiko.Channel) -> None:
        """Begins to pass on what comes, on a channel that was opened for that."""
        if target := self._forwards.pop(channel.get_id(), None):
            for pair in ((channel, target), (target, channel)):
                threading.Thread(target=pump, args=pair, name="lab-ssh-forward", daemon=True).start()

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        """A login without a command runs the lines it is sent, once they have all come."""
        self._begin(channel, lambda session: shell.run(session, read_all(channel).decode("utf-8", "replace")))
        return True

    def _begin(self, channel: paramiko.Channel, work: Callable[[Session], Result]) -> None:
        thread = threading.Thread(target=self._work, args=(channel, work), name="lab-ssh-exec", daemon=True)
        self._asked[channel.get_id()] = thread

    def begin(self, channel: paramiko.Channel) -> None:
        """Starts what was asked on ``channel``, now that the client knows that it will be."""
        if thread := self._asked.pop(channel.get_id(), None):
            thread.start()

    def _work(self, channel: paramiko.Channel, work: Callable[[Session], Result]) -> None:
        host = self._host
        session = host.session(self._user, uid_of(host, self._user))
        try:
            result = work(session)
        except Exception as why:  # a bug in a lab program must not leave the client hanging
            result = Result(70, b"", f"lab: {type(why).__name__}: {why}\n".encode())
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if host.kit.faults.hits("ssh-cut", node=host.name):
                channel.sendall(result.out[: len(result.out) // 2])
                self._transport.close()
                return
            channel.sendall(result.out)
            channel.sendall_stderr(result.err)
            channel.send_exit_status(result.code)
            channel.close()


class _Terminal:
    """A channel as ``sudo`` talks over it."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def say(self, out: bytes, err: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            self._channel.sendall(out)
            self._channel.sendall_stderr(err)

    def line(self) -> bytes:
        data = bytearray()
        with contextlib.suppress(OSError):
            while not data.endswith(b"\n") and (piece := self._channel.recv(1)):
                data += piece
        return bytes(data)

    def rest(self) -> bytes:
        return read_all(self._channel)


def forwards(host: Host) -> bool:
    """sshd_config(5): AllowTcpForwarding, which is yes by default."""
    files = [*sorted(host.path("/etc/ssh/sshd_config.d").glob("*.conf")), host.path("/etc/ssh/sshd_config")]
    words = [line.lower().split() for file in files if file.is_file() for line in file.read_text().splitlines()]
    return next((word[1] for word in words if word[:1] == ["allowtcpforwarding"] and len(word) > 1), "yes") != "no"


def pump(source: socket.socket | paramiko.Channel, target: socket.socket | paramiko.Channel) -> None:
    """Passes bytes on until either side has ended."""
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(EOFError, OSError):  # its connection may be gone already
            end.close()


def read_all(channel: paramiko.Channel) -> bytes:
    """stdin up to its end."""
    data = bytearray()
    with contextlib.suppress(OSError):
        while piece := channel.recv(65536):
            data += piece
    return bytes(data)


def passwd(host: Host, user: str) -> list[str]:
    lines = (line.split(":") for line in host.files.read("/etc/passwd").splitlines())
    return next((fields for fields in lines if fields[0] == user and len(fields) > 6), [])


def home_of(host: Host, user: str) -> str:
    """A folder that does not exist, for somebody who does not."""
    return (passwd(host, user) or [""] * 5 + ["/nonexistent"])[5]


def uid_of(host: Host, user: str) -> int:
    return int((passwd(host, user) or ["", "", "65534"])[2])
