"""Git over HTTP: git's own http-backend, run for each request."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from bench.internet.reply import Reply, plain

_LIMIT = 600.0
"""Seconds that one request may take."""


class GitHost:
    """Serves the bare repositories below ``root``; whoever asks may push."""

    def __init__(self, root: Path) -> None:
        self._root = root
        where = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()
        self._program = str(Path(where) / "git-http-backend")

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: BinaryIO | bytes) -> Reply:
        """``body`` is a file, or bytes; ``headers`` of the request by any case of their names."""
        lower = {k.lower(): v for k, v in headers.items()}
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": lower.get("git-protocol", ""),
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": lower.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": lower.get("content-encoding", ""),
            "REMOTE_ADDR": "bench",
            "REMOTE_USER": "bench",
            # repositories may belong to another account than the server's
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        try:
            ended = self._run(environment, body)
        except subprocess.TimeoutExpired:
            return plain(504, "git took too long")
        return _parsed(ended.stdout) or plain(500, ended.stderr.decode(errors="replace")[-500:])

    def _run(self, environment: Mapping[str, str], body: BinaryIO | bytes) -> subprocess.CompletedProcess[bytes]:
        argv = [self._program]
        if isinstance(body, bytes):
            return subprocess.run(argv, env=environment, input=body, capture_output=True, timeout=_LIMIT, check=False)
        return subprocess.run(argv, env=environment, stdin=body, capture_output=True, timeout=_LIMIT, check=False)


def _parsed(output: bytes) -> Reply | None:
    """The reply in a CGI program's output; None when it is none."""
    head, found, body = output.partition(b"\r\n\r\n")
    if not found:
        return None
    headers = dict(line.decode("latin-1").split(": ", 1) for line in head.split(b"\r\n") if b": " in line)
    status = int(headers.pop("Status", "200").split()[0])
    return Reply(status, body, headers)
