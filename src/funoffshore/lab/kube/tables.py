"""Lists as kubectl prints them: meta.k8s.io/v1 Table with the columns that people look for."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind

Column = tuple[str, Callable[[Object], Any]]


def wanted(headers: dict[str, str]) -> bool:
    """Whether the client's first choice is a Table."""
    first = headers.get("accept", "").split(",")[0]
    return "as=Table" in first and "json" in first and "v=v1;" in first + ";"


def table(kind: Kind, items: list[Object], meta: Object, now: float) -> Object:
    """``now`` is Unix time, for the column AGE."""
    columns = [*_COLUMNS.get(kind.bucket, [_STATE] if kind.crd else [])]
    definitions = [_definition("Name", "name"), *(_definition(title) for title, _ in columns), _definition("Age")]
    rows = []
    for item in items:
        cells = [item["metadata"]["name"], *(read(item) for _, read in columns), _age(item, now)]
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
        rows.append({"cells": cells, "object": partial})
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": definitions,
            "rows": rows}  # fmt: skip


def _definition(title: str, format_: str = "") -> Object:
    return {"name": title, "type": "string", "format": format_, "description": title, "priority": 0}


def _age(item: Object, now: float) -> str:
    try:
        born = datetime.datetime.fromisoformat(item["metadata"]["creationTimestamp"]).timestamp()
    except (KeyError, ValueError):
        return "<unknown>"
    seconds = max(int(now - born), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _status(item: Object, key: str, default: Any = 0) -> Any:
    return (item.get("status") or {}).get(key, default)


def _condition(item: Object, type_: str, key: str) -> str:
    for condition in _status(item, "conditions", None) or []:
        if condition.get("type") == type_:
            return str(condition.get(key, ""))
    return ""


def _replicas(item: Object) -> str:
    return f"{_status(item, 'readyReplicas')}/{(item.get('spec') or {}).get('replicas', 1)}"


def _pod_ready(item: Object) -> str:
    shown = _status(item, "containerStatuses", None) or []
    return f"{sum(bool(c.get('ready')) for c in shown)}/{len((item.get('spec') or {}).get('containers') or [])}"


def _pod_status(item: Object) -> str:
    for container in _status(item, "containerStatuses", None) or []:
        for state in (container.get("state") or {}).values():
            if isinstance(state, dict) and state.get("reason"):
                return str(state["reason"])
    return str(_status(item, "phase", "Pending"))


def _restarts(item: Object) -> int:
    return sum(int(c.get("restartCount", 0)) for c in _status(item, "containerStatuses", None) or [])


def _roles(item: Object) -> str:
    mark = "node-role.kubernetes.io/"
    roles = [k.removeprefix(mark) for k in item["metadata"].get("labels", {}) if k.startswith(mark)]
    return ",".join(sorted(roles)) or "<none>"


def _node_status(item: Object) -> str:
    state = "Ready" if _condition(item, "Ready", "status") == "True" else "NotReady"
    return state + (",SchedulingDisabled" if (item.get("spec") or {}).get("unschedulable") else "")


_STATE: Column = ("Ready", lambda o: _condition(o, "Ready", "status"))
_COLUMNS: dict[str, list[Column]] = {
    "Pod": [("Ready", _pod_ready), ("Status", _pod_status), ("Restarts", _restarts),
            ("Node", lambda o: (o.get("spec") or {}).get("nodeName", "<none>"))],
    "Node": [("Status", _node_status), ("Roles", _roles),
             ("Version", lambda o: (_status(o, "nodeInfo", None) or {}).get("kubeletVersion", ""))],
    "Namespace": [("Status", lambda o: _status(o, "phase", ""))],
    "Deployment.apps": [("Ready", _replicas), ("Up-to-date", lambda o: _status(o, "updatedReplicas")),
                        ("Available", lambda o: _status(o, "availableReplicas"))],
    "StatefulSet.apps": [("Ready", _replicas)],
    "ReplicaSet.apps": [("Ready", _replicas)],
    "DaemonSet.apps": [("Desired", lambda o: _status(o, "desiredNumberScheduled")),
                       ("Ready", lambda o: _status(o, "numberReady"))],
    "Service": [("Type", lambda o: (o.get("spec") or {}).get("type", "")),
                ("Cluster-IP", lambda o: (o.get("spec") or {}).get("clusterIP", ""))],
    "PersistentVolumeClaim": [("Status", lambda o: _status(o, "phase", "")),
                              ("Volume", lambda o: (o.get("spec") or {}).get("volumeName", ""))],
    "Secret": [("Type", lambda o: o.get("type", "")), ("Data", lambda o: len(o.get("data") or {}))],
    "ConfigMap": [("Data", lambda o: len(o.get("data") or {}))],
    "Job.batch": [("Completions", lambda o: _status(o, "succeeded"))],
}  # fmt: skip
