"""Refuses objects whose well-known fields have types that the API server could not decode."""

from __future__ import annotations

from typing import Any

from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.kinds import Kind


class DecodeError(ApiError):
    """400; ``typed`` says the same in the words of server-side apply."""

    def __init__(self, kind: str, field: str, wanted: str, got: str = "") -> None:
        super().__init__(400, "BadRequest", f'{kind} in version "v1" cannot be handled as a {kind}: json: cannot '
                         f"unmarshal the value of field {kind}.{field} into type {wanted}")  # fmt: skip
        self.typed = f".{field}: expected {_WORDS.get(wanted, wanted)}" + (f", got {got}" if got else "")


_WORDS = {"int32": "numeric (int or float)", "object": "map", "array": "list", "bool": "boolean"}
_GOT = {str: "string", int: "int", float: "float", bool: "boolean", dict: "map", list: "list"}
_MAPPINGS = {
    "spec", "metadata", "template", "jobTemplate", "selector", "matchLabels", "strategy", "updateStrategy",
    "rollingUpdate", "nodeSelector", "securityContext", "resources", "names", "conversion", "scale", "subresources",
    "schema", "openAPIV3Schema", "secret", "configMap", "persistentVolumeClaim", "valueFrom", "secretKeyRef",
    "configMapKeyRef", "secretRef", "configMapRef", "livenessProbe", "readinessProbe", "startupProbe", "httpGet",
    "loadBalancer",
}  # fmt: skip
_LISTS = {
    "containers", "initContainers", "volumes", "env", "envFrom", "ports", "volumeMounts", "tolerations", "taints",
    "volumeClaimTemplates", "versions", "conditions", "addresses", "imagePullSecrets", "accessModes",
    "containerStatuses",
}  # fmt: skip
_LISTS_OF_TEXT = {"shortNames", "categories", "finalizers", "args", "command"}
_INTEGERS = {
    "replicas", "progressDeadlineSeconds", "revisionHistoryLimit", "terminationGracePeriodSeconds", "completions",
    "parallelism", "backoffLimit", "minReadySeconds", "containerPort", "observedGeneration",
}  # fmt: skip
_TEXTS = {
    "name", "namespace", "image", "kind", "plural", "singular", "listKind", "group", "scope", "storageClassName",
    "nodeName", "serviceAccountName", "claimName", "secretName", "phase", "type", "podManagementPolicy",
    "provisioner", "volumeBindingMode", "protocol", "generateName",
}  # fmt: skip
_FREE = {"openAPIV3Schema", "matchLabels", "labels", "annotations", "nodeSelector"}
"""Mappings with keys of the user's own."""
_BOOLEANS = {"unschedulable", "served", "optional", "suspend"}
_LOOKED_INTO = {
    "Deployment.apps", "ReplicaSet.apps", "StatefulSet.apps", "DaemonSet.apps", "Job.batch", "CronJob.batch", "Pod",
    "PersistentVolumeClaim", "PersistentVolume", "Service", "Node", "Namespace",
    "CustomResourceDefinition.apiextensions.k8s.io",
}  # fmt: skip
"""Kinds that the controllers read deeply."""


def check_metadata(metadata: Any) -> None:
    """Raises ApiError 400 unless labels, annotations, finalizers and owners are what they must be."""
    if not isinstance(metadata, dict):
        raise ApiError(400, "BadRequest", "metadata must be an object")
    for key in ("labels", "annotations"):
        value = metadata.get(key)
        if value is not None and (not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values())):
            raise _cannot("ObjectMeta", f"metadata.{key}", "map[string]string")
        if value is None:
            metadata.pop(key, None)
    finalizers = metadata.get("finalizers", [])
    if not isinstance(finalizers, list) or not all(isinstance(f, str) for f in finalizers):
        raise _cannot("ObjectMeta", "metadata.finalizers", "[]string")
    owners = metadata.get("ownerReferences", [])
    if not isinstance(owners, list) or not all(isinstance(o, dict) and isinstance(o.get("uid"), str) for o in owners):
        raise _cannot("ObjectMeta", "metadata.ownerReferences", "[]v1.OwnerReference")
    for key in ("name", "namespace", "generateName", "uid", "resourceVersion"):
        if not isinstance(metadata.get(key, ""), str):
            raise _cannot("ObjectMeta", f"metadata.{key}", "string")


def check(kind: Kind, obj: Object) -> None:
    """Raises ApiError 400 as for a body that does not fit the Go types of ``kind``. Drops nulls, in place: where
    there is a Go type, null is the same as absent."""
    for key in ("metadata",) if kind.crd else ("metadata", "spec", "status"):
        if key in obj and obj[key] is None:
            del obj[key]
        drop_nulls(obj.get(key))
    obj.setdefault("metadata", {})
    check_metadata(obj.get("metadata"))
    for key in ("spec", "status"):
        if not isinstance(obj.get(key, {}), dict):
            raise _cannot(kind.name, key, f"v1.{kind.name}{key.title()}")
    if kind.bucket in _LOOKED_INTO:
        for key in ("spec", "status"):
            _walk(kind, obj.get(key, {}), key)
    if kind.bucket in ("Secret", "ConfigMap"):
        for key in ("data", "stringData", "binaryData"):
            data = obj.get(key, {})
            if data is not None and (not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values())):
                raise _cannot(kind.name, key, "map[string]string")


def drop_nulls(value: Any) -> None:
    """Removes what is null from mappings, in place. Schemas in CRDs are left alone: there null can be a default."""
    if isinstance(value, list):
        for item in value:
            drop_nulls(item)
    elif isinstance(value, dict):
        for key in [k for k, v in value.items() if v is None]:
            del value[key]
        for key, inner in value.items():
            if key != "openAPIV3Schema":
                drop_nulls(inner)


def _walk(kind: Kind, value: Any, path: str) -> None:
    if isinstance(value, list):
        for item in value:
            _walk(kind, item, path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "conversion":  # of a CRD: its strategy is a word
                continue
            wanted = _wanted(key, inner)
            if wanted:
                raise DecodeError(kind.name, f"{path}.{key}", wanted, _GOT.get(type(inner), "null"))
            if key not in _FREE:
                _walk(kind, inner, f"{path}.{key}")


def _wanted(key: str, value: Any) -> str:
    """The type that the field ``key`` must have and ``value`` does not; empty when all is well."""
    if key in _MAPPINGS:
        return "" if isinstance(value, dict) else "object"
    if key in _LISTS:
        item = str if key == "accessModes" else dict
        return "" if isinstance(value, list) and all(isinstance(i, item) for i in value) else "array"
    if value is None:
        return ""
    if key in _LISTS_OF_TEXT:
        return "" if isinstance(value, list) and all(isinstance(i, str) for i in value) else "[]string"
    if key in _INTEGERS:
        fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
        return "" if fits else "int32"
    if key in _TEXTS and not isinstance(value, str):
        return "string"
    return "bool" if key in _BOOLEANS and not isinstance(value, bool) else ""


def _cannot(kind: str, field: str, wanted: str) -> DecodeError:
    return DecodeError(kind, field, wanted)
