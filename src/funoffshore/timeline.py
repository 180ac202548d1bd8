"""When each action of a run began and ended, read from its journal, and how fast the run could have been at best.

Pure: entries in, values out. Queueing is not in a journal: the runner notes an action when a lane lets it start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from funoffshore.journal import Entry

LAST_SECOND = 1e11
"""Unix seconds, year 5138. A later entry, or one before 1970, is no time of a run and is left out."""

_ENDS = ("done", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class Span:
    """One action from its intent to its outcome."""

    key: str
    stage: str
    on: str
    """Node it concerns; empty when it is the whole cluster."""
    lane: str
    after: tuple[str, ...]
    start: float
    """Unix seconds on the run's clock."""
    end: float
    """Never before ``start``; the journal's last moment for an action whose outcome was never written."""
    outcome: str
    """``done``, ``failed``, ``stopped``, or ``unfinished`` when the run was cut off first."""
    verb: str = ""
    reason: str = ""
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The longest chain of actions that had to follow one another."""

    seconds: float
    """What the chain takes when nothing ever queues: no run of these actions can be shorter."""
    keys: tuple[str, ...]
    """First to last."""
    spans: tuple[Span, ...] = field(default=(), compare=False)
    """The same chain; tells apart two actions on one key."""


def spans(entries: Iterable[Entry]) -> list[Span]:
    """Every action that was begun, in the order it began. A key that was planned again has a span for each time."""
    begun: list[Span] = []
    running: dict[str, int] = {}
    last = 0.0
    for entry in entries:
        if not 0 <= entry.at <= LAST_SECOND:  # false for NaN, too
            continue
        last = max(last, entry.at)
        if entry.event == "intend":
            running[entry.key] = len(begun)
            begun.append(_begin(entry))
        elif entry.event in _ENDS and entry.key in running:
            at = running.pop(entry.key)
            ended = max(entry.at, begun[at].start)
            begun[at] = replace(begun[at], end=ended, outcome=entry.event, error=_text(entry.data.get("error")))
    for at, span in enumerate(begun):
        if span.outcome == "unfinished":
            begun[at] = replace(span, end=max(span.start, last))
    return sorted(begun, key=lambda s: s.start)


def critical_path(spans: Sequence[Span]) -> CriticalPath:
    """The longest chain through ``after`` by duration; of equally long ones, the one that began first.

    A predecessor is the latest span of that key that began before; keys that never ran need no time. Nothing ran:
    zero seconds and no keys.
    """
    ordered = sorted(spans, key=lambda s: s.start)
    before = _predecessors(ordered)
    heads = _heads(ordered, before)
    if not ordered:
        return CriticalPath(0.0, ())
    at = max(range(len(ordered)), key=lambda i: heads[i] + ordered[i].seconds)
    seconds, chain = heads[at] + ordered[at].seconds, [at]
    while before[at]:
        at = max(before[at], key=lambda i: heads[i] + ordered[i].seconds)
        chain.append(at)
    path = tuple(ordered[i] for i in reversed(chain))
    return CriticalPath(seconds, tuple(s.key for s in path), path)


def lane_bound(spans: Sequence[Span], capacity: Mapping[str, int]) -> float:
    """Seconds that no run of these actions can beat because of its narrowest lane.

    For a lane: the shortest head before any of its actions, what its work needs at its capacity, and the shortest tail
    behind any of them. The largest of these; 0 when no action is in a lane that ``capacity`` names.
    ``storage/nvme@pve1`` is a lane of its own with the capacity of ``storage``.
    """
    ordered = sorted(spans, key=lambda s: s.start)
    before = _predecessors(ordered)
    heads = _heads(ordered, before)
    tails = [0.0] * len(ordered)
    for at in reversed(range(len(ordered))):
        for earlier in before[at]:
            tails[earlier] = max(tails[earlier], ordered[at].seconds + tails[at])
    bound = 0.0
    for lane in {s.lane for s in ordered if s.lane.partition("/")[0] in capacity}:
        inside = [i for i, s in enumerate(ordered) if s.lane == lane]
        work = _least([ordered[i].seconds for i in inside], capacity[lane.partition("/")[0]])
        bound = max(bound, min(heads[i] for i in inside) + work + min(tails[i] for i in inside))
    return bound


def _least(durations: list[float], width: int) -> float:
    """Seconds that ``width`` at once need at least: the work in equal parts, or, as no action can be cut in two, the
    shortest ones of as many as one place gets when the actions are dealt out evenly."""
    rows = -(-len(durations) // width)
    return max(math.fsum(durations) / width, math.fsum(sorted(durations)[:rows]))


def _predecessors(ordered: Sequence[Span]) -> list[list[int]]:
    latest: dict[str, int] = {}
    found = []
    for at, span in enumerate(ordered):
        found.append(sorted(latest[key] for key in set(span.after) if key in latest))
        latest[span.key] = at
    return found


def _heads(ordered: Sequence[Span], before: Sequence[Sequence[int]]) -> list[float]:
    """For each span, how long what must come before it takes."""
    heads: list[float] = []
    for earlier in before:
        heads.append(max((heads[i] + ordered[i].seconds for i in earlier), default=0.0))
    return heads


def _begin(entry: Entry) -> Span:
    after = entry.data.get("after")
    return Span(
        key=entry.key, stage=_text(entry.data.get("stage")), on=_text(entry.data.get("on")),
        lane=_text(entry.data.get("lane")), after=tuple(map(str, after)) if isinstance(after, list) else (),
        start=entry.at, end=entry.at, outcome="unfinished", verb=_text(entry.data.get("verb")),
        reason=_text(entry.data.get("reason")),
    )  # fmt: skip


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
