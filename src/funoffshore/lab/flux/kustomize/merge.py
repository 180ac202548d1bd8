"""Strategic merge and JSON patches (RFC 6902) on plain JSON values."""

from __future__ import annotations

import copy
from typing import Any

from funoffshore.lab.flux.kustomize.documents import BuildError, Object

_MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "secrets": ("name",),
    "webhooks": ("name",),
}
"""Field name to the keys that identify an element, from ``x-kubernetes-list-map-keys`` of Kubernetes' OpenAPI."""
_NATIVE_GROUPS = ("", "apps", "batch", "networking.k8s.io", "policy", "autoscaling", "storage.k8s.io", "rbac")


def strategic_merge(target: Object, patch: Object) -> Object | None:
    """``target`` with ``patch`` laid over it; None when the patch deletes it. Neither is changed.

    Lists of Kubernetes' own kinds are merged by their keys, patched elements first as kustomize does it; lists of
    custom resources are replaced whole.
    """
    group, _, version = str(target.get("apiVersion", "")).rpartition("/")
    native = (group if version else "") in _NATIVE_GROUPS or group.endswith(".k8s.io")
    if patch.get("$patch") == "delete":
        return None
    if patch.get("$patch") == "replace":
        return {k: copy.deepcopy(v) for k, v in patch.items() if k != "$patch"}
    return _merge_maps(target, patch, native)


def _merge_maps(target: Object, patch: Object, native: bool) -> Object:
    merged = dict(target)
    for key, value in patch.items():
        if key == "$patch":
            continue
        if value is None:
            merged.pop(key, None)
            continue
        if isinstance(value, dict) and value.get("$patch") == "delete":
            merged.pop(key, None)
            continue
        replace = isinstance(value, dict) and value.get("$patch") == "replace"
        old = None if replace else target.get(key)
        merged[key] = _merge_value(key, old, value, native)
    return merged


def _merge_value(key: str, old: Any, new: Any, native: bool) -> Any:
    if isinstance(new, dict):
        return _merge_maps(old if isinstance(old, dict) else {}, new, native)
    if isinstance(new, list):
        return _merge_lists(key, old if isinstance(old, list) else [], new, native)
    return new


def _merge_lists(key: str, old: list[Any], new: list[Any], native: bool) -> list[Any]:
    if key == "finalizers":
        return [*(n for n in new if n not in old), *old]
    keys = _merge_keys(key, [*old, *new]) if native else ()
    if not keys or not all(isinstance(e, dict) for e in [*old, *new]):
        return copy.deepcopy(new)
    if any(e.get("$patch") == "replace" for e in new):
        return [copy.deepcopy(e) for e in new if e.get("$patch") != "replace"]
    before = {_identity(e, keys): e for e in old}
    merged: list[Any] = []
    for element in new:
        found = before.pop(_identity(element, keys), None)
        if element.get("$patch") != "delete":
            merged.append(_merge_maps(found or {}, element, native))
    return merged + list(before.values())


def _merge_keys(key: str, elements: list[Any]) -> tuple[str, ...]:
    if key != "ports":
        return _MERGE_KEYS.get(key, ())
    # a container's ports are known by containerPort, a Service's by port
    of_container = any(isinstance(e, dict) and "containerPort" in e for e in elements)
    return ("containerPort", "protocol") if of_container else ("port", "protocol")


def _identity(element: Object, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(element.get(k, "TCP" if k == "protocol" else None) for k in keys)


def json_patch(target: Any, operations: Any, where: str) -> Any:
    """RFC 6902 on a copy of ``target``. Raises BuildError that names ``where``, operation and path."""
    if not isinstance(operations, list):
        raise BuildError(f"{where}: a JSON patch is a list of operations")
    document = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise BuildError(f"{where}: a JSON patch operation needs op and path, got {operation!r}")
        try:
            document = _apply(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as why:
            path = operation["path"]
            raise BuildError(
                f"{where}: {operation['op']} operation does not apply: doc is missing path: {path}: {why}"
            ) from why
    return document


def _apply(document: Any, operation: Object) -> Any:
    kind, path = operation["op"], _pointer(operation["path"])
    match kind:
        case "add":
            return _add(document, path, copy.deepcopy(operation["value"]))
        case "remove":
            _remove(document, path)
        case "replace":
            _get(document, path)
            if not path:
                return copy.deepcopy(operation["value"])
            _remove(document, path)
            _add(document, path, copy.deepcopy(operation["value"]))
        case "copy":
            return _add(document, path, copy.deepcopy(_get(document, _pointer(operation["from"]))))
        case "move":
            value = _get(document, _pointer(operation["from"]))
            _remove(document, _pointer(operation["from"]))
            return _add(document, path, value)
        case "test":
            if _get(document, path) != operation["value"]:
                raise ValueError("testing value failed")
        case _:
            raise ValueError(f"unknown operation {kind!r}")
    return document


def _pointer(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise ValueError(f"{path!r} does not start with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[_index(part, len(document))] if isinstance(document, list) else document[part]
    return document


def _index(part: str, length: int) -> int:
    if not part.isdigit() or int(part) >= length:
        raise IndexError(f"no element {part}")
    return int(part)


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        parent.insert(len(parent) if path[-1] == "-" else _index(path[-1], len(parent) + 1), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise TypeError(f"{'/'.join(path[:-1])} is no container")
    return document


def _remove(document: Any, path: list[str]) -> None:
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        del parent[_index(path[-1], len(parent))]
    else:
        del parent[path[-1]]
