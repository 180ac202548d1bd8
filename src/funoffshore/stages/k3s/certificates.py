"""Certificates of K3s: until when each one is good, and new ones for all nodes, one node after another.

``k3s certificate check`` and ``rotate``, recorded from a real run. The authorities stay: only what they signed is
renewed, so no token and no kubeconfig of another person changes. K3s renews by itself what has less than 120 days left,
but only when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import access, admin, snapshots, upkeep
from funoffshore.world.ssh import HostFacts, Look

if TYPE_CHECKING:
    from funoffshore.world.world import World

RUN = "k3s-certificates"
"""What the journal of such a run says it is about."""
STAGE = "k3s"
DAY = 86400.0
SOON = 90
"""Days; less is worth a warning."""
_ROTATING = 120.0
_LOOK = Look(files=(), units=(), commands=("certificates",), space=(), file_systems=())
_LINE = re.compile(
    r"([\w.-]+): certificate (.*) \(([^()]*)\) ([^()]*?) ?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d))"
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of one node."""

    node: str
    file: str
    """``client-admin.crt``."""
    subject: str
    uses: str
    """``ClientAuth,ServerAuth``; ``CertSign`` for an authority."""
    until: float
    """Unix seconds."""
    valid: bool
    """False when it has expired, or is not valid yet."""

    def days(self, now: float) -> int:
        """Whole days left at ``now``; below 0 once it has expired."""
        return int((self.until - now) // DAY)


@dataclass(frozen=True, slots=True)
class Checked:
    """What one look at every node showed."""

    certificates: tuple[Certificate, ...]
    """Those that end first, first."""
    unread: tuple[str, ...] = ()
    """Nodes that could not be looked at, and why."""

    def ending(self, now: float) -> list[Certificate]:
        """Those that are no good or will not be in ``SOON`` days."""
        return [one for one in self.certificates if not one.valid or one.days(now) < SOON]


def observe(world: World, config: ClusterConfig) -> Checked:
    """Asks K3s on every node, all at once. Changes nothing."""
    hosts = world.hosts.observe_all(config.nodes, _LOOK)
    found: list[Certificate] = []
    unread = []
    for node in config.nodes:
        match _of(node, hosts.get(node.name, Unreadable("it was not looked at"))):
            case Present(certificates):
                found += certificates
            case Unreadable(why):
                unread.append(f"{node.name}: {why}")
            case Absent():
                unread.append(f"{node.name}: it has no K3s")
    return Checked(tuple(sorted(found, key=lambda one: (one.until, one.node, one.file))), tuple(unread))


def parse(node: str, text: str) -> list[Certificate]:
    """Every certificate that ``k3s certificate check`` tells of, a log line each. Words or a moment that are not
    understood make it one that is no good."""
    found = []
    for file, subject, uses, verdict, moment in _LINE.findall(text):
        try:
            until = datetime.fromisoformat(moment).timestamp()
        except ValueError:
            until, verdict = 0.0, ""
        valid = verdict.startswith(("is ok", "will expire within"))
        found.append(Certificate(node, file, subject, uses, until, valid))
    return found


def plan(config: ClusterConfig, done: Iterable[str] = ()) -> list[Action]:
    """New certificates for each server, then for each agent, then a kubeconfig with one of them. ``done``: keys of what
    an earlier attempt got done."""
    actions: list[Action] = []
    before: frozenset[str] = frozenset()
    for node in (*config.controllers, *config.workers):
        key, reason = f"certificates/{node.name}", "new certificates were asked for"
        actions.append(Action(Verb.CHANGE, key, reason, before, lane="restart", stage=STAGE, on=node.name))
        before = frozenset({key})
    key, reason = "certificates/kubeconfig", "its certificate is renewed, too"
    actions.append(Action(Verb.CHANGE, key, reason, before, stage=STAGE))
    return upkeep.redone(actions, frozenset(done))


def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One of these actions. Doing it again after any failure is safe: K3s makes what is missing when it starts."""
    if action.key == "certificates/kubeconfig":
        return admin.fetch(world, config, step)
    node = config.node(action.on)
    seen = upkeep.host(world, config, node)
    ca_hash = access.cluster_hash(world, config)
    before = _of(node, world.hosts.observe(node, _LOOK))
    upkeep.gate(world, config, node, seen, step)
    step.say("stopping K3s and putting its certificates aside")
    snapshots.run_k3s(world, node, ["certificate", "rotate"], _ROTATING, before=upkeep.stops(node))
    upkeep.restart(world, config, node, seen, step, ca_hash)
    return _verify(node, before, _of(node, world.hosts.observe(node, _LOOK)))


def _verify(node: Node, before: Reading[list[Certificate]], after: Reading[list[Certificate]]) -> None:
    """Raises unless every leaf is good for at least as long as before, and there is one."""
    if not isinstance(after, Present):
        why = after.why if isinstance(after, Unreadable) else "it has no K3s"
        raise errors.UnreachableError(f"the new certificates of {node.name} cannot be seen: {why}")
    leaves = _leaves(after.value)
    old = _leaves(before.value) if isinstance(before, Present) else {}
    worse = [name for name, one in leaves.items() if not one.valid or one.until < old.get(name, one).until]
    if not leaves or worse:
        raise errors.TaskFailedError(
            f"K3s on {node.name} has come up without renewing {', '.join(sorted(worse)) or 'any certificate'}",
            fix=f"look at the journal of K3s on {node.name}",
        )


def _leaves(found: Sequence[Certificate]) -> Mapping[str, Certificate]:
    return {one.file: one for one in found if "CertSign" not in one.uses}


def _of(node: Node, host: Reading[HostFacts]) -> Reading[list[Certificate]]:
    if not isinstance(host, Present):
        return host
    match host.value.commands.get("certificates", Unreadable("K3s was not asked")):
        case Present(said):
            found = parse(node.name, f"{said.out}\n{said.err}")
            if said.code or not found:
                return Unreadable(f"k3s certificate check ended with exit {said.code} and told of {len(found)}")
            return Present(found)
        case other:
            return other
