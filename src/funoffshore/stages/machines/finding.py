"""Where a machine is at this moment, proven by its identity. Asked before every change and inside every delete."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from funoffshore import errors, run
from funoffshore.config import ClusterConfig, identity
from funoffshore.stages.machines import records
from funoffshore.world.proxmox import VmConfig, is_busy

if TYPE_CHECKING:
    from funoffshore.world.world import World

T = TypeVar("T")
PAUSES = (5.0, 10.0, 20.0, 40.0)
"""Seconds before each further attempt at something that a lock or a busy daemon refused."""


@dataclass(frozen=True, slots=True)
class Found:
    """A VM that was seen to be ours a moment ago."""

    name: str
    hypervisor: str
    vmid: int
    config: VmConfig


def find(
    world: World, config: ClusterConfig, name: str, values: Mapping[str, str], *, strict: bool = True
) -> Found | None:
    """The VM with the identity of machine ``name``, wherever it is; None when no VM has it.

    ``values`` say where the plan saw it, or put it. Raises ForeignError when another's VM is there and ours is
    nowhere, unless not ``strict``: then that is None as well.
    """
    wanted = identity(config.name, name)
    foreign: errors.ForeignError | None = None
    for hypervisor, vmid in _places(world, config, name, values):
        seen = world.proxmox.config(hypervisor, vmid)
        if seen is None:
            continue
        if is_ours(seen, wanted):
            return Found(name, hypervisor, vmid, seen)
        foreign = foreign or not_ours(name, wanted, vmid, hypervisor, seen)
    if foreign and strict:
        raise foreign
    return None


def remembered(world: World, config: ClusterConfig, name: str, values: Mapping[str, str]) -> Found | None:
    """The VM as it was last read in this run; None when it was not, or was not ours. Only for a write that carries its
    digest: Proxmox itself then refuses it unless this very configuration, identity included, is still in force."""
    if "vmid" not in values:
        return None
    hypervisor, vmid = values["hypervisor"], int(values["vmid"])
    seen = world.proxmox.last_config(hypervisor, vmid)
    if seen is None or not seen.digest or not is_ours(seen, identity(config.name, name)):
        return None
    return Found(name, hypervisor, vmid, seen)


def need(world: World, config: ClusterConfig, name: str, values: Mapping[str, str]) -> Found:
    """The same, for what must be there. Raises TaskFailedError when it is nowhere."""
    found = find(world, config, name, values)
    if found is None:
        raise errors.TaskFailedError(f"{name} has no VM any more", fix="Run the same command again.")
    return found


def is_ours(seen: VmConfig, wanted: uuid.UUID) -> bool:
    """Ours is what carries the machine's identity, and nothing else: not the VMID, the name or a tag."""
    return seen.identity == str(wanted)


def not_ours(name: str, wanted: uuid.UUID, vmid: int, hypervisor: str, seen: VmConfig) -> errors.ForeignError:
    """The error for a guest that is where ours should be."""
    return errors.ForeignError(
        f"VM {vmid} on {hypervisor} ({seen.name or 'without a name'}) is not {name}: its SMBIOS UUID is "
        f"{seen.identity or 'not set'}, not {wanted}. It was not touched.",
        fix="Choose VMIDs that are free (VMID_FIRST, NODE_…_VMID in the env file), or move that guest away.",
    )


def again(world: World, step: run.Step, attempt: Callable[[], T]) -> T:
    """What ``attempt`` gives, repeated while Proxmox is only busy. ``attempt`` must begin by looking."""
    for pause in PAUSES:
        try:
            return attempt()
        except errors.FoError as why:
            if not is_busy(why):
                raise
            step.say(f"Proxmox is busy ({why.message}); looking again in {pause:.0f} s")
            world.clock.sleep(pause)
    return attempt()


def _places(world: World, config: ClusterConfig, name: str, values: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Where to look: where the plan saw it, and only if it is not there, everywhere that the lists suggest."""
    first = (values["hypervisor"], int(values["vmid"])) if "vmid" in values else None
    if first:
        yield first
    number = records.read(config.state).numbers.get(name)
    for row in world.proxmox.resources().guests:
        suggested = row.vmid == number or row.name == name or f"fo-{config.name}" in row.tags
        moved = first is not None and row.vmid == first[1]
        if row.kind == "qemu" and (suggested or moved) and (row.node, row.vmid) != first:
            yield row.node, row.vmid
