"""What a run did, on disk as it does it: intent before the effect, IDs as soon as they are known, outcome after.

A journal is a folder ``runs/<utc>/`` with ``journal.jsonl``, one JSON object a line. What is here is the persisted
form; ``plan.Action`` is the form in memory.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from funoffshore import errors
from funoffshore.plan import Action, Verb

ASIDE = ("backup", "restore", "k3s-snapshot", "k3s-restore", "k3s-token", "k3s-certificates")
"""What a run may be about without settling what an interrupted bootstrap began."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: ``event`` is begin, intend, record, done, failed or end."""

    at: float
    """Unix seconds on the run's clock."""
    event: str
    key: str
    data: dict[str, Any]


class Journal:
    """Appends to one run's journal. Thread-safe; an entry is on disk when its call returns."""

    def __init__(self, folder: Path, now: Callable[[], float], redact: Callable[[str], str] = str) -> None:
        self.folder = folder
        self._now = now
        self._redact = redact
        self._lock = threading.Lock()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(folder / "journal.jsonl", flags, 0o600)

    @classmethod
    def begin(cls, state: Path, now: Callable[[], float], redact: Callable[[str], str], **data: Any) -> Journal:
        """Makes a new run folder below ``state/runs``; ``data`` says what the run is about."""
        runs = state / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        for attempt in range(1000):
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ") + (f"-{attempt}" if attempt else "")
            try:
                (runs / stamp).mkdir(mode=0o700)
            except FileExistsError:
                continue
            journal = cls(runs / stamp, now, redact)
            journal.write("begin", "", sync=False, **data)
            return journal
        raise errors.StateError(f"cannot make a new run folder in {runs}")

    def write(self, event: str, key: str, *, sync: bool, **data: Any) -> None:
        """``sync`` waits for the disk, so that the entry survives a power cut, too."""
        line = self._redact(json.dumps({"at": round(self._now(), 3), "event": event, "key": key, **data})) + "\n"
        with self._lock:
            os.write(self._fd, line.encode())
            if sync:
                os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def intend(self, action: Action) -> None:
        self.write(
            "intend", action.key, sync=action.verb is not Verb.WAIT, verb=action.verb.value, reason=action.reason,
            after=sorted(action.after), lane=action.lane, stage=action.stage, on=action.on,
        )  # fmt: skip

    def close(self) -> None:
        os.close(self._fd)


def read(folder: Path) -> Iterator[Entry]:
    """The entries of one run. A last line that was cut off by a crash is left out; anything else that is not an
    entry raises StateError naming file and line."""
    path = folder / "journal.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            entry = Entry(float(record.pop("at")), str(record.pop("event")), str(record.pop("key")), record)
        except (ValueError, KeyError, TypeError, AttributeError) as why:
            if number == len(lines):
                return
            raise errors.StateError(
                f"{path} line {number} is not a journal entry", fix=f"move the folder {folder} away"
            ) from why
        yield entry


def runs(state: Path) -> list[Path]:
    """Run folders, oldest first."""
    try:
        return sorted(p for p in (state / "runs").iterdir() if p.is_dir())
    except FileNotFoundError:
        return []


def unfinished(state: Path) -> dict[str, dict[str, str]]:
    """By action key, the IDs that earlier runs recorded for actions whose outcome they did not live to write.

    Looks back to the last run that ended well, for what came before that is settled.
    """
    found: dict[str, dict[str, str]] = {}
    settled: set[str] = set()
    for folder in reversed(runs(state)):
        entries = list(read(folder))
        if entries and entries[0].data.get("until") in ASIDE:
            continue
        if any(e.event == "end" and e.data.get("outcome") == "done" for e in entries):
            break
        ids: dict[str, dict[str, str]] = {}
        for entry in entries:
            if entry.event == "intend":
                ids.setdefault(entry.key, {})
            elif entry.event == "record":
                ids.setdefault(entry.key, {}).update({k: str(v) for k, v in entry.data.items()})
            elif entry.event in ("done", "failed"):
                ids.pop(entry.key, None)
                settled.add(entry.key)
        for key, values in ids.items():
            if key not in settled:
                found.setdefault(key, values)
    return found
