"""The end of machines and of their seeds. The identity is looked at again right before each irrevocable step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funoffshore import errors, run
from funoffshore.config import ClusterConfig, Node, identity
from funoffshore.plan import Action, Verb
from funoffshore.stages.machines import finding, keeping, records, shape, trust
from funoffshore.world.proxmox import has_changed, is_missing

if TYPE_CHECKING:
    from funoffshore.world.world import World

SHUTDOWN = 60
"""Seconds that a guest gets to end its services before its plug is pulled."""


def destroy(world: World, config: ClusterConfig, name: str, action: Action, step: run.Step) -> None:
    """Stops and deletes the machine ``name`` with its disks, wherever it is. Nothing happens when it is gone."""
    found = finding.find(world, config, name, action.values)
    if found is None:
        return
    _require_removable(found)
    if world.proxmox.running(found.hypervisor, found.vmid):
        _end(world, config, found, "keep" in action.values, step)
    found = finding.find(world, config, name, action.values)
    if found is None:
        return
    _require_removable(found)
    if action.values.get("keep") == "disks":
        keeping.keep(world, config, found, step)
        found = finding.need(world, config, name, action.values)
    step.say(f"deleting VM {found.vmid}")
    upid = world.proxmox.delete(found.hypervisor, found.vmid)
    step.record(upid=upid)
    world.proxmox.wait_task(upid, step, f"{name} to be deleted")
    _forget(config, name, found.vmid)
    trust.forget(config, name)


def _end(world: World, config: ClusterConfig, found: finding.Found, gently: bool, step: run.Step) -> None:
    """Takes its power; ``gently`` where its disks live on. A controller that has left etcd would join again if it were
    given the time to."""
    step.say("taking its power")
    if found.name.startswith(f"{config.name}-c") and not gently:
        upid = world.proxmox.stop(found.hypervisor, found.vmid)
    else:
        upid = world.proxmox.shutdown(found.hypervisor, found.vmid, SHUTDOWN)
    world.proxmox.wait_task(upid, step, f"{found.name} to be off")


def seed(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    """Takes the ISO out of the drive first: a volume can be deleted under a stopped VM, which then fails to start."""
    if action.verb is Verb.WAIT:
        return
    volume, store = shape.seed_volume(config, node), config.proxmox.image_storage
    found = _eject(world, config, node, action, volume, step)
    where = action.values.get("on") or (found.hypervisor if found else "")
    for hypervisor in [where] if where else config.proxmox.nodes:
        step.say("deleting the seed")
        # A volume that is missing counts as removed.
        if upid := world.proxmox.delete_volume(hypervisor, store, volume):
            world.proxmox.wait_task(upid, step, f"the seed of {node.name} to be deleted")

    def change(known: records.Records) -> None:
        known.seedless.add(str(node.identity))
        if found is not None:
            known.configs.pop(found.vmid, None)

    records.update(config.state, change)


def _eject(
    world: World, config: ClusterConfig, node: Node, action: Action, volume: str, step: run.Step
) -> finding.Found | None:
    """Empties the machine's drive, if the seed is in it. None when the machine is nowhere."""
    found = finding.remembered(world, config, node.name, action.values)
    if found is not None and found.config.cdrom == volume:
        try:
            _empty(world, found, step)
            return found
        except errors.RefusedError as why:
            if not has_changed(why) and not is_missing(why):
                raise
    found = finding.find(world, config, node.name, action.values, strict=False)
    if found is not None and found.config.cdrom == volume:
        _empty(world, found, step)
    return found


def _empty(world: World, found: finding.Found, step: run.Step) -> None:
    step.say("taking the seed out of the drive")
    changes = {"ide2": "none,media=cdrom"}
    world.proxmox.change_now(found.hypervisor, found.vmid, changes, digest=found.config.digest)


def _require_removable(found: finding.Found) -> None:
    if found.config.protected:
        raise protected(found.name, found.vmid)


def protected(name: str, vmid: int) -> errors.PreflightError:
    """The error for a machine that carries Proxmox's own protection against removal."""
    return errors.PreflightError(
        f"VM {vmid} ({name}) is protected against removal; it was not touched",
        fix=f"If it shall go, run on the Proxmox host: qm set {vmid} --protection 0",
    )


def _forget(config: ClusterConfig, name: str, vmid: int) -> None:
    def change(known: records.Records) -> None:
        known.configs.pop(vmid, None)
        known.numbers.pop(name, None)
        known.seedless.discard(str(identity(config.name, name)))

    records.update(config.state, change)
