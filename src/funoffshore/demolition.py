"""The end of a cluster: what fo made is deleted, what it found is left without K3s."""

from __future__ import annotations

from dataclasses import dataclass

from funoffshore.config import ClusterConfig
from funoffshore.plan import Action, Plan
from funoffshore.run import Step
from funoffshore.stages import k3s, machines
from funoffshore.world.world import World


@dataclass(frozen=True, slots=True)
class End:
    """What is to go, and what cannot."""

    plan: Plan
    left: tuple[str, ...]
    """A sentence for whatever stays, and why."""


def look(world: World, config: ClusterConfig, *, keep_disks: bool) -> End:
    """What is there to be taken away. Raises the first thing that stands in the way."""
    actions: list[Action] = []
    left: list[str] = []
    if config.made:
        made = config.of_made()
        facts = machines.observe(world, made)
        actions += machines.destroy_plan(made, facts, keep_disks=keep_disks)
        left += machines.left(made, facts)
    existing = [node for node in config.nodes if not node.made]
    hosts = world.hosts.observe_all(existing, k3s.look_of(config))
    wiping, silent = k3s.destroy_plan(config, hosts)
    return End(Plan.of([*actions, *wiping]), (*left, *silent))


def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One of these actions."""
    if action.stage == "machines":
        machines.apply(world, config.of_made(), action, step)
    else:
        k3s.apply(world, config, action, step)
