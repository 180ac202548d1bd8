"""The runner: order, lanes, journal before effect, failures, and being stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from funoffshore import errors, journal, redact, run
from funoffshore.plan import Action, Plan, Verb


class Watcher:
    """Notes what a run tells."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.log: list[tuple[str, str]] = []

    def planned(self, plan: Plan) -> None:
        self.note("planned", str(len(plan.actions)))

    def started(self, action: Action) -> None:
        self.note("started", action.key)

    def said(self, action: Action, sentence: str) -> None:
        self.note("said", sentence)

    def ended(self, action: Action, error: BaseException | None) -> None:
        self.note("failed" if error else "ended", action.key)

    def note(self, event: str, key: str) -> None:
        with self.lock:
            self.log.append((event, key))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[journal.Journal]:
    made = journal.Journal.begin(tmp_path, lambda: 100.0, redact.Redactor(["s3cr3t-value"]), cluster="home")
    yield made
    made.close()


def act(key: str, *after: str, lane: str = "") -> Action:
    return Action(Verb.CREATE, key, "it is absent", frozenset(after), lane=lane, stage="machines")


Apply = Callable[[Action, run.Step], None]


def go(plan: Plan, apply: Apply, log: journal.Journal, stop: threading.Event | None = None) -> Watcher:
    watcher = Watcher()
    run.execute(plan, apply, log, watcher, stop or threading.Event(), {})
    return watcher


def test_predecessors_end_before_successors_start(log: journal.Journal) -> None:
    plan = Plan.of([act("c", "a", "b"), act("a"), act("b"), act("d", "c")])
    watcher = go(plan, lambda action, step: None, log)
    order = [k for e, k in watcher.log if e == "started"]
    assert order.index("c") > max(order.index("a"), order.index("b"))
    assert order[-1] == "d"


def test_independent_actions_run_side_by_side(log: journal.Journal) -> None:
    together = threading.Barrier(5, timeout=10)

    def apply(action: Action, step: run.Step) -> None:
        together.wait()

    go(Plan.of([act(str(n)) for n in range(5)]), apply, log)


def test_a_lane_holds_its_capacity(log: journal.Journal) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def apply(action: Action, step: run.Step) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    go(Plan.of([act(str(n), lane="etcd") for n in range(8)]), apply, log)
    assert most == 1


def test_intent_is_on_disk_before_the_effect(log: journal.Journal) -> None:
    def apply(action: Action, step: run.Step) -> None:
        assert [(e.event, e.key) for e in journal.read(log.folder)][-1] == ("intend", "a")
        step.record(upid="UPID:pve:1")
        assert list(journal.read(log.folder))[-1].data == {"upid": "UPID:pve:1"}

    go(Plan.of([act("a")]), apply, log)
    assert [e.event for e in journal.read(log.folder)] == ["begin", "intend", "record", "done"]


def test_after_a_failure_nothing_new_starts_and_it_is_raised(log: journal.Journal) -> None:
    def apply(action: Action, step: run.Step) -> None:
        if action.key == "a":
            raise errors.TaskFailedError("the task ended with: no space left")

    watcher = Watcher()
    with pytest.raises(errors.TaskFailedError, match="no space left"):
        run.execute(Plan.of([act("a"), act("b", "a")]), apply, log, watcher, threading.Event(), {})
    assert ("started", "b") not in watcher.log
    assert ("failed", "a") in watcher.log
    assert list(journal.read(log.folder))[-1].event == "failed"


def test_a_stopped_run_ends_at_a_safe_point_and_can_be_resumed(log: journal.Journal, tmp_path: Path) -> None:
    stop = threading.Event()

    def apply(action: Action, step: run.Step) -> None:
        step.record(upid="UPID:pve:7")
        stop.set()
        step.checkpoint()

    with pytest.raises(errors.InterruptedRunError):
        go(Plan.of([act("a"), act("b", "a")]), apply, log, stop)
    assert journal.unfinished(tmp_path) == {"a": {"upid": "UPID:pve:7"}}


def test_what_an_earlier_run_recorded_reaches_the_step(log: journal.Journal) -> None:
    seen: list[str | None] = []
    run.execute(
        Plan.of([act("a")]),
        lambda action, step: seen.append(step.recorded("upid")),
        log, Watcher(), threading.Event(), {"a": {"upid": "UPID:x"}},
    )  # fmt: skip
    assert seen == ["UPID:x"]


def test_a_secret_never_reaches_the_journal(log: journal.Journal) -> None:
    def apply(action: Action, step: run.Step) -> None:
        raise errors.RefusedError("they said: s3cr3t-value is wrong")

    with pytest.raises(errors.RefusedError):
        go(Plan.of([act("a")]), apply, log)
    text = (log.folder / "journal.jsonl").read_text()
    assert "s3cr3t-value" not in text
    assert "***" in text


def test_the_operator_says_how_many_disks_are_imported_at_once(log: journal.Journal) -> None:
    together = threading.Barrier(5, timeout=10)

    def apply(action: Action, step: run.Step) -> None:
        together.wait()

    plan = Plan.of([act(str(n), lane="storage") for n in range(5)])
    run.execute(plan, apply, log, Watcher(), threading.Event(), {}, {**run.CAPACITY, "storage": 5})
