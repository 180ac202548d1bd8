"""What the Proxmox nodes have left while machines are given their places. Pure; only ``placing`` fills it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines.facts import Hypervisor, Machine, MachineFacts
from funoffshore.world.proxmox import Storage

MIB, GIB = 2**20, 2**30
RESERVED = 512 * MIB
"""Memory that is left to the hypervisor itself."""
_ANY_HOST = frozenset({"host", "max"})
"""CPU types that every Proxmox node has."""


@dataclass(slots=True)
class Room:
    """What is left on one Proxmox node."""

    seen: Hypervisor
    memory: int
    """Bytes; machines put here are taken off."""
    cores: int = 0
    """Cores of this cluster's machines."""
    controllers: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    """Mapped devices that a machine of this cluster has."""


@dataclass(slots=True)
class House:
    """All of them."""

    config: ClusterConfig
    rooms: dict[str, Room]
    shut: dict[str, str]
    """Why those are left out that cannot be used at all, by name."""
    disks: dict[str, int]
    """Bytes left, by what ``_store`` calls the disk storage of a Proxmox node."""
    mappings: Mapping[str, frozenset[str]] | None

    def fitting(self, node: Node) -> list[str]:
        """The Proxmox nodes that have room for ``node``, in the order of the env file."""
        return [name for name in self.rooms if not self.obstacle(node, name)]

    def empty(self, names: Collection[str]) -> list[str]:
        """Those of ``names`` without a controller."""
        return [name for name in names if not self.rooms[name].controllers]

    def controllers(self, name: str) -> int:
        return len(self.rooms[name].controllers)

    def obstacle(self, node: Node, name: str) -> str:
        """Why ``node`` cannot go there, a clause; empty when it can."""
        room = self.rooms[name]
        if node.memory_mib * MIB > room.memory:
            left = max(room.memory, 0) / GIB
            return f"only {left:.1f} GiB of memory are left there, not {node.memory_mib / 1024:.4g}"
        if 0 < room.seen.cpus < node.cores:
            # QEMU is not even started for more (qemu-server, "MAX n vcpus allowed per VM on this node").
            return f"it has {room.seen.cpus} CPUs, not {node.cores}"
        free = self.disks[_store(self.config, name, room.seen)]
        if disk_gib(node) * GIB > free:
            storage = self.config.proxmox.disk_storage
            return f"only {free / GIB:.0f} GiB are left on {storage} there, not {disk_gib(node)}"
        return self._lacking_device(node, name)

    def _lacking_device(self, node: Node, name: str) -> str:
        if self.mappings is None:
            return ""
        lacking = [device for device in (*node.pci, *node.usb) if name not in self.mappings.get(device, frozenset())]
        return f"the device mapping {lacking[0]} has no device there" if lacking else ""

    def preference(self, node: Node, name: str) -> tuple[object, ...]:
        """Sorts the better place first: controllers apart, devices not shared, then memory, CPU and disk that stay."""
        room = self.rooms[name]
        total = room.seen.memory_total or 1
        memory = (room.memory - node.memory_mib * MIB) / total
        cores = (room.cores + node.cores) / (room.seen.cpus or 1)
        return (
            len(room.controllers) if node.role is Role.CONTROLLER else 0,
            len(room.devices.intersection((*node.pci, *node.usb))),
            # Shares that differ by less than a hundredth are equal, so that the CPUs get a say.
            -round(memory, 2),
            round(cores, 2),
            -self.disks[_store(self.config, name, room.seen)],
            name,
        )

    def put(self, node: Node, name: str) -> None:
        """Takes off what ``node`` needs."""
        room = self.rooms[name]
        room.memory -= node.memory_mib * MIB
        self.disks[_store(self.config, name, room.seen)] -= disk_gib(node) * GIB
        self._count(node, room)

    def keep(self, node: Node, machine: Machine) -> None:
        """Counts a machine that exists where it is; its disk is already off, its memory only while it has power."""
        room = self.rooms.get(machine.hypervisor)
        if room is None:
            return
        if not machine.running:
            room.memory -= max(node.memory_mib, machine.config.memory_mib) * MIB
        self._count(node, room)

    def _count(self, node: Node, room: Room) -> None:
        room.cores += node.cores
        room.devices.update((*node.pci, *node.usb))
        if node.role is Role.CONTROLLER:
            room.controllers.add(node.name)


def house(config: ClusterConfig, facts: MachineFacts, mappings: Mapping[str, frozenset[str]] | None = None) -> House:
    """What the Proxmox nodes have left, with every machine that exists counted where it is."""
    made = House(config, {}, {}, {}, mappings)
    for name in config.proxmox.nodes:
        match facts.hypervisors.get(name, Absent()):
            case Unreadable(why):
                made.shut[name] = f"what it has to give could not be read ({why})"
            case Absent():
                made.shut[name] = "there is no such Proxmox node"
            case Present(seen):
                if why := _unfit(config, seen) or _far_from_template(config, facts, name, seen):
                    made.shut[name] = why
                else:
                    taken = max(seen.promised, seen.memory_total - seen.memory_free)
                    made.rooms[name] = Room(seen, seen.memory_total - taken - RESERVED)
                    disks = seen.storages[config.proxmox.disk_storage]
                    key = _store(config, name, seen)
                    made.disks[key] = min(disks.available, made.disks.get(key, disks.available))
    for node in config.nodes:
        reading = facts.machine(node.name)
        if isinstance(reading, Present):
            made.keep(node, reading.value)
    return made


def disk_gib(node: Node) -> int:
    """All that the machine's disks may grow to."""
    return node.disk_gib + node.data_disk_gib


def _unfit(config: ClusterConfig, seen: Hypervisor) -> str:
    """Why no machine can go there, whatever it needs; empty when some can."""
    lent = config.proxmox
    if not seen.online:
        return "it is offline"
    if seen.memory_total <= 0:
        return "its memory is not shown to the token"
    images = {"iso"} if lent.seed == "iso" else set()
    images |= set() if config.image.template else {"import"}
    for storage, contents in ((lent.disk_storage, {"images"}), (lent.image_storage, images)):
        if contents and (why := _unusable(storage, seen.storages.get(storage), contents)):
            return why
    if lent.bridge not in seen.bridges:
        return f"it has no bridge {lent.bridge} that the token may use"
    models, wanted = seen.cpu_models, config.shape.cpu.split(",")[0].removeprefix("cputype=")
    if isinstance(models, Present) and wanted not in models.value | _ANY_HOST:
        return f"it does not know the CPU type {wanted}"
    return ""


def _far_from_template(config: ClusterConfig, facts: MachineFacts, name: str, seen: Hypervisor) -> str:
    """Proxmox copies a template to another node only from shared storage (qemu-server ``PVE/API2/Qemu.pm``)."""
    wanted = config.image.template
    homes = {guest.hypervisor for guest in facts.guests.values() if guest.template and guest.name == wanted}
    if not wanted or not homes or name in homes or seen.storages[config.proxmox.disk_storage].shared:
        return ""
    return f"the template {wanted} is on {', '.join(sorted(homes))}, and only shared storage would let its copy leave"


def _unusable(name: str, storage: Storage | None, contents: set[str]) -> str:
    if storage is None:
        return f"it has no storage {name}"
    if not storage.active:
        return f"its storage {name} is not active"
    lacking = sorted(contents - storage.content)
    return f"its storage {name} does not allow content {', '.join(lacking)}" if lacking else ""


def _store(config: ClusterConfig, name: str, seen: Hypervisor) -> str:
    """One key for a shared storage, whose room is the same wherever one looks from, and one per node for the others."""
    storage = seen.storages[config.proxmox.disk_storage]
    return storage.name if storage.shared else f"{storage.name} on {name}"
