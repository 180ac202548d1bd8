"""Ways to the API before the kubeconfig is in its place: through a server's own k3s.yaml, kept in memory or in a
private folder for as long as it is needed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from funoffshore import errors, kubeconfig
from funoffshore.config import ClusterConfig, Node
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.k3s.look import token_hash

if TYPE_CHECKING:
    from funoffshore.world import kube
    from funoffshore.world.world import World

KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"


def cluster_hash(world: World, config: ClusterConfig, *, but: Node | None = None) -> str:
    """SHA-256 of the cluster's authority, read from the disk of a controller other than ``but``.

    Raises UnreachableError when no controller shows its token.
    """
    said = []
    for node in config.controllers:
        if node == but:
            continue
        match token_hash(world, config, node):
            case Present(found):
                return found
            case Unreadable(why):
                said.append(f"{node.name}: {why}")
            case Absent():
                said.append(f"{node.name}: it has no token")
    raise errors.UnreachableError(
        "no controller shows the token of the cluster",
        fix="bring one controller of the cluster up and run fo bootstrap again",
        evidence=tuple(said),
    )


def admin_text(world: World, config: ClusterConfig, node: Node, ca_hash: str) -> str:
    """k3s.yaml of ``node``, proven to be of the authority ``ca_hash``. Raises UnreachableError, TrustError."""
    reading = world.hosts.read_file(node, KUBECONFIG)
    if not isinstance(reading, Present):
        why = reading.why if isinstance(reading, Unreadable) else "it is absent"
        raise errors.UnreachableError(f"{KUBECONFIG} of {node.name} cannot be read: {why}")
    text = reading.value.decode("utf-8", "replace")
    found = kubeconfig.parse(text).ca_hash
    if found != ca_hash:
        raise errors.TrustError(
            f"{KUBECONFIG} of {node.name} names another authority ({found[:12]}…) than its token ({ca_hash[:12]}…)",
            fix="somebody replaced certificates on that host; look at it before anything else",
        )
    return text


@contextlib.contextmanager
def api(world: World, config: ClusterConfig, node: Node, address: str, ca_hash: str) -> Iterator[kube.Kube]:
    """The API at ``address``, as administrator with ``node``'s own credentials."""
    from funoffshore.world import kube

    text = admin_text(world, config, node, ca_hash)
    with tempfile.TemporaryDirectory(prefix="fo-") as folder:
        path = Path(folder) / "kubeconfig"
        kubeconfig.write(path, kubeconfig.rewritten(text, name=config.name, server=f"https://{address}:6443"))
        yield kube.Kube(path, world.routes, world.clock)


@contextlib.contextmanager
def api_of_cluster(world: World, config: ClusterConfig, ca_hash: str) -> Iterator[kube.Kube]:
    """The API through the VIP: with the operator's kubeconfig where it is the cluster's, else with a server's own."""
    kept = kubeconfig.read(config.kubeconfig)
    if isinstance(kept, Present) and kept.value.ca_hash == ca_hash:
        yield world.kube
        return
    last: errors.FoError | None = None
    for node in config.controllers:
        try:
            admin_text(world, config, node, ca_hash)
        except errors.UnreachableError as why:
            last = why
            continue
        with api(world, config, node, str(config.network.vip), ca_hash) as door:
            yield door
        return
    raise last or errors.UnreachableError("no controller shows its k3s.yaml")
