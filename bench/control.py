"""Starts and ends the bench, and runs commands in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from bench import leftovers, machine_wide, paths
from bench.hosts import names, network
from bench.image import build as image
from bench.internet.tls import Authority

STARTING = 60.0
"""Seconds from nothing until the bench answers."""
GO = [1, 26]
"""What the modules of the newest controllers ask for."""
NEEDS = ("ip", "nsenter", "unshare", "systemd-nspawn", "mkfs.ext4", "mount", "qemu-img", "git", "sshd")


class BenchError(RuntimeError):
    """The bench cannot be had; the text says why."""


def obstacles() -> list[str]:
    """Why this machine cannot run the bench; empty when it can."""
    found = []
    if os.geteuid() != 0:
        found.append("it needs root")
    if not sys.platform.startswith("linux"):
        return [*found, "it needs Linux"]
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found += [f"there is no {name}" for name in (*NEEDS, *image.NEEDS) if shutil.which(name, path=path) is None]
    found += _go()
    return found or _refused()


def _go() -> list[str]:
    if shutil.which("go") is None:
        return ["there is no Go"]
    said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    number = [int(part) for part in re.findall(r"\d+", said)[:2]]
    return [] if number >= GO else [f"Go {'.'.join(map(str, GO))} is needed, and this is {said or 'none'}"]


def _refused() -> list[str]:
    """Tries what sandboxes forbid: a network namespace, and a cgroup in a version 1 hierarchy."""
    from bench.hosts import cgroup
    from bench.hosts.commands import CommandError, run

    probe = f"{names.NAMESPACE}-probe"
    try:
        run("ip", "netns", "add", probe)
        run("ip", "netns", "del", probe)
    except CommandError as why:
        return [f"network namespaces are refused: {why}"]
    return [] if cgroup.hierarchies() else ["it needs cgroup version 1 hierarchies (the machines' systemd is 252)"]


def prepare(say: Callable[[str], None] = print) -> None:
    """Builds what is missing. Raises BuildError, ImageError, InstallError."""
    from bench import build, install

    build.build(build.NAMES, say)
    install.install_manifest(version_label=False)
    authority = Authority(paths.cache())
    image.build(authority.certificate(), say)


def up() -> None:
    """An empty Proxmox and its surroundings, with nothing left of what ran before. Raises BenchError."""
    if why := obstacles():
        raise BenchError("this machine cannot run the bench: " + "; ".join(why))
    leftovers.clean()
    folder = paths.run()
    folder.mkdir(parents=True)
    machine_wide.keep(paths.cache() / "sysctl.json")
    network.create()
    log = folder / "bench.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["nsenter", f"--net={names.NETNS / names.NAMESPACE}", "unshare", "--mount", "--propagation", "slave",
             sys.executable, "-m", "bench", "serve"],
            cwd=paths.project(), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    (folder / "pid").write_text(str(process.pid))
    give_up = time.monotonic() + STARTING
    while not (folder / "ready.json").exists():
        if process.poll() is not None or time.monotonic() > give_up:
            said = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise BenchError(f"the bench did not start:\n{said}")
        time.sleep(0.05)


def down() -> list[str]:
    """Ends the bench; nothing of it is left but what was built."""
    return leftovers.clean()


def inside(argv: list[str]) -> list[str]:
    """``argv`` as a command that runs in the bench's network, with its name server."""
    return ["ip", "netns", "exec", names.NAMESPACE, *argv]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One user of the bench at a time. Raises BenchError when another has it."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    with (paths.cache() / "in-use").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError("another process uses the bench") from None
        yield
