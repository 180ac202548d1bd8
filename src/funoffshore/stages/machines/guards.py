"""What surrounds a machine: its firewall rules, and what the HA manager is to know. Looked at, planned, applied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import availability, finding, firewall, records
from funoffshore.stages.machines.facts import Availability, Firewall, Machine, MachineFacts
from funoffshore.stages.machines.held import release
from funoffshore.world.proxmox import Proxmox, release_of

if TYPE_CHECKING:
    from funoffshore.world.world import World

STAGE = "machines"


def observe_firewalls(
    proxmox: Proxmox, config: ClusterConfig, facts: MachineFacts, known: records.Records, now: float
) -> dict[str, Reading[Firewall]]:
    """The firewalls that are not known to be right; none where Proxmox' firewall is not asked for. Records that are
    empty make that all of them."""
    if not config.shape.firewall:
        return {}
    calls: dict[str, Any] = {}
    for node in config.nodes:
        reading = facts.machine(node.name)
        if not isinstance(reading, Present) or reading.value.lock:
            continue
        if not known.guards(str(node.identity), fingerprint(config, node), now):
            calls[node.name] = partial(_read_firewall, proxmox, reading.value.hypervisor, reading.value.vmid)
    answers = proxmox.gather(calls)
    return {
        name: Unreadable(answer.message) if isinstance(answer, errors.FoError) else Present(answer)
        for name, answer in answers.items()
    }


def _read_firewall(proxmox: Proxmox, hypervisor: str, vmid: int) -> Firewall:
    options = proxmox.firewall_options(hypervisor, vmid)
    return Firewall(options, tuple(proxmox.firewall_rules(hypervisor, vmid)))


def observe_availability(proxmox: Proxmox, known: tuple[int, int]) -> Reading[Availability]:
    """What the HA manager knows. Groups became rules with 9.0."""
    try:
        resources = proxmox.ha_resources()
        rules = proxmox.ha_rules() if known >= availability.RULES_SINCE else {}
        groups = proxmox.ha_groups() if known < availability.RULES_SINCE else {}
    except errors.FoError as why:
        return Unreadable(why.message)
    return Present(Availability(resources, groups, rules))


def fingerprint(config: ClusterConfig, node: Node) -> str:
    """Of the rules that ``node`` shall have."""
    text = json.dumps([firewall.wanted(config, node), firewall.OPTIONS], sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def plan(config: ClusterConfig, facts: MachineFacts) -> list[Action]:
    """For machines that exist; those still to be made get theirs with the next look."""
    return [*_firewalls(config, facts), *_availability(config, facts)]


def _firewalls(config: ClusterConfig, facts: MachineFacts) -> list[Action]:
    actions = []
    for node in config.nodes:
        key = f"firewall/{node.name}"
        match facts.firewalls.get(node.name, Absent()):
            case Unreadable(why):
                reason = f"Proxmox did not show its firewall ({why})"
                actions.append(Action(Verb.WAIT, key, reason, stage=STAGE, on=node.name))
            case Present(found) if facts.former and found.options.get("enable") == "1":
                # Its rules still let in machines that the env file names no more; until these are gone, etcd and the
                # pods' network need them.
                continue
            case Present(found):
                if wrong := firewall.differences(config, node, found.rules, found.options):
                    actions.append(Action(Verb.CHANGE, key, _reason(wrong), stage=STAGE, on=node.name))
    return actions


def _reason(wrong: firewall.Changes) -> str:
    """A new machine lacks them all, and nobody wants to read each."""
    if len(wrong.lacking) <= 2:
        return "; ".join(wrong.sentences)
    others = [sentence for sentence in wrong.sentences if "lacks the rule" not in sentence]
    return "; ".join([f"its firewall lacks {len(wrong.lacking)} rules", *others])


def _availability(config: ClusterConfig, facts: MachineFacts) -> list[Action]:
    machines = living(config, facts)
    if config.proxmox.high_availability and isinstance(facts.availability, Unreadable) and machines:
        reason = f"Proxmox did not show what its HA manager knows ({facts.availability.why})"
        return [Action(Verb.WAIT, "ha/state", reason, stage=STAGE)]
    if not isinstance(facts.availability, Present) or len(machines) < len(config.nodes):
        return []
    actions: list[Action] = []
    after: frozenset[str] = frozenset()
    for step in _steps(config, facts.availability.value, machines, release(facts)):
        key = f"ha/{step.kind}/{step.id}"
        actions.append(Action(step.verb, key, step.sentence, after, stage=STAGE))
        after = frozenset({key})
    return actions


def living(config: ClusterConfig, facts: MachineFacts) -> dict[str, Machine]:
    """The machines of the env file that exist and are whole."""
    readings = {node.name: facts.machine(node.name) for node in config.nodes}
    return {name: r.value for name, r in readings.items() if isinstance(r, Present) and not r.value.unborn}


def _steps(
    config: ClusterConfig, seen: Availability, machines: Mapping[str, Machine], known: tuple[int, int]
) -> list[availability.Step]:
    return availability.differences(config, machines, known, seen.resources, seen.groups, seen.rules)


def apply(world: World, config: ClusterConfig, action: Action, machines: Mapping[str, Machine]) -> None:
    """One of these actions. Looks again first; what is right by now is left alone."""
    kind, _, rest = action.key.partition("/")
    if kind == "firewall":
        _set_firewall(world, config, config.node(rest), only_look=action.verb is Verb.WAIT)
        return
    seen = observe_availability(world.proxmox, release_of(world.proxmox))
    if isinstance(seen, Unreadable):
        raise errors.UnreachableError(f"the HA manager cannot be asked: {seen.why}", fix="Run the same command again.")
    assert isinstance(seen, Present)  # noqa: S101 - it is never absent
    for step in _steps(config, seen.value, machines, release_of(world.proxmox)):
        if f"{step.kind}/{step.id}" == rest:
            _set_availability(world.proxmox, step)


def _set_firewall(world: World, config: ClusterConfig, node: Node, *, only_look: bool) -> None:
    found = finding.need(world, config, node.name, {})
    seen = _read_firewall(world.proxmox, found.hypervisor, found.vmid)
    if only_look:
        return
    wrong = firewall.differences(config, node, seen.rules, seen.options)
    for position in wrong.surplus:
        world.proxmox.delete_firewall_rule(found.hypervisor, found.vmid, position)
    for rule in wrong.lacking:
        world.proxmox.add_firewall_rule(found.hypervisor, found.vmid, rule)
    if wrong.options:
        world.proxmox.set_firewall_options(found.hypervisor, found.vmid, wrong.options)


def remember(config: ClusterConfig, facts: MachineFacts, now: float) -> None:
    """Firewalls that were seen to be right need not be read again for a while; those that were not, at every look."""
    right: dict[str, tuple[str, float]] = {}
    wrong = set[str]()
    for node in config.nodes:
        seen, key = facts.firewalls.get(node.name), str(node.identity)
        if isinstance(seen, Present):
            if firewall.differences(config, node, seen.value.rules, seen.value.options):
                wrong.add(key)
            else:
                right[key] = (fingerprint(config, node), now)

    def change(known: records.Records) -> None:
        kept = {key: value for key, value in known.guarded.items() if key not in wrong}
        known.guarded = kept | right

    if right or wrong:
        records.update(config.state, change)


def _set_availability(proxmox: Proxmox, step: availability.Step) -> None:
    match step.kind, step.verb:
        case availability.Kind.RESOURCE, Verb.CREATE:
            proxmox.add_ha_resource(int(step.id), step.body)
        case availability.Kind.RESOURCE, Verb.CHANGE:
            proxmox.change_ha_resource(int(step.id), step.body)
        case availability.Kind.RESOURCE, _:
            proxmox.remove_ha_resource(int(step.id))
        case availability.Kind.GROUP, Verb.CREATE:
            proxmox.create_ha_group({"group": step.id, **step.body})
        case availability.Kind.GROUP, Verb.CHANGE:
            proxmox.change_ha_group(step.id, step.body)
        case availability.Kind.GROUP, _:
            proxmox.delete_ha_group(step.id)
        case availability.Kind.RULE, Verb.CREATE:
            proxmox.create_ha_rule({"rule": step.id, **step.body})
        case availability.Kind.RULE, Verb.CHANGE:
            proxmox.change_ha_rule(step.id, step.body)
        case _:
            proxmox.delete_ha_rule(step.id)
