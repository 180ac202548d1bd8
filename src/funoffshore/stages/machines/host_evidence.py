"""What can still be learned about a host that does not come up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.stages.machines import finding

if TYPE_CHECKING:
    from funoffshore.world.world import World


def gather(world: World, config: ClusterConfig, node: Node, values: Mapping[str, str], said: str) -> tuple[str, ...]:
    """Lines for a DeadlineError; ``values`` say where the plan saw the machine. Never raises FoError."""
    lines = [f"over SSH: {said}"]
    try:
        found = finding.find(world, config, node.name, values)
    except errors.FoError as why:
        return (*lines, f"Proxmox says: {why.message}")
    if found is None:
        return (*lines, "Proxmox says: it has no VM any more")
    where = f"VM {found.vmid} on {found.hypervisor}"
    try:
        power = "on" if world.proxmox.running(found.hypervisor, found.vmid) else "off"
        lines.append(f"Proxmox says: {where}, power is {power}")
    except errors.FoError as why:
        lines.append(f"Proxmox says: {where}, {why.message}")
    try:
        seen = world.proxmox.guest_addresses(found.hypervisor, found.vmid)
        lines += [f"guest agent: {line}" for line in seen] or ["guest agent: no address at all"]
    except errors.FoError as why:
        lines.append(f"guest agent: {why.message}")
    return tuple(lines)


def console(values: Mapping[str, str]) -> str:
    """Where the operator can look, as the end of "Look at the console of"."""
    return f"VM {values['vmid']} on {values['hypervisor']}" if "vmid" in values else "its VM"
