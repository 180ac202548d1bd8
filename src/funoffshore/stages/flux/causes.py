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


def evidence(look: Callable[[str], Reading[list[Object]]], limit: int = 12) -> tuple[str, ...]:
    """A line for everything that is not well, roots first; what cannot be looked at is left out."""
    lines: list[str] = []
    for kind in ROOTS_FIRST:
        seen = look(kind)
        for obj in seen.value if isinstance(seen, Present) else ():
            state = health.assess(obj)
            waiting = "dependency" in state.message.lower() or state.reason == "DependencyNotReady"
            if state.state in (health.State.FAILED, health.State.PROGRESSING) and not waiting:
                meta = obj["metadata"]
                where = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
                lines.append(f"{kind.rsplit('/', 1)[1]} {where}: {state.reason} {state.message}".strip())
    return tuple(lines[:limit])
