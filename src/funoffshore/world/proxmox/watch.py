"""Tasks as their Proxmox node lists them: one list for everybody who waits for a task of that node.

Recorded from a real 8.4 API: with ``source=all`` the list holds running tasks (``status`` RUNNING, no ``endtime``) and
ended ones (``status`` is the exit text). It may leave out the tasks of others, and a task whose worker was killed may
be listed as running until the next one starts.
"""

from __future__ import annotations

import copy
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from funoffshore import errors
from funoffshore.clock import Clock
from funoffshore.world.proxmox import answers, shapes
from funoffshore.world.proxmox.door import Door

LIMIT = 500
_REMEMBERED = 5


@dataclass
class _Node:
    """What is known of the tasks of one Proxmox node."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    awaited: dict[str, tuple[int, float]] = field(default_factory=dict)
    """UPID → when the task began, on the node's own clock, and when the waiting did, on ours."""
    rows: dict[str, shapes.TaskRow] = field(default_factory=dict)
    at: float = float("-inf")
    """When ``rows`` or ``failure`` was asked for, on our clock."""
    failure: errors.FoError | None = None


_QUICK = 0.015
"""Seconds. No real Proxmox answers a write in less."""


class Watch:
    """Looks at tasks. May be used from any thread."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock
        self._guard = threading.Lock()
        self._nodes: dict[str, _Node] = defaultdict(_Node)
        self._begun: dict[str, float] = {}
        self._lasted: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    @property
    def is_quick(self) -> bool:
        """Whether Proxmox takes no time at all, as a lab without latencies: then nor do its tasks."""
        # A clock that stands still while a request is under way tells nothing.
        return 0 < self._door.quickest < _QUICK

    def begun(self, upid: str) -> None:
        """Notes that the task began just now."""
        self._begun[upid] = self._clock.monotonic()

    def age(self, upid: str) -> float | None:
        """Seconds since the task was begun; None when it was begun by an earlier run."""
        begun = self._begun.get(upid)
        return None if begun is None else self._clock.monotonic() - begun

    def usual(self, kind: str) -> float | None:
        """Seconds that the shortest of the last few tasks of that kind took; None when none has been seen."""
        lasted = self._lasted.get(kind)
        return min(lasted) if lasted else None

    @contextmanager
    def following(self, upid: str) -> Iterator[None]:
        """While inside, lists reach back to the beginning of the task. Raises RefusedError for what is no UPID."""
        node = self._node(upid)
        try:
            began = int(upid.split(":")[4], 16)
        except ValueError:
            raise errors.RefusedError(f"Proxmox knows no task {upid[:80]!r}") from None
        with self._guard:
            node.awaited[upid] = (began, self._clock.monotonic())
        try:
            yield
        finally:
            with self._guard:
                node.awaited.pop(upid, None)
                self._begun.pop(upid, None)

    def glance(self, upid: str) -> tuple[shapes.TaskRow | None, float]:
        """What the last list said, and when that was. Asks nobody."""
        node = self._node(upid)
        return node.rows.get(upid), node.at

    def look(self, upid: str, oldest: float) -> shapes.TaskRow | None:
        """The task in a list that is at most ``oldest`` seconds old; None when the list does not hold it.

        Whoever finds the list too old fetches it, and the others wait for that one answer. Raises what the door does.
        """
        node = self._node(upid)
        with node.guard:
            now = self._clock.monotonic()
            unseen = upid not in node.rows and node.at <= node.awaited.get(upid, (0, now))[1]
            if node.at < now - oldest or unseen:
                self._fetch(shapes.task_node(upid), node)
            if node.failure is not None:
                raise copy.copy(node.failure)  # each thread its own, as raising one puts a traceback on it
            return node.rows.get(upid)

    def state(self, upid: str) -> shapes.TaskState:
        """What the task itself says, one call for one task. Raises RefusedError for one that Proxmox does not know."""
        return self._door.read_once(answers.parse_task, f"/nodes/{shapes.task_node(upid)}/tasks/{upid}/status")

    def log(self, upid: str, start: int) -> list[str]:
        """At most 500 lines of the task's log, from line ``start`` (0 is the first)."""
        path = f"/nodes/{shapes.task_node(upid)}/tasks/{upid}/log"
        return self._door.read_once(answers.parse_log, path, start=start, limit=LIMIT)

    def list(self, name: str, since: float, kind: str = "") -> list[shapes.TaskRow]:
        """Tasks that began at ``since`` or later, newest first."""
        only = {"typefilter": kind} if kind else {}
        return self._door.read(_parse_list, f"/nodes/{name}/tasks", **_listing(since), **only)

    def _fetch(self, name: str, node: _Node) -> None:
        asked = self._clock.monotonic()
        with self._guard:
            awaited = dict(node.awaited)
        since = min((began for began, _ in awaited.values()), default=0)
        try:
            rows = self._door.read_once(_parse_list, f"/nodes/{name}/tasks", **_listing(since))
        except errors.FoError as why:
            # Whoever has waited for this attempt need not make the same one again.
            node.failure, node.at = why, self._clock.monotonic()
            return
        for row in rows:
            before = node.rows.get(row.upid)
            if row.ended and row.state.succeeded and row.upid in awaited and not (before and before.ended):
                self._lasted[row.type].append(max(0.0, row.finished - row.started))
        # The time after the rows: whoever glances must not take old ones for new.
        node.failure, node.rows, node.at = None, {row.upid: row for row in rows}, asked

    def _node(self, upid: str) -> _Node:
        name = shapes.task_node(upid)
        with self._guard:
            return self._nodes[name]


def _listing(since: float) -> dict[str, object]:
    return {"source": "all", "since": max(0, int(since)), "limit": LIMIT}


def _parse_list(answer: Any) -> list[shapes.TaskRow]:
    rows = answers.each(answers.parse_task_row)(answer)
    # A task that ends while the answer is put together is in both of its halves.
    ended = {row.upid for row in rows if row.ended}
    return [row for row in rows if row.ended or row.upid not in ended]
