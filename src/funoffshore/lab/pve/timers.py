"""What the hypervisors do by themselves, some time later: one pending time for each duty."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from sqlite3 import ProgrammingError

from funoffshore.lab.base import Kit


class Timers:
    """Duties by name. Each runs on a thread of its own, one run of a duty at a time."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._guard = threading.Lock()
        self._duties: dict[str, Callable[[], None]] = {}
        self._due: dict[str, float] = {}
        self._busy: dict[str, threading.Lock] = {}
        self._stopped = False

    def register(self, name: str, duty: Callable[[], None]) -> None:
        """What to do when the time of ``name`` has come."""
        self._duties[name] = duty
        self._busy[name] = threading.Lock()

    def wake(self, name: str, seconds: float) -> None:
        """The duty runs in that many lab seconds, or earlier when it was told to before."""
        due = self._kit.clock.monotonic() + seconds
        with self._guard:
            if self._stopped or name not in self._duties or self._due.get(name, due + 1) <= due:
                return
            self._due[name] = due
        self._kit.clock.after(seconds, lambda: self._hand_over(name, due))

    def stop(self) -> None:
        """Nothing starts any more, and what runs has ended."""
        with self._guard:
            self._stopped = True
        for busy in self._busy.values():
            if busy.acquire(timeout=5):
                busy.release()

    def _hand_over(self, name: str, due: float) -> None:
        with self._guard:
            if self._due.get(name) != due or self._stopped:
                return
            del self._due[name]
        threading.Thread(target=self._run, args=(name,), name=f"pve-{name}", daemon=True).start()

    def _run(self, name: str) -> None:
        with self._busy[name]:
            if not self._stopped:
                with contextlib.suppress(ProgrammingError):  # the store is closed: the lab has been stopped
                    self._duties[name]()
