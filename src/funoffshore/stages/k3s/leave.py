"""Nodes that go, for a moment or for good: drained first, and never where that would cost the cluster its quorum.

``plan`` and ``problems`` are pure; ``apply`` carries out ``drain/…``, ``uncordon/…`` and ``leave/…``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from funoffshore import errors
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s.facts import DRAINED, K3sFacts, NodeFact, cluster_exists
from funoffshore.stages.k3s.look import node_fact
from funoffshore.world.ssh import HostFacts, Look

if TYPE_CHECKING:
    from funoffshore.world.world import World

STAGE = "k3s"
DRAIN = 900.0
"""Seconds that the pods of one node get to leave it, PodDisruptionBudgets respected."""
BACK = 600.0
"""Seconds that a node gets to be Ready again after its restart."""
_BOOT = Look(files=(), units=(), commands=(), space=(), file_systems=())
"""As little as can be asked of a host; who it is and its boot are always told."""


def plan(config: ClusterConfig, facts: K3sFacts, restarting: Sequence[str], leaving: Sequence[str]) -> list[Action]:
    """What happens in the cluster around restarts and ends of machines, one node after another."""
    if not isinstance(facts.nodes, Present):
        return []
    known, actions = facts.nodes.value, list[Action]()
    # A server that is being restarted for its settings counts for the quorum no more than one that goes.
    before = frozenset(f"k3s/{node.name}" for node in config.controllers)
    for name in [n for n in restarting if n in known]:
        reason = "its machine is to be restarted"
        actions.append(Action(Verb.CHANGE, f"drain/{name}", reason, before, stage=STAGE, on=name))
        after = frozenset({f"restart/{name}", f"host/{name}"})
        actions.append(Action(Verb.CHANGE, f"uncordon/{name}", "it carries load again", after, stage=STAGE, on=name))
        before = frozenset({f"uncordon/{name}"})
    # Those that are dead already go first: a living member that goes before them could cost the quorum.
    for name in sorted((n for n in leaving if n in known), key=lambda n: known[n].ready):
        reason = "its machine is to be deleted"
        actions.append(Action(Verb.CHANGE, f"drain/{name}", reason, before, stage=STAGE, on=name))
        after = frozenset({f"drain/{name}"})
        actions.append(Action(Verb.DELETE, f"leave/{name}", reason, after, stage=STAGE, on=name))
        before = frozenset({f"leave/{name}", f"machine/{name}"})
    for name, node in known.items():
        if node.drained and name not in {*restarting, *leaving}:
            after = frozenset({f"host/{name}", f"k3s/{name}"})
            reason = "fo drained it for a restart that is over"
            actions.append(Action(Verb.CHANGE, f"uncordon/{name}", reason, after, stage=STAGE, on=name))
    return actions


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
    elif controllers := [name for name in going if _is_controller(config, name)]:
        others = [n.name for n in config.controllers if n.name not in leaving]
        for name in [other for other in others if other not in controllers or len(others) > 1]:
            if _lacks(config, name, facts.nodes.value.get(name), facts.host(name)):
                yield errors.PreflightError(
                    f"{controllers[0]} must stay: {name} is no Ready member of etcd, and the quorum would be at risk",
                    fix="Mend that controller first (fo plan says what it lacks).",
                )


def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One of these actions. Doing it again after any failure is safe."""
    kind, _, name = action.key.partition("/")
    if kind == "drain":
        _drain(world, name, step)
    elif kind == "uncordon":
        _uncordon(world, config, name, step)
    else:
        _others_hold(world, config, name)
        # K3s drops the etcd member and the node password together with the Node.
        world.kube.delete("v1/Node", "", name)
        wait(world.clock, f"{name} to be forgotten", lambda: _gone(world, name), deadline=120, say=step.say)


def _is_controller(config: ClusterConfig, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(config.name)}-c[0-9]+", name) is not None


def _others_hold(world: World, config: ClusterConfig, name: str) -> None:
    """Looks once more, right before a controller goes for good."""
    if not _is_controller(config, name):
        return
    for former in _former_controllers(world, config, name):
        raise errors.PreflightError(
            f"{name} was not removed: {former}, which the env file names no more either, is no Ready member of etcd",
            fix=f"Remove that one first: --remove {former}.",
        )
    for other in [node for node in config.controllers if node.name != name]:
        if _lacks(config, other.name, _node(world, other.name), world.hosts.observe(other, _BOOT)):
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
    others = {other: fact for other, fact in nodes.items() if _is_controller(config, other) and other not in named}
    return [other for other, fact in others.items() if not fact.ready or not fact.voter]


def _lacks(config: ClusterConfig, name: str, node: NodeFact | None, host: Reading[HostFacts]) -> str:
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
    return "it does not vote in etcd yet" if _is_controller(config, name) and not node.voter else ""


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


def _drain(world: World, name: str, step: Step) -> None:
    if _node(world, name) is None:
        return
    mark = {"metadata": {"annotations": {DRAINED: "true"}}, "spec": {"unschedulable": True}}
    reading = world.kube.get("v1/Node", "", name)
    if isinstance(reading, Present) and not (reading.value.get("spec") or {}).get("unschedulable"):
        world.kube.patch("v1/Node", "", name, mark)

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
        lacking = _lacks(config, name, node, world.hosts.observe(machine, _BOOT))
        return Pending(lacking) if lacking else Done(node)

    node = wait(world.clock, f"{name} to be Ready again", probe, deadline=BACK, say=step.say)
    if node is not None and node.drained:
        undo = {"metadata": {"annotations": {DRAINED: None}}, "spec": {"unschedulable": None}}
        world.kube.patch("v1/Node", "", name, undo)
