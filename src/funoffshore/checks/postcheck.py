"""Asks every check, and seals what was found."""

from __future__ import annotations

from collections.abc import Callable

from funoffshore import __version__, evidence, health, status
from funoffshore.checks import backups, cloudflared, components, gitops, k3s, k3s_etcd, nodes, wanted, workloads
from funoffshore.checks.base import Check, Sight
from funoffshore.config import ClusterConfig
from funoffshore.findings import Finding, Outcome, worst
from funoffshore.reading import Present
from funoffshore.world.world import World


def checks(config: ClusterConfig) -> tuple[Check, ...]:
    """Every check that applies to ``config``, in the order in which things depend on each other."""
    tunnel = cloudflared.CHECKS if config.switches.get("CLOUDFLARED_ENABLED", False) else ()
    return (
        *nodes.CHECKS,
        *k3s.checks(config),
        *k3s_etcd.CHECKS,
        *gitops.CHECKS,
        *workloads.CHECKS,
        *tunnel,
        *components.checks(config),
        *backups.checks(config),
    )


class Sealable:
    """Findings together with what they are about."""

    def __init__(self, findings: tuple[Finding, ...], sight: Sight) -> None:
        self.findings = findings
        self.outcome = worst(findings)
        uid, head = sight.cluster_uid(), sight.head()
        self.cluster_uid = uid.value if isinstance(uid, Present) else ""
        self.commit = head.value if isinstance(head, Present) else ""

    @property
    def complete(self) -> bool:
        """Whether this proves Stage 1: nothing failed, nothing is unknown, and the subject is known."""
        return self.outcome in (Outcome.PASS, Outcome.WARN) and bool(self.cluster_uid) and bool(self.commit)


def look(world: World, config: ClusterConfig, heard: Callable[[Finding], None] = lambda finding: None) -> Sealable:
    """Asks every check once. Changes nothing; ``heard`` gets each finding as it comes."""
    sight = Sight(world, config)
    sight.fetch()
    findings = []
    for check in checks(config):
        findings.append(check.ask(sight))
        heard(findings[-1])
    return Sealable(tuple(findings), sight)


def under_way(findings: tuple[Finding, ...]) -> str:
    """What the first failed check waits for, when everything that is amiss is on its way to ready; else empty.

    Nothing of what failed for good, or could not be looked at, is worth waiting for.
    """
    amiss = [f for f in findings if f.outcome in (Outcome.FAIL, Outcome.UNKNOWN)]
    moving = f": {health.State.PROGRESSING.value}: "
    if not amiss or not all(f.evidence and all(moving in line for line in f.evidence) for f in amiss):
        return ""
    return f"{amiss[0].title}: {amiss[0].evidence[0]}"


def seal(config: ClusterConfig, seen: Sealable, now: float) -> status.Status:
    """Writes ``status.json``: signed evidence whatever the outcome, and the flag only when Stage 1 is proven.

    A human's mark for Stage 2 is kept; it opens nothing while the evidence does not. ``now`` is Unix seconds.
    """
    before = status.read(config.state)
    earlier = before.value if isinstance(before, Present) else None
    statement = evidence.Statement(
        cluster=config.name,
        cluster_uid=seen.cluster_uid,
        commit=seen.commit,
        serial=(earlier.statement.serial if earlier and earlier.statement else 0) + 1,
        issued=now,
        expires=now + evidence.LIFETIME,
        tool=f"funoffshore {__version__}",
        components=wanted.components(config),
        findings=seen.findings,
    )
    signature = evidence.sign(statement, config.evidence_key.get_secret_value())
    mark = earlier.unlock if earlier and earlier.cluster == config.name else None
    sealed = status.Status(config.name, seen.complete, statement, signature, mark)
    status.write(config.state, sealed)
    return sealed
