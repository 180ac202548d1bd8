"""The vzdump job of the cluster's machines, and what its storage holds of them.

The job takes its machines from the cluster's pool, so a machine that comes or goes needs no change of it. Facts from
pve-manager ``PVE/API2/Backup.pm``, ``PVE/VZDump.pm``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from funoffshore import errors, run
from funoffshore.config import Backup, ClusterConfig
from funoffshore.plan import Action, Verb
from funoffshore.pveapi import calendar
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines.facts import MachineFacts
from funoffshore.world.proxmox import Resources, TaskRow, VmBackup, properties

if TYPE_CHECKING:
    from funoffshore.world.world import World

KEY = "backup/job"
STAGE = "machines"
PBS = "pbs"
"""Type of a storage that is a Proxmox Backup Server: it compresses by itself, and verifies what it holds."""
HOUR = 3600.0
_MINUTES_A_WEEK = 7 * 24 * 60
_LOGS = 10
"""How many of a Proxmox node's latest vzdump tasks are read to find one that was about our machines."""
_NARROWING = {
    "vmid": "it names machines one by one",
    "all": "it takes every guest there is",
    "exclude": "it leaves guests out",
    "node": "it runs on one Proxmox node only",
}
_DEFAULTS = {"enabled": "1", "mode": "snapshot", "repeat-missed": "0"}
"""What Proxmox takes where a job does not say."""


def job_id(config: ClusterConfig) -> str:
    """The job's name, one for each cluster."""
    return f"fo-{config.name}"


def notes(config: ClusterConfig, name: str = "{{guestname}}") -> str:
    """The notes of a backup of machine ``name``; without a name the template that Proxmox fills in."""
    return f"fo-{config.name} {name}"


def body(config: ClusterConfig, wanted: Backup, kind: str = "") -> dict[str, Any]:
    """The job as it shall be. ``kind`` is the type of its storage."""
    job: dict[str, Any] = {
        "id": job_id(config),
        "enabled": True,
        "pool": config.proxmox.pool,
        "storage": wanted.storage,
        "schedule": wanted.schedule,
        "repeat-missed": True,
        "mode": "snapshot",
        "prune-backups": wanted.keep,
        "notes-template": notes(config),
    }
    return job if kind == PBS else job | {"compress": "zstd"}


def observe(world: World, config: ClusterConfig) -> Reading[Mapping[str, str]]:
    """The cluster's job as texts, in one call. Never raises FoError."""
    try:
        jobs = world.proxmox.backup_jobs()
    except errors.FoError as why:
        return Unreadable(why.message)
    found = jobs.get(job_id(config))
    return Absent() if found is None else Present(found)


def differences(config: ClusterConfig, wanted: Backup, job: Mapping[str, str]) -> list[str]:
    """What is not as the env file says, a clause each. The compression is set once and left to the operator then."""
    found = [f"{clause} ({name}={job[name]})" for name, clause in _NARROWING.items() if job.get(name, "0") != "0"]
    for name, value in body(config, wanted, PBS).items():
        if name == "id":
            continue
        expected = str(int(value)) if isinstance(value, bool) else str(value)
        seen = job.get(name) or _DEFAULTS.get(name, "")
        if _normal(name, seen) != _normal(name, expected):
            found.append(f"its {name} is {seen or 'not set'}, not {expected}")
    return found


def _normal(name: str, text: str) -> object:
    """Equal for texts that mean the same to Proxmox."""
    if name == "prune-backups":
        return {key: value for key, value in properties(text).items() if value != "0"}
    if name == "schedule":
        try:
            return calendar.parse(text)
        except ValueError:
            return text
    return text


def plan(config: ClusterConfig, facts: MachineFacts) -> list[Action]:
    """At most one action. Pure; a job that was not seen is neither made nor changed."""
    wanted, reading = config.backup, facts.backup_job
    match reading:
        case Present(_) if wanted is None:
            reason = "VM_BACKUP_STORAGE is empty; the backups that exist stay"
            return [Action(Verb.DELETE, KEY, reason, stage=STAGE)]
        case _ if wanted is None:
            return []
        case Absent():
            after = frozenset({f"pool/{config.proxmox.pool}"})
            reason = f"{job_id(config)} is absent; it saves the machines to {wanted.storage} at {wanted.schedule}"
            return [Action(Verb.CREATE, KEY, reason, after, stage=STAGE)]
        case Unreadable(why):
            return [Action(Verb.WAIT, KEY, f"Proxmox did not show whether it exists ({why})", stage=STAGE)]
        case Present(job):
            wrong = differences(config, wanted, job)
            return [Action(Verb.CHANGE, KEY, ", ".join(wrong), stage=STAGE)] if wrong else []


def apply(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    """Brings the job to where it shall be. Looks first, so it may be called again after a crash."""
    jobs, name, wanted = world.proxmox.backup_jobs(), job_id(config), config.backup
    if action.verb is Verb.WAIT:
        return
    if action.verb is Verb.DELETE or wanted is None:
        if name in jobs:
            step.say(f"deleting the backup job {name}")
            world.proxmox.delete_backup_job(name)
        return
    job = jobs.get(name)
    if job is not None and not differences(config, wanted, job):
        return
    kind = storage_kind(world.proxmox.resources(), config, wanted.storage)
    desired = body(config, wanted, kind)
    if job is None:
        step.say(f"making the backup job {name}")
        _create(world, config, wanted, desired)
        return
    step.say(f"changing the backup job {name}")
    changes = {key: value for key, value in desired.items() if key not in ("id", "compress")}
    if unset := [option for option in _NARROWING if option in job]:
        changes["delete"] = ",".join(unset)
    world.proxmox.change_backup_job(name, changes)


def _create(world: World, config: ClusterConfig, wanted: Backup, desired: Mapping[str, Any]) -> None:
    try:
        world.proxmox.create_backup_job(desired)
    except (errors.RefusedError, errors.UnreachableError):
        # The reply may be all that was lost, or another fo was faster.
        job = world.proxmox.backup_jobs().get(job_id(config))
        if job is None or differences(config, wanted, job):
            raise


def storage_kind(resources: Resources, config: ClusterConfig, storage: str) -> str:
    """The type of the backup storage. Raises PreflightError when no Proxmox node of ours has it for backups."""
    rows = [row for row in resources.storages if row.name == storage and row.node in config.proxmox.nodes]
    if not rows:
        raise errors.PreflightError(
            f"no Proxmox node of the cluster has a storage {storage} that the token may see",
            fix="Correct VM_BACKUP_STORAGE in the env file, or grant Datastore.Audit on it.",
        )
    if not any("backup" in row.content for row in rows):
        raise errors.PreflightError(
            f"the storage {storage} takes no backups: its content is {', '.join(sorted(rows[0].content)) or 'none'}",
            fix=f"Add the content Backup: Datacenter → Storage → {storage} → Edit → Content.",
        )
    return rows[0].kind


def period(schedule: str) -> float:
    """The longest time between two runs of the schedule, seconds. Raises ValueError for what is no schedule."""
    if schedule.strip().lower() == "monthly":
        return 31 * 24 * HOUR
    event = calendar.parse(schedule)
    due = sorted((d * 24 + h) * 60 + m for d in event.days for h in event.hours for m in event.minutes)
    gaps = [later - earlier for earlier, later in zip(due, [*due[1:], due[0] + _MINUTES_A_WEEK], strict=True)]
    return max(gaps) * 60.0


def patience(wanted: Backup) -> float:
    """How old the latest backup of a machine may be, seconds: one run may be missed, and one may take its time."""
    return 2 * period(wanted.schedule) + 2 * HOUR


@dataclass(frozen=True, slots=True)
class Saved:
    """One backup of one machine of this cluster."""

    machine: str
    hypervisor: str
    """A Proxmox node that can read it."""
    backup: VmBackup


@dataclass(frozen=True, slots=True)
class Stored:
    """What one storage holds of this cluster."""

    storage: str
    saved: Mapping[str, tuple[Saved, ...]]
    """By machine, newest first. Machines that the env file no longer names are among them."""
    unread: tuple[str, ...] = ()
    """Why some of it could not be read; then a machine without a backup may have one all the same."""
    others: int = 0
    """Backups that carry the VMID of one of ours and not the notes of this cluster's job."""

    def of(self, name: str) -> Reading[tuple[Saved, ...]]:
        """The backups of one machine. Absent: it was seen that there is none."""
        found = self.saved.get(name, ())
        if found:
            return Present(found)
        return Unreadable(self.unread[0]) if self.unread else Absent()


@dataclass(frozen=True, slots=True)
class LastRun:
    """The latest vzdump task about our machines that has ended on one Proxmox node."""

    task: TaskRow
    failures: tuple[str, ...] = ()
    """What its log says of machines that were not saved, and its warnings."""


@dataclass(frozen=True, slots=True)
class Results:
    """How the backups of this cluster are."""

    stored: Stored
    runs: Mapping[str, Reading[LastRun]] = field(default_factory=dict)
    """By Proxmox node; Absent: none since two periods ago."""


def results(world: World, config: ClusterConfig, wanted: Backup) -> Results:
    """What is stored, and how the last run ended. Never raises FoError."""
    since = world.clock.now() - patience(wanted)
    runs = world.proxmox.gather({name: partial(_last_run, world, config, name, since) for name in config.proxmox.nodes})
    readings: dict[str, Reading[LastRun]] = {}
    for name, found in runs.items():
        if isinstance(found, errors.FoError):
            readings[name] = Unreadable(found.message)
        else:
            readings[name] = Absent() if found is None else Present(found)
    return Results(stored(world, config, wanted.storage), readings)


def stored(world: World, config: ClusterConfig, storage: str, *, everything: bool = False) -> Stored:
    """This cluster's backups on ``storage``, wherever its nodes see it. Never raises FoError.

    ``everything``: those of others too, as of a machine without a name.
    """
    try:
        resources = world.proxmox.resources()
        storage_kind(resources, config, storage)
    except errors.FoError as why:
        return Stored(storage, {}, (why.message,))
    asked, unread = _places(resources, config, storage)
    answers = world.proxmox.gather({name: partial(world.proxmox.backups, name, storage) for name in asked})
    vmids = {row.vmid for row in resources.guests if any(row.name == node.name for node in config.nodes)}
    rows: dict[tuple[str, str], Saved] = {}
    others = 0
    for hypervisor, answer in answers.items():
        if isinstance(answer, errors.FoError):
            unread.append(answer.message)
            continue
        for backup in answer:
            name = owner(config, backup)
            others += not name and backup.vmid in vmids
            if name or everything:
                rows[hypervisor, backup.volid] = Saved(name, hypervisor, backup)
    return Stored(storage, _sorted(rows.values()), tuple(unread), others)


def owner(config: ClusterConfig, backup: VmBackup) -> str:
    """The machine of this cluster that the notes name; empty for a backup that is not ours.

    Cheap, and so no proof: whoever restores one looks at the identity inside it first.
    """
    lines = backup.notes.strip().splitlines()
    mark, _, name = (lines[0] if lines else "").partition(" ")
    return name if mark == f"fo-{config.name}" and name.startswith(f"{config.name}-") else ""


def _local(resources: Resources, storage: str) -> bool:
    return not any(row.shared for row in resources.storages if row.name == storage)


def _places(resources: Resources, config: ClusterConfig, storage: str) -> tuple[list[str], list[str]]:
    """The Proxmox nodes to ask, one where all see the same, and why others cannot be."""
    rows = [row for row in resources.storages if row.name == storage and row.node in config.proxmox.nodes]
    active = sorted(row.node for row in rows if row.active)
    if not _local(resources, storage):
        return active[:1], [] if active else [f"the storage {storage} is not active on any Proxmox node"]
    dark = sorted(row.node for row in rows if not row.active)
    return active, [f"the storage {storage} is not active on {name}" for name in dark]


def _sorted(found: Iterable[Saved]) -> dict[str, tuple[Saved, ...]]:
    by_machine: dict[str, list[Saved]] = {}
    for one in sorted(found, key=lambda one: (-one.backup.at, one.backup.volid)):
        by_machine.setdefault(one.machine, []).append(one)
    return {name: tuple(rows) for name, rows in by_machine.items()}


def _last_run(world: World, config: ClusterConfig, hypervisor: str, since: float) -> LastRun | None:
    """A task says what it was about in its log only: its first line is the command with the template of the notes."""
    mark = notes(config)
    ended = [row for row in world.proxmox.tasks(hypervisor, since, "vzdump") if row.ended]
    for row in ended[:_LOGS]:
        lines = world.proxmox.task_log(row.upid)
        if any(mark in line for line in lines):
            wrong = [line.strip() for line in lines if line.lstrip().startswith(("ERROR:", "WARN:"))]
            return LastRun(row, tuple(wrong))
    return None
