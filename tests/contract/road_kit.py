"""What the cases of the road have in common: a lab that is served, and its Proxmox for an administrator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from operator_home import Operator

from funoffshore import config
from funoffshore.lab.hosts.hosts import Hosts
from funoffshore.lab.lab import Homelab
from funoffshore.lab.pve import ProxmoxApi


@contextmanager
def served(home: Operator, *options: str) -> Iterator[None]:
    """``fo lab serve`` in a process of its own."""
    with home.start("lab", "serve", *options) as lab:
        assert lab.stderr
        assert "is up" in lab.stderr.readline()
        try:
            yield
        finally:
            lab.terminate()
            lab.communicate(timeout=30)


@contextmanager
def proxmox_of(home: Operator) -> Iterator[ProxmoxApi]:
    """The lab's Proxmox, for an administrator to change while the lab does not run."""
    cluster = config.load(home.env_file, home.folder)
    kit = Homelab(cluster).kit
    yield ProxmoxApi(kit, Hosts(kit), address="127.0.0.1", secret_for_tls="-")
    kit.store.close()
