"""The lab's bare Git repositories: filled from the operator's checkout, read by anyone over smart HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 60


def environment() -> dict[str, str]:
    """What a git child gets: no file of the user's, no variable of the caller's, English messages.

    ``safe.directory`` is needed when root works in a user's checkout; git takes it from the command scope only
    (git-config, "safe.directory").
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_CONFIG_KEY_1": "core.hooksPath",
        "GIT_CONFIG_VALUE_1": os.devnull,
        "GIT_CONFIG_KEY_2": "gc.auto",
        "GIT_CONFIG_VALUE_2": "0",
    }


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer of git's CGI program."""

    status: int
    headers: dict[str, str]
    body: bytes


class Repos:
    """Bare repositories ``<directory>/<name>.git``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.git"

    def publish(self, worktree: Path, name: str, branch: str) -> str | None:
        """Makes ``refs/heads/<branch>`` the HEAD of ``worktree`` and returns that commit.

        None when ``worktree`` is not the top of a Git checkout, or has no commit. Works from shallow clones. A
        repository that an earlier, killed lab left broken is made anew. Raises OSError when git cannot do it.
        """
        commit = head(worktree)
        if commit is None:
            return None
        with self._lock:
            bare = self.path(name)
            if _git("--git-dir", str(bare), "rev-parse", "--verify", "-q", f"refs/heads/{branch}") == commit:
                return commit
            if _push(worktree, bare, branch) is None:
                shutil.rmtree(bare, ignore_errors=True)
                if _push(worktree, bare, branch) is None:
                    raise OSError(f"git cannot publish {worktree} at {bare}")
        return commit

    def serve(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Reply:
        """Runs ``git http-backend`` for one request; ``headers`` have lower-case names."""
        cgi = environment() | {
            "GIT_PROJECT_ROOT": str(self._directory.resolve()),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": query,
            "REQUEST_METHOD": method,
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        try:
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=cgi, capture_output=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Reply(504, {"Content-Type": "text/plain"}, b"git took too long\n")
        return _reply(done.stdout)


def head(worktree: Path) -> str | None:
    """Commit of the checkout whose top folder is ``worktree``; None when it is no such thing."""
    lines = _git("-C", str(worktree), "rev-parse", "--show-toplevel", "--verify", "HEAD^{commit}")
    if lines is None:
        return None
    top, _, commit = lines.partition("\n")
    return commit if Path(top).resolve() == worktree.resolve() else None


def _push(worktree: Path, bare: Path, branch: str) -> str | None:
    if not (bare / "HEAD").exists():
        bare.parent.mkdir(parents=True, exist_ok=True)
        if _git("init", "-q", "--bare", f"--initial-branch={branch}", str(bare)) is None:
            return None
        _git("--git-dir", str(bare), "config", "receive.shallowUpdate", "true")
    return _git(
        "-C", str(worktree), "push", "-q", "--force", "--no-verify", str(bare.resolve()), f"HEAD:refs/heads/{branch}"
    )


def _git(*argv: str) -> str | None:
    """Stdout without its last newline, or None when git says no."""
    try:
        done = subprocess.run(
            ["git", *argv], env=environment(), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.removesuffix("\n") if done.returncode == 0 else None


def _reply(out: bytes) -> Reply:
    """Parses a CGI answer (RFC 3875, 6): header lines, an empty line, the body."""
    top, _, body = out.partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    for line in top.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        headers[name.strip()] = value.strip()
    status = int(headers.pop("Status", "200 OK").split()[0]) if headers else 500
    headers.pop("Content-Length", None)
    return Reply(status, headers, body)
