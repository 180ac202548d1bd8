"""Snapshots, templates and clones on the lab's Proxmox, as recorded from a real 8.4 API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pve_bench
import pytest
from pve_bench import SECRET, Bench
from test_lab_pve_backups import Remembering

Q = "/nodes/pve/qemu"
IMAGE = "vmstore:0,import-from=local:import/deb.qcow2"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(pve_bench.kit(tmp_path), Remembering(), pve_bench.subnet(), "8.4")
    pve_bench.prepare(made)
    made.api.add_storage("thin", "lvmthin", ("images",))
    made.api.start()
    assert made.done("POST", Q, vmid=170, name="tpl", scsi0=IMAGE, net0="virtio,bridge=vmbr0") == "OK"
    yield made
    made.session.close()
    made.api.stop()
    made.kit.clock.stop()
    made.kit.store.close()


def test_a_snapshot_brings_back_what_was(bench: Bench) -> None:
    path = f"{Q}/170/snapshot"
    upid = bench.call("POST", path, snapname="s1", description="hi").data
    assert ":qmsnapshot:170:" in upid
    assert bench.log(upid) == ["snapshotting 'drive-scsi0' (vmstore:170/vm-170-disk-0.qcow2)", "TASK OK"]
    assert bench.done("POST", path, snapname="s1") == "snapshot name 's1' already used"
    assert bench.call("PUT", f"{Q}/170/config", cores=4).data is None
    assert bench.done("POST", path, snapname="s2") == "OK"
    rows = {row["name"]: row for row in bench.call("GET", path).data}
    assert (rows["s1"]["description"], "parent" in rows["s1"], rows["s2"]["parent"]) == ("hi", False, "s1")
    assert (rows["current"]["parent"], rows["current"]["running"]) == ("s2", 0)
    assert "cores" not in bench.call("GET", f"{Q}/170/config", snapshot="s1").data
    assert bench.config(170)["parent"] == "s2"
    assert bench.done("POST", f"{Q}/170/status/start") == "OK"
    upid = bench.call("POST", f"{path}/s1/rollback").data
    assert ":qmrollback:170:" in upid
    assert bench.wait(upid) == "OK"
    assert "cores" not in bench.config(170)
    assert bench.call("GET", f"{Q}/170/status/current").data["status"] == "stopped"
    assert bench.guests.history[-1] == ("disks of 170", 170)
    assert bench.done("DELETE", f"{path}/s1") == "OK"
    rows = {row["name"]: row for row in bench.call("GET", path).data}
    assert ("parent" in rows["s2"], "parent" in rows["current"]) == (False, False)


def test_what_has_no_snapshots_says_so(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=115, scsi0="vmstore:1") == "OK"
    upid = bench.call("POST", f"{Q}/115/snapshot", snapname="s1").data
    assert bench.log(upid) == ["TASK ERROR: snapshot feature is not available"]
    upid = bench.call("DELETE", f"{Q}/170/snapshot/nosuch").data
    assert ":qmdelsnapshot:170:" in upid
    assert bench.log(upid) == ["TASK ERROR: snapshot 'nosuch' does not exist"]
    assert bench.call("POST", f"{Q}/170/snapshot", snapname="current").status == 500
    assert bench.done("POST", f"{Q}/170/snapshot/nosuch/rollback") == "snapshot 'nosuch' does not exist"
    assert bench.call("GET", f"{Q}/170/config", snapshot="nosuch").reason == "snapshot 'nosuch' does not exist"
    weak = bench.call("POST", f"{Q}/170/snapshot", "weak@pve!t1", snapname="s1")
    assert weak.reason == "Permission check failed (/vms/170, VM.Snapshot)"
    assert bench.done("POST", Q, vmid=116, scsi0="thin:1") == "OK"
    assert bench.done("POST", f"{Q}/116/snapshot", snapname="s1") == "OK"


def test_a_template_is_linked_to_or_copied_as_recorded(bench: Bench) -> None:
    upid = bench.call("POST", f"{Q}/170/template").data
    assert ":qmtemplate:170:" in upid
    assert bench.log(upid) == ["TASK OK"]
    base = "vmstore:170/base-170-disk-0.qcow2"
    config = bench.config(170)
    assert (config["template"], config["scsi0"]) == (1, f"{base},size=300M")
    assert bench.done("POST", f"{Q}/170/status/start") == "you can't start a vm if it's a template"
    upid = bench.call("POST", f"{Q}/170/clone", newid=171, name="c1").data
    cloning = "clone 170/base-170-disk-0.qcow2: images, vm-171-disk-0.qcow2, 171 to vm-171-disk-0.qcow2"
    how = "fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=314572800"
    formatting = f"Formatting '/srv/vmstore/images/171/vm-171-disk-0.qcow2', {how}"
    assert bench.log(upid) == [
        f"create linked clone of drive scsi0 ({base})",
        f"{cloning} (base=../170/base-170-disk-0.qcow2)",
        f"{formatting} backing_file=../170/base-170-disk-0.qcow2 backing_fmt=qcow2 lazy_refcounts=off refcount_bits=16",
        "TASK OK",
    ]
    assert bench.guests.history[-1] == ("disks of 170", 171)


def test_a_linked_clone_is_a_machine_of_its_own(bench: Bench) -> None:
    base = "vmstore:170/base-170-disk-0.qcow2"
    assert bench.done("POST", f"{Q}/170/template") == "OK"
    assert bench.done("POST", f"{Q}/170/clone", newid=171, name="c1") == "OK"
    linked = bench.config(171)
    assert linked["scsi0"] == "vmstore:170/base-170-disk-0.qcow2/171/vm-171-disk-0.qcow2,size=300M"
    assert (linked["name"], "template" in linked) == ("c1", False)
    upid = bench.call("POST", f"{Q}/170/clone", newid=172, full=1, storage="vmstore").data
    assert bench.log(upid)[0] == f"create full clone of drive scsi0 ({base})"
    assert bench.config(172)["scsi0"] == "vmstore:172/vm-172-disk-0.qcow2,size=300M"
    assert bench.call("PUT", f"{Q}/171/config", scsi1="vmstore:1").data is None
    assert bench.config(171)["scsi1"] == "vmstore:171/vm-171-disk-1.raw,size=1G"
    assert bench.done("PUT", f"{Q}/171/resize", disk="scsi0", size="2G") == "OK"
    assert bench.done("POST", f"{Q}/171/status/start") == "OK"
    assert bench.guests.on[171].image == "local:import/deb.qcow2"
    assert bench.guests.on[171].disk_gib == 2
    assert bench.done("POST", f"{Q}/171/status/stop") == "OK"
    assert bench.done("DELETE", f"{Q}/170") == f"base volume '{base}' is still in use by linked cloned"
    assert bench.done("DELETE", f"{Q}/171") == "OK"
    assert bench.done("DELETE", f"{Q}/170") == "OK"
    rows = bench.call("GET", "/nodes/pve/storage/vmstore/content").data
    assert [row["volid"] for row in rows] == ["vmstore:172/vm-172-disk-0.qcow2"]


def test_templates_on_a_thin_pool(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=180, scsi0="thin:2", ide2="thin:cloudinit") == "OK"
    assert bench.done("POST", f"{Q}/180/template") == "OK"
    config = bench.config(180)
    assert (config["scsi0"], config["ide2"]) == ("thin:base-180-disk-0,size=2G", "thin:vm-180-cloudinit,media=cdrom")
    assert bench.done("POST", f"{Q}/180/clone", newid=181) == "OK"
    config = bench.config(181)
    assert (config["scsi0"], config["ide2"]) == ("thin:vm-181-disk-0,size=2G", "thin:vm-181-cloudinit,media=cdrom")
    assert bench.done("DELETE", f"{Q}/180") == "base volume 'thin:base-180-disk-0' is still in use by linked cloned"


def test_what_cannot_become_a_template_or_a_clone(bench: Bench) -> None:
    path = f"{Q}/170"
    linked = bench.call("POST", f"{path}/clone", newid=171, full=0)
    assert linked.reason == "Linked clone feature is not supported for drive 'scsi0'"
    assert bench.done("POST", f"{path}/status/start") == "OK"
    assert bench.call("POST", f"{path}/template").reason == "you can't convert a VM to template if VM is running"
    assert bench.done("POST", f"{path}/status/stop") == "OK"
    assert bench.done("POST", f"{path}/snapshot", snapname="s1") == "OK"
    refused = bench.call("POST", f"{path}/template")
    assert refused.reason == "unable to create template, because VM contains snapshots"
    assert bench.done("DELETE", f"{path}/snapshot/s1") == "OK"
    assert bench.done("POST", f"{path}/template") == "OK"
    assert bench.call("POST", f"{path}/template").reason == "you can't convert a template to a template"
    refused = bench.call("POST", f"{path}/clone", newid=171, storage="vmstore")
    assert refused.reason == "parameter 'storage' not allowed for linked clones"
    rights = {"/vms/170": ["VM.Clone"], "/vms/171": ["VM.Allocate"], "/storage": ["Datastore.AllocateSpace"]}
    bench.api.add_token("cloner@pve!t1", SECRET, rights)
    refused = bench.call("POST", f"{path}/clone", "cloner@pve!t1", newid=171)
    assert refused.reason == "Permission check failed (/sdn/zones/localnetwork/vmbr0, SDN.Use)"
    refused = bench.call("POST", f"{path}/clone", "weak@pve!t1", newid=171)
    assert refused.reason == "Permission check failed (/vms/170, VM.Clone)"
