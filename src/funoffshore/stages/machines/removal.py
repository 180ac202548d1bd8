"""From facts to the actions that remove the cluster, and the list of what stays. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from funoffshore.config import ClusterConfig
from funoffshore.errors import FoError, PreflightError
from funoffshore.plan import Action, Verb
from funoffshore.reading import Present
from funoffshore.stages.machines import availability, deletion, preflight, preflight_guests, shape
from funoffshore.stages.machines.facts import Machine, MachineFacts
from funoffshore.stages.machines.graph import STAGE, is_being_created


def destroy_plan(config: ClusterConfig, facts: MachineFacts, *, keep_disks: bool = False) -> list[Action]:
    """Removes our machines, those that the env file names no more included, what is left of their seeds, and what
    Proxmox was told of them. What is not ours gets no action.

    Raises the first of ``destroy_problems``, so an empty plan does mean that nothing of ours was seen.
    """
    if found := destroy_problems(config, facts):
        raise found[0]
    actions = [*_surroundings(config, facts)]
    for name, machine in ours(config, facts).items():
        key, reason = f"machine/{name}", f"VM {machine.vmid} on {machine.hypervisor} is ours, and the cluster is to go"
        values = {"hypervisor": machine.hypervisor, "vmid": str(machine.vmid)}
        if keep_disks:
            values["keep"] = "disks"
            reason += "; its disks are kept"
        lane = "keep" if keep_disks else ""
        actions.append(Action(Verb.DELETE, key, reason, lane=lane, stage=STAGE, on=name, values=values))
    for node in config.nodes:
        seed = facts.seed(node.name)
        if isinstance(seed, Present):
            reason = f"{shape.seed_volume(config, node)} holds a host key, and the cluster is to go"
            after = frozenset({f"machine/{node.name}"})
            values = {"on": seed.value}
            actions.append(
                Action(Verb.DELETE, f"seed/{node.name}", reason, after, stage=STAGE, on=node.name, values=values)
            )
    return actions + _pool(config, facts, actions, keep_disks=keep_disks)


def ours(config: ClusterConfig, facts: MachineFacts) -> dict[str, Machine]:
    """Every machine that carries an identity of this cluster, by name."""
    readings = {node.name: facts.machine(node.name) for node in config.nodes}
    return {
        **{name: r.value for name, r in readings.items() if isinstance(r, Present) and not is_being_created(r.value)},
        **facts.former,
    }


def _surroundings(config: ClusterConfig, facts: MachineFacts) -> Iterator[Action]:
    """The backup job, and the rules that keep controllers apart; HA resources go with their machines."""
    if isinstance(facts.backup_job, Present):
        reason = "it saves machines that are to go; the backups that exist stay"
        yield Action(Verb.DELETE, "backup/job", reason, stage=STAGE)
    if isinstance(facts.availability, Present):
        for kind, found in (("rule", facts.availability.value.rules), ("group", facts.availability.value.groups)):
            machines = frozenset(f"machine/{name}" for name in ours(config, facts)) if kind == "group" else frozenset()
            for name, body in found.items():
                if availability.is_ours(config, body):
                    reason = "it is about machines that are to go"
                    yield Action(Verb.DELETE, f"ha/{kind}/{name}", reason, machines, stage=STAGE)


def _pool(config: ClusterConfig, facts: MachineFacts, actions: list[Action], *, keep_disks: bool) -> list[Action]:
    """The pool that fo made, once nothing is in it any more."""
    name = config.proxmox.pool
    if not isinstance(facts.pool, Present) or keep_disks or any(g.pool == name for g in facts.guests.values()):
        return []
    after = frozenset(action.key for action in actions)
    return [Action(Verb.DELETE, f"pool/{name}", "it will be empty", after, stage=STAGE)]


def left(config: ClusterConfig, facts: MachineFacts) -> list[str]:
    """What stays on Proxmox after a destroy, and why, as sentences."""
    found = [
        f"VM {guest.vmid} ({guest.name or 'without a name'}) on {guest.hypervisor}: it is not ours"
        + (f"; {guest.why}" if guest.why else "")
        for guest in facts.guests.values()
        if guest.why
    ]
    images = sorted(name for name, reading in facts.images.items() if isinstance(reading, Present))
    if images:
        found.append(f"{shape.image_volume(config)} on {', '.join(images)}: other clusters may start from it")
    inside = [str(g.vmid) for g in facts.guests.values() if g.pool == config.proxmox.pool]
    if isinstance(facts.pool, Present) and inside:
        found.append(f"the pool {config.proxmox.pool}: VM {', '.join(inside)} is in it and not ours")
    if config.backup:
        found.append(f"backups on {config.backup.storage}: they are kept (fo backup list shows them)")
    return found


def destroy_problems(config: ClusterConfig, facts: MachineFacts) -> list[FoError]:
    """What stands in the way of removing all that is ours. A foreign VM is no problem: it is left alone."""
    if facts.door is not None:
        return [facts.door]
    removing = {"/vms", f"/storage/{config.proxmox.image_storage}"}
    if missing := tuple(lack for lack in facts.missing if lack.path in removing):
        return [preflight.lacking_privileges(config, missing)]
    found: list[FoError] = list(preflight.unseen(config, facts))
    found += [deletion.protected(name, m.vmid) for name, m in ours(config, facts).items() if m.protected]
    for node in config.nodes:
        reading = facts.machine(node.name)
        if isinstance(reading, Present) and is_being_created(reading.value):
            machine = reading.value
            found.append(
                PreflightError(
                    f"VM {machine.vmid} on {machine.hypervisor} is only being created by an earlier run",
                    fix="Wait until the task has ended, then run the same command again.",
                    evidence=(machine.creating,),
                )
            )
    found += [preflight.half_made(guest) for guest in facts.half_made]
    found += [preflight_guests.double(*double) for double in facts.doubles]
    return found
