"""How a machine's host key is known before anybody logs in there; see SSH_TRUST.

``seed``: fo made it. ``agent``: the machine made it, and its guest agent tells it over the pinned Proxmox API.
``first-use``: whatever is shown at first. What was learned is recorded, and from then on nothing else is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from funoffshore import errors, run
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node, identity
from funoffshore.stages.machines import finding, host_evidence
from funoffshore.world.ssh import HostKey, known

if TYPE_CHECKING:
    from funoffshore.world.world import World

KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"
FIRST_ANSWER = 900.0
"""Seconds from power on until sshd answers and the guest agent with it: cloud-init may have to install that first."""
GRACE = 60.0
"""Seconds for which agent and sshd may name different keys: cloud-init can replace an image's own at the first boot."""


def learn(world: World, config: ClusterConfig, node: Node, values: Mapping[str, str], step: run.Step) -> None:
    """The host key is known when this returns, and recorded unless fo made it. ``values`` say where its VM is.

    Raises TrustError when two ways show different keys, DeadlineError with evidence when nobody shows one,
    ForeignError when the VM is not ours.
    """
    if world.hosts.known_key(node) is None:
        way = _accept if config.ssh.trust_of(node) == "first-use" else _ask_agent
        way(world, config, node, values, step)


def forget(config: ClusterConfig, name: str) -> None:
    """Drops what was recorded for machine ``name``, which is gone: the next one of that name makes its own key."""
    known.forget(config, identity(config.name, name))


def _accept(world: World, config: ClusterConfig, node: Node, values: Mapping[str, str], step: run.Step) -> None:
    """Trust on first use: the operator has asked for it, and is told what was believed before it is."""

    def probe() -> Done[HostKey] | Pending:
        step.checkpoint()
        try:
            return Done(world.hosts.shown_key(node))
        except errors.UnreachableError as why:
            return Pending(why.message)

    key = wait(
        world.clock,
        f"{node.name} ({node.address}) to show its host key",
        probe,
        deadline=FIRST_ANSWER,
        say=step.say,
        evidence=lambda: host_evidence.gather(world, config, node, values, "it never answered"),
        fix=f"Look at the console of {host_evidence.console(values)}, then run the same command again.",
    )
    step.say(
        f"warning: host key of {node.name} with fingerprint {key.fingerprint} accepted on first use; "
        f"to be sure, compare it at its console: ssh-keygen -lf {KEY_FILE}"
    )
    known.record(config, node, key, "accepted on first use")


def _ask_agent(world: World, config: ClusterConfig, node: Node, values: Mapping[str, str], step: run.Step) -> None:
    """Recorded once the guest agent names the very key that sshd proves to hold."""
    found = finding.need(world, config, node.name, values)
    values = {"hypervisor": found.hypervisor, "vmid": str(found.vmid)}
    watch = _Watch(world, found, node)

    def probe() -> Done[HostKey] | Pending:
        step.checkpoint()
        return watch.look()

    key = wait(
        world.clock,
        f"{node.name} ({node.address}) to tell its host key through its guest agent",
        probe,
        deadline=FIRST_ANSWER,
        say=step.say,
        evidence=lambda: (*host_evidence.gather(world, config, node, values, watch.shown), *watch.advice()),
        fix=f"Look at the console of {host_evidence.console(values)}, then run the same command again.",
    )
    step.say(f"its host key is {key.fingerprint}, says its guest agent")
    known.record(config, node, key, "read through the guest agent")


class _Watch:
    """What sshd and guest agent have said so far."""

    def __init__(self, world: World, found: finding.Found, node: Node) -> None:
        self._world = world
        self._found = found
        self._node = node
        self._differ_since: float | None = None
        self._answered = False
        self.shown = "it never answered"

    def look(self) -> Done[HostKey] | Pending:
        """Raises TrustError when the two have named different keys for too long."""
        # sshd comes first: while it is silent the key may still be made, and the agent would only tell an old one.
        try:
            shown = self._world.hosts.shown_key(self._node)
        except errors.UnreachableError as why:
            self.shown = why.message
            return Pending(why.message)
        self.shown = f"it shows host key {shown.fingerprint}"
        told = self._told()
        if isinstance(told, str):
            return Pending(told)
        if told == shown:
            return Done(told)
        return self._differing(told, shown)

    def _told(self) -> HostKey | str:
        """The key that the agent reads, or why it does not."""
        try:
            content = self._world.proxmox.agent_file(self._found.hypervisor, self._found.vmid, KEY_FILE)
        except errors.RefusedError as why:
            if why.status == 403:
                raise
            return why.message
        except (errors.UnreachableError, errors.DeadlineError) as why:
            return why.message
        self._answered = True
        try:
            return known.parse(content.decode("ascii", "replace"))
        except ValueError as why:
            return f"{KEY_FILE} holds {why}"

    def _differing(self, told: HostKey, shown: HostKey) -> Pending:
        now = self._world.clock.monotonic()
        self._differ_since = now if self._differ_since is None else self._differ_since
        text = f"its guest agent names host key {told.fingerprint}, and at its address {shown.fingerprint} is shown"
        if now - self._differ_since > GRACE:
            raise errors.TrustError(
                f"{self._node.name} ({self._node.address}): {text}",
                fix="Another machine answers at this address, or something sits in between: find out which. "
                "Nothing was recorded, and nobody logged in.",
            )
        return Pending(text)

    def advice(self) -> tuple[str, ...]:
        """What to choose instead, for a machine whose agent was never heard."""
        if self._answered or not self.shown.startswith("it shows"):
            return ()
        return (
            "sshd answers and the guest agent does not: the image seems to have no qemu-guest-agent",
            "choose an image or a template that has it, or SEED=iso with SSH_TRUST=seed, or SSH_TRUST=first-use",
        )
