"""Where each machine is made that does not exist yet: on which Proxmox node, under which VMID, and why there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.reading import Absent
from funoffshore.stages.machines import numbers, room
from funoffshore.stages.machines.facts import MachineFacts
from funoffshore.stages.machines.room import GIB, House

_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine goes."""

    hypervisor: str
    """Name of the Proxmox node."""
    vmid: int
    reason: str
    """A clause that completes "on pve1, because …"."""
    warning: str = ""
    """What the operator should know about it, a sentence; empty when there is nothing."""


def place(
    config: ClusterConfig,
    facts: MachineFacts,
    mappings: Mapping[str, frozenset[str]] | None = None,
    pending: Mapping[str, int] = _NONE,
) -> Mapping[str, Place | errors.FoError]:
    """A place for every node without a machine, by its name; an error where there is none. The same for equal facts.

    Existing machines count where they are. ``mappings`` names the Proxmox nodes that have each mapped device; None:
    nobody looked, so devices restrict nothing. ``pending`` are VMIDs that an interrupted run had chosen.
    """
    vmids = numbers.vmids(config, facts, pending)
    house = room.house(config, facts, mappings)
    fresh = [node for node in config.nodes if isinstance(facts.machine(node.name), Absent)]
    chosen: dict[str, tuple[str, str] | errors.FoError] = {}
    pinned = [node for node in fresh if node.hypervisor]
    for node in pinned:
        chosen[node.name] = _pinned(config, house, node)
    free = [node for node in fresh if not node.hypervisor]
    _controllers(house, [node for node in free if node.role is Role.CONTROLLER], chosen)
    # The largest first: they are the hardest to find room for.
    workers = [node for node in free if node.role is not Role.CONTROLLER]
    for node in sorted(workers, key=lambda n: (not (n.pci or n.usb), -n.memory_mib)):
        chosen[node.name] = _freely(house, node, house.fitting(node))
    warnings = _warnings(config, house)
    return {node.name: _place(node, chosen[node.name], vmids[node.name], warnings) for node in fresh}


def left_out(config: ClusterConfig, facts: MachineFacts) -> tuple[str, ...]:
    """A sentence for each Proxmox node that gets no machine because it is offline, unreadable or not there."""
    return tuple(f"{name} gets no new machine: {why}" for name, why in room.house(config, facts).shut.items())


def _place(
    node: Node, found: tuple[str, str] | errors.FoError, vmid: int | errors.FoError, warnings: Mapping[str, str]
) -> Place | errors.FoError:
    if isinstance(vmid, errors.FoError):
        return vmid
    if isinstance(found, errors.FoError):
        return found
    hypervisor, reason = found
    return Place(hypervisor, vmid, reason, warnings.get(node.name, ""))


def _pinned(config: ClusterConfig, house: House, node: Node) -> tuple[str, str] | errors.FoError:
    label = node.name.removeprefix(f"{config.name}-").upper()
    key = f"NODE_{label}_PROXMOX_NODE"
    name = node.hypervisor
    if name in house.shut:
        return errors.UnreachableError(
            f"{key} puts {node.name} on {name}: {house.shut[name]}",
            fix=f"Bring {name} back, or pin {node.name} to another Proxmox node, or to none, in the env file.",
        )
    why = house.obstacle(node, name) if name in house.rooms else f"there is no Proxmox node {name}"
    if why:
        return errors.PreflightError(
            f"{key} puts {node.name} on {name}: {why}",
            fix=f"Make room on {name}, or pin {node.name} to another Proxmox node, or to none, in the env file.",
        )
    house.put(node, name)
    return name, f"{key} says so"


def _controllers(house: House, nodes: list[Node], chosen: dict[str, tuple[str, str] | errors.FoError]) -> None:
    """Each on a Proxmox node of its own as far as there are enough that fit, whatever the others leave over."""
    for at, node in enumerate(nodes):
        fitting = house.fitting(node)
        options = {n.name: house.empty(house.fitting(n)) for n in nodes[at:]}
        most = _matched(options)
        alone = [name for name in options[node.name] if _matched(_without(options, node.name, name)) + 1 >= most]
        # Where too few fit, somebody has to share; nobody shares a node that another one could have had alone.
        chosen[node.name] = _freely(house, node, alone or fitting)


def _without(options: Mapping[str, list[str]], node: str, hypervisor: str) -> dict[str, list[str]]:
    return {other: [h for h in names if h != hypervisor] for other, names in options.items() if other != node}


def _matched(options: Mapping[str, list[str]]) -> int:
    """How many can have one of their options to themselves (augmenting paths)."""
    holder: dict[str, str] = {}

    def settle(node: str, tried: set[str]) -> bool:
        for name in options[node]:
            if name not in tried:
                tried.add(name)
                if name not in holder or settle(holder[name], tried):
                    holder[name] = node
                    return True
        return False

    return sum(settle(node, set()) for node in options)


def _freely(house: House, node: Node, names: list[str]) -> tuple[str, str] | errors.FoError:
    """The best of ``names``, which all have room."""
    if not names:
        return _no_room(house, node)
    name = min(names, key=lambda n: house.preference(node, n))
    alone = house.controllers(name) == 0
    house.put(node, name)
    left = house.rooms[name].memory / GIB
    reason = f"{left:.1f} GiB of memory stay free there"
    if node.role is Role.CONTROLLER:
        also = (
            ", and no other controller lives there" if alone else ", and every Proxmox node with room has a controller"
        )
    elif len(names) == 1:
        only = len(house.rooms) + len(house.shut) == 1
        also = ", and it is the only Proxmox node" if only else ", and no other Proxmox node has room for it"
    else:
        also = f", the largest share among {len(names)} Proxmox nodes with room for it"
    return name, reason + also


def _no_room(house: House, node: Node) -> errors.FoError:
    why = {name: house.obstacle(node, name) for name in house.rooms} | dict(house.shut)
    return errors.PreflightError(
        f"no Proxmox node can take {node.name} ({node.cores} cores, {node.memory_mib} MiB of memory, "
        f"{room.disk_gib(node)} GiB of disk)",
        fix="Give the machines less, or the cluster another Proxmox node, in the env file.",
        evidence=tuple(f"{name}: {reason}" for name, reason in why.items()),
    )


def _warnings(config: ClusterConfig, house: House) -> dict[str, str]:
    """For every controller that shares its Proxmox node with another: with whom, and what its loss takes along."""
    total = len(config.controllers)
    found: dict[str, str] = {}
    for name, seen in house.rooms.items():
        together = [node.name for node in config.controllers if node.name in seen.controllers]
        if len(together) < 2:
            continue
        lost = total - len(together) < total // 2 + 1
        loss = "the loss of that one Proxmox node takes the quorum" if lost else "the quorum outlives their loss"
        for node in together:
            others = " and ".join(other for other in together if other != node)
            found[node] = f"{node} shares {name} with {others}; {loss}"
    return found
