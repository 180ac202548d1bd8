"""Following a Proxmox task to its end. A task's ``exitstatus`` decides, never the fact that it stopped."""

from __future__ import annotations

from typing import Any, Protocol

from funoffshore import clock as clocks
from funoffshore import errors, run
from funoffshore.world.proxmox import shapes

_PAGE = 500
_TAIL = 12


class _Api(Protocol):
    def task(self, upid: str) -> shapes.TaskState: ...

    def task_log(self, upid: str, start: int = 0) -> list[str]: ...


class Tail:
    """The log of one task, read on from where it was left. Never raises: a log is evidence, not a condition."""

    def __init__(self, api: _Api, upid: str) -> None:
        self._api = api
        self._upid = upid
        self._lines: list[str] = []

    def read(self) -> str:
        """The last line so far, or a word for having none."""
        try:
            while True:
                page = self._api.task_log(self._upid, len(self._lines))
                self._lines += page
                if len(page) < _PAGE:
                    break
        except errors.FoError:
            pass
        return _shorten(self._lines[-1]) if self._lines else "no output yet"

    def evidence(self) -> tuple[str, ...]:
        """The task's id and its last lines."""
        self.read()
        return (self._upid, *(_shorten(line) for line in self._lines[-_TAIL:]))


def wait(api: _Api, clock: clocks.Clock, upid: str, step: run.Step, title: str, deadline: float) -> None:
    """Returns when the task has succeeded, warnings included.

    Raises TaskFailedError with the end of its log when it ended badly, its worker died, or Proxmox does not know
    it; DeadlineError after ``deadline`` seconds. A Proxmox that does not answer meanwhile is waited for as well.
    """
    tail = Tail(api, upid)

    def probe() -> clocks.Done[shapes.TaskState] | clocks.Pending:
        step.checkpoint()
        try:
            state = api.task(upid)
        except errors.UnreachableError as why:
            return clocks.Pending(why.message)
        return clocks.Pending(tail.read()) if state.running else clocks.Done(state)

    try:
        state = clocks.wait(
            clock, title, probe, deadline=deadline, interval=1.0, say=step.say, evidence=tail.evidence,
            fix="Look at the task on the Proxmox host, then run the same command again: it goes on from there.",
        )  # fmt: skip
    except errors.RefusedError as why:
        raise errors.TaskFailedError(f"Proxmox does not know the task of {title}: {why.message}") from None
    if not state.succeeded:
        raise failure(title, state, tail.evidence())


def failure(title: str, state: shapes.TaskState, evidence: tuple[str, ...]) -> errors.TaskFailedError:
    """The error for a task that ended badly. ``title`` names what it was to do."""
    died = state.exitstatus == "unexpected status"
    return errors.TaskFailedError(
        f"{title} failed: " + ("its worker died on the Proxmox host" if died else _shorten(state.exitstatus)),
        fix="The log below says why; mend that and run the same command again.",
        evidence=evidence,
    )


def parse_log(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of a page. A task without output shows one line that says so, which is none (pve-common)."""
    lines = [str(row.get("t") or "") for row in rows]
    return [] if lines == ["no content"] else lines


def _shorten(text: str) -> str:
    # A failed start carries QEMU's whole command line, two to three thousand characters.
    return text if len(text) <= 300 else text[:297] + "…"
