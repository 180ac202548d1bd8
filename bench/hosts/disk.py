"""Disks: the imported image as the lowest layer that all machines share, a file system of its own for each, and a
second disk without anything on it for those that have one."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

from bench.hosts.commands import CommandError, run

FOLDERS = ("root/upper", "root/work", "rancher", "kubelet", "containerd")
"""On a machine's disk. Overlay cannot lie upon overlay, so what holds containers is beside the root, not in it."""
PATIENCE = 5.0
"""Seconds that a file system may stay busy after everything on it was killed."""


class Images:
    """Images mounted read-only, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._mounted: dict[Path, Path] = {}

    def mounted(self, image: Path) -> Path:
        """Where the tree in a qcow2 image can be seen. Raises ValueError when there is no such tree in it."""
        with self._lock:
            if image not in self._mounted:
                self._mounted[image] = self._mount(image)
            return self._mounted[image]

    def _mount(self, image: Path) -> Path:
        raw = self._folder / f"{image.name}.raw"
        point = self._folder / f"{image.name}.tree"
        point.mkdir(parents=True, exist_ok=True)
        try:
            run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
            run("mount", "-t", "squashfs", "-o", "loop,ro", raw, point)
        except CommandError as why:
            raise ValueError(f"{image.name} is not an image of the bench: {why}") from why
        return point


class Disk:
    """One machine's disk: a sparse file with ext4 on it, mounted while the machine has power."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "disk.ext4"
        self.mount = folder / "disk"
        self.root = folder / "root"

    def attach(self, lower: Path, gib: float) -> None:
        """Mounts disk and root, the disk grown to ``gib`` where it was smaller. Raises CommandError."""
        fresh = not self.file.exists()
        _enlarge(self.file, gib)
        if fresh:
            lazy = "lazy_itable_init=1,nodiscard"
            run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", lazy, "-m", "0", self.file)
        else:
            _fill(self.file)
        self.mount.mkdir(exist_ok=True)
        self.root.mkdir(exist_ok=True)
        run("mount", "-o", "loop,noatime", self.file, self.mount)
        for name in FOLDERS:
            (self.mount / name).mkdir(parents=True, exist_ok=True)
        upper, work = self.mount / "root/upper", self.mount / "root/work"
        layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)

    def detach(self) -> None:
        """Unmounts both, whatever state they are in."""
        give_up = time.monotonic() + PATIENCE
        for point in (self.root, self.mount):
            while os.path.ismount(point):
                try:
                    run("umount", "-R", point)
                except CommandError:  # mount namespaces of the dead are taken down in the background
                    if time.monotonic() > give_up:
                        run("umount", "-R", "-l", point)
                    time.sleep(0.05)


class DataDisk:
    """A machine's second disk: a sparse file behind a loop device, blank until the machine formats it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "data.raw"
        self._device = ""
        self._held = -1

    def attach(self, gib: float) -> str:
        """The kernel's name of the device, ``loop3``, the disk grown to ``gib`` where it was smaller."""
        _enlarge(self.file, gib)
        if _is_ext4(self.file):
            _fill(self.file)
        self._device = run("losetup", "--find", "--show", self.file).strip()
        self._held = os.open(self._device, os.O_RDWR)
        # as somebody holds it open, this only tells the kernel to drop it with its last user, whoever is killed
        run("losetup", "--detach", self._device)
        return Path(self._device).name

    def detach(self) -> None:
        """Returns once nothing of the machine uses the disk any more, or after a while."""
        if self._held < 0:
            return
        os.close(self._held)
        self._held = -1
        backing = Path("/sys/block") / Path(self._device).name / "loop/backing_file"
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:  # mount namespaces of the dead are taken down in the background
            try:
                if backing.read_text().strip() != str(self.file):
                    return
            except OSError:
                return
            time.sleep(0.05)


def _enlarge(file: Path, gib: float) -> None:
    size = int(gib * 1024**3)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    if file.stat().st_size < size:
        os.truncate(file, size)


def _fill(file: Path) -> None:
    """Its file system as large as the disk. Growing it while it is mounted would need CAP_SYS_RESOURCE."""
    subprocess.run(["e2fsck", "-f", "-y", file], capture_output=True, check=False)
    run("resize2fs", file)


def _is_ext4(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(0x43A)[0x438:] == b"\x53\xef"
