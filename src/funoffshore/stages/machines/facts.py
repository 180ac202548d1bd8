"""What the hypervisor shows of the machines. Plain values; everything that was not seen says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from funoffshore.errors import FoError
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.proxmox import Storage


@dataclass(frozen=True, slots=True)
class Machine:
    """The guest that has the VMID of one of our nodes. Whether it is ours, only its identity says."""

    hypervisor: str
    """Proxmox node it lives on now, which need not be the one in the config."""
    vmid: int
    name: str
    identity: str
    """SMBIOS UUID, lower case; empty when it has none, is a container, or is only being created."""
    lock: str = ""
    running: bool = False
    cores: int = 0
    memory_mib: int = 0
    disk_gib: float = 0.0
    cdrom: str = ""
    """Volume in its CD-ROM drive."""
    protected: bool = False
    creating: str = ""
    """UPID of a create task of ours that is at work on it."""


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """What one Proxmox node has to give."""

    online: bool
    memory_free: int
    """Bytes."""
    storages: Mapping[str, Storage]
    bridges: frozenset[str]


@dataclass(frozen=True, slots=True)
class Missing:
    """A privilege that the token has not got."""

    path: str
    privilege: str
    purpose: str
    """What it is for; completes "needed to …"."""


def _absent() -> Reading[str]:
    return Absent()


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One look at the hypervisor."""

    door: FoError | None = None
    """Why Proxmox as a whole could not be read (certificate, network, token); everything else is then Unreadable."""
    release: Reading[tuple[int, int]] = field(default_factory=lambda: Unreadable("not asked"))
    missing: tuple[Missing, ...] = ()
    machines: Mapping[str, Reading[Machine]] = field(default_factory=dict)
    """By node name."""
    strays: Mapping[str, Machine] = field(default_factory=dict)
    """VMs with the identity of one of our nodes (its name is the key) under another VMID."""
    pool: Reading[str] = field(default_factory=_absent)
    images: Mapping[str, Reading[str]] = field(default_factory=dict)
    """Volume of the cloud image, by Proxmox node."""
    seeds: Mapping[str, Reading[str]] = field(default_factory=dict)
    """Volume of the seed ISO, by node name."""
    hypervisors: Mapping[str, Reading[Hypervisor]] = field(default_factory=dict)
    answering: tuple[str, ...] = ()
    """Names of nodes without a VM (and ``VIP``) whose address answers all the same."""

    def machine(self, name: str) -> Reading[Machine]:
        return self.machines.get(name, Unreadable("it was not looked at"))

    def seed(self, name: str) -> Reading[str]:
        return self.seeds.get(name, Unreadable("it was not looked at"))


def is_running(facts: MachineFacts, name: str) -> bool:
    """Whether node ``name`` has a machine that was seen to have power."""
    reading = facts.machine(name)
    return isinstance(reading, Present) and reading.value.running
