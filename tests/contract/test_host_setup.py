"""What a machine without an ISO gets over SSH; data disks, and file systems that follow their disks."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines_house import Step
from ssh_machines import until
from trust_house import facts, guest, guests, house, lines, settle, up

from funoffshore import errors
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.reading import Absent, Present
from funoffshore.stages.machines import host as settling
from funoffshore.stages.machines import host_setup, settled


def test_what_the_iso_would_have_brought_is_there(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        made.settle()
        files = guest(made).files
        for path in ("/etc/modules-load.d/90-fo.conf", "/etc/sysctl.d/90-fo.conf", "/etc/ssh/sshd_config.d/10-fo.conf"):
            assert files.exists(path)
        assert files.exists("/var/lib/dpkg/info/nfs-common.list")
        assert files.read("/etc/timezone") == "Etc/UTC\n"
        assert files.exists("/etc/cloud/cloud-init.disabled")
        before = made.kit.ledger.count()
        host_setup.complete(made.world, made.config, made.config.nodes[0], Step())
        assert made.kit.ledger.count() == before


def test_a_set_up_that_fails_tells_why_and_is_done_by_the_next_run(tmp_path: Path) -> None:
    def broken(machine: Machine, argv: list[str], stdin: bytes) -> Result:
        return Result(100, b"", b"E: Unable to fetch some archives\n")

    with house(tmp_path, "agent") as made:
        up(made)
        lab = guests(made)
        whole = lab._programs["apt-get"]
        lab.register_program("apt-get", broken)
        with pytest.raises(errors.TaskFailedError, match="setting up lab-c1 failed: E: Unable to fetch") as caught:
            settle(made)
        assert any("Unable to fetch" in line for line in caught.value.evidence)
        assert not guest(made).files.exists("/etc/cloud/cloud-init.disabled")
        lab.register_program("apt-get", whole)
        made.settle()


def test_the_data_disk_is_made_and_mounted_once(tmp_path: Path) -> None:
    with house(tmp_path, "agent", data=10) as made:
        made.settle()
        found = made.doors.hosts.observe(made.config.nodes[0])
        assert isinstance(found, Present)
        assert settling.data_disk_problem(made.config.nodes[0], found.value) == ""
        assert guest(made).files.read("/etc/fstab").count("/var/lib/rancher") == 1


def test_a_machine_whose_data_disk_is_not_mounted_is_not_settled(tmp_path: Path) -> None:
    with house(tmp_path, "agent", data=10) as made:
        up(made)
        lab = guests(made)
        whole = lab._programs["mount"]
        lab.register_program("mount", lambda machine, argv, stdin: Result(32, b"", b"mount: no way\n"))
        with pytest.raises(errors.TaskFailedError, match="mount /var/lib/rancher: exit 32: mount: no way"):
            settle(made)
        lab.register_program("mount", whole)
        made.settle()
        assert made.doors.hosts.read_file(made.config.nodes[0], "/etc/cloud/cloud-init.disabled") != Absent()


def test_file_systems_follow_disks_that_grew_under_a_running_machine(tmp_path: Path) -> None:
    with house(tmp_path, "agent", data=10) as made:
        made.settle()
        node = made.config.nodes[0]
        assert settled.filesystem_lags(facts(made)) == ""
        for disk, size in (("scsi0", node.disk_gib + 8), ("scsi1", 12)):
            upid = made.doors.proxmox.resize("pve", 9000, disk, size)
            made.doors.proxmox.wait_task(upid, Step(), "the disk")
        lag = settled.filesystem_lags(facts(made))
        assert f"the file system of / fills {node.disk_gib - 0.1:.1f} of {node.disk_gib + 8:.1f} GiB" in lag
        assert "the file system of /var/lib/rancher fills 10.0 of 12.0 GiB" in lag
        step = Step()
        settling.grow_filesystems(made.world, node, step)
        assert step.said == ["growing the file system of / and /var/lib/rancher"]
        assert settled.filesystem_lags(facts(made)) == ""
        settling.grow_filesystems(made.world, node, step)
        assert len(step.said) == 1
        space = facts(made).space["/"]
        assert isinstance(space, Present)
        assert space.value.bytes > (node.disk_gib + 5) << 30


def test_a_file_system_that_does_not_grow_is_an_error_that_names_it(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        made.settle()
        upid = made.doors.proxmox.resize("pve", 9000, "scsi0", 100)
        made.doors.proxmox.wait_task(upid, Step(), "the disk")
        guests(made).register_program("growpart", lambda machine, argv, stdin: Result(1, b"NOCHANGE: partition 1\n"))
        with pytest.raises(errors.TaskFailedError, match="lab-c1: /: / still does not fill its disk"):
            settling.grow_filesystems(made.world, made.config.nodes[0], Step())
        guest(made).files.unlink("/usr/bin/growpart")
        with pytest.raises(errors.TaskFailedError, match="growpart is not installed"):
            settling.grow_filesystems(made.world, made.config.nodes[0], Step())


@pytest.mark.parametrize("content", [b"something else", b"\0" * 4096 + b"x"])
def test_a_data_disk_with_anything_on_it_is_not_touched(tmp_path: Path, content: bytes) -> None:
    with house(tmp_path, "agent", data=10) as made:
        up(made)
        until(lambda: made.doors.hosts.answers(made.config.nodes[0].address))
        guest(made).files.write("/dev/sdb", content)
        with pytest.raises(errors.TaskFailedError, match="was not touched"):
            settle(made)
        assert guest(made).files.path("/dev/sdb").read_bytes() == content


def test_nothing_is_mounted_over_files(tmp_path: Path) -> None:
    with house(tmp_path, "agent", data=10) as made:
        up(made)
        until(lambda: made.doors.hosts.answers(made.config.nodes[0].address))
        guest(made).files.write("/var/lib/rancher/k3s/data", "x")
        with pytest.raises(errors.TaskFailedError, match="already holds files, which a mount would hide"):
            settle(made)
        assert guest(made).files.path("/dev/sdb").read_bytes() == b""


def test_the_iso_formats_a_blank_data_disk_and_takes_one_that_has_a_file_system(tmp_path: Path) -> None:
    with house(tmp_path, "seed", seed="iso", data=10) as made:
        made.settle()
        assert settling.data_disk_problem(made.config.nodes[0], facts(made)) == ""
        assert "x-systemd.device-timeout=30s" in guest(made).files.read("/etc/fstab")
        assert lines(made) == []
        assert settled.filesystem_lags(facts(made)) == ""


def test_an_iso_whose_data_disk_is_not_mounted_is_an_error(tmp_path: Path) -> None:
    with house(tmp_path, "seed", seed="iso", data=10) as made:
        up(made)
        guests(made).register_program("mount", lambda machine, argv, stdin: Result(32))
        until(lambda: made.doors.hosts.answers(made.config.nodes[0].address))
        guest(made).files.write("/run/lab-mounts", "")
        guest(made).files.write("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        with pytest.raises(errors.TaskFailedError, match="lab-c1 came up, but its data disk is not mounted at /var"):
            settle(made)
