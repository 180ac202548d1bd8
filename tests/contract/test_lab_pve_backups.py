"""Backups on the lab's Proxmox: jobs as recorded from a real 8.4 API, archives that can be restored, retention."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pve_bench
import pytest
from pve_bench import Bench, Guests

from funoffshore.lab.hosts import disks
from funoffshore.lab.hosts.files import Files
from funoffshore.lab.pve import archives

Q, JOBS = "/nodes/pve/qemu", "/cluster/backup"
JOB: dict[str, Any] = {
    "id": "fo-job", "schedule": "daily", "storage": "local", "prune-backups": "keep-last=3", "mode": "snapshot",
}  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        made.call("POST", "/pools", poolid="fo")
        for vmid in (120, 174):
            assert made.done("POST", Q, vmid=vmid, name=f"node-{vmid}", pool="fo", scsi0="vmstore:1", cores=2) == "OK"
        yield made


def until(true: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(4000):
        if true():
            return
        pause.wait(0.002)
    raise AssertionError("it does not come to pass")


def kept(bench: Bench, **how: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench.call("GET", "/nodes/pve/storage/local/content", content="backup", **how).data
    return found


def test_a_job_is_kept_as_recorded(bench: Bench) -> None:
    assert bench.call("GET", JOBS).data == []
    assert bench.call("POST", JOBS, **JOB, vmid="120,174", enabled=1).data is None
    shown = {**JOB, "prune-backups": {"keep-last": "3"}, "vmid": "120,174", "enabled": 1, "type": "vzdump"}
    (row,) = bench.call("GET", JOBS).data
    assert row.pop("next-run") % 86400 == 0
    assert row == shown
    assert bench.call("GET", f"{JOBS}/fo-job").data == shown
    again = bench.call("POST", JOBS, **JOB, vmid="120")
    assert (again.status, again.reason) == (500, "Job 'fo-job' already exists")
    assert bench.done("DELETE", f"{Q}/174") == "OK"
    assert bench.call("GET", f"{JOBS}/fo-job").data["vmid"] == "120,174"
    assert bench.done("POST", Q, vmid=174) == "OK"
    assert bench.done("DELETE", f"{Q}/174", purge=1) == "OK"
    assert bench.call("GET", f"{JOBS}/fo-job").data["vmid"] == "120"
    assert bench.call("DELETE", f"{JOBS}/fo-job").data is None
    missing = bench.call("DELETE", f"{JOBS}/fo-job")
    assert (missing.status, missing.reason) == (500, "400 Parameter verification failed.")
    assert missing.body["message"] == "400 Parameter verification failed.\nid: No such job 'fo-job'\n"


def test_a_job_is_changed_and_checked(bench: Bench) -> None:
    assert bench.call("POST", JOBS, **JOB, vmid="120").data is None
    assert bench.call("PUT", f"{JOBS}/fo-job", pool="fo", schedule="02:30", delete="prune-backups").data is None
    found = bench.call("GET", f"{JOBS}/fo-job").data
    assert (found["pool"], found["schedule"], "vmid" in found, "prune-backups" in found) == (
        "fo",
        "02:30",
        False,
        False,
    )
    assert bench.call("PUT", f"{JOBS}/fo-job", schedule="sometimes").errors["schedule"].startswith("invalid format - ")
    assert "pool" in bench.call("POST", JOBS, id="a-job", schedule="daily", pool="nope").errors
    assert bench.call("POST", JOBS, schedule="daily", vmid=1200, pool="fo").errors == {
        "pool": "option conflicts with option 'vmid'"
    }
    assert "schedule" in bench.call("POST", JOBS, vmid=120).errors
    weak = bench.call("POST", JOBS, "weak@pve!t1", **JOB, vmid="120")
    assert weak.reason == "Permission check failed (/, Sys.Modify)"
    assert "id" in bench.call("GET", f"{JOBS}/nope").errors


def test_a_backup_is_an_archive_with_notes(bench: Bench) -> None:
    upid = bench.call("POST", "/nodes/pve/vzdump", vmid=120, storage="local", compress="zstd", mode="snapshot",
                      notes_template="{{guestname}} on {{node}}\\n{{vmid}}").data  # fmt: skip
    assert ":vzdump:120:" in upid
    log = bench.log(upid)
    assert log[0].startswith("INFO: starting new backup job: vzdump 120 --compress zstd")
    assert log[-2:] == ["INFO: Backup job finished successfully", "TASK OK"]
    assert log[3:6] == ["INFO: status = stopped", "INFO: backup mode: stop", "INFO: ionice priority: 7"]
    assert "INFO: include disk 'scsi0' 'vmstore:120/vm-120-disk-0.raw' 1G" in log
    (row,) = kept(bench)
    assert re.fullmatch(r"local:backup/vzdump-qemu-120-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d\.vma\.zst", row["volid"])
    assert (row["vmid"], row["format"], row["content"]) == (120, "vma.zst", "backup")
    assert row["notes"] == "node-120 on pve\n120"
    assert bench.kit.clock.epoch - 1 <= row["ctime"] <= bench.kit.clock.now()
    assert kept(bench, vmid=174) == []
    assert "lock" not in bench.config(120)
    path = f"/nodes/pve/storage/local/content/{row['volid']}"
    assert bench.call("PUT", path, notes="mine", protected=1).data is None
    assert [(row["notes"], row["protected"]) for row in kept(bench)] == [("mine", 1)]
    shown = bench.call("GET", path).data
    assert (shown["notes"], shown["protected"], shown["format"]) == ("mine", 1, "vma.zst")
    assert bench.done("DELETE", path).startswith("cannot remove protected archive")
    assert bench.call("PUT", path, protected=0).data is None
    assert bench.done("DELETE", path) == "OK"
    assert kept(bench) == []


def test_a_machine_is_locked_while_it_is_backed_up(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path) as bench:
        assert bench.done("POST", Q, vmid=120) == "OK"
        bench.kit.faults.on("task-hang", type="vzdump")
        upid = bench.call("POST", "/nodes/pve/vzdump", vmid=120, storage="local").data
        until(lambda: bench.config(120).get("lock") == "backup")
        assert bench.call("PUT", f"{Q}/120/config", cores=2).reason == "VM is locked (backup)"
        assert bench.done("POST", f"{Q}/120/status/start") == "VM is locked (backup)"
        bench.call("DELETE", f"/nodes/pve/tasks/{upid}")
        assert bench.wait(upid) == "received interrupt"
        assert "lock" not in bench.config(120)
        assert kept(bench) == []


def test_one_failure_does_not_stop_the_others(bench: Bench) -> None:
    bench.api.edit(120, lock="snapshot")
    upid = bench.call("POST", "/nodes/pve/vzdump", pool="fo", storage="local").data
    assert ":vzdump::" in upid
    assert bench.wait(upid) == "job errors"
    assert "ERROR: Backup of VM 120 failed - VM is locked (snapshot)" in bench.log(upid)
    assert [row["vmid"] for row in kept(bench)] == [174]


def test_refusals_of_a_backup(bench: Bench) -> None:
    dump = "/nodes/pve/vzdump"
    assert bench.call("POST", dump, storage="local").errors == {"vmid": "property is missing"}
    assert bench.done("POST", dump, vmid=120, storage="vmstore") == (
        "could not get storage information for 'vmstore': can't use storage 'vmstore' for backups - wrong content type"
    )
    assert bench.done("POST", dump, vmid=120, storage="nosuch").startswith("could not activate storage 'nosuch'")
    assert bench.done("POST", dump, vmid=4711, storage="local") == "job errors"
    bench.call("POST", "/cluster/ha/resources", sid="vm:174", state="started")
    upid = bench.call("POST", dump, vmid=174, storage="local", mode="stop").data
    assert bench.wait(upid) == "job errors"
    assert any("Cannot execute a backup with stop mode on a HA managed" in line for line in bench.log(upid))
    weak = "weak@pve!t1"
    refused = bench.call("POST", dump, weak, vmid=120, storage="local")
    assert refused.reason == "Permission check failed (/storage/local, Datastore.AllocateSpace)"
    bench.api.set_privileges(weak, "/storage", ["Datastore.AllocateSpace"])
    upid = bench.call("POST", dump, weak, vmid=120, storage="local").data
    assert bench.wait(upid) == "403 Permission check failed (/vms/120, VM.Backup)"
    assert bench.call("POST", dump, vmid=120, tmpdir="/tmp").errors == {"tmpdir": "Only root may set this option."}


def test_a_job_runs_when_its_time_has_come(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, speed=600) as bench:
        bench.call("POST", "/pools", poolid="fo")
        for vmid in (120, 121):
            assert bench.done("POST", Q, vmid=vmid, pool="fo") == "OK"
        how = {**JOB, "schedule": "minutely", "prune-backups": "keep-last=2"}
        assert bench.call("POST", JOBS, **how, pool="fo").data is None

        def runs() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = bench.call("GET", "/nodes/pve/tasks", typefilter="vzdump").data
            return found

        until(lambda: len(runs()) >= 4)
        bench.call("PUT", f"{JOBS}/fo-job", enabled=0)
        assert {(row["user"], row["status"]) for row in runs()} == {("root@pam", "OK")}
        until(lambda: len(kept(bench, vmid=120)) == len(kept(bench, vmid=121)) == 2)
        assert "next-run" not in bench.call("GET", JOBS).data[0]


def test_retention_keeps_one_of_each_span(tmp_path: Path) -> None:
    day = 86400
    for at in (0, 3600, 7200, day, day + 60, 2 * day, 40 * day):
        (tmp_path / archives.name(120, at, "zstd")).touch()
    found = archives.listed(tmp_path, 120)

    def left(**keep: str) -> list[int]:
        gone = archives.superfluous(found, {name.replace("_", "-"): value for name, value in keep.items()})
        return [archive.at for archive in found if archive not in gone]

    assert left(keep_last="2") == [40 * day, 2 * day]
    assert left(keep_daily="3") == [40 * day, 2 * day, day + 60]
    assert left(keep_last="1", keep_hourly="2") == [40 * day, 2 * day, day + 60]
    assert left(keep_monthly="5") == [40 * day, 2 * day]
    assert len(left(keep_all="1")) == len(left()) == 7
    archives.beside(found[-1].path, ".protected").touch()
    assert left(keep_last="1") == [40 * day, 0]


def test_an_archive_becomes_a_machine_again(bench: Bench) -> None:
    net = "virtio=BC:24:11:00:00:01,bridge=vmbr0"
    made: dict[str, Any] = {"scsi0": "vmstore:2,discard=on", "ide2": "vmstore:cloudinit", "net0": net, "memory": 1024}
    assert bench.done("POST", Q, vmid=130, name="kept", **made) == "OK"
    before = bench.config(130)
    assert bench.done("POST", "/nodes/pve/vzdump", vmid=130, storage="local", compress="zstd") == "OK"
    archive = kept(bench, vmid=130)[0]["volid"]
    taken = bench.call("POST", Q, vmid=130, archive=archive)
    assert taken.reason == "unable to restore VM 130 - VM 130 already exists on node 'pve'"
    assert bench.call("PUT", f"{Q}/130/config", memory=2048, protection=1).data is None
    kept_safe = bench.call("POST", Q, vmid=130, archive=archive, force=1)
    assert kept_safe.reason == "unable to restore VM 130 - - protection mode enabled"
    assert bench.call("PUT", f"{Q}/130/config", delete="protection").data is None
    assert bench.done("POST", f"{Q}/130/status/start") == "OK"
    running = bench.call("POST", Q, vmid=130, archive=archive, force=1)
    assert running.reason == "unable to restore VM 130 - vm is running"
    assert bench.done("POST", f"{Q}/130/status/stop") == "OK"
    upid = bench.call("POST", Q, vmid=130, archive=archive, force=1).data
    assert ":qmrestore:130:" in upid
    assert bench.wait(upid) == "OK", bench.log(upid)
    after = bench.config(130)
    same = set(before) - {"digest", "vmgenid", "scsi0", "ide2"}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["scsi0"].endswith(",discard=on,size=2G")
    volumes = bench.call("GET", "/nodes/pve/storage/vmstore/content", vmid=130).data
    assert {row["volid"] for row in volumes} == {after[key].split(",")[0] for key in ("scsi0", "ide2")}


def test_a_copy_from_an_archive_can_be_unique(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=130, net0="virtio,bridge=vmbr0", scsi0="vmstore:1") == "OK"
    assert bench.done("POST", "/nodes/pve/vzdump", vmid=130, storage="local") == "OK"
    archive = kept(bench, vmid=130)[0]["volid"]
    assert bench.done("POST", Q, vmid=131, archive=archive, unique=1, storage="tiny", name="copy", pool="fo") == "OK"
    old, new = bench.config(130), bench.config(131)
    assert all(old[key] != new[key] for key in ("smbios1", "net0", "vmgenid"))
    assert (new["name"], new["scsi0"]) == ("copy", "tiny:131/vm-131-disk-0.raw,size=1G")
    assert bench.done("POST", Q, vmid=132, archive="local:backup/vzdump-qemu-130-2020_01_01-00_00_00.vma").startswith(
        "unable to restore VM 132 - "
    )
    assert bench.call("GET", f"{Q}/132/config").status == 500


class Remembering(Guests):
    """Machines whose disks can be put aside."""

    def save_disks(self, vmid: int, target: Path) -> None:
        target.write_text(f"disks of {vmid}")

    def load_disks(self, vmid: int, source: Path) -> None:
        self.history.append((source.read_text(), vmid))


def test_what_is_on_the_disks_comes_back(tmp_path: Path) -> None:
    made = Bench(pve_bench.kit(tmp_path), Remembering(), pve_bench.subnet(), "8.4")
    pve_bench.prepare(made)
    made.api.start()
    try:
        assert made.done("POST", Q, vmid=130) == "OK"
        assert made.done("POST", "/nodes/pve/vzdump", vmid=130, storage="local") == "OK"
        assert made.done("POST", Q, vmid=131, archive=kept(made)[0]["volid"]) == "OK"
        assert made.guests.history[-1] == ("disks of 130", 131)
    finally:
        made.session.close()
        made.api.stop()
        made.kit.clock.stop()
        made.kit.store.close()


def test_a_hosts_files_keep_owners_and_modes(tmp_path: Path) -> None:
    kit = pve_bench.kit(tmp_path)
    files = Files(tmp_path / "one", kit.store, 1)
    files.root.mkdir()
    files.make_folders("/home/fo")
    files.write("/home/fo/key", b"secret", 0o600, 1000, 1000)
    files.write("/etc/shadow", "root", 0o000)
    files.path("/link", follow=False).symlink_to("/home/fo/key")
    files.write("/proc/cpuinfo", "made at boot")
    disks.save(files, tmp_path / "kept.tar")
    disks.load(tmp_path / "two", kit.store, 2, tmp_path / "kept.tar")
    found = Files(tmp_path / "two", kit.store, 2)
    shown = found.stat("/home/fo/key")
    assert (shown.st_uid, shown.st_mode & 0o7777, found.read("/link")) == (1000, 0o600, "secret")
    assert found.stat("/etc/shadow").st_mode & 0o7777 == 0
    assert not found.exists("/proc/cpuinfo")
    kit.store.close()


def test_a_backup_server_names_its_archives_otherwise(bench: Bench) -> None:
    bench.api.add_storage("pbs", "pbs", ("backup",), shared=True)
    how = {"storage": "pbs", "prune-backups": "keep-last=1", "notes-template": "{{guestname}}"}
    for _ in range(2):
        upid = bench.raw("POST", "/nodes/pve/vzdump", data={"vmid": 120, **how}).data
        assert bench.wait(upid) == "OK", bench.log(upid)
    (row,) = bench.call("GET", "/nodes/pve/storage/pbs/content", vmid=120).data
    assert re.fullmatch(r"pbs:backup/vm/120/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["volid"])
    assert (row["format"], row["notes"], row["verification"]["state"]) == ("pbs-vm", "node-120", "ok")
    assert "name: node-120" in bench.call("GET", "/nodes/pve/vzdump/extractconfig", volume=row["volid"]).data
    assert bench.done("POST", Q, vmid=120, archive=row["volid"], force=1) == "OK"
    path = f"/nodes/pve/storage/pbs/content/{row['volid']}"
    assert bench.call("PUT", path, protected=1).data is None
    assert bench.done("DELETE", path).startswith("cannot remove protected archive")
    assert bench.call("GET", "/nodes/pve/storage/pbs/content/pbs:backup/x").reason == (
        "unable to parse PBS volume name 'backup/x'"
    )
