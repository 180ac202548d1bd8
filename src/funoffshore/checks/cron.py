"""How far apart the runs of a cron schedule are. Pure."""

from __future__ import annotations

import datetime
import itertools

from funoffshore.config import kubernetes

_FIRST = datetime.date(2024, 1, 1)
_SPAN = 5 * 366
"""Days that are looked at: the 29th of February comes once in them at least, and is followed by another."""


def longest_gap(schedule: str) -> float | None:
    """Seconds between the two consecutive runs that are furthest apart; None for what is no schedule, or never runs.

    Takes what ETCD_SNAPSHOT_SCHEDULE takes, in K3s' meaning of it (robfig/cron): where both days are restricted, a
    day that fits either will do.
    """
    try:
        minutes, hours, days, months, weekdays = kubernetes.cron_fields(schedule)
    except ValueError:
        return None
    fields = schedule.split(" ")
    either = len(fields) == 5 and fields[2][:1] not in "*?" and fields[4][:1] not in "*?"

    def fits(day: datetime.date) -> bool:
        by_date, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        return day.month in months and (by_date or by_weekday if either else by_date and by_weekday)

    span = (_FIRST + datetime.timedelta(number) for number in range(_SPAN))
    matching = [day.toordinal() for day in span if fits(day)]
    times = sorted(hour * 60 + minute for hour in hours for minute in minutes)
    within = max((later - earlier for earlier, later in itertools.pairwise(times)), default=0)
    between = [(later - day) * 1440 - times[-1] + times[0] for day, later in itertools.pairwise(matching)]
    return max(within, *between) * 60.0 if between else None
