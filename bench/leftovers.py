"""Cleans up after the bench, also after one that was killed: everything it takes on this machine has a known name."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from bench import machine_wide, paths
from bench.hosts import cgroup, names
from bench.hosts.commands import CommandError, run

PATIENCE = 20.0
"""Seconds that the bench may take to end by itself."""


def clean() -> list[str]:
    """Ends and removes everything of the bench but what was built. Says what there was."""
    found = [*_processes(), *_cgroups(), *_mounts(), *_loops(), *_namespaces(), *_files()]
    machine_wide.restore(paths.cache() / "sysctl.json")
    return found


def running() -> int | None:
    """Process number of the bench that runs on this machine."""
    try:
        pid = int((paths.run() / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"bench" in words and b"serve" in words else None


def _processes() -> Iterator[str]:
    pid = running()
    if pid is not None:
        yield f"the bench, process {pid}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + PATIENCE
        while running() == pid and time.monotonic() < give_up:
            time.sleep(0.05)
    for left in _in_namespace():
        yield f"process {left} in {names.NAMESPACE}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def _in_namespace() -> list[int]:
    if not (names.NETNS / names.NAMESPACE).exists():
        return []
    try:
        return [int(pid) for pid in run("ip", "netns", "pids", names.NAMESPACE).split() if int(pid) != os.getpid()]
    except CommandError:
        return []


def _cgroups() -> Iterator[str]:
    tops = [top / names.CGROUP for top in cgroup.hierarchies() if (top / names.CGROUP).is_dir()]
    if tops:
        yield f"{len(tops)} cgroups"
        cgroup.kill()


def _mounts() -> Iterator[str]:
    """Mounts of the bench live and die with its own mount namespace; these are of somebody who was not in it."""
    run_folder = str(paths.run())
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(run_folder + "/")), reverse=True):
        yield f"mount {point}"
        with contextlib.suppress(CommandError):
            run("umount", "-l", point)


def _loops() -> Iterator[str]:
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if device.read_text().startswith(str(paths.run()) + "/"):
                name = device.parts[3]
                yield f"/dev/{name}"
                with contextlib.suppress(CommandError):
                    run("losetup", "-d", f"/dev/{name}")


def _namespaces() -> Iterator[str]:
    for file in sorted(names.NETNS.glob(f"{names.NAMESPACE}*"), reverse=True):
        yield f"network namespace {file.name}"
        with contextlib.suppress(CommandError):
            run("ip", "netns", "del", file.name)
        file.unlink(missing_ok=True)
    if names.RESOLV.exists():
        shutil.rmtree(names.RESOLV)
        with contextlib.suppress(OSError):
            names.RESOLV.parent.rmdir()


def _files() -> Iterator[str]:
    if paths.run().exists():
        yield f"folder {paths.run()}"
        shutil.rmtree(paths.run())
