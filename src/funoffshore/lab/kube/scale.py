"""The ``scale`` subresource (autoscaling/v1 Scale) of workloads."""

from __future__ import annotations

from funoffshore.lab.kube.api import ApiError, Object


def of(obj: Object) -> Object:
    """The Scale of a workload."""
    meta = {k: v for k, v in obj["metadata"].items() if k in ("name", "namespace", "uid", "resourceVersion",
            "creationTimestamp")}  # fmt: skip
    selector = ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    status = {"replicas": (obj.get("status") or {}).get("replicas", 0),
              "selector": ",".join(f"{k}={v}" for k, v in sorted(selector.items()))}  # fmt: skip
    replicas = (obj.get("spec") or {}).get("replicas", 0)
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
            "spec": {"replicas": replicas} if replicas else {}, "status": status}  # fmt: skip


def put(obj: Object, scale: Object) -> Object:
    """``obj`` with the replicas of ``scale``. Raises ApiError 400."""
    spec = scale.get("spec")
    replicas = (spec or {}).get("replicas", 0) if isinstance(spec, dict) else None
    if isinstance(replicas, bool) or not isinstance(replicas, int) or not 0 <= replicas < 10_000:
        raise ApiError(400, "BadRequest", "spec.replicas must be a number from 0 to 9999")
    return {**obj, "spec": {**(obj.get("spec") or {}), "replicas": replicas}}
