"""The Proxmox door: typed reads, and the writes that fo needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from funoffshore import errors, run
from funoffshore.clock import Clock
from funoffshore.config import model
from funoffshore.world.proxmox import tasks
from funoffshore.world.proxmox.availability import Availability
from funoffshore.world.proxmox.door import Door
from funoffshore.world.proxmox.machines import Machines
from funoffshore.world.proxmox.reads import Reads
from funoffshore.world.proxmox.stores import Stores
from funoffshore.world.routes import Routes

K = TypeVar("K")
T = TypeVar("T")
_WORKERS = 12


class Proxmox(Reads, Machines, Stores, Availability):
    """The hypervisor's API. Constructing it contacts nobody; every call may be made from any thread.

    All methods raise TrustError (certificate), UnreachableError (nobody answers), PreflightError (token or
    privilege) and RefusedError (Proxmox said no, or would have). Reads are repeated when nobody answers; writes
    never, except when Proxmox did nothing for want of a lock: after UnreachableError their outcome has to be
    looked up.
    """

    def __init__(self, config: model.Proxmox, routes: Routes, clock: Clock) -> None:
        super().__init__(Door(config, routes, clock), clock)
        self._lock = threading.Lock()
        self._workers: ThreadPoolExecutor | None = None

    @property
    def calls(self) -> int:
        """Requests sent so far, repeated ones included."""
        return self._door.calls

    def gather(self, calls: Mapping[K, Callable[[], T]]) -> dict[K, T | errors.FoError]:
        """Makes the calls side by side; each gives its result or the error it raised. Do not nest."""
        with self._lock:
            self._workers = self._workers or ThreadPoolExecutor(_WORKERS, thread_name_prefix="proxmox")
        return dict(zip(calls, self._workers.map(_outcome, calls.values()), strict=True))

    def wait_task(
        self,
        upid: str,
        step: run.Step,
        title: str,
        deadline: float = tasks.DEADLINE,
        *,
        stall: float = tasks.STALL,
        first: float | None = None,
    ) -> None:
        """Returns when the task has succeeded, warnings included; those are told. ``title`` completes "waiting for".

        All who wait for tasks of one Proxmox node share one list. ``first`` is the number of seconds until the first
        look, where the caller knows better than the task's type tells. Raises TaskFailedError with the end of its log
        when it ended badly, its worker died, or Proxmox does not know it; DeadlineError after ``deadline`` seconds, or
        when its log has not grown for ``stall`` seconds. A Proxmox that does not answer meanwhile is waited for too.
        """
        tasks.Waiter(self._watch, self._clock, upid, step, title).wait(deadline, stall, first)


def release_of(proxmox: Proxmox) -> tuple[int, int]:
    """The release of that Proxmox, asked for once."""
    return proxmox.release()


def _outcome(call: Callable[[], T]) -> T | errors.FoError:
    try:
        return call()
    except errors.FoError as why:
        return why
