"""Reading a file that came from anywhere: no waiting, no symlink, no more bytes than asked for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

FILE = -1
"""Line of a problem of the file as a whole."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, for the operator. Never holds the value of a secret."""

    line: int
    """From 1; 0 when it concerns no line, FILE when it concerns the file as a whole."""
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line > 0 else self.text


def read(
    path: Path, limit: int, distrust: Callable[[os.stat_result], Iterable[Problem]]
) -> tuple[bytes | None, list[Problem]]:
    """The bytes of the file, or why it is not trusted. Never waits, and never follows a symlink at ``path``.

    What is wrong with the file itself (kind, size, and what ``distrust`` says of owner and mode) comes as problems;
    None where there is nothing that could be looked at further.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except OSError as why:
        return None, [Problem(FILE, _cannot_open(why))]
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None, [Problem(FILE, f"is {_kind(status.st_mode)}, not a regular file")]
        problems = list(distrust(status))
        if status.st_size > limit:
            return None, [*problems, Problem(FILE, f"is larger than {limit // 1024} KiB")]
        data = _read_at_most(fd, limit + 1)
    except OSError as why:
        return None, [Problem(FILE, f"cannot be read: {os.strerror(why.errno or 0)}")]
    finally:
        os.close(fd)
    if len(data) > limit:
        return None, [*problems, Problem(FILE, f"is larger than {limit // 1024} KiB")]
    return data, problems


def _cannot_open(why: OSError) -> str:
    if why.errno in (errno.ELOOP, errno.EMLINK):  # FreeBSD says EMLINK
        return "is a symlink; the file itself must stand there"
    if why.errno in (errno.ENXIO, errno.EOPNOTSUPP):
        return "is not a regular file"
    return f"cannot be opened: {os.strerror(why.errno or 0)}"


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")


def _read_at_most(fd: int, limit: int) -> bytes:
    parts: list[bytes] = []
    while limit > 0 and (part := os.read(fd, limit)):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)
