"""The gate opens for one thing only; everything else is a reason, and unknown is never fine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funoffshore import evidence, gate, status
from funoffshore.findings import Finding, Outcome
from funoffshore.reading import Absent, Present, Unreadable

KEY, OTHER = "11" * 32, "22" * 32
COMMIT, NOW = "a" * 40, 1_800_000_000.0
FINE = Finding("FO-API-001", "the API to be ready", Outcome.PASS, "ok")
STATEMENT = evidence.Statement(
    "home", "uid-1", COMMIT, 1, NOW - 60, NOW + 3600, "funoffshore 0.1.0", ("traefik", "jellyfin"), (FINE,)
)
EXPECTED = gate.Expected("home", evidence.public(KEY), Present(COMMIT), ("traefik", "jellyfin"))


def proven(statement: evidence.Statement = STATEMENT, *, key: str = KEY, flag: bool = True) -> status.Status:
    at, shown = NOW - 30, gate.digest(statement)
    mark = status.Unlock("me@laptop", at, shown, evidence.sign_mark("home", "me@laptop", at, shown, key))
    return status.Status("home", flag, statement, evidence.sign(statement, key), mark)


def codes(seen: status.Status, expected: gate.Expected = EXPECTED, now: float = NOW) -> list[str]:
    return [r.code for r in gate.reasons_closed(Present(seen), expected, now)]


def with_(**changes: object) -> status.Status:
    return proven(dataclasses.replace(STATEMENT, **changes))  # type: ignore[arg-type]


def test_it_opens_for_fresh_signed_complete_evidence_and_a_human_mark() -> None:
    assert codes(proven()) == []


def test_every_reason_names_a_command() -> None:
    for reason in gate.reasons_closed(Absent(), EXPECTED, NOW):
        assert reason.clear.startswith(("fo ", "git "))


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (dataclasses.replace(proven(), statement=None), "no-evidence"),
        (dataclasses.replace(proven(), signature="AAAA"), "signature"),
        (proven(key=OTHER), "signature"),
        (with_(cluster="other"), "other-cluster"),
        (with_(commit="b" * 40), "other-commit"),
        (with_(issued=NOW + 1000), "future"),
        (with_(expires=NOW - 1), "expired"),
        (with_(issued=NOW - 2 * evidence.LIFETIME, expires=NOW + 1e9), "expired"),
        (with_(findings=()), "no-findings"),
        (with_(findings=(FINE, dataclasses.replace(FINE, outcome=Outcome.FAIL))), "check-fail"),
        (with_(findings=(FINE, dataclasses.replace(FINE, outcome=Outcome.UNKNOWN))), "check-unknown"),
        (with_(components=("traefik",)), "component"),
        (proven(flag=False), "stage-1-mark"),
        (dataclasses.replace(proven(), unlock=None), "stage-2-locked"),
        (dataclasses.replace(proven(), unlock=status.Unlock("x", NOW, "d", "AAAA")), "mark-signature"),
    ],
)
def test_everything_else_closes_it(seen: status.Status, code: str) -> None:
    assert code in codes(seen)


def test_the_bare_flag_opens_nothing() -> None:
    assert codes(status.Status("home", True, None, "", None)) == ["no-evidence"]


def test_what_was_not_seen_closes_it() -> None:
    assert [r.code for r in gate.reasons_closed(Absent(), EXPECTED, NOW)] == ["no-status"]
    assert [r.code for r in gate.reasons_closed(Unreadable("EIO"), EXPECTED, NOW)] == ["unreadable"]
    for head in (Absent(), Unreadable("no git")):
        assert "no-commit" in codes(proven(), dataclasses.replace(EXPECTED, head=head))


def test_a_mark_for_another_cluster_does_not_count() -> None:
    at, shown = NOW, gate.digest(STATEMENT)
    stolen = status.Unlock("me", at, shown, evidence.sign_mark("lab", "me", at, shown, KEY))
    assert "mark-signature" in codes(dataclasses.replace(proven(), unlock=stolen))


def test_status_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    status.write(tmp_path, proven())
    assert status.read(tmp_path) == Present(proven())


def test_no_changed_byte_opens_the_gate(tmp_path: Path) -> None:
    """Every byte of a good file replaced by another, and the file cut at every byte."""
    status.write(tmp_path, proven())
    path = tmp_path / "status.json"
    good = path.read_bytes()
    for n in range(len(good)):
        for wrong in (good[:n], good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :]):
            path.write_bytes(wrong)
            seen = status.read(tmp_path)
            if seen != Present(proven()):  # a changed blank changes nothing
                assert gate.reasons_closed(seen, EXPECTED, NOW)


@pytest.mark.parametrize("value", ["true", 1, 1.0, None, [], {}])
def test_only_true_is_true(tmp_path: Path, value: object) -> None:
    status.write(tmp_path, proven())
    body = json.loads((tmp_path / "status.json").read_text())
    body["stage_1_complete"] = value
    (tmp_path / "status.json").write_text(json.dumps(body))
    assert isinstance(status.read(tmp_path), Unreadable)


@pytest.mark.parametrize(
    "text",
    [
        '{"stage_1_complete": true}',
        '{"schema": 1, "schema": 1}',
        "NaN",
        "[]",
        "[" * 100_000,
        '{"schema": NaN}',
        "",
        "\x00",
        "\xff",
    ],
)
def test_a_forged_file_is_unreadable(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text, encoding="latin-1")
    assert isinstance(status.read(tmp_path), Unreadable)


def test_a_symlink_or_a_folder_is_unreadable(tmp_path: Path) -> None:
    status.write(tmp_path, proven())
    (tmp_path / "status.json").rename(tmp_path / "real.json")
    (tmp_path / "status.json").symlink_to(tmp_path / "real.json")
    assert isinstance(status.read(tmp_path), Unreadable)
    (tmp_path / "status.json").unlink()
    (tmp_path / "status.json").mkdir()
    assert isinstance(status.read(tmp_path), Unreadable)


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_no_json_value_breaks_the_reader(body: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any ValueError is the promise
        evidence.from_json(body)
