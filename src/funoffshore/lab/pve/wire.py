"""HTTP/1.1 over TLS as the real API server speaks it: its headers, its reason phrases, its refusals.

Recorded from a real 8.4 API (pve-http-server 5.2.2). One thread per connection; the TLS handshake happens there too,
so that a client that never finishes it holds up nobody.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 512 * 1024
UPLOAD_LIMIT = 1 << 30
_IDLE = 60.0
_DRAIN = 16 << 20


@dataclass(slots=True)
class Request:
    """One request, body included unless ``trouble`` says why it was not read."""

    method: str
    target: str
    """Path and query as sent."""
    headers: dict[str, str]
    """By lower-case name; the last of a repeated one."""
    body: bytes = b""
    trouble: str = ""
    """``chunked`` or ``large``."""
    version: str = "HTTP/1.1"


@dataclass(slots=True)
class Reply:
    """One answer."""

    status: int = 200
    reason: str = "OK"
    body: bytes = b""
    protected: bool = False
    """Came from the privileged daemon, which sends two Connection headers."""
    content_type: str = "application/json;charset=UTF-8"
    extra: list[tuple[str, str]] = field(default_factory=list)
    cut: bool = False
    """Nothing is sent: the connection just closes."""


class Server:
    """Answers on a listening socket until stopped."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext, answer: Callable[[Request], Reply]) -> None:
        self._listener = listener
        self._tls = tls
        self._answer = answer
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._accept, name="pve-accept", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Closes the listener and every connection."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _accept(self) -> None:
        while not self._stopped:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="pve-client", daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with self._guard:
            self._open.add(raw)
        stream: socket.socket = raw
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.settimeout(10)
            if raw.recv(1, socket.MSG_PEEK)[:1] not in (b"\x16", b""):
                _redirect(raw)
                return
            stream = self._tls.wrap_socket(raw, server_side=True)
            stream.settimeout(_IDLE)
            with self._guard:
                self._open.discard(raw)
                self._open.add(stream)
            _converse(stream, self._answer)
        except (OSError, ValueError):
            pass
        finally:
            with self._guard:
                self._open.discard(raw)
                self._open.discard(stream)
            with contextlib.suppress(OSError):
                stream.close()


def _converse(stream: socket.socket, answer: Callable[[Request], Reply]) -> None:
    """Requests and answers in turn, until either side closes."""
    rest = bytearray()
    while True:
        request = _read(stream, rest)
        if request is None:
            return
        reply = answer(request)
        if reply.cut:
            return
        keep = _send(stream, request, reply)
        if request.trouble:
            _drain(stream)
        if not keep:
            return


def _read(stream: socket.socket, rest: bytearray) -> Request | None:
    """The next request, or None when the client has gone. Raises ValueError for what is no HTTP."""
    while (end := rest.find(b"\r\n\r\n")) < 0:
        if len(rest) > HEAD_LIMIT:
            raise ValueError("head too long")
        chunk = stream.recv(65536)
        if not chunk:
            return None
        rest += chunk
    request = parse_head(bytes(rest[:end]))
    del rest[: end + 4]
    if "transfer-encoding" in request.headers:
        request.trouble = "chunked"
        rest.clear()
        return request
    length = int(request.headers.get("content-length", "0"))
    if length < 0:
        raise ValueError("negative length")
    multipart = request.headers.get("content-type", "").startswith("multipart/form-data")
    if length > (UPLOAD_LIMIT if multipart else BODY_LIMIT):
        request.trouble = "large"
        rest.clear()
        return request
    if length > len(rest) and request.headers.get("expect", "").lower() == "100-continue":
        stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(rest) < length:
        chunk = stream.recv(min(length - len(rest), 1 << 20))
        if not chunk:
            return None
        rest += chunk
    request.body = bytes(rest[:length])
    del rest[:length]
    return request


def parse_head(head: bytes) -> Request:
    """Request line and headers. Raises ValueError for what is no HTTP."""
    first, *lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("not HTTP/1")
    headers: dict[str, str] = {}
    for line in lines:
        name, sign, value = line.partition(":")
        if not sign:
            raise ValueError("no header")
        headers[name.strip().lower()] = value.strip()
    return Request(method, target, headers, version=version)


_dates: tuple[int, str] = (0, "")


def _date() -> str:
    global _dates
    second = int(time.time())
    if _dates[0] != second:
        _dates = (second, formatdate(second, usegmt=True))
    return _dates[1]


def _send(stream: socket.socket, request: Request, reply: Reply) -> bool:
    """Sends the answer; True when the connection stays open."""
    wants_close = request.headers.get("connection", "").lower() == "close" or request.version == "HTTP/1.0"
    keep = reply.status < 400 and not wants_close and not request.trouble
    date = _date()
    reason = reply.reason.split("\n")[0].encode("latin-1", "replace").decode("latin-1").replace("\r", " ")
    lines = [f"{request.version} {reply.status} {reason}", "Cache-Control: max-age=0"]
    if reply.protected and keep:
        # What a client makes of the first one decides: curl and Python reconnect, as against the real server.
        lines.append("Connection: close")
    lines.append("Connection: Keep-Alive" if keep else "Connection: close")
    body = reply.body
    if len(body) > 1024 and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 1, mtime=0)
        lines.append("Content-Encoding: gzip")
    lines += [
        f"Date: {date}",
        "Pragma: no-cache",
        "Server: pve-api-daemon/3.0",
        f"Content-Length: {len(body)}",
        f"Content-Type: {reply.content_type}",
        f"Expires: {date}",
        *(f"{name}: {value}" for name, value in reply.extra),
    ]
    if request.method == "HEAD":
        body = b""
    stream.sendall("\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body)
    return keep


def _drain(stream: socket.socket) -> None:
    """Reads what a client still sends, so that it gets to read the refusal instead of a reset."""
    stream.settimeout(1)
    left = _DRAIN
    with contextlib.suppress(OSError):
        while left > 0 and (chunk := stream.recv(65536)):
            left -= len(chunk)


def _redirect(raw: socket.socket) -> None:
    """``http://`` on this port: 301 to the same at ``https://``."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_LIMIT:
        chunk = raw.recv(65536)
        if not chunk:
            return
        head += chunk
    request = parse_head(head.partition(b"\r\n\r\n")[0])
    where = f"https://{request.headers.get('host', 'localhost')}{request.target}"
    text = "Moved Permanently"
    raw.sendall(
        f"HTTP/1.1 301 {text}\r\nLocation: {where}\r\nConnection: close\r\n"
        f"Content-Length: {len(text)}\r\n\r\n{text}".encode("latin-1", "replace")
    )
