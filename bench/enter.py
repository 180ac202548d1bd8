"""Puts this process into the bench's network, so that whoever talks to the machines can be called directly."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from bench.hosts import names

_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Within the body, this thread and those that it starts are in the bench's network namespace.

    Raises OSError when there is none.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(names.NETNS / names.NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _set(before)
    finally:
        os.close(before)


def _set(descriptor: int) -> None:
    """setns(2); Python 3.12 brings it along as ``os.setns``."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
