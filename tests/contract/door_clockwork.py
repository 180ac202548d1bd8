"""A Proxmox node whose tasks run on a clock that leaps: every moment is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from door_bench import VERSION, Leaping, data, refused, scripted

from funoffshore.lab.pve.wire import Reply, Request
from funoffshore.world import proxmox


@dataclass
class Task:
    """A task that runs from ``begun`` for ``seconds``, on the clock of the test."""

    upid: str
    begun: float
    seconds: float
    exit: str = "OK"
    log: list[tuple[float, str]] = field(default_factory=list)
    """Seconds after which a line appears, and the line."""
    listed: bool = True
    lost: bool = False
    """Its worker was killed: the list goes on calling it running."""


@dataclass
class Clockwork:
    """A Proxmox node whose tasks run on a clock that leaps, so that every moment is known beforehand."""

    clock: Leaping
    tasks: dict[str, Task] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    always: list[Reply] = field(default_factory=list)
    """Answers that come first, whatever is asked about tasks."""
    secretive: bool = False
    """Nobody may read a log."""

    def add(self, kind: str = "qmcreate", seconds: float = 14.0, **more: Any) -> Task:
        start = int(self.clock.at)
        upid = f"UPID:pve:{len(self.tasks) + 2900:08X}:0006E38A:{start:08X}:{kind}:{900 + len(self.tasks)}:fo@pve!t1:"
        self.tasks[upid] = Task(upid, self.clock.at, seconds, **more)
        return self.tasks[upid]

    def answer(self, request: Request) -> Reply:
        path, _, query = request.target.removeprefix("/api2/json").partition("?")
        if path == "/version":
            return data(VERSION)
        if request.method == "POST":
            return data(self.add("qmstart" if path.endswith("/start") else "qmcreate").upid)
        what = path.rpartition("/")[2]
        self.asked.append(what)
        self.queries.append(parse_qs(query))
        if self.always:
            return self.always.pop(0)
        if what == "tasks":
            return data([self._row(task) for task in self.tasks.values() if task.listed])
        if what == "log" and self.secretive:
            return refused(403, "Permission check failed")
        task = self.tasks.get(unquote(path.split("/")[4]))
        if task is None:
            return refused(400, "Parameter verification failed.", upid="no such task")
        return self._log(task, self.queries[-1]) if what == "log" else data(self._status(task))

    def _over(self, task: Task) -> bool:
        return self.clock.at >= task.begun + task.seconds

    def _row(self, task: Task) -> dict[str, Any]:
        parts = task.upid.split(":")
        row: dict[str, Any] = {"upid": task.upid, "node": "pve", "type": parts[5], "id": parts[6]}
        row |= {"starttime": int(task.begun)}
        if not self._over(task) or task.lost:
            return {**row, "user": "fo@pve!t1", "status": "RUNNING"}
        return {
            **row,
            "user": "fo@pve",
            "tokenid": "t1",
            "status": task.exit,
            "endtime": int(task.begun + task.seconds),
        }

    def _status(self, task: Task) -> dict[str, Any]:
        over = self._over(task)
        exitstatus = "unexpected status" if task.lost else task.exit
        return {"upid": task.upid, "status": "stopped", "exitstatus": exitstatus} if over else {"status": "running"}

    def _log(self, task: Task, query: dict[str, list[str]]) -> Reply:
        lines = [line for at, line in task.log if self.clock.at >= task.begun + at]
        if self._over(task) and not task.lost:
            lines.append(
                "TASK OK"
                if task.exit == "OK"
                else f"TASK {task.exit}"
                if "WARN" in task.exit
                else f"TASK ERROR: {task.exit}"
            )
        rows = [{"n": n, "t": line} for n, line in enumerate(lines, 1)] or [{"n": 1, "t": "no content"}]
        start = int(query["start"][0])
        return data(rows[start : start + int(query["limit"][0])])


@contextmanager
def clockwork(directory: Path) -> Iterator[tuple[Clockwork, proxmox.Proxmox]]:
    clock = Leaping()
    made = Clockwork(clock)
    with scripted(directory, made.answer, clock) as (client, _):
        yield made, client
