"""When a schedule of five fields is due, as cron(5) and the library that K3s uses (robfig/cron v3) read it. UTC."""

from __future__ import annotations

import datetime
import re
from functools import cache

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES = {
    **{
        name: number
        for number, name in enumerate(
            ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
        )
    },
    **{name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])},
}
_SHORT = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_FAR = 4 * 366 * 24 * 60
"""Minutes looked at, at most: four years."""


@cache
def fields(schedule: str) -> tuple[frozenset[int], ...]:
    """The numbers that each field allows. Raises ValueError for what is no schedule."""
    texts = _SHORT.get(schedule.strip(), schedule).lower().split()
    if len(texts) != len(_RANGES):
        raise ValueError(f"expected exactly 5 fields, found {len(texts)}: {texts}")
    found = [frozenset(_numbers(text, *limits)) for text, limits in zip(texts, _RANGES, strict=True)]
    return (*found[:4], frozenset(day % 7 for day in found[4]))


def _numbers(text: str, first: int, last: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, dash, high = span.partition("-")
        start = first if span in ("*", "?") else _number(low)
        end = _number(high) if dash else last if span in ("*", "?") or step else start
        if not first <= start <= end <= last or int(step or 1) < 1:
            raise ValueError(f"{part} is not between {first} and {last}")
        found.update(range(start, end + 1, int(step or 1)))
    return found


def _number(text: str) -> int:
    return _NAMES[text] if text in _NAMES else int(text)


def interval(schedule: str) -> float:
    """Seconds of ``@every 1h30m``; 0 for any other schedule. Raises ValueError for what is no duration."""
    if not schedule.startswith("@every "):
        return 0.0
    text = schedule.removeprefix("@every ").strip()
    found = re.findall(r"([\d.]+)(h|ms|m|s)", text)
    if "".join(number + unit for number, unit in found) != text or not found:
        raise ValueError(f"failed to parse duration {schedule}")
    return max(sum(float(number) * _UNITS[unit] for number, unit in found), 1.0)


def is_due(schedule: str, since: float, until: float) -> bool:
    """Whether the schedule has a minute in the time after ``since`` up to ``until`` (Unix times)."""
    every = interval(schedule)
    if every:
        return until // every > since // every
    minute = int(since // 60) + 1
    last = min(int(until // 60), minute + _FAR)
    allowed = fields(schedule)
    starred = [text.startswith(("*", "?")) for text in _SHORT.get(schedule.strip(), schedule).split()]
    while minute <= last:
        when = datetime.datetime.fromtimestamp(minute * 60, datetime.UTC)
        month, day = when.month in allowed[3], when.day in allowed[2]
        weekday = (when.weekday() + 1) % 7 in allowed[4]
        # cron(5): with both days restricted, either will do
        fits = day and weekday if starred[2] or starred[4] else day or weekday
        if month and fits and when.hour in allowed[1] and when.minute in allowed[0]:
            return True
        minute += 1
    return False
