"""When K3s' certificates end, and what postcheck makes of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from funoffshore.checks.hosts import Tally
from funoffshore.stages.k3s.certificates import DAY, Certificate

WARN, FAIL = 90, 14
"""Days."""


def judge(tally: Tally, name: str, found: Sequence[Certificate], now: float) -> tuple[float, str]:
    """Lines about those that end soon; how many seconds are left to the first end, and which that is."""
    for one in sorted(found, key=lambda one: one.until):
        days = (one.until - now) / DAY
        if not one.valid and days >= 0:
            tally.bad.append(f"{name}: {one.file} is not valid yet")
        elif days < FAIL:
            tally.bad.append(f"{name}: {one.file} " + ("has ended" if days < 0 else f"ends in {days:.0f} days"))
        elif days < WARN:
            tally.odd.append(f"{name}: {one.file} ends in {days:.0f} days")
    first = min(found, key=lambda one: one.until)
    return first.until - now, f"{first.file} of {name}"
