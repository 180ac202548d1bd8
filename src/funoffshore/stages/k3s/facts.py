"""What is known of K3s, and the one question that must never be answered by a guess: does a cluster exist?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.kubeconfig import Kubeconfig
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.ssh import HostFacts

TOKEN = "/var/lib/rancher/k3s/server/token"  # noqa: S105  a path
ETCD = "/var/lib/rancher/k3s/server/db/etcd/member"
AGENT = "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"
DRAINED = "funoffshore.io/drained"
"""Node annotation of a node that fo drained; one that an operator cordoned has none and stays as it is."""
OWN_LABELS = "funoffshore.io/labels"
OWN_TAINTS = "funoffshore.io/taints"
"""Node annotations: which of its labels and taints the env file brought, so that they go when they leave it."""
LABEL = "funoffshore.io/k3s-config"
"""Node label whose value tells with which binary, unit and settings the node's K3s was started."""


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A Node as the API shows it."""

    ready: bool
    voter: bool
    """EtcdIsVoter; False where there is no such condition."""
    version: str
    """``v1.36.4+k3s1``, the kubelet's."""
    uuid: str
    """systemUUID, lower case."""
    fingerprint: str
    """Value of ``LABEL``; empty on a node that fo did not start."""
    said: str
    """What the Ready condition says when it is not True."""
    drained: bool = False
    """Whether fo has drained it for a restart and has not yet given it back."""
    boot_id: str = ""
    """Of the boot in which its kubelet last reported."""
    arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What its K3s was started with, by flag (``k3s.io/node-args``); empty where the Node does not tell."""
    address: str = ""
    """InternalIP."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    """``key=value:Effect``."""
    own_labels: frozenset[str] = frozenset()
    """Keys of the labels that fo has set at the env file's word (annotation ``OWN_LABELS``)."""
    own_taints: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class K3sFacts:
    """One look at all hosts and at the API."""

    hosts: Mapping[str, Reading[HostFacts]]
    """By node name. Absent: the machine was seen not to exist."""
    nodes: Reading[Mapping[str, NodeFact]] = field(default_factory=Absent)
    """By name. Absent: fo has no kubeconfig yet."""
    kubeconfig: Reading[Kubeconfig] = field(default_factory=Absent)
    ca_hash: Reading[str] = field(default_factory=Absent)
    """Of the existing cluster's authority, read from a server's token; only looked at when the API is silent."""
    strangers: frozenset[str] = frozenset()
    """Hosts that fo has not made and whose host key is to be recorded as they first show it."""
    off_box: tuple[str, ...] = ()
    """Names of the etcd snapshots that lie on this computer."""

    def host(self, name: str) -> Reading[HostFacts]:
        return self.hosts.get(name, Unreadable("the host was not looked at"))

    def node(self, name: str) -> NodeFact | None:
        """None when the API does not show it, or was not seen."""
        return self.nodes.value.get(name) if isinstance(self.nodes, Present) else None


class Role(StrEnum):
    """What a node is to do at its first start, and what it is on a later look."""

    FOUND = "found"
    """Begins the cluster."""
    JOIN = "join"
    KEEP = "keep"
    """Has K3s data; how it once came in is settled and stays as it is in its config.yaml."""
    UNKNOWN = "unknown"
    """Something that decides this could not be read."""


def holds_data(host: Reading[HostFacts], node: Node) -> bool | None:
    """Whether ``node`` carries K3s data; None when that could not be seen."""
    if isinstance(host, Absent):
        return False
    if isinstance(host, Unreadable):
        return None
    marks = (TOKEN, ETCD) if node.role is NodeRole.CONTROLLER else (AGENT,)
    readings = [host.value.file(path) for path in marks]
    if any(isinstance(r, Present) for r in readings):
        return True
    return None if any(isinstance(r, Unreadable) for r in readings) else False


def cluster_exists(config: ClusterConfig, facts: K3sFacts) -> bool | None:
    """Whether any trace of the cluster was seen; False only when every controller proves that it has none."""
    if isinstance(facts.nodes, Present) and facts.nodes.value:
        return True
    held = [holds_data(facts.host(node.name), node) for node in config.controllers]
    if any(held):
        return True
    return None if None in held else False


def role_of(config: ClusterConfig, facts: K3sFacts, node: Node) -> Role:
    """The role of ``node``. FOUND only for the first controller, and only when no cluster exists anywhere."""
    own = holds_data(facts.host(node.name), node)
    exists = cluster_exists(config, facts)
    if own:
        return Role.KEEP
    if own is None or exists is None:
        return Role.UNKNOWN
    return Role.FOUND if not exists and node == config.controllers[0] else Role.JOIN


def unreadable(config: ClusterConfig, facts: K3sFacts, nodes: Iterable[Node]) -> str:
    """Names what could not be seen, for a reason; empty when all was."""
    for node in nodes:
        match facts.host(node.name):
            case Unreadable(why):
                return f"whether {node.name} holds a cluster cannot be told ({why})"
            case Present(host) if holds_data(Present(host), node) is None:
                return f"whether {node.name} holds a cluster cannot be told (its disk could not be read)"
    return ""
