"""A cgroup of its own for each machine, in every version 1 hierarchy: nothing started in it can get out of sight."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from bench.hosts import names

PATIENCE = 20.0
"""Seconds that killed processes may take to be gone; pods' file systems are unmounted on the way."""


def hierarchies() -> list[Path]:
    """Mount points of the cgroup hierarchies of this machine."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup":
            found.append(Path(point))
    return found


def create(vmid: int) -> list[Path]:
    """The machine's cgroups, made where they are missing."""
    made = []
    for top in hierarchies():
        folder = top / names.CGROUP / str(vmid)
        for part in (folder.parent, folder):
            part.mkdir(exist_ok=True)
            _fill_cpuset(part)
        made.append(folder)
    return made


def _fill_cpuset(folder: Path) -> None:
    """A cpuset without CPUs takes no process; children shall inherit."""
    if not (folder / "cpuset.cpus").exists():
        return
    (folder / "cgroup.clone_children").write_text("1")
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())


def processes(folder: Path) -> set[int]:
    """Every process in the cgroup and below it."""
    found: set[int] = set()
    for below in _folders(folder):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (below / "cgroup.procs").read_text().split())
    return found


def _folders(folder: Path) -> list[Path]:
    """It and all below it; what goes away meanwhile, as cgroups of a dying machine do, is passed over."""
    return [Path(path) for path, _, _ in os.walk(folder)]


def kill(name: str = "") -> None:
    """Kills everything in the bench's cgroups (of machine ``name``, or of all) and removes them.

    Raises TimeoutError when something does not die.
    """
    give_up = time.monotonic() + PATIENCE
    while alive := {pid for folder in _ours(name) for pid in processes(folder)} - {os.getpid(), 0}:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes {sorted(alive)[:5]} of the bench do not die")
        time.sleep(0.05)
    for folder in _ours(name):
        remove(folder)


def remove(folder: Path) -> None:
    """Removes a cgroup without processes and all below it. One that is still busy is left."""
    for below in sorted(set(_folders(folder)) - {folder}, reverse=True):
        with contextlib.suppress(OSError):
            below.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _ours(name: str) -> Iterator[Path]:
    for top in hierarchies():
        folder = top / names.CGROUP / name if name else top / names.CGROUP
        if folder.is_dir():
            yield folder
