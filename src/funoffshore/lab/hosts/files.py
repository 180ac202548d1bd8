"""A host's file system: a directory, with the owners and modes that an unprivileged lab cannot give to files.

Everything belongs to root unless the host said otherwise; what cannot be put on the real file is kept in the
store by inode. Links are the host's: ``/bin`` → ``usr/bin`` and absolute targets stay below the root.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from funoffshore.lab.base import Store

BUCKET = "host-owners"
LINKS = 40


@dataclass(frozen=True, slots=True)
class Attributes:
    """What ``stat`` shows on the host; the names are those of ``os.stat_result``."""

    st_mode: int
    st_uid: int
    st_gid: int
    st_size: int
    st_mtime: float
    st_mtime_ns: int
    st_ctime: float
    st_atime: float
    st_ino: int
    st_dev: int
    st_nlink: int


class Files:
    """The file system below ``root``. Paths are the host's, absolute, as text."""

    def __init__(self, root: Path, store: Store, vmid: int) -> None:
        self.root = root
        self._root = str(root)
        self._store = store
        self._key = str(vmid)
        self._lock = threading.Lock()
        self._odd: dict[str, list[int | None]] = store.get(BUCKET, self._key) or {}
        self.on_change: Callable[[str, str], None] = lambda verb, path: None
        """Hears ``write``, ``remove``, ``chmod``, ``chown`` or ``mkdir`` and the path."""

    def path(self, absolute: str, *, follow: bool = True) -> Path:
        """The real path. ``follow`` resolves a link at its end too. Raises OSError (ELOOP)."""
        todo = parts(absolute)
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            target = read_link("/".join((self._root, *done, part))) if todo or follow else ""
            if not target:
                done.append(part)
                continue
            links += 1
            if links > LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), absolute)
            done = [] if target.startswith("/") else done
            todo += parts(target)
        return Path("/".join((self._root, *done)))

    def stat(self, absolute: str, *, follow: bool = True) -> Attributes:
        """Raises OSError with the host's path in it."""
        try:
            return self.dress(os.lstat(self.path(absolute, follow=follow)))
        except OSError as why:
            raise OSError(why.errno, os.strerror(why.errno or 0), absolute) from None

    def dress(self, real: os.stat_result) -> Attributes:
        """The real attributes as the host sees them."""
        uid, gid, mode = self._odd.get(str(real.st_ino), (0, 0, None))
        bits = stat.S_IMODE(real.st_mode) if mode is None else mode
        return Attributes(
            stat.S_IFMT(real.st_mode) | bits,
            uid or 0,
            gid or 0,
            real.st_size,
            real.st_mtime,
            real.st_mtime_ns,
            real.st_ctime,
            real.st_atime,
            real.st_ino,
            real.st_dev,
            real.st_nlink,
        )

    def chmod(self, real: Path | int, mode: int) -> None:
        """Modes that would lock the lab itself out are only remembered. A descriptor is fine too."""
        now = os.stat(real)
        bearable = mode | (0o700 if stat.S_ISDIR(now.st_mode) else 0o600)
        if stat.S_IMODE(now.st_mode) != bearable:
            os.chmod(real, bearable)
        self._remember(now.st_ino, mode=mode if bearable != mode else None)

    def chown(self, real: Path | int, uid: int, gid: int) -> None:
        """-1 leaves a number as it is."""
        self._remember(os.stat(real).st_ino, uid=uid, gid=gid)

    def _remember(self, inode: int, *, uid: int = -1, gid: int = -1, mode: int | None = -1) -> None:
        with self._lock:
            old = self._odd.get(str(inode), [0, 0, None])
            new = [
                uid if uid >= 0 else old[0],
                gid if gid >= 0 else old[1],
                mode if mode is None or mode >= 0 else old[2],
            ]
            if new == old:
                return
            if new == [0, 0, None]:
                self._odd.pop(str(inode), None)
            else:
                self._odd[str(inode)] = new
            self._store.put(BUCKET, self._key, self._odd)

    def _forget(self, real: Path) -> None:
        try:
            inode = str(os.lstat(real).st_ino)
        except OSError:
            return
        with self._lock:
            if self._odd.pop(inode, None):
                self._store.put(BUCKET, self._key, self._odd)

    def unlink(self, absolute: str) -> None:
        """Raises OSError with the host's path."""
        real = self.path(absolute, follow=False)
        self._forget(real)
        with named(absolute):
            os.unlink(real)

    def replace(self, old: str, new: str) -> None:
        """``rename`` over whatever is there."""
        target = self.path(new, follow=False)
        self._forget(target)
        with named(new):
            os.replace(self.path(old, follow=False), target)

    def remove_tree(self, absolute: str) -> None:
        shutil.rmtree(self.path(absolute, follow=False), ignore_errors=True)

    def make_folders(self, absolute: str, mode: int = 0o755) -> None:
        """Like ``install -d``: only folders that are missing get ``mode``."""
        real = self.path(absolute)
        missing = []
        while not real.is_dir():
            missing.append(real)
            real = real.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self.chmod(folder, mode)

    def write(self, absolute: str, content: str | bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """The whole file, folders included."""
        real, flags = self.path(absolute), os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            handle = os.open(real, flags, 0o600)
        except FileNotFoundError:
            self.make_folders(os.path.dirname(absolute))
            handle = os.open(real, flags, 0o600)
        with open(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            self.chmod(handle, mode)
            if uid or gid:
                self.chown(handle, uid, gid)

    def read(self, absolute: str) -> str:
        """The file's text, or empty when there is none."""
        try:
            return self.path(absolute).read_text("utf-8", "replace")
        except OSError:
            return ""

    def exists(self, absolute: str) -> bool:
        try:
            return self.path(absolute).exists()
        except OSError:
            return False

    def may(self, uid: int, absolute: str, want: int) -> bool:
        """Whether user ``uid`` may read (4), write (2) or run (1) it; for a file to be made, its folder counts."""
        if uid == 0:
            return True
        names = parts(absolute)[::-1]
        folders = ["/" + "/".join(names[:end]) for end in range(len(names))]
        if not all(self._allows(uid, folder, 1) for folder in folders if self.exists(folder)):
            return False
        return self._allows(uid, absolute if self.exists(absolute) else os.path.dirname(absolute) or "/", want)

    def _allows(self, uid: int, absolute: str, want: int) -> bool:
        seen = self.stat(absolute)
        shift = 6 if seen.st_uid == uid else 3 if seen.st_gid == uid else 0
        return (seen.st_mode >> shift) & want == want


def read_link(path: str) -> str:
    """Where a real link leads; empty for anything else."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def parts(path: str) -> list[str]:
    """Components, last first."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


class named:  # reads as a phrase: with named(path)
    """OSErrors inside name the host's path, not the lab's."""

    def __init__(self, absolute: str) -> None:
        self._absolute = absolute

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, trace: object) -> None:
        if isinstance(why, OSError):
            raise OSError(why.errno, os.strerror(why.errno or 0), self._absolute) from None
