"""One machine back from its backup: with its identity, on its own VMID, and never over a guest that is not it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from funoffshore import errors, run
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import backups, creation, finding, records, saving
from funoffshore.stages.machines.backups import Saved
from funoffshore.stages.machines.facts import Machine, MachineFacts
from funoffshore.world.proxmox import Resources

if TYPE_CHECKING:
    from funoffshore.world.world import World

RUN = "restore"
"""What the journal of such a run says it is about."""
GUIDE = "docs/guide/backup.md"


@dataclass(frozen=True, slots=True)
class Choice:
    """A backup whose identity was proven, and where it is to go."""

    saved: Saved
    hypervisor: str
    vmid: int
    replaces: bool
    """Whether it overwrites the machine that is there now, switched off."""


def choose(
    world: World, config: ClusterConfig, node: Node, facts: MachineFacts, volid: str = "", *, force: bool = False
) -> Choice:
    """What would be restored, and to where. Changes nothing. Raises what stands in the way, the gravest first."""
    if facts.door is not None:
        raise facts.door
    reading = facts.machine(node.name)
    _require_room(node, reading, force)
    _require_lone_controller(config, node, facts)
    saved = _saved(world, config, node, volid)
    _require_identity(world, node, saved)
    resources = world.proxmox.resources()
    if isinstance(reading, Present):
        return Choice(saved, reading.value.hypervisor, reading.value.vmid, True)
    vmid = node.vmid if node.vmid_pinned else saved.backup.vmid
    for row in resources.guests:
        if row.vmid == vmid:
            raise errors.ForeignError(
                f"VM {vmid} on {row.node} ({row.name or 'without a name'}) is not {node.name}, whose backup has that "
                "VMID. It was not touched.",
                fix="Move that guest away, or give the machine another VMID with NODE_…_VMID in the env file.",
            )
    return Choice(saved, _hypervisor(config, node, saved, resources), vmid, False)


def plan(node: Node, choice: Choice) -> Action:
    """The one action of a restore. Pure."""
    backup = choice.saved.backup
    reason = f"{backup.volid} is to become VM {choice.vmid} on {choice.hypervisor}"
    if choice.replaces:
        reason += ", over what is there now"
    values = {
        "hypervisor": choice.hypervisor,
        "vmid": str(choice.vmid),
        "volume": backup.volid,
        "replaces": "1" if choice.replaces else "",
    }
    verb = Verb.CHANGE if choice.replaces else Verb.CREATE
    return Action(verb, f"restore/{node.name}", reason, stage=backups.STAGE, on=node.name, values=values)


def apply(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    """Restores the machine of ``action`` and proves that it is the one. It is off then."""
    node, values = config.node(action.on), action.values
    hypervisor, vmid = values["hypervisor"], int(values["vmid"])
    _require_ours_or_none(world, node, hypervisor, vmid, bool(values["replaces"]))
    step.say(f"restoring {values['volume']}")
    upid = _begin(world, config, hypervisor, _body(config, action), step)
    step.record(upid=upid)
    records.forget(config.state, [vmid])
    world.proxmox.wait_task(upid, step, f"{node.name} to be restored", saving.DEADLINE, stall=saving.STALL)
    seen = world.proxmox.config(hypervisor, vmid)
    if seen is None or not finding.is_ours(seen, node.identity):
        raise errors.TaskFailedError(
            f"the task ended well, and VM {vmid} on {hypervisor} does not carry the identity of {node.name}",
            fix="Look at the VM and at the task on the Proxmox host; fo will not touch a VM without that identity.",
            evidence=(upid,),
        )

    def change(known: records.Records) -> None:
        known.numbers[node.name] = vmid

    records.update(config.state, change)


def _require_room(node: Node, reading: Reading[Machine], force: bool) -> None:
    match reading:
        case Unreadable(why):
            raise errors.UnreachableError(f"cannot tell whether {node.name} has a VM, because {why}")
        case Absent():
            return
        case Present(machine):
            pass
    where = f"VM {machine.vmid} on {machine.hypervisor} ({node.name})"
    if machine.running:
        raise errors.PreflightError(
            f"{where} is running; a restore would replace its disks",
            fix="If they shall go, shut it down first, then give --force.",
        )
    if machine.lock:
        raise errors.PreflightError(f"{where} is locked ({machine.lock})", fix="Wait until that has ended.")
    if machine.protected:
        raise errors.PreflightError(
            f"{where} is protected against removal; it was not touched",
            fix=f"If its disks shall go, run on the Proxmox host: qm set {machine.vmid} --protection 0",
        )
    if not force:
        raise errors.PreflightError(
            f"{where} exists; a restore would replace its disks",
            fix=f"If they shall go: fo backup restore {node.name} --force --confirm {node.name}",
        )


def _require_lone_controller(config: ClusterConfig, node: Node, facts: MachineFacts) -> None:
    """etcd counts on a member never forgetting what it has agreed to, and an old disk has forgotten."""
    others = [other.name for other in config.controllers if other.name != node.name]
    if node.role is not Role.CONTROLLER:
        return
    for name in others:
        match facts.machine(name):
            case Unreadable(why):
                raise errors.UnreachableError(f"cannot tell whether {name} exists, because {why}")
            case Present():
                raise errors.PreflightError(
                    f"{name} exists: beside it an older copy of {node.name} would give etcd a member that has "
                    "forgotten what it agreed to",
                    fix=f"Let it be made anew, it then joins with an empty disk: fo bootstrap, with "
                    f"--replace {node.name} while it still has a VM ({GUIDE}).",
                )
            case Absent():
                pass


def _saved(world: World, config: ClusterConfig, node: Node, volid: str) -> Saved:
    """The backup asked for, or the newest that the notes say is this machine's."""
    storage = volid.partition(":")[0] if volid else saving.wanted(config).storage
    found = backups.stored(world, config, storage, everything=bool(volid))
    if volid:
        for rows in found.saved.values():
            for one in rows:
                if one.backup.volid == volid:
                    return one
    elif node.name in found.saved:
        return found.saved[node.name][0]
    what = f"the backup {volid}" if volid else f"a backup of {node.name} on {storage}"
    if found.unread:
        raise errors.UnreachableError(f"cannot tell whether there is {what}, because {found.unread[0]}")
    raise errors.PreflightError(f"there is not {what}", fix=f"fo backup list -c {config.name} shows what there is.")


def _require_identity(world: World, node: Node, saved: Saved) -> None:
    """Notes can be written by anybody; the SMBIOS UUID inside the backup is the machine's own."""
    inside = world.proxmox.backup_config(saved.hypervisor, saved.backup.volid)
    if not finding.is_ours(inside, node.identity):
        raise errors.ForeignError(
            f"{saved.backup.volid} is no backup of {node.name}: the SMBIOS UUID in it is "
            f"{inside.identity or 'not set'}, not {node.identity}. Nothing was restored.",
            fix="Choose another with --volume; fo backup list shows what there is.",
        )


def _hypervisor(config: ClusterConfig, node: Node, saved: Saved, resources: Resources) -> str:
    """Where it is pinned to; else, of the nodes that see the backup, the one with the most memory left."""
    storage = saved.backup.volid.partition(":")[0]
    rows = [row for row in resources.storages if row.name == storage and row.active]
    sees = {row.node for row in rows if row.shared} or {saved.hypervisor}
    free = {n.name: n.memory_free for n in resources.nodes if n.online and n.name in config.proxmox.nodes}
    fit = {name: room for name, room in free.items() if name in sees and node.hypervisor in ("", name)}
    if not fit:
        pinned = f", to which {node.name} is pinned," if node.hypervisor else ""
        raise errors.PreflightError(
            f"{node.hypervisor or 'no Proxmox node that is online'}{pinned} cannot read {saved.backup.volid}",
            fix="Correct NODE_…_PROXMOX_NODE or PROXMOX_NODES in the env file, or make the storage available there.",
        )
    return max(sorted(fit), key=lambda name: fit[name])


def _require_ours_or_none(world: World, node: Node, hypervisor: str, vmid: int, replaces: bool) -> None:
    """Right before the irrevocable step. Without a VM there Proxmox itself refuses a VMID that is taken."""
    seen = world.proxmox.config(hypervisor, vmid)
    if seen is None:
        return
    if not finding.is_ours(seen, node.identity):
        raise finding.not_ours(node.name, node.identity, vmid, hypervisor, seen)
    if not replaces or seen.lock or seen.protected or world.proxmox.running(hypervisor, vmid):
        raise errors.PreflightError(
            f"VM {vmid} on {hypervisor} ({node.name}) has changed meanwhile; it was not touched",
            fix="Run the same command again.",
        )


def _body(config: ClusterConfig, action: Action) -> dict[str, Any]:
    """Never ``unique``: that would give it another MAC address and another identity (qemu-server QemuServer.pm)."""
    body: dict[str, Any] = {
        "vmid": int(action.values["vmid"]),
        "archive": action.values["volume"],
        "storage": config.proxmox.disk_storage,
        "pool": config.proxmox.pool,
    }
    return body | ({"force": True} if action.values["replaces"] else {})


def _begin(world: World, config: ClusterConfig, hypervisor: str, body: dict[str, Any], step: run.Step) -> str:
    """The UPID of the restore; after a lost reply that of the task which it began all the same."""
    before = _restores(world, config, hypervisor, body["vmid"])
    try:
        return world.proxmox.create_vm(hypervisor, body)
    except errors.UnreachableError as lost:

        def probe() -> Done[str] | Pending:
            try:
                fresh = _restores(world, config, hypervisor, body["vmid"]) - before
            except errors.UnreachableError as why:
                return Pending(why.message)
            return Done(fresh.pop()) if fresh else Pending("no such task yet")

        title = "a sign of the restore, as the reply to it was lost"
        try:
            return wait(world.clock, title, probe, deadline=creation.LOOK_UP, say=step.say)
        except errors.DeadlineError:
            raise lost from None


def _restores(world: World, config: ClusterConfig, hypervisor: str, vmid: int) -> set[str]:
    """UPIDs of this token's restores of that VM in the last day, running and ended."""
    rows = world.proxmox.tasks(hypervisor, world.clock.now() - 24 * backups.HOUR, "qmrestore")
    return {row.upid for row in rows if row.id == str(vmid) and row.user == config.proxmox.token_id}
