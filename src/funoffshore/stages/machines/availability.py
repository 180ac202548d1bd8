"""High availability: the machines as HA resources, and what keeps the controllers apart. Pure.

From 9.0 on a rule of negative resource affinity does that, before it a group per controller that prefers the Proxmox
node it is on (pve-ha-manager ``PVE/HA/Rules/ResourceAffinity.pm``, ``PVE/API2/HA/Groups.pm``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.plan import Verb
from funoffshore.stages.machines.facts import Machine

RULES_SINCE = (9, 0)
_NOTHING: Mapping[str, Mapping[str, str]] = MappingProxyType({})


class Kind(StrEnum):
    """What a step is about."""

    RESOURCE = "resource"
    GROUP = "group"
    RULE = "rule"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What Proxmox' HA manager is to know of the cluster."""

    resources: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Bodies by VMID."""
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Bodies by name; none from 9.0 on."""
    rules: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Bodies by name; none before 9.0."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call, in the order in which they have to be made."""

    verb: Verb
    kind: Kind
    id: str
    """VMID, or name of the group or rule."""
    body: Mapping[str, str]
    """Without the ID; empty where ``verb`` is DELETE."""
    sentence: str


def wanted(
    config: ClusterConfig,
    machines: Mapping[str, Machine],
    release: tuple[int, int],
    groups: Mapping[str, Mapping[str, str]] = _NOTHING,
) -> Wanted:
    """Everything for the machines that exist, by node name; nothing at all where high availability is not asked for.

    ``groups`` are those that Proxmox has: what a controller's group prefers stays so while it lives elsewhere.
    """
    if not config.proxmox.high_availability:
        return Wanted()
    known = [(node, machines[node.name]) for node in config.nodes if node.name in machines]
    apart = _groups(config, known, groups) if release < RULES_SINCE else {}
    resources = {
        machine.vmid: _resource(config, group_name(node) if group_name(node) in apart else "")
        for node, machine in known
    }
    return Wanted(resources, apart, _rules(config, known) if release >= RULES_SINCE else {})


def differences(
    config: ClusterConfig,
    machines: Mapping[str, Machine],
    release: tuple[int, int],
    resources: Collection[int],
    groups: Mapping[str, Mapping[str, str]] = _NOTHING,
    rules: Mapping[str, Mapping[str, str]] = _NOTHING,
) -> list[Step]:
    """The calls that bring Proxmox there, in order. Never touches what is not of this cluster, nor an HA resource that
    the operator made while fo was not asked for any."""
    want = wanted(config, machines, release, groups)
    ours = {name: body for name, body in groups.items() if is_ours(config, body)}
    names = {machine.vmid: name for name, machine in machines.items()}
    steps = [_step(Kind.GROUP, name, body, groups.get(name)) for name, body in want.groups.items()]
    for vmid, body in want.resources.items():
        if vmid not in resources:
            sentence = f"{names[vmid]} is no HA resource"
            steps.append(Step(Verb.CREATE, Kind.RESOURCE, str(vmid), body, sentence))
        elif "group" in body and body["group"] not in groups:
            change = {"group": body["group"]}
            sentence = f"{names[vmid]} is not in its HA group"
            steps.append(Step(Verb.CHANGE, Kind.RESOURCE, str(vmid), change, sentence))
    steps += [_step(Kind.RULE, name, body, rules.get(name)) for name, body in want.rules.items()]
    surplus = [name for name, body in rules.items() if is_ours(config, body) and name not in want.rules]
    steps += [_gone(Kind.RULE, name) for name in surplus]
    if not config.proxmox.high_availability:
        kept = _ruled(rules[name] for name in surplus) | _grouped(config, machines, ours)
        steps += [_gone(Kind.RESOURCE, str(vmid)) for vmid in sorted(kept & set(names) & set(resources))]
    # A group goes last, as none may go that a resource still names.
    steps += [_gone(Kind.GROUP, name) for name in ours if name not in want.groups]
    return [step for step in steps if step is not None]


def warnings(config: ClusterConfig, release: tuple[int, int]) -> tuple[str, ...]:
    """What the operator should know who asks for high availability, sentences."""
    if not config.proxmox.high_availability:
        return ()
    houses, controllers = len(config.proxmox.nodes), len(config.controllers)
    found = []
    if houses < 3:
        found.append(f"high availability needs three Proxmox nodes for a quorum, and the env file names {houses}")
    if release >= RULES_SINCE and controllers > 1 and houses >= 3:
        strict = "the rule that keeps the controllers apart is strict"
        if controllers > houses:
            found.append(f"{strict}, so it was left out: {controllers} controllers have {houses} Proxmox nodes")
        elif controllers == houses:
            found.append(
                f"{strict}: when a Proxmox node fails, no other is free of controllers, and the recovery of its "
                "controller stalls until the node is back"
            )
        else:
            found.append(
                f"{strict}: once fewer than {controllers} Proxmox nodes are left, the recovery of a controller stalls"
            )
    return tuple(found)


def is_ours(config: ClusterConfig, body: Mapping[str, str]) -> bool:
    """Whether a group or rule says that fo made it for this cluster."""
    return body.get("comment", "").strip() == _comment(config)


def group_name(node: Node) -> str:
    return f"fo-{node.name}"


def rule_name(config: ClusterConfig) -> str:
    return f"fo-{config.name}-controllers"


def _comment(config: ClusterConfig) -> str:
    return f"fo: cluster {config.name}"


def _resource(config: ClusterConfig, group: str) -> dict[str, str]:
    body = {"state": "started", "comment": _comment(config)}
    return body | ({"group": group} if group else {})


def _groups(
    config: ClusterConfig, known: list[tuple[Node, Machine]], found: Mapping[str, Mapping[str, str]]
) -> dict[str, Mapping[str, str]]:
    """Each controller prefers a Proxmox node of its own, so that no failure leaves two together once it is over."""
    controllers = [(node, machine) for node, machine in known if node.role is Role.CONTROLLER]
    houses = sorted(config.proxmox.nodes)
    if len(controllers) < 2 or len(houses) < 3:
        return {}
    preferred = {node.name: _preferred(config, node, found) for node, _ in controllers}
    for node, machine in controllers:
        free = [name for name in (machine.hypervisor, *houses) if name in houses and name not in preferred.values()]
        preferred[node.name] = preferred[node.name] or (free[0] if free else machine.hypervisor)
    return {
        group_name(node): {
            "nodes": ",".join(f"{name}:{2 if name == preferred[node.name] else 1}" for name in houses),
            "restricted": "0",
            "nofailback": "0",
            "comment": _comment(config),
        }
        for node, _ in controllers
    }


def _preferred(config: ClusterConfig, node: Node, found: Mapping[str, Mapping[str, str]]) -> str:
    """The Proxmox node that the env file pins ``node`` to, or else its group of ours prefers; empty: none yet."""
    group = found.get(group_name(node), {})
    if node.hypervisor or not is_ours(config, group):
        return node.hypervisor
    listed = (part.strip().partition(":") for part in group.get("nodes", "").split(","))
    ranks = {name: int(rank) for name, _, rank in listed if rank.isdigit()}
    best = [name for name, rank in ranks.items() if rank == max(ranks.values()) and name in config.proxmox.nodes]
    return best[0] if len(best) == 1 else ""


def _rules(config: ClusterConfig, known: list[tuple[Node, Machine]]) -> dict[str, Mapping[str, str]]:
    """None where the controllers outnumber the Proxmox nodes: it could never be kept."""
    vmids = sorted(machine.vmid for node, machine in known if node.role is Role.CONTROLLER)
    houses = len(config.proxmox.nodes)
    if len(vmids) < 2 or houses < 3 or len(config.controllers) > houses:
        return {}
    body = {
        "type": "resource-affinity",
        "affinity": "negative",
        "resources": ",".join(f"vm:{vmid}" for vmid in vmids),
        "comment": _comment(config),
    }
    return {rule_name(config): body}


def _step(kind: Kind, name: str, body: Mapping[str, str], found: Mapping[str, str] | None) -> Step | None:
    if found is None:
        return Step(Verb.CREATE, kind, name, body, f"there is no HA {kind} {name}")
    if all(_value(key, found.get(key, "")) == _value(key, value) for key, value in body.items()):
        return None
    return Step(Verb.CHANGE, kind, name, body, f"the HA {kind} {name} is outdated")


def _gone(kind: Kind, name: str) -> Step:
    return Step(Verb.DELETE, kind, name, {}, f"the HA {kind} {name} is no longer wanted")


def _value(key: str, text: str) -> object:
    if key in {"nodes", "resources"}:
        return frozenset(part.strip() for part in text.split(",") if part.strip())
    return (text or "0") if key in {"restricted", "nofailback"} else text.strip()


def _ruled(rules: Iterable[Mapping[str, str]]) -> set[int]:
    """VMIDs that the rules speak of."""
    sids = [sid.strip() for rule in rules for sid in rule.get("resources", "").split(",")]
    return {
        int(number) for kind, _, number in (sid.partition(":") for sid in sids) if kind == "vm" and number.isdigit()
    }


def _grouped(config: ClusterConfig, machines: Mapping[str, Machine], ours: Collection[str]) -> set[int]:
    """VMIDs of the machines whose group is one of ours."""
    return {machines[n.name].vmid for n in config.nodes if n.name in machines and group_name(n) in ours}
