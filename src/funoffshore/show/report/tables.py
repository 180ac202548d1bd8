"""The report's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from funoffshore import gate, timeline
from funoffshore.findings import Finding, Outcome
from funoffshore.show import text
from funoffshore.show.report.markup import Markup, duration, join, plural, tag

SLOWEST = 12
"""Rows in the table of the slowest actions."""

_ORDER = (Outcome.FAIL, Outcome.UNKNOWN, Outcome.WARN, Outcome.PASS)


def findings(found: Iterable[Finding]) -> Markup:
    """Worst first, otherwise as asked; evidence is folded away."""
    found = sorted(found, key=lambda f: _ORDER.index(f.outcome))
    counts = {outcome: sum(f.outcome is outcome for f in found) for outcome in _ORDER}
    chips = [
        tag("li", f"{text.SIGNS[outcome]} {count} {outcome.value}", class_=f"is-{outcome.value}")
        for outcome, count in counts.items()
        if count
    ]
    if not found:
        return tag("p", "The evidence holds no findings.", class_="empty bad")
    return join(
        tag("ul", *chips, class_="chips"), _table("checks", ("", "Check", "Waiting for", "Seen"), map(_finding, found))
    )


def _finding(finding: Finding) -> Markup:
    seen = [tag("div", finding.said)]
    if finding.fix:
        seen.append(tag("div", "→ ", finding.fix, class_="fix"))
    if finding.evidence:
        summary = tag("summary", f"evidence, {plural(len(finding.evidence), 'line')}")
        seen.append(tag("details", summary, tag("pre", "\n".join(finding.evidence))))
    sign = tag("span", text.SIGNS[finding.outcome], class_="sign", role="img", aria_label=finding.outcome.value)
    return tag(
        "tr", tag("td", sign), tag("th", tag("code", finding.id), scope="row"), tag("td", finding.title),
        tag("td", *seen), class_=f"is-{finding.outcome.value}",
    )  # fmt: skip


def reasons(closed: Sequence[gate.Reason]) -> Markup:
    """Why the gate is closed, and the command that clears each reason."""
    rows = (tag("tr", tag("td", r.text), tag("td", tag("code", r.clear, class_="command"))) for r in closed)
    said = tag("p", f"The gate is closed, for {plural(len(closed), 'reason')}.", class_="bad")
    return join(said, _table("gate", ("Reason", "Clear it with"), rows))


def slowest(spans: Sequence[timeline.Span], path: timeline.CriticalPath) -> Markup:
    """The actions that took longest, and which of them held up the whole run."""
    longest = sorted(spans, key=lambda s: -s.seconds)[:SLOWEST]
    most = max(longest[0].seconds, 1e-9)
    rows = (_slow(span, span.seconds / most, span in path.spans) for span in longest)
    return _table("slow", ("Action", "Stage", "On", "Took", "", "Outcome"), rows)


def _slow(span: timeline.Span, share: float, critical: bool) -> Markup:
    bar = tag(
        "svg",
        tag("rect", x=0, y=2, width=max(1.0, share * 140), height=8, rx=2, class_=f"bar {stage_class(span.stage)}"),
        viewBox="0 0 140 12", width=140, height=12, aria_hidden="true",
    )  # fmt: skip
    outcome = span.outcome + (", on the critical path" if critical else "")
    kind = "bad" if span.outcome == "failed" else None
    return tag(
        "tr", tag("th", tag("code", f"{span.verb} {span.key}".strip()), scope="row"), tag("td", span.stage),
        tag("td", span.on or "cluster"), tag("td", duration(span.seconds), class_="number"), tag("td", bar),
        tag("td", outcome, class_=kind),
    )  # fmt: skip


def stage_class(stage: str) -> str:
    """The class that gives a stage its colour."""
    return f"s-{stage}" if stage in ("machines", "k3s", "flux") else "s-other"


def _table(kind: str, heads: Sequence[str], rows: Iterable[str]) -> Markup:
    head = tag("thead", tag("tr", *(tag("th", h, scope="col") if h else tag("td") for h in heads)))
    return tag("div", tag("table", head, tag("tbody", *rows), class_=kind), class_="wide")
