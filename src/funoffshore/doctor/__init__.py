"""What would stop a bootstrap, each question answered without changing anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from funoffshore import errors, road
from funoffshore.config import ClusterConfig, Node
from funoffshore.doctor import look, network
from funoffshore.doctor.findings import TITLES, failed, passed, unknown
from funoffshore.doctor.proxmox import Patient, count
from funoffshore.findings import Finding, Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages import k3s, machines
from funoffshore.stages.machines import MachineFacts
from funoffshore.world.world import World

__all__ = ["TITLES", "examine"]


def examine(world: World, config: ClusterConfig) -> tuple[Finding, ...]:
    """The findings, most basic first, passes included. Everything is looked at, whatever is found.

    Proxmox is neither asked nor told of where fo makes no machine.
    """
    try:
        facts: road.Facts | errors.FoError = road.look(world, config)
    except errors.FoError as why:
        facts = why
    lent = config.of_made()
    if not config.made:
        seen = MachineFacts()
    else:
        seen = machines.observe(world, lent) if isinstance(facts, errors.FoError) else facts.machines
    patient = Patient(world, lent, seen) if config.made else None
    return (
        passed("FO-DOC-001", f"config/env/{config.name}.env loads"),
        _tools(),
        _commit(world.repo.head()),
        _remote(world, config),
        *(_proxmox(seen, patient) if patient else ()),
        *network.examine(config, seen, world.reach, _founded(config, facts)),
        *look.examine(world, config, [node for node in config.nodes if _is_up(seen, node)]),
        _rest(config, facts, patient),
    )


def _is_up(seen: MachineFacts, node: Node) -> bool:
    """Whether there is a host to ask: what fo does not make is there, whatever it says."""
    return not node.made or machines.is_running(seen, node.name)


def _founded(config: ClusterConfig, facts: road.Facts | errors.FoError) -> bool | None:
    """Whether the cluster exists on controllers that fo does not make; of those that it makes, Proxmox tells."""
    if all(node.made for node in config.controllers):
        return False
    return None if isinstance(facts, errors.FoError) else k3s.cluster_exists(config, facts.k3s)


def _proxmox(seen: MachineFacts, patient: Patient) -> Iterator[Finding]:
    yield failed("FO-DOC-005", [seen.door]) if seen.door else passed("FO-DOC-005", "it does, and it takes the token")
    yield from patient.findings()


def _tools() -> Finding:
    missing = [tool for tool in ("git",) if shutil.which(tool) is None]
    if missing:
        said = f"missing: {', '.join(missing)}"
        return Finding("FO-DOC-002", TITLES["FO-DOC-002"], Outcome.FAIL, said, fix="install them")
    return passed("FO-DOC-002", "git is installed")


def _commit(head: Reading[str]) -> Finding:
    match head:
        case Present(commit):
            return passed("FO-DOC-003", f"it is at {commit[:12]}")
        case Absent():
            fix = "git init, git add, git commit"
            return Finding("FO-DOC-003", TITLES["FO-DOC-003"], Outcome.FAIL, "it has none", fix=fix)
        case Unreadable(why):
            return unknown("FO-DOC-003", why, "")


def _remote(world: World, config: ClusterConfig) -> Finding:
    match world.repo.remote_head():
        case Present(commit):
            return passed("FO-DOC-004", f"{config.git.branch} is at {commit[:12]}")
        case Absent():
            said = f"{config.git.url} has no branch {config.git.branch}"
            fix = "git push, or set GIT_BRANCH"
            return Finding("FO-DOC-004", TITLES["FO-DOC-004"], Outcome.FAIL, said, fix=fix)
        case Unreadable(why):
            return unknown("FO-DOC-004", why, "check GIT_URL and its credentials")


def _rest(config: ClusterConfig, facts: road.Facts | errors.FoError, patient: Patient | None) -> Finding:
    """What stands in the way beyond the machines; and how much there is to do when nothing does."""
    if isinstance(facts, errors.FoError):
        return failed("FO-DOC-006", [facts])
    told = {why.message for whys in patient.told.values() for why in whys} if patient else set()
    told |= {facts.machines.door.message} if facts.machines.door else set()
    if left := [why for why in road.problems(config, facts) if why.message not in told]:
        return failed("FO-DOC-006", left)
    if facts.machines.door:
        return unknown("FO-DOC-006", "there is no plan while Proxmox cannot be asked", "see FO-DOC-005")
    if told:
        return passed("FO-DOC-006", "nothing but what is named above")
    return passed("FO-DOC-006", f"{count(len(road.plan(config, facts).actions), 'action')} could start")
