"""One fo at a time per cluster: a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from funoffshore import errors


@contextmanager
def hold(state: Path, what: str) -> Iterator[None]:
    """Holds ``state/lock`` while the body runs. Raises LockedError at once, naming who holds it."""
    state.mkdir(parents=True, exist_ok=True)
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.LockedError(
                f"another fo is at work on this cluster: {_holder(fd)}", fix="wait until it has ended, or stop it"
            ) from None
        info = {"pid": os.getpid(), "host": socket.gethostname(), "what": what, "since": time.time()}
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(info).encode(), 0)
        yield
    finally:
        os.close(fd)


def _holder(fd: int) -> str:
    try:
        info = json.loads(os.pread(fd, 4096, 0))
        started = time.strftime("%H:%M:%S", time.localtime(float(info["since"])))
        return f"{info['what']}, process {info['pid']} on {info['host']}, since {started}"
    except (ValueError, KeyError, TypeError, OSError):
        return "it has not said who it is"
