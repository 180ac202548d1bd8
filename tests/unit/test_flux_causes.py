"""Evidence of what is not well: the Event that says why comes in place of "not ready"."""

from __future__ import annotations

from typing import Any

from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.flux import causes

POD: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "flux-system", "name": "a"},
    "status": {
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "unready"}],
    },
}  # fmt: skip


def event(message: str, *, when: str, kind: str = "Warning", reason: str = "FailedCreatePodSandBox") -> dict[str, Any]:
    """As the kubelet writes it, recorded from a real one."""
    return {
        "apiVersion": "v1", "kind": "Event", "type": kind, "reason": reason, "message": message, "lastTimestamp": when,
        "metadata": {"namespace": "flux-system", "name": "a.1"},
        "involvedObject": {"kind": "Pod", "namespace": "flux-system", "name": "a"},
    }  # fmt: skip


def told(*events: dict[str, Any]) -> tuple[str, ...]:
    def look(kind: str) -> Reading[list[dict[str, Any]]]:
        return {"v1/Pod": Present([POD]), "v1/Event": Present(list(events))}.get(kind, Absent())

    return causes.evidence(look)


def test_the_latest_warning_of_a_pod_tells_why_it_does_not_start() -> None:
    [line] = told(
        event("no route", when="2026-11-24T10:49:32Z"),
        event("file exists", when="2026-11-24T10:49:40Z"),
        event("pulled", when="2026-11-24T10:49:50Z", kind="Normal", reason="Pulled"),
        event("probe failed", when="2026-11-24T10:49:55Z", reason="Unhealthy"),
    )
    assert line == "Pod flux-system/a: FailedCreatePodSandBox file exists"


def test_without_events_the_pods_own_state_is_told() -> None:
    [line] = told()
    assert line.startswith("Pod flux-system/a: ")
    assert "unready" in line


def test_unreadable_events_hide_nothing() -> None:
    def look(kind: str) -> Reading[list[dict[str, Any]]]:
        return Present([POD]) if kind == "v1/Pod" else Unreadable("refused")

    assert len(causes.evidence(look)) == 1


def test_events_without_a_time_or_an_object_do_no_harm() -> None:
    bare = {"type": "Warning", "reason": "FailedScheduling", "involvedObject": {"kind": "Pod"}}
    assert told(bare)
