"""The disks of a host as its kernel shows them: ``sda`` with its root partition, ``sdb`` where there is a data disk.

What is written on a disk lies in ``/dev``: the partition table of ``sda`` as JSON, of a file system the one block
that matters (kernel, Documentation/filesystems/ext4/super.rst). Sizes come from the hardware at every look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.hosts.files import Files
from funoffshore.lab.hosts.machine import Host
from funoffshore.lab.hosts.systemctl import host_of

SECTOR = 512
START = 262144
"""First sector of the root partition; before it lie those for the boot loader, as on Debian's images."""
IMAGE = 3 << 30
"""Bytes of the image, as it was published."""
TAIL = 34
"""Sectors at the end that GPT keeps for its second table."""
USED = 2 << 30
"""Bytes of the root file system that the image fills."""
DATA_ID = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_fo-data"
MOUNTS = "/run/lab-mounts"
"""What is mounted beside the root: ``device folder`` a line."""
NUMBERS = {"sda": "8:0", "sda1": "8:1", "sdb": "8:16"}


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device; sizes in sectors."""

    name: str
    size: int
    start: int = 0
    """Only a partition begins behind the start of its disk."""


def devices(host: Host) -> dict[str, Disk]:
    """What the kernel knows, by name."""
    found = {"sda": Disk("sda", _sectors(host.hardware.disk_gib))}
    table = host.files.read("/dev/sda")
    if table:
        part = json.loads(table)
        found["sda1"] = Disk("sda1", part["size"], part["start"])
    if host.hardware.data_disk_gib:
        found["sdb"] = Disk("sdb", _sectors(host.hardware.data_disk_gib))
    return found


def boot(host: Host) -> None:
    """Disks as the image leaves them, and what ``/etc/fstab`` mounts."""
    if not host.files.exists("/dev/sda"):
        size = min(IMAGE // SECTOR, _sectors(host.hardware.disk_gib)) - START - TAIL
        host.files.write("/dev/sda", json.dumps({"start": START, "size": size}), 0o660)
        format_ext4(host.files, "/dev/sda1", size * SECTOR, "")
    show(host)
    mount_all(host)


def show(host: Host) -> None:
    """``/sys`` and ``/proc`` as the kernel shows the disks at this moment."""
    files = host.files
    for name, disk in devices(host).items():
        place = f"/sys/devices/pci0000:00/block/{'sda/' if name == 'sda1' else ''}{name}"
        files.write(f"{place}/size", f"{disk.size}\n", 0o444)
        if disk.start:
            files.write(f"{place}/start", f"{disk.start}\n", 0o444)
            files.write(f"{place}/partition", f"{name[3:]}\n", 0o444)
        _link(files, f"/sys/dev/block/{NUMBERS[name]}", place)
        if not files.exists(f"/dev/{name}"):
            files.write(f"/dev/{name}", "", 0o660)
    if host.hardware.data_disk_gib:
        _link(files, DATA_ID, "/dev/sdb")
    lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard"]
    for number, (device, folder) in enumerate(mounts(host), 40):
        lines.append(f"{number} 22 {NUMBERS[device]} / {folder} rw,relatime shared:{number} - ext4 /dev/{device} rw")
    files.write("/proc/self/mountinfo", "".join(f"{line}\n" for line in lines), 0o444)


def mounts(host: Host) -> Iterator[tuple[str, str]]:
    """Device and folder of what is mounted beside the root."""
    for line in host.files.read(MOUNTS).splitlines():
        device, folder = line.split()
        yield device, folder


def mount_all(host: Host) -> str:
    """What ``mount -a`` does; its complaints."""
    said = ""
    for fields in fstab(host):
        if len(fields) > 3 and fields[1] != "/" and not mount(host, fields[0], fields[1]):
            said += f"mount: {fields[1]}: wrong fs type, bad option, bad superblock on {fields[0]}\n"
    return said


def fstab(host: Host) -> list[list[str]]:
    return [line.split() for line in host.files.read("/etc/fstab").splitlines() if line.split() and line[0] != "#"]


def mount(host: Host, device: str, folder: str) -> bool:
    """False when there is no such device, or no file system on it."""
    name = device_name(host, device)
    if name not in devices(host) or not extent(host.files, f"/dev/{name}"):
        return False
    if folder not in [at for _, at in mounts(host)]:
        host.files.make_folders(folder)
        host.files.write(MOUNTS, host.files.read(MOUNTS) + f"{name} {folder}\n")
        show(host)
    return True


def device_name(host: Host, path: str) -> str:
    """``sdb`` for any name of the device; empty for what is none."""
    try:
        real = host.files.path(path)
    except OSError:
        return ""
    return real.name if real.parent == host.files.path("/dev") and real.exists() else ""


def format_ext4(files: Files, device: str, size: int, label: str) -> None:
    """The superblock of a fresh file system of ``size`` bytes."""
    block = bytearray(2048)
    block[1024 + 0x18] = 2  # blocks of 4 KiB
    block[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    block[1024 + 0x78 : 1024 + 0x78 + len(label)] = label.encode()
    files.write(device, bytes(block), 0o660)
    stretch(files, device, size)


def stretch(files: Files, device: str, size: int) -> None:
    """Enters another size in the superblock."""
    block = bytearray(files.path(device).read_bytes())
    block[1024 + 4 : 1024 + 8] = (size // 4096).to_bytes(4, "little")
    files.write(device, bytes(block), 0o660)


def extent(files: Files, device: str) -> int:
    """Bytes that the file system spans; 0 without one."""
    try:
        block = files.path(device).read_bytes()
    except OSError:
        return 0
    magic = block[1024 + 0x38 : 1024 + 0x3A] == b"\x53\xef"
    return int.from_bytes(block[1024 + 4 : 1024 + 8], "little") * 4096 if magic else 0


def fill_root(host: Host) -> None:
    """cloud-init's growpart and resizefs, at every boot where it runs."""
    grow_partition(host)
    stretch(host.files, "/dev/sda1", devices(host)["sda1"].size * SECTOR)


def grow_partition(host: Host) -> tuple[int, int]:
    """The root partition up to the end of the disk; its size before and after, in sectors."""
    found = devices(host)
    before, size = found["sda1"].size, found["sda"].size - START - TAIL
    # growpart's --fudge: less than 1 MiB is not worth it.
    if size - before < 2048:
        return before, before
    host.files.write("/dev/sda", json.dumps({"start": START, "size": size}), 0o660)
    show(host)
    return before, size


def room(host: Host, path: str) -> tuple[int, int]:
    """Size of the file system that holds ``path`` and what of it is taken, in bytes."""
    size, used = extent(host.files, "/dev/sda1"), USED
    for device, folder in mounts(host):
        if f"{path}/".startswith(f"{folder}/"):
            size, used = extent(host.files, f"/dev/{device}"), 0
            break
    return size, size - circumstances.FREE if circumstances.is_full(host, path) else used


def _sectors(gib: float) -> int:
    return int(gib * (1 << 30)) // SECTOR


def _link(files: Files, path: str, target: str) -> None:
    place = files.path(path, follow=False)
    if not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)


def growpart(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """``growpart /dev/sda 1``; words and exit status as cloud-utils has them."""
    host = host_of(machine)
    if argv[1:] != ["/dev/sda", "1"]:
        return Result(2, b"", b"FAILED: failed to get start and end for partition\n")
    before, after = grow_partition(host)
    if before == after:
        return Result(1, f"NOCHANGE: partition 1 is size {before}. it cannot be grown\n".encode())
    said = f"CHANGED: partition=1 start={START} old: size={before} end={START + before - 1} new: size={after}"
    return Result(0, f"{said} end={START + after - 1}\n".encode())


def resize2fs(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    host, device = host_of(machine), argv[-1]
    name = device_name(host, device)
    now = extent(host.files, device) if name else 0
    if not now:
        return Result(
            1, b"", b"resize2fs: Bad magic number in super-block\nCouldn't find valid filesystem superblock.\n"
        )
    wanted = devices(host)[name].size * SECTOR // 4096 * 4096
    if wanted == now:
        return Result(0, b"", f"The filesystem is already {now // 4096} (4k) blocks long.  Nothing to do!\n".encode())
    stretch(host.files, device, wanted)
    return Result(0, f"The filesystem on {device} is now {wanted // 4096} (4k) blocks long.\n".encode())


def mkfs_ext4(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    host, device = host_of(machine), argv[-1]
    name = device_name(host, device)
    if name not in devices(host):
        return Result(1, b"", f"mkfs.ext4: No such file or directory while opening {device}\n".encode())
    label = argv[argv.index("-L") + 1] if "-L" in argv else ""
    format_ext4(host.files, f"/dev/{name}", devices(host)[name].size * SECTOR, label)
    return Result(0)


def blkid(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """``blkid -p``: exit 2 for a device on which nothing was found, 8 where it cannot decide (blkid(8))."""
    host, device = host_of(machine), argv[-1]
    if not device_name(host, device):
        return Result(2, b"", f"error: {device}: No such file or directory\n".encode())
    if extent(host.files, device):
        return Result(0, b"ext4\n")
    return Result(8 if host.files.path(device).read_bytes().strip(b"\0") else 2)


def mount_program(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """``mount -a``, or ``mount FOLDER`` of a line in ``/etc/fstab``."""
    host = host_of(machine)
    if argv[1:] == ["-a"]:
        said = mount_all(host)
        return Result(32 if said else 0, b"", said.encode())
    line = next((fields for fields in fstab(host) if fields[1:2] == argv[1:2]), None)
    if line is None:
        return Result(1, b"", f"mount: {argv[-1]}: can't find in /etc/fstab.\n".encode())
    if not mount(host, line[0], line[1]):
        return Result(32, b"", f"mount: {line[1]}: wrong fs type, bad option, bad superblock on {line[0]}\n".encode())
    return Result(0)


PROGRAMS = {
    "growpart": growpart, "resize2fs": resize2fs, "mkfs.ext4": mkfs_ext4, "blkid": blkid, "mount": mount_program,
}  # fmt: skip
