"""Carries out the stage's actions: files, unit, start, and the climb until the node is Ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from funoffshore import clock, errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.plan import NONE, Action, Permits, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import (
    access,
    admin,
    differences,
    drain,
    files,
    graph,
    look,
    placing,
    quorum,
    snapshots,
    sources,
    strangers,
)
from funoffshore.stages.k3s.classes import ENTRY
from funoffshore.stages.k3s.facts import K3sFacts, Role, holds_data, role_of, unreadable
from funoffshore.stages.k3s.graph import Kind
from funoffshore.stages.k3s.ladder import Ladder
from funoffshore.world import supervisor
from funoffshore.world.ssh import HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

ROOM = 1 << 30
"""Bytes that K3s needs free at the very least: its binary unpacks to about 270 MB."""
SKEW = 300.0
"""Seconds a host's clock may be off; certificates are dated one hour back, tokens and leases are not."""
READABLE = 600.0
"""Seconds to wait for hosts that must be seen before anything is decided."""


def apply(world: World, config: ClusterConfig, action: Action, step: Step, permits: Permits = NONE) -> None:
    """One action of the plan. Raises one of ``errors``; doing it again after any failure is safe."""
    kind, _, name = action.key.partition("/")
    if action.key == "kubeconfig":
        return admin.fetch(world, config, step)
    if kind == "trust":
        return strangers.accept(world, config, name, step)
    if kind == "snapshot":
        return snapshots.save_off_box(world, config, name, step)
    if kind != "k3s":
        return drain.apply(world, config, action, step)
    node = config.node(name)
    host = _host(world, config, node)
    if action.reason == graph.FOUNDS and not holds_data(Present(host), node):
        return _found(world, config, node, host, step)
    if action.verb is Verb.CREATE and action.reason != graph.FOUNDS and holds_data(Present(host), node) is False:
        return _join(world, config, node, host, step)
    facts = _settled(world, config, node, step)
    need = graph.need_of(config, facts, node, permits.upgrade)
    fresh = facts.host(node.name)
    if need is None or not isinstance(fresh, Present):
        return None
    if why := differences.blocked(config, facts, node, fresh.value):
        raise errors.PreflightError(f"K3s on {node.name} is left alone: {why}", fix=differences.BLOCKED_FIX)
    step.say(need.reason)
    return _do(world, config, facts, node, need, step)


def _do(world: World, config: ClusterConfig, facts: K3sFacts, node: Node, need: graph.Need, step: Step) -> None:
    reading = facts.host(node.name)
    if not isinstance(reading, Present):
        raise errors.UnreachableError(f"{node.name} cannot be read any more", fix="run fo bootstrap again")
    host = reading.value
    if need.kind not in (Kind.FOUND, Kind.JOIN):
        _refuse_other_cluster(world, config, facts, node)
    match need.kind:
        case Kind.FOUND:
            _found(world, config, node, host, step)
        case Kind.JOIN:
            _join(world, config, node, host, step)
        case Kind.START | Kind.RESTART | Kind.UPGRADE:
            _again(world, config, facts, node, host, need.kind, step)
        case Kind.LIVE:
            placing.live(world, config, node, _entry(world, config, facts, node, host), step)
        case Kind.WAIT | Kind.UNKNOWN:
            _climb(world, config, Ladder(world, config, node, step, (), _release(config, host)), node)


def _refuse_other_cluster(world: World, config: ClusterConfig, facts: K3sFacts, node: Node) -> None:
    """A server's data may be another cluster's, with the same token: started, it would be a second one and fight for
    the VIP. Raises ForeignError; RefusedError for data with another token, UnreachableError when it cannot be told."""
    known = differences.known_authority(facts)
    if node.role is not NodeRole.CONTROLLER or not known:
        return
    own = look.token_hash(world, config, node)
    if isinstance(own, Unreadable):
        raise errors.UnreachableError(
            f"whose cluster the K3s data on {node.name} is cannot be told: {own.why}", fix="mend that host first"
        )
    if isinstance(own, Present) and own.value != known:
        raise errors.ForeignError(
            f"the K3s data on {node.name} is of another cluster (authority {own.value[:12]}…) than this one "
            f"({known[:12]}…)",
            fix=f"if that data may go: fo k3s replace {node.name} -c {config.name}, or install the host anew",
        )


def _release(config: ClusterConfig, host: HostFacts) -> str:
    """What the binary on the host is; a node keeps it until an upgrade."""
    return host.k3s_version or config.k3s.version


def _found(world: World, config: ClusterConfig, node: Node, host: HostFacts, step: Step) -> None:
    """Begins the cluster. Looks once more for one, as nothing undoes a second."""
    for other in config.controllers:
        if other != node and holds_data(world.hosts.observe(other), other):
            raise errors.PreflightError(
                f"{other.name} holds a cluster, so {node.name} must not found another", fix="run fo bootstrap again"
            )
    vip = str(config.network.vip)
    if isinstance(supervisor.Supervisor(config, world.routes).ping(vip), Present):
        raise errors.PreflightError(
            f"a Kubernetes server already answers on {vip}, although no controller holds a cluster",
            fix="free that address, or give the cluster another VIP",
        )
    _check(config, node, host)
    ladder = Ladder(world, config, node, step)
    placing.put(world, config, node, host, files.entry_keys(config, files.Entry(Role.FOUND)), ladder)
    _climb(world, config, ladder, node)
    placing.only_files(world, config, node, _joining(world, config, node))


def _join(world: World, config: ClusterConfig, node: Node, host: HostFacts, step: Step) -> None:
    _check(config, node, host)
    ca_hash = access.cluster_hash(world, config, but=node)
    ladder = Ladder(world, config, node, step)
    _forget(world, config, node, host, ca_hash, step)
    entry = files.entry_keys(config, files.Entry(Role.JOIN, _token(config, node, ca_hash)))
    # An agent that is looping already may have got its certificates a moment ago, and its Node not yet.
    placing.put(world, config, node, host, entry, ladder, rejoin=node.role is NodeRole.WORKER)
    _climb(world, config, ladder, node, ca_hash)


def _again(
    world: World, config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts, kind: Kind, step: Step
) -> None:
    """Files as they shall be, then the unit anew; a server only while all the others hold the quorum, and with a
    snapshot to go back to."""
    _check(config, node, host)
    keeps = kind is not Kind.UPGRADE and placing.keeps_binary(config, host)
    ladder = Ladder(world, config, node, step, (), _release(config, host) if keeps else "")
    if kind is not Kind.START and node.role is NodeRole.CONTROLLER:
        quorum.others_hold(world, config, node, step)
        snapshots.ensure_fresh(world, config, step)
    entry = _entry(world, config, facts, node, host)
    forgotten = isinstance(facts.nodes, Present) and facts.node(node.name) is None
    rejoin = forgotten and node.role is NodeRole.WORKER
    placing.put(world, config, node, host, entry, ladder, rejoin=rejoin, binary=not keeps)
    _climb(world, config, ladder, node)


def _entry(world: World, config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> dict[str, Any]:
    """How ``node``, which is in the cluster, would come in again: by its own keys, or as one that joins. The founder,
    too: with an empty disk it must find no other cluster but this one, and never begin a second."""
    there = differences.read_settings(host.file(files.CONFIG)) or {}
    entry = {key: value for key, value in there.items() if key in ENTRY}
    if differences.entry_is_good(config, facts, node, entry) and not differences.founds(entry):
        return entry
    return _joining(world, config, node)


def _joining(world: World, config: ClusterConfig, node: Node) -> dict[str, Any]:
    own = look.token_hash(world, config, node) if node.role is NodeRole.CONTROLLER else Absent()
    ca_hash = own.value if isinstance(own, Present) else access.cluster_hash(world, config)
    return files.entry_keys(config, files.Entry(Role.JOIN, _token(config, node, ca_hash)))


def _climb(world: World, config: ClusterConfig, ladder: Ladder, node: Node, ca_hash: str = "") -> None:
    if node.role is NodeRole.WORKER:
        return ladder.climb_agent(ca_hash or access.cluster_hash(world, config))

    def own_hash() -> str:
        match look.token_hash(world, config, node):
            case Present(found):
                return found
            case Unreadable(why):
                raise errors.UnreachableError(f"the token of {node.name} cannot be read: {why}")
        raise errors.TaskFailedError(f"K3s on {node.name} is up without a token file", fix="look at its journal")

    return ladder.climb_server(own_hash)


def _token(config: ClusterConfig, node: Node, ca_hash: str) -> str:
    if node.role is NodeRole.CONTROLLER:
        return f"K10{ca_hash}::server:{config.k3s.token.get_secret_value()}"
    return f"K10{ca_hash}::node:{config.k3s.agent_token.get_secret_value()}"


def _forget(world: World, config: ClusterConfig, node: Node, host: HostFacts, ca_hash: str, step: Step) -> None:
    """Deletes the Node of an earlier machine of that name: it holds the etcd member and the node's password."""
    with access.api_of_cluster(world, config, ca_hash) as api:
        nodes = look.node_facts(api.list("v1/Node"))
        if isinstance(nodes, Unreadable):
            raise errors.UnreachableError(f"whether {node.name} was in the cluster before cannot be told: {nodes.why}")
        old = nodes.value.get(node.name) if isinstance(nodes, Present) else None
        if old is None:
            return
        own = str(node.identity) if node.made else host.uuid
        if old.uuid and own and old.uuid != own:
            raise errors.ForeignError(
                f"the cluster's Node {node.name} is another machine than this one (system UUID {old.uuid})",
                fix=f"if that machine is gone for good: fo k3s replace {node.name} -c {config.name}",
            )
        step.say("the cluster forgets the earlier machine of that name")
        api.delete("v1/Node", "", node.name)

        def gone() -> clock.Done[None] | clock.Pending:
            left = look.node_facts(api.list("v1/Node"))
            if isinstance(left, Present) and node.name not in left.value:
                return clock.Done(None)
            return clock.Pending(left.why if isinstance(left, Unreadable) else "it is still there")

        clock.wait(world.clock, f"the cluster to forget {node.name}", gone, deadline=120, say=step.say)


def _settled(world: World, config: ClusterConfig, node: Node, step: Step) -> K3sFacts:
    """Facts that settle the role of ``node``. Raises UnreachableError when a host that decides stays unreadable."""
    asked = list(dict.fromkeys((node, *config.controllers)))
    facts: list[K3sFacts] = []

    def look_at_all() -> clock.Done[K3sFacts] | clock.Pending:
        step.checkpoint()
        facts[:] = [look.observe(world, config, world.hosts.observe_all(asked, look.look_of(config)))]
        if role_of(config, facts[0], node) is not Role.UNKNOWN:
            return clock.Done(facts[0])
        return clock.Pending(unreadable(config, facts[0], asked))

    try:
        return clock.wait(
            world.clock,
            f"the hosts that decide about {node.name} to be readable",
            look_at_all,
            deadline=READABLE,
            interval=5,
            say=step.say,
        )
    except errors.DeadlineError as why:
        raise errors.UnreachableError(
            why.message, fix="bring that host back, or destroy its machine; fo never founds a cluster on a guess"
        ) from None


def _host(world: World, config: ClusterConfig, node: Node) -> HostFacts:
    match world.hosts.observe(node, look.look_of(config)):
        case Present(host):
            return host
        case Unreadable(why):
            raise errors.UnreachableError(f"{node.name} cannot be read: {why}", fix="bring the host back")
    raise errors.UnreachableError(f"{node.name} is not there", fix="run fo bootstrap again")


def _check(config: ClusterConfig, node: Node, host: HostFacts) -> None:
    """What K3s cannot live with. Raises ForeignError, PreflightError before anything is written."""
    if node.made and host.uuid and host.uuid != str(node.identity):
        raise errors.ForeignError(
            f"{node.address} is not {node.name}: its system UUID is {host.uuid}, not {node.identity}",
            fix="another machine answers on that address; find it before anything else",
        )
    if not host.cgroup2 and not files.takes_cgroup1(config):
        raise errors.PreflightError(
            f"{node.name} has no cgroup v2, which the kubelet needs",
            fix="use another image, or let the kubelet take it: K3S_EXTRA_CONFIG=kubelet-arg=fail-cgroupv1=false",
        )
    if problem := sources.problem(config, node, host):
        raise problem
    if abs(host.clock_skew) > SKEW:
        raise errors.PreflightError(
            f"the clock of {node.name} is {host.clock_skew:+.0f} s off", fix="set up NTP on the hosts"
        )
    space = host.space.get("/var/lib/rancher/k3s")
    if isinstance(space, Present) and space.value.bytes < ROOM:
        raise errors.PreflightError(
            f"{node.name} has {space.value.bytes >> 20} MiB free for K3s, which needs {ROOM >> 20}",
            fix="give the machine a bigger disk",
        )
