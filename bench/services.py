"""The process that is the bench: Proxmox with real machines behind it, name server, and all of the internet."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import home, offers, paths
from bench.build import binary
from bench.hosts import names
from bench.hosts.commands import run
from bench.hosts.guests import RealGuests
from bench.hosts.machine import Shared
from bench.internet.dns import NameServer
from bench.internet.server import Internet
from bench.internet.sshgit import SshGit
from bench.internet.tls import Authority
from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store
from funoffshore.lab.pve import ProxmoxApi

ON_HOSTS = ("containerd", "containerd-shim-runc-v2", "ctr", "etcd", "kube")
"""Programs that every machine has at /opt/bench/bin."""


def serve() -> None:
    """Runs until SIGTERM or SIGINT, in the bench's network namespace and a mount namespace of its own."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    # nspawn keeps a copy of all mounts hidden below each machine's root; those copies go only with a shared original
    run("mount", "--make-rshared", "/")
    run("mount", "--bind", names.RESOLV / "resolv.conf", os.path.realpath("/etc/resolv.conf"))
    authority = Authority(paths.cache())
    os.environ.update(home.environment(authority.bundle()))
    with ExitStack() as stack:
        for start, stop in _parts(authority):
            start()
            stack.callback(stop)
        told = {"pid": os.getpid(), "since": time.time()}
        fresh = paths.run() / "ready.new"
        fresh.write_text(json.dumps(told))
        fresh.replace(paths.run() / "ready.json")
        ended.wait()


def _parts(authority: Authority) -> list[tuple[Callable[[], None], Callable[[], None]]]:
    folder = paths.run()
    git = folder / "git"
    repository = git / f"{home.REPOSITORY}.git"
    repository.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", repository], check=True)
    subprocess.run(["git", "-C", repository, "config", "http.receivepack", "true"], check=True)
    dns = NameServer(names.GATEWAY, internet=names.GATEWAY, nowhere=(home.DOMAIN,))
    internet = Internet(
        names.GATEWAY, authority=authority, tree=paths.project() / "infra" / "k8s", binaries=binary,
        offers=offers.offers(authority), git_root=git, git_host=home.GIT_HOST,
    )  # fmt: skip
    over_ssh = SshGit(names.GATEWAY, paths.run() / "git-ssh", git)
    proxmox, guests, kit = _proxmox(folder)
    # stopped in reverse: first the machines, then what they talk to
    return [
        (dns.start, dns.stop),
        (internet.start, internet.stop),
        (over_ssh.start, over_ssh.stop),
        (lambda: None, kit.clock.stop),
        (proxmox.start, proxmox.stop),
        (lambda: None, guests.stop),
    ]


def _proxmox(folder: Path) -> tuple[ProxmoxApi, RealGuests, Kit]:
    store = Store(folder / "proxmox" / "lab.sqlite")
    routes = Routes(folder / "proxmox")
    kit = Kit(folder / "proxmox", LabClock(), store, Latencies(), Faults(store), Ledger(store), routes)
    shared = Shared(_programs(folder / "bin"), folder / "nfs")
    shared.nfs.mkdir()
    shared.nfs.chmod(0o777)
    guests = RealGuests(folder / "machines", shared, lambda volid: proxmox.volume_file("pve", volid))
    proxmox = ProxmoxApi(kit, guests, address=names.PROXMOX, secret_for_tls=home.TOKEN_SECRET)
    proxmox.ensure_token(home.TOKEN_ID, home.TOKEN_SECRET)
    proxmox.add_storage("local", "dir", ("iso", "import"))
    proxmox.add_storage("local-lvm", "lvmthin", ("images", "rootdir"))
    return proxmox, guests, kit


def _programs(folder: Path) -> Path:
    """Links to what the machines run, in one folder that can be bound into them."""
    folder.mkdir()
    for name in ON_HOSTS:
        built = binary(name)
        try:
            (folder / name).hardlink_to(built)
        except OSError:  # the cache is on another file system
            shutil.copy2(built, folder / name)
    return folder
