"""What each action does. Every effect may be begun again after a crash: it looks before it acts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from funoffshore import errors, run, seed
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Verb
from funoffshore.stages.machines import hardware, host
from funoffshore.stages.machines.graph import is_ours_by
from funoffshore.stages.machines.look import creating_task
from funoffshore.stages.machines.preflight import foreign
from funoffshore.stages.machines.removal import protected
from funoffshore.world.proxmox import VmConfig, already_exists

if TYPE_CHECKING:
    from funoffshore.world.world import World

LOOK_UP = 90.0
"""Seconds in which a write whose reply was lost shows its effect, or had none: Proxmox gives up on its own daemon
after 30 s and carries the write out later (recorded from a real 8.4 API)."""


def apply(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    """Performs exactly ``action``. Returns when its effect has ended well; may be called again after a crash."""
    kind, _, rest = action.key.partition("/")
    if kind == "pool":
        return _pool(world, config, action)
    if kind == "image":
        return _image(world, config, action, step)
    node = config.node(rest)
    if kind == "machine" and action.verb is Verb.DELETE:
        return _destroy(world, node, step)
    if kind == "machine":
        return _machine(world, config, node, action, step)
    if kind == "power":
        return _power(world, node, step)
    if kind == "host":
        return host.settle(world, node, step)
    if kind == "seed":
        return _seed(world, config, node, action, step)
    raise errors.FoError(f"no action of the machines stage: {action.key}")


def _pool(world: World, config: ClusterConfig, action: Action) -> None:
    name = config.proxmox.pool
    if action.verb is Verb.WAIT:
        world.proxmox.pools()
        return
    try:
        world.proxmox.create_pool(name)
    except (errors.RefusedError, errors.UnreachableError):
        if name not in world.proxmox.pools():
            raise


def _image(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    """On every Proxmox node that needs it, one after the other: it is the same uplink."""
    lent, image = config.proxmox, config.image
    made = {row.vmid for row in world.proxmox.guests()}
    for name in dict.fromkeys(node.hypervisor for node in config.nodes if node.vmid not in made):
        recorded = step.recorded(f"upid-{name}")
        if recorded and _ended_well(world, recorded, step, f"{name} to finish fetching the image"):
            continue
        volumes = world.proxmox.content(name, lent.image_storage)
        if any(volume.volid == hardware.image_volume(config) for volume in volumes) or action.verb is Verb.WAIT:
            continue
        step.say(f"{name} is fetching {image.url}")
        upid = world.proxmox.download_url(
            name, lent.image_storage, image.url, image.filename, (image.algorithm, image.digest)
        )
        step.record(**{f"upid-{name}": upid})
        world.proxmox.wait_task(upid, step, f"{name} to fetch {image.url}")


def _machine(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    hypervisor = _whereabouts(world, node)
    if action.verb is Verb.WAIT:
        if task := _creation(world, config, hypervisor, node):
            world.proxmox.wait_task(task, step, f"{node.name} to be created")
        if found := world.proxmox.config(hypervisor, node.vmid):
            _require_ours(found, node, hypervisor)
        return
    if action.verb is Verb.CREATE:
        _create(world, config, node, step)
    machine = _require_ours(world.proxmox.config(hypervisor, node.vmid), node, hypervisor)
    _resize(world, node, hypervisor, machine, step)
    _require_ours(world.proxmox.config(hypervisor, node.vmid), node, hypervisor)


def _create(world: World, config: ClusterConfig, node: Node, step: run.Step) -> None:
    """Leaves a VM in our VMID, whosever it is: the caller looks. Never begins a second creation."""
    recorded = step.recorded("upid")
    if recorded:
        _ended_well(world, recorded, step, f"{node.name} to be created")
    task = _creation(world, config, node.hypervisor, node)
    if task is None and world.proxmox.config(node.hypervisor, node.vmid) is not None:
        return
    if task is None:
        _upload(world, config, node, step)
        step.checkpoint()
        step.say("creating the VM")
        try:
            task = world.proxmox.create_vm(node.hypervisor, hardware.body(config, node))
        except errors.RefusedError as why:
            if not already_exists(why):
                raise
            task = _creation(world, config, node.hypervisor, node)
        except errors.UnreachableError as why:
            task = _look_up(world, config, node, step, why)
    if task:
        step.record(upid=task)
        world.proxmox.wait_task(task, step, f"{node.name} to be created")


def _look_up(
    world: World, config: ClusterConfig, node: Node, step: run.Step, lost: errors.UnreachableError
) -> str | None:
    """After a lost reply: the creation that runs, None when the VM is there already. Raises ``lost`` for neither."""

    def probe() -> Done[str | None] | Pending:
        try:
            if task := _creation(world, config, node.hypervisor, node):
                return Done(task)
            if world.proxmox.config(node.hypervisor, node.vmid) is not None:
                return Done(None)
        except errors.UnreachableError as why:
            return Pending(why.message)
        return Pending("no VM and no task yet")

    title = f"a sign of {node.name}, as the reply to its creation was lost"
    try:
        return wait(world.clock, title, probe, deadline=LOOK_UP, say=step.say)
    except errors.DeadlineError:
        raise lost from None


def _creation(world: World, config: ClusterConfig, hypervisor: str, node: Node) -> str | None:
    task = creating_task(world.proxmox.running_tasks(hypervisor, node.vmid), config.proxmox.token_id)
    return task.upid if task else None


def _ended_well(world: World, upid: str, step: run.Step, title: str) -> bool:
    """Waits for what an earlier run began. False when it failed or is forgotten: then it is begun anew."""
    try:
        world.proxmox.wait_task(upid, step, title)
    except errors.TaskFailedError:
        return False
    return True


def _upload(world: World, config: ClusterConfig, node: Node, step: run.Step) -> None:
    step.say("uploading its seed")
    content = seed.iso(config, node)
    upid = world.proxmox.upload_iso(
        node.hypervisor,
        config.proxmox.image_storage,
        seed.filename(config, node),
        content,
        hashlib.sha256(content).hexdigest(),
    )
    world.proxmox.wait_task(upid, step, f"the seed of {node.name} to be stored")


def _resize(world: World, node: Node, hypervisor: str, machine: VmConfig, step: run.Step) -> None:
    """Cores and memory both ways, the disk only upwards."""
    changes: dict[str, int] = {}
    if machine.cores != node.cores:
        changes |= {"cores": node.cores, "sockets": 1}
    if machine.memory_mib != node.memory_mib:
        changes["memory"] = node.memory_mib
    if changes:
        step.say("changing cores and memory")
        upid = world.proxmox.set_config(hypervisor, node.vmid, changes)
        world.proxmox.wait_task(upid, step, f"{node.name} to be changed")
    if machine.disk_gib < node.disk_gib:
        step.say(f"growing the disk to {node.disk_gib} GiB")
        upid = world.proxmox.resize(hypervisor, node.vmid, hardware.BOOT_DISK, node.disk_gib)
        world.proxmox.wait_task(upid, step, f"the disk of {node.name} to grow")


def _power(world: World, node: Node, step: run.Step) -> None:
    hypervisor = _whereabouts(world, node)
    machine = _require_ours(world.proxmox.config(hypervisor, node.vmid), node, hypervisor)
    if world.proxmox.running(hypervisor, node.vmid):
        return
    # A creation that an earlier run began may have left the disk small, and only the first boot fills it.
    _resize(world, node, hypervisor, machine, step)
    upid = world.proxmox.start(hypervisor, node.vmid)
    step.record(upid=upid)
    try:
        world.proxmox.wait_task(upid, step, f"{node.name} to start")
    except errors.TaskFailedError:
        # Somebody else may have started it meanwhile; only its state counts.
        if not world.proxmox.running(hypervisor, node.vmid):
            raise

    def probe() -> Done[None] | Pending:
        return Done(None) if world.proxmox.running(hypervisor, node.vmid) else Pending("it is still off")

    # Under high availability the task ends before the VM runs.
    wait(world.clock, f"{node.name} to have power", probe, deadline=120, say=step.say)


def _seed(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    """Takes the ISO out of the drive first: a volume can be deleted under a stopped VM, which then fails to start."""
    hypervisor, volume = _whereabouts(world, node), hardware.seed_volume(config, node)
    machine = world.proxmox.config(hypervisor, node.vmid)
    volumes = world.proxmox.content(node.hypervisor, config.proxmox.image_storage)
    if action.verb is Verb.WAIT:
        return
    if machine is not None and is_ours_by(machine.identity, node) and machine.cdrom == volume:
        step.say("taking the seed out of the drive")
        upid = world.proxmox.set_config(hypervisor, node.vmid, {"ide2": "none,media=cdrom"})
        world.proxmox.wait_task(upid, step, f"the drive of {node.name} to be emptied")
    if any(found.volid == volume for found in volumes):
        step.say("deleting the seed")
        upid = world.proxmox.delete_volume(node.hypervisor, config.proxmox.image_storage, volume)
        if upid:
            world.proxmox.wait_task(upid, step, f"the seed of {node.name} to be deleted")


def _destroy(world: World, node: Node, step: run.Step) -> None:
    """Stops and deletes the machine. Looks at its identity again right before each of the two."""
    hypervisor = _whereabouts(world, node)
    found = world.proxmox.config(hypervisor, node.vmid)
    if found is None:
        return
    _require_removable(_require_ours(found, node, hypervisor), node)
    if world.proxmox.running(hypervisor, node.vmid):
        step.say("stopping it")
        world.proxmox.wait_task(world.proxmox.stop(hypervisor, node.vmid), step, f"{node.name} to stop")
    found = world.proxmox.config(hypervisor, node.vmid)
    if found is None:
        return
    _require_removable(_require_ours(found, node, hypervisor), node)
    step.say("deleting it")
    upid = world.proxmox.delete(hypervisor, node.vmid)
    step.record(upid=upid)
    world.proxmox.wait_task(upid, step, f"{node.name} to be deleted")


def _require_removable(machine: VmConfig, node: Node) -> None:
    if machine.protected:
        raise protected(node)


def _require_ours(found: VmConfig | None, node: Node, hypervisor: str) -> VmConfig:
    """Raises ForeignError for another's VM, TaskFailedError when there is none."""
    if found is None:
        raise errors.TaskFailedError(
            f"there is no VM {node.vmid} ({node.name}) on {hypervisor}", fix="Run the same command again."
        )
    if not is_ours_by(found.identity, node):
        raise foreign(node, hypervisor, found.name, found.identity)
    return found


def _whereabouts(world: World, node: Node) -> str:
    """The Proxmox node the VM is on now: it may have been migrated. The config's one when it is nowhere."""
    rows = world.proxmox.guests()
    return next((row.node for row in rows if row.vmid == node.vmid and row.kind == "qemu"), node.hypervisor)
