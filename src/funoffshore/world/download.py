"""The door to downloads: bytes that are known by their digest before they are asked for."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import requests

from funoffshore import errors
from funoffshore.world.git import cache_directory
from funoffshore.world.routes import Routes

_CONNECT_SECONDS = 15.0
_TOTAL_SECONDS = 300.0
_LOOK_AT_URL = "look at the URL in the env file, and whether this machine reaches it"


class Downloads:
    """Fetches pinned files, once: what was fetched stays in the user's cache under its digest."""

    def __init__(self, cache: Path | None = None, routes: Routes | None = None) -> None:
        self._cache = cache or cache_directory() / "downloads"
        self._routes = routes or Routes()

    def fetch(self, url: str, sha256: str, limit: int = 64 * 1024 * 1024) -> bytes:
        """The bytes whose SHA-256 is ``sha256`` (64 hex digits), from the cache or from ``url``.

        At most ``limit`` bytes are read. Raises DigestError when the bytes are others or too many,
        UnreachableError when nobody answers, RefusedError for an HTTP status other than 200.
        """
        kept = self._cache / sha256
        try:
            body = kept.read_bytes()
            if hashlib.sha256(body).hexdigest() == sha256:
                return body
        except OSError:
            pass
        body = self.get(url, limit)
        found = hashlib.sha256(body).hexdigest()
        if found != sha256:
            raise errors.DigestError(
                f"{url} is not what was pinned: its SHA-256 is {found}, expected {sha256}",
                fix="compare the digest with the one its publisher states, then correct the URL or the digest",
            )
        self._keep(kept, body)
        return body

    def file(self, url: str, sha256: str, limit: int = 64 * 1024 * 1024) -> Path:
        """Where those bytes lie in the cache. Raises like ``fetch``, and StateError when the cache takes nothing."""
        kept = self._cache / sha256
        body = self.fetch(url, sha256, limit)
        try:
            if kept.stat().st_size == len(body):
                return kept
            why = "it holds other bytes"
        except OSError as problem:
            why = problem.strerror or str(problem)
        raise errors.StateError(
            f"the download cache {self._cache} cannot keep a file: {why}", fix="make room, or make that folder writable"
        )

    def get(self, url: str, limit: int = 16 * 1024 * 1024) -> bytes:
        """The bytes at ``url`` whatever they are; for lists that say what a digest shall be. Raises like ``fetch``."""
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise errors.ConfigError(f"{url} is not an http(s) URL", fix="correct the URL in the env file")
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        dial = self._routes.resolve(host, port)
        target = url if dial == (host, port) else parts._replace(netloc=f"{dial[0]}:{dial[1]}").geturl()
        headers = {"Host": parts.netloc} if target != url else {}
        with requests.Session() as session:
            session.trust_env = not host.startswith("127.")
            try:
                with session.get(
                    target, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, _CONNECT_SECONDS)
                ) as reply:
                    return _read(reply, url, limit)
            except requests.RequestException as why:
                raise errors.UnreachableError(f"{url} cannot be fetched: {_cause(why)}", fix=_LOOK_AT_URL) from why

    def _keep(self, path: Path, body: bytes) -> None:
        """A cache that cannot be written is no reason to fail."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, fresh = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            Path(fresh).replace(path)
        except OSError:
            pass


def _read(reply: requests.Response, url: str, limit: int) -> bytes:
    if reply.status_code != 200:
        raise errors.RefusedError(
            f"{url} was answered with {reply.status_code} {reply.reason}", status=reply.status_code, fix=_LOOK_AT_URL
        )
    until = time.monotonic() + _TOTAL_SECONDS
    body = bytearray()
    for piece in reply.iter_content(64 * 1024):
        body += piece
        if len(body) > limit:
            raise errors.DigestError(f"{url} gives more than the {limit} bytes it may have", fix=_LOOK_AT_URL)
        if time.monotonic() > until:
            raise errors.UnreachableError(f"{url} took longer than {_TOTAL_SECONDS:.0f} s", fix=_LOOK_AT_URL)
    return bytes(body)


def _cause(why: BaseException) -> str:
    """The innermost reason that has words: ``Connection refused``, ``timed out``."""
    inner = why
    while True:
        args = [a for a in inner.args if isinstance(a, BaseException)]
        reason = getattr(inner, "reason", None)
        deeper = args[0] if args else reason if isinstance(reason, BaseException) else None
        if deeper is None:
            text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
            return str(text).rsplit(">: ", 1)[-1]
        inner = deeper
