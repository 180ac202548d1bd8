"""Carries out the stage's actions: files, unit, start, and the climb until the node is Ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from funoffshore import clock, errors, kubeconfig
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import access, files, graph, kube_vip, leave, look
from funoffshore.stages.k3s.facts import K3sFacts, Role, holds_data, role_of, unreadable
from funoffshore.stages.k3s.graph import Kind
from funoffshore.stages.k3s.ladder import Ladder
from funoffshore.world import supervisor
from funoffshore.world.ssh import FileWrite, HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

ROOM = 1 << 30
"""Bytes that K3s needs free at the very least: its binary unpacks to about 270 MB."""
SKEW = 300.0
"""Seconds a host's clock may be off; certificates are dated one hour back, tokens and leases are not."""
READABLE = 600.0
"""Seconds to wait for hosts that must be seen before anything is decided."""


def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One action of the plan. Raises one of ``errors``; doing it again after any failure is safe."""
    if action.key == "kubeconfig":
        return _kubeconfig(world, config, step)
    if not action.key.startswith("k3s/"):
        return leave.apply(world, config, action, step)
    node = config.node(action.key.removeprefix("k3s/"))
    host = _host(world, node)
    if action.reason == graph.FOUNDS and not holds_data(Present(host), node):
        return _found(world, config, node, host, step)
    if action.verb is Verb.CREATE and action.reason != graph.FOUNDS and holds_data(Present(host), node) is False:
        return _join(world, config, node, host, step)
    facts = _settled(world, config, node, step)
    need = graph.need_of(config, facts, node)
    fresh = facts.host(node.name)
    if need is None or not isinstance(fresh, Present):
        return None
    if why := graph.blocked(config, node, fresh.value):
        raise errors.PreflightError(
            f"K3s on {node.name} is left alone: {why}", fix="put the old value back into the env file"
        )
    step.say(need.reason)
    return _do(world, config, facts, node, need, step)


def _do(world: World, config: ClusterConfig, facts: K3sFacts, node: Node, need: graph.Need, step: Step) -> None:
    reading = facts.host(node.name)
    if not isinstance(reading, Present):
        raise errors.UnreachableError(f"{node.name} cannot be read any more", fix="run fo bootstrap again")
    host = reading.value
    match need.kind:
        case Kind.FOUND:
            _found(world, config, node, host, step)
        case Kind.JOIN:
            _join(world, config, node, host, step)
        case Kind.START | Kind.RESTART:
            _again(world, config, facts, node, host, need.kind, step)
        case Kind.WAIT | Kind.UNKNOWN:
            _climb(world, config, Ladder(world, config, node, step, ()), node)


def _found(world: World, config: ClusterConfig, node: Node, host: HostFacts, step: Step) -> None:
    """Begins the cluster. Looks once more for one, as nothing undoes a second."""
    for other in config.controllers:
        if other != node and holds_data(world.hosts.observe(other), other):
            raise errors.PreflightError(
                f"{other.name} holds a cluster, so {node.name} must not found another", fix="run fo bootstrap again"
            )
    vip = str(config.network.vip)
    if isinstance(supervisor.Supervisor(config).ping(vip), Present):
        raise errors.PreflightError(
            f"a Kubernetes server already answers on the VIP {vip}, although no controller holds a cluster",
            fix="free that address, or give the cluster another VIP",
        )
    _check(config, node, host)
    ladder = Ladder(world, config, node, step)
    _put(world, config, node, files.entry_keys(config, files.Entry(Role.FOUND)), ladder)
    _climb(world, config, ladder, node)


def _join(world: World, config: ClusterConfig, node: Node, host: HostFacts, step: Step) -> None:
    _check(config, node, host)
    ca_hash = access.cluster_hash(world, config, but=node)
    ladder = Ladder(world, config, node, step)
    _forget(world, config, node, ca_hash, step)
    _put(world, config, node, files.entry_keys(config, files.Entry(Role.JOIN, _token(config, node, ca_hash))), ladder)
    _climb(world, config, ladder, node, ca_hash)


def _again(
    world: World, config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts, kind: Kind, step: Step
) -> None:
    """Files as they shall be, then the unit anew; a server only while all the others hold the quorum."""
    _check(config, node, host)
    ladder = Ladder(world, config, node, step)
    if kind is Kind.RESTART and node.role is NodeRole.CONTROLLER:
        _others_hold(world, config, node, step)
    there = graph.read_settings(host.file(files.CONFIG)) or {}
    entry: dict[str, Any] = {key: value for key, value in there.items() if key in files.ENTRY}
    if not graph.entry_is_good(config, facts, node, entry):
        own = look.token_hash(world, config, node) if node.role is NodeRole.CONTROLLER else Absent()
        ca_hash = own.value if isinstance(own, Present) else access.cluster_hash(world, config)
        entry = files.entry_keys(config, files.Entry(Role.JOIN, _token(config, node, ca_hash)))
    forgotten = isinstance(facts.nodes, Present) and facts.node(node.name) is None
    _put(world, config, node, entry, ladder, rejoin=forgotten and node.role is NodeRole.WORKER)
    _climb(world, config, ladder, node)


def _put(
    world: World, config: ClusterConfig, node: Node, entry: dict[str, Any], ladder: Ladder, *, rejoin: bool = False
) -> None:
    """Writes everything and (re)starts the unit without waiting for it."""
    unit = files.unit_name(node)
    ladder.before = tuple(ladder.journal())
    writes = [
        FileWrite(files.CONFIG, SecretStr(files.config_yaml(config, node, entry)), 0o600),
        FileWrite(files.unit_path(node), files.unit(node).encode(), 0o644),
    ]
    if node.role is NodeRole.CONTROLLER:
        writes.append(FileWrite(files.MANIFEST, kube_vip.manifest(config).encode(), 0o600))
    units: list[dict[str, Any]] = [{"name": unit, "action": "enable"}]
    request: dict[str, Any] = {
        "write": [write.request() for write in writes],
        "download": [
            {"path": files.BINARY, "url": files.download_url(config), "sha256": config.k3s.sha256, "mode": "0755"}
        ],
    }
    if rejoin:
        # An agent with certificates of a Node that was deleted never gets in again (recorded from a real run).
        world.hosts.change(node, {"units": [{"name": unit, "action": "stop"}]})
        agent = "/var/lib/rancher/k3s/agent"
        request["remove"] = [f"{agent}/client-kubelet.crt", f"{agent}/client-kubelet.key"]
    request["units"] = [*units, {"name": unit, "action": "restart", "no_block": True}]
    ladder.step.say(f"fetching K3s {config.k3s.version}, writing its settings, starting {unit}")
    world.hosts.change(node, request, deadline=900)


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


def _forget(world: World, config: ClusterConfig, node: Node, ca_hash: str, step: Step) -> None:
    """Deletes the Node of an earlier machine of that name: it holds the etcd member and the node's password."""
    with access.api_of_cluster(world, config, ca_hash) as api:
        nodes = look.node_facts(api.list("v1/Node"))
        if isinstance(nodes, Unreadable):
            raise errors.UnreachableError(f"whether {node.name} was in the cluster before cannot be told: {nodes.why}")
        old = nodes.value.get(node.name) if isinstance(nodes, Present) else None
        if old is None:
            return
        if old.uuid and old.uuid != str(node.identity):
            raise errors.ForeignError(
                f"the cluster's Node {node.name} is another machine than ours (system UUID {old.uuid})",
                fix=f"delete it by hand (kubectl delete node {node.name}) if it is gone for good",
            )
        step.say("the cluster forgets the earlier machine of that name")
        api.delete("v1/Node", "", node.name)

        def gone() -> clock.Done[None] | clock.Pending:
            left = look.node_facts(api.list("v1/Node"))
            if isinstance(left, Present) and node.name not in left.value:
                return clock.Done(None)
            return clock.Pending(left.why if isinstance(left, Unreadable) else "it is still there")

        clock.wait(world.clock, f"the cluster to forget {node.name}", gone, deadline=120, say=step.say)


def _others_hold(world: World, config: ClusterConfig, node: Node, step: Step) -> None:
    """Waits until every other server is Ready and votes: restarting this one must not cost the quorum."""
    if len(config.controllers) == 1:
        return
    others = [n.name for n in config.controllers if n != node]

    def held() -> clock.Done[None] | clock.Pending:
        step.checkpoint()
        match look.node_facts(world.kube.list("v1/Node")):
            case Present(nodes):
                down = [n for n in others if n not in nodes or not nodes[n].ready or not nodes[n].voter]
                return clock.Pending(f"{', '.join(down)} not Ready and voting") if down else clock.Done(None)
            case Unreadable(why):
                return clock.Pending(why)
        return clock.Pending("there is no kubeconfig")

    clock.wait(
        world.clock, f"the other servers to hold the quorum while {node.name} restarts", held, deadline=300,
        say=step.say, fix="bring the other servers up first; nothing was changed",
    )  # fmt: skip


def _settled(world: World, config: ClusterConfig, node: Node, step: Step) -> K3sFacts:
    """Facts that settle the role of ``node``. Raises UnreachableError when a host that decides stays unreadable."""
    asked = list(dict.fromkeys((node, *config.controllers)))
    facts: list[K3sFacts] = []

    def look_at_all() -> clock.Done[K3sFacts] | clock.Pending:
        step.checkpoint()
        facts[:] = [look.observe(world, config, world.hosts.observe_all(asked))]
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


def _host(world: World, node: Node) -> HostFacts:
    match world.hosts.observe(node):
        case Present(host):
            return host
        case Unreadable(why):
            raise errors.UnreachableError(f"{node.name} cannot be read: {why}", fix="bring the host back")
    raise errors.UnreachableError(f"{node.name} is not there", fix="run fo bootstrap again")


def _check(config: ClusterConfig, node: Node, host: HostFacts) -> None:
    """What K3s cannot live with. Raises ForeignError, PreflightError before anything is written."""
    if host.uuid and host.uuid != str(node.identity):
        raise errors.ForeignError(
            f"{node.address} is not {node.name}: its system UUID is {host.uuid}, not {node.identity}",
            fix="another machine answers on that address; find it before anything else",
        )
    if not host.cgroup2 and not files.takes_cgroup1(config):
        raise errors.PreflightError(
            f"{node.name} has no cgroup v2, which the kubelet needs",
            fix="use another image, or let the kubelet take it: K3S_EXTRA_CONFIG=kubelet-arg=fail-cgroupv1=false",
        )
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


def _kubeconfig(world: World, config: ClusterConfig, step: Step) -> None:
    """Fetches, rewrites, writes and proves the kubeconfig. Raises StateError, TrustError, UnreachableError."""
    kept = kubeconfig.read(config.kubeconfig)
    if isinstance(kept, Unreadable):
        raise errors.StateError(
            f"the kubeconfig cannot be read: {kept.why}", fix="move that file away and run fo bootstrap again"
        )
    ca_hash = access.cluster_hash(world, config)
    vip = f"https://{config.network.vip}:6443"
    said: list[errors.FoError] = []
    for node in config.controllers:
        try:
            text = access.admin_text(world, config, node, ca_hash)
        except errors.UnreachableError as why:
            said.append(why)
            continue
        kubeconfig.write(config.kubeconfig, kubeconfig.rewritten(text, name=config.name, server=vip))
        return _prove(world, step)
    raise said[0]


def _prove(world: World, step: Step) -> None:
    def ready() -> clock.Done[str] | clock.Pending:
        step.checkpoint()
        match world.kube.readyz():
            case Present(said):
                return clock.Done(said)
            case Unreadable(why):
                return clock.Pending(why)
        return clock.Pending("it is not there")

    clock.wait(world.clock, "the kubeconfig to open the API", ready, deadline=180, interval=1, say=step.say)
