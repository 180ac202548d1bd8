"""How long each action took in earlier runs, for those who wonder how long the next one will."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from funoffshore import errors, journal, timeline

RUNS = 20
"""How many of the latest runs are read; what is older says little."""


def durations(state: Path) -> Mapping[str, float]:
    """Action key → seconds that it took when it last ended well. A journal that cannot be read counts for nothing."""
    found: dict[str, float] = {}
    for folder in reversed(journal.runs(state)[-RUNS:]):
        try:
            spans = timeline.spans(journal.read(folder))
        except (errors.StateError, OSError):
            continue
        for span in reversed(spans):
            if span.outcome == "done" and span.verb != "wait for":
                found.setdefault(f"{span.verb} {span.key}", span.seconds)
    return found
