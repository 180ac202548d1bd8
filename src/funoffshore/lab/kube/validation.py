"""What the API server refuses in objects of built-in kinds, and in anybody's metadata.

The checks that an operator's manifests are likely to meet, in the words of a v1.36 API server; not all there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from funoffshore.lab.kube import refusals
from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind
from funoffshore.lab.kube.refusals import Cause, cause

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_STANDARD_FINALIZERS = ("kubernetes", "foregroundDeletion", "orphan", "orphanDependents")
_IMMUTABLE = "field is immutable"
_STATEFUL = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_STATEFUL_MAY = {"replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "minReadySeconds",
                 "persistentVolumeClaimRetentionPolicy"}  # fmt: skip


def metadata(kind: Kind, obj: Object, before: Object | None) -> Iterator[Cause]:
    """Every reason to refuse an object for its metadata."""
    meta = obj["metadata"]
    if before is None:
        if not meta.get("name"):
            yield cause("Required", "metadata.name", "Required value: name or generateName is required")
        elif wrong := refusals.name_rule(kind, meta["name"]):
            yield _invalid("metadata.name", meta["name"], wrong)
    yield from _labels(meta.get("labels") or {})
    for owner in meta.get("ownerReferences") or ():
        if not owner.get("apiVersion"):
            yield _invalid("metadata.ownerReferences.apiVersion", "", "version must not be empty")
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                yield _invalid(f"metadata.ownerReferences.{key}", "", "must not be empty")
    yield from _finalizers(kind, meta.get("finalizers") or [], (before or {}).get("metadata") or {})


def _finalizers(kind: Kind, finalizers: list[str], before: Object) -> Iterator[Cause]:
    for number, finalizer in enumerate(finalizers):
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS and not kind.crd:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            yield _invalid(f"metadata.finalizers[{number}]", finalizer, why)
    fresh = [f for f in finalizers if f not in (before.get("finalizers") or ())]
    if fresh and before.get("deletionTimestamp"):
        shown = ", ".join(map(json.dumps, fresh))
        why = "no new finalizers can be added if the object is being deleted, found new finalizers"
        yield cause("Forbidden", "metadata.finalizers", f"Forbidden: {why} []string{{{shown}}}")


_PARTS = "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"


def _labels(labels: dict[str, str]) -> Iterator[Cause]:
    for key, value in labels.items():
        if not _PART.fullmatch(key.rpartition("/")[2]):
            examples = "'MyName',  or 'my.name',  or '123-abc'"
            rule = f"(e.g. {examples}, regex used for validation is '{_PART.pattern}')"
            yield _invalid("metadata.labels", key, f"name part must consist of {_PARTS} {rule}")
        if value and not _PART.fullmatch(value):
            examples = "'MyValue',  or 'my_value',  or '12345'"
            rule = f"(e.g. {examples}, regex used for validation is '({_PART.pattern})?')"
            yield _invalid(
                "metadata.labels", value, f"a valid label must be an empty string or consist of {_PARTS} {rule}"
            )
        if len(value) > 63:
            yield _invalid("metadata.labels", value, "must be no more than 63 bytes")


def check(kind: Kind, obj: Object, before: Object | None) -> Iterator[Cause]:
    """Every reason to refuse ``obj`` of a built-in kind as the successor of ``before``."""
    looker = _CHECKS.get(kind.bucket)
    if looker:
        yield from looker(obj, before)


def _invalid(field: str, value: Any, why: str) -> Cause:
    return cause("Invalid", field, f"Invalid value: {_shown(value)}: {why}")


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _unsupported(field: str, value: Any, *supported: str) -> Cause:
    known = ", ".join(map(json.dumps, supported))
    return cause("NotSupported", field, f"Unsupported value: {_shown(value)}: supported values: {known}")


def _required(field: str, why: str = "") -> Cause:
    return cause("Required", field, "Required value" + (f": {why}" if why else ""))


# Workloads


def _workload(obj: Object, before: Object | None) -> Iterator[Cause]:
    spec = obj["spec"]
    if isinstance(replicas := spec.get("replicas"), int) and replicas < 0:
        yield _invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selector is None:
        yield _required("spec.selector")
    wanted = (selector or {}).get("matchLabels") or {}
    if selector is None or any((labels or {}).get(k) != v for k, v in wanted.items()):
        yield _invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    claimed = [(claim.get("metadata") or {}).get("name") for claim in spec.get("volumeClaimTemplates") or ()]
    yield from _pod_spec(spec["template"]["spec"], "spec.template.spec", ("Always",), claimed)
    if before and before["spec"].get("selector") != selector:
        yield _invalid("spec.selector", selector, _IMMUTABLE)


def _deployment(obj: Object, before: Object | None) -> Iterator[Cause]:
    yield from _workload(obj, before)
    strategy = obj["spec"].get("strategy") or {}
    if strategy.get("type") not in ("Recreate", "RollingUpdate"):
        shown = {"Type": strategy.get("type"), "RollingUpdate": None}
        yield _unsupported("spec.strategy", shown, "Recreate", "RollingUpdate")


def _stateful_set(obj: Object, before: Object | None) -> Iterator[Cause]:
    causes = list(_workload(obj, before))
    if before:
        causes = [c for c in causes if _IMMUTABLE not in c["message"]]
        old, new = ({k: v for k, v in o["spec"].items() if k not in _STATEFUL_MAY} for o in (before, obj))
        if old != new:
            causes.append(cause("Forbidden", "spec", f"Forbidden: {_STATEFUL}"))
    yield from causes


def _job(obj: Object, before: Object | None) -> Iterator[Cause]:
    spec = obj["spec"]
    yield from _job_template(spec, "spec")
    if before and spec.get("template") != before["spec"].get("template"):
        yield _invalid("spec.template", spec.get("template"), _IMMUTABLE)


def _job_template(spec: Object, path: str) -> Iterator[Cause]:
    inner = spec["template"]["spec"]
    policy = inner.get("restartPolicy")
    if policy in (None, "", "Always"):
        yield _required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    yield from _pod_spec(inner, f"{path}.template.spec", ("OnFailure", "Never", "Always"))


def _cron_job(obj: Object, before: Object | None) -> Iterator[Cause]:
    schedule = obj["spec"].get("schedule") or ""
    fields = schedule.split()
    if not schedule:
        yield _required("spec.schedule")
    elif len(fields) != 5 and not schedule.startswith("@"):
        why = f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
        yield _invalid("spec.schedule", schedule, why)
    yield from _job_template(obj["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec")


def _pod(obj: Object, before: Object | None) -> Iterator[Cause]:
    yield from _pod_spec(obj["spec"], "spec", ("Always", "OnFailure", "Never"))


def _pod_spec(spec: Object, path: str, policies: tuple[str, ...], claimed: Sequence[Any] = ()) -> Iterator[Cause]:
    """``claimed``: names of volumes that come from claims of a StatefulSet."""
    volumes = [*claimed, *(v.get("name") for v in spec.get("volumes") or ())]
    containers = spec.get("containers") or []
    if not containers:
        yield _required(f"{path}.containers")
    for key in ("initContainers", "containers"):
        names: set[str] = set()
        for number, container in enumerate(spec.get(key) or ()):
            place = f"{path}.{key}[{number}]"
            yield from _container(container, place, volumes)
            if container.get("name") in names:
                yield cause("Duplicate", f"{place}.name", f"Duplicate value: {_shown(container['name'])}")
            names.add(container.get("name", ""))
    if spec.get("restartPolicy") not in (None, "", *policies):
        yield _unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), *policies)


def _container(container: Object, place: str, volumes: list[Any]) -> Iterator[Cause]:
    if not container.get("name"):
        yield _required(f"{place}.name")
    elif wrong := refusals.label_rule(container["name"]):
        yield _invalid(f"{place}.name", container["name"], wrong)
    if not container.get("image"):
        yield _required(f"{place}.image")
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        known = ("Always", "IfNotPresent", "Never")
        yield _unsupported(f"{place}.imagePullPolicy", container.get("imagePullPolicy"), *known)
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            found = f"Not found: {_shown(mount.get('name'))}"
            yield cause("NotFound", f"{place}.volumeMounts[{number}].name", found)


# Configuration and network


def _keys(obj: Object) -> Iterator[Cause]:
    for key in obj.get("data") or {}:
        if not _KEY.fullmatch(key):
            examples = "'key.name',  or 'KEY_NAME',  or 'key-name'"
            why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            rule = f"(e.g. {examples}, regex used for validation is '{_KEY.pattern}')"
            yield _invalid(f"data[{key}]", key, f"{why} {rule}")


def _config(obj: Object, before: Object | None) -> Iterator[Cause]:
    yield from _keys(obj)
    if before and before.get("immutable"):
        if not obj.get("immutable"):
            yield cause("Forbidden", "immutable", "Forbidden: field is immutable when `immutable` is set")
        if any(before.get(k) != obj.get(k) for k in ("data", "binaryData")):
            yield cause("Forbidden", "data", "Forbidden: field is immutable when `immutable` is set")


def _secret(obj: Object, before: Object | None) -> Iterator[Cause]:
    yield from _config(obj, before)
    if before and before.get("type") != obj.get("type"):
        yield _invalid("type", obj.get("type"), _IMMUTABLE)


def _service(obj: Object, before: Object | None) -> Iterator[Cause]:
    spec = obj["spec"]
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield _required("spec.ports")
    for number, port in enumerate(ports):
        for key in ("port", "targetPort"):
            value = port.get(key)
            if isinstance(value, int) and not 1 <= value <= 65535:
                yield _invalid(f"spec.ports[{number}].{key}", value, "must be between 1 and 65535, inclusive")
        if len(ports) > 1 and not port.get("name"):
            yield _required(f"spec.ports[{number}].name")
    old = (before or {}).get("spec", {}).get("clusterIP")
    if old and spec.get("clusterIP") != old and spec.get("type") != "ExternalName":
        yield _invalid("spec.clusterIPs[0]", [spec.get("clusterIP")], "may not change once set")


def _ingress(obj: Object, before: Object | None) -> Iterator[Cause]:
    if not obj["spec"].get("rules") and not obj["spec"].get("defaultBackend"):
        yield _invalid("spec", None, "either `defaultBackend` or `rules` must be specified")


def _binding(obj: Object, before: Object | None) -> Iterator[Cause]:
    if before and before.get("roleRef") != obj.get("roleRef"):
        ref = obj.get("roleRef") or {}
        shown = {"APIGroup": ref.get("apiGroup"), "Kind": ref.get("kind"), "Name": ref.get("name")}
        yield _invalid("roleRef", shown, "cannot change roleRef")


# Storage


def _claim(obj: Object, before: Object | None) -> Iterator[Cause]:
    spec = obj["spec"]
    if not spec.get("accessModes"):
        yield _required("spec.accessModes", "at least 1 access mode is required")
    if not ((spec.get("resources") or {}).get("requests") or {}).get("storage"):
        yield _required("spec.resources[storage]")
    if before:
        free = ("resources", "volumeAttributesClassName", "volumeName", "storageClassName")
        old, new = ({k: v for k, v in o["spec"].items() if k not in free} for o in (before, obj))
        named = before["spec"].get("storageClassName"), spec.get("storageClassName")
        if old != new or (named[0] is not None and named[0] != named[1]):
            free_too = "resources.requests and volumeAttributesClassName for bound claims"
            yield cause("Forbidden", "spec", f"Forbidden: spec is immutable after creation except {free_too}")


def _class(obj: Object, before: Object | None) -> Iterator[Cause]:
    if not obj.get("provisioner"):
        yield _required("provisioner")
    for key in ("provisioner", "reclaimPolicy", "volumeBindingMode") if before else ():
        if before and before.get(key) != obj.get(key):
            yield _invalid(key, obj.get(key), _IMMUTABLE)


# Kinds


def _crd(obj: Object, before: Object | None) -> Iterator[Cause]:
    spec, names = obj["spec"], obj["spec"]["names"]
    if obj["metadata"].get("name") != f"{names.get('plural')}.{spec.get('group')}":
        yield _invalid("metadata.name", obj["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group')
    for field in ("group", "scope"):
        if not spec.get(field):
            yield _required(f"spec.{field}")
    versions = spec.get("versions") or []
    if sum(bool(v.get("storage")) for v in versions) != 1:
        yield _invalid("spec.versions", spec.get("versions"), "must have exactly one version marked as storage version")
    for number, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield _required(f"spec.versions[{number}].schema.openAPIV3Schema")
    for field in ("plural", "singular", "kind", "listKind"):
        if not names.get(field):
            yield _required(f"spec.names.{field}")


_CHECKS: dict[str, Callable[[Object, Object | None], Iterator[Cause]]] = {
    "Deployment.apps": _deployment, "ReplicaSet.apps": _workload, "DaemonSet.apps": _workload,
    "StatefulSet.apps": _stateful_set, "Job.batch": _job, "CronJob.batch": _cron_job, "Pod": _pod,
    "ConfigMap": _config, "Secret": _secret, "Service": _service, "Ingress.networking.k8s.io": _ingress,
    "RoleBinding.rbac.authorization.k8s.io": _binding, "ClusterRoleBinding.rbac.authorization.k8s.io": _binding,
    "PersistentVolumeClaim": _claim, "StorageClass.storage.k8s.io": _class,
    "CustomResourceDefinition.apiextensions.k8s.io": _crd,
}  # fmt: skip
