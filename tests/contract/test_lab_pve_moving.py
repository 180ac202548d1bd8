"""Disks that move, addresses that are asked, configurations read from archives, on the lab's Proxmox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pve_bench
import pytest
from pve_bench import SECRET, Bench

Q = "/nodes/pve/qemu"
URL = "/nodes/pve/query-url-metadata"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        assert made.done("POST", Q, vmid=120, name="node-1", scsi0="vmstore:1,ssd=1", ide2="vmstore:cloudinit") == "OK"
        yield made


def test_a_disk_moves_while_its_machine_runs(bench: Bench) -> None:
    assert bench.done("POST", f"{Q}/120/status/start") == "OK"
    upid = bench.call("POST", f"{Q}/120/move_disk", disk="scsi0", storage="tiny").data
    assert ":qmmove:120:" in upid
    assert "create full clone of drive scsi0 (vmstore:120/vm-120-disk-0.raw)" in bench.log(upid)
    config = bench.config(120)
    assert config["scsi0"] == "tiny:120/vm-120-disk-0.raw,size=1G,ssd=1"
    assert config["unused0"] == "vmstore:120/vm-120-disk-0.raw"
    assert bench.done("POST", f"{Q}/120/move_disk", disk="scsi0", storage="vmstore", delete=1) == "OK"
    assert bench.config(120)["scsi0"] == "vmstore:120/vm-120-disk-1.raw,size=1G,ssd=1"
    assert bench.call("GET", "/nodes/pve/storage/tiny/content").data == []


def test_disks_that_cannot_move(bench: Bench) -> None:
    path = f"{Q}/120/move_disk"
    assert bench.call("POST", path, disk="scsi7", storage="tiny").reason == "disk 'scsi7' does not exist"
    assert bench.call("POST", path, disk="ide2", storage="tiny").reason == "you can't move a cdrom"
    assert bench.call("POST", path, disk="scsi0").errors == {"storage": "no target specified"}
    same = bench.call("POST", path, disk="scsi0", storage="vmstore")
    assert same.reason == "you can't move to the same storage with same format"
    assert bench.call("POST", path, disk="scsi0", storage="local").status == 500
    bench.api.add_token("mover@pve!t1", SECRET, {"/vms": ["VM.Config.Disk"]})
    refused = bench.call("POST", path, "mover@pve!t1", disk="scsi0", storage="tiny")
    assert refused.reason == "Permission check failed (/storage/tiny, Datastore.AllocateSpace)"
    bench.kit.faults.on("task-fail", type="qmmove")
    assert bench.done("POST", path, disk="scsi0", storage="tiny").startswith("storage migration failed: ")
    assert bench.call("GET", "/nodes/pve/storage/tiny/content").data == []


def test_an_address_is_asked_as_recorded(bench: Bench) -> None:
    with pve_bench.web({"img.qcow2": b"x" * 21}) as base:
        found = bench.call("GET", URL, url=f"{base}/img.qcow2").data
        assert (found["filename"], found["size"], "mimetype" in found) == ("img.qcow2", 21, True)
        missing = bench.call("GET", URL, url=f"{base}/none")
        assert (missing.status, missing.reason) == (500, "invalid server response: '404 File not found'")
    refused = bench.call("GET", URL, url="http://127.0.0.1:9/none")
    assert refused.reason == "invalid server response: '500 Can't connect to 127.0.0.1:9 (Connection refused)'"
    assert bench.call("GET", URL, url="ftp://x/y").errors == {"url": "value does not match the regex pattern"}
    assert bench.call("GET", URL, "weak@pve!t1", url="http://x/y").status == 403


def test_an_archive_shows_the_configuration_in_it(bench: Bench) -> None:
    assert bench.call("PUT", f"{Q}/120/config", description="fo: lab\nsecond 100%").data is None
    assert bench.done("POST", "/nodes/pve/vzdump", vmid=120, storage="local") == "OK"
    (row,) = bench.call("GET", "/nodes/pve/storage/local/content", content="backup").data
    path = "/nodes/pve/vzdump/extractconfig"
    text = bench.call("GET", path, volume=row["volid"]).data
    lines = text.splitlines()
    assert lines[:2] == ["#fo: lab", "#second 100%25"]
    assert f"smbios1: {bench.config(120)['smbios1']}" in lines
    assert lines[-1] == "#qmdump#map:scsi0:drive-scsi0:vmstore:raw:"
    weak = "weak@pve!t1"
    refused = bench.call("GET", path, weak, volume=row["volid"])
    assert refused.reason == "Permission check failed (/storage/local, Datastore.AllocateSpace)"
    bench.api.set_privileges(weak, "/storage", ["Datastore.AllocateSpace"])
    refused = bench.call("GET", path, weak, volume=row["volid"])
    assert refused.reason == "Permission check failed (/vms/120, VM.Backup)"
    assert bench.call("GET", path, volume="local:backup/vzdump-qemu-120-2020_01_01-00_00_00.vma").status == 500
