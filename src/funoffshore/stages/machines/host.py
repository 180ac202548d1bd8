"""From power on to a host that can be worked with. Long, so it says what it waits for and why it gave up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funoffshore import errors, run
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import Node
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines.graph import CLOUD_INIT_OFF, is_settled
from funoffshore.world.ssh import FileWrite, HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

DEADLINE = 900.0
"""Seconds from power on until cloud-init has ended, package installation on a slow line included."""
_NOTE = b"Written by funoffshore: the first boot is over, and its seed is gone.\n"


def settle(world: World, node: Node, step: run.Step) -> None:
    """Returns when the host is reached, cloud-init has ended, and will not run at a later boot.

    Raises TrustError for a wrong host key, TaskFailedError when cloud-init failed, DeadlineError with evidence.
    """
    said = ["it was never reached"]

    def probe() -> Done[HostFacts] | Pending:
        step.checkpoint()
        match world.hosts.observe(node):
            case Present(host) if host.cloud_init == "error" and not is_settled(host):
                raise _failed(node, host)
            case Present(host) if host.cloud_init in {"running", "unknown"}:
                said[0] = f"cloud-init says {host.cloud_init}"
            case Present(host):
                return Done(host)
            case Unreadable(why):
                said[0] = why
            case Absent():
                said[0] = "it is not there"
        return Pending(said[0])

    host = wait(
        world.clock,
        f"{node.name} ({node.address}) to answer over SSH and finish cloud-init",
        probe,
        deadline=DEADLINE,
        say=step.say,
        evidence=lambda: _evidence(world, node, said[0]),
        fix=f"Look at the console of VM {node.vmid} on {node.hypervisor}, then run the same command again.",
    )
    if not is_settled(host):
        step.say("switching cloud-init off for later boots")
        world.hosts.write(node, [FileWrite(CLOUD_INIT_OFF, _NOTE)])


def _failed(node: Node, host: HostFacts) -> errors.TaskFailedError:
    why = host.cloud_init_said[0] if host.cloud_init_said else "it does not say why"
    return errors.TaskFailedError(
        f"cloud-init failed on {node.name}: {why}",
        fix=f"Look at /var/log/cloud-init-output.log on {node.name}. Once it is mended by hand, "
        f"`sudo touch {CLOUD_INIT_OFF}` there and run the same command again.",
        evidence=host.cloud_init_said,
    )


def _evidence(world: World, node: Node, said: str) -> tuple[str, ...]:
    """What can still be learned about a host that does not come up. Never raises."""
    lines = [f"over SSH: {said}"]
    try:
        power = "on" if world.proxmox.running(node.hypervisor, node.vmid) else "off"
        lines.append(f"Proxmox says: power is {power}")
    except errors.FoError as why:
        lines.append(f"Proxmox says: {why.message}")
    try:
        seen = world.proxmox.guest_addresses(node.hypervisor, node.vmid)
        lines += [f"guest agent: {line}" for line in seen] or ["guest agent: no address at all"]
    except errors.FoError as why:
        lines.append(f"guest agent: {why.message}")
    return tuple(lines)
