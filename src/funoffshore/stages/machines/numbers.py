"""Which VMID a machine gets that does not exist yet. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.reading import Absent, Present
from funoffshore.stages.machines.facts import MachineFacts

_NONE: Mapping[str, int] = MappingProxyType({})


def vmids(
    config: ClusterConfig, facts: MachineFacts, pending: Mapping[str, int] = _NONE
) -> Mapping[str, int | errors.FoError]:
    """The VMID of every node without a machine, by its name; an error where there is none to be had.

    ``pending`` are the VMIDs that an interrupted run had chosen; each is kept unless somebody else took it.
    No VMID is given twice. A pinned one never moves: ForeignError names who has it.
    """
    owners = _owners(facts)
    fresh = [node for node in config.nodes if isinstance(facts.machine(node.name), Absent)]
    chosen: dict[str, int | errors.FoError] = {}
    given = set(owners)
    moving = []
    for node in fresh:
        first = node.vmid if node.vmid_pinned else pending.get(node.name, node.vmid)
        first = node.vmid if first in given else first
        if first not in given:
            chosen[node.name] = first
            given.add(first)
        elif node.vmid_pinned:
            chosen[node.name] = _pinned(node, owners.get(first, "another machine of this cluster"))
        else:
            moving.append(node)
    spare = _spare(config, given)
    for node in moving:
        chosen[node.name] = next(spare, None) or _full(config, node)
    return {node.name: chosen[node.name] for node in fresh}


def next_free(config: ClusterConfig, taken: Collection[int], node: Node) -> int | None:
    """The VMID for ``node`` now that those of ``taken`` are gone; None when its own was pinned, or none is left."""
    if node.vmid not in taken:
        return node.vmid
    return None if node.vmid_pinned else next(_spare(config, set(taken)), None)


def _spare(config: ClusterConfig, taken: set[int]) -> Iterator[int]:
    """Free VMIDs of our range that no machine of the config prefers, the lowest first."""
    preferred = {node.vmid for node in config.nodes}
    lent = config.proxmox
    return (v for v in range(lent.vmid_first, lent.vmid_last + 1) if v not in taken and v not in preferred)


def _owners(facts: MachineFacts) -> dict[int, str]:
    """Who has each VMID that is taken, in words."""
    owners = {
        vmid: f"{guest.name or 'a guest without a name'} on {guest.hypervisor}" for vmid, guest in facts.guests.items()
    }
    owners |= {guest.vmid: f"a half-made VM on {guest.hypervisor}" for guest in facts.half_made}
    owners |= {vmid: f"a second {name}" for name, *both in facts.doubles for vmid in both}
    ours = {name: reading.value for name, reading in facts.machines.items() if isinstance(reading, Present)}
    owners |= {machine.vmid: f"{name} on {machine.hypervisor}" for name, machine in (ours | dict(facts.former)).items()}
    return owners


def _pinned(node: Node, owner: str) -> errors.ForeignError:
    return errors.ForeignError(
        f"VM {node.vmid}, which the env file pins for {node.name}, is {owner}. It was not touched.",
        fix=f"Pin a free VMID for {node.name} in the env file, or none, so that fo finds one.",
    )


def _full(config: ClusterConfig, node: Node) -> errors.PreflightError:
    lent = config.proxmox
    return errors.PreflightError(
        f"VM {node.vmid} is taken, and no VMID from {lent.vmid_first} to {lent.vmid_last} is free for {node.name}",
        fix="Give fo a larger range of VMIDs in the env file (VMID_FIRST, VMID_LAST).",
    )
