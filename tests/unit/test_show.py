"""What is shown: plans, findings, JUnit, and the live display."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from report_samples import config_of

from funoffshore import errors
from funoffshore.findings import Finding, Outcome
from funoffshore.plan import Action, Plan, Verb
from funoffshore.show import live, text

FOUND = (
    Finding("FO-API-001", "the API to be ready", Outcome.PASS, "it is"),
    Finding("FO-NODE-002", "every node to be Ready", Outcome.FAIL, "1 is not", ("home-w1: <KubeletNotReady>",), "look"),
    Finding("FO-CERT-001", "certificates", Outcome.UNKNOWN, "cannot tell"),
    Finding("FO-FLUX-002", "pushed", Outcome.WARN, "dirty"),
)


class Ticks:
    time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def act(key: str, on: str = "") -> Action:
    return Action(Verb.CREATE, key, "it is absent", stage="machines", on=on)


def test_an_empty_plan_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text.plan(Plan())
    assert capsys.readouterr().out == "nothing to do, everything is as desired\n"


def test_a_plan_gives_a_reason_for_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    text.plan(Plan.of([act("machine/home-c1")]))
    assert "create   machine/home-c1  because it is absent" in capsys.readouterr().out


def test_findings_lead_with_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    text.findings(FOUND, quiet_passes=True)
    out = capsys.readouterr().out
    assert "FO-API-001" not in out
    assert "✘ FO-NODE-002" in out
    assert "→ look" in out
    assert out.endswith("1 pass, 1 warn, 1 fail, 1 unknown\n")


def test_junit_tells_failures_from_errors(tmp_path: Path) -> None:
    text.junit(FOUND, tmp_path / "out.xml", "home")
    suite = ET.parse(tmp_path / "out.xml").getroot()  # noqa: S314 - written by us a moment ago
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("4", "1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "home-w1: <KubeletNotReady>" in (failure.text or "")


def test_junit_into_a_folder_that_is_missing_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="cannot write"):
        text.junit(FOUND, tmp_path / "missing" / "out.xml", "home")


def test_the_live_display_has_a_line_per_machine(tmp_path: Path) -> None:
    clock = Ticks()
    config = config_of(3, 2, 1, tmp_path)
    watcher = live.Watcher(config, clock)
    first = config.nodes[0].name
    watcher.planned(Plan.of([act("machine/a", first), act("pool/x")]))
    watcher.started(act("machine/a", first))
    watcher.started(act("pool/x"))
    watcher.said(act("machine/a", first), "importing the disk")
    clock.time = 42
    assert watcher.rows() == [
        (first, "create machine/a: importing the disk", "42 s"),
        ("cluster", "create pool/x", "42 s"),
    ]
    watcher.ended(act("machine/a", first), None)
    assert watcher.total().startswith("1 of 2 done, 42 s")


def test_plain_lines_remind_of_what_takes_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Ticks()
    watcher = live.PlainWatcher(config_of(3, 2, 1, tmp_path), clock)
    action = act("k3s/home-c2", "home-c2")
    watcher.started(action)
    for _ in range(40):
        clock.time += 1
        watcher.said(action, "waiting for its etcd member to vote")
    watcher.ended(action, errors.DeadlineError("gave up"))
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "waiting for" in line]) == 2
    assert "failed: gave up" in lines[-1]


def test_a_warning_is_a_line_of_its_own_once_and_outlives_the_display(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    action, warning = act("trust/home-w1", "home-w1"), "warning: host key accepted on first use"
    watcher = live.PlainWatcher(config_of(3, 2, 1, tmp_path), Ticks())
    watcher.started(action)
    watcher.said(action, warning)
    watcher.said(action, warning)
    assert capsys.readouterr().err.count(warning) == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def cut_short() -> None:
        with live.watch(config_of(3, 2, 1, tmp_path), Ticks()) as table:
            table.started(action)
            table.said(action, warning)
            raise errors.DeadlineError("gave up")

    with pytest.raises(errors.DeadlineError):
        cut_short()
    assert capsys.readouterr().err.rstrip().endswith(f"trust/home-w1: {warning}")
