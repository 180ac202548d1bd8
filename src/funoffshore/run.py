"""Executes a plan: intent on disk, act, outcome on disk, in parallel where the graph allows."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

from funoffshore import errors
from funoffshore.config import ClusterConfig
from funoffshore.journal import Journal
from funoffshore.plan import Action, Plan, Verb

CAPACITY: Mapping[str, int] = {"storage": 3, "image": 16, "restart": 1, "keep": 1, "etcd": 1, "agents": 10}
"""How many actions of a lane run at once; ``storage/nvme@pve1`` is a lane of its own with the capacity of ``storage``.

Storage: more imports at a time may only queue for the disk, so the operator says how many (STORAGE_PARALLEL); image:
every Proxmox node fetches its own, as several downloads at once are no slower than one after another; keep: all disks
that outlive their machine go to one VM; etcd: a second learner breaks a join (k3s issue 4335); agents: the supervisor's
own cap."""

WORKERS = 96
"""Threads. Most of them only wait for a machine."""


def capacity(config: ClusterConfig) -> Mapping[str, int]:
    """CAPACITY with what the operator chose."""
    return {**CAPACITY, "storage": config.proxmox.imports}


class Step(Protocol):
    """What a running action may tell the outside. Handed to every ``apply``."""

    def say(self, sentence: str) -> None:
        """One short line of progress for the operator, never a secret."""

    def record(self, **ids: str) -> None:
        """Puts IDs of something begun (``upid=…``) in the journal, on disk before this returns."""

    def recorded(self, name: str) -> str | None:
        """The ID that an earlier, unfinished run recorded under ``name`` for this very action, or None."""

    def checkpoint(self) -> None:
        """A safe point to stop at. Raises InterruptedRunError once the operator has pressed Ctrl-C."""


class Events(Protocol):
    """Who watches a run. Called from many threads; must be quick and must not raise."""

    def planned(self, plan: Plan) -> None: ...

    def started(self, action: Action) -> None: ...

    def said(self, action: Action, sentence: str) -> None: ...

    def ended(self, action: Action, error: BaseException | None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Step:
    action: Action
    journal: Journal
    events: Events
    stop: threading.Event
    earlier: Mapping[str, str]

    def say(self, sentence: str) -> None:
        self.checkpoint()
        self.events.said(self.action, sentence)

    def record(self, **ids: str) -> None:
        self.journal.write("record", self.action.key, sync=True, **ids)

    def recorded(self, name: str) -> str | None:
        return self.earlier.get(name)

    def checkpoint(self) -> None:
        if self.stop.is_set():
            raise errors.InterruptedRunError(
                f"stopped at a safe point of {self.action.key}", fix="run fo bootstrap again"
            )


def execute(
    plan: Plan,
    apply: Callable[[Action, Step], None],
    journal: Journal,
    events: Events,
    stop: threading.Event,
    earlier: Mapping[str, Mapping[str, str]],
    lanes: Mapping[str, int] = CAPACITY,
) -> None:
    """Every action once, predecessors first, as wide as graph and lanes allow.

    After the first failure, or once ``stop`` is set, nothing new starts and what runs is let to its end. Raises the
    first failure, or InterruptedRunError when the operator stopped it.
    """
    done: frozenset[str] = frozenset()
    running: dict[Future[None], Action] = {}
    failure: BaseException | None = None
    events.planned(plan)

    def act(action: Action) -> None:
        events.started(action)
        apply(action, _Step(action, journal, events, stop, earlier.get(action.key, {})))

    with ThreadPoolExecutor(min(WORKERS, max(1, len(plan.actions))), thread_name_prefix="fo") as pool:
        while running or (failure is None and not stop.is_set() and len(done) < len(plan.actions)):
            for action in _startable(plan, done, running, lanes) if failure is None and not stop.is_set() else ():
                journal.intend(action)
                running[pool.submit(act, action)] = action
            ended, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in ended:
                action, error = running.pop(future), future.exception()
                failure = failure or error
                _note(journal, events, action, error)
                done |= {action.key} if error is None else frozenset()
    if stop.is_set() and (failure is None or isinstance(failure, errors.InterruptedRunError)):
        raise errors.InterruptedRunError("stopped by the operator", fix="run the same command again to resume")
    if failure:
        raise failure


def _startable(
    plan: Plan, done: frozenset[str], running: Mapping[Future[None], Action], lanes: Mapping[str, int]
) -> list[Action]:
    busy = {a.key for a in running.values()}
    used = Counter(a.lane for a in running.values() if a.lane)
    chosen = []
    for action in plan.ready(done):
        if action.key in busy or (action.lane and used[action.lane] >= lane_capacity(action.lane, lanes)):
            continue
        used[action.lane] += 1 if action.lane else 0
        chosen.append(action)
    return chosen


def lane_capacity(lane: str, lanes: Mapping[str, int]) -> int:
    """How many actions of ``lane`` may run at once."""
    return lanes.get(lane.partition("/")[0], WORKERS)


def _note(journal: Journal, events: Events, action: Action, error: BaseException | None) -> None:
    if error is None:
        journal.write("done", action.key, sync=False)
    else:
        unfinished = isinstance(error, (errors.InterruptedRunError, errors.DeadlineError, errors.UnreachableError))
        journal.write(
            "stopped" if unfinished else "failed", action.key, sync=action.verb is not Verb.WAIT, error=str(error)
        )
    events.ended(action, error)
