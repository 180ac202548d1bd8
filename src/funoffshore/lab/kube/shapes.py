"""How the parts of an object merge: which lists are keyed, which values are replaced as a whole.

For built-in kinds as the ``x-kubernetes-list-type`` and ``x-kubernetes-map-type`` marks of the Kubernetes OpenAPI
document say (v1.36); for custom resources as the schema of the CRD says; lists without a mark are atomic.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.kube.kinds import Kind

SET = ("",)
"""Stands for the keys of a list whose items are its own keys."""

_KEYED: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "finalizers": SET,
    "webhooks": ("name",),
    "validations": (),
    "addresses": ("type",),
    "podIPs": ("ip",),
    "hostIPs": ("ip",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
}
_ATOMIC_MAPS = {
    "nodeSelector", "fieldRef", "resourceFieldRef", "secretKeyRef", "configMapKeyRef", "claimRef", "scaleTargetRef",
    "labelSelector", "podSelector", "namespaceSelector", "roleRef",
}  # fmt: skip
_PROTOCOL = {"protocol": "TCP"}


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known about one place in an object."""

    name: str = ""
    parent: str = ""
    schema: dict[str, Any] | None = None
    custom: bool = False

    def child(self, key: str) -> Shape:
        """The shape of the value of ``key``."""
        if not self.custom or (self.name == "" and key == "metadata"):
            return Shape(key, self.name)
        schema = self.schema or {}
        inner = (schema.get("properties") or {}).get(key)
        if inner is None and isinstance(schema.get("additionalProperties"), dict):
            inner = schema["additionalProperties"]
        return Shape(key, self.name, inner if isinstance(inner, dict) else None, True)

    def item(self) -> Shape:
        """The shape of an item, where this is a list."""
        inner = (self.schema or {}).get("items")
        return Shape("[]", self.name, inner if isinstance(inner, dict) else None, self.custom)

    def keys(self) -> tuple[str, ...]:
        """Names that tell the items of this list apart, SET, or none when the list is atomic."""
        if self.custom:
            kind = (self.schema or {}).get("x-kubernetes-list-type")
            if kind == "set":
                return SET
            keys = (self.schema or {}).get("x-kubernetes-list-map-keys")
            return tuple(keys) if kind == "map" and isinstance(keys, list) else ()
        if self.name == "ports":
            return ("containerPort", "protocol") if self.parent == "[]" else ("port", "protocol")
        if self.name == "secrets" and self.parent == "":
            return ("name",)
        return _KEYED.get(self.name, ())

    def whole(self) -> bool:
        """True for a mapping that is replaced, never merged."""
        if self.custom:
            return (self.schema or {}).get("x-kubernetes-map-type") == "atomic"
        if self.name == "selector":
            return self.parent == "spec"
        return self.name in _ATOMIC_MAPS

    def key_of(self, item: Any) -> str | None:
        """A text that is the same for items with the same keys; None when ``item`` lacks one."""
        keys = self.keys()
        if keys == SET:
            return "v:" + json.dumps(item)
        if not isinstance(item, dict):
            return None
        found: dict[str, Any] = {}
        for key in keys:
            value = item.get(key, self._default(key))
            if value is None or isinstance(value, dict | list):
                return None
            found[key] = value
        return "k:" + json.dumps(found, sort_keys=True, separators=(",", ":"))

    def _default(self, key: str) -> Any:
        if not self.custom:
            return _PROTOCOL.get(key)
        items = (self.schema or {}).get("items") or {}
        return ((items.get("properties") or {}).get(key) or {}).get("default")

    def keyed(self, items: list[Any]) -> dict[str, Any] | None:
        """Items by their key, or None when this list is atomic or an item has no key, or one twice."""
        if not self.keys():
            return None
        found: dict[str, Any] = {}
        for item in items:
            key = self.key_of(item)
            if key is None or key in found:
                return None
            found[key] = item
        return found


def of(kind: Kind) -> Shape:
    """The shape of whole objects of ``kind``."""
    return Shape(schema=kind.schema, custom=bool(kind.crd))
