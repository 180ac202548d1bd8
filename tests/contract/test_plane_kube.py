"""The bench's control plane itself: it says why it does not start, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import build, plane_types
from bench.plane import PROGRAMS, Plane
from bench.plane_process import PlaneError

pytest_plugins = ("kube_fixtures",)

PROGRAM = """
import json, sys, time
from pathlib import Path
from bench.plane import Plane
made = Plane(Path(sys.argv[1]))
made.start()
print(json.dumps(made.processes.pids()), flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until_gone(pids: list[int]) -> None:
    end = time.monotonic() + 10
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.05)


def test_a_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROGRAMS:
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text("#!/bin/sh\necho 'data dir: hands off' >&2\nexit 7\n")
        script.chmod(0o755)
    monkeypatch.setenv("FO_BENCH_BIN", str(tmp_path / "bin"))
    with pytest.raises(PlaneError, match=r"etcd ended with 7:\ndata dir: hands off"):
        Plane(tmp_path / "plane").start()


def test_what_is_not_built_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FO_BENCH_BIN", raising=False)
    monkeypatch.setenv("FO_BENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(build.BuildError):
        Plane(tmp_path / "plane").start()
    assert not (tmp_path / "plane").exists()


@pytest.mark.real
def test_a_killed_owner_takes_its_servers_along(tmp_path: Path) -> None:
    folder = tmp_path / "plane"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(build.__file__).parents[1],
    ) as owner:
        assert owner.stdout is not None
        pids: dict[str, int] = json.loads(owner.stdout.readline())
        assert set(pids) == {"etcd", "apiserver", "controller-manager", "scheduler", "kwok"}
        assert all(alive(pid) for pid in pids.values())
        os.kill(owner.pid, signal.SIGKILL)
    until_gone(list(pids.values()))


@pytest.mark.real
def test_stopping_leaves_only_logs(tmp_path: Path) -> None:
    with Plane(tmp_path / "plane", nodes=("a", "b")) as made:
        pids = list(made.processes.pids().values())
        sizes = made.rss()
        assert sizes["apiserver"] > 64 << 20
        assert made.call("GET", "/api/v1/nodes/b")[0] == 200
    until_gone(pids)
    assert sorted(p.name for p in (tmp_path / "plane").iterdir()) == ["kubeconfig", "logs", "pki"]
    assert made.kubeconfig.stat().st_mode & 0o077 == 0


@pytest.mark.real
def test_the_labs_table_of_types_is_what_the_real_server_says(plane: Plane) -> None:
    """Otherwise: python -m bench.plane_types."""
    assert plane_types.render(plane) == plane_types.TARGET.read_text()
