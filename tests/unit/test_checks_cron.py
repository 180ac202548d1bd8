"""How far apart the runs of a schedule are."""

from __future__ import annotations

import pytest

from funoffshore.checks import cron

HOUR, DAY = 3600.0, 86400.0


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ("0 */6 * * *", 6 * HOUR),
        ("*/15 * * * *", 900.0),
        ("30 2 * * *", DAY),
        ("0 */5 * * *", 5 * HOUR),  # 20:00, then 00:00: four hours, but 5 before
        ("0 8,20 * * *", 12 * HOUR),
        ("0 22 * * mon-fri", 3 * DAY),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 29 2 *", 1461 * DAY),
        ("0 0 1,15 * 0", 7 * DAY),  # either: a Sunday comes every week
        ("0 0 */2 * 0", 21 * DAY),  # a step is a star to K3s, so both: Sundays that are odd days of the month
        ("5/20 * * * *", 1200.0),
        ("0 0 * jan ?", 336 * DAY),
        ("@hourly", HOUR),
        ("@midnight", DAY),
        ("@weekly", 7 * DAY),
    ],
)
def test_the_longest_gap(schedule: str, seconds: float) -> None:
    assert cron.longest_gap(schedule) == seconds


@pytest.mark.parametrize(
    "schedule",
    ["", "often", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7",
     "5-1 * * * *", "*/0 * * * *", "@every 1h", "0 0 30 2 *", "1.5 * * * *", "- * * * *"],
)  # fmt: skip
def test_what_is_no_schedule(schedule: str) -> None:
    assert cron.longest_gap(schedule) is None
