"""Calendar events: the schedules that Proxmox takes, and when they are due."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from funoffshore import pveapi
from funoffshore.pveapi import calendar

NOW = datetime(2026, 11, 24, 13, 20, 30, tzinfo=UTC)  # a Tuesday


def at(day: int, hour: int, minute: int) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("02:30", at(25, 2, 30)),
        ("*/15", at(24, 13, 30)),
        ("*:0/30", at(24, 13, 30)),
        ("20", at(24, 14, 20)),
        ("8..17:05", at(24, 14, 5)),
        ("sat 04:00", at(28, 4, 0)),
        ("mon..wed,fri 22:00", at(24, 22, 0)),
        ("sunday", at(29, 0, 0)),
        ("daily", at(25, 0, 0)),
        ("hourly", at(24, 14, 0)),
        ("weekly", at(30, 0, 0)),
        ("minutely", at(24, 13, 21)),
    ],
)
def test_an_event_is_due_when_its_text_says(text: str, due: datetime) -> None:
    assert calendar.parse(text).after(NOW) == due


@pytest.mark.parametrize(
    "text", ["", "nonsense", "25:00", "02:61", "*/0", "fri..mon 02:00", "1 2 3", "sometimes 02:30"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unable to parse calendar event"):
        calendar.parse(text)
    errors = pveapi.check("9.1", "POST", "/cluster/backup", {"schedule": text, "all": 1})
    assert errors["schedule"].startswith(f"invalid format - invalid calendar event '{text}'")
