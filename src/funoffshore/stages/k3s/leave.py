"""Nodes that go, for a moment or for good: drained first, and never where that would cost the cluster its quorum.

Pure; ``drain.apply`` carries out ``drain/…``, ``uncordon/…``, ``leave/…`` and ``wipe/…``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.config.model import identity
from funoffshore.plan import Action, Permits, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import files
from funoffshore.stages.k3s.facts import K3sFacts, NodeFact, cluster_exists, holds_data
from funoffshore.world.ssh import HostFacts

STAGE = "k3s"
LEAVES = "its machine is to be deleted"
WIPES = "it is to leave the cluster"


def plan(
    config: ClusterConfig,
    facts: K3sFacts,
    restarting: Sequence[str],
    leaving: Sequence[str],
    upgrading: Collection[str] = (),
) -> list[Action]:
    """What happens in the cluster around restarts and ends of machines, one node after another. A host that fo has
    not made stays when its node goes, and is wiped."""
    if not isinstance(facts.nodes, Present):
        return []
    known, actions = facts.nodes.value, list[Action]()
    # A server that is being restarted for its settings counts for the quorum no more than one that goes.
    before = frozenset(f"k3s/{node.name}" for node in config.controllers if node.name not in leaving)
    for name in [n for n in restarting if n in known]:
        reason = "its machine is to be restarted"
        actions.append(Action(Verb.CHANGE, f"drain/{name}", reason, before, stage=STAGE, on=name))
        after = frozenset({f"restart/{name}", f"host/{name}"})
        actions.append(Action(Verb.CHANGE, f"uncordon/{name}", "it carries load again", after, stage=STAGE, on=name))
        before = frozenset({f"uncordon/{name}"})
    # Those that are dead already go first: a living member that goes before them could cost the quorum.
    for name in sorted((n for n in leaving if n in known), key=lambda n: known[n].ready):
        actions += _leaving(config, name, known[name], before)
        before = frozenset({f"leave/{name}", f"machine/{name}", f"wipe/{name}"})
    # An earlier attempt may have ended between the two.
    for name in [n for n in leaving if n not in known and _holds_old_data(config, facts, n)]:
        actions.append(_wiping(name, "", before))
    for name, node in known.items():
        if node.drained and name not in {*restarting, *leaving, *upgrading}:
            after = frozenset({f"host/{name}", f"k3s/{name}"})
            reason = "fo drained it for a restart that is over"
            actions.append(Action(Verb.CHANGE, f"uncordon/{name}", reason, after, stage=STAGE, on=name))
    return actions


def _leaving(config: ClusterConfig, name: str, node: NodeFact, before: frozenset[str]) -> Iterator[Action]:
    stays = is_existing(config, name, node)
    reason = WIPES if stays else LEAVES
    yield Action(Verb.CHANGE, f"drain/{name}", reason, before, stage=STAGE, on=name)
    yield Action(Verb.DELETE, f"leave/{name}", reason, frozenset({f"drain/{name}"}), stage=STAGE, on=name)
    if stays:
        yield _wiping(name, node.address, frozenset({f"leave/{name}"}))


def _wiping(name: str, address: str, after: frozenset[str]) -> Action:
    reason = "what is left of K3s on its disk must not come back"
    values = {"address": address} if address else {}
    return Action(Verb.DELETE, f"wipe/{name}", reason, after, stage=STAGE, on=name, values=values)


def _holds_old_data(config: ClusterConfig, facts: K3sFacts, name: str) -> bool:
    node = next((one for one in config.nodes if one.name == name and not one.made), None)
    return node is not None and holds_data(facts.host(name), node) is not False


def destroy_plan(config: ClusterConfig, hosts: Mapping[str, Reading[HostFacts]]) -> tuple[list[Action], list[str]]:
    """Wipes the hosts that fo has not made and that carry K3s; with a sentence for each that cannot be seen."""
    actions, silent = [], []
    for node in [one for one in config.nodes if not one.made]:
        match hosts.get(node.name, Unreadable("it was not looked at")):
            case Present(host):
                unit = host.unit(files.unit_name(node))
                if holds_data(Present(host), node) is not False or not isinstance(unit, Absent):
                    actions.append(_wiping(node.name, "", frozenset()))
            case Unreadable(why):
                silent.append(f"whatever K3s has on {node.name}, which cannot be read ({why})")
    return actions, silent


def is_existing(config: ClusterConfig, name: str, node: NodeFact) -> bool:
    """Whether the node's host was there before fo; of a node that the env file names no more, by its system UUID."""
    for one in config.nodes:
        if one.name == name:
            return not one.made
    return node.uuid != str(identity(config.name, name))


def leaving_hosts(config: ClusterConfig, facts: K3sFacts, permits: Permits) -> list[str]:
    """Nodes on hosts that fo has not made, which may leave the cluster now: to come back empty, or for good."""
    known = facts.nodes.value if isinstance(facts.nodes, Present) else {}
    again = [node.name for node in config.nodes if not node.made and node.name in permits.replace]
    gone = [name for name in former(config, facts) if name in permits.remove]
    return [*(name for name in again if name in known or _holds_old_data(config, facts, name)), *gone]


def former(config: ClusterConfig, facts: K3sFacts) -> list[str]:
    """Nodes on hosts that fo has not made, which fo brought into the cluster and the env file names no more."""
    known = facts.nodes.value if isinstance(facts.nodes, Present) else {}
    named = {node.name for node in config.nodes}
    return sorted(
        name
        for name, node in known.items()
        if name not in named and node.fingerprint and is_existing(config, name, node)
    )


def former_node(config: ClusterConfig, name: str, address: str, *, made: bool) -> Node:
    """A node that the env file names no more, as far as it takes to reach its host."""
    role = NodeRole.CONTROLLER if is_controller(config, name) else NodeRole.WORKER
    own = identity(config.name, name)
    return Node(name, role, 0, IPv4Address(address), "", 0, 0, 0, own, made=made)


def problems(
    config: ClusterConfig, facts: K3sFacts, restarting: Sequence[str], leaving: Sequence[str]
) -> Iterator[errors.FoError]:
    """Why nothing may be restarted or deleted now."""
    going = [*restarting, *leaving]
    if not going or cluster_exists(config, facts) is False:
        return
    if isinstance(facts.nodes, Unreadable):
        yield errors.UnreachableError(
            f"{going[0]} cannot be drained: {facts.nodes.why}", fix="Mend the cluster first, or leave the option out."
        )
    elif isinstance(facts.nodes, Absent):
        yield errors.PreflightError(
            f"{going[0]} cannot be drained without a kubeconfig", fix="Run fo bootstrap without the option first."
        )
    elif set(leaving) >= {node.name for node in config.controllers}:
        yield errors.PreflightError(
            f"{leaving[0]} is the only controller: with it the cluster itself would be gone",
            fix="To begin anew: fo destroy. To keep what the cluster holds: fo k3s snapshot save, then rebuild the "
            "machine, then fo k3s restore.",
        )
    elif controllers := [name for name in going if is_controller(config, name)]:
        others = [n.name for n in config.controllers if n.name not in leaving]
        for name in [other for other in others if other not in controllers or len(others) > 1]:
            if lacks(config, name, facts.nodes.value.get(name), facts.host(name)):
                yield errors.PreflightError(
                    f"{controllers[0]} must stay: {name} is no Ready member of etcd, and the quorum would be at risk",
                    fix="Mend that controller first (fo plan says what it lacks).",
                )


def is_controller(config: ClusterConfig, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(config.name)}-c[0-9]+", name) is not None


def lacks(config: ClusterConfig, name: str, node: NodeFact | None, host: Reading[HostFacts]) -> str:
    """What ``name`` lacks to carry load and to vote; empty when it does both.

    A Node alone does not tell: for about 40 s after its machine lost its power it is still called Ready
    (kube-controller-manager, --node-monitor-grace-period). So its kubelet must have reported since the host booted.
    """
    if node is None:
        return "it has no Node"
    if not node.ready:
        return node.said or "it is not Ready"
    match host:
        case Unreadable(why):
            return f"it does not answer ({why})"
        case Absent():
            return "its machine is not there"
        case Present(seen) if not node.boot_id or seen.boot_id.lower() != node.boot_id:
            return "its kubelet has not reported since it booted"
    return "it does not vote in etcd yet" if is_controller(config, name) and not node.voter else ""
