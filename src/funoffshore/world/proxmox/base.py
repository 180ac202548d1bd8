"""What every part of the Proxmox door shares."""

from __future__ import annotations

from typing import Any

from funoffshore import errors
from funoffshore.clock import Clock
from funoffshore.world.proxmox.door import Door
from funoffshore.world.proxmox.shapes import VmConfig, task_node
from funoffshore.world.proxmox.watch import Watch


class Base:
    """The wire, and the tasks that were begun over it."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock
        self._watch = Watch(door, clock)
        self._read: dict[tuple[str, int], VmConfig] = {}

    def _task(self, answer: Any) -> str:
        """The UPID that a write answered, noted so that waiting for it knows when it began."""
        upid = str(answer)
        try:
            task_node(upid)
        except errors.RefusedError:
            raise errors.RefusedError(
                f"{self._door.url} answered with {upid[:80]!r} where the id of a task was due",
                fix="Run the same command again: it looks at what was done first.",
            ) from None
        self._watch.begun(upid)
        return upid
