"""Carries out what ``leave`` plans: drains, uncordons, lets nodes go, wipes hosts that stay behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from funoffshore import errors
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.plan import Action
from funoffshore.reading import Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import files, leave
from funoffshore.stages.k3s.facts import DRAINED, NodeFact
from funoffshore.stages.k3s.look import node_fact
from funoffshore.world.ssh import Look

if TYPE_CHECKING:
    from funoffshore.world.world import World

DATA = ("/var/lib/rancher/k3s", "/etc/rancher/node", "/var/lib/kubelet", "/var/lib/cni", "/run/k3s", "/run/flannel")
"""What K3s keeps on a host, as k3s-uninstall.sh removes it, and the node's password."""
DRAIN = 900.0
"""Seconds that the pods of one node get to leave it, PodDisruptionBudgets respected."""
MOVES = 120.0
"""Seconds that the API may be away while a server goes and the VIP moves on."""
BACK = 600.0
"""Seconds that a node gets to be Ready again after its restart."""
_UNABLE = (
    errors.UnreachableError, errors.RefusedError, errors.DeadlineError, errors.TaskFailedError, errors.TrustError,
)  # fmt: skip
"""Why a host could not be told to be silent. A host key that differs means that nothing was sent."""
_BOOT = Look(files=(), units=(), commands=(), space=(), file_systems=())
"""As little as can be asked of a host; who it is and its boot are always told."""


def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One of these actions. Doing it again after any failure is safe."""
    kind, _, name = action.key.partition("/")
    if kind == "drain":
        _drain(world, name, step)
    elif kind == "uncordon":
        _uncordon(world, config, name, step)
    elif kind == "wipe":
        _wipe(world, config, name, action, step)
    else:
        _leave(world, config, name, step)


def _leave(world: World, config: ClusterConfig, name: str, step: Step) -> None:
    """Its K3s never starts again; the Node goes, and with it, by K3s, its etcd member and its password."""
    _others_hold(world, config, name)
    seen = _node(world, name)
    if seen is None:
        return
    host = _host(config, name, seen.address, made=not leave.is_existing(config, name, seen))
    # While two members are left, the quorum needs both until the one that goes is no member any more.
    _silence(world, host, stop=host.role is NodeRole.WORKER)
    surely(world, f"the API to take that {name} goes", lambda: world.kube.delete("v1/Node", "", name), step)
    wait(world.clock, f"{name} to be forgotten", lambda: _gone(world, name), deadline=MOVES, say=step.say)
    _silence(world, host, stop=True)


def _host(config: ClusterConfig, name: str, address: str, *, made: bool) -> Node:
    known = next((node for node in config.nodes if node.name == name), None)
    return known or leave.former_node(config, name, address, made=made)


def _silence(world: World, node: Node, *, stop: bool) -> None:
    """Disables the unit, and stops it where ``stop``. A host that does not answer can start nothing either."""
    actions = [{"name": files.unit_name(node), "action": "disable"}]
    actions += [{"name": files.unit_name(node), "action": "stop"}] if stop else []
    with contextlib.suppress(*_UNABLE):
        world.hosts.change(node, {"units": actions})


def _wipe(world: World, config: ClusterConfig, name: str, action: Action, step: Step) -> None:
    """Everything of K3s but its binary leaves the host. A host that is to come back must answer for it."""
    node = _host(config, name, action.values.get("address", ""), made=False)
    unit = files.unit_name(node)
    match world.hosts.observe(node):
        case Present(host):
            remove = [files.CONFIG, files.unit_path(node)]
            request: dict[str, Any] = {"wipe": list(DATA), "remove": remove, "reload": True}
            if isinstance(host.unit(unit), Present):
                request["before"] = [{"name": unit, "action": verb} for verb in ("disable", "stop")]
            world.hosts.change(node, request, deadline=300)
        case Unreadable(why) if any(one.name == name for one in config.nodes):
            raise errors.UnreachableError(f"{name} cannot be wiped: {why}", fix="bring the host back, then try again")
        case _:
            step.say(f"{name} does not answer; what K3s left on its disk stays there")


def _others_hold(world: World, config: ClusterConfig, name: str) -> None:
    """Looks once more, right before a controller goes for good."""
    if not leave.is_controller(config, name):
        return
    for former in _former_controllers(world, config, name):
        raise errors.PreflightError(
            f"{name} was not removed: {former}, which the env file names no more either, is no Ready member of etcd",
            fix=f"Remove that one first: --remove {former}.",
        )
    for other in [node for node in config.controllers if node.name != name]:
        if leave.lacks(config, other.name, _node(world, other.name), world.hosts.observe(other, _BOOT)):
            raise errors.PreflightError(
                f"{name} was not removed: {other.name} is no Ready member of etcd at this moment",
                fix="Mend that controller, then run the same command again.",
            )


def _former_controllers(world: World, config: ClusterConfig, name: str) -> list[str]:
    """Controllers that the env file names no more and that are still, dead, in etcd; ``name`` is not among them."""
    reading = world.kube.list("v1/Node")
    if not isinstance(reading, Present):
        why = reading.why if isinstance(reading, Unreadable) else "the API knows no nodes"
        raise errors.UnreachableError(f"the nodes cannot be read: {why}", fix="run it again")
    nodes = {str(node["metadata"]["name"]): node_fact(node) for node in reading.value}
    named = {name, *(node.name for node in config.controllers)}
    others = {other: fact for other, fact in nodes.items() if leave.is_controller(config, other) and other not in named}
    return [other for other, fact in others.items() if not fact.ready or not fact.voter]


def _node(world: World, name: str) -> NodeFact | None:
    reading = world.kube.get("v1/Node", "", name)
    if isinstance(reading, Unreadable):
        raise errors.UnreachableError(f"the node {name} cannot be read: {reading.why}", fix="run it again")
    return node_fact(reading.value) if isinstance(reading, Present) else None


def _gone(world: World, name: str) -> Done[None] | Pending:
    try:
        return Done(None) if _node(world, name) is None else Pending("its Node is still there")
    except errors.UnreachableError as why:
        return Pending(why.message)


def surely(world: World, what: str, write: Callable[[], object], step: Step) -> None:
    """A write that may be done twice, repeated for two minutes while the API moves on to another server."""

    def probe() -> Done[None] | Pending:
        try:
            write()
        except errors.UnreachableError as why:
            return Pending(why.message)
        return Done(None)

    wait(world.clock, what, probe, deadline=MOVES, say=step.say)


def _drain(world: World, name: str, step: Step) -> None:
    if _node(world, name) is None:
        return
    mark = {"metadata": {"annotations": {DRAINED: "true"}}, "spec": {"unschedulable": True}}
    reading = world.kube.get("v1/Node", "", name)
    if isinstance(reading, Present) and not (reading.value.get("spec") or {}).get("unschedulable"):
        surely(world, f"the API to cordon {name}", lambda: world.kube.patch("v1/Node", "", name, mark), step)

    found_first: set[str] = set()

    def probe() -> Done[None] | Pending:
        step.checkpoint()
        try:
            pods = _leaving_pods(world, name)
            found_first.update(_uid(pod) for pod in pods if not found_first)
            # What tolerates the cordon comes back to this very node, and would be evicted for ever.
            staying = [pod for pod in pods if _uid(pod) in found_first or not _tolerates_cordon(pod)]
            node = _node(world, name)
            if node is None or not node.ready:
                # Nobody there ends what was told to go; its controller has replaced it by now.
                staying = [pod for pod in staying if not pod["metadata"].get("deletionTimestamp")]
            said = [why for pod in staying if (why := _evict(world, pod))]
        except errors.UnreachableError as why:
            return Pending(why.message)
        if not staying:
            return Done(None)
        return Pending(said[0] if said else f"{len(staying)} pods are on their way out")

    title = f"the pods of {name} to move elsewhere"
    fix = "See why they stay (kubectl get pods -A --field-selector spec.nodeName=" + name + "), then run it again."
    wait(world.clock, title, probe, deadline=DRAIN, interval=2.0, say=step.say, fix=fix)


def _leaving_pods(world: World, name: str) -> list[dict[str, Any]]:
    """Pods that have to go: not those of DaemonSets, not the kubelet's own, not what has ended."""
    reading = world.kube.list("v1/Pod")
    if not isinstance(reading, Present):
        why = reading.why if isinstance(reading, Unreadable) else "the API knows no pods"
        raise errors.UnreachableError(f"the pods of {name} cannot be read: {why}")
    pods = [pod for pod in reading.value if (pod.get("spec") or {}).get("nodeName") == name]
    return [pod for pod in pods if _must_go(pod)]


def _must_go(pod: dict[str, Any]) -> bool:
    meta = pod["metadata"]
    if "kubernetes.io/config.mirror" in (meta.get("annotations") or {}):
        return False
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    return not any(owner.get("kind") == "DaemonSet" for owner in meta.get("ownerReferences") or [])


def _uid(pod: dict[str, Any]) -> str:
    return str(pod["metadata"].get("uid"))


def _tolerates_cordon(pod: dict[str, Any]) -> bool:
    """Whether the scheduler may put it on a node that is cordoned (kubernetes, core/v1 Toleration)."""
    return any(
        toleration.get("key") in (None, "", "node.kubernetes.io/unschedulable")
        and (toleration.get("operator") == "Exists" or (toleration.get("key") and not toleration.get("value")))
        and toleration.get("effect") in (None, "", "NoSchedule")
        for toleration in (pod.get("spec") or {}).get("tolerations") or []
    )


def _evict(world: World, pod: dict[str, Any]) -> str:
    """Empty when the pod goes; else why it stays yet. Raises PreflightError for a pod that nothing would restart."""
    meta = pod["metadata"]
    if meta.get("deletionTimestamp"):
        return ""
    what = f"{meta.get('namespace')}/{meta['name']}"
    if not meta.get("ownerReferences"):
        raise errors.PreflightError(
            f"the pod {what} belongs to no controller, so it would be lost", fix="Delete it yourself if it may go."
        )
    why = world.kube.evict(str(meta.get("namespace")), str(meta["name"]))
    return f"{what} stays yet: {why}" if why else ""


def _uncordon(world: World, config: ClusterConfig, name: str, step: Step) -> None:
    def probe() -> Done[NodeFact | None] | Pending:
        step.checkpoint()
        try:
            node = _node(world, name)
        except errors.UnreachableError as why:
            return Pending(why.message)
        machine = next((one for one in config.nodes if one.name == name), None)
        if node is None or machine is None:
            return Done(node)
        lacking = leave.lacks(config, name, node, world.hosts.observe(machine, _BOOT))
        return Pending(lacking) if lacking else Done(node)

    node = wait(world.clock, f"{name} to be Ready again", probe, deadline=BACK, say=step.say)
    if node is not None and node.drained:
        undo = {"metadata": {"annotations": {DRAINED: None}}, "spec": {"unschedulable": None}}
        surely(world, f"the API to uncordon {name}", lambda: world.kube.patch("v1/Node", "", name, undo), step)
