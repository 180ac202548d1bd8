"""Backups of the machines: the job is there, it runs, and every machine has a recent one."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from funoffshore.checks.base import Answer, Check, Sight, failed, passed, unknown, warned
from funoffshore.config import Backup, ClusterConfig
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages import machines
from funoffshore.stages.machines import backups

GUIDE = "docs/guide/backup.md"
NOW = f"fo backup now; see {GUIDE}"


def checks(config: ClusterConfig) -> tuple[Check, ...]:
    """One warning where nobody backs the machines up; else whether it works. None where fo makes no machine."""
    if not config.made:
        return ()
    job = Check("FO-BAK-001", "Proxmox to have the job that backs the machines up", _job)
    if config.backup is None:
        return (job,)
    once = _Once(config.backup)
    return (
        job,
        Check("FO-BAK-002", "every machine to have a recent backup", once.recent),
        Check("FO-BAK-003", "the last backup run to end well", once.last_run),
    )


def _job(sight: Sight) -> Answer:
    """The job is as the env file says."""
    config = sight.config.of_made()
    if config.backup is None:
        fix = f"set VM_BACKUP_STORAGE in the env file; see {GUIDE}"
        return warned("VM_BACKUP_STORAGE is empty, so fo has no machine backed up", fix=fix)
    match backups.observe(sight.world, config):
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return failed(f"there is no backup job {backups.job_id(config)}", fix="fo bootstrap")
        case Present(job):
            wrong = backups.differences(config, config.backup, job)
            if wrong:
                return failed(f"the job {backups.job_id(config)} is not as it shall be", *wrong, fix="fo bootstrap")
            return passed(f"{backups.job_id(config)} saves them to {config.backup.storage} at {config.backup.schedule}")


class _Once:
    """What both further checks are about, looked at once."""

    def __init__(self, wanted: Backup) -> None:
        self._wanted = wanted
        self._lock = threading.Lock()
        self._results: backups.Results | None = None

    def _look(self, sight: Sight) -> backups.Results:
        with self._lock:
            self._results = self._results or backups.results(sight.world, sight.config.of_made(), self._wanted)
            return self._results

    def recent(self, sight: Sight) -> Answer:
        """No backup is older than two rounds of the schedule. A new machine may still be waiting for its first."""
        found, now, patience = self._look(sight).stored, sight.world.clock.now(), backups.patience(self._wanted)
        facts = machines.observe(sight.world, sight.config.of_made(), thorough=False)
        lines: dict[Outcome, list[str]] = {outcome: [] for outcome in Outcome}
        fresh: list[float] = []
        for node in sight.config.made:
            reading = found.of(node.name)
            outcome, line = _judge(reading, facts.machine(node.name), now, patience, bool(found.unread))
            lines[outcome].append(f"{node.name}: {line}")
            fresh += [reading.value[0].backup.at] if isinstance(reading, Present) else []
        hours = f"{patience / backups.HOUR:.0f} h"
        if old := lines[Outcome.FAIL]:
            return failed(f"machines without a good backup from the last {hours}: {len(old)}", *old, fix=NOW)
        if dark := lines[Outcome.UNKNOWN]:
            said = f"machines of which it cannot be told whether they have a recent backup: {len(dark)}"
            return Outcome.UNKNOWN, said, (*dark, *found.unread), ""
        if none := lines[Outcome.WARN]:
            return warned(f"new machines without a backup: {len(none)}", *none, fix=f"wait for the job, or {NOW}")
        return passed(f"all {len(fresh)} machines have one; the oldest of the newest is from {_moment(min(fresh))}")

    def last_run(self, sight: Sight) -> Answer:
        """The latest task about our machines ended well on every Proxmox node that had one."""
        lines = _by_outcome(self._look(sight).runs)
        if bad := lines[Outcome.FAIL]:
            fix = f"mend what the lines say, then {NOW}"
            return failed("the last backup run failed", *bad, *lines[Outcome.UNKNOWN], fix=fix)
        if dark := lines[Outcome.UNKNOWN]:
            return Outcome.UNKNOWN, "cannot tell how the last backup run ended", tuple(dark), ""
        if warnings := lines[Outcome.WARN]:
            fix = "look at the task on the Proxmox host"
            return warned("the last backup run ended with warnings", *warnings, fix=fix)
        if good := lines[Outcome.PASS]:
            return passed("it ended well", *good)
        hours = f"{backups.patience(self._wanted) / backups.HOUR:.0f} h"
        return warned(f"no Proxmox node shows a backup run of the last {hours}", fix=f"wait for the job, or {NOW}")


def _judge(
    reading: Reading[tuple[backups.Saved, ...]],
    machine: Reading[machines.Machine],
    now: float,
    patience: float,
    partly: bool,
) -> tuple[Outcome, str]:
    """About one machine. ``partly``: some of the storage was not seen, so there may be a newer backup."""
    match reading:
        case Unreadable(why):
            return Outcome.UNKNOWN, why
        case Absent():
            age = _age(machine, now)
            if age is None:
                return Outcome.UNKNOWN, "no backup, and its age cannot be told"
            return (Outcome.WARN if age < patience else Outcome.FAIL), "no backup"
        case Present(rows):
            newest = rows[0]
            line = f"the newest is from {_moment(newest.backup.at)} ({newest.backup.volid})"
            if newest.backup.verified == "failed":
                return Outcome.FAIL, f"{line}, and the backup server found it damaged"
            if now - newest.backup.at <= patience:
                return Outcome.PASS, line
            return (Outcome.UNKNOWN if partly else Outcome.FAIL), line


def _by_outcome(runs: Mapping[str, Reading[backups.LastRun]]) -> dict[Outcome, list[str]]:
    """Evidence lines about the last run of each Proxmox node; nodes without one give none."""
    lines: dict[Outcome, list[str]] = {outcome: [] for outcome in Outcome}
    for hypervisor, reading in runs.items():
        match reading:
            case Unreadable(why):
                lines[Outcome.UNKNOWN].append(f"{hypervisor}: {why}")
            case Present(run):
                well = Outcome.PASS if run.task.exitstatus == "OK" else Outcome.WARN
                line = f"{hypervisor}, {_moment(run.task.started)}: {run.task.exitstatus}"
                lines[well if run.task.state.succeeded else Outcome.FAIL] += [line, *run.failures]
            case Absent():
                pass
    return lines


def _age(reading: Reading[machines.Machine], now: float) -> float | None:
    """Seconds since the machine was made, 0 when there is none yet; None when that cannot be told."""
    match reading:
        case Unreadable():
            return None
        case Absent():
            return 0.0
        case Present(machine):
            born = machine.config.parts("meta").get("ctime", "")
            return now - float(born) if born.isdigit() else now


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
