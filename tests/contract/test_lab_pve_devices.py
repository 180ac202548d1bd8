"""Devices of a machine on the lab's Proxmox: mappings, what can be plugged while it runs, what the node offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pve_bench
import pytest
from pve_bench import SECRET, Bench

Q = "/nodes/pve/qemu"
PCI = "node=pve,id=8086:1234,path=0000:01:00.0,iommugroup=14"
USB = "node=pve,id=0658:0200"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        yield made


def run(bench: Bench, vmid: int, **options: object) -> str:
    assert bench.done("POST", Q, vmid=vmid, **options) == "OK"  # type: ignore[arg-type]
    assert bench.done("POST", f"{Q}/{vmid}/status/start") == "OK"
    return f"{Q}/{vmid}/config"


def pending(bench: Bench, vmid: int) -> dict[str, object]:
    rows = bench.call("GET", f"{Q}/{vmid}/pending").data
    return {row["key"]: row.get("pending", "delete") for row in rows if "pending" in row or "delete" in row}


def test_mappings_are_kept_and_checked(bench: Bench) -> None:
    assert bench.call("GET", "/cluster/mapping/pci").data == []
    assert bench.call("POST", "/cluster/mapping/pci", id="gpu", map=PCI, description="card").data is None
    assert bench.call("POST", "/cluster/mapping/pci", id="gpu", map=PCI).status == 500
    two = [("id", "stick"), ("map", USB), ("map", "node=pve2,id=0658:0200")]
    assert bench.raw("POST", "/cluster/mapping/usb", data=two).data is None
    (row,) = bench.call("GET", "/cluster/mapping/usb").data
    assert (row["id"], row["map"]) == ("stick", [USB, "node=pve2,id=0658:0200"])
    (row,) = bench.call("GET", "/cluster/mapping/pci", check_node="pve2").data
    assert row["checks"] == [{"severity": "warning", "message": "No mapping for node pve2."}]
    wrong = bench.call("POST", "/cluster/mapping/pci", id="bad", map="node=pve,id=8086:1234").errors
    assert "map[0].path: property is missing" in wrong["map[0]"]
    assert "map[0].id" in bench.call("POST", "/cluster/mapping/usb", id="bad", map="node=pve,id=x").errors["map[0]"]
    weak = "weak@pve!t1"
    assert bench.call("GET", "/cluster/mapping/pci", weak).data == []
    refused = bench.call("POST", "/cluster/mapping/pci", weak, id="mine", map=PCI)
    assert refused.reason == "Permission check failed (/mapping/pci, Mapping.Modify)"
    assert bench.call("DELETE", "/cluster/mapping/pci/gpu").data is None
    assert bench.call("GET", "/cluster/mapping/pci").data == []


def test_a_mapped_device_needs_the_right_to_use_it(bench: Bench) -> None:
    bench.call("POST", "/cluster/mapping/pci", id="gpu", map=PCI)
    maker = "maker@pve!t1"
    bench.api.add_token(maker, SECRET, {"/vms": ["VM.Allocate", "VM.Config.HWType", "VM.PowerMgmt", "VM.Audit"]})
    refused = bench.call("POST", Q, maker, vmid=120, hostpci0="mapping=gpu,pcie=1", machine="q35")
    assert refused.reason == "Permission check failed (/mapping/pci/gpu, Mapping.Use)"
    refused = bench.call("POST", Q, maker, vmid=120, usb0="mapping=stick")
    assert refused.reason == "Permission check failed (/mapping/usb/stick, Mapping.Use)"
    bench.api.set_privileges(maker, "/mapping", ["Mapping.Use"])
    upid = bench.call("POST", Q, maker, vmid=120, hostpci0="mapping=gpu,pcie=1", machine="q35").data
    assert bench.wait(upid) == "OK"
    assert bench.config(120)["hostpci0"] == "mapping=gpu,pcie=1"
    assert bench.done("POST", f"{Q}/120/status/start") == "OK"


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"hostpci0": "mapping=gone"}, "PCI device mapping not found for 'gone'"),
        ({"hostpci0": "mapping=elsewhere"}, "PCI device mapping not found for 'elsewhere'"),
        ({"usb0": "mapping=gone"}, "USB device mapping not found for 'gone'"),
        ({"usb0": "mapping=twice"}, "More than one USB mapping per host not supported"),
    ],
)
def test_a_device_that_the_node_lacks_is_found_out_at_start(bench: Bench, option: dict[str, str], why: str) -> None:
    bench.call("POST", "/cluster/mapping/pci", id="elsewhere", map=PCI.replace("node=pve", "node=pve2"))
    bench.raw("POST", "/cluster/mapping/usb", data=[("id", "twice"), ("map", USB), ("map", USB)])
    assert bench.raw("POST", Q, data={"vmid": 120, **option}).status == 200
    assert bench.done("POST", f"{Q}/120/status/start") == why


def test_what_takes_effect_while_it_runs(bench: Bench) -> None:
    net = "virtio=BC:24:11:08:3F:CE,bridge=vmbr0"
    disks = {"scsi0": "vmstore:1", "scsi1": "vmstore:1", "ide2": "local:iso/a.iso,media=cdrom"}
    path = run(bench, 130, net0=net, boot="order=scsi0", balloon=512, memory=1024, agent=1, **disks)
    disk = "vmstore:130/vm-130-disk-0.raw"
    at_once = {
        "net0": f"{net},firewall=1,tag=7", "description": "new", "onboot": 1, "startup": "order=3", "protection": 1,
        "cpuunits": 200, "ciuser": "fo", "ipconfig0": "ip=dhcp", "nameserver": "1.1.1.1", "balloon": 256,
        "agent": "1,fstrim_cloned_disks=1", "scsi0": f"{disk},backup=0", "scsi2": "vmstore:1", "tags": "a;b",
        "ide2": "none,media=cdrom", "usb0": "spice",
    }  # fmt: skip
    assert bench.raw("PUT", path, data=at_once).data is None
    assert pending(bench, 130) == {}
    later = {
        "cores": 4, "sockets": 2, "memory": 2048, "cpu": "host", "balloon": 0, "agent": 0, "machine": "q35",
        "bios": "ovmf", "efidisk0": "vmstore:1,efitype=4m", "scsihw": "virtio-scsi-single", "vga": "serial0",
        "serial0": "socket", "watchdog": "i6300esb,action=reset", "boot": "order=scsi0;net0", "numa": 1,
        "ostype": "l26", "scsi0": f"{disk},backup=0,ssd=1,discard=on", "sata0": "vmstore:1",
        "rng0": "source=/dev/urandom",
    }  # fmt: skip
    assert bench.raw("PUT", path, data=later).data is None
    assert set(pending(bench, 130)) == set(later)
    assert bench.call("PUT", path, revert=",".join(later)).data is None
    assert pending(bench, 130) == {}
    assert bench.call("PUT", path, delete="scsi1,net0,description").data is None
    assert pending(bench, 130).keys() <= {"boot"}
    assert bench.config(130)["unused0"] == "vmstore:130/vm-130-disk-1.raw"
    assert bench.call("PUT", path, delete="unused0").data is None
    assert "unused0" not in bench.config(130)


def test_a_refusal_can_leave_something_pending(bench: Bench) -> None:
    net = "virtio=BC:24:11:08:3F:CE,bridge=vmbr0"
    path = run(bench, 130, net0=net, scsi0="vmstore:1", ide2="none,media=cdrom", boot="order=scsi0;net0")
    refused = bench.call("PUT", path, delete="scsi0")
    assert refused.errors == {"scsi0": "hotplug problem - can't unplug bootdisk 'scsi0'\n"}
    assert pending(bench, 130) == {"scsi0": "delete", "boot": "order=net0"}
    assert bench.call("PUT", path, delete="ide2").data is None
    assert pending(bench, 130)["ide2"] == "delete"
    refused = bench.call("PUT", path, net0="virtio,bridge=vmbr0")
    assert refused.errors == {"net0": "hotplug problem - error on hot-unplugging device 'net0'\n"}
    assert "net0" in pending(bench, 130)


def test_without_hotplug_everything_waits(bench: Bench) -> None:
    path = run(bench, 130, hotplug="0", net0="virtio,bridge=vmbr0", scsi0="vmstore:1")
    assert bench.raw("PUT", path, data={"net0": "virtio,bridge=vmbr0,tag=7", "scsi1": "vmstore:1"}).data is None
    assert set(pending(bench, 130)) == {"net0", "scsi1"}
    assert bench.call("PUT", path, description="still").data is None
    assert "description" not in pending(bench, 130)


def test_another_disk_in_its_place_leaves_the_old_one_unused(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=130, scsi1="vmstore:1") == "OK"
    assert bench.call("PUT", f"{Q}/130/config", scsi1="vmstore:2").data is None
    config = bench.config(130)
    assert (config["scsi1"], config["unused0"]) == (
        "vmstore:130/vm-130-disk-1.raw,size=2G",
        "vmstore:130/vm-130-disk-0.raw",
    )


def test_a_bridge_shows_to_who_may_use_one_of_its_vlans(bench: Bench) -> None:
    weak = "weak@pve!t1"
    assert bench.call("GET", "/nodes/pve/network", weak, type="bridge").data == []
    bench.api.set_privileges(weak, "/sdn/zones/localnetwork/vmbr0/10", ["SDN.Use"])
    (row,) = bench.call("GET", "/nodes/pve/network", weak, type="bridge").data
    assert row["iface"] == "vmbr0"


def test_what_a_node_offers(bench: Bench) -> None:
    models = bench.call("GET", "/nodes/pve/capabilities/qemu/cpu").data
    vendors = {row["name"]: row["vendor"] for row in models}
    assert vendors["Haswell-IBRS"] == "GenuineIntel"
    assert vendors["EPYC-Rome"] == vendors["Opteron_G1"] == "AuthenticAMD"
    assert "x86-64-v2-AES" in vendors
    clock = bench.call("GET", "/nodes/pve/time").data
    assert bench.kit.clock.epoch - 1 <= clock["time"] <= bench.kit.clock.now()
    cpus = bench.call("GET", "/nodes/pve/status").data["cpuinfo"]
    assert (cpus["cpus"], cpus["sockets"]) == (64, 1)
    assert bench.call("GET", "/nodes/pve/time", "weak@pve!t1").reason == (
        "Permission check failed (/nodes/pve, Sys.Audit)"
    )
