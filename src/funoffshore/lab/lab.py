"""The whole lab of one cluster: its parts put together, and who runs it.

Whoever holds the lock ``.lab/<cluster>/serving`` is the homelab; everybody else only talks to it, over its protocols.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from funoffshore import errors
from funoffshore.config import ClusterConfig
from funoffshore.config import Lab as LabConfig
from funoffshore.lab import bare
from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store
from funoffshore.lab.flux import Flux
from funoffshore.lab.hosts.hosts import Hosts
from funoffshore.lab.k3s import K3s, binary
from funoffshore.lab.kube.cluster import KubeCluster
from funoffshore.lab.pve import ProxmoxApi
from funoffshore.lab.web import Web, offers

STARTING = 20.0
"""Real seconds that another process may take from holding the lock to serving."""

RESUMING = 10.0
"""Real seconds that what ran before may take to run again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the lab behaves, kept in ``settings.json``."""

    latency: str = "none"
    """``none`` or ``realistic``."""
    speed: float = 1.0
    """Lab seconds per real second."""
    release: str = "9.1"
    """Proxmox VE release it plays: ``9.1``, ``8.4`` or ``8.0``."""
    detour: bool = False
    """Whether listeners go to free ports of 127.0.0.1, as they must where 127.0.0.2 is no address (macOS)."""


def settings(directory: Path) -> Settings:
    """The lab's settings; the defaults when none were ever written. Raises StateError for a broken file."""
    try:
        return Settings(**json.loads((directory / "settings.json").read_text()))
    except FileNotFoundError:
        return Settings()
    except (ValueError, TypeError) as why:
        raise errors.StateError(f"{directory / 'settings.json'} is not readable", fix="fo lab reset --yes") from why


def write_settings(directory: Path, wanted: Settings) -> None:
    """They count from the next start of the lab."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "settings.json").write_text(json.dumps(asdict(wanted)))


def of(config: ClusterConfig) -> LabConfig:
    """The lab of a cluster. Raises ConfigError for a cluster that lives on real hardware."""
    if config.lab is None:
        raise errors.ConfigError(f"{config.name} is not a lab cluster", fix="use a cluster with LAB=embedded")
    return config.lab


@contextmanager
def running(config: ClusterConfig) -> Iterator[LabClock]:
    """The lab's clock, while the lab runs: served elsewhere, or else in this process for as long as the body."""
    directory = of(config).directory
    with _lock(directory) as ours:
        if not ours:
            clock = _join(directory)
            with store_of(config) as store:
                bare.ensure(store, config)
            yield clock
            return
        lab = Homelab(config)
        try:
            lab.start()
            yield lab.kit.clock
        finally:
            lab.stop()


@contextmanager
def serving(config: ClusterConfig) -> Iterator[Homelab]:
    """The lab in this process. Raises LockedError when another process runs it."""
    directory = of(config).directory
    with _lock(directory) as ours:
        if not ours:
            raise errors.LockedError(f"another process runs the lab of {config.name}", fix="stop it first")
        lab = Homelab(config)
        try:
            lab.start()
            yield lab
        finally:
            lab.stop()


@contextmanager
def store_of(config: ClusterConfig) -> Iterator[Store]:
    """What the lab keeps, whether it runs or not; what is changed in it counts at once."""
    store = Store(of(config).directory / "lab.sqlite")
    try:
        yield store
    finally:
        store.close()


def is_running(directory: Path) -> bool:
    """Whether some process runs the lab at this moment."""
    with _lock(directory) as ours:
        return not ours


def reset(directory: Path) -> None:
    """Deletes everything the lab and its clusters ever kept, settings excepted. Raises LockedError while it runs."""
    if not directory.exists():
        return
    with _lock(directory) as ours:
        if not ours:
            raise errors.LockedError("the lab is running", fix="stop fo lab serve first")
        for path in directory.iterdir():
            if path.name in ("serving", "settings.json"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def _lock(directory: Path) -> Iterator[bool]:
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / "serving", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _join(directory: Path) -> LabClock:
    give_up = time.monotonic() + STARTING
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads((directory / "running.json").read_text())
            return LabClock(told["speed"], real=told["real"], epoch=told["epoch"])
        if time.monotonic() > give_up:
            raise errors.UnreachableError("the lab is being started by another process and does not get ready")
        time.sleep(0.02)


class Homelab:
    """All parts of one simulated homelab, alive between ``start`` and ``stop``."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        directory = of(config).directory
        chosen = settings(directory)
        store = Store(directory / "lab.sqlite")
        latencies = Latencies.realistic() if chosen.latency == "realistic" else Latencies()
        self.settings = chosen
        self.kit = Kit(
            directory=directory,
            # a fast lab is ahead of real time, and must not go back when it is started again
            clock=LabClock(chosen.speed, epoch=max(time.time(), store.get("clock", "now") or 0.0)),
            store=store,
            latencies=latencies,
            faults=Faults(store),
            ledger=Ledger(store),
            routes=Routes(directory, detour=chosen.detour),
        )
        self._fluxes: list[tuple[KubeCluster, Flux]] = []
        self._stops: list[Callable[[], None]] = []

    def start(self) -> None:
        """Everything listens, and every machine that had power has it again, when this returns.

        Raises UnreachableError when an address of the lab cannot be had.
        """
        try:
            self._start()
        except OSError as why:
            where = self.config.network.subnet
            raise errors.UnreachableError(
                f"the lab cannot listen in {where}: {why.strerror}", fix="choose another SUBNET, or end what holds it"
            ) from why
        clock = self.kit.clock
        told = {"pid": os.getpid(), "speed": clock.speed, "real": clock.real, "epoch": clock.epoch}
        fresh = self.kit.directory / "running.new"
        fresh.write_text(json.dumps(told))
        fresh.replace(self.kit.directory / "running.json")

    def _start(self) -> None:
        config, kit = self.config, self.kit
        machines = Hosts(kit, config.ssh.port)
        kubernetes = K3s(kit, self._hear, self._forget)
        machines.register_program("k3s", kubernetes)
        machines.register_service("k3s", kubernetes)
        web = Web(kit, *web_address(config))
        web.add(offers.k3s_path(config.k3s.version), binary(config.k3s.version))
        web.before_git = lambda: web.publish(config.root, branch=config.git.branch)
        standing = bare.Bare(kit, machines, config)
        # Stopped in this order: nobody may ask what is gone already.
        self._stops = [standing.stop, web.stop, kubernetes.close, machines.stop]
        web.start()
        if config.proxmox.url:
            proxmox = self._proxmox(machines)
            self._stops.insert(0, proxmox.stop)
            proxmox.start()
        standing.start()
        kubernetes.settle(RESUMING)

    def _proxmox(self, machines: Hosts) -> ProxmoxApi:
        """The hypervisor, where the cluster has one."""
        config = self.config
        url, secret = urlsplit(config.proxmox.url), config.proxmox.token_secret.get_secret_value()
        proxmox = ProxmoxApi(
            self.kit,
            machines,
            address=str(url.hostname),
            port=url.port or 8006,
            release=self.settings.release,
            nodes=config.proxmox.nodes,
            bridges=(config.proxmox.bridge,),
            secret_for_tls=secret,
        )
        proxmox.ensure_token(config.proxmox.token_id, secret)
        # For people and their tools, who log in; fo itself never does.
        proxmox.add_user("root@pam", secret)
        for name, kind, content, shared in _storages(config):
            proxmox.add_storage(name, kind, content, shared=shared)
        return proxmox

    def _hear(self, cluster: KubeCluster) -> None:
        """A Kubernetes cluster has come to be, or has come back: Flux may be at work in it."""
        flux = Flux(self.kit, cluster)
        self._fluxes.append((cluster, flux))
        flux.start()

    def _forget(self, cluster: KubeCluster) -> None:
        """A reset or a restore has left the cluster behind: nothing works in it any more."""
        for pair in [pair for pair in self._fluxes if pair[0] is cluster]:
            self._fluxes.remove(pair)
            pair[1].stop()

    def addresses(self) -> list[str]:
        """Where everything can be reached, for a human with curl, ssh and kubectl."""
        config = self.config
        lines = [
            *([f"Proxmox     {config.proxmox.url}"] if config.proxmox.url else []),
            f"downloads   {of(config).web_url}",
            f"Git         {config.git.url}",
        ]
        lines.append(f"Kubernetes  https://{config.network.vip}:6443 (kubeconfig: {config.kubeconfig})")
        lines.append(f"SSH         {config.ssh.user}@{config.nodes[0].address} -p {config.ssh.port}")
        return lines

    def stop(self) -> None:
        """Nothing listens and no thread works any more; what is on disk brings it all back."""
        (self.kit.directory / "running.json").unlink(missing_ok=True)
        for _, flux in self._fluxes:
            flux.stop()
        for stop in self._stops:
            stop()
        self.kit.store.put("clock", "now", self.kit.clock.now())
        self.kit.clock.stop()
        self.kit.store.close()


def _storages(config: ClusterConfig) -> Iterator[tuple[str, str, tuple[str, ...], bool]]:
    """Name, type, content and whether all hypervisors share it, of every storage that the cluster speaks of.

    Machines that high availability may move need their disks on a shared one.
    """
    proxmox, kept = config.proxmox, config.backup.storage if config.backup else ""
    for name in dict.fromkeys(filter(None, (proxmox.image_storage, proxmox.disk_storage, kept))):
        content: list[str] = ["iso", "import"] if name == proxmox.image_storage else []
        content += ["images", "rootdir"] if name == proxmox.disk_storage else []
        content += ["backup"] if name == kept else []
        shared = proxmox.high_availability and name != proxmox.image_storage
        only_disks = content == ["images", "rootdir"] and not shared
        yield name, "lvmthin" if only_disks else "nfs" if shared else "dir", tuple(content), shared


def web_address(config: ClusterConfig) -> tuple[str, int]:
    """Where the lab's web server listens."""
    url = urlsplit(of(config).web_url)
    return str(url.hostname), url.port or 80
