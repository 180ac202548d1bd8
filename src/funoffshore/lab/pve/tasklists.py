"""Tasks looked at and stopped. Facts from pve-manager ``PVE/API2/Tasks.pm``; recorded from a real 8.4 API."""

from __future__ import annotations

from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.refusal import invalid
from funoffshore.lab.pve.tasks import LOST, Task

_PAGE = 50
_CLUSTER_PAGE = 25
"""How many tasks a node tells the others of."""


def listed(call: Call) -> list[dict[str, Any]]:
    """GET …/tasks: with ``source`` active or all those that run, then (archive, all) those that ended; newest first."""
    source = call.text("source", "archive")
    everybody = call.may(f"/nodes/{call.node}", "Sys.Audit")
    rows = []
    for task in call.house.tasks.all():
        running = task.exit is None
        if task.node != call.node or (source != "all" and (source == "active") != running):
            continue
        if (everybody or task.token_id == call.caller.token_id) and _fits(call, task):
            rows.append(_active(task) if running else _archived(task))
    rows.sort(key=lambda row: "endtime" in row)
    start, limit = call.number("start"), call.number("limit", _PAGE)
    page = rows[start : start + limit] if limit else rows[start:]
    if page:
        call.extra["total"] = len(rows)
    return page


def cluster(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/tasks: the last ones of every node that is up.

    Without Sys.Audit a token sees none, not even its own.
    """
    if not call.may("/", "Sys.Audit"):
        return []
    rows: list[dict[str, Any]] = []
    for node in call.house.nodes:
        if call.house.cluster.online(node):
            rows += [_told(task) for task in call.house.tasks.all() if task.node == node][:_CLUSTER_PAGE]
    return sorted(rows, key=lambda row: int(row["starttime"]), reverse=True)


def _told(task: Task) -> dict[str, Any]:
    """As the nodes tell one another."""
    row = {key: value for key, value in task.row().items() if key not in ("pid", "pstart")}
    ended = {} if task.exit is None else {"status": task.exit, "endtime": task.endtime}
    return {**row, **ended, "saved": "0" if task.exit is None else "1"}


def _active(task: Task) -> dict[str, Any]:
    row = task.row()
    row.pop("tokenid", None)
    return {**row, "user": task.token_id, "status": "RUNNING", "saved": "0"}


def _archived(task: Task) -> dict[str, Any]:
    return {**task.row(), "status": task.exit, "endtime": task.endtime}


def _fits(call: Call, task: Task) -> bool:
    kinds = pveapi.split_list(call.text("statusfilter"))
    return not (
        ("vmid" in call.values and task.id != call.text("vmid"))
        or (call.text("typefilter") and task.type != call.text("typefilter"))
        or ("since" in call.values and task.starttime < call.number("since"))
        or ("until" in call.values and task.starttime > call.number("until"))
        or (call.text("userfilter") and call.text("userfilter") not in task.token_id)
        or (call.flag("errors") and _kind(task) in ("ok", "warning"))
        or (kinds and _kind(task) not in kinds)
    )


def _kind(task: Task) -> str:
    if task.exit in (None, LOST):
        return "unknown"
    if task.exit == "OK":
        return "ok"
    return "warning" if str(task.exit).startswith("WARNINGS: ") else "error"


def _find(call: Call, privilege: str) -> Task:
    try:
        task = call.house.tasks.find(call.text("upid"))
    except ValueError:
        raise invalid(upid="unable to parse worker upid") from None
    if task is None:
        raise invalid(upid="no such task")
    if task.token_id != call.caller.token_id:
        call.need(f"/nodes/{call.node}", privilege)
    return task


def status(call: Call) -> dict[str, Any]:
    """GET …/status."""
    return _find(call, "Sys.Audit").status()


def log(call: Call) -> list[dict[str, Any]]:
    """GET …/log: 50 lines unless asked otherwise; one line "no content" while there is none."""
    lines = _find(call, "Sys.Audit").lines
    rows = [{"n": number, "t": text} for number, text in enumerate(list(lines), 1)] or [{"n": 1, "t": "no content"}]
    start, limit = call.number("start"), call.number("limit", _PAGE)
    call.extra["total"] = len(rows)
    return rows[start : start + limit] if limit else rows[start:]


def stop(call: Call) -> None:
    """DELETE …/tasks/{upid}: interrupts it; one that is over stays as it is."""
    _find(call, "Sys.Modify").stop()
