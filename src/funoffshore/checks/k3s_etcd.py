"""etcd's members and its snapshots: whether the cluster could be brought back."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from funoffshore.checks import cron, k3s_files
from funoffshore.checks.base import ETCD_SNAPSHOT, Answer, Check, Sight, failed, passed, unknown, warned
from funoffshore.checks.hosts import Tally
from funoffshore.checks.k3s import nodes_by_name
from funoffshore.config import ClusterConfig, Node
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.k3s import copies, offbox
from funoffshore.world.ssh import HostFacts

ETCD_ROLE = "node-role.kubernetes.io/etcd"
MEMBER = "etcd.k3s.cattle.io/node-name"
ADDRESS = "etcd.k3s.cattle.io/node-address"
REMOVED = "etcd.k3s.cattle.io/removed-node-name"
SAVE = "fo k3s snapshot save"
HOUR = 3600.0
AHEAD = 300.0
"""Seconds that a server's clock may be ahead; what is dated later tells nothing of its age."""
_GRAVEST = (Outcome.FAIL, Outcome.UNKNOWN, Outcome.WARN, Outcome.PASS)
_STAMP = re.compile(r"-(\d{10})(?:\.zip)?$")
"""K3s ends a snapshot's name with the Unix time at which it was taken."""


def members(sight: Sight) -> Answer:
    """Members are the configured servers, each at its own address, and nobody else."""
    nodes = nodes_by_name(sight)
    if isinstance(nodes, tuple):
        return nodes
    tally = Tally()
    wanted = {node.name: node for node in sight.config.controllers}
    seen = 0
    for name, node in sorted(nodes.items()):
        told = node["metadata"].get("annotations") or {}
        carried = node["metadata"].get("labels") or {}
        if not told.get(MEMBER) and ETCD_ROLE not in carried:
            continue
        seen += 1
        member = told.get(MEMBER) or "a member without a name"
        if name not in wanted:
            tally.bad.append(f"{member} of {name}, which is no controller of the env file")
        elif told.get(REMOVED) and told[REMOVED] == told.get(MEMBER, told[REMOVED]):
            # Another name than the removed one's is the member that came after it.
            tally.bad.append(f"{told[REMOVED]} of {name} was taken out of etcd, and its Node is still there")
        elif told.get(ADDRESS) and told[ADDRESS] != str(wanted[name].address):
            tally.bad.append(f"{member} is at {told[ADDRESS]}, and {name} at {wanted[name].address}")
    tally.bad += [f"{name} has no member" for name in wanted if not _is_member(nodes.get(name))]
    return tally.answer(
        "etcd's members are not the controllers of the env file", f"{seen} members, none of them stale",
        "fo k3s replace NODE for a controller, kubectl delete node NODE for what shall be gone",
    )  # fmt: skip


def _is_member(node: dict[str, Any] | None) -> bool:
    return bool(node and (node["metadata"].get("annotations") or {}).get(MEMBER))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as K3s tells of it in the API (ETCDSnapshotFile, k3s.cattle.io/v1)."""

    name: str
    node: str
    """The server that holds it; ``s3`` for one in the bucket."""
    at: float
    """Unix seconds."""
    good: bool
    elsewhere: bool
    """Whether it lies in object storage."""
    error: str = ""


def snapshot_of(item: dict[str, Any]) -> Snapshot:
    """A snapshot without a time is as old as can be."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    try:
        at = datetime.fromisoformat(str(status.get("creationTime", ""))).timestamp()
    except ValueError:
        at = 0.0
    error = str((status.get("error") or {}).get("message", ""))
    return Snapshot(
        name=str(spec.get("snapshotName") or item["metadata"]["name"]),
        node=str(spec.get("nodeName", "")),
        at=at,
        good=status.get("readyToUse") is True and not error and at > 0,
        elsewhere=bool(spec.get("s3")) or str(spec.get("location", "")).startswith("s3://"),
        error=error,
    )


def _patience(sight: Sight) -> float | None:
    """Seconds that the newest snapshot may be old: two rounds of the schedule. None for what is no schedule."""
    gap = cron.longest_gap(sight.config.k3s.snapshots.schedule)
    return gap and 2 * gap


def _is_young(sight: Sight, patience: float) -> bool:
    """Whether the cluster has not lived through two rounds of the schedule; what cannot be told is not young."""
    nodes = nodes_by_name(sight)
    if isinstance(nodes, tuple) or not nodes:
        return False
    stamps = [str(node["metadata"].get("creationTimestamp", "")) for node in nodes.values()]
    try:
        oldest = min(datetime.fromisoformat(stamp).timestamp() for stamp in stamps)
    except ValueError:
        return False
    return sight.world.clock.now() - oldest < patience


def _judge(sight: Sight, found: Sequence[Snapshot], patience: float, what: str, fix: str) -> Answer:
    """Whether the newest good one is young enough. A cluster that is younger than that may still be waiting for it."""
    now = sight.world.clock.now()
    good = sorted((one for one in found if one.good and one.at <= now + AHEAD), key=lambda one: one.at)
    hours = f"{patience / HOUR:.0f} h"
    if good and now - good[-1].at <= patience:
        newest = good[-1]
        return passed(f"{newest.name} ({newest.node or 'of an unnamed server'}) is from {moment(newest.at)}")
    broken = [f"{one.name}: {one.error or 'not ready to use'}" for one in found if not one.good]
    broken += [f"{one.name}: dated in the future" for one in found if one.good and one not in good]
    if good:
        said = f"the newest {what} is from {moment(good[-1].at)}, older than {hours}"
        return failed(said, *broken, fix=fix)
    if not broken and _is_young(sight, patience):
        return warned(f"there is no {what} yet, and the cluster is younger than {hours}", fix=fix)
    return failed(f"there is no {what}", *broken, fix=fix)


def snapshots(sight: Sight) -> Answer:
    """K3s tells of a snapshot that is ready to use and younger than twice its schedule."""
    patience = _patience(sight)
    if patience is None:
        return unknown(f"ETCD_SNAPSHOT_SCHEDULE is no schedule: {sight.config.k3s.snapshots.schedule}")
    match sight.list(ETCD_SNAPSHOT):
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return failed("the cluster does not know etcd snapshots", fix="look whether K3s runs with etcd")
        case Present(items):
            return _judge(sight, [snapshot_of(item) for item in items], patience, "etcd snapshot", SAVE)


def elsewhere(sight: Sight) -> Answer:
    """A copy lies where the cluster's own disks are not: what burns with the cluster brings nothing back.

    Of S3 and NFS each that the env file names must work; without either a copy on this computer will do.
    """
    wanted, patience = sight.config.k3s.snapshots, _patience(sight)
    if patience is None:
        return unknown(f"ETCD_SNAPSHOT_SCHEDULE is no schedule: {wanted.schedule}")
    answers = [_in_bucket(sight, patience)] if wanted.s3 else []
    answers += [_on_nfs(sight, patience)] if wanted.nfs else []
    if not answers:
        return _here(sight, patience)
    return min(answers, key=lambda answer: _GRAVEST.index(answer[0]))


def _in_bucket(sight: Sight, patience: float) -> Answer:
    match sight.list(ETCD_SNAPSHOT):
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return failed("the cluster does not know etcd snapshots", fix="look whether K3s runs with etcd")
        case Present(items):
            found = [one for item in items if (one := snapshot_of(item)).elsewhere]
            fix = "look at the journal of k3s.service for S3 errors, and at the ETCD_S3_* keys of the env file"
            return _judge(sight, found, patience, "etcd snapshot in S3", fix)


def _on_nfs(sight: Sight, patience: float) -> Answer:
    """By the names of the copies, which tell when they were taken, and by the timer of every server."""
    tally, names = Tally(), set[str]()
    for node in sight.config.controllers:
        if host := tally.host(node, sight.host(node)):
            names |= copied(tally, sight.config, node, host)
    fix = f"look at the journal of {copies.SERVICE} on that server, and at the export {sight.config.k3s.snapshots.nfs}"
    if tally.bad or tally.dark:
        return tally.answer("the copies of etcd snapshots to NFS do not run everywhere", "", fix)
    found = [snapshot for name in sorted(names) if (snapshot := _named(name, "NFS"))]
    return _judge(sight, found, patience, "etcd snapshot on NFS", fix)


def copied(tally: Tally, config: ClusterConfig, node: Node, host: HostFacts) -> set[str]:
    """Names of the copies that ``node`` sees on NFS, with lines about what keeps it from making any."""
    pattern = k3s_files.copies_of(config)
    match host.unit(copies.TIMER):
        case Present(timer) if timer.active != "active":
            tally.bad.append(f"{node.name}: {copies.TIMER} is {timer.active}")
        case Absent():
            tally.bad.append(f"{node.name}: {copies.TIMER} is absent")
        case Unreadable(why):
            tally.dark.append(f"{node.name}: {why}")
    service = host.unit(copies.SERVICE)
    if isinstance(service, Present) and service.value.active == "failed":
        tally.bad.append(f"{node.name}: {copies.SERVICE} failed ({service.value.result})")
    if isinstance(there := host.modes.get(pattern), Unreadable):
        tally.dark.append(f"{node.name}: {there.why}")
    paths = [path for path, fact in host.modes.items() if isinstance(fact, Present)]
    return {path.rsplit("/", 1)[1] for path in paths if fnmatch.fnmatchcase(path, pattern)}


def _here(sight: Sight, patience: float) -> Answer:
    """Copies that were taken by hand. A warning at the worst: nobody was told to have any."""
    fix = "set ETCD_S3_BUCKET and its companions or ETCD_SNAPSHOT_NFS in the env file, or fo k3s snapshot copy"
    found = offbox.copies(sight.config)
    if isinstance(found, Unreadable):
        return unknown(found.why)
    names = [name for name, _ in found.value] if isinstance(found, Present) else []
    kept = [one for name in names if (one := _named(name, "this computer"))]
    if not kept:
        return warned("etcd snapshots lie on the cluster's own disks alone", fix=fix)
    answer = _judge(sight, kept, patience, "copy of an etcd snapshot on this computer", fix)
    return answer if answer[0] is Outcome.PASS else warned(answer[1], *answer[2], fix=fix)


def _named(name: str, where: str) -> Snapshot | None:
    """A snapshot as its file name tells of it; None for a file that is none."""
    stamp = _STAMP.search(name)
    return Snapshot(name, where, float(stamp[1]), good=True, elsewhere=True) if stamp else None


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


CHECKS = (
    Check("FO-ETCD-002", "etcd to have no stale member", members),
    Check("FO-ETCD-003", "a fresh etcd snapshot to be there", snapshots),
    Check("FO-ETCD-004", "an etcd snapshot to be kept off the cluster", elsewhere),
)
