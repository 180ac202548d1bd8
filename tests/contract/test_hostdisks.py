"""The helper's view of disks on real block devices: what the kernel shows, and what resize2fs and blkid do."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from funoffshore.world import hostdisks
from funoffshore.world.ssh.facts import file_system_fact

MIB = 1 << 20
TOOLS = ("losetup", "mkfs.ext4", "resize2fs", "blkid", "mount", "umount")


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def loop(file: Path, size: int) -> Iterator[str]:
    """A block device of ``size`` bytes; skips where this machine gives none."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"no {', '.join(missing)} here")
    file.touch()
    os.truncate(file, size)
    try:
        device = run("losetup", "-f", "--show", str(file))
    except subprocess.CalledProcessError as why:
        pytest.skip(f"no block device here: {why.stderr.strip()}")
    try:
        yield device
    finally:
        run("losetup", "-d", device)


@contextlib.contextmanager
def mounted(device: str, folder: Path) -> Iterator[None]:
    folder.mkdir()
    try:
        run("mount", device, str(folder))
    except subprocess.CalledProcessError as why:
        pytest.skip(f"nothing can be mounted here: {why.stderr.strip()}")
    try:
        yield
    finally:
        run("umount", str(folder))


def test_a_file_system_follows_its_disk_while_it_is_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with loop(tmp_path / "disk", 200 * MIB) as device:
        assert hostdisks.fill_blank(device, "ext4", "fo-data") is True
        with mounted(device, folder):
            seen = file_system_fact(hostdisks.DISKS["file_systems"](str(folder)))
            assert (seen.type, seen.device, seen.disk) == ("ext4", os.path.basename(device), os.path.basename(device))
            assert (seen.device_bytes, seen.disk_bytes, seen.tail) == (200 * MIB, 200 * MIB, 0)
            assert 0 <= seen.device_bytes - seen.bytes < MIB
            assert seen.unused == 0
            (folder / "kept").write_text("kept")
            os.truncate(tmp_path / "disk", 400 * MIB)
            run("losetup", "-c", device)
            seen = file_system_fact(hostdisks.DISKS["file_systems"](str(folder)))
            assert (seen.device_bytes, seen.unused) == (400 * MIB, 200 * MIB)
            if may_resize():
                assert hostdisks.DISKS["grow"]({"path": str(folder)}) == {"result": "changed"}
            else:
                refused = hostdisks.DISKS["grow"]({"path": str(folder)})
                assert "resize2fs: Permission denied" in refused["error"]
                run("umount", str(folder))
                run("e2fsck", "-fy", device)
                run("resize2fs", device)
                run("mount", device, str(folder))
            assert hostdisks.DISKS["grow"]({"path": str(folder)}) == {"result": "same"}
            assert file_system_fact(hostdisks.DISKS["file_systems"](str(folder))).unused == 0
            assert os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize > 350 * MIB
            assert (folder / "kept").read_text() == "kept"
        assert hostdisks.file_system(str(folder)) == {"state": "absent"}


def may_resize() -> bool:
    """CAP_SYS_RESOURCE, which the kernel asks of whoever grows a mounted file system; root of a container lacks it."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) & 1 << 24)


def test_only_a_blank_disk_is_formatted(tmp_path: Path) -> None:
    with loop(tmp_path / "disk", 64 * MIB) as device:
        for content, said in ((b"\0" * 70000 + b"data", "is not blank"), (b"\xeb" * 510 + b"\x55\xaa", "not")):
            Path(device).write_bytes(content)
            with pytest.raises(hostdisks.DiskError, match=f"{said}.*was not touched|holds something else"):
                hostdisks.fill_blank(device, "ext4", "fo-data")
            with open(device, "rb") as stream:
                assert stream.read(len(content)) == content
            Path(device).write_bytes(b"\0" * len(content))
        run("mkfs.ext4", "-q", "-F", "-L", "theirs", device)
        before = run("blkid", "-p", device)
        assert hostdisks.fill_blank(device, "ext4", "fo-data") is False
        assert run("blkid", "-p", device) == before


def test_a_bind_mount_and_a_file_system_without_device_are_left_alone(tmp_path: Path) -> None:
    with loop(tmp_path / "disk", 64 * MIB) as device:
        run("mkfs.ext4", "-q", "-F", device)
        with mounted(device, tmp_path / "data"):
            (tmp_path / "data" / "part").mkdir()
            (tmp_path / "bound").mkdir()
            run("mount", "--bind", str(tmp_path / "data" / "part"), str(tmp_path / "bound"))
            try:
                seen = hostdisks.DISKS["file_systems"](str(tmp_path / "bound"))
                refused = hostdisks.DISKS["grow"]({"path": str(tmp_path / "bound")})
            finally:
                run("umount", str(tmp_path / "bound"))
    assert file_system_fact(seen).unused == 0
    assert (refused["result"], refused["kind"]) == ("failed", "disk")
    assert file_system_fact(hostdisks.DISKS["file_systems"]("/proc")).unused == 0


def test_the_folder_of_no_mount_is_absent_and_a_device_that_is_gone_is_an_answer(tmp_path: Path) -> None:
    assert hostdisks.DISKS["file_systems"](str(tmp_path)) == {"state": "absent"}
    wanted = {"device": "/dev/disk/by-id/nothing", "path": str(tmp_path), "type": "ext4", "label": "x", "options": ""}
    refused = hostdisks.DISKS["prepare"](wanted)
    assert refused["error"] == "there is no /dev/disk/by-id/nothing: is the data disk attached?"
    assert hostdisks.DISKS["prepare"]({})["result"] == "failed"
