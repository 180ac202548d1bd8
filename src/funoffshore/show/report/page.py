"""The whole page: what a reader wants to know first stands first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources

from funoffshore import gate, run, timeline
from funoffshore.config import ClusterConfig
from funoffshore.journal import Entry
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.show.report import chart, tables, topology
from funoffshore.show.report.markup import Markup, duration, join, plural, raw, tag
from funoffshore.status import Status

STAGE_2 = ("stage-2-locked", "mark-signature")
"""Codes of the gate's reasons that say nothing against Stage 1."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""For the browser: load nothing and run nothing, whatever the text turns out to hold."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything a report tells, read and redacted."""

    config: ClusterConfig
    run: str
    entries: tuple[Entry, ...]
    problem: str
    """Why the journal cannot be read; empty when it can."""
    status: Reading[Status]
    reasons: tuple[gate.Reason, ...]
    now: float


def page(view: View) -> str:
    """The document, complete."""
    spans = timeline.spans(view.entries)
    path = timeline.critical_path(spans)
    style = resources.files("funoffshore.show.report").joinpath("style.css").read_text()
    title = f"{view.config.name}: run {view.run}"
    body = tag(
        "body",
        _header(view, spans),
        tag("main", _troubles(view, spans), _timeline(view, spans, path), _topology(view, spans), _checks(view),
            _gate(view), _slowest(spans, path)),
        tag("footer", f"Written by funoffshore on {moment(view.now)}. Times are on the run's clock."),
    )  # fmt: skip
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", raw(style)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def moment(at: float) -> str:
    """``2027-01-15 08:00:00 UTC``."""
    if not 0 <= at <= timeline.LAST_SECOND:
        return "an unknown time"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _header(view: View, spans: list[timeline.Span]) -> Markup:
    done = sum(s.outcome == "done" for s in spans)
    times = [e.at for e in view.entries if 0 <= e.at <= timeline.LAST_SECOND]
    took = f"in {duration(max(times) - min(times))}" if times else ""
    outcome, kind = _outcome(view)
    proven, proven_kind = _stage_1(view)
    gate_open = isinstance(view.status, Present) and not view.reasons
    commit = _commit(view)
    facts = [
        _fact("Run", outcome, kind, moment(times[0]) if times else ""),
        _fact("Actions", f"{done} of {len(spans)} done", "", took),
        _fact("Stage 1", proven, proven_kind, _proven_when(view)),
        _fact("Gate to Stage 2", "✔ open" if gate_open else "✘ closed", "good" if gate_open else "bad",
              "" if gate_open else plural(len(view.reasons), "reason") if view.reasons else "nothing proves Stage 1"),
        _fact("Commit", commit[:12] if commit else "unknown", "code", view.config.git.branch),
    ]  # fmt: skip
    nodes = f"{plural(len(view.config.controllers), 'controller')}, {plural(len(view.config.workers), 'worker')}"
    place = "in the lab" if view.config.lab else view.config.domain
    return tag(
        "header",
        tag("p", "fo report", class_="kicker"),
        tag("h1", view.config.name, " ", tag("span", f"{nodes}, {place}", class_="muted")),
        tag("p", "Run ", tag("code", view.run), class_="muted"),
        tag("dl", *facts, class_="facts"),
    )


def _fact(name: str, value: str, kind: str, more: str) -> Markup:
    small = tag("small", more) if more else ""
    return tag("div", tag("dt", name), tag("dd", tag("b", value, class_=kind or None), small))


def _end(view: View) -> Entry | None:
    return next((e for e in reversed(view.entries) if e.event == "end"), None)


def _outcome(view: View) -> tuple[str, str]:
    end = _end(view)
    if view.problem:
        return "? unreadable", "bad"
    if end is None:
        return "! cut off", "warn"
    if end.data.get("outcome") == "done":
        return "✔ ended well", "good"
    if str(end.data.get("error", "")).startswith("InterruptedRunError"):
        return "! stopped", "warn"
    return "✘ failed", "bad"


def _stage_1(view: View) -> tuple[str, str]:
    match view.status:
        case Unreadable():
            return "? cannot tell", "bad"
        case Present(seen) if seen.stage_1_complete and not [r for r in view.reasons if r.code not in STAGE_2]:
            return "✔ complete", "good"
        case _:
            return "✘ not proven", "bad"


def _proven_when(view: View) -> str:
    if isinstance(view.status, Present) and view.status.value.statement:
        return f"looked at {moment(view.status.value.statement.issued)}"
    return "no evidence"


def _commit(view: View) -> str:
    if isinstance(view.status, Present) and view.status.value.statement:
        return view.status.value.statement.commit
    return ""


def _troubles(view: View, spans: list[timeline.Span]) -> Markup:
    """What went wrong, before anything else. Nothing when nothing did."""
    end = _end(view)
    lines = []
    if view.problem:
        lines.append(tag("p", "The journal cannot be read: ", view.problem))
    elif end is None:
        lines.append(tag("p", "The run was cut off: its journal has no end. Run ", _command(view), " again to resume."))
    broken = [s for s in spans if s.outcome in ("failed", "stopped")]
    last = str(end.data.get("error") or "") if end else ""
    if last and not any(s.error and last.endswith(s.error) for s in broken):
        lines.append(tag("p", last))
    for span in broken:
        lines.append(tag("p", tag("code", span.key), f" {span.outcome}: {span.error or 'no reason was written'}"))
    return tag("section", tag("h2", "What went wrong"), *lines, class_="trouble") if lines else Markup("")


def _command(view: View) -> Markup:
    return tag("code", f"fo bootstrap -c {view.config.name}")


def _timeline(view: View, spans: list[timeline.Span], path: timeline.CriticalPath) -> Markup:
    heading = tag("h2", "Timeline")
    if not spans:
        idle = _outcome(view)[1] == "good"
        said = "This run did nothing: everything was as desired." if idle else "This run began no action."
        return tag("section", heading, tag("p", said, class_="empty"))
    said = chart.reading(spans, path, run.capacity(view.config))
    return tag("section", heading, chart.legend(spans), chart.picture(spans, path), said)


def _topology(view: View, spans: list[timeline.Span]) -> Markup:
    return tag("section", tag("h2", "Topology"), topology.picture(view.config, spans))


def _checks(view: View) -> Markup:
    heading = tag("h2", "Checks")
    match view.status:
        case Unreadable(why):
            said = f"The status cannot be read, so nothing is known about the checks: {why}"
            return tag("section", heading, tag("p", said, class_="empty bad"))
        case Present(seen) if seen.statement:
            return tag("section", heading, tables.findings(seen.statement.findings))
        case Present() | Absent():
            said = join(
                "No postcheck has been written down yet. Run ", tag("code", f"fo postcheck -c {view.config.name}")
            )
            return tag("section", heading, tag("p", said, ".", class_="empty"))


def _gate(view: View) -> Markup:
    heading = tag("h2", "Gate to Stage 2")
    if view.reasons:
        return tag("section", heading, tables.reasons(view.reasons))
    if isinstance(view.status, Present):
        return tag(
            "section", heading, tag("p", "The gate is open: nothing speaks against Stage 2.", class_="empty good")
        )
    return tag("section", heading, tag("p", "The gate is closed: nothing proves Stage 1.", class_="empty bad"))


def _slowest(spans: list[timeline.Span], path: timeline.CriticalPath) -> Markup:
    if not spans:
        return Markup("")
    return tag("section", tag("h2", "Slowest actions"), tables.slowest(spans, path))
