"""Plain HTTP on the lab's web address. Downloads are bytes in memory; Git goes through git's own CGI program."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from funoffshore.lab.base import Kit
from funoffshore.lab.web import offers, repos

_GIT_PATH = re.compile(r"/git/(?P<path>[A-Za-z0-9][A-Za-z0-9._-]*\.git/(?:info/refs|git-upload-pack))")
_K3S_PATH = re.compile(r"/k3s/(?P<version>v\d+\.\d+\.\d+\+k3s\d+)/(?P<name>[a-z0-9.-]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_FLUX_PATH = re.compile(r"/flux/(?P<version>v\d+\.\d+\.\d+)/install\.yaml")


class Web:
    """Serves ``http://host:port``. Repositories live below ``kit.directory/"git"`` and outlast the process."""

    def __init__(self, kit: Kit, host: str, port: int = 8088) -> None:
        self._kit = kit
        self.host = host
        self.port = port
        self.repos = repos.Repos(kit.directory / "git")
        self._bodies: dict[str, bytes] = {offers.IMAGE_PATH: offers.image()}
        self._server: ThreadingHTTPServer | None = None
        self.before_git: Callable[[], object] = lambda: None
        """Called before a client is told what a repository holds; publishes what the operator has committed."""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def git_url(self, name: str = "home") -> str:
        return f"{self.url}/git/{name}.git"

    def add(self, path: str, body: bytes) -> None:
        """Offers ``body`` at ``path``, which is absolute and not percent-encoded."""
        self._bodies[path] = body

    def publish(self, worktree: Path, name: str = "home", branch: str = "main") -> str | None:
        """Makes ``branch`` of ``/git/<name>.git`` the HEAD of ``worktree``; see ``repos.Repos.publish``."""
        return self.repos.publish(worktree, name, branch)

    def start(self) -> None:
        """Serves on threads of its own. Raises OSError when the address cannot be had."""
        listener = self._kit.routes.listen(self.host, self.port)
        server = ThreadingHTTPServer((self.host, self.port), _handler(self), bind_and_activate=False)
        server.socket.close()
        server.socket = listener
        server.daemon_threads = True
        server.block_on_close = False
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), name="lab-web", daemon=True).start()

    def stop(self) -> None:
        """Closes the listener. Does nothing when it is not serving."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        self._kit.routes.forget(self.host, self.port)

    def body(self, path: str) -> bytes | None:
        """What a download of ``path`` gives, or None."""
        if match := _FLUX_PATH.fullmatch(path):
            return self._bodies.setdefault(path, offers.flux_install(match["version"]))
        if path not in self._bodies and (match := _K3S_PATH.fullmatch(path)):
            return offers.k3s_asset(match["version"], match["name"])
        return self._bodies.get(path)

    def git_is_down(self) -> bool:
        return self._kit.faults.hits("git-unreachable")


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        site = web

    return Handler


class _Handler(BaseHTTPRequestHandler):
    site: Web
    protocol_version = "HTTP/1.1"
    server_version = "funoffshore-lab"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self._serve(b"")

    def do_HEAD(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._read_body())

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: stderr belongs to the operator."""

    def _serve(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        if path.startswith("/git/"):
            self._serve_git(path, parts.query, body)
            return
        found = self.site.body(path)
        if found is None or self.command == "POST":
            self._answer(404 if found is None else 405, b"not found\n")
        else:
            self._send(found)

    def _send(self, whole: bytes) -> None:
        """The download, or the part of it that is asked for (RFC 9110, section 14)."""
        head = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, whole, head)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(whole) - 1), len(whole) - 1)
        if first > last:
            self._answer(416, b"", {**head, "Content-Range": f"bytes */{len(whole)}"})
            return
        self._answer(206, whole[first : last + 1], {**head, "Content-Range": f"bytes {first}-{last}/{len(whole)}"})

    def _serve_git(self, path: str, query: str, body: bytes) -> None:
        if self.site.git_is_down():
            self.close_connection = True
            self._answer(503, b"the lab's fault git-unreachable is on\n")
            return
        match = _GIT_PATH.fullmatch(path)
        if match is None or (path.endswith("info/refs") and query != "service=git-upload-pack"):
            self._answer(403 if "receive-pack" in self.path else 404, b"only fetching is served here\n")
            return
        if path.endswith("info/refs"):
            self.site.before_git()
        reply = self.site.repos.serve(
            self.command, match["path"], query, {k.lower(): v for k, v in self.headers.items()}, body
        )
        self._answer(reply.status, reply.body, reply.headers)

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            chunks = []
            while size := int(self.rfile.readline(64).split(b";")[0] or b"0", 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline(8)
            self.rfile.readline(8)
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {"Content-Type": "text/plain"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
