"""Which files of K3s may be open to whom. Pure.

Modes: recorded from a real K3s; K3s documentation, "CIS Self-Assessment Guide", sections 1.1 and 4.1.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping

from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import copies, hardening, registries
from funoffshore.world.ssh import ModeFact

DATA = "/var/lib/rancher/k3s"
CONFIG = "/etc/rancher/k3s/config.yaml"
ALWAYS: Mapping[str, int] = {
    CONFIG: 0o600,
    registries.PATH: 0o600,
    "/etc/rancher/node/password": 0o600,
    f"{DATA}/agent": 0o700,
    f"{DATA}/agent/*.key": 0o600,
    f"{DATA}/agent/*.kubeconfig": 0o600,
}
"""Path or pattern → the widest mode."""
SERVER: Mapping[str, int] = {
    "/etc/rancher/k3s/k3s.yaml": 0o600,
    f"{DATA}/server": 0o700,
    f"{DATA}/server/token": 0o600,
    f"{DATA}/server/agent-token": 0o600,
    f"{DATA}/server/cred": 0o700,
    f"{DATA}/server/cred/*": 0o600,
    f"{DATA}/server/tls": 0o700,
    f"{DATA}/server/tls/*.key": 0o600,
    f"{DATA}/server/tls/etcd/*.key": 0o600,
    f"{DATA}/server/db/etcd": 0o700,
    f"{DATA}/server/db/snapshots": 0o700,
    f"{DATA}/server/db/snapshots/*": 0o600,
    hardening.AUDIT_POLICY: 0o600,
    hardening.AUDIT_LOG: 0o600,
    hardening.POD_SECURITY: 0o600,
}
SERVER_NEEDS = (CONFIG, f"{DATA}/server", f"{DATA}/server/token", f"{DATA}/server/tls", f"{DATA}/server/db/etcd")
"""Without these a look has not seen a server at all."""
AGENT_NEEDS = (CONFIG, f"{DATA}/agent")


def widest(node: Node) -> Mapping[str, int]:
    """Path or pattern → the widest mode, for the files of ``node``."""
    return {**ALWAYS, **SERVER} if node.role is Role.CONTROLLER else ALWAYS


def patterns(config: ClusterConfig, node: Node) -> tuple[str, ...]:
    """What a look has to ask for; the copies on NFS too, whose names tell when they were taken."""
    server = node.role is Role.CONTROLLER
    copied = (copies_of(config),) if server and config.k3s.snapshots.nfs else ()
    return (*widest(node), *copied)


def copies_of(config: ClusterConfig) -> str:
    """Pattern of the copies of snapshots on NFS."""
    return f"{copies.MOUNT}/{config.name}/*"


def faults(node: Node, seen: Mapping[str, Reading[ModeFact]]) -> Iterator[tuple[bool, str]]:
    """What is wrong with the files of ``node``: whether it was seen (else it could not be), and the line."""
    limits = widest(node)
    for path in SERVER_NEEDS if node.role is Role.CONTROLLER else AGENT_NEEDS:
        if path not in seen or isinstance(seen[path], Absent):
            yield True, f"{path} is absent"
    for path, reading in sorted(seen.items()):
        limit = _limit(limits, path)
        if limit is None or isinstance(reading, Absent):
            continue
        if isinstance(reading, Unreadable):
            yield False, f"{path} could not be looked at ({reading.why})"
        elif isinstance(reading, Present) and reading.value.kind in ("file", "directory"):
            fact = reading.value
            # A folder inside, as K3s keeps beside credentials, is closed by its parent.
            allowed = limit | 0o100 if fact.kind == "directory" else limit
            if fact.mode & ~allowed:
                yield True, f"{path} has mode {fact.mode:04o}, {limit:04o} is the widest"
            if fact.owner != "0:0":
                yield True, f"{path} belongs to {fact.owner}, not to root"


def _limit(limits: Mapping[str, int], path: str) -> int | None:
    if path in limits:
        return limits[path]
    fitting = (mode for pattern, mode in limits.items() if "*" in pattern and fnmatch.fnmatchcase(path, pattern))
    return min(fitting, default=None)
