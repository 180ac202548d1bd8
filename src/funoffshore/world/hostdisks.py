"""The part of the program on a host that knows disks: what file systems fill, growing them, preparing a fresh disk.

Sent in front of ``hosthelper.py``, under the same rules: Python 3.9, standard library, fixed programs with fixed
arguments. Devices are taken from what the kernel says is mounted, never guessed; a disk with anything on it is
never formatted.
"""

from __future__ import annotations

import functools
import os
import struct
import subprocess
from typing import Any

SECTOR = 512  # bytes; sysfs counts in these whatever the disk's own are (kernel, Documentation/block/stat)
TAIL = 4 << 20  # bytes behind a partition that are not worth growing into: alignment, and GPT's second table
ROUNDING = 16 << 20  # bytes that a file system may leave at the end of its device: less than a group of ext4 or xfs
XFS_GEOMETRY = 0x80705864  # XFS_IOC_FSGEOMETRY_V1 (xfsprogs, xfs_fs.h)
GROWERS = {"ext2": "resize2fs", "ext3": "resize2fs", "ext4": "resize2fs", "xfs": "xfs_growfs"}
FORMATS = {"ext4": ("mkfs.ext4", "-q", "-F", "-L")}
PATIENCE = 900  # seconds for one program


class DiskError(Exception):
    """Why a disk was left as it is."""


def first_line(path: str) -> str:
    """Empty where there is no such file."""
    try:
        with open(path) as stream:
            return stream.readline().strip()
    except OSError:
        return ""


def mounted(path: str) -> dict[str, Any] | None:
    """What is mounted exactly at ``path``, as proc(5) tells of mountinfo; the last one is on top."""
    found = None
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            fields = line.split()
            rest = fields.index("-") if "-" in fields else 0
            if rest and fields[4].replace("\\040", " ") == path:
                found = {"number": fields[2], "whole": fields[3] == "/", "type": fields[rest + 1]}
    return found


def block_device(number: str) -> dict[str, Any] | None:
    """The device with that ``major:minor``, and the disk it is a partition of; None for what is no block device."""
    link = "/sys/dev/block/" + number
    if not os.path.exists(link):
        return None
    place = os.path.realpath(link)
    name, size = os.path.basename(place), sectors(place + "/size")
    device: dict[str, Any] = {"name": name, "bytes": size, "partition": 0, "tail": 0, "disk": name, "disk_bytes": size}
    if not first_line(place + "/partition"):
        return device
    disk = os.path.dirname(place)
    end, limit = sectors(place + "/start") + size, sectors(disk + "/size")
    for other in os.listdir(disk):
        start = sectors(f"{disk}/{other}/start") if os.path.exists(f"{disk}/{other}/partition") else 0
        limit = min(limit, start) if start >= end else limit
    device.update(partition=int(first_line(place + "/partition")), tail=max(limit - end, 0))
    device.update(disk=os.path.basename(disk), disk_bytes=sectors(disk + "/size"))
    return device


def sectors(path: str) -> int:
    """A count of sectors in sysfs, as bytes."""
    return int(first_line(path) or "0") * SECTOR


def identities(name: str) -> list[str]:
    """Names below /dev/disk/by-id that lead to the device."""
    folder = "/dev/disk/by-id"
    if not os.path.isdir(folder):
        return []
    return sorted(link for link in os.listdir(folder) if os.path.realpath(f"{folder}/{link}") == "/dev/" + name)


def extent(kind: str, device: str, path: str) -> int:
    """Bytes that the file system says it spans; 0 where nobody here can tell."""
    if kind in ("ext2", "ext3", "ext4"):
        return ext_extent(device)
    return xfs_extent(path) if kind == "xfs" else 0


def ext_extent(device: str) -> int:
    """From the superblock (kernel, Documentation/filesystems/ext4/super.rst)."""
    try:
        with open(device, "rb") as stream:
            block = stream.read(2048)[1024:]
    except FileNotFoundError:
        return 0
    if len(block) < 1024 or block[0x38:0x3A] != b"\x53\xef":
        return 0
    low, shift, features = (int.from_bytes(block[at : at + 4], "little") for at in (0x4, 0x18, 0x60))
    high = int.from_bytes(block[0x150:0x154], "little") if features & 0x80 else 0
    return ((high << 32) + low) << (10 + shift)


def xfs_extent(path: str) -> int:
    """From the kernel: the superblock on disk may be older."""
    import fcntl

    handle = os.open(path, os.O_RDONLY)
    try:
        answer = fcntl.ioctl(handle, XFS_GEOMETRY, bytes(112))
    finally:
        os.close(handle)
    size, count = struct.unpack_from("=I", answer, 0)[0], struct.unpack_from("=Q", answer, 32)[0]
    return int(size * count)


def file_system(path: str) -> dict[str, Any]:
    """The file system mounted at ``path``, its device and its disk. Absent where nothing is mounted just there."""
    mount = mounted(path)
    if mount is None:
        return {"state": "absent"}
    device = block_device(mount["number"])
    answer: dict[str, Any] = {"state": "present", "type": mount["type"], "bytes": 0, "device": "", "disk": ""}
    if device is None or not mount["whole"]:
        return answer
    name = device["name"]
    return {
        **answer,
        "device": name,
        "device_bytes": device["bytes"],
        "disk": device["disk"],
        "disk_bytes": device["disk_bytes"],
        "partition": device["partition"],
        "tail": device["tail"],
        "bytes": extent(mount["type"], "/dev/" + name, path),
        "ids": identities(name),
    }


def program(*argv: str) -> tuple[int, str]:
    """Exit status and all it said. Raises DiskError when it is not there, or hangs."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise DiskError(argv[0] + " is not installed") from None
    except subprocess.TimeoutExpired:
        raise DiskError(f"{' '.join(argv)} did not end within {PATIENCE} s") from None
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    return done.returncode, " ".join(said.split())[-400:]


def must(*argv: str) -> None:
    code, said = program(*argv)
    if code:
        raise DiskError(f"{' '.join(argv)}: exit {code}: {said}")


def grow(item: dict[str, Any]) -> dict[str, Any]:
    """Makes the partition fill its disk and the file system its partition, mounted as it is. Never shrinks."""
    path = item["path"]
    before = file_system(path)
    if not before.get("device"):
        raise DiskError(f"{path} is not a whole file system on a disk of its own")
    if before["partition"] and before["tail"] > TAIL:
        # Exit 1 is its word for "nothing to do"; whether that is true is looked at below.
        code, said = program("growpart", "/dev/" + before["disk"], str(before["partition"]))
        if code not in (0, 1):
            raise DiskError(f"growpart: exit {code}: {said}")
    middle = file_system(path)
    if middle["device_bytes"] - middle["bytes"] > ROUNDING:
        grower = GROWERS.get(middle["type"]) if middle["bytes"] else None
        if grower is None:
            raise DiskError(f"fo does not know how to grow the file system of {path} ({middle['type']})")
        must(grower, path if grower == "xfs_growfs" else "/dev/" + middle["device"])
    after = file_system(path)
    if after["tail"] > TAIL or after["device_bytes"] - after["bytes"] > ROUNDING:
        raise DiskError(f"{path} still does not fill its disk ({after['bytes']} of {after['disk_bytes']} bytes)")
    return {"result": "same" if after == before else "changed"}


def prepare(item: dict[str, Any]) -> dict[str, Any]:
    """A file system on ``device`` (a link below /dev/disk/by-id), mounted at ``path`` now and at every boot.

    Formats nothing but a disk that is blank, and mounts over no folder that holds anything.
    """
    device, path, kind = item["device"], item["path"], item["type"]
    name = os.path.basename(os.path.realpath(device))
    if not os.path.exists(device):
        raise DiskError(f"there is no {device}: is the data disk attached?")
    there = file_system(path)
    if there["state"] == "present" and there.get("device") != name:
        raise DiskError(f"something else is mounted at {path} ({there.get('device') or there['type']})")
    if there["state"] == "absent" and os.path.isdir(path) and os.listdir(path):
        raise DiskError(f"{path} already holds files, which a mount would hide")
    formatted = there["state"] == "absent" and fill_blank(device, kind, item["label"])
    noted = note_mount(device, path, kind, item["options"])
    if there["state"] == "present":
        return {"result": "changed" if noted else "same"}
    os.makedirs(path, exist_ok=True)
    must("systemctl", "daemon-reload")
    must("mount", path)
    if file_system(path).get("device") != name:
        raise DiskError(f"{device} was mounted at {path}, and is not there")
    return {"result": "changed", "formatted": formatted}


def fill_blank(device: str, kind: str, label: str) -> bool:
    """Formats the disk when nothing at all is on it; False when the wanted file system is there."""
    code, said = program("blkid", "-p", "-o", "value", "-s", "TYPE", device)
    if code == 0 and said == kind:
        return False
    if code != 2:
        raise DiskError(f"{device} holds something else ({said or 'blkid cannot tell what'}); it was not touched")
    with open(device, "rb") as stream:
        if stream.read(1 << 20).strip(b"\0"):
            raise DiskError(f"{device} is not blank; it was not touched")
    must(*FORMATS[kind], label, device)
    return True


def note_mount(device: str, path: str, kind: str, options: str) -> bool:
    """The line of /etc/fstab; False when a line for that folder is there already."""
    with open("/etc/fstab") as stream:
        text = stream.read()
    if any(line.split()[1:2] == [path] for line in text.splitlines() if not line.lstrip().startswith("#")):
        return False
    whole = text if not text or text.endswith("\n") else text + "\n"
    temp = "/etc/.fstab.fo"
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with open(handle, "w") as stream:
        stream.write(f"{whole}{device}\t{path}\t{kind}\t{options}\t0\t2\n")
        stream.flush()
        os.fsync(handle)
    os.replace(temp, "/etc/fstab")
    return True


def attempted(operation: Any, argument: Any) -> dict[str, Any]:
    """Its answer, or why not, as data."""
    try:
        answer: dict[str, Any] = operation(argument)
    except (DiskError, OSError, LookupError, ValueError) as why:
        text = str(why) if isinstance(why, DiskError) else f"{type(why).__name__}: {why}"
        return {"result": "failed", "state": "unreadable", "kind": "disk", "error": text}
    return answer


DISKS = {
    "file_systems": functools.partial(attempted, file_system),
    "prepare": functools.partial(attempted, prepare),
    "grow": functools.partial(attempted, grow),
}
