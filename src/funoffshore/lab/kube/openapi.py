"""The OpenAPI documents: what fields the kinds have, for ``kubectl explain`` and for what it asks before it applies.

Without descriptions: the type table has none.
"""

from __future__ import annotations

import hashlib

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind, Kinds
from funoffshore.lab.kube.types import Field, Type, table

_SCALARS: dict[str, Object] = {
    "s": {"type": "string"}, "i": {"type": "integer", "format": "int32"}, "l": {"type": "integer", "format": "int64"},
    "d": {"type": "number", "format": "double"}, "b": {"type": "boolean"}, "y": {"type": "string", "format": "byte"},
    "t": {"type": "string", "format": "date-time"}, "T": {"type": "string", "format": "date-time"},
    "q": {"oneOf": [{"type": "string"}, {"type": "number"}]}, "r": {"type": "object"}, "j": {},
    "x": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
}  # fmt: skip
OLD_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_META = "meta/v1.ObjectMeta"
_ELSEWHERE = {
    "meta": "io.k8s.apimachinery.pkg.apis.meta",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}


def index(kinds: Kinds) -> Object:
    """``/openapi/v3``: where the documents of the groups are."""
    places = {"api/v1" if not k.group else f"apis/{k.group}/{k.version}" for k in kinds.all()}
    return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}?hash={_digest(kinds, p)}"} for p in sorted(places)}}


def _digest(kinds: Kinds, place: str) -> str:
    """Another one when the document is another one: clients keep documents by it."""
    schemas = repr([k.schema for k in _of(kinds, place.split("/")) if k.crd])
    return hashlib.sha256(f"{place} {schemas}".encode()).hexdigest().upper()


def _of(kinds: Kinds, parts: list[str]) -> list[Kind]:
    group, version = (parts[1], parts[2]) if len(parts) == 3 else ("", parts[-1])
    return [k for k in kinds.all() if (k.group, k.version) == (group, version)]


def document(kinds: Kinds, parts: list[str]) -> Object | None:
    """``/openapi/v3/apis/apps/v1``, of ``["apis", "apps", "v1"]``; None when there is no such group."""
    found = _of(kinds, parts)
    if not found:
        return None
    schemas: Object = {}
    for kind in found:
        _add(schemas, kind)
    paths: Object = {}
    for kind in found:
        paths |= _paths(kind, "/".join(parts))
    info = {"title": "Kubernetes", "version": "unversioned"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _paths(kind: Kind, base: str) -> Object:
    inside = "/namespaces/{namespace}" if kind.namespaced else ""
    who = {"group": kind.group, "version": kind.version, "kind": kind.name}
    rule = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}

    def verb(action: str, *parameters: Object) -> Object:
        return {"operationId": f"{action}{kind.name}", "parameters": list(parameters), "responses": {},
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": who}  # fmt: skip

    whole = {"get": verb("list"), "post": verb("post", rule)}
    one = {"get": verb("get"), "put": verb("put", rule), "patch": verb("patch", rule), "delete": verb("delete")}
    return {f"/{base}{inside}/{kind.plural}": whole, f"/{base}{inside}/{kind.plural}/{{name}}": one}


def _add(schemas: Object, kind: Kind) -> None:
    who = [{"group": kind.group, "version": kind.version, "kind": kind.name}]
    top = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    root = table().root(kind.key) if not kind.crd else None
    if root is None:
        schema = dict(kind.schema or {"type": "object"})
        meta = {"metadata": {"allOf": [{"$ref": _reference(_META)}]}}
        schema["properties"] = {**(schema.get("properties") or {}), **top, **meta}
        name = ".".join([*reversed(kind.group.split(".")), kind.version, kind.name])
        schemas[name] = {**schema, "x-kubernetes-group-version-kind": who}
        _reached(schemas, _META)
        return
    _reached(schemas, root.name)
    shown = schemas[_name(root.name)]
    schemas[_name(root.name)] = {
        **shown, "properties": {**top, **shown["properties"]}, "x-kubernetes-group-version-kind": who,
    }  # fmt: skip


def _reached(schemas: Object, name: str) -> None:
    for type_ in table().reached(name):
        schemas.setdefault(_name(type_.name), _schema(type_))


def _name(short: str) -> str:
    """``io.k8s.api.apps.v1.Deployment`` for ``apps/v1.Deployment``."""
    group, _, rest = short.partition("/")
    return f"{_ELSEWHERE.get(group, f'io.k8s.api.{group}')}.{rest}"


def _reference(short: str) -> str:
    return f"#/components/schemas/{_name(short)}"


def _schema(type_: Type) -> Object:
    properties = {f.name: _field(f) for f in type_.fields.values()}
    found: Object = {"type": "object", "properties": properties}
    if required := [f.name for f in type_.fields.values() if f.required]:
        found["required"] = required
    if type_.atomic:
        found["x-kubernetes-map-type"] = "atomic"
    return found


def _field(field: Field) -> Object:
    found = dict(_value(field.code))
    if field.keys:
        found |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(field.keys)}
    elif field.code[0] == "[":
        found["x-kubernetes-list-type"] = "set" if field.is_set else "atomic"
    if field.merge_key is not None:
        found["x-kubernetes-patch-strategy"] = "merge"
    if field.merge_key:
        found["x-kubernetes-patch-merge-key"] = field.merge_key
    if field.default:
        found["default"] = field.default
    return found


def _value(code: str) -> Object:
    if code[0] == "[":
        return {"type": "array", "items": _value(code[1:])}
    if code[0] == "{":
        return {"type": "object", "additionalProperties": _value(code[1:])}
    return {"allOf": [{"$ref": _reference(code[1:])}]} if code[0] == "@" else _SCALARS[code]


def old(text: str) -> Object:
    """``/openapi/v2``: a Swagger document without definitions; whoever wants to know more asks version 3."""
    return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": text}, "paths": {}, "definitions": {}}


def old_protobuf(text: str) -> bytes:
    """The same in protobuf (gnostic's openapi.v2.Document)."""

    def part(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    info = part(1, b"Kubernetes") + part(2, text.encode()[:100])
    return part(1, b"2.0") + part(2, info) + part(8, b"")


def wants_protobuf(headers: dict[str, str]) -> bool:
    """Whether the client's first choice for ``/openapi/v2`` is protobuf."""
    return "proto-openapi" in headers.get("accept", "").split(",")[0]
