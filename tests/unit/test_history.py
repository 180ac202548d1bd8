"""How long things took: the last time they ended well, from whatever journals can be read."""

from __future__ import annotations

from pathlib import Path

from funoffshore import history, journal
from funoffshore.plan import Action, Verb


def run(state: Path, *actions: tuple[Verb, str, float, str]) -> None:
    at = [1000.0]
    log = journal.Journal.begin(state, lambda: at[0], str)
    for verb, key, seconds, outcome in actions:
        log.intend(Action(verb, key, "of a test"))
        at[0] += seconds
        log.write(outcome, key, sync=False)
    log.close()


def test_the_latest_good_end_counts(tmp_path: Path) -> None:
    run(tmp_path, (Verb.CHANGE, "k3s/home-c1", 40, "done"), (Verb.CREATE, "k3s/home-c2", 7, "done"))
    run(tmp_path, (Verb.CHANGE, "k3s/home-c1", 50, "done"), (Verb.CHANGE, "k3s/home-c1", 60, "done"))
    run(tmp_path, (Verb.CHANGE, "k3s/home-c1", 900, "failed"), (Verb.WAIT, "host/home-c1", 3, "done"))
    assert history.durations(tmp_path) == {"change k3s/home-c1": 60, "create k3s/home-c2": 7}


def test_a_broken_journal_counts_for_nothing(tmp_path: Path) -> None:
    assert history.durations(tmp_path) == {}
    run(tmp_path, (Verb.CHANGE, "k3s/home-c1", 40, "done"))
    broken = tmp_path / "runs" / "9999-01-01"
    broken.mkdir()
    (broken / "journal.jsonl").write_text("no json\n{}\n")
    assert history.durations(tmp_path) == {"change k3s/home-c1": 40}
