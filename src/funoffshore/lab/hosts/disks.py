"""The content of a machine's disks in one file, for backups and snapshots: a tar with the host's owners and modes."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import shutil
import tarfile
from pathlib import Path

from funoffshore.lab.base import Store
from funoffshore.lab.hosts.files import BUCKET, Files

_MADE_AT_BOOT = ("proc", "sys", "run")


def save(files: Files, target: Path) -> None:
    """What lies below the root; what a boot makes is left out, and what vanishes meanwhile is not there."""
    fresh = target.with_name(f".{target.name}.new")
    with tarfile.open(fresh, "w") as tar:
        for folder, names, others in os.walk(files.root):
            if Path(folder) == files.root:
                names[:] = [name for name in names if name not in _MADE_AT_BOOT]
            for name in sorted(names + others):
                with contextlib.suppress(FileNotFoundError):
                    _add(files, tar, Path(folder) / name)
    fresh.replace(target)


def _add(files: Files, tar: tarfile.TarFile, path: Path) -> None:
    member = tar.gettarinfo(path, str(path.relative_to(files.root)))
    if member is None:
        return
    shown = files.dress(os.lstat(path))
    member.uid, member.gid, member.mode = shown.st_uid, shown.st_gid, shown.st_mode & 0o7777
    if member.isreg():
        content = path.read_bytes()
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    else:
        tar.addfile(member)


def load(root: Path, store: Store, vmid: int, source: Path) -> None:
    """Replaces everything below ``root`` by what ``save`` put aside."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    store.delete(BUCKET, str(vmid))
    files = Files(root, store, vmid)
    with tarfile.open(source) as tar:
        for member in tar:
            bearable = copy.copy(member)
            bearable.uid, bearable.gid, bearable.uname, bearable.gname = os.getuid(), os.getgid(), "", ""
            bearable.mode = member.mode | (0o700 if member.isdir() else 0o600)
            tar.extract(bearable, root, filter="fully_trusted")
            if not member.issym():
                files.chmod(root / member.name, member.mode)
                files.chown(root / member.name, member.uid, member.gid)
