"""The journal survives being cut off anywhere, and tells what an unfinished run had begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from funoffshore import errors, journal
from funoffshore.plan import Action, Verb

ACTION = Action(Verb.CREATE, "machine/home-c1", "it is absent", stage="machines")


def begin(state: Path) -> journal.Journal:
    return journal.Journal.begin(state, lambda: 1.0, str, cluster="home")


def test_a_journal_cut_off_at_any_byte_is_still_read(tmp_path: Path) -> None:
    log = begin(tmp_path)
    log.intend(ACTION)
    log.write("record", ACTION.key, sync=True, upid="UPID:1")
    log.close()
    whole = (log.folder / "journal.jsonl").read_bytes()
    full = list(journal.read(log.folder))
    for cut in range(len(whole)):
        (log.folder / "journal.jsonl").write_bytes(whole[:cut])
        assert list(journal.read(log.folder)) == full[: len(list(journal.read(log.folder)))]


def test_garbage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    log = begin(tmp_path)
    log.close()
    path = log.folder / "journal.jsonl"
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(errors.StateError, match="line 1"):
        list(journal.read(log.folder))


def test_unfinished_looks_back_to_the_last_good_end(tmp_path: Path) -> None:
    first = begin(tmp_path)
    first.write("record", "machine/old", sync=True, upid="UPID:0")
    first.write("end", "", sync=True, outcome="done")
    second = begin(tmp_path)
    second.intend(ACTION)
    second.write("record", ACTION.key, sync=True, upid="UPID:2")
    third = begin(tmp_path)
    assert journal.unfinished(tmp_path) == {ACTION.key: {"upid": "UPID:2"}}
    third.write("intend", ACTION.key, sync=True)
    third.write("done", ACTION.key, sync=True)
    assert journal.unfinished(tmp_path) == {}


def test_runs_of_the_same_moment_do_not_share_a_folder(tmp_path: Path) -> None:
    assert len({begin(tmp_path).folder for _ in range(20)}) == 20
