"""Every Stage 1 component of the mission: in Git at the operator's commit, applied by Flux, and healthy."""

from __future__ import annotations

import functools

from funoffshore import health, stage1
from funoffshore.checks.base import (
    HELM_RELEASE,
    KUSTOMIZATION,
    Answer,
    Check,
    Object,
    Sight,
    failed,
    passed,
    unknown,
)
from funoffshore.checks.wanted import wanted
from funoffshore.config import ClusterConfig
from funoffshore.reading import Absent, Present, Reading, Unreadable


def checks(config: ClusterConfig) -> tuple[Check, ...]:
    """One check for each component that is switched on."""
    return tuple(
        Check(f"FO-CMP-{c.id}", f"{c.title} to be in Git and healthy", functools.partial(_component, c))
        for c in wanted(config)
    )


def _component(component: stage1.Component, sight: Sight) -> Answer:
    match sight.files():
        case Unreadable(why):
            return unknown(why)
        case Present(files) if any(path.startswith(component.path.rstrip("/") + "/") for path in files):
            pass
        case _:
            return failed(f"{component.path} is not in the repository's commit", fix="git add and commit it")
    needed = [(KUSTOMIZATION, "flux-system", component.kustomization)]
    needed += [(HELM_RELEASE, component.namespace, name) for name in component.releases]
    needed += [(f"apps/v1/{kind}", component.namespace, name) for kind, name in component.workloads]
    for kind, namespace, name in needed:
        answer = _ready(sight.list(kind), kind, namespace, name)
        if answer is not None:
            return answer
    return passed(f"in Git below {component.path}, and {len(needed)} objects of it are healthy")


def _ready(reading: Reading[list[Object]], kind: str, namespace: str, name: str) -> Answer | None:
    thing = f"{kind.rsplit('/', 1)[1]} {namespace}/{name}"
    match reading:
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return failed(f"{thing} is missing: the cluster does not know its kind")
        case Present(objects):
            pass
    found = [o for o in objects if o["metadata"]["name"] == name and o["metadata"].get("namespace") == namespace]
    if not found:
        return failed(f"{thing} is missing", fix="wait for Flux, or fo bootstrap")
    state = health.assess(found[0])
    if state.state is health.State.READY:
        return None
    if state.state is health.State.UNKNOWN:
        return unknown(f"{thing} does not say how it is")
    return failed(f"{thing} is not ready", f"{thing}: {state.state.value}: {state.reason} {state.message}".strip())
