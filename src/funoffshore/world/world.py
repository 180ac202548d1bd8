"""All doors of one cluster in one value."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    routes: Routes = field(default_factory=Routes)
    """The way to the API of the cluster's servers."""

    def close(self) -> None:
        """Drops every connection."""
        self.hosts.close()


def open_world(config: ClusterConfig, clock: Clock, cache: Path) -> World:
    """The doors of ``config``'s cluster; ``cache`` keeps verified downloads."""
    routes = Routes(config.lab.directory / "routes.json" if config.lab else None)
    hosts = ssh.Hosts(config, routes, clock)
    to_api = hosts.routes(routes)
    return World(
        clock=clock,
        proxmox=proxmox.Proxmox(config.proxmox, routes, clock),
        hosts=hosts,
        kube=kube.Kube(config.kubeconfig, to_api, clock),
        repo=git.Repo(config, routes),
        downloads=download.Downloads(cache, routes),
        reach=reach.of(config),
        routes=to_api,
    )
