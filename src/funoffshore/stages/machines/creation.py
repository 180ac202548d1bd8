"""Making a machine, once: whatever happens to the reply, the VM is looked for before anything is tried again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from funoffshore import errors, run, seed
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action
from funoffshore.stages.machines import finding, numbers, records, shape, survey
from funoffshore.stages.machines.placing import Place
from funoffshore.stages.machines.survey import creating_task
from funoffshore.world.proxmox import already_exists, release_of

if TYPE_CHECKING:
    from funoffshore.world.world import World

LOOK_UP = 90.0
"""Seconds in which a write whose reply was lost shows its effect, or had none: Proxmox gives up on its own daemon
after 30 s and carries the write out later (recorded from a real 8.4 API)."""
_MOVES = 20
"""VMIDs that somebody else may take from under us before we give up."""


def create(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    """Leaves one VM with the node's identity and its disk grown, off. Never makes a second one."""
    place = Place(action.values["hypervisor"], int(action.values["vmid"]), "")
    place = _copied(world, config, node) or place
    for _ in range(_MOVES):
        if found := _there(world, config, node, place):
            place = Place(found.hypervisor, found.vmid, "")
        else:
            _prepare(world, config, node, place, step)
            if not _make(world, config, node, place, step):
                place = _elsewhere(world, config, node, place, step)
                continue
        grow(world, config, node, place.hypervisor, place.vmid, step)
        return
    raise errors.PreflightError(
        f"{_MOVES} VMIDs in a row were taken by others while {node.name} was to be made",
        fix="Give the cluster VMIDs of its own with VMID_FIRST and VMID_LAST in the env file.",
    )


def _there(world: World, config: ClusterConfig, node: Node, place: Place) -> finding.Found | None:
    """The VM, when an earlier attempt of this action made it after all. Costs nothing at a first attempt."""
    if records.read(config.state).numbers.get(node.name) is None:
        return None
    values = {"hypervisor": place.hypervisor, "vmid": str(place.vmid)}
    return finding.find(world, config, node.name, values, strict=False)


def grow(world: World, config: ClusterConfig, node: Node, hypervisor: str, vmid: int, step: run.Step) -> None:
    """Gives the boot disk its size. Equal is no change, and Proxmox never shrinks."""
    step.say(f"growing the disk to {node.disk_gib} GiB")
    upid = world.proxmox.resize(hypervisor, vmid, shape.BOOT_DISK, node.disk_gib)
    world.proxmox.wait_task(upid, step, f"the disk of {node.name} to grow")


def upload(world: World, config: ClusterConfig, node: Node, hypervisor: str, step: run.Step) -> None:
    """The seed lies on the image storage; one that is there already is replaced by the same."""
    step.say("uploading its seed")
    content = seed.iso(config, node)
    store, name = config.proxmox.image_storage, seed.filename(config, node)
    upid = world.proxmox.upload_iso(hypervisor, store, name, content, hashlib.sha256(content).hexdigest())
    world.proxmox.wait_task(upid, step, f"the seed of {node.name} to be stored")


def _prepare(world: World, config: ClusterConfig, node: Node, place: Place, step: run.Step) -> None:
    """The seed lies ready, and it is written down which VMID is to become this machine."""
    if config.proxmox.seed == "iso":
        upload(world, config, node, place.hypervisor, step)
    step.checkpoint()

    def change(known: records.Records) -> None:
        known.numbers[node.name] = place.vmid
        known.seedless.discard(str(node.identity))
        known.configs.pop(place.vmid, None)

    records.update(config.state, change)


def _make(world: World, config: ClusterConfig, node: Node, place: Place, step: run.Step) -> bool:
    """False when somebody else has that VMID by now."""
    step.say(f"creating VM {place.vmid} on {place.hypervisor}")
    upid: str | None
    try:
        upid = _begin(world, config, node, place, step)
    except errors.RefusedError as why:
        if not already_exists(why):
            raise
        upid = _running(world, config, place)
    except errors.UnreachableError as why:
        if config.image.template:
            # Made in two steps, and a copy shows no identity before the second: the next look says how far it came.
            raise
        upid = _look_up(world, config, node, place, step, why)
    else:
        # Proxmox took the VMID for this very call, so nobody else can have it.
        step.record(upid=upid)
        world.proxmox.wait_task(upid, step, f"{node.name} to be created")
        return True
    if upid:
        step.record(upid=upid)
        world.proxmox.wait_task(upid, step, f"VM {place.vmid} to be created")
    return _is_ours(world, node, place)


def _begin(world: World, config: ClusterConfig, node: Node, place: Place, step: run.Step) -> str:
    release = release_of(world.proxmox)
    if not config.image.template:
        return world.proxmox.create_vm(place.hypervisor, shape.body(config, node, place, release))
    return _clone(world, config, node, place, step)


def _clone(world: World, config: ClusterConfig, node: Node, place: Place, step: run.Step) -> str:
    """A full copy of the template, which becomes ours with its configuration: that is the UPID given back."""
    if not _copied(world, config, node):
        hypervisor, vmid = template(world, config)
        upid = world.proxmox.clone(hypervisor, vmid, shape.clone_body(config, node, place))
        step.record(upid=upid)
        world.proxmox.wait_task(upid, step, f"the template to be copied for {node.name}")
    copy = world.proxmox.config(place.hypervisor, place.vmid)
    if copy is None:
        raise errors.TaskFailedError(f"the copy for {node.name} is gone", fix="Run the same command again.")
    changes = shape.after_clone(config, node, place, release_of(world.proxmox), copy)
    return world.proxmox.change(place.hypervisor, place.vmid, changes, digest=copy.digest)


def _copied(world: World, config: ClusterConfig, node: Node) -> Place | None:
    """Where an interrupted run left a copy of the template that still lacks its identity."""
    known = records.read(config.state)
    number = known.numbers.get(node.name)
    if not config.image.template or number is None:
        return None
    for row in world.proxmox.resources().guests:
        seen = world.proxmox.config(row.node, row.vmid) if row.vmid == number else None
        if seen is not None and not seen.lock and survey.unfinished_clone(config, seen, row.vmid, known):
            return Place(row.node, row.vmid, "")
    return None


def template(world: World, config: ClusterConfig) -> tuple[str, int]:
    """Proxmox node and VMID of the template that the env file names. Raises PreflightError."""
    name = config.image.template
    found = [row for row in world.proxmox.resources().guests if row.template and row.name == name]
    if len(found) != 1:
        count = "no template" if not found else f"{len(found)} templates"
        raise errors.PreflightError(
            f"there is {count} called {name} that the token may see", fix="Correct IMAGE_TEMPLATE in the env file."
        )
    return found[0].node, found[0].vmid


def _is_ours(world: World, node: Node, place: Place) -> bool:
    seen = world.proxmox.config(place.hypervisor, place.vmid)
    return seen is not None and finding.is_ours(seen, node.identity)


def _running(world: World, config: ClusterConfig, place: Place) -> str | None:
    task = creating_task(world.proxmox.running_tasks(place.hypervisor, place.vmid), config.proxmox.token_id)
    return task.upid if task else None


def _look_up(
    world: World, config: ClusterConfig, node: Node, place: Place, step: run.Step, lost: errors.UnreachableError
) -> str | None:
    """After a lost reply: the creation that runs, None when it is over. Raises ``lost`` when it never began."""

    def probe() -> Done[str | None] | Pending:
        try:
            if task := _running(world, config, place):
                return Done(task)
            if world.proxmox.config(place.hypervisor, place.vmid) is not None:
                return Done(None)
        except errors.UnreachableError as why:
            return Pending(why.message)
        return Pending("no VM and no task yet")

    title = f"a sign of {node.name}, as the reply to its creation was lost"
    try:
        return wait(world.clock, title, probe, deadline=LOOK_UP, say=step.say)
    except errors.DeadlineError:
        raise lost from None


def _elsewhere(world: World, config: ClusterConfig, node: Node, place: Place, step: run.Step) -> Place:
    """The next VMID of our range. Raises ForeignError where the operator insists on this one."""
    if node.vmid_pinned:
        seen = world.proxmox.config(place.hypervisor, place.vmid)
        if seen is not None:
            raise finding.not_ours(node.name, node.identity, place.vmid, place.hypervisor, seen)
    taken = {row.vmid for row in world.proxmox.resources().guests} | {place.vmid}
    taken |= set(records.read(config.state).numbers.values())
    vmid = numbers.next_free(config, taken, node)
    if vmid is None:
        lent = config.proxmox
        raise errors.PreflightError(
            f"no VMID from {lent.vmid_first} to {lent.vmid_last} is free for {node.name}",
            fix="Give the cluster a wider range with VMID_FIRST and VMID_LAST in the env file.",
        )
    step.say(f"VM {place.vmid} was taken by somebody else meanwhile, so it becomes VM {vmid}")
    return Place(place.hypervisor, vmid, "")
