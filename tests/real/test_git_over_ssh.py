"""Flux follows a repository over SSH: a real sshd, a deploy key, and a host key that is pinned."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_home import RealOperator, eventually

from bench import control, home, paths
from bench.hosts import names
from bench.internet.sshgit import SshGit

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def forge(right_to_the_bench: None) -> Iterator[SshGit]:
    """The bench's Git server, up."""
    control.up()
    try:
        yield SshGit(names.GATEWAY, paths.run() / "git-ssh", paths.run() / "git")
    finally:
        control.down()


def operator_of(folder: Path, forge: SshGit, known_host: str) -> RealOperator:
    return RealOperator(
        folder, 1, 1, GIT_URL=f"ssh://git@{home.GIT_HOST}/{home.REPOSITORY}.git", GIT_KNOWN_HOSTS=known_host,
        GIT_SSH_KEY=base64.b64encode(forge.deploy_key.read_bytes()).decode(),
    )  # fmt: skip


def test_another_host_key_is_refused(forge: SshGit, tmp_path: Path) -> None:
    other = (paths.run() / "git-ssh" / "deploy.pub").read_text().split()
    operator = operator_of(tmp_path / "home", forge, f"{home.GIT_HOST} {other[0]} {other[1]}")
    ended = operator.fo("doctor")
    assert ended.code != 0
    assert "Host key verification failed" in ended.out + ended.err


def test_fo_and_flux_read_the_same_commit(forge: SshGit, tmp_path: Path) -> None:
    operator = operator_of(tmp_path / "home", forge, forge.known_host(home.GIT_HOST))
    ended = operator.fo("doctor")
    assert ended.code == 0, ended.out + ended.err
    commit = operator.git("rev-parse", "HEAD")
    with operator.start("bootstrap", "--until", "flux") as process:
        try:

            def fetched() -> bool:
                source = operator.kubectl("-n", "flux-system", "get", "gitrepository", "flux-system", "-o", "json")
                return commit in source.out and '"reason": "Succeeded"' in source.out

            eventually("source-controller to fetch over SSH", fetched, 240)
        finally:
            process.kill()
            process.communicate()
    secret = operator.get("-n", "flux-system", "secret", "flux-git")
    assert sorted(secret["data"]) == ["identity", "known_hosts"]
