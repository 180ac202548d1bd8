"""Spans and bounds from a journal, and the report: complete, well-formed, closed to whatever is written into it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import tempfile
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funoffshore import errors, evidence, gate, timeline
from funoffshore.config import ClusterConfig, loader, new
from funoffshore.findings import Finding, Outcome
from funoffshore.journal import Entry
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.redact import secrets_of
from funoffshore.show import report
from funoffshore.show.report import chart, markup, topology
from funoffshore.status import Status

PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)
NOW = 1_800_000_000.0
VOID = {"meta", "br"}
NUMBERS = itertools.count()


@cache
def config(**changes: str) -> ClusterConfig:
    return loader.parse(new.generate("lab", {**PINS, **changes}, lab=True), "lab", Path("/nowhere"))


def span(key: str, seconds: float, *after: str, start: float = 0.0, lane: str = "") -> timeline.Span:
    return timeline.Span(key, "machines", "", lane, after, start, start + seconds, "done")


def entries(*lines: tuple[float, str, str], **data: object) -> list[Entry]:
    return [Entry(at, event, key, dict(data) if event == "intend" else {}) for at, event, key in lines]


# Spans


def test_a_span_reaches_from_intent_to_outcome() -> None:
    data = {"stage": "k3s", "on": "n1", "lane": "etcd", "after": ["a"], "verb": "create", "reason": "it is absent"}
    begun = [Entry(10, "begin", "", {}), Entry(11, "intend", "k", data), Entry(12, "record", "k", {"upid": "U"})]
    [found] = timeline.spans([*begun, Entry(15, "failed", "k", {"error": "no"}), Entry(16, "end", "", {})])
    assert found == timeline.Span("k", "k3s", "n1", "etcd", ("a",), 11, 15, "failed", "create", "it is absent", "no")
    assert found.seconds == 4


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([(1, "begin", ""), (2, "end", "")], []),
        ([(1, "intend", "a"), (3, "done", "a")], [("a", 1, 3, "done")]),
        ([(1, "intend", "a"), (3, "stopped", "a")], [("a", 1, 3, "stopped")]),
        ([(1, "intend", "a"), (2, "intend", "b"), (9, "done", "b")], [("a", 1, 9, "unfinished"), ("b", 2, 9, "done")]),
        ([(5, "intend", "a"), (3, "done", "a")], [("a", 5, 5, "done")]),
        ([(1, "done", "a"), (2, "failed", "b")], []),
        (
            [(1, "intend", "a"), (2, "done", "a"), (5, "intend", "a"), (6, "failed", "a")],
            [("a", 1, 2, "done"), ("a", 5, 6, "failed")],
        ),
        ([(float("nan"), "intend", "a"), (-1, "intend", "b"), (1e300, "intend", "c")], []),
    ],
)
def test_spans(lines: list[tuple[float, str, str]], expected: list[tuple[str, float, float, str]]) -> None:
    assert [(s.key, s.start, s.end, s.outcome) for s in timeline.spans(entries(*lines))] == expected


def test_data_of_the_wrong_kind_is_left_out() -> None:
    [found] = timeline.spans(entries((1, "intend", "a"), after="abc", stage=7, on=None, lane=["x"]))
    assert (found.after, found.stage, found.on, found.lane) == ((), "", "", "")


# Critical path and lanes

PATHS: list[tuple[list[timeline.Span], float, tuple[str, ...]]] = [
    ([], 0, ()),
    ([span("a", 3)], 3, ("a",)),
    ([span("a", 3), span("b", 5)], 5, ("b",)),
    ([span("a", 3), span("b", 2, "a", start=3), span("c", 4, start=3)], 5, ("a", "b")),
    ([span("a", 3), span("b", 1), span("c", 2, "a", "b", start=3)], 5, ("a", "c")),
    ([span("a", 1), span("b", 2, "a", "gone", start=9)], 3, ("a", "b")),
    ([span("a", 1, "b"), span("b", 2, "a", start=1)], 3, ("a", "b")),
    ([span("a", 1), span("a", 2, start=5), span("b", 3, "a", start=7)], 5, ("a", "b")),
    ([span("b", 2, "a", start=5), span("a", 1)], 3, ("a", "b")),
    ([span("a", 0), span("b", 0, "a")], 0, ("a",)),
]


@pytest.mark.parametrize(("spans", "seconds", "keys"), PATHS)
def test_critical_path(spans: list[timeline.Span], seconds: float, keys: tuple[str, ...]) -> None:
    assert timeline.critical_path(spans) == timeline.CriticalPath(seconds, keys)


def test_the_critical_path_is_read_in_order() -> None:
    """Its seconds are the sum of its actions, and each comes after the one before."""
    made = [span(f"k{i}", i % 5 + 1, *(f"k{j}" for j in range(i) if i % (j + 2) == 0), start=i) for i in range(60)]
    path = timeline.critical_path(made)
    assert path.seconds == sum(s.seconds for s in path.spans)
    assert all(one.key in other.after for one, other in itertools.pairwise(path.spans))


BOUNDS = [
    ([], 0),
    ([span("a", 3)], 0),
    ([span("a", 3, lane="etcd")], 3),
    ([span("a", 3, lane="etcd"), span("b", 4, lane="etcd", start=3)], 7),
    ([span(f"m{i}", 6, lane="storage") for i in range(4)], 12),
    ([span("h", 5), span("a", 3, "h", start=5, lane="etcd"), span("t", 2, "a", start=8)], 10),
    # The shortest head and the shortest tail count, as any of the lane's actions could be the first or the last.
    ([span("h", 5), span("a", 3, "h", start=5, lane="etcd"), span("b", 3, lane="etcd")], 6),
    ([span("a", 3, lane="etcd"), span("b", 9, lane="unknown")], 3),
    # No action can be cut in two: one alone needs its own time, and three on two places need two of them in a row.
    ([span("a", 3, lane="etcd"), span("b", 10, lane="storage")], 10),
    ([span(f"m{i}", 6, lane="storage") for i in range(3)], 12),
    # Each storage is a lane of its own.
    ([span(f"m{i}", 6, lane=f"storage/x@pve{i}") for i in range(3)], 6),
]


@pytest.mark.parametrize(("spans", "seconds"), BOUNDS)
def test_lane_bound(spans: list[timeline.Span], seconds: float) -> None:
    assert timeline.lane_bound(spans, {"etcd": 1, "storage": 2}) == pytest.approx(seconds)


# Report


class Reader(HTMLParser):
    """Refuses what is not closed in order, and gathers what the page shows and refers to."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert tag not in ("script", "link", "iframe", "img", "image", "object", "use", "a", "form", "base")
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("href", "src", "srcset", "xlink:href", "action", "style"):
                self.references.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.shown.append(data)


def read(path: Path) -> Reader:
    """The page at ``path``, after everything that must be true of any."""
    text = path.read_text("utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert reader.references == []
    assert reader.tags.count("h1") == 1
    assert not re.search(r"@import|url\(", text[text.index("<style>") : text.index("</style>")])
    assert not [s for s in secrets_of(config()) if len(s) > 5 and s in text]
    return reader


def finding(outcome: Outcome = Outcome.PASS, said: str = "fine", *evidence: str) -> Finding:
    return Finding("FO-API-001", "the API to be ready", outcome, said, evidence, "")


def status(*findings: Finding, complete: bool = True) -> Present[Status]:
    statement = evidence.Statement("lab", "uid", "c" * 40, 1, NOW, NOW + 60, "fo", (), findings)
    return Present(Status("lab", complete, statement, "", None))


LOCKED = gate.Reason("stage-2-locked", "no human has unlocked Stage 2", "fo gate unlock -c lab")
Line = tuple[float, str, str, dict[str, object]]
RUN: list[Line] = [
    (NOW, "begin", "", {}),
    (NOW + 1, "intend", "machine/lab-c1", {"stage": "machines", "on": "lab-c1", "verb": "create"}),
    (NOW + 9, "done", "machine/lab-c1", {}),
    (NOW + 10, "end", "", {"outcome": "done"}),
]


def made(
    folder: Path,
    lines: list[Line] = RUN,
    seen: Reading[Status] = status(finding()),  # noqa: B008 - a frozen value
    reasons: tuple[gate.Reason, ...] = (LOCKED,),
) -> str:
    """What the report of this run shows, as text."""
    own = folder / str(next(NUMBERS))
    own.mkdir()
    records = [json.dumps({"at": at, "event": event, "key": key, **data}) for at, event, key, data in lines]
    (own / "journal.jsonl").write_text("".join(f"{r}\n" for r in records))
    path = report.write(config(), own, seen, reasons, NOW + 99)
    assert path == own / "report.html"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(own)) == ["journal.jsonl", "report.html"]
    return " ".join(read(path).shown)


def test_it_tells_everything_about_a_run(tmp_path: Path) -> None:
    shown = made(tmp_path, seen=status(finding(Outcome.WARN, "slow", "line of evidence")))
    for part in ("ended well", "1 of 1 done", "✔ complete", "✘ closed", "c" * 12, "machine/lab-c1", "8.0 s", "slow",
                 "line of evidence", "fo gate unlock -c lab", "no human has unlocked Stage 2", "127.77.0.10:6443",
                 "queued", "critical path", *(n.name for n in config().nodes)):  # fmt: skip
        assert part in shown


def test_an_open_gate_is_said(tmp_path: Path) -> None:
    assert "The gate is open" in made(tmp_path, reasons=())


@pytest.mark.parametrize("seen", [Absent(), Unreadable("status.json: holds NaN")])
def test_no_reason_does_not_open_the_gate_without_a_status(tmp_path: Path, seen: Reading[Status]) -> None:
    shown = made(tmp_path, seen=seen, reasons=())
    assert "✘ closed" in shown
    assert "The gate is open" not in shown


def test_an_unreadable_status_is_said_and_never_complete(tmp_path: Path) -> None:
    shown = made(tmp_path, seen=Unreadable("status.json: holds NaN"))
    assert "cannot be read" in shown
    assert "status.json: holds NaN" in shown
    assert "✔ complete" not in shown


def test_a_reason_against_stage_1_takes_its_sign_away(tmp_path: Path) -> None:
    assert "✔ complete" not in made(tmp_path, reasons=(gate.Reason("expired", "it is old", "fo postcheck"),))


def test_a_run_without_actions_says_so(tmp_path: Path) -> None:
    assert "everything was as desired" in made(tmp_path, [RUN[0], RUN[-1]])
    assert "began no action" in made(tmp_path, [RUN[0], (NOW, "end", "", {"outcome": "failed", "error": "E: no"})])


def test_a_run_that_was_cut_off_says_how_to_resume(tmp_path: Path) -> None:
    shown = made(tmp_path, RUN[:2])
    assert "cut off" in shown
    assert "fo bootstrap -c lab" in shown


def test_a_failure_stands_first(tmp_path: Path) -> None:
    failed: Line = (NOW + 9, "failed", "machine/lab-c1", {"error": "storage is full"})
    shown = made(
        tmp_path, [*RUN[:2], failed, (NOW + 9, "end", "", {"outcome": "failed", "error": "X: storage is full"})]
    )
    assert shown.index("storage is full") < shown.index("Timeline of the run")
    assert "an action on it failed" in shown


def test_a_journal_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("{]\n{}\n")
    shown = " ".join(read(report.write(config(), tmp_path, Absent(), (), NOW)).shown)
    assert "journal cannot be read" in shown
    assert "? unreadable" in shown


def test_a_journal_nested_without_end_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"at": 1, "event": "intend", "key": "a", "x": ' + "[" * 99999 + "\n{}\n")
    assert "journal cannot be read" in " ".join(read(report.write(config(), tmp_path, Absent(), (), NOW)).shown)
    deep = "[" * 400 + "]" * 400
    (tmp_path / "journal.jsonl").write_text(f'{{"at": 1, "event": "intend", "key": "a", "x": {deep}}}\n')
    assert "1 action in 0.0 s" in " ".join(read(report.write(config(), tmp_path, Absent(), (), NOW)).shown)


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(errors.StateError):
        report.write(config(), tmp_path / "gone", Absent(), (), NOW)


def test_secrets_are_redacted_wherever_they_slipped_in(tmp_path: Path) -> None:
    token = config().k3s.token.get_secret_value()
    lines: list[Line] = [*RUN[:2], (NOW + 2, "failed", "machine/lab-c1", {"error": f"said {token}!"}), RUN[3]]
    reasons = (gate.Reason("x", token, token),)
    shown = made(tmp_path, lines, status(finding(Outcome.FAIL, token, f"a {token} b")), reasons)
    assert shown.count("***") >= 5


HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["<script>alert(1)</script>", "\"'><svg onload=x>", "</title></style><h1>", "]]>", "<!--", "&lt;b&gt;", "\x00",
         "\ud800", "\u202eevil", "javascript:x", "https://evil.example/x", "a\nb\tc", "x" * 5000]
    ),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(HOSTILE, min_size=7, max_size=7), st.floats(), st.sampled_from(Outcome))
def test_nothing_that_was_read_becomes_markup(words: list[str], at: float, outcome: Outcome) -> None:
    key, stage, on, reason, said, proof, fix = words
    intent: dict[str, object] = {
        "stage": stage,
        "on": on,
        "lane": stage,
        "after": [key, on],
        "verb": reason,
        "reason": reason,
    }
    lines: list[Line] = [
        (NOW, "intend", key, intent), (NOW, "intend", on, {**intent, "stage": "flux", "on": ""}),
        (at, "failed", key, {"error": said}), (NOW + 5, "end", "", {"outcome": on, "error": fix}),
    ]  # fmt: skip
    found = Finding(key, stage, outcome, said, (proof, on), fix)
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder), lines, status(found), (gate.Reason(key, said, fix),))


@given(st.text())
def test_escaped_text_reads_back(text: str) -> None:
    class Text(HTMLParser):
        said = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert (tag, len(attrs)) == ("p", 1)

        def handle_data(self, data: str) -> None:
            self.said += data

    reader = Text()
    reader.feed(markup.tag("p", text, title=text))
    reader.close()
    assert len(reader.said) == len(text)
    assert all(a in (b, "\ufffd") for a, b in zip(reader.said, text, strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert markup.duration(seconds) == text


@pytest.mark.parametrize("seconds", [0.1, 1, 7, 59, 240, 3600, 1e6, 1e11])
def test_the_axis_is_never_crowded(seconds: float) -> None:
    assert 2 <= len(chart.Scale(0, seconds).ticks()) <= 12


def test_overlapping_actions_of_a_machine_do_not_hide_each_other() -> None:
    ours = [dataclasses.replace(span(k, n, start=s), on="m") for k, n, s in (("a", 5, 0), ("b", 5, 2), ("c", 1, 5))]
    [(heading, [row])] = chart.sections(ours)
    assert (heading, [line for _, line in row.bars]) == ("Machines", [0, 1, 0])


@pytest.mark.parametrize(
    ("nodes", "pinned", "count"),
    [("pve", False, 1), ("p1,p2,p3", True, 3), ("p1,p2,p3,p4,p5,p6,p7", True, 7), ("p1,p2,p3", False, 1)],
)
def test_machines_lie_inside_their_hypervisor(nodes: str, pinned: bool, count: int) -> None:
    big = config(CONTROLLERS="5", WORKERS="50", PROXMOX_NODES=nodes, WORKER_FIRST_IP="127.77.0.41")
    if pinned:
        turns = itertools.cycle(big.proxmox.nodes)
        there = tuple(dataclasses.replace(node, hypervisor=next(turns)) for node in big.nodes)
        big = dataclasses.replace(big, nodes=there)
    placed = topology.boxes(big)
    assert len(placed) == count
    assert sum(len(b.nodes) for b in placed) == 55
    for box in placed:
        for number in range(len(box.nodes)):
            x, y, width = box.place(number)
            assert box.x <= x
            assert x + width <= box.x + box.width <= topology.MAIN + 1
            assert box.y <= y <= box.y + box.height - topology.CARD_HEIGHT - topology.FOOT
