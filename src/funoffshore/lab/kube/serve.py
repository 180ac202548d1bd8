"""HTTP/1.1 over TLS: listeners, connections, keep-alive, streams. What is answered, ``requests`` decides."""

from __future__ import annotations

import contextlib
import http
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from funoffshore.lab.kube import requests
from funoffshore.lab.kube.api import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from funoffshore.lab.kube.cluster import KubeCluster

_LIMIT = 3 * 1024 * 1024
"""Bytes of a body, as the API server limits them."""
_IDLE = 300
"""Real seconds after which a silent connection is closed."""

Extra = Callable[[HttpRequest], HttpResponse | None]


def context(certificate: bytes, key: bytes, client_ca: bytes) -> ssl.SSLContext:
    """A server's TLS context that verifies client certificates where they are sent. All PEM."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.verify_mode = ssl.CERT_OPTIONAL
    made.load_verify_locations(cadata=client_ca.decode())
    made.set_alpn_protocols(["http/1.1"])
    handle, path = tempfile.mkstemp()  # mode 0600; the ssl module reads keys from files only
    try:
        os.write(handle, certificate.rstrip() + b"\n" + key)
        made.load_cert_chain(path)
    finally:
        os.close(handle)
        os.unlink(path)
    return made


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in. ``target`` still has its query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class _BadRequest(Exception):
    """The peer does not speak HTTP, or too much of it."""


class Listener:
    """Serves ``cluster`` on a listening socket until ``close``."""

    def __init__(self, cluster: KubeCluster, listening: socket.socket, tls: ssl.SSLContext, extra: Extra) -> None:
        self._cluster = cluster
        self._socket = listening
        self._socket.settimeout(1.0)  # where closing a socket does not wake who accepts on it
        self._tls = tls
        self._extra = extra
        self._closed = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="kube-listener", daemon=True).start()

    def close(self) -> None:
        """Ends the listener and every connection, watches too."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with self._cluster.core.objects.changed:
            self._cluster.core.objects.changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                continue
            threading.Thread(target=self._connection, args=(connection,), name="kube-connection", daemon=True).start()

    def _connection(self, plain: socket.socket) -> None:
        with self._lock:
            if self._closed:
                plain.close()
                return
            self._open.add(plain)
        try:
            plain.settimeout(_IDLE)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._tls.wrap_socket(plain, server_side=True) as secure:
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(secure)
                try:
                    self._converse(secure)
                finally:
                    with self._lock:
                        self._open.discard(secure)
        except (OSError, ValueError):  # the peer went away, or the listener closed
            pass
        finally:
            with self._lock:
                self._open.discard(plain)
            plain.close()

    def _converse(self, secure: ssl.SSLSocket) -> None:
        peer = _common_name(secure)
        with secure.makefile("rb", buffering=65536) as stream:
            while not self._closed:
                try:
                    received = _receive(cast(IO[bytes], stream), secure)
                except _BadRequest as why:
                    secure.sendall(_head(HttpResponse(400, str(why).encode())))
                    return
                if received is None:
                    return
                answer = requests.answer(self._cluster, self._extra, received, peer, self)
                if not self._send(secure, received, answer):
                    return

    def _send(self, secure: ssl.SSLSocket, received: Received, answer: HttpResponse | Iterator[bytes]) -> bool:
        """False when the connection must end."""
        if isinstance(answer, HttpResponse):
            secure.sendall(_head(answer) + (b"" if received.method == "HEAD" else answer.body))
            return received.headers.get("connection", "").lower() != "close"
        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in answer:
            if self._closed:
                return False
            secure.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        secure.sendall(b"0\r\n\r\n")
        return True


def _common_name(secure: ssl.SSLSocket) -> str:
    certificate = secure.getpeercert() or {}
    for part in certificate.get("subject", ()):
        for entry in part:
            if isinstance(entry, tuple) and entry[0] == "commonName":
                return str(entry[1])
    return ""


def _head(answer: HttpResponse) -> bytes:
    try:
        phrase = http.HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unknown"
    kind = [f"Content-Type: {answer.content_type}"] if answer.content_type else []
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *kind,
             f"Content-Length: {len(answer.body)}", *(f"{k}: {v}" for k, v in answer.headers.items())]  # fmt: skip
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def _line(stream: IO[bytes]) -> str:
    line = stream.readline(65537)
    if len(line) > 65536:
        raise _BadRequest("a line is too long")
    return line.decode("latin-1").rstrip("\r\n")


def _receive(stream: IO[bytes], secure: ssl.SSLSocket) -> Received | None:
    """The next request, or None when the peer has ended. Raises _BadRequest."""
    first = _line(stream)
    if not first:
        return None
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _BadRequest("not an HTTP/1 request")
    headers: dict[str, str] = {}
    while line := _line(stream):
        name, colon, value = line.partition(":")
        if not colon or len(headers) > 200:
            raise _BadRequest("malformed headers")
        headers[name.strip().lower()] = value.strip()
    if "100-continue" in headers.get("expect", "").lower():
        secure.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return Received(words[0], words[1], headers, _body(stream, headers))


def _body(stream: IO[bytes], headers: dict[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = b""
        while size := _size(_line(stream).partition(";")[0], 16):
            if len(body) + size > _LIMIT:
                raise _BadRequest("the request is too large")
            body += stream.read(size)
            _line(stream)
        while _line(stream):
            pass
        return body
    size = _size(headers.get("content-length", "0"), 10)
    if size > _LIMIT:
        raise _BadRequest("the request is too large")
    return stream.read(size)


def _size(text: str, base: int) -> int:
    try:
        size = int(text.strip(), base)
    except ValueError:
        raise _BadRequest("malformed length") from None
    if size < 0:
        raise _BadRequest("malformed length")
    return size
