"""Backup jobs: kept, shown, and run when their time has come, on every node that has something to back up.

Facts from pve-manager ``PVE/API2/Backup.pm``, ``PVE/Jobs.pm``; recorded from a real 8.4 API. Schedules are in UTC here.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve import vzdump
from funoffshore.lab.pve.access import Caller
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.refusal import die, invalid_fields
from funoffshore.pveapi import calendar

JOBS = "job"


def _schedule(body: dict[str, Any]) -> str:
    return str(body.get("schedule") or f"{body.get('dow', '')} {body.get('starttime', '00:00')}".strip())


def _next_run(body: dict[str, Any], after: float) -> float:
    return calendar.parse(_schedule(body)).after(datetime.fromtimestamp(after, UTC)).timestamp()


def _shown(name: str, body: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in body.items() if key != "last"}
    return {**kept, "id": name, "type": "vzdump"}


def jobs(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/backup."""
    found = []
    for name, body in call.house.shelf(JOBS).all().items():
        due = {"next-run": int(_next_run(body, call.house.kit.clock.now()))} if body.get("enabled", 1) else {}
        found.append({**_shown(name, body), **due})
    return found


def job(call: Call) -> dict[str, Any]:
    """GET /cluster/backup/{id}."""
    found = call.house.shelf(JOBS).get(call.text("id"))
    if found is None:
        raise invalid_fields({"id": f"No such job '{call.text('id')}'"})
    return _shown(call.text("id"), found)


def add(call: Call) -> None:
    """POST /cluster/backup."""
    vzdump.check(call, job=True)
    if not {"schedule", "starttime"} & set(call.values):
        raise invalid_fields({"schedule": "neither 'starttime' nor 'schedule' were set"})
    if not {"vmid", "pool", "all", "exclude"} & set(call.values):
        raise invalid_fields({"vmid": "property is missing"})
    _check_pool(call)
    name = call.text("id") or f"backup-{secrets.token_hex(4)}-{secrets.token_hex(2)}"
    shelf = call.house.shelf(JOBS)
    with shelf.guard:
        if shelf.get(name) is not None:
            raise die(f"Job '{name}' already exists")
        body = vzdump.options_of(call, frozenset(("id",)))
        shelf.put(name, {"enabled": 1, **body, "schedule": _schedule(body), "last": call.house.kit.clock.now()})
    arm(call.house)


def _check_pool(call: Call) -> None:
    pool = call.text("pool")
    if pool and pool not in call.house.machines.pools:
        raise invalid_fields({"pool": f"pool '{pool}' does not exist"})


def change(call: Call) -> None:
    """PUT /cluster/backup/{id}. Choosing machines another way drops the way chosen before."""
    vzdump.check(call, job=True)
    _check_pool(call)
    shelf, name = call.house.shelf(JOBS), call.text("id")
    with shelf.guard:
        found = shelf.get(name)
        if found is None:
            raise invalid_fields({"id": f"No such job '{name}'"})
        for option in pveapi.split_list(call.text("delete")):
            found.pop(option, None)
        ways = {"vmid", "pool", "all"} & set(call.values)
        kept = {key: value for key, value in found.items() if not ways or key not in ("vmid", "pool", "all")}
        fresh = vzdump.options_of(call, frozenset(("id", "delete")))
        shelf.put(name, {**kept, **fresh, "last": call.house.kit.clock.now()})
    arm(call.house)


def delete(call: Call) -> None:
    """DELETE /cluster/backup/{id}; of a missing one with an error inside an error, as on the real one."""
    if not call.house.shelf(JOBS).delete(call.text("id")):
        raise die(f"400 Parameter verification failed.\nid: No such job '{call.text('id')}'")


def forget(house: House, vmid: int) -> None:
    """Takes a machine out of all jobs; one that backed up only this machine goes."""
    shelf = house.shelf(JOBS)
    with shelf.guard:
        for name, body in shelf.all().items():
            for option in ("vmid", "exclude"):
                before = pveapi.split_list(str(body.get(option, "")))
                left = [part for part in before if part != str(vmid)]
                if left == before:
                    continue
                if not left and option == "vmid":
                    shelf.delete(name)
                    break
                body[option] = ",".join(left)
                shelf.put(name, body)


def arm(house: House) -> None:
    """The scheduler will look when the next job is due."""
    now = house.kit.clock.now()
    due = [_next_run(body, now) for body in house.shelf(JOBS).all().values() if body.get("enabled", 1)]
    if due:
        house.timers.wake("jobs", min(due) - now)


def run_due(house: House) -> None:
    """Runs every job whose time has come since it last ran."""
    now = house.kit.clock.now()
    shelf = house.shelf(JOBS)
    for name, body in shelf.all().items():
        if body.get("enabled", 1) and _next_run(body, body.get("last", now)) <= now:
            with shelf.guard:
                if (kept := shelf.get(name)) is not None:
                    shelf.put(name, {**kept, "last": now})
            _run(house, body)
    arm(house)


def _run(house: House, body: dict[str, Any]) -> None:
    for node in house.nodes:
        if house.cluster.online(node) and body.get("node") in (None, node):
            vzdump.start(house, node, body, Caller("root@pam"))
