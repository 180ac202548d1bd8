"""Conditions, durations and times as Flux's controllers write them."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from typing import Any

from funoffshore.lab.kube.api import Object

_ORDER = ("Stalled", "Reconciling", "Ready", "Released", "FetchFailed", "Healthy", "ArtifactInStorage")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
REQUESTED = "reconcile.fluxcd.io/requestedAt"


def stamp(seconds: float) -> str:
    """Unix time as Kubernetes writes it."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find(obj: Object, kind: str) -> Object | None:
    """The condition of type ``kind``."""
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition.get("type") == kind:
            return dict(condition)
    return None


def is_true(obj: Object, kind: str = "Ready") -> bool:
    condition = find(obj, kind)
    return condition is not None and condition.get("status") == "True"


class Status:
    """A copy of an object's status that is being changed."""

    def __init__(self, obj: Object, now: float) -> None:
        self.fields: Object = dict(obj.get("status") or {})
        self._generation = obj["metadata"].get("generation", 1)
        self._now = stamp(now)
        self._conditions: dict[str, Object] = {c["type"]: c for c in self.fields.get("conditions") or []}

    def set(self, kind: str, status: str, reason: str, message: str) -> None:
        """A condition of the object's present generation; its time moves only when ``status`` changes."""
        old = self._conditions.get(kind, {})
        moved = old.get("status") != status
        self._conditions[kind] = {
            "lastTransitionTime": self._now if moved else old["lastTransitionTime"],
            "message": message,
            "observedGeneration": self._generation,
            "reason": reason,
            "status": status,
            "type": kind,
        }

    def drop(self, *kinds: str) -> None:
        for kind in kinds:
            self._conditions.pop(kind, None)

    def observed(self) -> None:
        self.fields["observedGeneration"] = self._generation

    def handled(self, obj: Object) -> None:
        """Answers ``reconcile.fluxcd.io/requestedAt``."""
        requested = (obj["metadata"].get("annotations") or {}).get(REQUESTED)
        if requested:
            self.fields["lastHandledReconcileAt"] = requested

    def done(self) -> Object:
        """The new status."""
        if not self._conditions:
            return {k: v for k, v in self.fields.items() if k != "conditions"}
        names = sorted(self._conditions, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))
        return self.fields | {"conditions": [self._conditions[n] for n in names]}


def seconds(text: Any, default: float) -> float:
    """``1m30s`` as seconds; ``default`` for nothing."""
    found = re.findall(r"([0-9.]+)(ms|s|m|h)", str(text or ""))
    return sum(float(n) * _UNITS[unit] for n, unit in found) if found else default


def go_duration(value: float) -> str:
    """Seconds as Go prints a time.Duration: ``33.75ms``, ``30s``, ``10m0s``, ``1h0m0s``."""
    if value < 1:
        return f"{max(value, 0) * 1000:.6f}".rstrip("0").rstrip(".") + "ms"
    whole, rest = divmod(value, 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(int(whole), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if whole else "") + text


def digest(value: Any) -> str:
    """``sha256:…`` of some JSON value or bytes; the same for the same value, for ever."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
