"""What a HelmRelease's status remembers: history, attempts, failures, and when to try again."""

from __future__ import annotations

from typing import Any

from funoffshore.lab.flux import conditions
from funoffshore.lab.flux.chart_objects import Release
from funoffshore.lab.kube.api import Object

_KEPT = 5


def is_deployed(obj: Object, version: str, config: str) -> bool:
    """Whether the newest release is this chart with these values, and ended well."""
    history = (obj.get("status") or {}).get("history") or []
    newest = history[0] if history else {}
    return (newest.get("chartVersion"), newest.get("configDigest"), newest.get("status")) == (
        version,
        config,
        "deployed",
    )


def is_stalled(obj: Object, version: str, config: str) -> bool:
    """Whether the controller has given up on this chart with these values."""
    status = obj.get("status") or {}
    stalled = conditions.find(obj, "Stalled")
    if not stalled or stalled["status"] != "True":
        return False
    annotations = obj["metadata"].get("annotations") or {}
    requested = annotations.get(conditions.REQUESTED)
    reset = annotations.get("reconcile.fluxcd.io/resetAt")
    if reset and reset == requested and status.get("lastHandledReconcileAt") != requested:
        return False
    tried = (status.get("lastAttemptedRevision"), status.get("lastAttemptedConfigDigest"))
    same = status.get("lastAttemptedGeneration") == obj["metadata"].get("generation")
    return same and tried == (version, config)


def next_action(obj: Object) -> str:
    """``install`` or ``upgrade``. An install that failed is upgraded, unless its remediation is to uninstall it first,
    which is so when it may be retried."""
    history = (obj.get("status") or {}).get("history") or []
    if not history:
        return "install"
    deployed = any(h.get("status") in ("deployed", "superseded") for h in history)
    retries = int(((obj["spec"].get("install") or {}).get("remediation") or {}).get("retries", 0))
    return "upgrade" if deployed or not retries else "install"


def stalls(obj: Object, action: str) -> bool:
    """Whether the failure that is about to be noted is the last that is allowed."""
    spec = obj["spec"].get(action) or {}
    if (spec.get("strategy") or {}).get("name") == "RetryOnFailure":
        return False
    retries = int((spec.get("remediation") or {}).get("retries", 0))
    failures = int((obj.get("status") or {}).get(f"{action}Failures") or 0) + 1
    return 0 <= retries < failures


def retry_seconds(obj: Object, action: str) -> float:
    strategy = (obj["spec"].get(action) or {}).get("strategy") or {}
    return conditions.seconds(strategy.get("retryInterval"), 300 if strategy else 10)


def count(fields: Object, action: str, failures: int) -> None:
    """Notes failures; none are noted after a success."""
    for name in ("failures", "installFailures", "upgradeFailures"):
        if not failures:
            fields.pop(name, None)
    if failures:
        fields["failures"] = failures
        fields[f"{action}Failures"] = (fields.get(f"{action}Failures") or 0) + 1


def entry(release: Release, action: str, number: int, config: str, now: str, done: bool) -> Object:
    """A line of the history."""
    return {
        "action": action,
        "apiVersion": "v2",
        "appVersion": release.version.partition("+")[0],
        "chartName": release.chart,
        "chartVersion": release.version,
        "configDigest": config,
        "digest": conditions.digest([release.name, release.namespace, number, release.version, config]),
        "firstDeployed": now,
        "lastDeployed": now,
        "name": release.name,
        "namespace": release.namespace,
        "status": "deployed" if done else "failed",
        "version": number,
    } | ({"ociDigest": release.digest} if release.digest else {})


def remember(fields: Object, new: Object, generation: int, took: float) -> None:
    """Puts ``new`` on top of the history; what was deployed before a success is superseded."""
    history: list[Any] = [dict(h) for h in fields.get("history") or []]
    if history:
        new["firstDeployed"] = history[-1]["firstDeployed"]
    if new["status"] == "deployed":
        for number, old in enumerate(history):
            old.pop("action", None)
            old["status"] = "superseded" if number == 0 or old["status"] == "deployed" else old["status"]
    fields["history"] = [new, *history][:_KEPT]
    fields |= {
        "lastAttemptedConfigDigest": new["configDigest"],
        "lastAttemptedGeneration": generation,
        "lastAttemptedReleaseAction": new["action"],
        "lastAttemptedReleaseActionDuration": conditions.go_duration(took),
        "lastAttemptedRevision": new["chartVersion"],
    }
    fields.pop("lastAttemptedRevisionDigest", None)
    if new.get("ociDigest"):
        fields["lastAttemptedRevisionDigest"] = new["ociDigest"]
