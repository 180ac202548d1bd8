"""Up the ladder from "started" to "Ready": each rung is a wait with a sentence, and a stall names its cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from funoffshore import clock, errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import access, causes, files, kube_vip, obstacles
from funoffshore.stages.k3s.facts import NodeFact
from funoffshore.stages.k3s.look import node_fact
from funoffshore.world import supervisor
from funoffshore.world.ssh import Look

if TYPE_CHECKING:
    from funoffshore.world import kube
    from funoffshore.world.world import World

T = TypeVar("T")
FIRST_LOOK = 3.0
"""Seconds on a rung until the journal is read for a cause; then every ``LOOK_AGAIN``."""
LOOK_AGAIN = 6.0
DEADLINE = 420.0
"""Seconds for one rung. A first start on an overloaded machine took half a minute until /readyz."""


@dataclass
class Ladder:
    """The climb of one node."""

    world: World
    config: ClusterConfig
    node: Node
    step: Step
    before: tuple[str, ...] = ()
    """Journal lines that were there before this action touched the unit."""
    expected: str = ""
    """Release that its kubelet shall tell; empty: the pinned one."""
    _looked: float = field(default=0.0, init=False)
    _cause: str = field(default="", init=False)
    """What the journal said last of why it takes so long."""

    def climb_server(self, ca_hash: Callable[[], str]) -> None:
        """A server, until it is Ready, votes in etcd, and the VIP serves its authority.

        ``ca_hash`` reads the authority's hash from the token on a disk; asked once the server is up.
        """
        door, address = supervisor.Supervisor(self.config, self.world.routes), str(self.node.address)
        self._wait("its supervisor to answer /ping", lambda: _reading(door.ping(address), "the port is closed"))
        expected = ca_hash()
        self._same_authority(door, address, expected)
        with access.api(self.world, self.config, self.node, address, expected) as api:
            self._wait("its API server to be ready", lambda: _reading(api.readyz(), "no kubeconfig"))
            self._node(api)
            if self.config.virtual:
                self._virtual(door, api, expected)

    def _virtual(self, door: supervisor.Supervisor, api: kube.Kube, expected: str) -> None:
        vip = str(self.config.network.vip)

        def answers() -> clock.Done[str] | clock.Pending:
            outcome = _reading(door.ping(vip), "the port is closed")
            if isinstance(outcome, clock.Pending) and (why := obstacles.of_images(api, kube_vip.NAMESPACE)):
                return clock.Pending(f"{outcome.said}; {why}")
            return outcome

        self._wait(f"the VIP {vip} to answer", answers)
        self._same_authority(door, vip, expected)

    def climb_agent(self, ca_hash: str) -> None:
        """An agent, until it is Ready."""
        with access.api_of_cluster(self.world, self.config, ca_hash) as api:
            self._node(api)

    def _same_authority(self, door: supervisor.Supervisor, address: str, expected: str) -> None:
        claimed = self._wait("/cacerts", lambda: _reading(door.ca_hash(address), "the port is closed"))
        if claimed != expected:
            raise errors.TrustError(
                f"{address}:6443 claims another authority ({claimed[:12]}…) than the token on the "
                f"servers' disks ({expected[:12]}…)",
                fix="another cluster answers on that address; find it before anything else",
            )

    def _node(self, api: kube.Kube) -> None:
        self._wait("its Node to be Ready", lambda: self._is_ready(api))
        if self.node.role is NodeRole.CONTROLLER:
            self._wait("its etcd member to vote", lambda: self._votes(api))
        self._wait(f"{files.unit_name(self.node)}.service to be active", self._is_active)

    def _is_active(self) -> clock.Done[None] | clock.Pending:
        """The Node may still be Ready from before a restart; systemd knows better."""
        name = files.unit_name(self.node)
        reading = self.world.hosts.observe(self.node, Look(files=(), units=(name,), journal=0, commands=(), space=()))
        if not isinstance(reading, Present):
            return clock.Pending(reading.why if isinstance(reading, Unreadable) else "the host is not there")
        match reading.value.unit(name):
            case Present(unit) if unit.active == "active":
                return clock.Done(None)
            case Present(unit):
                return clock.Pending(f"it is {unit.active}")
        return clock.Pending("there is no such unit")

    def _seen(self, api: kube.Kube) -> NodeFact | clock.Pending:
        match api.get("v1/Node", "", self.node.name):
            case Present(node):
                return node_fact(node)
            case Unreadable(why):
                return clock.Pending(why)
        return clock.Pending("the cluster does not know it yet")

    def _is_ready(self, api: kube.Kube) -> clock.Done[None] | clock.Pending:
        seen = self._seen(api)
        if isinstance(seen, clock.Pending):
            return seen
        if not seen.ready:
            return clock.Pending(seen.said)
        if seen.version != (self.expected or self.config.k3s.version):
            return clock.Pending(f"it still runs {seen.version}")
        if seen.fingerprint != files.fingerprint(self.config, self.node):
            return clock.Pending("it still runs with its former settings")
        return clock.Done(None)

    def _votes(self, api: kube.Kube) -> clock.Done[None] | clock.Pending:
        seen = self._seen(api)
        if isinstance(seen, clock.Pending):
            return seen
        return clock.Done(None) if seen.voter else clock.Pending("it is still a learner")

    def _wait(self, what: str, probe: Callable[[], clock.Done[T] | clock.Pending]) -> T:
        begun = self.world.clock.monotonic()
        self._looked = begun + FIRST_LOOK - LOOK_AGAIN
        self._cause = ""

        def patient() -> clock.Done[T] | clock.Pending:
            self.step.checkpoint()
            outcome = probe()
            now = self.world.clock.monotonic()
            if isinstance(outcome, clock.Pending) and now - self._looked >= LOOK_AGAIN:
                self._looked = now
                self._cause = self._explain()
            if isinstance(outcome, clock.Pending) and self._cause:
                return clock.Pending(f"{self._cause} ({outcome.said})")
            return outcome

        return clock.wait(
            self.world.clock,
            f"{self.node.name}: {what}",
            patient,
            deadline=DEADLINE,
            interval=1.0,
            say=self.step.say,
            evidence=self.evidence,
            fix=f"read the journal of {files.unit_name(self.node)} on {self.node.name}, then run fo bootstrap again",
        )

    def _explain(self) -> str:
        """The cause that the journal names, empty for none. Raises TaskFailedError when waiting cannot help."""
        lines = self.journal()
        cause = causes.find(causes.fresh(lines, self.before))
        if cause is None or cause.network:
            closed = obstacles.between(self.world, self.config, self.node)
            return closed or (cause.says if cause else "")
        if cause.hopeless:
            raise errors.TaskFailedError(
                f"K3s on {self.node.name} does not come up: {cause.says}",
                fix=cause.fix,
                evidence=causes.redacted(self.config, lines[-12:]),
            )
        return cause.says

    def journal(self) -> list[str]:
        """The unit's last lines; empty when the host cannot be read."""
        name = files.unit_name(self.node)
        reading = self.world.hosts.observe(self.node, Look(files=(), units=(name,), journal=60, commands=(), space=()))
        if isinstance(reading, Present):
            match reading.value.unit(name):
                case Present(unit):
                    return list(unit.journal)
        return []

    def evidence(self) -> tuple[str, ...]:
        """The journal's tail with its cause first, without secrets."""
        lines = self.journal()
        cause = causes.find(causes.fresh(lines, self.before))
        first = (f"cause: {cause.says}",) if cause else ()
        return (*first, *causes.redacted(self.config, lines[-12:]))


def _reading(reading: Present[T] | Absent | Unreadable, absent: str) -> clock.Done[T] | clock.Pending:
    match reading:
        case Present(value):
            return clock.Done(value)
        case Unreadable(why):
            return clock.Pending(why)
    return clock.Pending(absent)
