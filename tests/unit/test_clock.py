"""Waits explain themselves, end in time, and carry their evidence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from funoffshore import clock, errors


class Ticks:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_a_wait_returns_what_came() -> None:
    ticks, said = Ticks(), list[str]()
    probe: Iterator[clock.Done[int] | clock.Pending] = iter(
        [clock.Pending("not yet"), clock.Pending("nearly"), clock.Done(42)]
    )
    assert clock.wait(ticks, "the answer", lambda: next(probe), deadline=60, say=said.append) == 42
    assert said[0] == "waiting for the answer, 0 s, last said: not yet"


def test_a_wait_that_runs_out_says_what_it_saw_last() -> None:
    ticks = Ticks()
    with pytest.raises(errors.DeadlineError) as caught:
        clock.wait(
            ticks, "home-c2 to join etcd", lambda: clock.Pending("it is a learner"), deadline=90,
            evidence=lambda: ("journal: learner not ready",), fix="look at the disk",
        )  # fmt: skip
    assert "waiting for home-c2 to join etcd after 90 s; last said: it is a learner" in str(caught.value)
    assert caught.value.evidence == ("journal: learner not ready",)
    assert ticks.time == pytest.approx(90)
