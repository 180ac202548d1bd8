"""Executes a plan: intent on disk, act, outcome on disk, in parallel where the graph allows."""

from __future__ import annotations

from typing import Protocol


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
