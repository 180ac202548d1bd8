"""Hosts that fo has not made and whose host key nobody has given: the first one that they show is believed.

That is the operator's choice (SSH_TRUST=first-use), made because there is no seed to carry a key and no guest agent to
read one. What was believed is told, recorded, and from then on nothing else is accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from funoffshore import clock, errors
from funoffshore.config import ClusterConfig
from funoffshore.plan import Action, Verb
from funoffshore.run import Step
from funoffshore.stages.k3s.facts import K3sFacts
from funoffshore.world.ssh import HostKey, known

if TYPE_CHECKING:
    from funoffshore.world.world import World

ANSWER = 60.0
"""Seconds for a host that is said to be there already."""
KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"


def seen(world: World, config: ClusterConfig) -> frozenset[str]:
    """Names of the hosts whose key is to be recorded. Asks nobody; raises StateError for an unusable record."""
    first = [node for node in config.nodes if not node.made and config.ssh.trust_of(node) == "first-use"]
    return frozenset(node.name for node in first if world.hosts.known_key(node) is None)


def plan(config: ClusterConfig, facts: K3sFacts) -> list[Action]:
    """One action for each, before anything else is done to the host. They belong to the stage of the machines."""
    reason = "nobody gave its host key, so the first one that it shows is recorded (SSH_TRUST=first-use)"
    return [
        Action(Verb.CREATE, f"trust/{node.name}", reason, stage="machines", on=node.name)
        for node in config.nodes
        if node.name in facts.strangers
    ]


def accept(world: World, config: ClusterConfig, name: str, step: Step) -> None:
    """Records what the host shows, after saying it. Nothing is sent there but the handshake. Raises DeadlineError."""
    node = config.node(name)

    def probe() -> clock.Done[HostKey] | clock.Pending:
        step.checkpoint()
        try:
            return clock.Done(world.hosts.shown_key(node))
        except errors.UnreachableError as why:
            return clock.Pending(why.message)

    if world.hosts.known_key(node) is not None:
        return
    what = f"{name} ({node.address}) to show its host key"
    fix = "Is the host on, and its sshd reachable from here?"
    key = clock.wait(world.clock, what, probe, deadline=ANSWER, say=step.say, fix=fix)
    step.say(
        f"warning: host key of {name} with fingerprint {key.fingerprint} accepted on first use; "
        f"to be sure, compare it at its console: ssh-keygen -lf {KEY_FILE}"
    )
    known.record(config, node, key, "accepted on first use")
