"""stdin, stdout and stderr of one remote command, under our own deadline, and the talk with sudo before it begins."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from dataclasses import dataclass, field

import paramiko
from pydantic import SecretStr

REPLY_LIMIT = 32 << 20
SLICE = 0.25
"""Seconds a read waits on one stream before the other gets its turn."""
CHUNK = 32768
PULSE = 8.0
"""Wall seconds without a byte in either direction after which the other side is asked for a sign of life."""
PATIENCE = 20.0
"""Wall seconds for that sign."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a remote command ended."""

    code: int
    out: bytes
    err: bytes
    asked: int = 0
    """How often sudo has asked for the password."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is run for root on a host: ``python3 -``, by way of sudo where the user is not root."""

    user: str
    password: SecretStr | None = None
    """For sudo. It is sent when sudo asks for it and never otherwise: nothing else can take it for its input."""
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def text(self) -> str:
        """The command line. Holds no secret."""
        if self.user == "root":
            return "python3 -"
        if self.password is None:
            return "sudo -n python3 -"
        return f"sudo -S -p {self.prompt} sh -c 'echo {self.ready}; exec python3 -'"

    @property
    def talks(self) -> bool:
        """Whether it must be waited for whether sudo asks."""
        return self.password is not None and self.user != "root"

    @property
    def prompt(self) -> str:
        """What sudo says on stderr when it wants the password."""
        return f"fo-asks-{self.nonce}"

    @property
    def ready(self) -> str:
        """What stdout says first once sudo is content."""
        return f"fo-runs-{self.nonce}"


class Streams:
    """The streams of one command.

    ``recv_exit_status`` heeds no timeout, and either output can fill its window while we wait for the other
    (paramiko issues 1778 and 1815); so both are emptied in turns, and the time is ours.
    """

    def __init__(self, channel: paramiko.Channel, end: float) -> None:
        self._channel = channel
        self._end = end
        self.out = bytearray()
        self.err = bytearray()
        self.moved = 0
        """Bytes in both directions so far."""
        self.asked = 0

    def begin(self, command: Command) -> bool:
        """Gets past sudo; False when it does not let us. Not even the wrong password is sent twice: sudo would count
        it, and what comes after it would be tried as the next."""
        password = command.password.get_secret_value().encode() if command.password else b""
        prompt, ready = command.prompt.encode(), command.ready.encode() + b"\n"
        while ready not in self.out:
            data = self._take()
            if self.err.count(prompt) > self.asked:
                self.asked += 1
                if self.asked > 1:
                    break
                self._write(password + b"\n")
            if data == b"":
                break
        found = ready in self.out
        if found:
            del self.out[: self.out.index(ready) + len(ready)]
        for secret in (prompt, password):  # a wrapper around sudo might have echoed it
            if secret:
                self.err = self.err.replace(secret, b"")
        return found

    def send(self, data: bytes) -> None:
        """All of stdin, and its end."""
        self._write(data)
        self._channel.shutdown_write()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._channel.closed:
            try:
                sent = self._channel.send(bytes(view[:CHUNK]))
                view = view[sent:]
                self.moved += sent
            except TimeoutError:
                self._empty()

    def _take(self) -> bytes | None:
        """What stdout has, moved to ``out``; empty at its end, None when nothing came for a while."""
        try:
            data = self._channel.recv(CHUNK)
        except TimeoutError:
            self._empty()
            return None
        self.out += data
        self.moved += len(data)
        self._empty()
        return data

    def drain(self) -> Ended:
        """Everything up to the end of the command."""
        while self._take() != b"":
            pass
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
        return Ended(code, bytes(self.out), bytes(self.err), self.asked)

    def _empty(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(CHUNK)
            self.err += data
            self.moved += len(data)
        if len(self.out) + len(self.err) > REPLY_LIMIT:
            raise EOFError("it says more than any answer could hold")
        if time.monotonic() > self._end:
            raise TimeoutError
        if not self._channel.get_transport().is_active() and not self._channel.recv_ready():
            raise EOFError("connection lost")


class Watch:
    """Closes a connection that died without a word, as one does that a laptop slept through: TCP itself would wait
    for a quarter of an hour, and for ever where something in between still takes our bytes."""

    def __init__(self, transport: paramiko.Transport, streams: Streams) -> None:
        self._transport = transport
        self._streams = streams
        self._over = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._look, name="ssh-watch", daemon=True).start()

    def __exit__(self, *why: object) -> None:
        self._over.set()

    def _look(self) -> None:
        seen = 0
        while not self._over.wait(PULSE):
            moved = self._streams.moved
            if moved == seen and not answers(self._transport):
                self._transport.close()
                return
            seen = moved


def answers(transport: paramiko.Transport) -> bool:
    """Whether the other side says anything to a question that every SSH server answers, if only with no (RFC 4254, 4).
    Waits for at most ``PATIENCE``."""

    def ask() -> None:
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.global_request("keepalive@openssh.com")

    # paramiko waits for the answer without end, and for room to send the question as well.
    asker = threading.Thread(target=ask, name="ssh-pulse", daemon=True)
    asker.start()
    asker.join(PATIENCE)
    return not asker.is_alive()
