"""Calendar events, as Proxmox writes schedules: ``02:30``, ``mon..fri 22:00``, ``*/15``, ``daily``. Pure.

The part of the format (pve-common ``PVE/CalendarEvent.pm``) that names week days, hours and minutes; events with dates,
seconds or time zones are refused here although Proxmox knows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WORDS = {"minutely": "*:*", "hourly": "*:00", "daily": "00:00", "weekly": "mon 00:00"}
_WEEK_MINUTES = 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class Event:
    """The minutes at which something is due."""

    days: frozenset[int]
    """0 is Monday."""
    hours: frozenset[int]
    minutes: frozenset[int]

    def fits(self, moment: datetime) -> bool:
        """Whether the minute of ``moment`` is one of the event's."""
        return moment.weekday() in self.days and moment.hour in self.hours and moment.minute in self.minutes

    def after(self, moment: datetime) -> datetime:
        """The first due minute that begins after ``moment``."""
        due = moment.replace(second=0, microsecond=0)
        for _ in range(_WEEK_MINUTES + 1):
            due += timedelta(minutes=1)
            if self.fits(due):
                return due
        raise AssertionError("an event is due at least once a week")


def parse(text: str) -> Event:
    """Raises ValueError, with what Proxmox says, for what is no calendar event."""
    words = _WORDS.get(text.strip().lower(), text.strip().lower()).split()
    if not words or len(words) > 2:
        raise ValueError(f"unable to parse calendar event '{text}'")
    days = frozenset(range(7))
    if words[0][0].isalpha():
        days = _days(words.pop(0), text)
    hours, sign, minutes = (words[0] if words else "00:00").rpartition(":")
    return Event(days, _numbers(hours if sign else "*", 24, text), _numbers(minutes, 60, text))


def _days(spec: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in spec.split(","):
        first, sign, last = part.partition("..")
        numbers = [_day(name, text) for name in ((first, last) if sign else (first,))]
        if numbers[-1] < numbers[0]:
            raise ValueError(f"unable to parse calendar event '{text}' - wrong order in range '{part}'")
        found |= set(range(numbers[0], numbers[-1] + 1))
    return frozenset(found)


def _day(name: str, text: str) -> int:
    for names in (_DAYS, _LONG_DAYS):
        if name in names:
            return names.index(name)
    raise ValueError(f"unable to parse calendar event '{text}' - unknown day '{name}'")


def _numbers(spec: str, end: int, text: str) -> frozenset[int]:
    """The numbers below ``end`` that ``1,5``, ``8..17``, ``*/15`` or ``5/10`` means."""
    found: set[int] = set()
    for part in spec.split(","):
        form = re.fullmatch(r"(?:(\*)|(\d{1,2})(?:\.\.(\d{1,2}))?)(?:/(\d{1,2}))?", part)
        if form is None:
            raise ValueError(f"unable to parse calendar event '{text}'")
        step = int(form[4] or 1)
        first = int(form[2] or 0)
        last = int(form[3]) if form[3] else end - 1 if form[1] or form[4] else first
        if not step or first > last or last >= end:
            raise ValueError(f"unable to parse calendar event '{text}' - value out of range in '{part}'")
        found |= set(range(first, last + 1, step))
    return frozenset(found)
