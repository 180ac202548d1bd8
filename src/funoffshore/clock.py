"""Time as a door: every wait in fo goes through a Clock, so that a lab can run faster than the wall."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from funoffshore import errors

T = TypeVar("T")


class Clock(Protocol):
    """Seconds as the homelab counts them."""

    def now(self) -> float:
        """Unix time in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never runs backwards."""

    def sleep(self, seconds: float) -> None:
        """Returns after ``seconds`` on this clock."""


class WallClock:
    """The real time."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What was waited for has come."""

    value: T


@dataclass(frozen=True, slots=True)
class Pending:
    """Not yet. ``said`` is what the door said last, for the operator to read."""

    said: str


def wait(
    clock: Clock,
    title: str,
    probe: Callable[[], Done[T] | Pending],
    *,
    deadline: float,
    interval: float = 2.0,
    say: Callable[[str], None] = lambda sentence: None,
    evidence: Callable[[], tuple[str, ...]] = lambda: (),
    fix: str = "",
) -> T:
    """Polls ``probe`` until it is Done. ``title`` completes "waiting for …".

    ``deadline`` and ``interval`` are seconds on ``clock``. Starts polling ten times as often and slows down to
    ``interval``. ``say`` hears one sentence per poll. Raises DeadlineError with ``evidence()`` when time runs
    out, and whatever ``probe`` raises.
    """
    start = clock.monotonic()
    pause = interval / 10
    while True:
        outcome = probe()
        if isinstance(outcome, Done):
            return outcome.value
        waited = clock.monotonic() - start
        if waited >= deadline:
            raise errors.DeadlineError(
                f"gave up waiting for {title} after {waited:.0f} s; last said: {outcome.said}",
                fix=fix,
                evidence=evidence(),
            )
        say(f"waiting for {title}, {waited:.0f} s, last said: {outcome.said}")
        clock.sleep(min(pause, max(deadline - waited, 0.001)))
        pause = min(interval, pause * 1.5)
