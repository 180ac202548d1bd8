"""That the others hold the quorum: asked right before a server is taken out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funoffshore import clock
from funoffshore.config import ClusterConfig, Node
from funoffshore.reading import Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import look

if TYPE_CHECKING:
    from funoffshore.world.world import World

PATIENCE = 300.0
"""Seconds that the others get."""


def others_hold(world: World, config: ClusterConfig, node: Node, step: Step) -> None:
    """Waits until every other server is Ready and votes: restarting this one must not cost the quorum.

    Raises DeadlineError after ``PATIENCE``; nothing was changed then.
    """
    others = [n.name for n in config.controllers if n != node]
    if not others:
        return

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
        world.clock, f"the other servers to hold the quorum while {node.name} restarts", held, deadline=PATIENCE,
        say=step.say, fix="bring the other servers up first; nothing was changed",
    )  # fmt: skip
