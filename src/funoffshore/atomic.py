"""Files that are there whole or not at all, however the process ends, and private from their first byte on."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

PRIVATE = 0o600
"""Read and written by the owner only."""


def write(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Makes ``path`` hold exactly ``data``; a reader sees the old bytes or the new ones, never a mixture.

    On disk, folder entry included, when this returns. What was at ``path`` is replaced: a symlink itself, not what
    it points to. The mode is ``mode`` whatever the umask. The folder must exist. Raises OSError, and then ``path``
    is as it was.
    """
    with _fresh(path, data, mode) as fresh:
        os.replace(fresh, path)
    sync(path.parent)


def create(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Like ``write``, but raises FileExistsError when anything is at ``path``, be it a dangling symlink."""
    with _fresh(path, data, mode) as fresh:
        os.link(fresh, path, follow_symlinks=False)
    sync(path.parent)


@contextlib.contextmanager
def _fresh(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A hidden file beside ``path`` with ``data`` safely on disk; gone afterwards, unless it was renamed."""
    fresh = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(fresh, flags, PRIVATE)
    try:
        try:
            _write_all(fd, data)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def sync(folder: Path) -> None:
    """A rename is on disk only once its folder is (fsync(2))."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
