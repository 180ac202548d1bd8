"""The work queue of the lab's Flux: a key is worked on by one thread at a time, and never waits twice."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from funoffshore.lab.base import LabClock

_log = logging.getLogger(__name__)

Key = tuple[str, str, str]
"""Kind as ``lab.kube.api`` names it, namespace, name."""


class Queue:
    """Runs ``work(key)`` on ``threads`` threads. What arrives for a key at work is done after it."""

    def __init__(self, clock: LabClock, work: Callable[[Key], None], threads: int) -> None:
        self._clock = clock
        self._work = work
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, int] = {}
        self._nudged: set[Key] = set()
        self._count = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._threads = [threading.Thread(target=self._loop, name=f"lab-flux-{n}", daemon=True) for n in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns once nothing is being worked on."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=10)

    def soon(self, key: Key) -> None:
        with self._changed:
            if key in self._running:
                self._again.add(key)
            else:
                self._waiting[key] = None
                self._changed.notify()

    def nudge(self, seconds: float, key: Key) -> None:
        """After lab seconds, unless a nudge of the same key is under way: what keeps changing is not put off."""
        with self._changed:
            if key in self._nudged:
                return
            self._nudged.add(key)
        self._clock.after(seconds, lambda: self._nudge(key))

    def _nudge(self, key: Key) -> None:
        with self._changed:
            self._nudged.discard(key)
            if self._stopped:
                return
        self.soon(key)

    def later(self, seconds: float, key: Key) -> None:
        """After lab seconds; forgets an earlier ``later`` of the same key."""
        with self._changed:
            self._count += 1
            self._timers[key] = token = self._count
        self._clock.after(seconds, lambda: self._due(key, token))

    def _due(self, key: Key, token: int) -> None:
        with self._changed:
            if self._stopped or self._timers.get(key) != token:
                return
            del self._timers[key]
        self.soon(key)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                key, _ = self._waiting.popitem(last=False)
                self._running.add(key)
            try:
                self._work(key)
            except Exception:  # a bug in one reconciler must not stop the others
                _log.exception("reconciling %s failed", "/".join(key))
            with self._changed:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self._waiting[key] = None
                    self._changed.notify()
