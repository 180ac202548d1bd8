"""Whether the hosts belong together: to this cluster and no other, and within each other's reach. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.doctor.hosts import Seen, Trouble, dark, fail, nodes, runs_k3s
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.ssh import FileFact, HostFacts

DATA = "/var/lib/rancher/k3s"
TOKEN = f"{DATA}/server/token"
SQLITE = f"{DATA}/server/db/state.db"
AGENT_CA = f"{DATA}/agent/server-ca.crt"
API, ETCD, KUBELET = (6443,), (2379, 2380), (10250,)
UDP = "8472/udp, which flannel takes, cannot be tried from here"
_FULL = re.compile(r"K10([0-9a-f]{64})::server:(.+)")
_WIPE = "when nothing of it is needed, remove /var/lib/rancher and /etc/rancher there; else take it out of the env file"


def belonging(config: ClusterConfig, seen: Seen, authority: str) -> Iterator[Trouble]:
    """A host carries no K3s, or the one of this cluster in its own role. ``authority``: SHA-256 of the kubeconfig's,
    empty while there is none."""
    held: dict[str, str] = {}
    for node, host in nodes(config, seen):
        yield from _role(node, host)
        found = _authority(node, host)
        if isinstance(found, Unreadable):
            yield dark(f"whether {node.name} carries a cluster could not be read ({found.why})")
        if isinstance(found, Present):
            held[node.name] = found.value
        token = _token(host.file(TOKEN))
        if token and token[2] != config.k3s.token.get_secret_value():
            yield fail(
                f"the K3s on {node.name} has another token than the env file",
                f"put the cluster's K3S_TOKEN back, or, {_WIPE}",
            )
    ours = _ours(config, held, authority)
    for name, found_hash in held.items():
        if found_hash != ours:
            yield fail(f"{name} carries a K3s of another authority ({found_hash[:16]}…, not {ours[:16]}…)", _WIPE)
    controllers = [node.name for node in config.controllers if node.name in seen]
    if held and len(controllers) == len(config.controllers) and not held.keys() & set(controllers):
        yield fail(f"{', '.join(held)} belong to a cluster that no controller carries", _WIPE)


def _role(node: Node, host: HostFacts) -> Iterator[Trouble]:
    """Data that a node of its role would never have."""
    if isinstance(host.file(SQLITE), Present):
        yield fail(f"the K3s on {node.name} keeps its data in SQLite, so no other server can join it", _WIPE)
    if node.role is Role.WORKER and isinstance(host.file(TOKEN), Present):
        yield fail(f"{node.name} shall be a worker, and carries a server of K3s", _WIPE)
    if (
        node.role is Role.CONTROLLER
        and isinstance(host.file(TOKEN), Absent)
        and isinstance(host.file(AGENT_CA), Present)
    ):
        yield fail(f"{node.name} shall be a controller, and carries an agent of K3s", _WIPE)


def _authority(node: Node, host: HostFacts) -> Reading[str]:
    """SHA-256 of the authority of the K3s that it carries."""
    path = TOKEN if node.role is Role.CONTROLLER else AGENT_CA
    match host.file(path):
        case Present(there) if node.role is Role.WORKER:
            return Present(there.sha256)
        case Present():
            token = _token(host.file(path))
            return Present(token[1]) if token else Unreadable(f"{path} is no token")
        case other:
            return other


def _token(reading: Reading[FileFact]) -> re.Match[str] | None:
    if not isinstance(reading, Present) or reading.value.content is None:
        return None
    return _FULL.fullmatch(reading.value.content.get_secret_value().strip())


def _ours(config: ClusterConfig, held: dict[str, str], authority: str) -> str:
    """The kubeconfig's where a controller carries it (else that is an earlier cluster's), else what most carry."""
    mine = [held[node.name] for node in config.controllers if node.name in held] or list(held.values())
    if authority in mine or not mine:
        return authority
    return Counter(mine).most_common(1)[0][0]


def targets(config: ClusterConfig, seen: Seen, node: Node) -> tuple[tuple[str, int], ...]:
    """Where ``node`` has to get through, as far as somebody listens there by now."""
    found: list[tuple[str, int]] = []
    for other, host in nodes(config, seen):
        if other.name == node.name or not runs_k3s(host):
            continue
        server, both = other.role is Role.CONTROLLER, node.role is other.role is Role.CONTROLLER
        wanted = (*(API if server else ()), *(ETCD if both else ()), *(KUBELET if node.role is Role.CONTROLLER else ()))
        found += [(str(other.address), port) for port in wanted]
    if config.virtual and any(runs_k3s(host) for one, host in nodes(config, seen) if one.role is Role.CONTROLLER):
        found.append((str(config.api), API[0]))
    return tuple(found)


def reaching(config: ClusterConfig, seen: Seen, tried: Seen) -> Iterator[Trouble]:
    """What does not get through, a line for each pair of hosts. ``seen``: who listens; ``tried``: the look in which
    each host tried its targets."""
    for node, _ in nodes(config, seen):
        shut: dict[tuple[str, str], list[str]] = {}
        for address, port in targets(config, seen, node):
            result = tried[node.name].connect.get(f"{address}:{port}") if node.name in tried else None
            who = f"{_name(config, address)} ({address})"
            if not isinstance(result, Present):
                yield dark(f"whether {node.name} reaches {who} on {port} could not be tried")
            elif not result.value.open:
                shut.setdefault((who, result.value.said), []).append(str(port))
        for (who, said), ports in shut.items():
            line = f"{node.name} does not reach {who} on {', '.join(ports)}: {said}"
            yield fail(line, f"open that between the hosts; {UDP}")


def _name(config: ClusterConfig, address: str) -> str:
    return next((node.name for node in config.nodes if str(node.address) == address), "the VIP")
