"""What the API server fills in and refuses for built-in kinds.

Deployments and pods as recorded from a Kubernetes v1.36 API server, the rest as in the API reference.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind
from funoffshore.lab.kube.schema import Cause

_PROBE = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}


def _each(value: Any) -> Iterator[Object]:
    """The mappings in what should be a list of them."""
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            yield item


def _part(obj: Object, key: str) -> Object:
    """``obj[key]`` as a mapping, made when absent."""
    if not isinstance(obj.get(key), dict):
        obj[key] = {}
    part: Object = obj[key]
    return part


def pod_spec(spec: Object, *, restart: str = "Always") -> None:
    """Fills in a pod's or pod template's ``spec``."""
    spec.setdefault("restartPolicy", restart)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in [*_each(spec.get("containers")), *_each(spec.get("initContainers"))]:
        _container(container)


def _container(container: Object) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    floating = "@" not in image and tag in ("", "latest")
    container.setdefault("imagePullPolicy", "Always" if floating else "IfNotPresent")
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in _each(container.get("ports")):
        port.setdefault("protocol", "TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(name), dict):
            container[name] = {**_PROBE, **container[name]}
            if isinstance(container[name].get("httpGet"), dict):
                container[name]["httpGet"] = {"path": "/", "scheme": "HTTP", **container[name]["httpGet"]}


def _template(spec: Object, restart: str = "Always") -> None:
    pod_spec(_part(_part(spec, "template"), "spec"), restart=restart)


def _deployment(obj: Object) -> None:
    spec = _part(obj, "spec")
    for key, value in {"replicas": 1, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10}.items():
        spec.setdefault(key, value)
    strategy = spec.setdefault("strategy", dict(_ROLLING))
    if isinstance(strategy, dict) and strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy["rollingUpdate"] = {**_ROLLING["rollingUpdate"], **(strategy.get("rollingUpdate") or {})}  # type: ignore[dict-item]
    _template(spec)


def _replica_set(obj: Object) -> None:
    _part(obj, "spec").setdefault("replicas", 1)
    _template(obj["spec"])


def _stateful_set(obj: Object) -> None:
    spec = _part(obj, "spec")
    for key, value in {"replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10}.items():
        spec.setdefault(key, value)
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    for claim in _each(spec.get("volumeClaimTemplates")):
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        _part(claim, "spec").setdefault("volumeMode", "Filesystem")
        claim.setdefault("status", {"phase": "Pending"})
    _template(spec)


def _daemon_set(obj: Object) -> None:
    spec = _part(obj, "spec")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    _template(spec)


def _job_spec(spec: Object) -> None:
    parts = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False,
             "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed"}  # fmt: skip
    for key, value in parts.items():
        spec.setdefault(key, value)
    _template(spec, restart="Never")


def _job(obj: Object) -> None:
    _job_spec(_part(obj, "spec"))


def _cron_job(obj: Object) -> None:
    spec = _part(obj, "spec")
    parts = {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    }
    for key, value in parts.items():
        spec.setdefault(key, value)
    _template(_part(_part(spec, "jobTemplate"), "spec"), restart="OnFailure")


def _pod(obj: Object) -> None:
    spec = _part(obj, "spec")
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])


def _service(obj: Object) -> None:
    spec = _part(obj, "spec")
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] != "ExternalName":
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("LoadBalancer", "NodePort"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for port in _each(spec.get("ports")):
        port.setdefault("protocol", "TCP")
        if "port" in port:
            port.setdefault("targetPort", port["port"])


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict):
        data = _part(obj, "data")
        data.update({k: base64.b64encode(str(v).encode()).decode() for k, v in plain.items()})


def _namespace(obj: Object) -> None:
    _part(obj["metadata"], "labels")["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
    _part(obj, "spec").setdefault("finalizers", ["kubernetes"])


def _claim(obj: Object) -> None:
    _part(obj, "spec").setdefault("volumeMode", "Filesystem")
    _part(obj, "status").setdefault("phase", "Pending")


def _storage_class(obj: Object) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def _crd(obj: Object) -> None:
    spec = _part(obj, "spec")
    spec.setdefault("conversion", {"strategy": "None"})
    names = _part(spec, "names")
    if isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")


_FILL: dict[str, Callable[[Object], None]] = {
    "Deployment.apps": _deployment, "ReplicaSet.apps": _replica_set, "StatefulSet.apps": _stateful_set,
    "DaemonSet.apps": _daemon_set, "Job.batch": _job, "CronJob.batch": _cron_job, "Pod": _pod, "Service": _service,
    "Secret": _secret, "Namespace": _namespace, "PersistentVolumeClaim": _claim,
    "StorageClass.storage.k8s.io": _storage_class, "CustomResourceDefinition.apiextensions.k8s.io": _crd,
}  # fmt: skip


def fill(kind: Kind, obj: Object) -> None:
    """Completes ``obj`` in place."""
    filler = _FILL.get(kind.bucket)
    if filler:
        filler(obj)


def check(kind: Kind, obj: Object, before: Object | None) -> Iterator[Cause]:
    """Every reason to refuse ``obj`` as the successor of ``before``."""
    spec = obj.get("spec") if isinstance(obj.get("spec"), dict) else {}
    old = (before or {}).get("spec") or {}
    if kind.bucket in ("Deployment.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicaSet.apps"):
        yield from _check_workload(spec or {}, old)
    if kind.bucket in ("Deployment.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicaSet.apps", "Job.batch"):
        template = (spec or {}).get("template") or {}
        yield from _check_containers(template.get("spec") or {}, "spec.template.spec")
        if kind.bucket == "Job.batch" and old and template.get("spec") != (old.get("template") or {}).get("spec"):
            yield _cause("Invalid", "spec.template", 'Invalid value: "…": field is immutable')
    elif kind.bucket == "Pod":
        yield from _check_containers(spec or {}, "spec")
    elif kind.bucket == "Secret" and before and before.get("type") != obj.get("type"):
        yield _cause("Invalid", "type", f'Invalid value: "{obj.get("type")}": field is immutable')
    elif kind.bucket in ("Secret", "ConfigMap") and before and before.get("immutable"):
        if any(before.get(k) != obj.get(k) for k in ("data", "binaryData", "immutable")):
            yield _cause("Forbidden", "data", "Forbidden: field is immutable when `immutable` is set")
    elif kind.bucket == "CustomResourceDefinition.apiextensions.k8s.io":
        yield from _check_crd(obj, spec or {})


def _check_workload(spec: Object, old: Object) -> Iterator[Cause]:
    selector = spec.get("selector")
    wanted = selector.get("matchLabels") if isinstance(selector, dict) else None
    if not isinstance(selector, dict):
        yield _cause("Required", "spec.selector", "Required value")
        return
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {} if isinstance(template, dict) else {}
    if isinstance(wanted, dict) and isinstance(labels, dict) and any(labels.get(k) != v for k, v in wanted.items()):
        yield _cause("Invalid", "spec.template.metadata.labels",
                     f"Invalid value: {labels!r}: `selector` does not match template `labels`")  # fmt: skip
    if old and old.get("selector") != selector:
        yield _cause("Invalid", "spec.selector", "Invalid value: {…}: field is immutable")


def _check_containers(spec: Object, path: str) -> Iterator[Cause]:
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        yield _cause("Required", f"{path}.containers", "Required value")
        return
    for number, container in enumerate(containers):
        for field in ("name", "image"):
            if not isinstance(container, dict) or not container.get(field):
                yield _cause("Required", f"{path}.containers[{number}].{field}", "Required value")


def _check_crd(obj: Object, spec: Object) -> Iterator[Cause]:
    for field in ("group", "names", "scope", "versions"):
        if not spec.get(field):
            yield _cause("Required", f"spec.{field}", "Required value")
    names = spec.get("names") or {}
    expected = f"{names.get('plural')}.{spec.get('group')}"
    if obj["metadata"].get("name") != expected:
        yield _cause("Invalid", "metadata.name", f'Invalid value: "{obj["metadata"].get("name")}": must be '
                     'spec.names.plural+"."+spec.group')  # fmt: skip
    versions = list(_each(spec.get("versions")))
    if sum(bool(v.get("storage")) for v in versions) != 1 or not all(isinstance(v.get("name"), str) for v in versions):
        yield _cause(
            "Invalid", "spec.versions", "Invalid value: must have exactly one version marked as storage version"
        )


def _cause(reason: str, field: str, message: str) -> Cause:
    return {"reason": f"FieldValue{reason}", "field": field, "message": message}
