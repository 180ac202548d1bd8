"""The name server of the bench: every public name leads to the bench's internet, and nothing else exists."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Iterable, Mapping

_A, _PTR, _AAAA, _ANY = 1, 12, 28, 255
_IN = 1
_NOERROR, _FORMERR, _NXDOMAIN, _NOTIMP = 0, 1, 3, 4
_QR, _AA, _RA = 0x8000, 0x0400, 0x0080
_TTL = 60
_LIMIT = 65535
_IDLE = 10.0
"""Seconds that a client may keep a TCP connection without asking."""


class NameServer:
    """Answers on UDP and TCP between ``start`` and ``stop``.

    ``hosts`` are names with an address of their own. Below the domains of ``nowhere`` only those exist: there stand
    the names that a resolver tries when it appends its search domain. Single labels and cluster-internal names
    exist nowhere.
    """

    def __init__(
        self,
        address: str,
        *,
        internet: str,
        nowhere: Iterable[str] = (),
        hosts: Mapping[str, str] | None = None,
        port: int = 53,
    ) -> None:
        self._where = (address, port)
        self._internet = ipaddress.IPv4Address(internet)
        self._hosts = {_plain(k): ipaddress.IPv4Address(v) for k, v in (hosts or {}).items()}
        self._nowhere = tuple(_plain(n) for n in (*nowhere, "cluster.local", "arpa"))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    @property
    def port(self) -> int:
        """The port that it really listens on."""
        return self._where[1]

    def start(self) -> None:
        """Raises OSError when the address or port is taken."""
        self._ended.clear()
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets = [tcp, udp]
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(self._where)
            self._where = (self._where[0], tcp.getsockname()[1])
            udp.bind(self._where)
            tcp.listen(64)
        except OSError:
            self.stop()
            raise
        for target, sock in ((self._datagrams, udp), (self._connections, tcp)):
            thread = threading.Thread(target=target, args=(sock,), name=f"dns-{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Ends both listeners; a query in work may go unanswered."""
        self._ended.set()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(2)
        self._sockets, self._threads = [], []

    def answer(self, query: bytes) -> bytes | None:
        """The reply to one message; None for what is no query at all. Never raises."""
        if len(query) < 12:
            return None
        ident, flags, questions = struct.unpack_from("!HHH", query)
        if flags & _QR:
            return None
        if flags >> 11 & 15:
            return _reply(ident, flags, _NOTIMP)
        asked = _question(query) if questions == 1 else None
        if asked is None:
            return _reply(ident, flags, _FORMERR)
        name, kind, section = asked
        address = self._find(name)
        if address is None:
            return _reply(ident, flags, _NXDOMAIN, section)
        if kind not in (_A, _ANY):
            return _reply(ident, flags, _NOERROR, section)
        record = struct.pack("!HHHIH", 0xC00C, _A, _IN, _TTL, 4) + address.packed
        return _reply(ident, flags, _NOERROR, section, record)

    def _find(self, name: str) -> ipaddress.IPv4Address | None:
        if name in self._hosts:
            return self._hosts[name]
        if "." not in name or any(name == n or name.endswith("." + n) for n in self._nowhere):
            return None
        return self._internet

    def _datagrams(self, sock: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                query, client = sock.recvfrom(_LIMIT)
            except OSError:  # closed, or the echo of an unreachable client
                if self._ended.is_set():
                    return
                continue
            reply = self.answer(query)
            if reply is not None:
                with contextlib.suppress(OSError):
                    sock.sendto(reply, client)

    def _connections(self, sock: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                client, _ = sock.accept()
            except OSError:
                return
            threading.Thread(target=self._conversation, args=(client,), name="dns-client", daemon=True).start()

    def _conversation(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(_IDLE)
            while (size := _exactly(client, 2)) and (query := _exactly(client, int.from_bytes(size, "big"))):
                reply = self.answer(query)
                if reply is None:
                    return
                client.sendall(len(reply).to_bytes(2, "big") + reply)


def _plain(name: str) -> str:
    return name.strip(".").lower()


def _question(query: bytes) -> tuple[str, int, bytes] | None:
    """Name, type, and the question as it stood; None when it cannot be read. Its name is never compressed."""
    labels: list[str] = []
    at = 12
    while at < len(query):
        size = query[at]
        if size == 0:
            end = at + 5
            if end > len(query) or at - 12 > 254:
                return None
            kind, _ = struct.unpack_from("!HH", query, at + 1)
            return ".".join(labels), kind, query[12:end]
        if size > 63 or at + 1 + size > len(query):
            return None
        labels.append(query[at + 1 : at + 1 + size].decode("latin-1").lower())
        at += 1 + size
    return None


def _reply(ident: int, flags: int, code: int, section: bytes = b"", record: bytes = b"") -> bytes:
    kept = flags & 0x7900  # opcode and "recursion desired" come back as they were
    head = struct.pack("!HHHHHH", ident, _QR | _AA | _RA | kept | code, bool(section), bool(record), 0, 0)
    return head + section + record


def _exactly(sock: socket.socket, size: int) -> bytes:
    """Empty when the other side ends early."""
    got = b""
    while len(got) < size:
        part = sock.recv(size - len(got))
        if not part:
            return b""
        got += part
    return got
