"""The backup job, what counts as ours on its storage, and what is planned for a backup by hand. No world needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from funoffshore import errors, journal
from funoffshore.config import Backup, ClusterConfig, loader, new
from funoffshore.plan import Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import backups, saving
from funoffshore.stages.machines.backups import Saved, Stored
from funoffshore.stages.machines.facts import Machine, MachineFacts
from funoffshore.world.proxmox import VmBackup, VmConfig

_PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)
WANTED = Backup("pbs", "02:30", "keep-daily=7,keep-weekly=4")
STORED = {
    "enabled": "1", "pool": "fo-lab", "storage": "pbs", "schedule": "02:30", "repeat-missed": "1", "mode": "snapshot",
    "prune-backups": "keep-daily=7,keep-weekly=4", "notes-template": "fo-lab {{guestname}}", "compress": "zstd",
    "type": "vzdump", "next-run": "1795498319",
}  # fmt: skip
"""As Proxmox shows the job once it was made."""


@cache
def _whole() -> ClusterConfig:
    return loader.parse(
        new.generate("lab", {**_PINS, "CONTROLLERS": "3", "WORKERS": "2"}, lab=True), "lab", Path("/nowhere")
    )


def config(wanted: Backup | None = WANTED) -> ClusterConfig:
    return replace(_whole(), backup=wanted)


def machine(name: str, hypervisor: str) -> Reading[Machine]:
    return Present(Machine(hypervisor, config().node(name).vmid, name, VmConfig({"name": name}), running=True))


def test_the_job_takes_the_pool_and_names_the_cluster_and_the_machine() -> None:
    job = backups.body(config(), WANTED)
    assert job["id"] == "fo-lab"
    assert job["pool"] == "fo-lab"
    assert job["notes-template"] == "fo-lab {{guestname}}"
    assert job["compress"] == "zstd"
    assert "vmid" not in job


def test_a_backup_server_compresses_by_itself() -> None:
    assert "compress" not in backups.body(config(), WANTED, "pbs")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"prune-backups": "keep-weekly=4,keep-daily=7"},
        {"prune-backups": "keep-weekly=4,keep-daily=7,keep-last=0"},
        {"schedule": "2:30"},
        {"enabled": None, "mode": None},
        {"compress": None},
        {"compress": "lzo", "mailto": "me@example.org", "fleecing": "enabled=1"},
        {"all": "0"},
    ],
    ids=str,
)
def test_what_means_the_same_is_no_difference(change: dict[str, str | None]) -> None:
    job = {key: value for key, value in {**STORED, **change}.items() if value is not None}
    assert backups.differences(config(), WANTED, job) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prune-backups": "keep-daily=3"}, "its prune-backups is keep-daily=3, not keep-daily=7,keep-weekly=4"),
        ({"schedule": "03:30"}, "its schedule is 03:30, not 02:30"),
        ({"schedule": "sat 02:30"}, "its schedule is sat 02:30, not 02:30"),
        ({"enabled": "0"}, "its enabled is 0, not 1"),
        ({"mode": "stop"}, "its mode is stop, not snapshot"),
        ({"repeat-missed": None}, "its repeat-missed is 0, not 1"),
        ({"storage": "local"}, "its storage is local, not pbs"),
        ({"notes-template": None}, "its notes-template is not set, not fo-lab {{guestname}}"),
        ({"node": "pve2"}, "it runs on one Proxmox node only (node=pve2)"),
        ({"exclude": "9001"}, "it leaves guests out (exclude=9001)"),
        ({"all": "1"}, "it takes every guest there is (all=1)"),
    ],
)
def test_a_difference_is_named(change: dict[str, str | None], said: str) -> None:
    job = {key: value for key, value in {**STORED, **change}.items() if value is not None}
    assert backups.differences(config(), WANTED, job) == [said]


def test_machines_named_one_by_one_instead_of_the_pool() -> None:
    job = {key: value for key, value in STORED.items() if key != "pool"} | {"vmid": "9000,9001"}
    assert backups.differences(config(), WANTED, job) == [
        "it names machines one by one (vmid=9000,9001)",
        "its pool is not set, not fo-lab",
    ]


@pytest.mark.parametrize(
    ("wanted", "job", "verbs"),
    [
        (WANTED, Absent(), [Verb.CREATE]),
        (WANTED, Present(STORED), []),
        (WANTED, Present({**STORED, "enabled": "0"}), [Verb.CHANGE]),
        (WANTED, Unreadable("no answer"), [Verb.WAIT]),
        (None, Absent(), []),
        (None, Unreadable("no answer"), []),
        (None, Present(STORED), [Verb.DELETE]),
    ],
)
def test_the_plan(wanted: Backup | None, job: Reading[Mapping[str, str]], verbs: list[Verb]) -> None:
    actions = backups.plan(config(wanted), MachineFacts(backup_job=job))
    assert [action.verb for action in actions] == verbs
    assert all(action.key == "backup/job" for action in actions)


def test_the_job_waits_for_its_pool() -> None:
    (action,) = backups.plan(config(), MachineFacts(backup_job=Absent()))
    assert action.after == frozenset({"pool/fo-lab"})


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [
        ("02:30", 24), ("daily", 24), ("*/6:00", 6), ("1,13:00", 12), ("8,10:00", 22), ("mon..fri 22:00", 72),
        ("sat 02:30", 168), ("weekly", 168), ("monthly", 31 * 24),
    ],
)  # fmt: skip
def test_the_longest_time_between_two_runs(schedule: str, hours: int) -> None:
    assert backups.period(schedule) == hours * 3600
    assert backups.patience(Backup("pbs", schedule)) == (2 * hours + 2) * 3600


def volume(vmid: int = 9000, at: float = 1000.0, notes: str = "fo-lab lab-c1") -> VmBackup:
    return VmBackup(f"pbs:backup/vm/{vmid}/{at:.0f}", vmid, at, 1 << 30, notes, False)


@pytest.mark.parametrize(
    ("notes", "name"),
    [
        ("fo-lab lab-c1", "lab-c1"),
        ("fo-lab lab-c1\nby hand\n", "lab-c1"),
        ("fo-lab lab-w9", "lab-w9"),
        ("fo-lab home-c1", ""),
        ("fo-home lab-c1", ""),
        ("lab-c1", ""),
        ("", ""),
    ],
)
def test_the_notes_say_whose_a_backup_is(notes: str, name: str) -> None:
    assert backups.owner(config(), volume(notes=notes)) == name


def test_no_backup_was_seen_only_where_everything_was() -> None:
    saved = (Saved("lab-c1", "pve1", volume()),)
    whole, partly = Stored("pbs", {"lab-c1": saved}), Stored("pbs", {"lab-c1": saved}, ("pve2 is down",))
    assert whole.of("lab-c1") == partly.of("lab-c1") == Present(saved)
    assert whole.of("lab-c2") == Absent()
    assert partly.of("lab-c2") == Unreadable("pve2 is down")


def test_one_task_for_each_proxmox_node() -> None:
    on = {"lab-c1": "pve1", "lab-c2": "pve2", "lab-w1": "pve1"}
    seen = MachineFacts(machines={name: machine(name, hypervisor) for name, hypervisor in on.items()})
    actions = saving.plan(seen, saving.chosen(config(), []))
    numbers = {name: str(config().node(name).vmid) for name in on}
    assert [(a.key, a.values["machines"], a.values["vmids"], a.on) for a in actions] == [
        ("vzdump/pve1", "lab-c1,lab-w1", f"{numbers['lab-c1']},{numbers['lab-w1']}", ""),
        ("vzdump/pve2", "lab-c2", numbers["lab-c2"], "lab-c2"),
    ]


def test_nothing_is_passed_over_in_silence() -> None:
    unseen: Reading[Machine] = Unreadable("pve2 is down")
    seen = MachineFacts(machines={"lab-c1": machine("lab-c1", "pve1"), "lab-c2": unseen, "lab-w1": Absent()})
    found = saving.left_out(seen, ["lab-c1", "lab-c2", "lab-w1"])
    assert [type(why) for why in found] == [errors.UnreachableError, errors.PreflightError]
    assert "pve2 is down" in found[0].message
    assert saving.left_out(seen, ["lab-c1"]) == []


def test_only_machines_of_the_cluster_can_be_named() -> None:
    assert saving.chosen(config(), ["lab-w1", "lab-c1"]) == ("lab-c1", "lab-w1")
    with pytest.raises(errors.ConfigError, match="no machine home-c1"):
        saving.chosen(config(), ["home-c1"])


def test_without_a_storage_nothing_can_be_saved() -> None:
    with pytest.raises(errors.ConfigError, match="no storage for backups"):
        saving.wanted(config(None))


@pytest.mark.parametrize("outcome", ["", "failed", "done"])
def test_a_run_that_was_stopped_is_taken_up_again(tmp_path: Path, outcome: str) -> None:
    for about, upid in ((saving.RUN, "UPID:old"), (saving.RUN, "UPID:new"), ("flux", "UPID:other")):
        log = journal.Journal.begin(tmp_path, lambda: 1.0, str, until=about)
        log.write("record", "vzdump/pve", sync=False, upid=upid, vmids="9000")
        if outcome:
            log.write("end", "", sync=False, outcome=outcome)
        log.close()
    expected = {} if outcome == "done" else {"vzdump/pve": {"upid": "UPID:new", "vmids": "9000"}}
    assert saving.unfinished(tmp_path) == expected
