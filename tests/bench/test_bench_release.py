"""The bench's second release of K3s."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import build, home, release


@pytest.fixture
def program() -> Path:
    try:
        return build.binary("k3s")
    except build.BuildError as why:
        pytest.skip(f"THE BENCH'S K3S IS NOT TRIED: {why}")


def said(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.split()[2]


def test_the_same_program_says_another_version(program: Path, tmp_path: Path) -> None:
    other = tmp_path / "k3s"
    other.write_bytes(release.labelled(program, home.K3S_NEXT))
    other.chmod(0o755)
    assert (said(program), said(other)) == (home.K3S_VERSION, home.K3S_NEXT)
    assert other.read_bytes() != program.read_bytes()


def test_a_label_of_a_label_is_the_last_one(program: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    once.write_bytes(release.labelled(program, home.K3S_NEXT))
    twice.write_bytes(release.labelled(once, "v1.37.0+k3s1"))
    twice.chmod(0o755)
    assert said(twice) == "v1.37.0+k3s1"


def test_a_label_that_the_program_would_not_find_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k3s").write_bytes(b"")
    with pytest.raises(ValueError, match="too long"):
        release.labelled(tmp_path / "k3s", "v1" + "0" * 128)
