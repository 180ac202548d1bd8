"""Parts of objects that no client may change, and what counts as a change."""

from __future__ import annotations

import json
from typing import Any

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
CRD = "CustomResourceDefinition.apiextensions.k8s.io"


def kubectl(before: Object, manager: str) -> str:
    """The manager whose fields ``kubectl apply --server-side`` may take from what kubectl applied on its own before."""
    annotations = before["metadata"].get("annotations") or {}
    return "kubectl-client-side-apply" if manager == "kubectl" and LAST_APPLIED in annotations else ""


def last_applied(config: Object) -> str:
    return json.dumps(config, separators=(",", ":"), sort_keys=True) + "\n"


def keep(config: Object, kind: Kind, sub: str) -> None:
    """Leaves in ``config`` only what the subresource may set."""
    if sub == "status":
        for key in [k for k in config if k not in ("apiVersion", "kind", "metadata", "status")]:
            del config[key]
        config["metadata"] = {k: v for k, v in config["metadata"].items() if k in ("name", "namespace")}
    elif kind.status:
        config.pop("status", None)


def hold(kind: Kind, meta: Object, policy: str) -> None:
    """Adds the finalizers that a deletion brings with it."""
    extra = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy)
    wanted = [*meta.get("finalizers", ()), *filter(None, (extra, CLEANUP if kind.bucket == CRD else ""))]
    if wanted:
        meta["finalizers"] = list(dict.fromkeys(wanted))


def inherit(before: Object, new: Object) -> None:
    """What no client may change."""
    old, meta = before["metadata"], new["metadata"]
    for key in ("uid", "creationTimestamp", "generation", "name", "namespace", "resourceVersion",
                "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"):  # fmt: skip
        if key in old:
            meta[key] = old[key]
        else:
            meta.pop(key, None)


def with_managers(before: Object, raw: Any) -> Object:
    """``before``, with the managers that a client sent where it reset them (``managedFields: [{}]``)."""
    if isinstance(raw, list) and raw != before["metadata"].get("managedFields"):
        return {**before, "metadata": {**before["metadata"], "managedFields": [r for r in raw if r]}}
    return before


def essence(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status", "apiVersion")}


def same(before: Object, new: Object) -> bool:
    """Equal but for versions and the times in managedFields."""

    def bare(obj: Object) -> Object:
        meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
        managed = [{k: v for k, v in m.items() if k != "time"} for m in obj["metadata"].get("managedFields", [])]
        return {**obj, "metadata": {**meta, "managedFields": managed}, "apiVersion": ""}

    return bare(before) == bare(new)
