"""The Git door against real git: a checkout, and a repository behind HTTP."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from config_samples import LAB
from pydantic import SecretStr

from funoffshore import config as configs
from funoffshore.config import ClusterConfig, new
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world import git

TOKEN = "ghp_verysecrettoken"


def cluster(root: Path, **changes: Any) -> ClusterConfig:
    """A config whose repository is ``root``."""
    parsed = configs.parse(new.generate("lab", LAB, lab=True), "lab", root)
    return replace(parsed, root=root, git=replace(parsed.git, **changes))


def run(folder: Path, *argv: str) -> str:
    who = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **who}
    done = subprocess.run(["git", *argv], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "infra" / "k8s").mkdir(parents=True)
    (folder / "infra" / "k8s" / "a.yaml").write_text("a: 1\n")
    (folder / "infra" / "k8s" / "ü b.yaml").write_bytes(b"\x00\xff\n")
    (folder / "infra" / "link").symlink_to("k8s/a.yaml")
    (folder / "other").write_text("x")
    run(folder, "init", "-q", "-b", "main")
    run(folder, "add", "-A")
    run(folder, "commit", "-q", "-m", "one")
    return folder


def test_head_and_files_of_a_commit(checkout: Path) -> None:
    repo = git.Repo(cluster(checkout))
    commit = run(checkout, "rev-parse", "HEAD")
    assert repo.head() == Present(commit)
    files = repo.files(commit, "infra/k8s")
    assert files == Present({"infra/k8s/a.yaml": b"a: 1\n", "infra/k8s/ü b.yaml": b"\x00\xff\n"})
    assert repo.files(commit, "nowhere") == Absent()
    with pytest.raises(ValueError, match="not a commit"):
        repo.files("HEAD; rm -rf /", "infra")


def test_what_is_not_committed_shows(checkout: Path) -> None:
    repo = git.Repo(cluster(checkout))
    assert repo.dirty("infra/k8s") == Present([])
    (checkout / "infra" / "k8s" / "a.yaml").write_text("a: 2\n")
    (checkout / "infra" / "k8s" / "new.yaml").write_text("")
    (checkout / "unrelated").write_text("")
    assert repo.dirty("infra/k8s") == Present(["infra/k8s/a.yaml", "infra/k8s/new.yaml"])


def test_a_folder_without_repository_is_absent_and_nothing_is_unreadable(tmp_path: Path) -> None:
    assert git.Repo(cluster(tmp_path)).head() == Absent()
    assert git.Repo(cluster(tmp_path)).dirty(".") == Absent()
    run(tmp_path, "init", "-q")
    assert git.Repo(cluster(tmp_path)).head() == Absent()


def test_the_remotes_head(checkout: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    run(checkout, "clone", "-q", "--bare", str(checkout), str(bare))
    repo = git.Repo(cluster(checkout, url=f"file://{bare}", branch="main"))
    assert repo.remote_head() == Present(run(checkout, "rev-parse", "HEAD"))
    assert git.Repo(cluster(checkout, url=f"file://{bare}", branch="gone")).remote_head() == Absent()
    missing = git.Repo(cluster(checkout, url=f"file://{tmp_path}/none.git")).remote_head()
    assert isinstance(missing, Unreadable)


def test_files_of_a_commit_that_only_the_remote_has(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ahead = tmp_path / "ahead"
    run(tmp_path, "clone", "-q", str(checkout), str(ahead))
    (ahead / "infra" / "k8s" / "a.yaml").write_text("a: 2\n")
    run(ahead, "commit", "-q", "-am", "two")
    commit = run(ahead, "rev-parse", "HEAD")
    repo = git.Repo(cluster(checkout, url=f"file://{ahead}", branch="main"))
    found = repo.files(commit, "infra/k8s")
    assert isinstance(found, Present)
    assert found.value["infra/k8s/a.yaml"] == b"a: 2\n"
    assert isinstance(repo.files("0" * 40, "infra/k8s"), Unreadable)
    assert run(checkout, "rev-parse", "HEAD") != commit


@pytest.fixture
def spied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``git`` on PATH that notes its arguments, environment and config file, and fails like a closed door."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "git"
    script.write_text(
        '#!/bin/sh\n{ echo "$@"; env; } > "$0.said"\n'
        'cp -r "$(dirname "$GIT_CONFIG_GLOBAL")" "$0.config"\n'
        'ls -ld "$(dirname "$GIT_CONFIG_GLOBAL")" "$(dirname "$GIT_CONFIG_GLOBAL")"/* > "$0.modes"\n'
        'echo "fatal: cannot $(grep -o "Basic .*" "$GIT_CONFIG_GLOBAL")" >&2\nexit 128\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return script


def test_a_token_is_in_no_argument_environment_or_message(checkout: Path, spied: Path) -> None:
    repo = git.Repo(cluster(checkout, url="https://git.example.org/x.git", token=SecretStr(TOKEN)))
    seen = repo.remote_head()
    assert isinstance(seen, Unreadable)
    said = Path(f"{spied}.said").read_text()
    encoded = "Z2l0OmdocF92ZXJ5c2VjcmV0dG9rZW4="
    for text in (said, seen.why):
        assert TOKEN not in text
        assert encoded not in text
    assert encoded in (Path(f"{spied}.config") / "config").read_text()
    config_path = next(line for line in said.splitlines() if line.startswith("GIT_CONFIG_GLOBAL=")).partition("=")[2]
    assert not Path(config_path).parent.exists()


def test_an_ssh_key_is_a_private_file_and_hosts_are_pinned(checkout: Path, spied: Path) -> None:
    key = SecretStr("-----BEGIN KEY-----\nsecret\n-----END KEY-----")
    hosts = "git.example.org ssh-ed25519 AAAA"
    git.Repo(
        cluster(checkout, url="ssh://git@git.example.org/x.git", ssh_key=key, token=None, known_hosts=hosts)
    ).remote_head()
    folder = Path(f"{spied}.config")
    text = (folder / "config").read_text()
    for option in ("-F /dev/null", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "BatchMode=yes"):
        assert option in text
    assert (folder / "known_hosts").read_text() == hosts + "\n"
    modes = {line.split()[-1]: line[:10] for line in Path(f"{spied}.modes").read_text().splitlines()}
    assert {mode for name, mode in modes.items() if name.endswith(("identity", "config"))} == {"-rw-------"}
    assert modes[min(modes, key=len)] == "drwx------"
    assert "secret" not in Path(f"{spied}.said").read_text()


def test_reading_changes_nothing(checkout: Path) -> None:
    index = checkout / ".git" / "index"
    before = (index.read_bytes(), stat.S_IMODE(index.stat().st_mode), index.stat().st_mtime_ns)
    repo = git.Repo(cluster(checkout))
    repo.head()
    repo.dirty(".")
    assert (index.read_bytes(), stat.S_IMODE(index.stat().st_mode), index.stat().st_mtime_ns) == before


def test_a_private_authority_is_trusted_by_git_too(
    checkout: Path, spied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/home-ca.pem")
    git.Repo(cluster(checkout, url="https://git.example.org/x.git", token=None)).remote_head()
    assert "GIT_SSL_CAINFO=/etc/home-ca.pem" in Path(f"{spied}.said").read_text().splitlines()
