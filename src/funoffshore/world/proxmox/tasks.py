"""Following a Proxmox task to its end. A task's ``exitstatus`` decides, never the fact that it stopped."""

from __future__ import annotations

import re
from collections.abc import Mapping

from funoffshore import clock as clocks
from funoffshore import errors, run
from funoffshore.world.proxmox import shapes
from funoffshore.world.proxmox.watch import LIMIT, Watch

DEADLINE = 900.0
STALL = 300.0
"""Seconds without a new line in a running task's log, after which nobody expects one any more."""
RHYTHM: Mapping[str, tuple[float, float]] = {
    "qmcreate": (7.5, 7.5), "qmclone": (7.5, 7.5), "qmrestore": (7.5, 7.5), "qmmove": (5.0, 5.0),
    "download": (5.0, 4.0), "vzdump": (8.0, 8.0), "qmshutdown": (3.0, 3.0), "qmreboot": (3.0, 3.0),
}  # fmt: skip
"""Seconds until the first look at a task of that type, of which none has been seen yet, and between later ones."""
_SHORT = (2.1, 1.5)
_AT_ONCE = (0.05, 0.25)
_LEAST_PAUSE, _LONGEST_PAUSE = 0.6, 10.0
_SLICE = 1.0
_FRESH = 0.4
_PATIENCE = 20.0
_LOG_AFTER = 20.0
_LOG_EVERY = 8.0
_CHECK_EVERY = 30.0
_TAIL = 12
_TELLING = 20.0
FIX = "Look at the task on the Proxmox host, then run the same command again: it goes on from there."


class Tail:
    """The log of one task, read on from where it was left. Never raises: a log is evidence, not a condition."""

    def __init__(self, watch: Watch, upid: str) -> None:
        self._watch = watch
        self._upid = upid
        self.lines: list[str] = []

    def read(self) -> bool | None:
        """Whether there was anything new; None when the log could not be read."""
        before = len(self.lines)
        try:
            while True:
                page = self._watch.log(self._upid, len(self.lines))
                self.lines += page
                if len(page) < LIMIT:
                    return len(self.lines) > before
        except errors.FoError:
            return None

    @property
    def last(self) -> str:
        """How far it is, or its last line, or a word for having none."""
        return progress(self.lines[-1]) if self.lines else "no output yet"

    @property
    def closed(self) -> bool:
        """Whether the log says that the task is over."""
        return bool(self.lines) and self.lines[-1].startswith("TASK ")

    def warnings(self) -> list[str]:
        return [_shorten(line.strip()) for line in self.lines if line.lstrip().startswith("WARN")]

    def evidence(self) -> tuple[str, ...]:
        """The task's id and its last lines."""
        self.read()
        return (self._upid, *(_shorten(line) for line in self.lines[-_TAIL:]))


class Waiter:
    """One thread's wait for one task."""

    def __init__(self, watch: Watch, clock: clocks.Clock, upid: str, step: run.Step, title: str) -> None:
        self._watch, self._clock, self._upid, self._step, self._title = watch, clock, upid, step, title
        self._tail = Tail(watch, upid)
        self._start = self._moved = self._checked = clock.monotonic()
        self._read_at = float("-inf")
        self._said = "no output yet"
        kind = (upid.split(":") + [""] * 6)[5]
        self._first, self._between = _AT_ONCE if watch.is_quick else RHYTHM.get(kind, _SHORT)
        # Of a task that is looked at this seldom, the log is read at every second look.
        seldom = self._between >= _LOG_EVERY
        self._log_after, self._log_every = (self._between * 2 - 1,) * 2 if seldom else (_LOG_AFTER, _LOG_EVERY - 1)
        self._usual = None if watch.is_quick else watch.usual(kind)
        self._least = min(_LEAST_PAUSE, self._between)
        self._foreseen: float | None = None

    def wait(self, deadline: float, stall: float, first: float | None) -> None:
        """See ``Proxmox.wait_task``."""
        try:
            with self._watch.following(self._upid):
                state = self._until_it_ends(deadline, stall, first)
        except errors.RefusedError as why:
            raise errors.TaskFailedError(f"Proxmox does not know the task of {self._title}: {why.message}") from None
        if not state.succeeded:
            raise failure(self._title, state, self._tail)
        if state.exitstatus != "OK":
            self._tail.read()
            for line in self._tail.warnings() or [state.exitstatus]:
                self._step.say(f"warning: {line}")

    def _until_it_ends(self, deadline: float, stall: float, first: float | None) -> shapes.TaskState:
        self._step.checkpoint()
        due = self._start + min(self._delay() if first is None else first, deadline)
        looked = False
        while True:
            self._sleep(due, looked)
            self._step.checkpoint()
            state = self._look(stall)
            if state is not None and not state.running:
                return state
            waited = self._waited()
            if waited >= deadline:
                raise errors.DeadlineError(
                    f"gave up waiting for {self._title} after {waited:.0f} s; last said: {self._said}",
                    fix=FIX,
                    evidence=self._tail.evidence(),
                )
            self._step.say(f"waiting for {self._title}, {waited:.0f} s, last said: {self._said}")
            due = self._clock.monotonic() + min(self._pause(waited), max(deadline - waited, 0.001))
            looked = True

    def _delay(self) -> float:
        """Seconds until the first look: none for a task of an earlier run, and else when it may well be over."""
        age = self._watch.age(self._upid)
        if age is None:
            return 0.0
        if self._usual is None:
            return max(0.0, self._first - age)
        if self._usual > _SHORT[0]:
            self._step.say(f"waiting for {self._title}, which took {self._usual:.0f} s before")
        # A list gives whole seconds.
        return max(0.0, min(self._usual + 0.5, _PATIENCE) - age)

    def _pause(self, waited: float) -> float:
        """Seconds until the next look: soon where the end is expected; else the longer it took already, the less
        another moment matters."""
        ordinary = min(max(self._between, waited * 0.1), _LONGEST_PAUSE)
        expected = self._foreseen or self._usual
        if self._foreseen is not None and waited < self._foreseen:
            ordinary = min(ordinary, self._foreseen + 0.3 - waited)
        elif expected is not None and expected <= waited <= expected * 2 + 2:
            ordinary = min(ordinary, waited * 0.05)
        return max(self._least, ordinary)

    def _sleep(self, due: float, looked: bool) -> None:
        """Until ``due``, or until a list that somebody else fetched shows the end. One that shows the task at work
        puts the next look off."""
        while (left := due - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _SLICE))
            self._step.checkpoint()
            row, at = self._watch.glance(self._upid)
            if row is not None and row.ended:
                return
            if looked and row is not None:
                due = max(due, at + self._pause(at - self._start))

    def _look(self, stall: float) -> shapes.TaskState | None:
        """Its state; None while Proxmox does not answer, which is waited for as well."""
        try:
            state = self._state()
            if state.running and self._waited() > self._log_after:
                self._follow_log(stall)
                state = self._ask() if self._tail.closed else state
        except errors.UnreachableError as why:
            self._said = why.message
            return None
        except errors.RefusedError as why:
            if why.status != 500:
                raise
            self._said = why.message
            return None
        return state

    def _state(self) -> shapes.TaskState:
        """From the list, or from the task itself where the list does not hold it, or may call it running though its
        worker was killed."""
        row, _ = self._watch.glance(self._upid)
        try:
            if row is None or not row.ended:
                row = self._watch.look(self._upid, min(self._pause(self._waited()) / 2, _FRESH))
        except errors.RefusedError:
            row = None
        doubtful = self._clock.monotonic() - self._checked >= _CHECK_EVERY
        return self._ask() if row is None or (not row.ended and doubtful) else row.state

    def _ask(self) -> shapes.TaskState:
        self._checked = self._clock.monotonic()
        return self._watch.state(self._upid)

    def _follow_log(self, stall: float) -> None:
        now = self._clock.monotonic()
        if now - self._read_at < self._log_every:
            return
        self._read_at = now
        moved = self._tail.read()
        if moved is not False:  # one that cannot be read proves no stand-still
            self._moved = now
        self._said = self._tail.last
        if self._tail.lines and (share := percent(self._tail.lines[-1])) >= _TELLING:
            self._foreseen = self._waited() * 100 / share
        if now - self._moved >= stall:
            raise errors.DeadlineError(
                f"{self._title}: the task has not said anything for {now - self._moved:.0f} s; last: {self._said}",
                fix=FIX,
                evidence=self._tail.evidence(),
            )

    def _waited(self) -> float:
        return self._clock.monotonic() - self._start


def failure(title: str, state: shapes.TaskState, tail: Tail) -> errors.TaskFailedError:
    """The error for a task that ended badly. ``title`` names what it was to do."""
    evidence = tail.evidence()
    died = state.exitstatus == "unexpected status"
    why = "its worker died on the Proxmox host" if died else _shorten(state.exitstatus)
    if "exit code" in why or "exited with code" in why:
        # The exit text names the program that failed, and only the line before says why.
        spoken = [line for line in tail.lines if line.strip() and not line.startswith("TASK ")]
        why += f" ({_shorten(spoken[-1].strip())})" if spoken else ""
    return errors.TaskFailedError(
        f"{title} failed: {why}",
        fix="The log below says why; mend that and run the same command again.",
        evidence=evidence,
    )


_COPIED = re.compile(r"\s*transferred (\S+ \S+) of (\S+ \S+) \((\d+(?:\.\d+)?)%\)")
_FETCHED = re.compile(r"\s*\d+[KMG][ .]+(\d+)%")
_BACKED_UP = re.compile(r"INFO:\s+(\d+)% \(")


def progress(line: str) -> str:
    """How far a task is, where its log line says so; else the line, shortened."""
    if copied := _COPIED.match(line):
        return f"{copied[1]} of {copied[2]}, {float(copied[3]):.0f} %"
    if fetched := _FETCHED.match(line):
        return f"{fetched[1]} % fetched"
    return _shorten(line)


def percent(line: str) -> float:
    """The share of a task's work that a line of its log says is done, 0 to 100; 0 when it says nothing of it."""
    if copied := _COPIED.match(line):
        return float(copied[3])
    told = _FETCHED.match(line) or _BACKED_UP.match(line)
    return float(told[1]) if told else 0.0


def _shorten(text: str) -> str:
    # A failed start carries QEMU's whole command line, two to three thousand characters.
    return text if len(text) <= 300 else text[:297] + "…"
