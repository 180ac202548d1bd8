"""Live progress of a run: one line per machine on a terminal, plain lines elsewhere. Talk, so all on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from funoffshore.clock import Clock
from funoffshore.config import ClusterConfig
from funoffshore.plan import Action, Plan
from funoffshore.run import Events

if TYPE_CHECKING:
    from rich.table import Table

QUIET = 15.0
"""Seconds on the cluster's clock between two lines about the same waiting action, when lines are plain."""


class Watcher(Events):
    """Knows what every machine is doing at this moment."""

    def __init__(self, config: ClusterConfig, clock: Clock) -> None:
        self._clock = clock
        self._names = [n.name for n in config.nodes]
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Action, float, str]] = {}
        self._total = self._done = 0
        self._start = clock.monotonic()
        self._heard = ""
        self.warnings: list[str] = []
        """What the operator must have read even when the display is gone, each once."""

    def heard(self, sentence: str) -> None:
        """What the run as a whole is about."""
        self._heard = sentence

    def planned(self, plan: Plan) -> None:
        with self._lock:
            self._heard = ""
            self._total += len(plan.actions)

    def started(self, action: Action) -> None:
        with self._lock:
            self._running[action.key] = (action, self._clock.monotonic(), "")

    def said(self, action: Action, sentence: str) -> None:
        with self._lock:
            _, since, _ = self._running.get(action.key, (action, self._clock.monotonic(), ""))
            self._running[action.key] = (action, since, sentence)
            told = f"{action.key}: {sentence}"
            if sentence.startswith("warning:") and told not in self.warnings:
                self.warnings.append(told)

    def ended(self, action: Action, error: BaseException | None) -> None:
        with self._lock:
            self._running.pop(action.key, None)
            self._done += error is None

    def rows(self) -> list[tuple[str, str, str]]:
        """Machine, what it is doing, for how many seconds; machines in the config's order, then the cluster."""
        now = self._clock.monotonic()
        with self._lock:
            running = list(self._running.values())
        rows = []
        for name in [*self._names, ""]:
            for action, since, sentence in running:
                if action.on == name:
                    doing = f"{action.verb.value} {action.key}" + (f": {sentence}" if sentence else "")
                    rows.append((name or "cluster", doing, f"{now - since:.0f} s"))
        return rows

    def total(self) -> str:
        """How far the run is, in one line."""
        return f"{self._done} of {self._total} done, {self._clock.monotonic() - self._start:.0f} s  {self._heard}"


class PlainWatcher(Watcher):
    """Says each start and end in a line of its own, and reminds of what takes long."""

    def __init__(self, config: ClusterConfig, clock: Clock) -> None:
        super().__init__(config, clock)
        self._last: dict[str, float] = {}

    def heard(self, sentence: str) -> None:
        super().heard(sentence)
        self._line(sentence)

    def started(self, action: Action) -> None:
        super().started(action)
        self._last[action.key] = self._clock.monotonic()
        self._line(str(action))

    def said(self, action: Action, sentence: str) -> None:
        known = len(self.warnings)
        super().said(action, sentence)
        now = self._clock.monotonic()
        if sentence.startswith("warning:"):
            if len(self.warnings) > known:
                self._line(f"{action.key}: {sentence}")
        elif now - self._last.get(action.key, now) >= QUIET:
            self._last[action.key] = now
            self._line(f"{action.key}: {sentence}")

    def ended(self, action: Action, error: BaseException | None) -> None:
        since = self._running.get(action.key, (action, self._clock.monotonic(), ""))[1]
        super().ended(action, error)
        how = f"failed: {error}" if error else f"done in {self._clock.monotonic() - since:.1f} s"
        self._line(f"{action.key}: {how}")

    def _line(self, text: str) -> None:
        sys.stderr.write(f"[{self._clock.monotonic() - self._start:7.1f}] {text}\n")


@contextmanager
def watch(config: ClusterConfig, clock: Clock) -> Iterator[Watcher]:
    """A watcher whose display lives as long as the body: a table on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield PlainWatcher(config, clock)
        return
    from rich.console import Console
    from rich.live import Live

    watcher = Watcher(config, clock)
    console = Console(stderr=True)
    try:
        with Live(console=console, get_renderable=lambda: _table(watcher), refresh_per_second=5, transient=True):
            yield watcher
    finally:
        for warning in watcher.warnings:
            sys.stderr.write(f"{warning}\n")


def _table(watcher: Watcher) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for name, doing, seconds in watcher.rows():
        table.add_row(name, Text(doing), seconds)
    table.add_row("", Text(watcher.total()), "")
    return table
