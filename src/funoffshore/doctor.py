"""What would stop a bootstrap, each question answered without changing anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from funoffshore import errors, road
from funoffshore.config import ClusterConfig
from funoffshore.findings import Finding, Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.world import World


def examine(world: World, config: ClusterConfig) -> tuple[Finding, ...]:
    """The findings, most basic first."""
    return (
        Finding("FO-DOC-001", "the env file to be right", Outcome.PASS, f"config/env/{config.name}.env loads"),
        _tools(),
        _commit(world.repo.head()),
        _remote(world, config),
        _answers(
            "FO-DOC-005", "Proxmox to answer with the pinned certificate", lambda: world.proxmox.version().release
        ),
        *_obstacles(world, config),
    )


def _release(world: World) -> str:
    return "it is Proxmox VE " + ".".join(str(part) for part in world.proxmox.version().release)


def _tools() -> Finding:
    title = "the programs that fo calls to be installed"
    missing = [tool for tool in ("git",) if shutil.which(tool) is None]
    if missing:
        return Finding("FO-DOC-002", title, Outcome.FAIL, f"missing: {', '.join(missing)}", fix="install them")
    return Finding("FO-DOC-002", title, Outcome.PASS, "git is installed")


def _commit(head: Reading[str]) -> Finding:
    title = "the repository to have a commit"
    match head:
        case Present(commit):
            return Finding("FO-DOC-003", title, Outcome.PASS, f"it is at {commit[:12]}")
        case Absent():
            return Finding("FO-DOC-003", title, Outcome.FAIL, "it has none", fix="git init, git add, git commit")
        case Unreadable(why):
            return Finding("FO-DOC-003", title, Outcome.UNKNOWN, why)


def _remote(world: World, config: ClusterConfig) -> Finding:
    title = "Git to hold the branch that Flux shall follow"
    match world.repo.remote_head():
        case Present(commit):
            return Finding("FO-DOC-004", title, Outcome.PASS, f"{config.git.branch} is at {commit[:12]}")
        case Absent():
            said = f"{config.git.url} has no branch {config.git.branch}"
            return Finding("FO-DOC-004", title, Outcome.FAIL, said, fix="git push, or set GIT_BRANCH")
        case Unreadable(why):
            return Finding("FO-DOC-004", title, Outcome.UNKNOWN, why, fix="check GIT_URL and its credentials")


def _answers(id_: str, title: str, ask: Callable[[], object]) -> Finding:
    try:
        return Finding(id_, title, Outcome.PASS, str(ask()))
    except errors.UnreachableError as why:
        return Finding(id_, title, Outcome.UNKNOWN, why.message, why.evidence, why.fix)
    except errors.FoError as why:
        return Finding(id_, title, Outcome.FAIL, why.message, why.evidence, why.fix)


def _obstacles(world: World, config: ClusterConfig) -> tuple[Finding, ...]:
    """What a bootstrap would refuse to start with: privileges, storages, foreign machines, addresses in use."""
    title = "nothing to stand in the way of the plan"
    try:
        facts = road.look(world, config)
        found = road.problems(config, facts)
    except errors.UnreachableError as why:
        return (Finding("FO-DOC-006", title, Outcome.UNKNOWN, why.message, why.evidence, why.fix),)
    except errors.FoError as why:
        found = [why]
    if not found:
        wanted = road.plan(config, facts)
        return (Finding("FO-DOC-006", title, Outcome.PASS, f"{len(wanted.actions)} actions could start"),)
    return tuple(
        Finding(f"FO-DOC-{6 + n:03}", title, Outcome.FAIL, p.message, p.evidence, p.fix) for n, p in enumerate(found)
    )
