"""From facts to the actions that remove the cluster. Pure."""

from __future__ import annotations

from funoffshore.config import ClusterConfig, Node
from funoffshore.errors import FoError, PreflightError
from funoffshore.plan import Action, Verb
from funoffshore.reading import Present
from funoffshore.stages.machines import preflight
from funoffshore.stages.machines.facts import MachineFacts
from funoffshore.stages.machines.graph import STAGE, is_being_created, is_ours


def destroy_plan(config: ClusterConfig, facts: MachineFacts) -> list[Action]:
    """Removes our machines and what is left of their seeds. What is not ours gets no action.

    Raises the first of ``destroy_problems``, so an empty plan does mean that nothing of ours was seen.
    """
    if found := destroy_problems(config, facts):
        raise found[0]
    actions: list[Action] = []
    for node in config.nodes:
        key, reading = f"machine/{node.name}", facts.machine(node.name)
        if isinstance(reading, Present) and is_ours(reading.value, node):
            reason = f"VM {reading.value.vmid} on {reading.value.hypervisor} is ours, and the cluster is to go"
            actions.append(Action(Verb.DELETE, key, reason, stage=STAGE, on=node.name))
        seed = facts.seed(node.name)
        if isinstance(seed, Present):
            reason = f"{seed.value} holds a host key, and the cluster is to go"
            after = frozenset({key})
            actions.append(Action(Verb.DELETE, f"seed/{node.name}", reason, after, stage=STAGE, on=node.name))
    return actions


def destroy_problems(config: ClusterConfig, facts: MachineFacts) -> list[FoError]:
    """What stands in the way of removing all that is ours. A foreign VM is no problem: it is left alone."""
    if facts.door is not None:
        return [facts.door]
    removing = {"/vms", f"/storage/{config.proxmox.image_storage}"}
    if missing := tuple(lack for lack in facts.missing if lack.path in removing):
        return [preflight.lacking_privileges(config, missing)]
    found: list[FoError] = list(preflight.unseen(config, facts))
    for node, machine in preflight.present(config, facts):
        if is_ours(machine, node) and machine.protected:
            found.append(protected(node))
        elif is_being_created(machine):
            found.append(
                PreflightError(
                    f"VM {machine.vmid} on {machine.hypervisor} is only being created by an earlier run",
                    fix="Wait until the task has ended, then run the same command again.",
                    evidence=(machine.creating,),
                )
            )
        elif machine.lock == "create":
            found.append(preflight.half_made(machine))
    return found


def protected(node: Node) -> PreflightError:
    """The error for a machine that carries Proxmox's own protection against removal."""
    return PreflightError(
        f"VM {node.vmid} ({node.name}) is protected against removal; it was not touched",
        fix=f"If it shall go, run on the Proxmox host: qm set {node.vmid} --protection 0",
    )
