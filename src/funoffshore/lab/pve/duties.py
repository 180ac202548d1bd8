"""What the hypervisors do without being asked, begun when they are switched on."""

from __future__ import annotations

from funoffshore.lab.pve import availability, jobs, manager
from funoffshore.lab.pve.calls import House


def begin(house: House) -> None:
    """The HA managers look after their machines, and backup jobs run when they are due."""
    house.timers.register("ha", lambda: manager.look(house))
    if house.shelf(availability.RESOURCES).all():
        availability.wake(house)
    house.timers.register("jobs", lambda: jobs.run_due(house))
    jobs.arm(house)
