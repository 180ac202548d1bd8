"""The operator's kubeconfig: fetched from a server, rewritten, and proven before it is called done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funoffshore import clock, errors, kubeconfig
from funoffshore.config import ClusterConfig
from funoffshore.reading import Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import access

if TYPE_CHECKING:
    from funoffshore.world.world import World


def fetch(world: World, config: ClusterConfig, step: Step) -> None:
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
