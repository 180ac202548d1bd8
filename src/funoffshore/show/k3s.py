"""Snapshots and certificates of K3s, for a human and for programs."""

from __future__ import annotations

from typing import Any

from funoffshore.show import text
from funoffshore.stages.k3s.certificates import Checked
from funoffshore.stages.k3s.restore import Choice, Lost
from funoffshore.stages.k3s.snapshots import Stored

MANY = 40
"""Lines; more are counted."""


def snapshots_json(found: Stored) -> dict[str, Any]:
    """Stable: fields are added, never renamed."""
    rows = [{"name": one.name, "at": one.at or None, "places": dict(one.places)} for one in found.snapshots]
    return {"snapshots": rows, "unread": list(found.unread), "failed": list(found.failed)}


def snapshots(found: Stored) -> None:
    """A line for each snapshot, newest first, with the places where it lies."""
    for one in found.snapshots:
        moment = text.moment(one.at) if one.at else "an unknown time"
        largest = max(one.places.values(), default=0)
        print(f"{moment}  {text.size(largest):>9}  {one.name}  {', '.join(sorted(one.places))}")
    if not found.snapshots:
        print("no snapshot was seen")
    for failure in found.failed:
        print(f"failed: {failure}")


def certificates_json(found: Checked, now: float) -> dict[str, Any]:
    """Stable: fields are added, never renamed. ``until`` is Unix seconds."""
    rows = [
        {"node": one.node, "file": one.file, "subject": one.subject, "uses": one.uses, "until": one.until,
         "days": one.days(now), "valid": one.valid}
        for one in found.certificates
    ]  # fmt: skip
    return {"certificates": rows, "unread": list(found.unread)}


def certificates(found: Checked, now: float) -> None:
    """A line for each certificate, the one that ends first at the top, marked where it needs somebody."""
    marked = set(found.ending(now))
    for one in found.certificates:
        days = one.days(now)
        mark = "" if one not in marked else "  no good" if not one.valid else "  ends soon"
        print(f"{text.moment(one.until)}  {days:>5} days  {one.node}  {one.file}  {one.subject} ({one.uses}){mark}")


def restore(choice: Choice, lost: Lost) -> list[str]:
    """What a restore would do and undo, a sentence or an object a line."""
    when = text.moment(choice.at) if choice.at else "an unknown time"
    lines = [f"the cluster goes back to {when} ({choice.snapshot}); etcd begins anew on {choice.server.name}"]
    if lost.newer:
        lines.append(f"{len(lost.newer)} objects are newer and will be lost:")
        lines += [f"    {name}" for name in lost.newer[:MANY]]
        lines += [f"    … and {len(lost.newer) - MANY} more"] if len(lost.newer) > MANY else []
    elif not lost.unread:
        lines.append("no object is newer")
    lines += [f"what else is newer cannot be told: {why}" for why in lost.unread[:3]]
    return [*lines, "every change and deletion since then is undone, too; volumes and their files stay as they are"]
