"""The door to Git: the operator's checkout on disk, and the repository that Flux follows."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from funoffshore.config.model import ClusterConfig
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.routes import Routes

TOKEN_USER = "git"  # noqa: S105 -- a user name, and a public one
"""User name sent with an access token; GitHub, GitLab, Gitea and Forgejo look at the token alone."""

_LOCAL_SECONDS = 30.0
_REMOTE_SECONDS = 60.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_KEPT = (
    "PATH", "TMPDIR", "https_proxy", "HTTPS_PROXY", "http_proxy", "no_proxy", "NO_PROXY", "SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Out:
    """How a git process ended; ``code`` -1 means that it could not be run, or not in time."""

    code: int
    out: bytes
    said: str


class _Git(Protocol):
    """Runs one git command in one repository."""

    def __call__(self, *argv: str, stdin: bytes = b"") -> _Out: ...


class Repo:
    """Only reads: no call changes the operator's checkout, its index or its refs, nor anything at the remote.

    Secrets reach git through files of mode 0600 in a folder of mode 0700 that is gone when the call returns, never
    through arguments or environment. SSH hosts are known by ``config.git.known_hosts`` alone.
    """

    def __init__(self, config: ClusterConfig, routes: Routes | None = None) -> None:
        self._root = config.root
        self._git = config.git
        self._routes = routes or Routes(config.lab.directory / "routes.json" if config.lab else None)

    def head(self) -> Reading[str]:
        """Commit that the operator has checked out. Absent when there is no repository, or no commit in it."""
        done = self._local("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        commit = done.out.decode().strip()
        if done.code == 0 and _COMMIT.fullmatch(commit):
            return Present(commit)
        if done.code == 1 or "not a git repository" in done.said:
            return Absent()
        return Unreadable(done.said)

    def dirty(self, path: str) -> Reading[list[str]]:
        """Paths below ``path`` that differ from the commit, untracked ones included, relative to the top folder."""
        done = self._local("--no-optional-locks", "status", "--porcelain=v1", "-z", "--no-renames", "--", path)
        if done.code != 0:
            return Absent() if "not a git repository" in done.said else Unreadable(done.said)
        return Present(sorted(entry[3:] for entry in done.out.decode(errors="replace").split("\0") if entry))

    def remote_head(self) -> Reading[str]:
        """Commit of ``config.git.branch`` at ``config.git.url``. Absent when the remote has no such branch."""
        ref = f"refs/heads/{self._git.branch}"
        done = self._remote("ls-remote", "--exit-code", "--", self._git.url, ref)
        if done.code == 2:
            return Absent()
        commit = done.out.decode(errors="replace").split("\t")[0]
        if done.code == 0 and _COMMIT.fullmatch(commit):
            return Present(commit)
        return Unreadable(f"{self._git.url}: {done.said}")

    def files(self, commit: str, path: str) -> Reading[dict[str, bytes]]:
        """Every file below ``path`` in ``commit``, by its path from the repository's top; symlinks are left out.

        Reads the operator's checkout; when that lacks the commit, a copy of the remote's branch in the user's cache.
        Absent when the commit has nothing at ``path``.
        """
        if not _COMMIT.fullmatch(commit):
            raise ValueError(f"not a commit: {commit!r}")
        if self._local("cat-file", "-e", f"{commit}^{{commit}}").code == 0:
            return _read_files(self._local, commit, path)
        fetched = self._fetch(commit)
        if isinstance(fetched, Unreadable):
            return fetched
        cache = fetched

        def cached(*argv: str, stdin: bytes = b"") -> _Out:
            return _run(["git", f"--git-dir={cache}", *argv], self._environment(), _LOCAL_SECONDS, stdin)

        return _read_files(cached, commit, path)

    def _fetch(self, commit: str) -> Path | Unreadable:
        """The cache, once it holds ``commit``."""
        cache = cache_directory() / "git" / f"{hashlib.sha256(self._git.url.encode()).hexdigest()[:16]}.git"
        cache.parent.mkdir(parents=True, exist_ok=True)
        _run(["git", "init", "-q", "--bare", str(cache)], self._environment(), _LOCAL_SECONDS)
        where = (f"--git-dir={cache}",)
        fetch = (
            "fetch",
            "-q",
            "--depth=1",
            "--no-tags",
            "--",
            self._git.url,
            f"+refs/heads/{self._git.branch}:refs/fo",
        )
        done = self._remote(*where, *fetch)
        if done.code != 0:
            return Unreadable(f"{self._git.url}: {done.said}")
        known = _run(["git", *where, "cat-file", "-e", f"{commit}^{{commit}}"], self._environment(), _LOCAL_SECONDS)
        if known.code != 0:
            return Unreadable(f"commit {commit} is neither in {self._root} nor the head of {self._git.branch}")
        return cache

    def _local(self, *argv: str, stdin: bytes = b"") -> _Out:
        return _run(["git", "-C", str(self._root), *argv], self._environment(), _LOCAL_SECONDS, stdin)

    def _remote(self, *argv: str) -> _Out:
        with self._access() as configured:
            environment = self._environment() | {"GIT_CONFIG_GLOBAL": str(configured)}
            return _run(["git", *argv], environment, _REMOTE_SECONDS, secrets=self._secrets())

    def _environment(self) -> dict[str, str]:
        """``safe.directory`` names the one checkout, as fo may run as root in a user's clone."""
        settings = {"safe.directory": str(self._root), "core.fsmonitor": "false", "core.hooksPath": os.devnull}
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if "SSL_CERT_FILE" in environment:
            # a git built with GnuTLS, as Debian's is, heeds nothing but its own variable
            environment.setdefault("GIT_SSL_CAINFO", environment["SSL_CERT_FILE"])
        environment |= {
            "HOME": os.devnull,
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": str(len(settings)),
        }
        for number, (key, value) in enumerate(settings.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return environment

    @contextlib.contextmanager
    def _access(self) -> Iterator[Path]:
        """A git config file that lets git in at the remote; it and what it names are gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="fo-git-") as folder:
            configured = Path(folder) / "config"
            _write(configured, _config_text(self._access_config(Path(folder))))
            yield configured

    def _access_config(self, folder: Path) -> list[tuple[str, str, str]]:
        """(section, name, value) of git's config file. Writes the files that it names."""
        url = urlsplit(self._git.url)
        config = [("http", "lowSpeedLimit", "1"), ("http", "lowSpeedTime", "20")]
        base = f"{url.scheme}://{url.netloc}/"
        if url.scheme == "ssh":
            _write(folder / "known_hosts", self._git.known_hosts.rstrip("\n") + "\n")
            options = _ssh_options(folder, self._git.ssh_key is not None)
            if self._git.ssh_key is not None:
                _write(folder / "identity", self._git.ssh_key.get_secret_value().rstrip("\n") + "\n")
            config.append(("core", "sshCommand", " ".join(["ssh", *options])))
        elif self._git.token is not None:
            pair = f"{TOKEN_USER}:{self._git.token.get_secret_value()}"
            header = "Authorization: Basic " + base64.b64encode(pair.encode()).decode()
            config.append((f'http "{base}"', "extraHeader", header))
        config.append(("credential", "helper", ""))
        if url.hostname and url.hostname.startswith("127."):
            config.append((f'http "{base}"', "proxy", ""))
            config += self._detour(base, url.hostname, url.port or 80)
        return config

    def _detour(self, base: str, host: str, port: int) -> list[tuple[str, str, str]]:
        dial, at = self._routes.resolve(host, port)
        if (dial, at) == (host, port):
            return []
        return [(f'url "http://{dial}:{at}/"', "insteadOf", base), (f'http "http://{dial}:{at}/"', "proxy", "")]

    def _secrets(self) -> tuple[str, ...]:
        if self._git.token is None:
            return ()
        token = self._git.token.get_secret_value()
        return token, base64.b64encode(f"{TOKEN_USER}:{token}".encode()).decode()


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/funoffshore``, by default ``~/.cache/funoffshore``; all in it can be fetched again."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "funoffshore"


def _ssh_options(folder: Path, identity: bool) -> list[str]:
    options = ["-F", os.devnull]
    for option in (
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={folder / 'known_hosts'}",
        "GlobalKnownHostsFile=" + os.devnull,
        "UpdateHostKeys=no",
        "BatchMode=yes",
        "IdentityAgent=none",
        "IdentitiesOnly=yes",
        "ConnectTimeout=20",
    ):
        options += ["-o", option]
    return options + (["-i", str(folder / "identity")] if identity else [])


def _config_text(lines: list[tuple[str, str, str]]) -> str:
    text = []
    for section, name, value in lines:
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        text.append(f'[{section}]\n\t{name} = "{quoted}"\n')
    return "".join(text)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _run(
    argv: list[str], environment: dict[str, str], seconds: float, stdin: bytes = b"", secrets: tuple[str, ...] = ()
) -> _Out:
    try:
        done = subprocess.run(argv, input=stdin, env=environment, capture_output=True, timeout=seconds, check=False)
    except FileNotFoundError:
        return _Out(-1, b"", "git is not installed")
    except OSError as why:
        return _Out(-1, b"", f"git cannot be run: {why.strerror}")
    except subprocess.TimeoutExpired:
        return _Out(-1, b"", f"git did not answer within {seconds:.0f} s")
    said = done.stderr.decode(errors="replace").strip()
    for secret in secrets:
        said = said.replace(secret, "***")
    return _Out(done.returncode, done.stdout, " ".join(said.split()) or f"git ended with {done.returncode}")


def _read_files(git: _Git, commit: str, path: str) -> Reading[dict[str, bytes]]:
    listed = git("ls-tree", "-r", "-z", "--full-tree", commit, "--", path.strip("/") or ".")
    if listed.code != 0:
        return Unreadable(listed.said)
    blobs: list[tuple[str, str]] = []
    for entry in listed.out.decode(errors="surrogateescape").split("\0"):
        about, _, name = entry.partition("\t")
        if about.startswith("100"):
            blobs.append((name, about.split()[2]))
    if not blobs:
        return Absent()
    batch = git("cat-file", "--batch", stdin="".join(f"{oid}\n" for _, oid in blobs).encode())
    if batch.code != 0:
        return Unreadable(batch.said)
    found: dict[str, bytes] = {}
    at = 0
    for name, _ in blobs:
        end = batch.out.index(b"\n", at)
        header = batch.out[at:end].split()
        if len(header) != 3:
            return Unreadable(f"git lacks {name} of {commit}")
        size = int(header[2])
        found[name] = batch.out[end + 1 : end + 1 + size]
        at = end + size + 2
    return Present(found)
