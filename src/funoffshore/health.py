"""How a Kubernetes object is, judged from the object alone.

Rules as in kstatus (sigs.k8s.io/cli-utils), with its gaps closed: a custom resource without conditions is
*unknown*, not fine; a suspended Flux object is *suspended*, though its Ready stays True; what Flux has not looked
at yet is told by ``observedGeneration`` inside the Ready condition, because ``status.observedGeneration`` lags on
failure and is -1 on a new object (seen on Flux 2.9 controllers).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Object = dict[str, Any]


class State(StrEnum):
    """READY and FAILED are final until something changes; PROGRESSING may still become either."""

    READY = "ready"
    PROGRESSING = "progressing"
    FAILED = "failed"
    SUSPENDED = "suspended"
    """Set aside by a human on purpose: ``spec.suspend``, a cordoned node."""
    UNKNOWN = "unknown"
    """The object does not say."""


@dataclass(frozen=True, slots=True)
class Health:
    """A judgement. ``reason`` is one CamelCase word, ``message`` what the object or the rule says, or empty."""

    state: State
    reason: str = ""
    message: str = ""


_TRANSIENT = {
    "DependencyNotReady", "Progressing", "ProgressingWithRetry", "SourceNotReady", "ArtifactFailed",
    "NoSourceArtifact", "Pending", "Initializing", "DoesNotExist", "InProgress",
}  # fmt: skip
"""Reasons of Ready=False that only mean: not yet."""
_HOPELESS = {
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CrashLoopBackOff",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}  # fmt: skip
"""Reasons of a waiting container that do not go away by waiting."""
_FETCH = ("FetchFailed", "ArtifactOutdated", "StorageOperationFailed")
_BUILT_IN_GROUPS = {
    "", "apps", "batch", "policy", "autoscaling", "networking.k8s.io", "rbac.authorization.k8s.io", "storage.k8s.io",
    "scheduling.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "admissionregistration.k8s.io", "node.k8s.io",
}  # fmt: skip


def condition(obj: Object, type_: str) -> Object | None:
    """The condition of that type, wherever it stands in the list."""
    found = _map(obj.get("status")).get("conditions")
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and item.get("type") == type_:
            return item
    return None


def assess(obj: Object, now: float | None = None) -> Health:
    """The health of any object. With ``now`` (Unix seconds), certificates that ran out are failed."""
    meta = _map(obj.get("metadata"))
    if meta.get("deletionTimestamp"):
        waits = ", ".join(map(str, _items(meta.get("finalizers"))))
        return Health(State.PROGRESSING, "Terminating", f"is being deleted, waiting for {waits}" if waits else "")
    group = str(obj.get("apiVersion", "")).rpartition("/")[0]
    name = f"{obj.get('kind')}.{group}" if group else str(obj.get("kind"))
    if name == "Certificate.cert-manager.io":
        return _certificate(obj, now)
    rule = _RULES.get(name)
    if rule:
        return rule(obj)
    if group.endswith(".toolkit.fluxcd.io"):
        return _flux(obj)
    if group in _BUILT_IN_GROUPS:
        return Health(State.READY, "Exists")
    return _custom(obj)


def _map(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(obj: Object, part: str, key: str, default: int = 0) -> int:
    value = _map(obj.get(part)).get(key, default)
    return value if isinstance(value, int) else default


def _says(state: State, found: Object | None, reason: str = "", message: str = "") -> Health:
    source = found or {}
    return Health(state, str(source.get("reason") or reason), str(source.get("message") or message))


def _stale(obj: Object) -> Health | None:
    """PROGRESSING when the controller has not looked at the newest spec, by ``status.observedGeneration``."""
    wanted = _count(obj, "metadata", "generation")
    if _count(obj, "status", "observedGeneration") < wanted:
        return Health(State.PROGRESSING, "NotObserved", f"generation {wanted} has not been looked at yet")
    return None


def _by_ready(obj: Object) -> Health:
    """By the condition Ready alone, at the generation that the condition itself names."""
    found = condition(obj, "Ready")
    if found is None:
        return Health(State.PROGRESSING, "NotReported", "has no condition Ready yet")
    wanted, seen = _count(obj, "metadata", "generation"), found.get("observedGeneration")
    if isinstance(seen, int) and seen < wanted:
        return Health(State.PROGRESSING, "NotObserved", f"generation {wanted} has not been looked at yet")
    if found.get("status") == "True":
        return _says(State.READY, found)
    if found.get("status") == "False" and found.get("reason") not in _TRANSIENT:
        return _says(State.FAILED, found)
    return _says(State.PROGRESSING, found)


# Flux


def _flux(obj: Object) -> Health:
    if _map(obj.get("spec")).get("suspend") is True:
        return Health(State.SUSPENDED, "Suspended", "spec.suspend is true, changes in Git are not applied")
    stalled = condition(obj, "Stalled")
    if stalled and stalled.get("status") == "True" and _current(obj, stalled):
        return _says(State.FAILED, stalled)
    return _by_ready(obj)


def _current(obj: Object, found: Object) -> bool:
    seen = found.get("observedGeneration")
    return not isinstance(seen, int) or seen >= _count(obj, "metadata", "generation")


def _source(obj: Object) -> Health:
    judged = _flux(obj)
    if judged.state is not State.READY:
        return judged
    for type_ in _FETCH:
        found = condition(obj, type_)
        if found and found.get("status") == "True":
            return _says(State.FAILED, found, type_)
    if not _map(_map(obj.get("status")).get("artifact")).get("revision"):
        return Health(State.PROGRESSING, "NoArtifact", "has no artifact yet")
    return judged


def _helm_repository(obj: Object) -> Health:
    spec = _map(obj.get("spec"))
    if spec.get("type") == "oci" and spec.get("suspend") is not True:
        return Health(State.READY, "Static", "an OCI Helm repository has no state of its own")
    return _source(obj)


def _notification(obj: Object) -> Health:
    if _map(obj.get("spec")).get("suspend") is True:
        return Health(State.SUSPENDED, "Suspended")
    return Health(State.READY, "Static", "alerts and their providers have no state of their own")


def _helm_release(obj: Object) -> Health:
    judged = _flux(obj)
    history = _map(obj.get("status")).get("history")
    newest = _map(history[0]) if isinstance(history, list) and history else {}
    if judged.state is State.READY and newest.get("status") not in (None, "deployed"):
        return Health(State.FAILED, "NotDeployed", f"the newest release is {newest.get('status')}")
    return judged


# Workloads


def _deployment(obj: Object) -> Health:
    progress = condition(obj, "Progressing")
    stale = _stale(obj)
    if stale:
        return stale
    if progress and progress.get("reason") == "ProgressDeadlineExceeded":
        return _says(State.FAILED, progress)
    wanted = _count(obj, "spec", "replicas", 1)
    for key, word in (("updatedReplicas", "updated"), ("replicas", "in all"), ("availableReplicas", "available")):
        have = _count(obj, "status", key)
        if have != wanted:
            return Health(State.PROGRESSING, "Replicas", f"{have} of {wanted} replicas {word}")
    available = condition(obj, "Available")
    if available is None or available.get("status") != "True":
        return _says(State.PROGRESSING, available, "NotAvailable")
    return _says(State.READY, available)


def _replica_set(obj: Object) -> Health:
    wanted, have = _count(obj, "spec", "replicas", 1), _count(obj, "status", "availableReplicas")
    state = State.READY if have == wanted else State.PROGRESSING
    return _stale(obj) or Health(state, "Replicas", f"{have} of {wanted} replicas available")


def _stateful_set(obj: Object) -> Health:
    stale = _stale(obj)
    if stale:
        return stale
    wanted, ready = _count(obj, "spec", "replicas", 1), _count(obj, "status", "readyReplicas")
    if ready != wanted or _count(obj, "status", "replicas") != wanted:
        return Health(State.PROGRESSING, "Replicas", f"{ready} of {wanted} replicas ready")
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    strategy = _map(spec.get("updateStrategy"))
    partition = _map(strategy.get("rollingUpdate")).get("partition") or 0
    if status.get("currentRevision") != status.get("updateRevision"):
        if strategy.get("type") == "OnDelete" or partition:
            return Health(State.READY, "OldRevision", "some pods still run an older revision, as its strategy says")
        return Health(State.PROGRESSING, "Updating", f"{_count(obj, 'status', 'updatedReplicas')} of {wanted} updated")
    return Health(State.READY, "Replicas", f"{ready} of {wanted} replicas ready")


def _daemon_set(obj: Object) -> Health:
    stale = _stale(obj)
    if stale:
        return stale
    wanted = _count(obj, "status", "desiredNumberScheduled")
    if wanted == 0:
        return Health(State.READY, "NoNodes", "no node is to run it")
    for key, word in (("updatedNumberScheduled", "updated"), ("numberAvailable", "available")):
        have = _count(obj, "status", key)
        if have != wanted:
            return Health(State.PROGRESSING, "Replicas", f"{have} of {wanted} pods {word}")
    return Health(State.READY, "Replicas", f"{wanted} of {wanted} pods available")


def _job(obj: Object) -> Health:
    for type_, state in (("Failed", State.FAILED), ("Complete", State.READY), ("Suspended", State.SUSPENDED)):
        found = condition(obj, type_)
        if found and found.get("status") == "True":
            return _says(state, found, type_)
    if _map(obj.get("spec")).get("suspend") is True:
        return Health(State.SUSPENDED, "Suspended")
    return Health(State.PROGRESSING, "Running", f"{_count(obj, 'status', 'succeeded')} pods succeeded so far")


def _cron_job(obj: Object) -> Health:
    suspended = _map(obj.get("spec")).get("suspend") is True
    return Health(State.SUSPENDED, "Suspended") if suspended else Health(State.READY, "Scheduled")


def _pod(obj: Object) -> Health:
    status = _map(obj.get("status"))
    phase = status.get("phase")
    if phase == "Succeeded":
        return Health(State.READY, "Succeeded")
    if phase == "Failed":
        return Health(State.FAILED, str(status.get("reason") or "Failed"), str(status.get("message") or ""))
    ready = condition(obj, "Ready")
    if ready and ready.get("status") == "True":
        return Health(State.READY, "Ready")
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in _items(status.get(key)):
            waiting = _map(_map(_map(container).get("state")).get("waiting"))
            if waiting.get("reason") in _HOPELESS:
                return _says(State.FAILED, waiting)
    scheduled = condition(obj, "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        return _says(State.PROGRESSING, scheduled)
    return _says(State.PROGRESSING, ready, str(phase or "Pending"))


# The cluster itself


def _claim(obj: Object) -> Health:
    phase = str(_map(obj.get("status")).get("phase") or "Pending")
    state = {"Bound": State.READY, "Lost": State.FAILED}.get(phase, State.PROGRESSING)
    message = "is bound to no volume; with WaitForFirstConsumer until a pod uses it" if phase == "Pending" else ""
    return Health(state, phase, message)


def _volume(obj: Object) -> Health:
    phase = str(_map(obj.get("status")).get("phase") or "Pending")
    states = {"Bound": State.READY, "Available": State.READY, "Released": State.READY, "Failed": State.FAILED}
    return Health(states.get(phase, State.PROGRESSING), phase, str(_map(obj.get("status")).get("message") or ""))


def _node(obj: Object) -> Health:
    ready = condition(obj, "Ready")
    if ready is None or ready.get("status") != "True":
        return _says(State.FAILED if ready else State.PROGRESSING, ready, "NotReported", "the kubelet has not reported")
    for type_ in ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"):
        found = condition(obj, type_)
        if found and found.get("status") == "True":
            return Health(State.FAILED, type_, str(found.get("message") or ""))
    voter = condition(obj, "EtcdIsVoter")
    if voter and voter.get("status") != "True":
        return _says(State.PROGRESSING, voter, "EtcdIsNoVoter")
    spec = _map(obj.get("spec"))
    for taint in _items(spec.get("taints")):
        key = str(_map(taint).get("key"))
        if key in ("node.kubernetes.io/not-ready", "node.cloudprovider.kubernetes.io/uninitialized"):
            return Health(State.PROGRESSING, "Tainted", f"still carries the taint {key}")
    if spec.get("unschedulable") is True:
        return Health(State.SUSPENDED, "Cordoned", "takes no new pods")
    return _says(State.READY, ready)


def _crd(obj: Object) -> Health:
    names, found = condition(obj, "NamesAccepted"), condition(obj, "Established")
    if names and names.get("status") == "False":
        return _says(State.FAILED, names)
    return _says(State.READY if found and found.get("status") == "True" else State.PROGRESSING, found, "NotEstablished")


def _namespace(obj: Object) -> Health:
    phase = str(_map(obj.get("status")).get("phase") or "Active")
    return Health(State.READY if phase == "Active" else State.PROGRESSING, phase)


def _service(obj: Object) -> Health:
    if _map(obj.get("spec")).get("type") != "LoadBalancer":
        return Health(State.READY, "Exists")
    if _map(_map(obj.get("status")).get("loadBalancer")).get("ingress"):
        return Health(State.READY, "Assigned")
    return Health(State.PROGRESSING, "NoAddress", "no load balancer has given it an address")


def _api_service(obj: Object) -> Health:
    found = condition(obj, "Available")
    ready = found is not None and found.get("status") == "True"
    return _says(State.READY if ready else State.PROGRESSING, found, "NotReported")


# Custom resources


def _certificate(obj: Object, now: float | None) -> Health:
    status = _map(obj.get("status"))
    judged = _by_ready(obj)
    issuing = condition(obj, "Issuing")
    under_way = issuing is not None and issuing.get("status") == "True"
    if judged.state is State.READY:
        if now is not None and _expired(status.get("notAfter"), now):
            return Health(State.FAILED, "Expired", f"ran out at {status.get('notAfter')}")
        return Health(State.READY, "Renewing", "is valid and being renewed") if under_way else judged
    if judged.state is State.FAILED and (under_way or not status.get("lastFailureTime")):
        return Health(State.PROGRESSING, judged.reason, judged.message)
    return judged


def _expired(text: Any, now: float) -> bool:
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp() <= now
    except ValueError:
        return True


def _custom(obj: Object) -> Health:
    """A kind that nobody here knows: only a condition Ready or Stalled says anything about it."""
    if condition(obj, "Ready") is None and condition(obj, "Stalled") is None:
        return Health(State.UNKNOWN, "NoConditions", "does not say how it is")
    return _flux(obj)


_RULES: dict[str, Callable[[Object], Health]] = {
    "Deployment.apps": _deployment, "ReplicaSet.apps": _replica_set, "StatefulSet.apps": _stateful_set,
    "DaemonSet.apps": _daemon_set, "Job.batch": _job, "CronJob.batch": _cron_job, "Pod": _pod,
    "PersistentVolumeClaim": _claim, "PersistentVolume": _volume, "Node": _node, "Namespace": _namespace,
    "Service": _service, "CustomResourceDefinition.apiextensions.k8s.io": _crd,
    "APIService.apiregistration.k8s.io": _api_service,
    "GitRepository.source.toolkit.fluxcd.io": _source, "OCIRepository.source.toolkit.fluxcd.io": _source,
    "Bucket.source.toolkit.fluxcd.io": _source, "HelmChart.source.toolkit.fluxcd.io": _source,
    "HelmRepository.source.toolkit.fluxcd.io": _helm_repository,
    "Alert.notification.toolkit.fluxcd.io": _notification, "Provider.notification.toolkit.fluxcd.io": _notification,
    "HelmRelease.helm.toolkit.fluxcd.io": _helm_release, "Issuer.cert-manager.io": _by_ready,
    "ClusterIssuer.cert-manager.io": _by_ready,
}  # fmt: skip
