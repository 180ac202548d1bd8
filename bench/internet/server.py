"""One HTTPS and one HTTP server that play every host of the internet that the bench needs."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bench import paths
from bench.internet import charts, tree
from bench.internet.body import Request, read_body, span
from bench.internet.githost import GitHost
from bench.internet.images import Images
from bench.internet.registry import Registry
from bench.internet.reply import Reply, plain
from bench.internet.repositories import Repositories
from bench.internet.tls import Authority

_CHUNK = 1 << 20
_IDLE = 120.0
"""Seconds that a kept connection may be silent."""


class Internet:
    """Everything outside of the homelab, between ``start`` and ``stop``.

    ``tree``: the manifests whose images and charts are published. ``binaries``: the path of a built program by its
    name. ``offers``: downloads by URL. ``git_root``: bare repositories that ``git_host`` serves; pushing is allowed.
    ``crds``: folder with lists of the real CRDs; without any, ones are made that take everything. Ports of 0 mean any.
    """

    def __init__(
        self,
        address: str,
        *,
        authority: Authority,
        tree: Path,
        binaries: Callable[[str], Path],
        offers: Mapping[str, Path | bytes],
        git_root: Path,
        git_host: str,
        crds: Path | None = None,
        cache: Path | None = None,
        ports: tuple[int, int] = (443, 80),
    ) -> None:
        self._address = address
        self._authority = authority
        self._binaries = binaries
        self._tree, self._crds = tree, crds
        self._cache = cache or paths.cache() / "images"
        self._offers = {_bare(url): offer for url, offer in offers.items()}
        self._git, self._git_host = GitHost(git_root), git_host
        self.ports = ports
        """Of HTTPS and HTTP."""
        self.seen: Counter[str] = Counter()
        """``METHOD host/path status`` → how often."""
        self._lock = threading.Lock()
        self._servers: list[_Server] = []

    def start(self) -> None:
        """Reads the tree, makes the charts, listens. Raises OSError, ValueError."""
        wanted = tree.read(self._tree)
        packages = charts.packages(wanted.charts, self._crds or charts.reference())
        images = Images(self._cache, authority=self._authority.certificate(), tree=wanted, binaries=self._binaries)
        self._registry, self._repositories = Registry(images, packages), Repositories(packages)
        try:
            for port, context in zip(self.ports, (self._authority.context(self._address), None), strict=True):
                self._servers.append(_Server((self._address, port), self, context))
        except OSError:
            self.stop()
            raise
        self.ports = (self._servers[0].server_port, self._servers[1].server_port)
        for server in self._servers:
            server.running = True  # said before it is so: shutdown then waits for the thread
            threading.Thread(target=server.serve_forever, args=(0.1,), name="internet", daemon=True).start()

    def stop(self) -> None:
        """Ends listening; connections in work are cut."""
        for server in self._servers:
            if server.running:
                server.shutdown()
            server.server_close()
        self._servers = []

    def answer(self, request: Request) -> Reply:
        """The reply to one request."""
        if request.host == self._git_host:
            return self._git.answer(request.method, request.path, request.query, request.headers, request.body)
        if request.method not in ("GET", "HEAD"):
            return plain(405, "only reading is possible here")
        url = f"{request.host}{request.path}"
        if url in self._offers:
            return Reply(200, self._offers[url], {"Content-Type": "application/octet-stream"})
        found = self._registry.answer(request.host, request.path) or self._repositories.answer(url)
        return found or plain(404, f"the bench's internet has no {url}")

    def note(self, request: Request, status: int) -> None:
        """Counts a request."""
        with self._lock:
            self.seen[f"{request.method} {request.host}{request.path} {status}"] += 1


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}{unquote(parts.path)}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, where: tuple[str, int], internet: Internet, context: ssl.SSLContext | None) -> None:
        self.internet = internet
        self.context = context
        self.running = False
        super().__init__(where, _Handler)

    def server_bind(self) -> None:
        """Without the look-up of a name for the address, which may hang."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "internet", self.server_address[1]

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The handshake is made in the connection's own thread, so that a slow client stops nobody."""
        if self.context is not None:
            request.settimeout(_IDLE)
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except (OSError, ValueError):
                self.shutdown_request(request)
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "funoffshore-bench"
    timeout = _IDLE
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        with read_body(self.headers, self.rfile) as body:
            parts = urlsplit(self.path)
            host = (parts.hostname or self.headers.get("Host", "").rpartition("]")[2].partition(":")[0]).lower()
            path, headers = unquote(parts.path), dict(self.headers.items())
            request = Request(self.command, host, path, parts.query, headers, body)
            try:
                reply = self.server.internet.answer(request)
            except Exception as why:
                traceback.print_exc()
                reply = plain(500, f"{type(why).__name__}: {why}")
        self._send(request, reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _send(self, request: Request, reply: Reply) -> None:
        whole = reply.size
        wanted = span(request.headers.get("Range", ""), whole) if reply.status == 200 else (0, whole)
        status = reply.status if wanted == (0, whole) else 206 if wanted else 416
        first, last = wanted or (0, 0)
        self.server.internet.note(request, status)
        self.send_response(status)
        for name, value in reply.headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        if reply.status == 200:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{whole}")
        elif status == 416:
            self.send_header("Content-Range", f"bytes */{whole}")
        self.send_header("Content-Length", str(last - first))
        self.end_headers()
        if self.command != "HEAD":
            self._write(reply.body, first, last)

    def _write(self, body: bytes | Path, first: int, last: int) -> None:
        if isinstance(body, bytes):
            self.wfile.write(body[first:last])
            return
        with body.open("rb") as file:
            file.seek(first)
            while first < last and (chunk := file.read(min(_CHUNK, last - first))):
                self.wfile.write(chunk)
                first += len(chunk)

    def handle(self) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Counted instead, by ``note``."""
