"""What the hypervisors show of the machines. Plain values; everything that was not seen says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from funoffshore.errors import FoError
from funoffshore.reading import Present, Reading, Unreadable
from funoffshore.world.proxmox import Storage, VmConfig


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM that carries the identity of one of our machines, or is only being created by us."""

    hypervisor: str
    """Proxmox node it lives on now."""
    vmid: int
    name: str
    config: VmConfig
    running: bool = False
    pool: str = ""
    creating: str = ""
    """UPID of a create task of ours that is at work on it."""
    pending: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Option → value in force, value that waits for a restart; only from a thorough look."""

    @property
    def lock(self) -> str:
        return self.config.lock

    @property
    def unborn(self) -> bool:
        """Whether it is only being made: it has neither our identity nor our hardware yet."""
        return self.lock == "create" or bool(self.creating)

    @property
    def protected(self) -> bool:
        return self.config.protected


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest that is not ours: only what must be known to keep out of its way."""

    vmid: int
    name: str
    hypervisor: str
    why: str = ""
    """Why it might be taken for ours and is not; empty when nothing suggests it."""
    pool: str = ""
    template: bool = False


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """What one Proxmox node has to give."""

    online: bool
    memory_total: int
    """Bytes."""
    memory_free: int
    """Bytes."""
    cpus: int
    promised: int
    """Bytes of memory that its guests with power may grow to."""
    storages: Mapping[str, Storage]
    bridges: frozenset[str]
    cpu_models: Reading[frozenset[str]] = field(default_factory=lambda: Unreadable("not asked"))
    clock_skew: Reading[float] = field(default_factory=lambda: Unreadable("not asked"))
    """Seconds that its clock is ahead of this computer's."""


@dataclass(frozen=True, slots=True)
class Availability:
    """What Proxmox' HA manager knows."""

    resources: frozenset[int]
    """VMIDs."""
    groups: Mapping[str, Mapping[str, str]]
    rules: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Firewall:
    """The firewall of one VM."""

    options: Mapping[str, str]
    rules: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """A privilege that the token has not got."""

    path: str
    privilege: str
    purpose: str
    """What it is for; completes "needed to …"."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One look at the hypervisors."""

    door: FoError | None = None
    """Why Proxmox as a whole could not be read (certificate, network, token); everything else is then Unreadable."""
    release: Reading[tuple[int, int]] = field(default_factory=lambda: Unreadable("not asked"))
    missing: tuple[Missing, ...] = ()
    machines: Mapping[str, Reading[Machine]] = field(default_factory=dict)
    """By node name, found by identity wherever they are and whatever their VMID is."""
    former: Mapping[str, Machine] = field(default_factory=dict)
    """Machines of this cluster that the env file no longer names, by the name they were made with."""
    doubles: tuple[tuple[str, int, int], ...] = ()
    """Node name and the two VMIDs that both carry its identity (a restored backup, say)."""
    half_made: tuple[Guest, ...] = ()
    """VMs in our range locked by a creation that no longer runs: nobody can tell whose they are."""
    guests: Mapping[int, Guest] = field(default_factory=dict)
    """By VMID: every guest that is not ours, of the whole Proxmox cluster."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """VMIDs that an interrupted run had chosen, by node name."""
    pool: Reading[str] = field(default_factory=lambda: Unreadable("not asked"))
    images: Mapping[str, Reading[str]] = field(default_factory=dict)
    """Volume of the cloud image, by Proxmox node."""
    seeds: Mapping[str, Reading[str]] = field(default_factory=dict)
    """Volume of the seed ISO, by node name."""
    hypervisors: Mapping[str, Reading[Hypervisor]] = field(default_factory=dict)
    """By the name of the Proxmox node; only looked at when something may have to be made."""
    mappings: Reading[Mapping[str, frozenset[str]]] = field(default_factory=lambda: Unreadable("not asked"))
    """Resource mapping → Proxmox nodes that have such a device; only read when a machine is given one."""
    backup_job: Reading[Mapping[str, str]] = field(default_factory=lambda: Unreadable("not asked"))
    """The cluster's vzdump job. Absent: there is none of its name."""
    availability: Reading[Availability] = field(default_factory=lambda: Unreadable("not asked"))
    firewalls: Mapping[str, Reading[Firewall]] = field(default_factory=dict)
    """By node name; only of machines whose firewall is not known to be right."""
    quorate: Reading[bool] = field(default_factory=lambda: Unreadable("not asked"))
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
