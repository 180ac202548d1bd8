"""Nodes, etcd and the API server."""

from __future__ import annotations

from funoffshore import health
from funoffshore.checks.base import NODE, Answer, Check, Object, Sight, failed, passed, unknown, warned
from funoffshore.checks.hosts import Tally
from funoffshore.reading import Absent, Present, Unreadable


def _nodes(sight: Sight) -> list[Object] | Answer:
    match sight.list(NODE):
        case Present(nodes):
            return nodes
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return unknown("the cluster does not know nodes")


def _by_name(nodes: list[Object]) -> dict[str, Object]:
    return {n["metadata"]["name"]: n for n in nodes}


def _condition(node: Object, kind: str) -> Object:
    found = [c for c in node.get("status", {}).get("conditions", []) if c.get("type") == kind]
    return found[0] if found else {}


def api(sight: Sight) -> Answer:
    """The API server says through the VIP that all its parts are ready, etcd among them."""
    match sight.world.kube.readyz():
        case Present(said):
            return passed(f"https://{sight.config.api}:6443/readyz answers {said.strip().splitlines()[-1]}")
        case Absent():
            return failed("there is no cluster: fo has no kubeconfig for it", fix="fo bootstrap")
        case Unreadable(why):
            return unknown(why)


def all_there(sight: Sight) -> Answer:
    """The cluster's nodes are exactly the configured ones."""
    nodes = _nodes(sight)
    if isinstance(nodes, tuple):
        return nodes
    seen, wanted = set(_by_name(nodes)), {n.name for n in sight.config.nodes}
    if missing := sorted(wanted - seen):
        return failed(f"{len(missing)} nodes have not joined", *missing, fix="fo bootstrap")
    if strangers := sorted(seen - wanted):
        return warned("nodes that are not in the env file are in the cluster", *strangers)
    return passed(f"all {len(wanted)} nodes have joined")


def all_ready(sight: Sight) -> Answer:
    """Every node is Ready, without pressure and not cordoned."""
    nodes = _nodes(sight)
    if isinstance(nodes, tuple):
        return nodes
    bad = []
    for node in nodes:
        state = health.assess(node)
        if state.state is not health.State.READY:
            bad.append(f"{node['metadata']['name']}: {state.reason} {state.message}".strip())
    if bad:
        return failed(f"{len(bad)} of {len(nodes)} nodes are not healthy", *bad)
    return passed(f"all {len(nodes)} nodes are Ready") if nodes else failed("the cluster has no nodes")


def version(sight: Sight) -> Answer:
    """Every node runs the pinned version."""
    nodes = _nodes(sight)
    if isinstance(nodes, tuple):
        return nodes
    pin = sight.config.k3s.version
    others = [
        f"{name}: {seen}"
        for name, node in _by_name(nodes).items()
        if (seen := node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion")) != pin
    ]
    return failed(f"not every node runs {pin}", *others, fix="fo k3s upgrade") if others else passed(f"all run {pin}")


def identity(sight: Sight) -> Answer:
    """The machine behind each node is the one of the env file: the VM that fo made, by its SMBIOS UUID, or the host
    that answers at the address of one that existed before."""
    nodes = _nodes(sight)
    if isinstance(nodes, tuple):
        return nodes
    seen, tally = _by_name(nodes), Tally()
    for node in sight.config.nodes:
        if node.name not in seen:
            continue
        uuid = str(seen[node.name].get("status", {}).get("nodeInfo", {}).get("systemUUID", "")).lower()
        host = None if node.made else tally.host(node, sight.host(node))
        wanted = str(node.identity) if node.made else host.uuid if host else ""
        # A board without SMBIOS has no UUID; the kubelet takes its machine ID then.
        if wanted and uuid != wanted:
            tally.bad.append(f"{node.name}: {uuid or 'no UUID'} instead of {wanted}")
    return tally.answer("a node is not the machine of the env file", "every node is our machine")


def etcd(sight: Sight) -> Answer:
    """Every controller is a voting member of etcd."""
    nodes = _nodes(sight)
    if isinstance(nodes, tuple):
        return nodes
    seen, bad = _by_name(nodes), []
    for node in sight.config.controllers:
        condition = _condition(seen.get(node.name, {}), "EtcdIsVoter")
        if condition.get("status") != "True":
            bad.append(f"{node.name}: {condition.get('reason', 'no condition EtcdIsVoter')}")
    total = len(sight.config.controllers)
    return failed(f"{len(bad)} of {total} controllers do not vote", *bad) if bad else passed(f"{total} voting members")


CHECKS = (
    Check("FO-API-001", "the API server to be ready behind the VIP", api),
    Check("FO-NODE-001", "every configured node to join", all_there),
    Check("FO-NODE-002", "every node to be Ready", all_ready),
    Check("FO-NODE-003", "every node to run the pinned K3s", version),
    Check("FO-NODE-004", "every node to be the machine of the env file", identity),
    Check("FO-ETCD-001", "every controller to vote in etcd", etcd),
)
