"""Fetching for GitRepositories: real git, over the network, into bare repositories below the lab's directory."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from funoffshore.lab.web import repos


class FetchError(Exception):
    """Why a source cannot be fetched, in source-controller's words."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the Secret of a GitRepository holds."""

    username: str = ""
    password: str = ""
    bearer: str = ""
    identity: str = ""
    known_hosts: str = ""


class Files(Mapping[str, bytes]):
    """The files of one commit, read top folder by top folder as they are asked for."""

    def __init__(self, bare: Path, commit: str) -> None:
        self._bare = bare
        self._blobs: dict[str, str] = {}
        self._read: dict[str, bytes] = {}
        self._lock = threading.Lock()
        listed = _run([f"--git-dir={bare}", "ls-tree", "-r", "-z", "--full-tree", commit])
        for entry in listed.decode(errors="surrogateescape").split("\0"):
            about, _, name = entry.partition("\t")
            if about.startswith("100"):
                self._blobs[name] = about.split()[2]

    def __getitem__(self, name: str) -> bytes:
        with self._lock:
            if name not in self._read:
                self._load([n for n in self._blobs if n.split("/", 1)[0] == name.split("/", 1)[0]])
            return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._blobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def __len__(self) -> int:
        return len(self._blobs)

    def _load(self, names: list[str]) -> None:
        asked = "".join(f"{self._blobs[n]}\n" for n in names).encode()
        out = _run([f"--git-dir={self._bare}", "cat-file", "--batch"], asked)
        at = 0
        for name in names:
            end = out.index(b"\n", at)
            size = int(out[at:end].split()[2])
            self._read[name] = out[end + 1 : end + 1 + size]
            at = end + size + 2


class Checkouts:
    """Bare repositories ``<directory>/<namespace>_<name>.git``, one for each GitRepository."""

    def __init__(self, directory: Path, routes: Path) -> None:
        self._directory = directory
        self._routes = routes
        self._files: dict[tuple[Path, str], Files] = {}
        self._lock = threading.Lock()

    def fetch(self, name: str, url: str, ref: Mapping[str, str], credentials: Credentials) -> str:
        """The commit that ``ref`` (spec.ref) names at ``url``, once its files are here. Raises FetchError."""
        bare = self._directory / f"{name}.git"
        wanted = _refspec(ref)
        with self._access(url, credentials) as environment:
            commit = ref.get("commit") or _resolve(url, wanted, environment)
            if not (bare / "HEAD").exists():
                bare.parent.mkdir(parents=True, exist_ok=True)
                _run(["init", "-q", "--bare", str(bare)])
            if not _has(bare, commit):
                asked = commit if ref.get("commit") else wanted
                fetch = ["fetch", "-q", "--depth=1", "--no-tags", "--", url, f"+{asked}:refs/lab"]
                _network([f"--git-dir={bare}", *fetch], url, "unable to clone", environment)
        return commit

    def files(self, name: str, commit: str) -> Files:
        """The files of a commit that was fetched. Raises FetchError when it is not here."""
        bare = self._directory / f"{name}.git"
        with self._lock:
            if (bare, commit) not in self._files:
                if not _has(bare, commit):
                    raise FetchError(f"artifact of commit {commit} is not in storage")
                self._files = {k: v for k, v in self._files.items() if k[0] != bare}
                self._files[bare, commit] = Files(bare, commit)
            return self._files[bare, commit]

    @contextlib.contextmanager
    def _access(self, url: str, credentials: Credentials) -> Iterator[dict[str, str]]:
        with tempfile.TemporaryDirectory(prefix="lab-git-") as folder:
            path = Path(folder)
            lines = self._detour(url)
            if urlsplit(url).scheme == "ssh":
                (path / "identity").write_text(credentials.identity)
                (path / "identity").chmod(0o600)
                (path / "known_hosts").write_text(credentials.known_hosts)
                options = f"-o UserKnownHostsFile={path}/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes"
                lines.append(("core", "sshCommand", f"ssh -F /dev/null {options} -i {path}/identity"))
            elif header := _header(credentials):
                lines.append(("http", "extraHeader", header))
            text = "".join(f'[{section}]\n\t{key} = "{value}"\n' for section, key, value in lines)
            (path / "config").touch(0o600)
            (path / "config").write_text(text)
            yield repos.environment() | {"GIT_CONFIG_GLOBAL": str(path / "config")}

    def _detour(self, url: str) -> list[tuple[str, str, str]]:
        """Where the lab's listener had to move, git follows."""
        parts = urlsplit(url)
        try:
            moved = json.loads(self._routes.read_text()).get(f"{parts.hostname}:{parts.port or 80}")
        except (OSError, ValueError):
            moved = None
        lines = [("http", "proxy", "")]
        if moved:
            lines.append((f'url "http://{moved[0]}:{moved[1]}/"', "insteadOf", f"{parts.scheme}://{parts.netloc}/"))
        return lines


def _header(credentials: Credentials) -> str:
    if credentials.bearer:
        return f"Authorization: Bearer {credentials.bearer}"
    if credentials.username or credentials.password:
        pair = f"{credentials.username}:{credentials.password}".encode()
        return "Authorization: Basic " + base64.b64encode(pair).decode()
    return ""


def _refspec(ref: Mapping[str, str]) -> str:
    if ref.get("name"):
        return ref["name"]
    return f"refs/tags/{ref['tag']}" if ref.get("tag") else f"refs/heads/{ref.get('branch') or 'master'}"


def _resolve(url: str, wanted: str, environment: dict[str, str]) -> str:
    out = _network(["ls-remote", "--", url, wanted, f"{wanted}^{{}}"], url, "unable to list remote for", environment)
    lines = out.decode().splitlines()
    if not lines:
        raise FetchError(f"unable to clone '{url}': couldn't find remote ref \"{wanted}\"")
    return lines[-1].split("\t")[0]


def _has(bare: Path, commit: str) -> bool:
    command = ["git", f"--git-dir={bare}", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, env=repos.environment(), capture_output=True, check=False).returncode == 0


def _run(argv: list[str], stdin: bytes = b"") -> bytes:
    command = ["git", *argv]
    return subprocess.run(command, input=stdin, env=repos.environment(), capture_output=True, check=True).stdout


def _network(argv: list[str], url: str, doing: str, environment: dict[str, str]) -> bytes:
    """Runs git against ``url``; its failures become the words of go-git, which is what Flux uses."""
    try:
        done = subprocess.run(["git", *argv], env=environment, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise FetchError(f"{doing} '{url}': context deadline exceeded") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace")
    parts = urlsplit(url)
    if "Failed to connect" in said or "Connection refused" in said:
        peer = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        cause = f'Get "{url}/info/refs?service=git-upload-pack": dial tcp {peer}: connect: connection refused'
    elif "Authentication failed" in said or "could not read Username" in said or "401" in said:
        cause = "authentication required"
    elif "returned error: 404" in said or "not found" in said:
        cause = "repository not found"
    elif "returned error: " in said:
        cause = f"unexpected client error: unexpected status code {said.rsplit('returned error: ', 1)[1].split()[0]}"
    else:
        cause = " ".join(said.split())[-300:]
    raise FetchError(f"{doing} '{url}': {cause}")


def credentials_of(secret: Mapping[str, str] | None) -> Credentials:
    """``data`` of a Secret, base64."""
    data = {k: base64.b64decode(v).decode(errors="replace") for k, v in (secret or {}).items()}
    return Credentials(
        data.get("username", ""), data.get("password", ""), data.get("bearerToken", ""),
        data.get("identity", ""), data.get("known_hosts", ""),
    )  # fmt: skip
