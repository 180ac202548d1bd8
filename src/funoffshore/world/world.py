"""All doors of one cluster in one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from funoffshore.clock import Clock
from funoffshore.config import ClusterConfig
from funoffshore.world import download, git, kube, proxmox, reach, ssh
from funoffshore.world.routes import Routes


@dataclass(frozen=True, slots=True)
class World:
    """The only way to the outside. Opening it contacts nobody."""

    clock: Clock
    proxmox: proxmox.Proxmox
    hosts: ssh.Hosts
    kube: kube.Kube
    repo: git.Repo
    downloads: download.Downloads
    reach: reach.Reach

    def close(self) -> None:
        """Drops every connection."""
        self.hosts.close()


def open_world(config: ClusterConfig, clock: Clock, cache: Path) -> World:
    """The doors of ``config``'s cluster; ``cache`` keeps verified downloads."""
    routes = Routes(config.lab.directory / "routes.json" if config.lab else None)
    return World(
        clock=clock,
        proxmox=proxmox.Proxmox(config.proxmox, routes, clock),
        hosts=ssh.Hosts(config, routes, clock),
        kube=kube.Kube(config.kubeconfig, routes, clock),
        repo=git.Repo(config, routes),
        downloads=download.Downloads(cache, routes),
        reach=reach.of(config),
    )
