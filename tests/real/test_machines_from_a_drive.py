"""Machines that start from Proxmox' own cloud-init drive: what the seed would have brought comes over SSH, to hosts
whose keys their own guest agents have told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from real_home import RealOperator, eventually, proxmox, task_ended

from bench import control

pytestmark = pytest.mark.real
WORKER, VMID = "10.77.0.21", 9010
DATA_DISK = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_fo-data"


@pytest.fixture(scope="module")
def drives(right_to_the_bench: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOperator]:
    """A controller and a worker with a data disk, made without an ISO and without a host key known before."""
    control.up()
    try:
        operator = RealOperator(
            tmp_path_factory.mktemp("home") / "home", 1, 1, SEED="drive", SSH_TRUST="agent", WORKER_DATA_DISK_GIB="10"
        )
        ended = operator.fo("bootstrap", "--until", "machines", timeout=300)
        assert ended.code == 0, ended.err[-4000:]
        yield operator
    finally:
        control.down()


def test_cloud_init_read_what_proxmox_made_and_fo_did_the_rest(drives: RealOperator) -> None:
    told = drives.ssh(WORKER, "cloud-init status; hostname; systemctl is-active fo-setup qemu-guest-agent")
    assert told.out.split() == ["status:", "disabled", "bench-w1", "active", "active"]
    assert drives.ssh(WORKER, "cat /etc/sysctl.d/90-fo.conf").code == 0
    with proxmox() as node:
        assert "cloudinit" in node.qemu(VMID).config.get()["ide2"]
        assert node.storage("local").content.get(content="iso") == []
    again = drives.fo("plan", "--json").json["actions"]
    assert not [action for action in again if action["stage"] == "machines"]


def test_the_host_key_is_the_one_that_the_agent_told(drives: RealOperator) -> None:
    made = drives.ssh(WORKER, "cat /etc/ssh/ssh_host_ed25519_key.pub").out.split()[1]
    recorded = "".join(file.read_text() for file in (drives.folder / "ai" / "state").rglob("*known*"))
    assert made in recorded
    with proxmox() as node:
        told = node.qemu(VMID).agent("file-read").get(file="/etc/ssh/ssh_host_ed25519_key.pub")
    assert told["content"].split()[1] == made


def mounted(operator: RealOperator) -> tuple[str, str]:
    """Device and type of what is mounted where K3s keeps its data."""
    told = operator.ssh(WORKER, "findmnt --json --output SOURCE,FSTYPE /var/lib/rancher")
    if told.code != 0:
        return "", ""
    [found] = json.loads(told.out)["filesystems"]
    return found["source"], found["fstype"]


def test_the_data_disk_is_formatted_once_and_mounted_at_every_boot(drives: RealOperator) -> None:
    device = drives.ssh(WORKER, f"readlink -f {DATA_DISK}").out.strip()
    assert mounted(drives) == (device, "ext4")
    assert drives.ssh(WORKER, "sudo touch /var/lib/rancher/kept").code == 0
    with proxmox() as node:
        task_ended(node, node.qemu(VMID).resize.put(disk="scsi1", size="12G"))
        task_ended(node, node.qemu(VMID).status.shutdown.post())
        task_ended(node, node.qemu(VMID).status.start.post())
    eventually("the machine to be back", lambda: mounted(drives)[1] == "ext4", 60)
    told = drives.ssh(WORKER, "ls /var/lib/rancher; df -BG --output=size /var/lib/rancher | tail -1").out.split()
    assert "kept" in told
    assert int(told[-1].rstrip("G")) >= 11
