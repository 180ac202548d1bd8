"""What a simulated host offers to the programs on it, and what a program is.

A program is found the way a real one is: by its path below the host's root. What runs is decided by the file's
first line, ``#!funoffshore-lab <name> …`` (``name`` picks the entry of a registry); any other file cannot be run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from funoffshore.lab.base import Kit


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended."""

    code: int
    out: bytes = b""
    err: bytes = b""


class Machine(Protocol):
    """A booted host, seen from a program on it."""

    kit: Kit
    vmid: int
    uuid: str
    """SMBIOS system UUID, lower case."""
    root: Path
    """Its file system: ``/etc/x`` lives at ``root / "etc/x"``. Use ``path`` to get there."""

    @property
    def name(self) -> str:
        """Hostname."""

    @property
    def address(self) -> str:
        """IPv4 address it answers on; empty without one."""

    def path(self, absolute: str) -> Path:
        """The real path behind an absolute path of the host; never outside ``root``. Symlinks are the host's."""

    def journal(self, unit: str, line: str) -> None:
        """Adds a line to the unit's journal, stamped with lab time."""

    def journal_lines(self, unit: str, count: int) -> list[str]:
        """The last ``count`` lines of the unit's journal, oldest first, without stamps."""

    def listen_port(self, port: int) -> None:
        """Notes in ``/proc/net/tcp`` that something on the host listens on ``port``."""

    def unlisten_port(self, port: int) -> None:
        """Takes the note back."""


class Program(Protocol):
    """A command: ``k3s --version``, ``systemctl start x``. Quick; whatever lasts is a service."""

    def __call__(self, machine: Machine, argv: list[str], stdin: bytes) -> Result:
        """``argv[0]`` is the name it was called by."""


class Service(Protocol):
    """The long-running behaviour of a program when a systemd unit's ExecStart names it."""

    def start(self, machine: Machine, argv: list[str], ready: Callable[[], None], ended: Callable[[int], None]) -> None:
        """Returns at once. ``ready()`` is sd_notify's READY=1; ``ended(code)`` says the process has exited."""

    def stop(self, machine: Machine) -> None:
        """SIGTERM: gone when this returns. Neither ``ready`` nor ``ended`` is called after it."""
