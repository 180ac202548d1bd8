"""Proxmox in front of real machines: what its calls say is what happens to them."""

from __future__ import annotations

import pytest
from real_home import RealOperator, eventually, proxmox, task_ended

from bench.hosts import cgroup, names

pytestmark = pytest.mark.real
VMID = 9000
ADDRESS = "10.77.0.11"


def boot_id(operator: RealOperator) -> str:
    told = operator.ssh(ADDRESS, "cat /proc/sys/kernel/random/boot_id")
    return told.out.strip() if told.code == 0 else ""


@pytest.fixture(scope="module")
def machines(operator: RealOperator) -> RealOperator:
    """Five machines as fo makes them."""
    ended = operator.fo("bootstrap", "--until", "machines", timeout=300)
    assert ended.code == 0, ended.err[-4000:]
    return operator


def test_a_machine_is_what_its_configuration_says(machines: RealOperator) -> None:
    uuid = machines.ssh(ADDRESS, "sudo cat /sys/class/dmi/id/product_uuid").out.strip()
    with proxmox() as node:
        config = node.qemu(VMID).config.get()
    assert f"uuid={uuid}".lower() in config["smbios1"].lower()
    mac = machines.ssh(ADDRESS, "cat /sys/class/net/eth0/address").out.strip()
    assert mac in config["net0"].lower()
    assert machines.ssh(ADDRESS, "hostname").out.strip() == config["name"]


def test_the_seed_was_read_and_is_gone(machines: RealOperator) -> None:
    result = machines.ssh(ADDRESS, "cat /run/cloud-init/result.json").out
    assert "DataSourceNoCloud" in result
    assert '"errors": []' in result
    with proxmox() as node:
        assert "cidata" not in str(node.qemu(VMID).config.get())
        assert not [v for v in node.storage("local").content.get(content="iso") if "bench-c1" in v["volid"]]


def test_the_guest_agent_is_the_machines_own(machines: RealOperator) -> None:
    with proxmox() as node:
        assert node.qemu(VMID).agent("get-host-name").get()["result"] == {"host-name": "bench-c1"}
        faces = node.qemu(VMID).agent("network-get-interfaces").get()["result"]
    eth0 = next(face for face in faces if face["name"] == "eth0")
    assert ADDRESS in [a["ip-address"] for a in eth0["ip-addresses"]]


def test_reset_and_reboot_are_new_boots(machines: RealOperator) -> None:
    before = boot_id(machines)
    with proxmox() as node:
        task_ended(node, node.qemu(VMID).status.reset.post())
    after = eventually("the machine to be back", lambda: (now := boot_id(machines)) != before and now, 60)
    machines.ssh(ADDRESS, "sudo systemctl reboot")
    again = eventually("it to reboot", lambda: (now := boot_id(machines)) not in (before, after) and now, 60)
    assert len({before, after, again}) == 3
    with proxmox() as node:
        assert node.qemu(VMID).status.current.get()["status"] == "running"


def test_a_bigger_disk_is_there_after_the_next_start(machines: RealOperator) -> None:
    def size() -> int:
        told = machines.ssh(ADDRESS, "df -BG --output=size / | tail -1")
        return int(told.out.strip().rstrip("G") or 0)

    before = size()
    with proxmox() as node:
        task_ended(node, node.qemu(VMID).resize.put(disk="scsi0", size="+8G"))
        task_ended(node, node.qemu(VMID).status.shutdown.post())
        assert node.qemu(VMID).status.current.get()["status"] == "stopped"
        task_ended(node, node.qemu(VMID).status.start.post())
    eventually("the machine to be back", lambda: boot_id(machines), 60)
    assert size() >= before + 7


def test_a_deleted_machine_leaves_no_trace_and_fo_makes_it_anew(machines: RealOperator) -> None:
    machines.set("CONTROLLER_DISK_GIB", "40")
    machines.ssh(ADDRESS, "sudo touch /opt/old")
    with proxmox() as node:
        task_ended(node, node.qemu(VMID).status.stop.post())
        task_ended(node, node.qemu(VMID).delete())
    assert not (names.NETNS / names.namespace(VMID)).exists()
    assert not [top for top in cgroup.hierarchies() if (top / names.CGROUP / str(VMID)).exists()]
    ended = machines.fo("bootstrap", "--until", "machines", timeout=300)
    assert ended.code == 0, ended.err[-4000:]
    assert machines.ssh(ADDRESS, "ls -A /opt").out.split() == ["bench"]


def test_destroy_takes_every_machine(machines: RealOperator) -> None:
    ended = machines.fo("destroy", "--confirm", machines.name, timeout=120)
    assert ended.code == 0, ended.err[-4000:]
    with proxmox() as node:
        assert node.qemu.get() == []
    assert not list(names.NETNS.glob(f"{names.NAMESPACE}-*"))
