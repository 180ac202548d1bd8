"""Looks at K3s: what the hosts showed already, the kubeconfig on our disk, and the Nodes behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from funoffshore import errors, kubeconfig
from funoffshore.config import ClusterConfig, Node
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import classes, copies, files, offbox, strangers
from funoffshore.stages.k3s.facts import DRAINED, LABEL, OWN_LABELS, OWN_TAINTS, TOKEN, K3sFacts, NodeFact, holds_data
from funoffshore.world.ssh import FileLook, HostFacts, Look

if TYPE_CHECKING:
    from funoffshore.world.world import World

_TOKEN = re.compile(r"K10([0-9a-f]{64})::server:(.+)")


def look_of(config: ClusterConfig) -> Look:
    """What has to be seen of a host to plan its K3s, in one round trip."""
    return Look().also(*(FileLook(path) for path in (*files.paths(config), copies.HELPER)))


def observe(world: World, config: ClusterConfig, hosts: Mapping[str, Reading[HostFacts]]) -> K3sFacts:
    """Only reads. ``hosts`` is what the SSH door showed; a machine that does not exist is Absent there."""
    kept = kubeconfig.read(config.kubeconfig)
    nodes: Reading[Mapping[str, NodeFact]] = Absent()
    ca_hash: Reading[str] = Absent()
    nowhere = all(isinstance(hosts.get(n.name), Absent) for n in config.controllers)
    if isinstance(kept, Present) and not nowhere:
        nodes = node_facts(world.kube.list("v1/Node"))
        if isinstance(nodes, Unreadable):
            ca_hash = _first_hash(world, config, hosts)
    return K3sFacts(
        hosts=dict(hosts), nodes=nodes, kubeconfig=kept, ca_hash=ca_hash, strangers=strangers.seen(world, config),
        off_box=_off_box(config),
    )  # fmt: skip


def _off_box(config: ClusterConfig) -> tuple[str, ...]:
    """A folder that cannot be read gives none: then one is taken again, which harms nobody."""
    kept = offbox.copies(config)
    return tuple(name for name, _ in kept.value) if isinstance(kept, Present) else ()


def running(world: World) -> dict[str, str]:
    """Node → version, as its kubelet tells it. Raises UnreachableError."""
    match node_facts(world.kube.list("v1/Node")):
        case Present(nodes):
            return {name: node.version for name, node in sorted(nodes.items())}
        case Unreadable(why):
            raise errors.UnreachableError(f"the nodes cannot be read: {why}", fix="look at the cluster, then try again")
    return {}


def node_facts(reading: Reading[list[dict[str, Any]]]) -> Reading[Mapping[str, NodeFact]]:
    """Nodes by name."""
    match reading:
        case Present(items):
            return Present({str(item["metadata"]["name"]): node_fact(item) for item in items})
        case Unreadable(why):
            return Unreadable(why)
    return Unreadable("the API knows no nodes")


def node_fact(node: Mapping[str, Any]) -> NodeFact:
    """One Node; conditions are found by type, never by position."""
    status, metadata = node.get("status") or {}, node["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    ready, info = conditions.get("Ready", {}), status.get("nodeInfo") or {}
    return NodeFact(
        ready=ready.get("status") == "True",
        voter=conditions.get("EtcdIsVoter", {}).get("status") == "True",
        version=str(info.get("kubeletVersion", "")),
        uuid=str(info.get("systemUUID", "")).lower(),
        fingerprint=str(labels.get(LABEL, "")),
        drained=DRAINED in annotations,
        boot_id=str(info.get("bootID", "")).lower(),
        said=str(ready.get("message") or ready.get("reason") or "it has not reported yet"),
        arguments=_arguments(annotations.get("k3s.io/node-args", "")),
        address=next((str(a["address"]) for a in status.get("addresses") or [] if a.get("type") == "InternalIP"), ""),
        labels={str(key): str(value) for key, value in labels.items()},
        taints=tuple(taint_text(taint) for taint in (node.get("spec") or {}).get("taints") or []),
        own_labels=frozenset(filter(None, str(annotations.get(OWN_LABELS, "")).split(","))),
        own_taints=frozenset(filter(None, str(annotations.get(OWN_TAINTS, "")).split(","))),
    )


def taint_text(taint: Mapping[str, Any]) -> str:
    """``key=value:Effect``, or ``key:Effect`` for a taint without a value, as kubectl writes it."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint.get('key')}{value}:{taint.get('effect')}"


def _arguments(text: str) -> dict[str, tuple[str, ...]]:
    """What anybody could have written into an annotation, read as far as it can be."""
    try:
        words = json.loads(text)
    except ValueError:
        return {}
    return classes.unfolded([str(word) for word in words]) if isinstance(words, list) else {}


def token_hash(world: World, config: ClusterConfig, node: Node) -> Reading[str]:
    """SHA-256 of the authority, from the token on ``node``'s disk. Raises RefusedError when the secret differs."""
    match world.hosts.read_file(node, TOKEN):
        case Present(data):
            found = _TOKEN.fullmatch(data.decode("utf-8", "replace").strip())
            if not found:
                return Unreadable(f"{TOKEN} on {node.name} is no token")
            if found[2] != config.k3s.token.get_secret_value():
                raise errors.RefusedError(
                    f"the cluster on {node.name} has another token than the env file",
                    fix="put the cluster's own K3S_TOKEN back, or rotate it with k3s token rotate",
                )
            return Present(found[1])
        case other:
            return other


def _first_hash(world: World, config: ClusterConfig, hosts: Mapping[str, Reading[HostFacts]]) -> Reading[str]:
    for node in config.controllers:
        if holds_data(hosts.get(node.name, Unreadable("not looked at")), node):
            try:
                found = token_hash(world, config, node)
            except errors.FoError as why:
                found = Unreadable(why.message)
            if isinstance(found, Present):
                return found
    return Unreadable("no controller showed its token")
