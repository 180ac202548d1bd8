"""Tasks: what a write begins and does not wait for. UPIDs, logs and outcomes as the real API shows them.

Formats from pve-common ``PVE/UPID.pm`` and pve-manager ``PVE/API2/Tasks.pm``; behaviour recorded from a real 8.4 API.
A task that was running when the lab's process was killed is found again as ``unexpected status``.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.pve.access import Caller
from funoffshore.lab.pve.refusal import RefusalError

_BUCKET = "pve/task"
_LOOK_AGAIN = 0.05
"""Real seconds after which a hanging task looks whether it still has to hang."""
LOST = "unexpected status"
_UPID = re.compile(r"UPID:([a-zA-Z0-9-]+):([0-9A-F]{8}):([0-9A-F]{8}):([0-9A-F]{8}):([^:\s]+):([^:\s]*):([^:\s]+):\Z")

FAILURES = {
    "qmstart": "start failed: QEMU exited with code 1",
    "download": "download failed: exit code 4",
    "imgcopy": "import failed: command 'cp' failed: exit code 1",
    "qmshutdown": "VM quit/powerdown failed - got timeout",
    "resize": "command '/sbin/lvextend' failed: exit code 5",
}
"""How a task ends that the fault ``task-fail`` hits; types not named end with ``command failed: exit code 1``."""

WARNINGS = {"qmstart": "no efidisk configured! Using temporary efivars disk."}
"""What a task warns of that the fault ``task-warnings`` hits."""


class TaskError(Exception):
    """The task ends with this text."""


class TaskInterruptedError(TaskError):
    """Somebody stopped the task."""

    def __init__(self) -> None:
        super().__init__("received interrupt")


class TaskLostError(BaseException):
    """The worker dies here, as if killed: nothing is cleaned up. No handler for ordinary errors may see it."""


@dataclass(eq=False)
class Task:
    """One task, running or over."""

    kit: Kit
    upid: str
    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    token_id: str
    keep: Callable[[Task], None]
    lines: list[str] = field(default_factory=list)
    exit: str | None = None
    """Exit text; None while it runs."""
    endtime: int = 0
    warnings: int = 0
    hurry: bool = False
    stopping: bool = False
    killed: bool = False
    _wake: threading.Event = field(default_factory=threading.Event)
    _judged: bool = False

    @property
    def user(self) -> str:
        return self.token_id.split("!")[0]

    def log(self, *lines: str) -> None:
        """Adds lines to the log, on disk before this returns."""
        self.lines += [part for line in lines for part in line.split("\n")]
        self.keep(self)

    def warn(self, line: str) -> None:
        """Adds a warning; the task then ends with ``WARNINGS: n``."""
        self.warnings += 1
        self.log(f"WARN: {line}")

    def pause(self, seconds: float) -> None:
        """Lab seconds of work. The first pause of a task is where the faults strike.

        Raises TaskInterruptedError when somebody stops the task meanwhile, TaskError and TaskLostError by fault.
        """
        if seconds > 0 and not self.hurry and not self.stopping and not self.killed:
            self.kit.clock.after(seconds, self._wake.set)
            self._wake.wait()
            self._wake.clear()
        self._heed()
        if not self._judged:
            self._judged = True
            self._judge()

    def fits(self, fault: str) -> bool:
        """Whether a fault is on and means this task; uses up one of its times."""
        vmid = self.id.split("@")[0]
        return self.kit.faults.hits(fault, type=self.type, **({"vmid": vmid} if vmid.isdigit() else {}))

    def _heed(self) -> None:
        """Ends here when somebody stopped or killed it."""
        if self.killed:
            raise TaskLostError
        if self.stopping:
            raise TaskInterruptedError

    def _judge(self) -> None:
        if self.fits("task-lost"):
            raise TaskLostError
        if self.fits("task-fail"):
            raise TaskError(FAILURES.get(self.type, "command failed: exit code 1"))
        if self.fits("task-hang"):
            self._hang()

    def _hang(self) -> None:
        """Until somebody stops or kills it, or switches the fault off: then it goes on as if nothing had been."""
        while "task-hang" in self.kit.faults.all():
            self._wake.wait(_LOOK_AGAIN)
            self._wake.clear()
            self._heed()
            if self.hurry:
                raise TaskLostError

    def stop(self) -> None:
        """Interrupts the worker at its next pause, or now if it pauses."""
        self.stopping = True
        self._wake.set()

    def kill(self) -> None:
        """The worker dies at its next pause, or now if it pauses; nothing is cleaned up."""
        self.killed = True
        self._wake.set()

    def hasten(self) -> None:
        """No more pauses: the process is about to end, and a hypervisor would go on by itself."""
        self.hurry = True
        self._wake.set()

    def status(self) -> dict[str, Any]:
        """As ``GET …/status`` shows it."""
        body = self.row()
        body["status"] = "running" if self.exit is None else "stopped"
        if self.exit is not None:
            body["exitstatus"] = self.exit
        return body

    def row(self) -> dict[str, Any]:
        """What status and lists share."""
        keys = ("upid", "node", "pid", "pstart", "starttime", "type", "id", "user")
        body: dict[str, Any] = {key: getattr(self, key) for key in keys}
        if "!" in self.token_id:
            body["tokenid"] = self.token_id.split("!")[1]
        return body

    def document(self) -> dict[str, Any]:
        """As it lies in the store."""
        keys = ("upid", "node", "pid", "pstart", "starttime", "type", "id", "token_id", "lines", "exit", "endtime")
        return {key: getattr(self, key) for key in keys}


class Tasks:
    """All tasks of the cluster, kept in the store."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._guard = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._threads: set[threading.Thread] = set()
        self._pid = 2900
        for upid, body in kit.store.scan(_BUCKET):
            task = Task(kit=kit, keep=self._keep, **body)
            if task.exit is None:
                task.exit, task.endtime = LOST, int(kit.clock.now())
                self._keep(task)
            self._tasks[upid] = task
            self._pid = max(self._pid, task.pid)

    def start(
        self, node: str, kind: str, ident: str, caller: Caller, work: Callable[[Task], None], done: Callable[[], None]
    ) -> str:
        """Begins ``work`` on a thread and returns its UPID. ``done`` runs when the worker is gone, however it went."""
        task = self._fresh(node, kind, ident, caller)
        thread = threading.Thread(target=self._run, args=(task, work, done), name=f"pve-{kind}-{ident}", daemon=True)
        with self._guard:
            self._threads.add(thread)
        thread.start()
        return task.upid

    def find(self, upid: str) -> Task | None:
        """The task, or None. Raises ValueError for what is no UPID."""
        if not _UPID.match(upid):
            raise ValueError(upid)
        return self._tasks.get(upid)

    def all(self) -> list[Task]:
        """Newest first."""
        with self._guard:
            found = list(self._tasks.values())
        return sorted(found, key=lambda task: (task.starttime, task.pid), reverse=True)

    def stop(self) -> None:
        """Lets running tasks finish without further pauses, and waits for them a few seconds.

        What hangs even then is found as lost at the next start.
        """
        with self._guard:
            threads = list(self._threads)
            running = [task for task in self._tasks.values() if task.exit is None]
        for task in running:
            task.hasten()
        for thread in threads:
            thread.join(timeout=5)

    def _fresh(self, node: str, kind: str, ident: str, caller: Caller) -> Task:
        with self._guard:
            self._pid += 13
            now = self._kit.clock.now()
            pid, pstart, start = self._pid, int(self._kit.clock.monotonic() * 100) + 450000, int(now)
            upid = f"UPID:{node}:{pid:08X}:{pstart:08X}:{start:08X}:{kind}:{ident}:{caller.token_id}:"
            task = Task(self._kit, upid, node, pid, pstart, start, kind, ident, caller.token_id, self._keep)
            self._tasks[upid] = task
        self._keep(task)
        return task

    def _run(self, task: Task, work: Callable[[Task], None], done: Callable[[], None]) -> None:
        last = ""
        try:
            try:
                work(task)
                if task.fits("task-warnings"):
                    task.warn(WARNINGS.get(task.type, "the lab was told to warn"))
                task.exit = f"WARNINGS: {task.warnings}" if task.warnings else "OK"
                last = f"TASK {task.exit}"
            finally:
                done()
        except TaskLostError:
            task.exit = LOST
        except (TaskError, RefusalError) as why:
            task.exit, last = str(why), f"TASK ERROR: {why}"
        except sqlite3.ProgrammingError:
            return  # the lab has been stopped and its store is closed: as good as killed
        except Exception as why:  # the worker of a real hypervisor turns everything into an exit text as well
            task.exit, last = f"internal error: {why!r}", f"TASK ERROR: internal error: {why!r}"
        finally:
            with self._guard:
                self._threads.discard(threading.current_thread())
        task.endtime = int(self._kit.clock.now())
        if last:
            task.lines += last.split("\n")
        self._keep(task)

    def _keep(self, task: Task) -> None:
        self._kit.store.put(_BUCKET, task.upid, task.document())
