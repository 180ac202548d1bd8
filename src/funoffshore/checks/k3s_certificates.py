"""When K3s' certificates end, from what ``k3s certificate check`` prints. Pure.

Lines recorded from a real run; those of certificates that are no longer good: K3s ``pkg/cli/cert``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from funoffshore.checks.hosts import Tally

DAY = 86400.0
WARN, FAIL = 90, 14
"""Days."""
_LINE = re.compile(
    r"(?P<file>[\w.-]+): certificate (?P<subject>.+?) \((?P<uses>[\w,]*)\) "
    r"(?P<said>.*?)(?P<when>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate on a host."""

    file: str
    subject: str
    end: float
    """Unix seconds."""
    early: bool = False
    """Whether it is not valid yet; ``end`` is then when that begins."""


def parse(text: str) -> list[Certificate]:
    """Every certificate that the lines tell of, in any form of log line."""
    return [
        Certificate(
            found["file"],
            found["subject"],
            datetime.fromisoformat(found["when"]).timestamp(),
            early="not valid before" in found["said"],
        )
        for found in _LINE.finditer(text)
    ]


def judge(tally: Tally, name: str, found: Sequence[Certificate], now: float) -> tuple[float, str]:
    """Lines about those that end soon; how many seconds are left to the first end, and which that is."""
    for one in sorted(found, key=lambda one: one.end):
        days = (one.end - now) / DAY
        if one.early:
            tally.bad.append(f"{name}: {one.file} is not valid yet")
        elif days < FAIL:
            tally.bad.append(f"{name}: {one.file} " + ("has ended" if days < 0 else f"ends in {days:.0f} days"))
        elif days < WARN:
            tally.odd.append(f"{name}: {one.file} ends in {days:.0f} days")
    first = min(found, key=lambda one: one.end)
    return first.end - now, f"{first.file} of {name}"
