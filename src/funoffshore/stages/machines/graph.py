"""From facts to actions. Pure: this module has no world in reach, so it cannot act."""

from __future__ import annotations

from collections.abc import Mapping

from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import NONE, Action, Permits, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import backups, drift, guards, placing, shape, survey
from funoffshore.stages.machines.facts import Hypervisor, Machine, MachineFacts
from funoffshore.stages.machines.held import release
from funoffshore.stages.machines.placing import Place
from funoffshore.stages.machines.settled import filesystem_lags, is_settled
from funoffshore.world.ssh import HostFacts

STAGE = "machines"


def plan(
    config: ClusterConfig, facts: MachineFacts, hosts: Mapping[str, Reading[HostFacts]], permits: Permits = NONE
) -> list[Action]:
    """Everything between nothing and reachable hosts, and what keeps them as they shall be.

    Other people's guests get no action; ``problems`` names those that are in the way, and ``held`` what is left out
    because the operator has not allowed it.
    """
    mappings = facts.mappings.value if isinstance(facts.mappings, Present) else None
    places = {
        name: p for name, p in placing.place(config, facts, mappings, facts.numbers).items() if isinstance(p, Place)
    }
    actions = _common(config, facts, places)
    last = ""
    for node in config.nodes:
        machine = _machine(config, facts, node, places.get(node.name), permits)
        restart = _restart(config, facts, node, permits, last)
        last = node.name if restart else last
        actions += [*machine, *restart]
        if any(action.verb is Verb.DELETE for action in machine) or _is_being_cloned(facts.machine(node.name)):
            continue
        actions += _host(facts, node, hosts.get(node.name, Absent()), places.get(node.name))
        actions += _seed(config, facts, node, places.get(node.name))
    return [*actions, *_removals(facts, permits), *guards.plan(config, facts), *backups.plan(config, facts)]


def is_being_created(machine: Machine) -> bool:
    """Whether a creation that this token began is at work on it; until it ends nothing shows an identity."""
    return machine.lock in survey.UNBORN and bool(machine.creating)


def _is_being_cloned(reading: Reading[Machine]) -> bool:
    """A copy has neither identity nor hardware of ours when its task ends, so nothing can follow in this plan."""
    return isinstance(reading, Present) and reading.value.lock == "clone" and is_being_created(reading.value)


def image_key(config: ClusterConfig, facts: MachineFacts, hypervisor: str) -> str:
    """The action that brings the image to ``hypervisor``; one for all where they share the storage."""
    store = config.proxmox.image_storage
    return f"image/{store}" if _is_shared(facts, hypervisor, store) else f"image/{store}@{hypervisor}"


def disk_lane(config: ClusterConfig, facts: MachineFacts, hypervisor: str) -> str:
    """The storage whose disks the imports of ``hypervisor`` compete for."""
    store = config.proxmox.disk_storage
    return f"storage/{store}" if _is_shared(facts, hypervisor, store) else f"storage/{store}@{hypervisor}"


def _is_shared(facts: MachineFacts, hypervisor: str, store: str) -> bool:
    reading: Reading[Hypervisor] = facts.hypervisors.get(hypervisor, Absent())
    seen = reading.value.storages.get(store) if isinstance(reading, Present) else None
    return seen is not None and seen.shared


def _common(config: ClusterConfig, facts: MachineFacts, places: Mapping[str, Place]) -> list[Action]:
    """What new machines need first; nothing when there are none."""
    actions = []
    lent = config.proxmox
    saved = config.backup is not None and isinstance(facts.pool, Absent)
    if not places and not saved:
        return []
    if not isinstance(facts.pool, Present):
        verb, reason = _absence(facts.pool, "it is absent")
        actions.append(Action(verb, f"pool/{lent.pool}", reason, stage=STAGE))
    if config.image.template:
        return actions
    done = set()
    for name in sorted({place.hypervisor for place in places.values()}):
        key, reading = image_key(config, facts, name), facts.images.get(name, Absent())
        if key in done:
            continue
        done.add(key)
        verb, reason = _absence(reading, f"{config.image.filename} is absent on {name}")
        values = {"hypervisor": name}
        if isinstance(reading, Present):
            verb, reason = Verb.WAIT, f"{config.image.filename} is on {name}, and Proxmox is to compare its digest"
            values["compare"] = "digest"
        actions.append(Action(verb, key, reason, lane="image", stage=STAGE, values=values))
    return actions


def _absence(reading: Reading[str], reason: str) -> tuple[Verb, str]:
    """Creating is for what was seen to be absent; what was not seen is looked at again first."""
    if isinstance(reading, Unreadable):
        return Verb.WAIT, f"Proxmox did not show whether it exists ({reading.why})"
    return Verb.CREATE, reason


def _machine(
    config: ClusterConfig, facts: MachineFacts, node: Node, place: Place | None, permits: Permits
) -> list[Action]:
    key, reading = f"machine/{node.name}", facts.machine(node.name)
    match reading:
        case Unreadable(why):
            reason = f"Proxmox did not show whether it exists ({why})"
            return [Action(Verb.WAIT, key, reason, stage=STAGE, on=node.name)]
        case Absent() if place is not None:
            return _create(config, facts, node, place)
        case Present(machine) if is_being_created(machine):
            reason = f"its creation is under way ({machine.creating})"
            values = _where(machine) | {"upid": machine.creating}
            wait = Action(Verb.WAIT, key, reason, lane="storage", stage=STAGE, on=node.name, values=values)
            if _is_being_cloned(reading):
                return [wait]
            return [wait, _start(node, key, "a new machine is off", _where(machine))]
        case Present(machine) if not machine.lock:
            return _change(config, facts, node, machine, permits)
    return []


def _create(config: ClusterConfig, facts: MachineFacts, node: Node, place: Place) -> list[Action]:
    key, values = f"machine/{node.name}", _placed(place)
    after = frozenset({image_key(config, facts, place.hypervisor), f"pool/{config.proxmox.pool}"})
    reason = f"it is absent; VM {place.vmid} on {place.hypervisor}: {place.reason}"
    reason += f" (but {place.warning})" if place.warning else ""
    lane = disk_lane(config, facts, place.hypervisor)
    create = Action(Verb.CREATE, key, reason, after, lane=lane, stage=STAGE, on=node.name, values=values)
    return [create, _start(node, key, "a new machine is off", values)]


def _start(node: Node, key: str, reason: str, values: Mapping[str, str]) -> Action:
    after = frozenset({key})
    return Action(Verb.CHANGE, f"power/{node.name}", reason, after, stage=STAGE, on=node.name, values=values)


def _where(machine: Machine) -> dict[str, str]:
    return {"hypervisor": machine.hypervisor, "vmid": str(machine.vmid)}


def _placed(place: Place) -> dict[str, str]:
    return {"hypervisor": place.hypervisor, "vmid": str(place.vmid)}


def _change(config: ClusterConfig, facts: MachineFacts, node: Node, machine: Machine, permits: Permits) -> list[Action]:
    """What is done to a machine without a restart, or its end, when it is to be made anew."""
    key, values = f"machine/{node.name}", _where(machine)
    found = drift.differences(config, node, machine, release(facts), machine.pending)
    if node.name in permits.replace:
        wrong = ", ".join(difference.sentence for difference in found if difference.how is drift.How.REBUILD)
        reason = f"it is to be made anew: {wrong or 'the operator says so'}"
        after = frozenset({f"drain/{node.name}", f"leave/{node.name}"})
        return [Action(Verb.DELETE, key, reason, after, stage=STAGE, on=node.name, values=values)]
    actions = []
    if wrong := ", ".join(d.sentence for d in found if d.how in (drift.How.LIVE, drift.How.GROW)):
        lane = disk_lane(config, facts, machine.hypervisor)
        actions.append(Action(Verb.CHANGE, key, wrong, lane=lane, stage=STAGE, on=node.name, values=values))
    if not machine.running:
        actions.append(_start(node, key, "it is off", values))
    return actions


def _restart(config: ClusterConfig, facts: MachineFacts, node: Node, permits: Permits, before: str) -> list[Action]:
    """A drained restart; each waits until the one ``before`` it is back and carries load again."""
    reading = facts.machine(node.name)
    if not permits.reboots or not isinstance(reading, Present) or reading.value.lock or not reading.value.running:
        return []
    if node.name in permits.replace:
        return []
    found = drift.differences(config, node, reading.value, release(facts), reading.value.pending)
    wrong = [difference.sentence for difference in found if difference.how is drift.How.RESTART]
    if not wrong:
        return []
    after = {f"machine/{node.name}", f"grow/{node.name}", f"drain/{node.name}"}
    after |= {f"restart/{before}", f"host/{before}", f"uncordon/{before}"} if before else set()
    return [
        Action(
            Verb.CHANGE, f"restart/{node.name}", ", ".join(wrong), frozenset(after), lane="restart", stage=STAGE,
            on=node.name, values=_where(reading.value),
        )
    ]  # fmt: skip


def _host(facts: MachineFacts, node: Node, host: Reading[HostFacts], place: Place | None) -> list[Action]:
    machine = facts.machine(node.name)
    values = _where(machine.value) if isinstance(machine, Present) else _placed(place) if place else {}
    after = frozenset({f"machine/{node.name}", f"power/{node.name}"})
    if reason := _host_reason(machine, host):
        return [Action(Verb.WAIT, f"host/{node.name}", reason, after, stage=STAGE, on=node.name, values=values)]
    if isinstance(host, Present) and (lag := filesystem_lags(host.value)):
        return [Action(Verb.CHANGE, f"grow/{node.name}", lag, after, stage=STAGE, on=node.name, values=values)]
    return []


def _host_reason(machine: Reading[Machine], host: Reading[HostFacts]) -> str:
    """Why the host is not as it shall be; empty when it is."""
    match host:
        case Unreadable(why):
            return f"it does not answer ({why})"
        case Absent():
            return "it has not been reached" if _is_on(machine) else "it has not booted"
        case Present(found):
            return "" if is_settled(found) else _unsettled(found)


def _unsettled(host: HostFacts) -> str:
    if host.cloud_init in {"done", "degraded"}:
        return "cloud-init has ended but would run again at the next boot"
    return "cloud-init ended with an error" if host.cloud_init == "error" else f"cloud-init says {host.cloud_init}"


def _is_on(machine: Reading[Machine]) -> bool:
    return isinstance(machine, Present) and machine.value.running


def _seed(config: ClusterConfig, facts: MachineFacts, node: Node, place: Place | None) -> list[Action]:
    if config.proxmox.seed == "drive":
        return []
    key, after = f"seed/{node.name}", frozenset({f"host/{node.name}"})
    machine, seed = facts.machine(node.name), facts.seed(node.name)
    volume = shape.seed_volume(config, node)
    values = _where(machine.value) if isinstance(machine, Present) else _placed(place) if place else {}
    if isinstance(seed, Present):
        values |= {"on": seed.value}
    if isinstance(machine, Absent):
        reason = "it holds the host key, and has done its work once the host is reached"
    elif isinstance(seed, Present):
        reason = f"{volume} holds the host key, and the machine needs it no more"
    elif isinstance(machine, Present) and machine.value.config.cdrom == volume:
        reason = "it is still in the CD-ROM drive"
    elif isinstance(seed, Unreadable) and not isinstance(machine, Unreadable):
        reason = f"Proxmox did not show whether it is gone ({seed.why})"
        return [Action(Verb.WAIT, key, reason, after, stage=STAGE, on=node.name)]
    else:
        return []
    return [Action(Verb.DELETE, key, reason, after, stage=STAGE, on=node.name, values=values)]


def _removals(facts: MachineFacts, permits: Permits) -> list[Action]:
    """The ends of machines that the env file names no more."""
    return [
        Action(
            Verb.DELETE, f"machine/{name}", f"VM {machine.vmid} is ours, and the env file names it no more",
            frozenset({f"drain/{name}", f"leave/{name}"}), stage=STAGE, on=name, values=_where(machine),
        )
        for name, machine in sorted(facts.former.items())
        if name in permits.remove
    ]  # fmt: skip
