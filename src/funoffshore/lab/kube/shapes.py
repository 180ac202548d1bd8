"""How the parts of an object merge: which lists are keyed, which values are replaced as a whole.

For built-in kinds as the type table says, for custom resources as the schema of the CRD says; lists without a mark
are atomic.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.kube.kinds import Kind
from funoffshore.lab.kube.types import Field, Type, table

SET = ("",)
"""Stands for the keys of a list whose items are its own keys."""
_SORTS = {"s": "string", "y": "string", "t": "string", "T": "string", "i": "numeric", "l": "numeric", "d": "numeric",
          "b": "boolean", "@": "map", "{": "map", "[": "list"}  # fmt: skip
_SCHEMA_SORTS = {"object": "map", "array": "list", "string": "string", "integer": "numeric", "number": "numeric",
                 "boolean": "boolean"}  # fmt: skip
_TOP = ("apiVersion", "kind", "metadata")


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known about one place in an object: a Go type's code with the field it is in, or a CRD's schema."""

    code: str = "j"
    field: Field | None = None
    """None for the items of a list and the values of a mapping."""
    schema: dict[str, Any] | None = None
    custom: bool = False
    top: bool = False

    def _type(self) -> Type | None:
        return table().get(self.code[1:]) if self.code[0] == "@" else None

    def child(self, key: str) -> Shape:
        """The shape of the value of ``key``."""
        if self.custom and self.top and key == "metadata":
            return Shape("@meta/v1.ObjectMeta")
        if self.custom:
            schema = self.schema or {}
            inner = (schema.get("properties") or {}).get(key)
            if inner is None and isinstance(schema.get("additionalProperties"), dict):
                inner = schema["additionalProperties"]
            return Shape(schema=inner if isinstance(inner, dict) else None, custom=True)
        if self.code[0] == "{":
            return Shape(self.code[1:])
        type_ = self._type()
        field = type_.fields.get(key) if type_ else None
        return Shape(field.code, field) if field else Shape()

    def item(self) -> Shape:
        """The shape of an item, where this is a list."""
        if self.custom:
            inner = (self.schema or {}).get("items")
            return Shape(schema=inner if isinstance(inner, dict) else None, custom=True)
        return Shape(self.code[1:]) if self.code[0] == "[" else Shape()

    def declares(self, key: str) -> bool:
        """Whether the schema has the field ``key``; what has no schema has every field."""
        if not self.custom:
            type_ = self._type()
            return type_ is None or key in type_.fields
        schema = self.schema or {}
        if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("additionalProperties"):
            return True
        if key in _TOP and (self.top or schema.get("x-kubernetes-embedded-resource")):
            return True
        declared = schema.get("properties") or {}
        return key in declared or not (declared or self.top)

    def sort(self) -> str:
        """``map``, ``list``, ``string``, ``numeric``, ``boolean``, or empty for what may be anything."""
        if not self.custom:
            return _SORTS.get(self.code[0], "")
        schema = self.schema or {}
        return "" if schema.get("x-kubernetes-int-or-string") else _SCHEMA_SORTS.get(str(schema.get("type")), "")

    def keys(self) -> tuple[str, ...]:
        """Names that tell the items of this list apart, SET, or none when the list is atomic."""
        if self.custom:
            kind = (self.schema or {}).get("x-kubernetes-list-type")
            if kind == "set":
                return SET
            keys = (self.schema or {}).get("x-kubernetes-list-map-keys")
            return tuple(keys) if kind == "map" and isinstance(keys, list) else ()
        if self.field is None:
            return ()
        return SET if self.field.is_set else self.field.keys

    def merge_key(self) -> str | None:
        """The field by which a strategic merge tells items apart, empty for plain values, None where it replaces."""
        return self.field.merge_key if self.field else None

    def whole(self) -> bool:
        """True for a mapping that is replaced, never merged."""
        if self.custom:
            return (self.schema or {}).get("x-kubernetes-map-type") == "atomic"
        type_ = self._type()
        return bool(self.field and self.field.atomic) or bool(type_ and type_.atomic)

    def key_of(self, item: Any) -> str | None:
        """A text that is the same for items with the same keys; None when ``item`` lacks one."""
        keys = self.keys()
        if keys == SET:
            return "v:" + json.dumps(item)
        if not isinstance(item, dict):
            return None
        found: dict[str, Any] = {}
        for key in keys:
            value = item.get(key, self.default(key))
            if value is None or isinstance(value, dict | list):
                return None
            found[key] = value
        return "k:" + json.dumps(found, sort_keys=True, separators=(",", ":"))

    def default(self, key: str) -> Any:
        """What an item has for ``key`` when it does not say."""
        if self.custom:
            items = (self.schema or {}).get("items") or {}
            return ((items.get("properties") or {}).get(key) or {}).get("default")
        type_ = self.item()._type()
        field = type_.fields.get(key) if type_ else None
        return (field.default or None) if field else None

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
    if kind.crd:
        return Shape(schema=kind.schema, custom=True, top=True)
    type_ = table().root(kind.key)
    return Shape(f"@{type_.name}" if type_ else "j", top=True)
