"""What is wrong with one host, by the faults that are on at this very moment.

The programs of a host ask here, so that a fault shows wherever a real machine would show it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Protocol

from funoffshore.lab.base import Kit

FREE = 65536
"""Bytes that ``disk-full`` leaves: etcd's write-ahead log alone takes 64 MB at once."""
DATA = "/var/lib/rancher"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""What ``uname -m`` says, by architecture."""


class Place(Protocol):
    """As much of a host as its circumstances depend on."""

    kit: Kit

    @property
    def name(self) -> str: ...


def architecture(host: object) -> str:
    """``amd64`` or ``arm64``; machines without hardware of their own are amd64."""
    return str(getattr(getattr(host, "hardware", None), "architecture", "amd64"))


def skew(host: Place) -> float:
    """Seconds by which the host's clock is ahead (fault ``clock-off``, ten minutes when it does not say)."""
    minutes = host.kit.faults.value("clock-off", "minutes", "10", node=host.name)
    return float(minutes or 0) * 60


def now(host: Place) -> float:
    """Unix time as the host has it."""
    return host.kit.clock.now() + skew(host)


def is_full(host: Place, path: str) -> bool:
    """Whether nothing more goes onto the file system that holds ``path``."""
    below = f"{path}/".startswith(f"{DATA}/")
    return below and host.kit.faults.hits("disk-full", node=host.name)


def is_read_only(host: Place, path: str) -> bool:
    """Whether the file system that holds ``path`` is mounted read-only; those in memory never are."""
    memory = ("/run", "/proc", "/sys", "/dev", "/tmp")  # noqa: S108  # the simulated host's own
    return not path.startswith(memory) and host.kit.faults.hits("disk-read-only", node=host.name)


def check_write(host: Place, path: str) -> None:
    """Raises OSError (EROFS, ENOSPC) where nothing can be written."""
    for wrong, number in ((is_read_only(host, path), errno.EROFS), (is_full(host, path), errno.ENOSPC)):
        if wrong:
            raise OSError(number, os.strerror(number), path)


def missing(host: Place, place: str) -> bool:
    """Whether a program is not there although its file is (fault ``no-python3``)."""
    return os.path.basename(place).startswith("python3") and host.kit.faults.hits("no-python3", node=host.name)


def foreign(host: object, words: list[str] | None) -> bool:
    """Whether a runnable file, by the words of its first line, was made for another architecture.

    The image's own programs (one word) are always right; what is downloaded says for which, or is for amd64.
    """
    if not words or len(words) < 2:
        return False
    return (words[-1] if words[-1] in MACHINES else "amd64") != architecture(host)


def blocked(host: Place, address: str, port: int) -> bool:
    """Whether packets from the host to ``address``:``port`` get lost (fault ``port-blocked``).

    ``from`` is the host's name or its address, ``to`` the other's address.
    """
    kit = host.kit
    mine = (host.name, str(getattr(host, "address", "")))
    return any(kit.faults.hits("port-blocked", **{"from": name, "to": address, "port": str(port)}) for name in mine)


def resolve(host: Place, name: str) -> None:
    """Raises gaierror for a name that is no address while the host's DNS is broken."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if host.kit.faults.hits("dns-broken", node=host.name):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from None
