"""Becoming and staying a member of etcd: quorum, promotion, peers that do not answer.

Waiting and its words: K3s repository, ``pkg/etcd/etcd.go`` (join, manageLearners, trackLearnerProgress).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.k3s import log, troubles

if TYPE_CHECKING:
    from funoffshore.lab.k3s.server import Server

CLIENTS, PEERS = 2379, 2380
STALLED = 300.0
"""Seconds without progress after which the leader removes a learner (``learnerMaxStallTime``)."""
PACE = 5.0
REMOVED = "this server has been removed from the cluster, its etcd member is gone"


def check_clients(server: Server) -> None:
    """Raises Shutdown where a joiner does not get at the members' client port."""
    others = [m for n, m in server.plane.members.items() if n != server.node]
    if others and all(circumstances.blocked(server.machine, m["address"], CLIENTS) for m in others):
        raise log.Shutdown("etcd cluster join failed: context deadline exceeded")


def await_quorum(server: Server) -> None:
    """Returns once a majority of voters is up that this member can talk to."""
    plane, waited = server.plane, 0.0
    while True:
        if _is_removed(server):
            raise log.Shutdown(REMOVED)
        with plane.lock:
            server.check()
            if plane.quorate() and not isolated(server):
                return
            plane.changed.wait(0.2)
        waited += 0.2 * server.kit.clock.speed
        if waited >= PACE and not server.resumed:
            waited = 0.0
            _complain(server)


def _is_removed(server: Server) -> bool:
    """Whether a member that is up tells it that it is none any more, as after a reset without a snapshot."""
    successor = server.planes.get(server.plane.superseded) if server.plane.removed else None
    return successor is not None and bool(successor.servers)


def isolated(server: Server) -> bool:
    """Whether so many of the other voters are cut off from a voter that it has no quorum of its own."""
    if not server.plane.etcd or not server.plane.members.get(server.node, {}).get("voter"):
        return False
    voters = {n: m for n, m in server.plane.members.items() if m["voter"] and n != server.node}
    cut = [n for n in voters if n in server.plane.servers and _cut_off(server, server.plane.servers[n])]
    up = [n for n in voters if n in server.plane.servers and n not in cut]
    return bool(cut) and (len(up) + 1) * 2 <= len(voters) + 1


def _cut_off(one: Server, other: Server) -> bool:
    """etcd's peers talk both ways; with one way blocked, no stream comes about."""
    return circumstances.blocked(one.machine, other.address, PEERS) or circumstances.blocked(
        other.machine, one.address, PEERS
    )


def _complain(server: Server) -> None:
    if server.plane.superseded:
        # A restored cluster has another ID; what is left of the old one is not heard there.
        ids = {"local-member-id": _number(server.node), "local-member-cluster-id": _number(server.plane.identity)}
        text = "request sent was ignored by remote peer due to cluster ID mismatch"
        line = troubles.zap(
            server.kit.clock.now(), "warn", "rafthttp/stream.go:653", text,
            **ids, error="cluster ID mismatch",
        )  # fmt: skip
        server.machine.journal(server.unit, line)
    why = "failed to get etcd status: rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    server.say("info", f"Failed to test etcd connection: {why}")
    probe(server)


def _number(name: str) -> str:
    """Sixteen hex digits, as etcd shows members and clusters."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def probe(server: Server) -> None:
    """What etcd says of peers that it does not reach, and of clocks that differ."""
    if not server.plane.etcd:
        return
    for name, other in list(server.plane.servers.items()):
        if other is server:
            continue
        if _cut_off(server, other):
            server.machine.journal(server.unit, troubles.unreachable(server, other.address, _number(name)))
        for line in troubles.drift(server, _number(name)):
            server.machine.journal(server.unit, line)


def await_promotion(server: Server) -> None:
    """Returns once the learner has caught up; without progress it is removed in the end, and the process with it."""
    plane = server.plane
    if server.resumed or not plane.etcd or plane.members[server.node]["voter"]:
        return
    waited = 0.0
    while _is_stuck(server):
        text = "this server has not yet been promoted from learner to voting member"
        server.say("info", f"Failed to test etcd connection: {text}")
        _leader_says(server, f"stalled at RaftAppliedIndex=0 for {int(waited)}s" if waited else "")
        probe(server)
        server.pause(PACE)
        waited += PACE
        if waited >= STALLED:
            _evict(server)


def _is_stuck(server: Server) -> bool:
    voters = [s for n, s in server.plane.servers.items() if n != server.node and server.plane.members[n]["voter"]]
    cut = bool(voters) and all(_cut_off(server, other) for other in voters)
    return cut or server.kit.faults.hits("learner-stuck", node=server.machine.name)


def _leader_says(server: Server, what: str) -> None:
    plane = server.plane
    leader = next((s for n, s in sorted(plane.servers.items()) if plane.members.get(n, {}).get("voter")), None)
    if leader is not None and what:
        leader.say("warning", f"Learner {plane.members[server.node]['etcd_name']} {what}")


def _evict(server: Server) -> None:
    plane = server.plane
    with plane.lock:
        member = plane.members.get(server.node)
        leader = next((s for n, s in sorted(plane.servers.items()) if plane.members.get(n, {}).get("voter")), None)
        plane.forget_member(server.node)
    if leader is not None and member is not None:
        leader.say("warning", f"Removed learner {member['etcd_name']} from etcd cluster")
    raise log.Shutdown("etcd member has been removed from the cluster")
