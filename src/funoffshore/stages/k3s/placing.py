"""Puts on a host what its K3s needs, and (re)starts it; or, where nothing has to restart, only puts it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.reading import Present
from funoffshore.run import Step
from funoffshore.stages.k3s import copies, drain, files, hardening, look, sources
from funoffshore.stages.k3s.facts import OWN_LABELS, OWN_TAINTS
from funoffshore.stages.k3s.ladder import Ladder
from funoffshore.world.ssh import FileWrite, HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

_AGENT = "/var/lib/rancher/k3s/agent"


def keeps_binary(config: ClusterConfig, host: HostFacts) -> bool:
    """Whether the host has a K3s of another release, which only an upgrade replaces."""
    return host.k3s_version not in (None, config.k3s.version)


def put(
    world: World,
    config: ClusterConfig,
    node: Node,
    host: HostFacts,
    entry: dict[str, Any],
    ladder: Ladder,
    *,
    rejoin: bool = False,
    binary: bool = True,
) -> None:
    """Writes everything and (re)starts the unit without waiting for it."""
    unit = files.unit_name(node)
    ladder.before = tuple(ladder.journal())
    request = request_of(config, node, entry)
    if binary:
        sources.push(world, config, node, host, ladder.step)
        request["download"] = sources.request(config, host)
    if rejoin:
        # An agent with certificates of a Node that was deleted never gets in again (recorded from a real run).
        if isinstance(host.unit(unit), Present):
            world.hosts.change(node, {"units": [{"name": unit, "action": "stop"}]})
        request["remove"] = [f"{_AGENT}/client-kubelet.crt", f"{_AGENT}/client-kubelet.key"]
    units = [*_timers(config, node), {"name": unit, "action": "enable"}]
    if not node.made and not ladder.before:
        # A unit that is not there shows no journal, and what an earlier one said there would be taken for news.
        world.hosts.change(node, {**request, "units": units}, deadline=900)
        ladder.before = tuple(ladder.journal())
    request["units"] = [*units, {"name": unit, "action": "restart", "no_block": True}]
    what = f"fetching K3s {config.k3s.version}, " if request.get("download") else ""
    ladder.step.say(f"{what}writing its settings, starting {unit}")
    world.hosts.change(node, request, deadline=900)


def live(world: World, config: ClusterConfig, node: Node, entry: dict[str, Any], step: Step) -> None:
    """Whatever comes into force without a restart: files, labels, taints."""
    only_files(world, config, node, entry)
    drain.surely(world, f"the API to take labels and taints of {node.name}", lambda: _mark(world, node), step)


def only_files(world: World, config: ClusterConfig, node: Node, entry: dict[str, Any]) -> None:
    """Everything of ``node`` on its disk, with nothing of K3s restarted."""
    request = request_of(config, node, entry)
    request["units"] = _timers(config, node)
    world.hosts.change(node, request)


def request_of(config: ClusterConfig, node: Node, entry: dict[str, Any]) -> dict[str, Any]:
    writes = [FileWrite(files.CONFIG, SecretStr(files.config_yaml(config, node, entry)), 0o600)]
    writes += [FileWrite(one.path, one.content.encode(), one.mode) for one in files.beside(config, node)]
    request: dict[str, Any] = {"write": [write.request() for write in writes]}
    if files.protects_kernel(config):
        request["sysctl"] = [{"path": hardening.SYSCTL}]
    return request


def _timers(config: ClusterConfig, node: Node) -> list[dict[str, Any]]:
    if node.role is not NodeRole.CONTROLLER or not config.k3s.snapshots.nfs:
        return []
    return [{"name": copies.TIMER, "action": action} for action in ("enable", "restart")]


def _mark(world: World, node: Node) -> None:
    """Labels and taints as the env file has them; those of others stay. Raises UnreachableError."""
    reading = world.kube.get("v1/Node", "", node.name)
    if not isinstance(reading, Present):
        raise errors.UnreachableError(f"the Node {node.name} cannot be read", fix="run fo bootstrap again")
    metadata, spec = reading.value["metadata"], reading.value.get("spec") or {}
    notes = metadata.get("annotations") or {}
    labels: dict[str, str | None] = dict.fromkeys(_keys(notes, OWN_LABELS))
    labels |= dict(node.labels)
    mine = {*_keys(notes, OWN_TAINTS), *node.taints}
    others = [taint for taint in spec.get("taints") or [] if look.taint_text(taint) not in mine]
    annotations = {
        OWN_LABELS: ",".join(key for key, _ in node.labels) or None,
        OWN_TAINTS: ",".join(node.taints) or None,
    }
    patch = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"taints": [*others, *(_taint(text) for text in node.taints)] or None},
    }
    world.kube.patch("v1/Node", "", node.name, patch)


def _keys(notes: dict[str, str], name: str) -> list[str]:
    return [key for key in str(notes.get(name) or "").split(",") if key]


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect} if value else {"key": key, "effect": effect}
