"""Why something that Flux applies does not get ready: the root cause first. Pure."""

from __future__ import annotations

from collections.abc import Callable

from funoffshore import health
from funoffshore.reading import Present, Reading
from funoffshore.stages.flux.facts import GIT_REPOSITORY, KUSTOMIZATION, Object

ROOTS_FIRST = (
    "v1/Node", GIT_REPOSITORY, "source.toolkit.fluxcd.io/v1/OCIRepository",
    "source.toolkit.fluxcd.io/v1/HelmRepository", "v1/PersistentVolumeClaim", "v1/Pod", "apps/v1/Deployment",
    "apps/v1/StatefulSet", "apps/v1/DaemonSet", "helm.toolkit.fluxcd.io/v2/HelmRelease", KUSTOMIZATION,
)  # fmt: skip
"""What others wait for comes first: a Pod's trouble explains its Deployment's, its release's, its Kustomization's."""
PASSING = ("Unhealthy", "NodeNotReady")
"""Reasons of Events that tell less than the object's own state."""


def evidence(look: Callable[[str], Reading[list[Object]]], limit: int = 12) -> tuple[str, ...]:
    """A line for everything that is not well, roots first; what cannot be looked at is left out."""
    lines: list[str] = []
    told = warnings(look)
    for kind in ROOTS_FIRST:
        seen = look(kind)
        for obj in seen.value if isinstance(seen, Present) else ():
            state = health.assess(obj)
            waiting = "dependency" in state.message.lower() or state.reason == "DependencyNotReady"
            if state.state in (health.State.FAILED, health.State.PROGRESSING) and not waiting:
                meta = obj["metadata"]
                where = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
                said = told.get((kind.rsplit("/", 1)[1], where), f"{state.reason} {state.message}".strip())
                lines.append(f"{kind.rsplit('/', 1)[1]} {where}: {said}")
    return tuple(lines[:limit])


def warnings(look: Callable[[str], Reading[list[Object]]]) -> dict[tuple[str, str], str]:
    """What the cluster last warned of a Pod or a claim, by kind and ``namespace/name``: a Pod that does not start says
    only that it is not ready, and the kubelet's Event says why (no network, no image, no volume)."""
    seen = look("v1/Event")
    latest: dict[tuple[str, str], tuple[str, str]] = {}
    for event in seen.value if isinstance(seen, Present) else ():
        of = event.get("involvedObject") or {}
        if event.get("type") != "Warning" or of.get("kind") not in ("Pod", "PersistentVolumeClaim"):
            continue
        if event.get("reason") in PASSING:
            continue
        when = str(event.get("lastTimestamp") or event.get("eventTime") or "")
        said = f"{event.get('reason', '')} {str(event.get('message', ''))[:300]}".strip()
        key = (str(of["kind"]), f"{of.get('namespace')}/{of.get('name')}")
        latest[key] = max(latest.get(key, ("", "")), (when, said))
    return {key: said for key, (_, said) in latest.items()}
