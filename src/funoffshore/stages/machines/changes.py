"""What is changed about a machine that is there: options, disks, power, a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funoffshore import errors, run
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action
from funoffshore.stages.machines import creation, drift, finding, records, shape
from funoffshore.stages.machines.facts import Machine
from funoffshore.world.proxmox import release_of

if TYPE_CHECKING:
    from funoffshore.world.world import World

SHUTDOWN = 180
"""Seconds that a guest gets to end its services before a restart fails."""


def change(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    """Applies what needs no restart: options that can be plugged while it runs, and larger disks."""
    found = finding.need(world, config, node.name, action.values)
    running = world.proxmox.running(found.hypervisor, found.vmid)
    wrong = _differences(config, node, found, running, release_of(world.proxmox))
    live = [difference for difference in wrong if difference.how is drift.How.LIVE]
    if live:
        step.say("changing " + ", ".join(difference.option for difference in live))
        _set(world, node, found, live, step)
    for difference in wrong:
        if difference.how is drift.How.GROW:
            _grow(world, config, node, found, difference, step)
    records.forget(config.state, [found.vmid])


def restart(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    """Ends the guest in good order, changes what only a start brings into force, and starts it again.

    Written while it is off, for some options would otherwise be swapped under the running guest.
    """
    found = finding.need(world, config, node.name, action.values)
    if world.proxmox.running(found.hypervisor, found.vmid):
        step.checkpoint()
        step.say("ending the guest in good order")
        upid = world.proxmox.shutdown(found.hypervisor, found.vmid, SHUTDOWN)
        step.record(upid=upid)
        world.proxmox.wait_task(upid, step, f"{node.name} to shut down")
        found = finding.need(world, config, node.name, action.values)
    if wrong := _differences(config, node, found, False, release_of(world.proxmox)):
        _set(world, node, found, wrong, step)
    records.forget(config.state, [found.vmid])
    _start(world, node, finding.need(world, config, node.name, action.values), step)


def power(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    """Switches it on. The disk has its size first: only the first boot fills it."""
    found = finding.need(world, config, node.name, action.values)
    if found.config.disk_gib(shape.BOOT_DISK) < node.disk_gib:
        if world.proxmox.running(found.hypervisor, found.vmid):
            return
        creation.grow(world, config, node, found.hypervisor, found.vmid, step)
        found = finding.need(world, config, node.name, action.values)
    try:
        _start(world, node, found, step)
    except errors.TaskFailedError:
        if not _lacks_its_seed(world, config, node, found):
            raise
        creation.upload(world, config, node, found.hypervisor, step)
        _start(world, node, found, step)


def _lacks_its_seed(world: World, config: ClusterConfig, node: Node, found: finding.Found) -> bool:
    """A backup taken before the seed was ejected still names it, and Proxmox starts nothing with a missing ISO."""
    volume = shape.seed_volume(config, node)
    if found.config.cdrom != volume:
        return False
    volumes = world.proxmox.content(found.hypervisor, config.proxmox.image_storage, "iso")
    return all(seen.volid != volume for seen in volumes)


def _start(world: World, node: Node, found: finding.Found, step: run.Step) -> None:
    step.say("switching it on")
    upid = world.proxmox.start(found.hypervisor, found.vmid)
    step.record(upid=upid)
    try:
        world.proxmox.wait_task(upid, step, f"{node.name} to start")
    except errors.TaskFailedError:
        # It may have been on already; only its state counts.
        if not world.proxmox.running(found.hypervisor, found.vmid):
            raise
    if ":hastart:" in upid:
        _wait_for_power(world, node, found, step)


def _wait_for_power(world: World, node: Node, found: finding.Found, step: run.Step) -> None:
    """Under high availability a task ends before the VM runs, and the manager may choose another Proxmox node."""

    def probe() -> Done[None] | Pending:
        rows = [row for row in world.proxmox.resources().guests if row.vmid == found.vmid]
        hypervisor = rows[0].node if rows else found.hypervisor
        return Done(None) if world.proxmox.running(hypervisor, found.vmid) else Pending("it is still off")

    wait(world.clock, f"{node.name} to have power", probe, deadline=180, say=step.say)


def _differences(
    config: ClusterConfig, node: Node, found: finding.Found, running: bool, release: tuple[int, int]
) -> list[drift.Difference]:
    machine = Machine(found.hypervisor, found.vmid, found.config.name, found.config, running)
    return drift.differences(config, node, machine, release)


def _set(world: World, node: Node, found: finding.Found, wrong: list[drift.Difference], step: run.Step) -> None:
    """In one write, refused when the configuration has changed since it was proven to be ours."""
    now = {difference.option: difference.wanted for difference in wrong if difference.how is not drift.How.GROW}
    changes = {option: value for option, value in now.items() if value}
    if not changes:
        return
    upid = world.proxmox.change(found.hypervisor, found.vmid, changes, digest=found.config.digest)
    step.record(upid=upid)
    world.proxmox.wait_task(upid, step, f"{node.name} to be changed")


def _grow(
    world: World, config: ClusterConfig, node: Node, found: finding.Found, larger: drift.Difference, step: run.Step
) -> None:
    step.say(f"growing {larger.option} to {larger.wanted} GiB")
    finding.need(world, config, node.name, {"hypervisor": found.hypervisor, "vmid": str(found.vmid)})
    upid = world.proxmox.resize(found.hypervisor, found.vmid, larger.option, int(larger.wanted))
    world.proxmox.wait_task(upid, step, f"{larger.option} of {node.name} to grow")
