"""Files are whole or not at all, and private from the start."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from funoffshore import atomic


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_writes_bytes_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        atomic.write(tmp_path / "a", b"one")
        os.umask(0o777)
        atomic.write(tmp_path / "b", b"two", mode=0o644)
    finally:
        os.umask(old)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert _mode(tmp_path / "a") == 0o600
    assert _mode(tmp_path / "b") == 0o644
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_replaces_a_symlink_and_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "link").symlink_to("victim")
    atomic.write(tmp_path / "link", b"new")
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["file", "folder", "symlink", "dangling"])
def test_create_refuses_whatever_is_there(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    (tmp_path / "other").write_text("other")
    match kind:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
        case "symlink":
            target.symlink_to("other")
        case _:
            target.symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileExistsError):
        atomic.create(target, b"new")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "nowhere").exists()


def test_failure_leaves_the_old_bytes_and_no_litter(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    with pytest.raises(OSError, match="target"):
        atomic.write(folder, b"new")
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "missing" / "file", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_takes_the_longest_name_there_is(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    atomic.write(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_kill_at_any_moment_leaves_old_or_new(tmp_path: Path) -> None:
    """Kills a child that writes without end, at twenty moments."""
    path = tmp_path / "f"
    versions = [bytes([n]) * 300_000 for n in range(2)]
    atomic.write(path, versions[0])
    for _ in range(20):
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(told, b"x")
            while True:
                for version in versions:
                    atomic.write(path, version)
        os.read(ready, 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)
        assert path.read_bytes() in versions
        assert _mode(path) == 0o600
    assert all(_mode(p) == 0o600 for p in tmp_path.iterdir())
