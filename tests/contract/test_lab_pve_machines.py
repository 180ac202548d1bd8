"""Machines on the lab's Proxmox: made, changed, started, stopped and destroyed as recorded from a real 8.4 API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pve_bench
import pytest
from pve_bench import Bench

from funoffshore.lab.base import Latencies

Q = "/nodes/pve/qemu"
NODE: dict[str, Any] = {
    "name": "node-1", "ostype": "l26", "machine": "q35", "cpu": "x86-64-v2-AES", "cores": 2, "sockets": 1,
    "memory": 512, "balloon": 0, "scsihw": "virtio-scsi-single", "ide2": "vmstore:cloudinit", "boot": "order=scsi0",
    "scsi0": "vmstore:0,import-from=local:import/deb.qcow2,discard=on,ssd=1,iothread=1", "serial0": "socket",
    "vga": "serial0", "net0": "virtio=BC:24:11:0A:0b:0C,bridge=vmbr0,tag=10,firewall=1", "agent": "enabled=1",
    "ipconfig0": "ip=10.0.0.11/24,gw=10.0.0.1", "nameserver": "10.0.0.1 1.1.1.1", "searchdomain": "lan",
    "ciuser": "debian", "cipassword": "secret", "sshkeys": "ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIOMq%20me%40host%0A",
    "ciupgrade": 0, "onboot": 1, "tags": "Zeta;alpha,fo;fo", "smbios1": "uuid=8C6B5A3E-1111-4222-8333-ABCDEFABCDEF",
    "description": "line one\nline two ü\n",
}  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        yield made


def test_config_is_stored_as_recorded(bench: Bench) -> None:
    bench.call("POST", "/pools", poolid="fo")
    upid = bench.call("POST", Q, vmid=120, pool="fo", **NODE).data
    assert re.fullmatch(r"UPID:pve:[0-9A-F]{8}:[0-9A-F]{8}:[0-9A-F]{8}:qmcreate:120:root@pam!full:", upid)
    assert bench.wait(upid) == "OK"
    config = bench.config(120)
    assert re.fullmatch(r"creation-qemu=9\.2\.0,ctime=\d+", config.pop("meta"))
    assert len(config.pop("digest")) == 40
    assert len(config.pop("vmgenid")) == 36
    verbatim = {key: value for key, value in NODE.items() if key not in ("scsi0", "ide2", "net0", "cipassword")}
    assert config == {
        **verbatim,
        "memory": "512",
        "description": "line one\nline two ü",
        "cipassword": "**********",
        "scsi0": "vmstore:120/vm-120-disk-0.qcow2,discard=on,iothread=1,size=300M,ssd=1",
        "ide2": "vmstore:120/vm-120-cloudinit.qcow2,media=cdrom",
        "net0": "virtio=BC:24:11:0A:0b:0C,bridge=vmbr0,firewall=1,tag=10",
    }
    log = bench.log(upid)
    assert "ide2: successfully created disk 'vmstore:120/vm-120-cloudinit.qcow2,media=cdrom'" in log
    assert "create full clone of drive (local:import/deb.qcow2)" in log
    assert "transferred 300.0 MiB of 300.0 MiB (100.00%)" in log
    assert log[-1] == "TASK OK"
    assert [row["vmid"] for row in bench.call("GET", "/pools", poolid="fo").data[0]["members"]] == [120]
    assert bench.call("PUT", f"{Q}/120/config", tags="Zeta;alpha,fo;fo Alpha").data is None
    assert bench.config(120)["tags"] == "alpha;fo;zeta"


def test_defaults_are_added_as_recorded(bench: Bench) -> None:
    drives = {"efidisk0": "vmstore:0,efitype=4m,pre-enrolled-keys=0", "scsi0": "vmstore:1", "scsi1": "vmstore:0.5"}
    assert bench.done("POST", Q, vmid=115, net1="e1000,bridge=vmbr0,macaddr=bc:24:11:aa:bb:cc", **drives) == "OK"
    config = bench.config(115)
    assert config["efidisk0"] == "vmstore:115/vm-115-disk-0.raw,efitype=4m,pre-enrolled-keys=0,size=528K"
    assert config["scsi0"] == "vmstore:115/vm-115-disk-1.raw,size=1G"
    assert config["scsi1"] == "vmstore:115/vm-115-disk-2.raw,size=512M"
    assert config["net1"] == "e1000=bc:24:11:aa:bb:cc,bridge=vmbr0"
    assert config["boot"] == "order=scsi0;net1"
    assert (
        bench.done("POST", Q, vmid=116, tags="", net0="virtio,bridge=vmbr0", ide2="local:iso/a.iso,media=cdrom") == "OK"
    )
    config = bench.config(116)
    assert config["tags"] == " "
    assert re.fullmatch(r"virtio=BC:24:11(:[0-9A-F]{2}){3},bridge=vmbr0", config["net0"])
    assert config["ide2"] == "local:iso/a.iso,media=cdrom,size=2K"
    assert bench.done("POST", Q, vmid=117, scsi0="vmstore:0,ssd=yes") == "OK"
    assert bench.config(117)["scsi0"] == "vmstore:117/vm-117-disk-0.raw,size=0T,ssd=1"
    assert bench.done("POST", Q, vmid=118) == "OK"
    assert bench.config(118)["boot"] == " "


@pytest.mark.parametrize(
    ("drive", "why"),
    [
        ("vmstore:0,import-from=local:import/none.qcow2", "failed to stat '/var/lib/vz/import/none.qcow2'"),
        (
            "vmstore:0,import-from=local:import/fake.qcow2",
            "qemu-img: Could not open '/var/lib/vz/import/fake.qcow2': Image is not in qcow2 format",
        ),
        (
            "vmstore:0,import-from=local:import/backed.qcow2",
            "backing file not allowed for untrusted image '/var/lib/vz/import/backed.qcow2'!",
        ),
        ("local:iso/none.iso,media=cdrom", "volume 'local:iso/none.iso' does not exist"),
    ],
)
def test_a_failed_create_leaves_nothing(bench: Bench, drive: str, why: str) -> None:
    upid = bench.call("POST", Q, vmid=111, scsi0="vmstore:1", scsi1=drive).data
    assert bench.wait(upid) == f"unable to create VM 111 - {why}"
    assert bench.log(upid)[-1] == f"TASK ERROR: unable to create VM 111 - {why}"
    assert bench.call("GET", f"{Q}/111/config").status == 500
    assert bench.call("GET", "/nodes/pve/storage/vmstore/content").data == []


def test_while_it_is_made_a_machine_is_only_locked(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path) as bench:
        bench.kit.faults.on("task-hang", type="qmcreate")
        rights = {"/pool/fo": ["VM.Allocate", "VM.Audit"], "/storage": ["Datastore.AllocateSpace"]}
        bench.api.add_token("pool@pve!t1", pve_bench.SECRET, rights)
        bench.call("POST", "/pools", poolid="fo")
        upid = bench.call("POST", Q, token="pool@pve!t1", vmid=142, pool="fo", scsi0="vmstore:1").data
        config = bench.config(142)
        assert (set(config), config["lock"]) == ({"lock", "digest"}, "create")
        status = bench.call("GET", f"{Q}/142/status/current").data
        assert (status["name"], status["status"], status["lock"]) == ("VM 142", "stopped", "create")
        assert bench.call("GET", "/cluster/nextid", vmid=142).errors == {"vmid": "VM 142 already exists"}
        assert bench.call("GET", f"{Q}/142/config", token="pool@pve!t1").status == 403
        assert bench.call("GET", f"/nodes/pve/tasks/{upid}/status", token="pool@pve!t1").data["status"] == "running"
        assert [t["upid"] for t in bench.call("GET", "/nodes/pve/tasks", source="active").data] == [upid]
        assert bench.call("GET", "/nodes/pve/tasks").data == []
        assert bench.call("DELETE", f"/nodes/pve/tasks/{upid}").data is None
        assert bench.wait(upid) == "unable to create VM 142 - received interrupt"
        assert bench.call("GET", f"{Q}/142/config").status == 500


def test_a_change_during_a_short_create_waits_for_it(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, latencies=Latencies(create=2), speed=20) as bench:
        upid = bench.call("POST", Q, vmid=120, **NODE).data
        assert bench.config(120)["lock"] == "create"
        assert bench.call("PUT", f"{Q}/120/config", cores=3).data is None
        assert bench.status(upid)["exitstatus"] == "OK"
        assert bench.config(120)["cores"] == 3


def test_a_change_during_a_long_create_gives_up(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, speed=100) as bench:
        bench.kit.faults.on("task-hang", type="qmcreate")
        bench.call("POST", Q, vmid=142)
        answer = bench.call("PUT", f"{Q}/142/config", cores=2)
        assert (answer.status, answer.reason) == (
            500,
            "can't lock file '/var/lock/qemu-server/lock-142.conf' - got timeout",
        )


def test_of_six_creations_one_wins(bench: Bench) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: bench.call("POST", Q, vmid=101), range(6)))
    won = [answer for answer in answers if answer.status == 200]
    assert len(won) == 1
    assert {a.reason for a in answers if a.status == 500} == {
        "unable to create VM 101 - VM 101 already exists on node 'pve'"
    }


def test_resize_is_a_task_for_everything_that_is_well_formed(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=120, **NODE) == "OK"
    path = f"{Q}/120/resize"
    assert bench.done("PUT", path, disk="scsi0", size="200M") == "shrinking disks is not supported"
    assert bench.log(bench.call("PUT", path, disk="scsi0", size="300M").data) == ["TASK OK"]
    assert bench.log(bench.call("PUT", path, disk="scsi0", size="1G").data) == ["Image resized.", "TASK OK"]
    assert bench.done("PUT", path, disk="scsi0", size="+512M") == "OK"
    assert "size=1536M" in bench.config(120)["scsi0"]
    assert bench.done("PUT", path, disk="scsi7", size="2G") == "disk 'scsi7' does not exist"
    assert bench.done("PUT", path, disk="ide2", size="2G") == "you can't resize a cdrom"
    assert (
        bench.done("PUT", path, disk="scsi0", size="3G", digest="00")
        == "checksum mismatch (file change by other user?)"
    )
    missing = bench.done("PUT", f"{Q}/999/resize", disk="scsi0", size="2G")
    assert missing == "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist"


def test_power_follows_the_recorded_rules(bench: Bench) -> None:
    bench.put_file("iso/seed.iso", b"seed")
    drives = {"scsi0": "vmstore:0,import-from=local:import/deb.qcow2", "ide2": "local:iso/seed.iso,media=cdrom"}
    net = "virtio=BC:24:11:00:00:01,bridge=vmbr0"
    assert bench.done("POST", Q, vmid=130, name="run", memory=128, cores=2, net0=net, agent=1, **drives) == "OK"
    start = f"{Q}/130/status/start"
    assert bench.done("POST", start) == "OK"
    hardware = bench.guests.on[130]
    assert (hardware.name, hardware.cores, hardware.memory_mib, hardware.agent) == ("run", 2, 128, True)
    assert (hardware.image, hardware.macs) == ("local:import/deb.qcow2", ("BC:24:11:00:00:01",))
    assert hardware.seed is not None
    assert hardware.seed.read_bytes() == b"seed"
    assert hardware.uuid == bench.config(130)["smbios1"].removeprefix("uuid=")
    assert bench.done("POST", start) == "VM 130 already running"
    status = bench.call("GET", f"{Q}/130/status/current").data
    assert status["status"] == status["qmpstatus"] == "running"
    assert {"pid", "uptime", "running-qemu", "running-machine", "nics", "agent"} <= set(status)
    assert bench.call("DELETE", f"{Q}/130").reason == "VM 130 is running - destroy failed"
    assert bench.call("GET", f"{Q}/130/agent/network-get-interfaces").reason == "QEMU guest agent is not running"
    bench.guests.talking.add(130)
    assert bench.call("GET", f"{Q}/130/agent/network-get-interfaces").data == {"result": [{"name": "eth0"}]}
    assert bench.call("POST", f"{Q}/130/agent/ping").data == {"result": {}}
    assert [bench.done("POST", f"{Q}/130/status/{how}") for how in ("shutdown", "shutdown", "stop")] == ["OK"] * 3
    assert bench.call("GET", f"{Q}/130/agent/get-host-name").reason == "VM 130 is not running"
    assert bench.done("POST", f"{Q}/999/status/stop") == "unable to find configuration file for VM 999 on node 'pve'"
    upid = bench.call("DELETE", f"{Q}/130", purge=1).data
    assert bench.log(upid) == ["purging VM 130 from related configurations..", "TASK OK"]
    assert bench.guests.history[-1] == ("destroy", 130)
    assert bench.call("GET", "/nodes/pve/storage/vmstore/content").data == []
    assert (
        bench.call("GET", "/nodes/pve/storage/local/content", content="iso").data[-1]["volid"] == "local:iso/seed.iso"
    )


def test_a_deaf_machine_is_stopped_only_by_force(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, speed=50) as bench:
        assert bench.done("POST", Q, vmid=130) == "OK"
        assert bench.done("POST", f"{Q}/130/status/start") == "OK"
        bench.guests.deaf.add(130)
        shutdown = f"{Q}/130/status/shutdown"
        assert bench.done("POST", shutdown, timeout=3) == "VM quit/powerdown failed - got timeout"
        upid = bench.call("POST", shutdown, timeout=3, forceStop=1).data
        assert bench.log(upid) == ["VM still running - terminating now with SIGTERM", "TASK OK"]


def test_start_failures_are_in_the_log(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=140, start=1, net0="virtio,bridge=vmbr7") == "OK"
    starts = [t for t in bench.call("GET", "/nodes/pve/tasks", source="all").data if t["type"] == "qmstart"]
    upid = starts[0]["upid"]
    assert bench.wait(upid) == "start failed: QEMU exited with code 1"
    assert "bridge 'vmbr7' does not exist" in bench.log(upid)
    assert bench.call("GET", f"{Q}/140/status/current").data["status"] == "stopped"
    assert bench.done("POST", Q, vmid=141, bios="ovmf", scsi0="vmstore:1") == "OK"
    upid = bench.call("POST", f"{Q}/141/status/start").data
    assert bench.wait(upid) == "WARNINGS: 1"
    assert bench.log(upid)[-1] == "TASK WARNINGS: 1"
    assert [t["upid"] for t in bench.call("GET", "/nodes/pve/tasks", statusfilter="warning").data] == [upid]


def test_changes_of_a_running_machine_may_stay_pending(bench: Bench) -> None:
    net, path = "virtio=BC:24:11:08:3F:CE,bridge=vmbr0", f"{Q}/130/config"
    drives = {"scsi0": "vmstore:1", "ide2": "local:iso/a.iso,media=cdrom"}
    assert bench.done("POST", Q, vmid=130, name="run", memory=128, net0=net, **drives) == "OK"
    assert bench.done("POST", f"{Q}/130/status/start") == "OK"
    assert bench.call("PUT", path, cores=2, name="run2", tags="a").data is None
    pending = {row["key"]: row for row in bench.call("GET", f"{Q}/130/pending").data}
    assert pending["cores"] == {"key": "cores", "pending": 2}
    assert pending["name"]["value"] == "run2"
    assert bench.config(130)["cores"] == 2
    assert "cores" not in bench.call("GET", path, current=1).data
    refused = bench.call("PUT", path, net0="virtio,bridge=vmbr0")
    assert refused.errors == {"net0": "hotplug problem - error on hot-unplugging device 'net0'\n"}
    assert bench.config(130)["net0"] != net
    refused = bench.call("PUT", path, delete="scsi0")
    assert refused.errors == {"scsi0": "hotplug problem - can't unplug bootdisk 'scsi0'\n"}
    assert bench.call("PUT", path, revert="scsi0").data is None
    assert bench.config(130)["boot"] == "order=ide2;net0"
    assert bench.call("PUT", path, ide2="none,media=cdrom").data is None
    assert bench.call("GET", path, current=1).data["ide2"] == "none,media=cdrom"
    assert bench.done("POST", f"{Q}/130/status/stop") == "OK"
    assert bench.done("POST", f"{Q}/130/status/start") == "OK"
    assert bench.guests.on[130].cores == 2
    assert bench.call("GET", path, current=1).data["cores"] == 2


def test_disks_are_detached_before_they_are_removed(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=131, scsi0="vmstore:1") == "OK"
    path = f"{Q}/131/config"
    assert bench.call("PUT", path, scsi3="vmstore:1").data is None
    assert bench.config(131)["scsi3"] == "vmstore:131/vm-131-disk-1.raw,size=1G"
    assert bench.call("PUT", path, delete="scsi3").data is None
    assert bench.config(131)["unused0"] == "vmstore:131/vm-131-disk-1.raw"
    assert bench.call("PUT", path, delete="unused0").data is None
    volumes = bench.call("GET", "/nodes/pve/storage/vmstore/content").data
    assert [row["volid"] for row in volumes] == ["vmstore:131/vm-131-disk-0.raw"]
    upid = bench.call("POST", path, scsi2="vmstore:1", cores=2).data
    assert bench.log(upid)[0] == "update VM 131: -cores 2 -scsi2 vmstore:1"
    assert ":qmconfig:131:" in upid
    assert bench.done("DELETE", f"{Q}/131") == "OK"
    assert bench.call("GET", "/nodes/pve/storage/vmstore/content").data == []


def test_locked_machines_refuse_in_their_tasks(bench: Bench) -> None:
    bench.kit.faults.on("task-lost", type="qmcreate", vmid="142", times="1")
    upid = bench.call("POST", Q, vmid=142, **NODE).data
    assert bench.wait(upid) == "unexpected status"
    assert not any(line.startswith("TASK") for line in bench.log(upid))
    assert set(bench.config(142)) == {"lock", "digest"}
    assert bench.call("GET", "/nodes/pve/storage/vmstore/content", vmid=142).data[-1]["vmid"] == 142
    assert bench.call("PUT", f"{Q}/142/config", cores=2).reason == "VM is locked (create)"
    assert bench.done("PUT", f"{Q}/142/resize", disk="scsi0", size="3G") == "VM is locked (create)"
    assert bench.done("POST", f"{Q}/142/status/start") == "VM is locked (create)"
    assert bench.done("DELETE", f"{Q}/142") == "VM is locked (create)"
    assert bench.call("POST", Q, vmid=142).reason == "unable to create VM 142 - VM 142 already exists on node 'pve'"


def test_clones_are_new_machines(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=170, **NODE) == "OK"
    upid = bench.call("POST", f"{Q}/170/clone", newid=171, full=1).data
    assert ":qmclone:170:" in upid
    assert bench.wait(upid) == "OK"
    old, new = bench.config(170), bench.config(171)
    assert new["name"] == "Copy-of-VM-node-1"
    assert new["scsi0"] == "vmstore:171/vm-171-disk-0.qcow2,discard=on,iothread=1,size=300M,ssd=1"
    assert all(old[key] != new[key] for key in ("smbios1", "vmgenid", "net0"))
    assert (
        bench.call("POST", f"{Q}/170/clone", newid=171).reason == "unable to create VM 171: config file already exists"
    )
    assert (
        bench.call("POST", f"{Q}/4711/clone", newid=173).reason
        == "unable to find configuration file for VM 4711 on node 'pve'"
    )
    bench.kit.faults.on("task-fail", type="qmclone")
    assert bench.done("POST", f"{Q}/170/clone", newid=172) == "clone failed: command failed: exit code 1"
    assert bench.call("GET", f"{Q}/172/config").status == 500


def test_pools_are_kept_as_recorded(bench: Bench) -> None:
    for vmid in (100, 115):
        assert bench.done("POST", Q, vmid=vmid) == "OK"
    assert bench.call("POST", "/pools", poolid="new", comment="hi").data is None
    assert bench.call("POST", "/pools", poolid="fo").data is None
    assert bench.call("PUT", "/pools", poolid="fo", vms="100").data is None
    assert bench.call("PUT", "/pools", poolid="new", vms="100").reason == (
        "update pools failed: VM 100 belongs already to pool 'fo' and 'allow-move' is not set"
    )
    assert bench.call("PUT", "/pools", poolid="new", vms="100,777", allow_move=1).data is None
    found = bench.call("GET", "/pools", poolid="new").data[0]
    assert (found["comment"], [m["id"] for m in found["members"]]) == ("hi", ["qemu/100"])
    refused = bench.call("DELETE", "/pools", poolid="new")
    assert refused.reason == "delete pool failed: pool 'new' is not empty (contains VM 100)"
    assert bench.done("DELETE", f"{Q}/100") == "OK"
    assert bench.call("DELETE", "/pools", poolid="new").data is None
    assert bench.call("GET", "/pools").data == [{"poolid": "fo"}]


def test_a_new_machine_is_unknown_to_the_cluster_for_a_while(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, latencies=Latencies(api=0.001), speed=2) as bench:
        assert bench.done("POST", Q, vmid=150, name="fresh") == "OK"
        found = bench.call("GET", "/cluster/resources", type="vm").data
        base = {"id": "qemu/150", "vmid": 150, "node": "pve", "type": "qemu"}
        assert found == [{**base, "status": "unknown"}] or found[0]["name"] == "fresh"
        bench.api.add_stranger(160, "someone-elses")
        found = bench.call("GET", "/cluster/resources", type="vm").data
        assert found[1]["name"] == "someone-elses"
