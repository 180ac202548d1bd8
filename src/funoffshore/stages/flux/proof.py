"""Whether Flux runs a commit: its source has it, and every Kustomization has applied it and is ready. Pure."""

from __future__ import annotations

from funoffshore.health import Health, State, assess
from funoffshore.stages.flux.facts import Object


def commit_of(revision: object) -> str:
    """``main@sha1:<commit>`` without what stands before the commit."""
    return str(revision or "").rpartition(":")[2]


def source_lacks(source: Object, commit: str) -> str:
    """What keeps the source from having ``commit``, in words; empty when it has it."""
    health = assess(source)
    if health.state is not State.READY:
        return says(health)
    seen = commit_of(((source.get("status") or {}).get("artifact") or {}).get("revision"))
    return "" if seen == commit else f"it has {short(seen)}, the branch is at {short(commit)}"


def kustomization_lacks(kustomization: Object, commit: str) -> str:
    """What keeps a Kustomization from running ``commit``, in words; empty when it runs it.

    Ready must be said of the present generation, and of this commit: Flux leaves Ready=True beside an old revision
    while its source fails.
    """
    health = assess(kustomization)
    if health.state is not State.READY:
        return says(health)
    applied = commit_of((kustomization.get("status") or {}).get("lastAppliedRevision"))
    return "" if applied == commit else f"it has applied {short(applied)}, the branch is at {short(commit)}"


def says(health: Health) -> str:
    """One line about something that is not ready."""
    message = " ".join(health.message.split())
    text = f"{health.reason}: {message}" if message and health.reason else message or health.reason
    return _cut(text or health.state.value)


def _cut(text: str, length: int = 300) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def short(commit: str) -> str:
    return commit[:12] or "nothing"
