"""Whether an object is as it should be, by the rules of kstatus (sigs.k8s.io/cli-utils ``pkg/kstatus``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from funoffshore.lab.flux import conditions
from funoffshore.lab.kube.api import Object

CURRENT = "Current"
IN_PROGRESS = "InProgress"
FAILED = "Failed"
TERMINATING = "Terminating"
NOT_FOUND = "NotFound"


def status(obj: Object | None) -> str:
    """One of the words above."""
    if obj is None:
        return NOT_FOUND
    metadata, state = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return TERMINATING
    observed = state.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation", observed):
        return IN_PROGRESS
    if conditions.is_true(obj, "Reconciling"):
        return IN_PROGRESS
    if conditions.is_true(obj, "Stalled"):
        return FAILED
    rule = _RULES.get(obj["kind"])
    if rule:
        return rule(obj, obj.get("spec") or {}, state)
    ready = conditions.find(obj, "Ready")
    return CURRENT if ready is None or ready.get("status") == "True" else IN_PROGRESS


def by_expression(obj: Object | None, rules: list[Object]) -> str:
    """Status by ``healthCheckExprs``, of which the one common form is understood: conditions filtered by type."""
    if obj is None:
        return NOT_FOUND
    for rule in rules:
        if (rule.get("apiVersion"), rule.get("kind")) != (obj["apiVersion"], obj["kind"]):
            continue
        if _holds(obj, rule.get("failed")):
            return FAILED
        if _holds(obj, rule.get("inProgress")):
            return IN_PROGRESS
        return CURRENT if _holds(obj, rule.get("current")) else IN_PROGRESS
    return status(obj)


def _holds(obj: Object, expression: Any) -> bool:
    form = r"status\.conditions\.filter\(\w+, \w+\.type == '(\w+)'\)\.(?:all|exists)\(\w+, \w+\.status == '(\w+)'"
    found = re.findall(form, str(expression or ""))
    return bool(found) and all((conditions.find(obj, kind) or {}).get("status") == wanted for kind, wanted in found)


def _deployment(obj: Object, spec: Object, state: Object) -> str:
    progressing = conditions.find(obj, "Progressing")
    if progressing and progressing.get("reason") == "ProgressDeadlineExceeded":
        return FAILED
    if state.get("observedGeneration") is None:
        return IN_PROGRESS
    wanted = spec.get("replicas", 1)
    counts = [state.get(n, 0) for n in ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")]
    return CURRENT if counts == [wanted] * 4 and (not wanted or conditions.is_true(obj, "Available")) else IN_PROGRESS


def _stateful_set(obj: Object, spec: Object, state: Object) -> str:
    wanted = spec.get("replicas", 1)
    ready = state.get("readyReplicas", 0) == wanted and state.get("replicas", 0) == wanted
    same = state.get("currentRevision") == state.get("updateRevision")
    return CURRENT if ready and same and state.get("observedGeneration") is not None else IN_PROGRESS


def _daemon_set(obj: Object, spec: Object, state: Object) -> str:
    if state.get("observedGeneration") is None:
        return IN_PROGRESS
    wanted = state.get("desiredNumberScheduled", 0)
    counts = [state.get(n, 0) for n in ("updatedNumberScheduled", "numberAvailable", "numberReady")]
    return CURRENT if counts == [wanted] * 3 else IN_PROGRESS


def _job(obj: Object, spec: Object, state: Object) -> str:
    if conditions.is_true(obj, "Failed"):
        return FAILED
    return CURRENT if conditions.is_true(obj, "Complete") else IN_PROGRESS


def _claim(obj: Object, spec: Object, state: Object) -> str:
    return CURRENT if state.get("phase") == "Bound" else IN_PROGRESS


def _pod(obj: Object, spec: Object, state: Object) -> str:
    if state.get("phase") in ("Succeeded", "Failed"):
        return CURRENT
    return CURRENT if conditions.is_true(obj, "Ready") else IN_PROGRESS


def _definition(obj: Object, spec: Object, state: Object) -> str:
    return CURRENT if conditions.is_true(obj, "Established") else IN_PROGRESS


def _always(obj: Object, spec: Object, state: Object) -> str:
    return CURRENT


_RULES: dict[str, Callable[[Object, Object, Object], str]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "PersistentVolumeClaim": _claim,
    "Pod": _pod,
    "CustomResourceDefinition": _definition,
    "Service": _always,
}
