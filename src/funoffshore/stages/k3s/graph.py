"""From facts to actions. Pure: this module has no world in reach, so it cannot act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.errors import FoError, PreflightError
from funoffshore.plan import NONE, Action, Held, Permits, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.k3s import differences, files, leave, sources, strangers, upgrade
from funoffshore.stages.k3s.differences import How
from funoffshore.stages.k3s.facts import K3sFacts, Role, cluster_exists, role_of, unreadable
from funoffshore.world.ssh import HostFacts

STAGE = "k3s"
FOUNDS = "no controller holds K3s data, so this one founds the cluster"
"""The only reason on which ``apply`` may found a cluster."""


class Kind(StrEnum):
    """What an action does to its node; decides what it must wait for."""

    FOUND = "found"
    JOIN = "join"
    START = "start"
    """Its unit is down; it may be needed for the quorum of the others, so it waits for none of them."""
    RESTART = "restart"
    UPGRADE = "upgrade"
    """A restart with another release, drained."""
    LIVE = "live"
    """Files and Node, with nothing restarted."""
    WAIT = "wait"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Need:
    """What one node needs, and why."""

    kind: Kind
    reason: str

    @property
    def verb(self) -> Verb:
        if self.kind in (Kind.FOUND, Kind.JOIN):
            return Verb.CREATE
        return Verb.WAIT if self.kind in (Kind.WAIT, Kind.UNKNOWN) else Verb.CHANGE


def plan(
    config: ClusterConfig,
    facts: K3sFacts,
    permits: Permits = NONE,
    restarting: Sequence[str] = (),
    leaving: Sequence[str] = (),
) -> list[Action]:
    """Everything between reachable hosts and a cluster of Ready nodes with a proven kubeconfig, and what happens in
    it around machines that restart or go."""
    needs = {node.name: need for node in config.nodes if (need := need_of(config, facts, node, permits.upgrade))}
    # Whoever goes needs nothing any more, and a machine that restarts anyway gets its release in the next round.
    needs = {name: need for name, need in needs.items() if name not in leaving}
    needs = {name: need for name, need in needs.items() if need.kind is not Kind.UPGRADE or name not in restarting}
    upgrading = upgrade.order(config, [name for name, need in needs.items() if need.kind is Kind.UPGRADE])
    going = leave.plan(config, facts, restarting, leaving, upgrading)
    return [
        *strangers.plan(config, facts),
        *going,
        *upgrade.wrapped(config, facts, _nodes(config, facts, needs), upgrading),
    ]


def held(config: ClusterConfig, facts: K3sFacts, permits: Permits = NONE) -> list[Held]:
    """What is not as desired and is not done without the operator's word."""
    found = list(upgrade.held(config, facts, outdated(config, facts), permits))
    for name in leave.former(config, facts):
        if name not in permits.remove:
            reason = "it is in the cluster, and the env file names it no more"
            found.append(Held(f"leave/{name}", reason, f"--remove {name}"))
    return found


def problems(
    config: ClusterConfig,
    facts: K3sFacts,
    permits: Permits = NONE,
    restarting: Sequence[str] = (),
    leaving: Sequence[str] = (),
) -> list[FoError]:
    """What stands in the way before anything may be changed."""
    found: list[FoError | None] = []
    joining = []
    for node in config.nodes:
        host, role = facts.host(node.name), role_of(config, facts, node)
        if role is Role.JOIN:
            joining.append(node.name)
        if not isinstance(host, Present):
            continue
        found.append(sources.problem(config, node, host.value))
        why = differences.blocked(config, facts, node, host.value) if role is Role.KEEP else ""
        if why:
            found.append(PreflightError(f"K3s on {node.name} is left alone: {why}", fix=differences.BLOCKED_FIX))
    if outdated(config, facts) and permits.upgrade:
        found.append(upgrade.refusal(config, facts))
    elif not permits.upgrade:
        found.append(upgrade.joining_problem(config, facts, joining))
    return [*filter(None, found), *leave.problems(config, facts, restarting, leaving)]


def outdated(config: ClusterConfig, facts: K3sFacts) -> list[str]:
    """Nodes of the cluster that have another release than the pinned one."""
    found = []
    for node in config.nodes:
        host = facts.host(node.name)
        if isinstance(host, Present) and role_of(config, facts, node) is Role.KEEP:
            ways = {one.how for one in differences.of(config, facts, node, host.value)}
            found += [node.name] if How.UPGRADE in ways else []
    return found


def _nodes(config: ClusterConfig, facts: K3sFacts, needs: Mapping[str, Need]) -> list[Action]:
    chain = _chain(config, facts)
    actions = [_server(node, needs, chain) for node in chain if node.name in needs]
    lead = {f"k3s/{config.controllers[0].name}", *(f"k3s/{node.name}" for node in chain[:1])}
    for node in config.workers:
        if need := needs.get(node.name):
            after = frozenset({*lead, *_reachable(node)})
            key = f"k3s/{node.name}"
            actions.append(Action(need.verb, key, need.reason, after, lane="agents", stage=STAGE, on=node.name))
    return [*actions, *_kubeconfig(config, facts, frozenset(lead))]


def need_of(config: ClusterConfig, facts: K3sFacts, node: Node, upgrade: bool = False) -> Need | None:
    """None when the node is as desired. ``upgrade``: whether it may get another release."""
    host, role = facts.host(node.name), role_of(config, facts, node)
    if isinstance(host, Unreadable):
        return Need(Kind.UNKNOWN, f"its host cannot be read ({host.why})")
    if role is Role.UNKNOWN:
        return Need(Kind.UNKNOWN, unreadable(config, facts, (node, *config.controllers)))
    if role is Role.FOUND:
        return Need(Kind.FOUND, FOUNDS)
    if role is Role.JOIN:
        again = ", and the cluster still remembers an earlier machine of that name" if facts.node(node.name) else ""
        return Need(Kind.JOIN, f"it has no K3s yet{again}")
    if isinstance(host, Absent):  # role_of never says KEEP of a host that is not there
        raise ValueError(f"{node.name} holds data and is absent")
    if why := differences.blocked(config, facts, node, host.value):
        return Need(Kind.WAIT, why)
    return _upkeep(config, facts, node, host.value, upgrade)


def _upkeep(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts, upgrade: bool) -> Need | None:
    """What a node that is in the cluster needs."""
    found = differences.of(config, facts, node, host)
    wrong = [one.sentence for one in found if one.how is How.RESTART or (upgrade and one.how is How.UPGRADE)]
    live = [one.sentence for one in found if one.how is How.LIVE]
    unit = host.unit(files.unit_name(node))
    if isinstance(unit, Unreadable):
        return Need(Kind.UNKNOWN, f"its unit cannot be read ({unit.why})")
    active = unit.value.active if isinstance(unit, Present) else "absent"
    if active in ("inactive", "failed", "absent", "deactivating"):
        down = f"{files.unit_name(node)} is {active}"
        return Need(Kind.START, "; ".join([down, *wrong]))
    if isinstance(unit, Present) and unit.value.enabled != "enabled":
        wrong.append(f"{files.unit_name(node)} is not enabled")
    if wrong:
        newer = upgrade and any(one.how is How.UPGRADE for one in found)
        return Need(Kind.UPGRADE if newer else Kind.RESTART, "; ".join(dict.fromkeys(wrong)))
    if active != "active":
        return Need(Kind.WAIT, f"{files.unit_name(node)} is {active}")
    return _api_need(facts, node) or (Need(Kind.LIVE, "; ".join(live)) if live else None)


def _api_need(facts: K3sFacts, node: Node) -> Need | None:
    match facts.nodes:
        case Absent():
            return Need(Kind.WAIT, "whether it is Ready cannot be told without a kubeconfig")
        case Unreadable(why):
            return Need(Kind.WAIT, f"the API does not answer ({why})")
    seen = facts.node(node.name)
    if seen is None and node.role is NodeRole.WORKER:
        return Need(Kind.RESTART, "the cluster has forgotten it, so it joins again")
    if seen is None:
        return Need(Kind.WAIT, "the cluster does not know it")
    if not seen.ready:
        return Need(Kind.WAIT, f"it is not Ready ({seen.said})")
    if node.role is NodeRole.CONTROLLER and not seen.voter:
        return Need(Kind.WAIT, "it does not vote in etcd yet")
    return None


def _chain(config: ClusterConfig, facts: K3sFacts) -> list[Node]:
    """Controllers in the order in which they are worked on: those in the cluster first."""
    return sorted(config.controllers, key=lambda n: role_of(config, facts, n) is not Role.KEEP)


def _server(node: Node, needs: Mapping[str, Need], chain: list[Node]) -> Action:
    need = needs[node.name]
    key = f"k3s/{node.name}"
    after = _reachable(node)
    if need.kind is Kind.UNKNOWN:
        after = after.union(*(_reachable(other) for other in chain))
    if need.kind in (Kind.START, Kind.WAIT, Kind.LIVE):
        return Action(need.verb, key, need.reason, frozenset(after), stage=STAGE, on=node.name)
    after |= {f"k3s/{other.name}" for other in chain[: chain.index(node)]}
    behind = [other for other in chain[chain.index(node) + 1 :] if other.name in needs]
    after |= {f"k3s/{o.name}" for o in behind if needs[o.name].kind in (Kind.START, Kind.WAIT)}
    return Action(need.verb, key, need.reason, frozenset(after), lane="etcd", stage=STAGE, on=node.name)


def _reachable(node: Node) -> set[str]:
    return {f"host/{node.name}" if node.made else f"trust/{node.name}"}


def _kubeconfig(config: ClusterConfig, facts: K3sFacts, after: frozenset[str]) -> list[Action]:
    def action(verb: Verb, reason: str) -> list[Action]:
        return [Action(verb, "kubeconfig", reason, after, stage=STAGE)]

    match facts.kubeconfig:
        case Absent():
            return action(Verb.CREATE, "it is absent")
        case Unreadable(why):
            return action(Verb.WAIT, f"it cannot be read ({why})")
        case Present(there):
            wrong = []
            if cluster_exists(config, facts) is False:
                wrong.append("it belongs to an earlier cluster")
            elif isinstance(facts.ca_hash, Present) and facts.ca_hash.value != there.ca_hash:
                wrong.append("it names another authority than the cluster's")
            if there.server != f"https://{config.network.vip}:6443":
                wrong.append("it does not lead to the VIP")
            if there.name != config.name:
                wrong.append("its names differ")
            if there.mode != 0o600:
                wrong.append(f"its mode is {there.mode:04o}")
            return action(Verb.CHANGE, ", ".join(wrong)) if wrong else []
    return []
