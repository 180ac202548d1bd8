"""What each action does. Every effect may be begun again after a crash: it looks before it acts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from funoffshore import errors, run
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Verb
from funoffshore.stages.machines import (
    backups,
    changes,
    creation,
    deletion,
    finding,
    guards,
    host,
    records,
    survey,
)
from funoffshore.stages.machines.facts import Machine, MachineFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World


def apply(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    """Performs exactly ``action``. Returns when its effect has ended well; may be called again after a crash."""
    finding.again(world, step, lambda: _apply(world, config, action, step))


def _apply(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    kind, _, rest = action.key.partition("/")
    if kind == "machine" and action.verb is Verb.DELETE:
        deletion.destroy(world, config, rest, action, step)
    elif kind in CLUSTER:
        CLUSTER[kind](world, config, action, step)
    elif kind in MACHINE:
        MACHINE[kind](world, config, config.node(rest), action, step)
    else:
        raise errors.FoError(f"no action of the machines stage: {action.key}")


def _machine(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    if action.verb is Verb.WAIT:
        # Until what was under way is over; a fresh look then says what became of it.
        if upid := action.values.get("upid"):
            world.proxmox.wait_task(upid, step, f"{node.name} to be created")
    elif action.verb is Verb.CREATE:
        creation.create(world, config, node, action, step)
    else:
        changes.change(world, config, node, action, step)


def _grow(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    host.grow_filesystems(world, node, step)


def _guard(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    guards.apply(world, config, action, _living(world, config))


def _living(world: World, config: ClusterConfig) -> dict[str, Machine]:
    """Our machines as they are at this moment."""
    known, rows = records.read(config.state), world.proxmox.resources().guests
    seen = survey.survey(world.proxmox, config, rows, known, world.clock.now())
    return guards.living(config, MachineFacts(machines=seen.machines))


def _pool(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    name = config.proxmox.pool
    if action.verb is Verb.WAIT:
        world.proxmox.pools()
        return
    if action.verb is Verb.DELETE:
        world.proxmox.delete_pool(name)
        return
    try:
        world.proxmox.create_pool(name)
    except (errors.RefusedError, errors.UnreachableError):
        if name not in world.proxmox.pools():
            raise


def _image(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    lent, image, name = config.proxmox, config.image, action.values["hypervisor"]
    recorded = step.recorded("upid")
    if recorded and _ended_well(world, recorded, step, f"{name} to finish fetching the image"):
        return
    if action.verb is Verb.WAIT and "compare" not in action.values:
        world.proxmox.content(name, lent.image_storage)
        return
    # An image that is there already is only compared with its digest: the right one is success, another an error.
    step.say(f"{name} is fetching {image.url}, unless it has it")
    digest = (image.algorithm, image.digest)
    upid = world.proxmox.download_url(name, lent.image_storage, image.url, image.filename, digest)
    step.record(upid=upid)
    world.proxmox.wait_task(upid, step, f"{name} to fetch {image.url}")


def _ended_well(world: World, upid: str, step: run.Step, title: str) -> bool:
    """Waits for what an earlier run began. False when it failed or is forgotten: then it is begun anew."""
    try:
        world.proxmox.wait_task(upid, step, title)
    except errors.TaskFailedError:
        return False
    return True


CLUSTER: Mapping[str, Callable[[World, ClusterConfig, Action, run.Step], None]] = {
    "pool": _pool,
    "image": _image,
    "backup": backups.apply,
    "ha": _guard,
    "firewall": _guard,
}
MACHINE: Mapping[str, Callable[[World, ClusterConfig, Node, Action, run.Step], None]] = {
    "machine": _machine,
    "power": changes.power,
    "restart": changes.restart,
    "host": host.settle,
    "grow": _grow,
    "seed": deletion.seed,
}
