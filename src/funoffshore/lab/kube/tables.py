"""Lists as kubectl prints them: meta.k8s.io/v1 Table."""

from __future__ import annotations

import datetime
from typing import Any

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.columns import Column, custom, of
from funoffshore.lab.kube.kinds import Kind


def wanted(headers: dict[str, str]) -> bool:
    """Whether the client's first choice is a Table."""
    first = headers.get("accept", "").split(",")[0]
    return "as=Table" in first and "json" in first and "v=v1;" in first + ";"


def table(
    kind: Kind, items: list[Object], meta: Object, now: float, include: str = "", *, bare: bool = False
) -> Object:
    """``now`` is Unix time, for ages. ``include`` is None, Metadata or Object: what each row carries of its object.
    ``bare``: without column definitions, as watches have it after their first event."""
    columns = custom(kind.columns) if kind.crd else of(kind.bucket)
    name = Column("Name", lambda o, _: o["metadata"]["name"], format="name")
    shown = columns if any(c.title == "Name" for c in columns) else [name, *columns]
    rows = []
    for item in items:
        row: Object = {"cells": [_cell(column, item, now) for column in shown]}
        if include == "Object":
            row["object"] = item
        elif include != "None":
            partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            row["object"] = {**partial, "metadata": item["metadata"]}
        rows.append(row)
    definitions = None if bare else [_definition(column) for column in shown]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": definitions,
            "rows": rows}  # fmt: skip


def _definition(column: Column) -> Object:
    return {"name": column.title, "type": column.type, "format": column.format, "description": column.title,
            "priority": int(column.wide)}  # fmt: skip


def _cell(column: Column, item: Object, now: float) -> Any:
    value = column.read(item, now)
    if column.age:
        return age(value, now)
    return value


def age(stamp: Any, now: float) -> str:
    """``85s``, ``3m21s``, ``5h``: the time since ``stamp``, as Kubernetes rounds it."""
    try:
        seconds = int(now - datetime.datetime.fromisoformat(str(stamp)).timestamp())
    except ValueError:
        return "<unknown>"
    return "<invalid>" if seconds < -1 else duration(max(seconds, 0))


def duration(seconds: int) -> str:
    """As k8s.io/apimachinery's HumanDuration."""
    minutes, hours = seconds // 60, seconds // 3600
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    days = hours // 24
    return f"{days}d" if days < 730 else _two(days // 365, "y", days % 365 if days < 365 * 8 else 0, "d")


def _two(whole: int, unit: str, rest: int, rest_unit: str) -> str:
    return f"{whole}{unit}{rest}{rest_unit}" if rest else f"{whole}{unit}"
