"""The timeline as a picture: a row for each machine and each thing of the cluster, a bar for each action."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from funoffshore import timeline
from funoffshore.show.report.markup import Markup, duration, fit, join, plural, tag
from funoffshore.show.report.tables import stage_class
from funoffshore.timeline import CriticalPath, Span

WIDTH, LEFT, RIGHT = 1100.0, 172.0, 1040.0
"""Pixels: the picture, and where its bars begin and end."""
PITCH, BAR, PAD, SECTION = 15.0, 11.0, 2.5, 24.0
"""Pixels: from one line of bars to the next, a bar's height, around a row, a section's heading."""
SIGN = 6.0
"""Pixels a sign takes at the picture's font size, on average."""

_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the picture, or several when its actions overlap."""

    label: str
    bars: tuple[tuple[Span, int], ...]
    """Action, and the line within the row that it is on."""

    @property
    def height(self) -> float:
        return PITCH * (1 + max(line for _, line in self.bars)) + 2 * PAD


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds to pixels."""

    start: float
    seconds: float

    def x(self, at: float) -> float:
        return LEFT + (at - self.start) / self.seconds * (RIGHT - LEFT)

    def ticks(self) -> list[float]:
        """Seconds since the start; at most a dozen, at round values."""
        step = next((s for s in _STEPS if self.seconds / s <= 11), self.seconds / 8)
        return [i * step for i in range(int(self.seconds / step) + 1)]


def picture(spans: Sequence[Span], path: CriticalPath) -> Markup:
    """The timeline, scrollable when it is high, under an axis that stays in view."""
    start = min(s.start for s in spans)
    scale = Scale(start, max(max(s.end for s in spans) - start, 0.1))
    body, places, y = [], {}, 4.0
    for heading, rows in sections(spans):
        body.append(tag("text", heading, x=8, y=y + 15, class_="section"))
        y += SECTION
        for row in rows:
            body.append(_row(row, y, scale, path))
            places.update({id(span): y + PAD + line * PITCH for span, line in row.bars})
            y += row.height
        y += 6
    lines = [tag("line", x1=x, x2=x, y1=0, y2=y, class_="grid") for x in map(scale.x, _moments(scale))]
    chart = tag(
        "svg", tag("title", "Timeline of the run"), tag("desc", _described(spans, path)), *lines, *body,
        _chain(path, places, scale), role="img", viewBox=f"0 0 {WIDTH:.0f} {y:.0f}", class_="picture",
    )  # fmt: skip
    return tag("div", _axis(scale), chart, class_="scroll", tabindex="0", role="group", aria_label="Timeline")


def sections(spans: Sequence[Span]) -> list[tuple[str, list[Row]]]:
    """Headings with their rows, in the order of the road; rows by when they began."""
    found = []
    for stage, heading in (("machines", "Proxmox"), ("", "Machines"), ("k3s", "K3s"), ("flux", "Flux")):
        ours = [s for s in spans if (s.on and not stage) or (not s.on and s.stage == stage and stage)]
        found.append((heading, list(_rows(ours, by_machine=not stage))))
    known = ("machines", "k3s", "flux")
    found.append(("Other", list(_rows([s for s in spans if not s.on and s.stage not in known], by_machine=False))))
    return [(heading, rows) for heading, rows in found if rows]


def legend(spans: Sequence[Span]) -> Markup:
    """What the colours mean; only those that occur, in words as well."""
    names = {"machines": "machines", "k3s": "K3s", "flux": "Flux"}
    items = [_swatch(stage_class(stage), name) for stage, name in names.items() if any(s.stage == stage for s in spans)]
    items.append(_swatch("s-other wait", "pale: waits, changes nothing"))
    if any(s.outcome == "failed" for s in spans):
        items.append(_swatch("failed", "✘ failed"))
    if any(s.outcome in ("stopped", "unfinished") for s in spans):
        items.append(_swatch("s-other open", "dashed: stopped or cut off"))
    items.append(_swatch("s-other critical", "outlined: critical path"))
    return tag("ul", *items, class_="legend")


def reading(spans: Sequence[Span], path: CriticalPath, capacity: Mapping[str, int]) -> Markup:
    """What the picture says, in sentences, and what it does not show. ``capacity`` is each lane's."""
    took = max(s.end for s in spans) - min(s.start for s in spans)
    bound = timeline.lane_bound(spans, capacity)
    lanes = f", and the lanes allow no less than {duration(bound)}" if bound else ""
    said = (
        f"From first to last action {duration(took)}; the critical path alone takes {duration(path.seconds)}{lanes}. "
    )
    note = "A bar begins when its action does: time queued for a lane is not shown."
    steps = [tag("li", tag("code", s.key), f" {duration(s.seconds)}") for s in path.spans]
    summary = tag("summary", f"the critical path, {plural(len(steps), 'action')}")
    return join(tag("p", said, note, class_="muted"), tag("details", summary, tag("ol", *steps, class_="path")))


def _swatch(kind: str, name: str) -> Markup:
    box = tag("rect", x=1, y=1, width=20, height=10, rx=2, class_=f"bar {kind}")
    return tag("li", tag("svg", box, viewBox="0 0 22 12", width=22, height=12, aria_hidden="true"), name)


def _rows(spans: Iterable[Span], *, by_machine: bool) -> Iterator[Row]:
    groups: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda s: s.start):
        groups.setdefault(span.on if by_machine else span.key, []).append(span)
    for name, group in groups.items():
        ends: list[float] = []
        bars = []
        for span in group:
            line = next((i for i, end in enumerate(ends) if end <= span.start), len(ends))
            ends[line : line + 1] = [span.end]
            bars.append((span, line))
        yield Row(name if by_machine else name.removeprefix("flux/").removeprefix("kustomization/"), tuple(bars))


def _row(row: Row, y: float, scale: Scale, path: CriticalPath) -> Markup:
    label = tag("text", tag("title", row.label), fit(row.label, LEFT - 24, SIGN), x=16, y=y + PAD + 9.5, class_="label")
    line = tag("line", x1=8, x2=WIDTH - 8, y1=y + row.height, y2=y + row.height, class_="rule")
    critical = {id(s) for s in path.spans}
    alone = len(row.bars) == 1
    bars = [_bar(s, y + PAD + i * PITCH, scale, critical=id(s) in critical, alone=alone) for s, i in row.bars]
    return tag("g", line, label, *bars)


def _bar(span: Span, y: float, scale: Scale, *, critical: bool, alone: bool) -> Markup:
    x = scale.x(span.start)
    width = max(2.0, scale.x(span.end) - x)
    kinds = ["bar", stage_class(span.stage)]
    kinds += ["wait"] * (span.verb == "wait for") + ["critical"] * critical
    kinds += {"failed": ["failed"], "stopped": ["open"], "unfinished": ["open"]}.get(span.outcome, [])
    parts = [
        tag("title", _sentence(span, scale.start)),
        tag("rect", x=x, y=y, width=width, height=BAR, rx=2, class_=" ".join(kinds)),
    ]
    inside = fit(span.key.split("/")[0], width - 4, SIGN)
    if not alone and inside and "…" not in inside:
        tone = "inside pale" if {"wait", "open"} & set(kinds) else "inside"
        parts.append(tag("text", inside, x=x + 4, y=y + 9, class_=tone))
    behind = "✘ failed" if span.outcome == "failed" else duration(span.seconds) if alone else ""
    if behind:
        tone = "behind cross" if span.outcome == "failed" else "behind"
        parts.append(tag("text", behind, x=x + width + 5, y=y + 9.5, class_=tone))
    return tag("g", *parts)


def _sentence(span: Span, start: float) -> str:
    when = f"{clock(span.start - start)} to {clock(span.end - start)}"
    why = f", because {span.reason}" if span.reason else ""
    error = f": {span.error}" if span.error else ""
    return f"{span.verb} {span.key}{why}\n{span.outcome} after {duration(span.seconds)}, {when}{error}".strip()


def _chain(path: CriticalPath, places: dict[int, float], scale: Scale) -> Markup:
    """The line that leads from one bar of the critical path to the next."""
    pieces = []
    for one, other in zip(path.spans, path.spans[1:], strict=False):
        from_y, to_y = places[id(one)] + BAR / 2, places[id(other)] + BAR / 2
        if from_y != to_y:
            down = to_y > from_y
            edge = places[id(other)] + (0 if down else BAR)
            pieces.append(f"M{scale.x(one.end):.1f} {from_y:.1f}H{scale.x(other.start) + 1:.1f}V{edge:.1f}")
    return tag("path", d="".join(pieces), class_="chain") if pieces else Markup("")


def _axis(scale: Scale) -> Markup:
    marks = [
        tag("text", clock(at - scale.start, scale.seconds), x=scale.x(at), y=15, class_="tick")
        for at in _moments(scale)
    ]
    return tag("svg", *marks, viewBox=f"0 0 {WIDTH:.0f} 22", class_="axis", aria_hidden="true")


def _moments(scale: Scale) -> list[float]:
    return [scale.start + tick for tick in scale.ticks()]


def clock(seconds: float, whole: float = 10) -> str:
    """``0:05``, ``1:02:00``; with tenths when the ``whole`` is but a few seconds."""
    if whole < 8:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    hours, minutes = rest // 3600, rest % 3600 // 60
    return f"{hours}:{minutes:02}:{rest % 60:02}" if hours else f"{minutes}:{rest % 60:02}"


def _described(spans: Sequence[Span], path: CriticalPath) -> str:
    failed = sum(s.outcome == "failed" for s in spans)
    took = max(s.end for s in spans) - min(s.start for s in spans)
    wrong = f", {failed} failed" if failed else ""
    return (
        f"{plural(len(spans), 'action')} in {duration(took)}{wrong}. Critical path, {duration(path.seconds)}: "
        + ", then ".join(path.keys)
    )
