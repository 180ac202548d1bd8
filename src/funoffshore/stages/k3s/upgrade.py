"""From one release to the next: servers one by one, then agents in batches, each drained first. Pure.

Rules: Kubernetes' version skew policy (no minor release is skipped, no kubelet is newer than the API server); etcd's
data cannot go back, so neither can K3s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.plan import Action, Held, Permits, Verb
from funoffshore.reading import Present
from funoffshore.stages.k3s.facts import K3sFacts

STAGE = "k3s"
COMMAND = "fo k3s upgrade"
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-[0-9a-z.]+)?\+k3s(\d+)")

Version = tuple[int, int, int, int]


def parse(text: str) -> Version | None:
    """``v1.36.4+k3s1`` as numbers; None for anything else."""
    found = _VERSION.fullmatch(text)
    return (int(found[1]), int(found[2]), int(found[3]), int(found[4])) if found else None


def running(facts: K3sFacts) -> dict[str, str]:
    """Node → version of its kubelet, for Nodes that have told one."""
    nodes = facts.nodes.value if isinstance(facts.nodes, Present) else {}
    return {name: node.version for name, node in sorted(nodes.items()) if node.version}


def snapshot_name(config: ClusterConfig) -> str:
    """The snapshot that is taken before an upgrade to the pinned release."""
    return "before-" + config.k3s.version.replace("+", "-")


def refusal(config: ClusterConfig, facts: K3sFacts) -> errors.FoError | None:
    """Why the cluster must not be brought to the pinned release."""
    wanted = parse(config.k3s.version)
    if wanted is None:
        return errors.ConfigError(f"{config.k3s.version} is no release of K3s", fix="give one like v1.36.4+k3s1")
    for name, text in running(facts).items():
        there = parse(text)
        if there is None:
            return errors.PreflightError(
                f"{name} runs {text}, and which release that is cannot be told", fix="replace that node first"
            )
        if there > wanted:
            return errors.PreflightError(
                f"{name} runs {text} already, and K3s cannot go back to {config.k3s.version}",
                fix=f"pin {text} or a newer release; an older cluster comes back only with fo k3s restore",
            )
        if (there[0], there[1] + 1) < wanted[:2]:
            return errors.PreflightError(
                f"{name} runs {text}; {config.k3s.version} would skip a minor release, and Kubernetes allows no skip",
                fix=f"upgrade to a release of v{there[0]}.{there[1] + 1} first: {COMMAND} v{there[0]}.{there[1] + 1}.…",
            )
    return None


def joining_problem(config: ClusterConfig, facts: K3sFacts, joining: Sequence[str]) -> errors.FoError | None:
    """A node that joins with a newer kubelet than the servers' is not supported by Kubernetes."""
    servers = {name: text for name, text in running(facts).items() if name in {n.name for n in config.controllers}}
    others = sorted({text for text in servers.values() if text != config.k3s.version})
    if not joining or not others:
        return None
    return errors.PreflightError(
        f"{joining[0]} cannot join: K3s {config.k3s.version} is pinned, and the servers run {others[0]}",
        fix=f"run {COMMAND} -c {config.name} first, or pin {others[0]} again",
    )


def held(config: ClusterConfig, facts: K3sFacts, outdated: Sequence[str], permits: Permits) -> Iterator[Held]:
    """That nodes run another release than the pinned one, while no upgrade is allowed."""
    if not outdated or permits.upgrade:
        return
    versions = ", ".join(sorted({text for name, text in running(facts).items() if name in outdated})) or "another one"
    names = ", ".join(outdated[:4]) + (f" and {len(outdated) - 4} more" if len(outdated) > 4 else "")
    problem = refusal(config, facts)
    reason = f"K3s {config.k3s.version} is pinned, and {names} {'has' if len(outdated) == 1 else 'have'} {versions}"
    yield Held("k3s/upgrade", f"{reason}; {problem.message}" if problem else reason, "" if problem else COMMAND)


def wrapped(
    config: ClusterConfig, facts: K3sFacts, actions: Sequence[Action], upgrading: Sequence[str]
) -> list[Action]:
    """``actions`` with a snapshot before, and a drain and an uncordon around every node of ``upgrading``."""
    if not upgrading:
        return list(actions)
    by_key = {action.key: action for action in actions}
    names = [name for name in upgrading if f"k3s/{name}" in by_key]
    servers = [name for name in names if config.node(name).role is NodeRole.CONTROLLER]
    agents = [name for name in names if name not in servers]
    first, extra = _snapshot(config, facts)
    drains = len(running(facts)) > 1
    ends = {name: f"uncordon/{name}" if drains else f"k3s/{name}" for name in names}
    for position, name in enumerate([*servers, *agents]):
        after = first | _predecessors(config, servers, agents, position, ends)
        action = by_key[f"k3s/{name}"]
        if drains:
            extra.append(_drain(name, after))
            after = frozenset({f"drain/{name}"})
            extra.append(_uncordon(name))
        by_key[action.key] = replace(action, after=action.after | after)
    joiners = [a for a in by_key.values() if a.verb is Verb.CREATE and a.key.startswith("k3s/")]
    for action in joiners:
        by_key[action.key] = replace(action, after=action.after | {ends[name] for name in servers})
    return [*extra, *by_key.values()]


def _snapshot(config: ClusterConfig, facts: K3sFacts) -> tuple[frozenset[str], list[Action]]:
    name = snapshot_name(config)
    if any(name in kept for kept in facts.off_box):
        return frozenset(), []
    reason = "an upgrade cannot be taken back, only restored from"
    return frozenset({f"snapshot/{name}"}), [Action(Verb.CREATE, f"snapshot/{name}", reason, lane="etcd", stage=STAGE)]


def _predecessors(
    config: ClusterConfig, servers: list[str], agents: list[str], position: int, ends: dict[str, str]
) -> frozenset[str]:
    """What must have ended before the node at ``position`` is drained: the server before it, or its batch's."""
    if position < len(servers):
        return frozenset({ends[servers[position - 1]]}) if position else frozenset()
    behind = position - len(servers) - max(1, config.k3s.upgrade_batch)
    return frozenset({ends[agents[behind]]} if behind >= 0 else {ends[name] for name in servers})


def _drain(name: str, after: frozenset[str]) -> Action:
    return Action(Verb.CHANGE, f"drain/{name}", "its K3s gets another release", after, stage=STAGE, on=name)


def _uncordon(name: str) -> Action:
    after = frozenset({f"k3s/{name}"})
    return Action(Verb.CHANGE, f"uncordon/{name}", "it carries load again", after, stage=STAGE, on=name)


def order(config: ClusterConfig, names: Sequence[str]) -> list[str]:
    """Servers first, each group in the order of its numbers."""
    nodes: tuple[Node, ...] = (*config.controllers, *config.workers)
    return [node.name for node in nodes if node.name in names]
