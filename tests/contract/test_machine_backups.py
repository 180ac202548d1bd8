"""Backups of machines against the lab's Proxmox: the job, what it leaves, and one machine back from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from machines_house import House, Step, built

from funoffshore import errors
from funoffshore.checks import backups as checks
from funoffshore.checks.base import Sight
from funoffshore.config import Backup
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages import machines
from funoffshore.stages.machines import backups, restoring, saving
from funoffshore.stages.machines.backups import Stored
from funoffshore.world.ssh import FileWrite

DIARY = "/var/lib/diary"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Both machines on one Proxmox node, with a job, and just the privileges that are asked for."""
    with built(tmp_path) as made:
        yield prepared(made)


def prepared(house: House, schedule: str = "02:30") -> House:
    house.api.add_storage("kept", "dir", ("backup",), shared=True)
    house.config = replace(house.config, backup=Backup("kept", schedule))
    house.grant()
    house.settle()
    return house


def save(house: House, *names: str) -> None:
    for action in saving.plan(house.look()[0], saving.chosen(house.config, names)):
        saving.apply(house.world, house.config, action, Step())


def stored(house: House) -> Stored:
    return backups.stored(house.world, house.config, "kept")


def delete(house: House, name: str) -> int:
    """Somebody deletes a machine, and its disks with it."""
    (reading,) = [r for n, r in house.look()[0].machines.items() if n == name]
    assert isinstance(reading, Present)
    vmid = reading.value.vmid
    proxmox = house.doors.proxmox
    proxmox.wait_task(proxmox.stop(reading.value.hypervisor, vmid), Step(), "it to stop")
    proxmox.wait_task(proxmox.delete(reading.value.hypervisor, vmid), Step(), "it to go")
    return vmid


def choose(house: House, name: str, volume: str = "", *, force: bool = False) -> restoring.Choice:
    node = house.config.node(name)
    return restoring.choose(house.world, house.config, node, house.look()[0], volume, force=force)


def restore(house: House, name: str, volume: str = "", *, force: bool = False) -> None:
    action = restoring.plan(house.config.node(name), choose(house, name, volume, force=force))
    restoring.apply(house.world, house.config, action, Step())


def findings(house: House) -> dict[str, tuple[Outcome, str]]:
    sight = Sight(house.world, house.config)
    found = [check.ask(sight) for check in checks.checks(house.config)]
    return {finding.id: (finding.outcome, " ".join((finding.said, *finding.evidence))) for finding in found}


def write(house: House, name: str, text: str) -> None:
    house.doors.hosts.write(house.config.node(name), [FileWrite(DIARY, text.encode())])


def read(house: House, name: str) -> str:
    found = house.doors.hosts.read_file(house.config.node(name), DIARY)
    assert isinstance(found, Present), found
    return found.value.decode()


def age(house: House, name: str, days: int) -> None:
    """The machine's newest backup was made that many days earlier."""
    newest = stored(house).saved[name][0].backup
    path = house.api.volume_file("pve", newest.volid)
    stamp = datetime.fromtimestamp(newest.at, UTC).strftime("%Y_%m_%d-%H_%M_%S")
    older = datetime.fromtimestamp(newest.at - days * 86400, UTC).strftime("%Y_%m_%d-%H_%M_%S")
    for beside in path.parent.glob(f"{path.name}*"):
        os.rename(beside, beside.with_name(beside.name.replace(stamp, older)))


def test_the_job_is_made_mended_and_taken_away(house: House) -> None:
    assert house.calls("/cluster/backup") == ["POST /cluster/backup fo-lab"]
    assert not house.plan()
    job = house.doors.proxmox.backup_jobs()["fo-lab"]
    assert (job["pool"], job["storage"], job["compress"]) == (house.config.proxmox.pool, "kept", "zstd")
    house.doors.proxmox.change_backup_job("fo-lab", {"vmid": "9000", "enabled": False})
    plan = house.plan()
    assert "it names machines one by one (vmid=9000)" in plan.actions["backup/job"].reason
    house.run(plan)
    assert not house.plan()
    assert "vmid" not in house.doors.proxmox.backup_jobs()["fo-lab"]
    house.config = replace(house.config, backup=None)
    house.run(house.plan())
    assert house.doors.proxmox.backup_jobs() == {}
    assert not house.plan()


def test_the_job_of_another_cluster_is_left_alone(house: House) -> None:
    other = backups.body(replace(house.config, name="home"), Backup("kept"))
    house.doors.proxmox.create_backup_job(other)
    assert not house.plan()
    house.destroy()
    assert list(house.doors.proxmox.backup_jobs()) == ["fo-home"]


def test_a_storage_that_takes_no_backups_is_said(tmp_path: Path) -> None:
    with built(tmp_path) as house:
        house.api.add_storage("kept", "dir", ("iso",), shared=True)
        house.config = replace(house.config, backup=Backup("kept"))
        resources = house.doors.proxmox.resources()
        with pytest.raises(errors.PreflightError, match="takes no backups: its content is iso"):
            backups.storage_kind(resources, house.config, "kept")
        with pytest.raises(errors.PreflightError, match="no Proxmox node of the cluster has a storage pbs"):
            backups.storage_kind(resources, house.config, "pbs")
        assert isinstance(stored(house).of("lab-c1"), Unreadable)


def test_the_job_saves_and_a_lost_machine_comes_back_as_it_was(tmp_path: Path) -> None:
    with built(tmp_path) as house:
        due = datetime.fromtimestamp(house.kit.clock.now() + 90, UTC)
        prepared(house, f"{due:%H:%M}")
        write(house, "lab-w1", "before")
        key = house.doors.hosts.shown_key(house.config.node("lab-w1"))
        while len(stored(house).saved) < 2:
            house.kit.clock.sleep(5)
        write(house, "lab-w1", "after")
        assert findings(house)["FO-BAK-003"][0] is Outcome.PASS
        vmid = delete(house, "lab-w1")
        restore(house, "lab-w1")
        found = house.doors.proxmox.config("pve", vmid)
        assert found is not None
        assert found.identity == str(house.config.node("lab-w1").identity)
        assert not house.doors.proxmox.running("pve", vmid)
        house.settle()
        assert house.doors.proxmox.running("pve", vmid)
        assert house.doors.hosts.shown_key(house.config.node("lab-w1")) == key
        assert read(house, "lab-w1") == "before"
        assert {row.pool for row in house.doors.proxmox.guests()} == {house.config.proxmox.pool}


def test_a_backup_by_hand_names_each_machine_and_prunes_nothing(house: House) -> None:
    save(house, "lab-c1")
    save(house, "lab-c1")
    save(house)
    found = stored(house)
    assert {name: len(rows) for name, rows in found.saved.items()} == {"lab-c1": 3, "lab-w1": 1}
    times = [one.backup.at for one in found.saved["lab-c1"]]
    assert times == sorted(times, reverse=True)
    assert found.saved["lab-w1"][0].backup.notes == "fo-lab lab-w1"
    assert found.others == 0


def test_a_backup_that_failed_is_an_error(house: House) -> None:
    house.kit.faults.on("task-fail", type="vzdump", times="1")
    with pytest.raises(errors.TaskFailedError):
        save(house, "lab-w1")
    outcome, said = findings(house)["FO-BAK-003"]
    assert outcome is Outcome.FAIL
    assert "Backup of VM" in said
    save(house, "lab-w1")
    assert findings(house)["FO-BAK-003"][0] is Outcome.PASS


def test_a_task_of_a_stopped_run_is_waited_for(house: House) -> None:
    (action,) = saving.plan(house.look()[0], ["lab-w1"])
    house.kit.faults.on("task-hang", type="vzdump")
    upid = house.doors.proxmox.vzdump("pve", {"vmid": action.values["vmids"], "storage": "kept", "mode": "snapshot",
                                              "notes-template": backups.notes(house.config)})  # fmt: skip
    house.kit.clock.after(5, lambda: house.kit.faults.off("task-hang"))
    saving.apply(house.world, house.config, action, Step({"upid": upid, "vmids": action.values["vmids"]}))
    assert len(house.calls("vzdump")) == 1
    assert len(stored(house).saved["lab-w1"]) == 1


def test_what_others_saved_is_counted_and_not_taken_for_ours(house: House) -> None:
    vmid = house.vmid("lab-w1")
    proxmox = house.doors.proxmox
    body = {"vmid": str(vmid), "storage": "kept", "notes-template": "{{guestname}}"}
    proxmox.wait_task(proxmox.vzdump("pve", body), Step(), "the backup")
    assert (dict(stored(house).saved), stored(house).others) == ({}, 1)
    assert stored(house).of("lab-w1") == Absent()


def test_findings_follow_the_age_of_the_newest_backup(house: House) -> None:
    found = findings(house)
    assert found["FO-BAK-001"][0] is Outcome.PASS
    assert found["FO-BAK-002"] == (Outcome.WARN, "new machines without a backup: 2 lab-c1: no backup lab-w1: no backup")
    assert found["FO-BAK-003"][0] is Outcome.WARN
    save(house, "lab-c1")
    house.api.edit(house.vmid("lab-w1"), meta="creation-qemu=9.2.0,ctime=1000000000")
    machines.observe(house.world, house.config)
    outcome, said = findings(house)["FO-BAK-002"]
    assert (outcome, said) == (
        Outcome.FAIL,
        "machines without a good backup from the last 50 h: 1 lab-w1: no backup",
    )
    save(house, "lab-w1")
    assert {outcome for outcome, _ in findings(house).values()} == {Outcome.PASS}
    age(house, "lab-c1", 2)
    assert findings(house)["FO-BAK-002"][0] is Outcome.PASS
    age(house, "lab-c1", 1)
    outcome, said = findings(house)["FO-BAK-002"]
    assert outcome is Outcome.FAIL
    assert "lab-c1: the newest is from" in said
    house.doors.proxmox.delete_backup_job("fo-lab")
    assert findings(house)["FO-BAK-001"][0] is Outcome.FAIL


def test_what_cannot_be_seen_is_unknown(house: House) -> None:
    save(house)
    house.api.remove_storage("kept")
    assert findings(house)["FO-BAK-002"][0] is Outcome.UNKNOWN
    house.api.stop()
    assert {outcome for outcome, _ in findings(house).values()} == {Outcome.UNKNOWN}


def test_without_a_storage_the_operator_is_warned_once(house: House) -> None:
    house.config = replace(house.config, backup=None)
    assert findings(house) == {
        "FO-BAK-001": (Outcome.WARN, "VM_BACKUP_STORAGE is empty, so fo has no machine backed up")
    }


def test_each_proxmox_node_saves_its_own(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2")) as house:
        prepared(house)
        save(house)
        assert set(stored(house).saved) == {"lab-c1", "lab-w1"}
        assert len(house.calls("vzdump")) == 2
        house.api.add_storage("kept", "dir", ("backup",), nodes=("pve", "pve2"))
        save(house)
        assert {one.hypervisor for rows in stored(house).saved.values() for one in rows[:1]} == {"pve", "pve2"}
        house.api.take_down("pve2")
        found = stored(house)
        assert isinstance(found.of("lab-w1"), Present | Unreadable)
        assert found.unread
        with pytest.raises(errors.UnreachableError):
            choose(house, "lab-w1")


def test_a_restore_goes_where_there_is_room(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2")) as house:
        free = tuple(replace(node, hypervisor="") for node in house.config.nodes)
        house.config = replace(house.config, nodes=free)
        prepared(house)
        save(house)
        delete(house, "lab-w1")
        gib = 2**30
        house.api.set_memory("pve", 16 * gib, 15 * gib)
        house.api.set_memory("pve2", 64 * gib, 4 * gib)
        assert choose(house, "lab-w1").hypervisor == "pve2"
        restore(house, "lab-w1")
        house.settle()
        assert {row.node for row in house.doors.proxmox.guests() if row.name == "lab-w1"} == {"pve2"}


def test_a_machine_that_exists_is_only_replaced_when_it_is_off_and_meant(house: House) -> None:
    save(house)
    vmid = house.vmid("lab-w1")
    with pytest.raises(errors.PreflightError, match="is running"):
        choose(house, "lab-w1", force=True)
    proxmox = house.doors.proxmox
    proxmox.wait_task(proxmox.stop("pve", vmid), Step(), "it to stop")
    with pytest.raises(errors.PreflightError, match="exists; a restore would replace its disks"):
        choose(house, "lab-w1")
    house.api.edit(vmid, protection=1)
    with pytest.raises(errors.PreflightError, match="protected"):
        choose(house, "lab-w1", force=True)
    house.api.edit(vmid, protection=None)
    write_before = house.calls()
    restore(house, "lab-w1", force=True)
    assert len(house.calls()) == len(write_before) + 1
    house.settle()
    assert house.vmid("lab-w1") == vmid


def test_a_machine_switched_on_meanwhile_is_not_replaced(house: House) -> None:
    save(house)
    vmid, proxmox = house.vmid("lab-w1"), house.doors.proxmox
    proxmox.wait_task(proxmox.stop("pve", vmid), Step(), "it to stop")
    action = restoring.plan(house.config.node("lab-w1"), choose(house, "lab-w1", force=True))
    proxmox.wait_task(proxmox.start("pve", vmid), Step(), "it to start")
    with pytest.raises(errors.PreflightError, match="has changed meanwhile"):
        restoring.apply(house.world, house.config, action, Step())


def test_a_vmid_that_a_stranger_has_is_never_taken(house: House) -> None:
    save(house)
    vmid = delete(house, "lab-w1")
    action = restoring.plan(house.config.node("lab-w1"), choose(house, "lab-w1"))
    house.api.add_stranger(vmid, "somebody")
    with pytest.raises(errors.ForeignError, match="somebody"):
        choose(house, "lab-w1")
    with pytest.raises(errors.ForeignError, match="somebody"):
        restoring.apply(house.world, house.config, action, Step())
    assert [row.name for row in house.doors.proxmox.guests() if row.vmid == vmid] == ["somebody"]


def test_notes_prove_nothing(house: House) -> None:
    save(house, "lab-w1")
    genuine = stored(house).saved["lab-w1"][0].backup.volid
    house.api.add_stranger(9555, "lab-w1")
    proxmox = house.doors.proxmox
    body = {"vmid": "9555", "storage": "kept", "notes-template": backups.notes(house.config)}
    proxmox.wait_task(proxmox.vzdump("pve", body), Step(), "the backup")
    delete(house, "lab-w1")
    with pytest.raises(errors.ForeignError, match="is no backup of lab-w1: the SMBIOS UUID in it is"):
        choose(house, "lab-w1")
    restore(house, "lab-w1", genuine)
    house.settle()


def test_a_backup_that_is_not_there_is_said(house: House) -> None:
    delete(house, "lab-w1")
    with pytest.raises(errors.PreflightError, match="there is not a backup of lab-w1 on kept"):
        choose(house, "lab-w1")
    with pytest.raises(errors.PreflightError, match="there is not the backup kept:backup/x"):
        choose(house, "lab-w1", "kept:backup/x.vma.zst")


def test_a_controller_is_never_restored_beside_another(house: House) -> None:
    save(house)
    controller = house.config.node("lab-c1")
    second = replace(house.config.node("lab-w1"), role=controller.role)
    house.config = replace(house.config, nodes=(controller, second))
    delete(house, "lab-c1")
    with pytest.raises(errors.PreflightError, match="a member that has forgotten what it agreed to"):
        choose(house, "lab-c1")
    delete(house, "lab-w1")
    restore(house, "lab-c1")
    with pytest.raises(errors.PreflightError, match="lab-c1 exists"):
        choose(house, "lab-w1")


def test_a_lost_reply_does_not_restore_twice(house: House) -> None:
    save(house)
    delete(house, "lab-w1")
    action = restoring.plan(house.config.node("lab-w1"), choose(house, "lab-w1"))
    house.kit.faults.on("pve-cut", path="/nodes/pve/qemu", times="1")
    restoring.apply(house.world, house.config, action, Step())
    house.settle()
