"""Custom resources against the structural schema of their CRD: prune, default, validate.

Messages as ``k8s.io/kube-openapi/pkg/validation`` writes them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

Cause = dict[str, str]
"""``reason``, ``message``, ``field``, as in metav1.StatusDetails.causes."""
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "number": (int, float),
}  # fmt: skip
_TOP = {"apiVersion", "kind", "metadata"}


def settle(value: Any, schema: dict[str, Any], *, top: bool = True) -> Any:
    """``value`` without undeclared fields and with defaults filled in."""
    if isinstance(value, dict):
        return _settle_mapping(value, schema, top)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [settle(item, schema["items"], top=False) for item in value]
    return value


def _settle_mapping(value: dict[str, Any], schema: dict[str, Any], top: bool) -> dict[str, Any]:
    declared = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    open_ended = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or extra is True or not (declared or top)
    result: dict[str, Any] = {}
    for key, inner in value.items():
        if (top or schema.get("x-kubernetes-embedded-resource")) and key in _TOP:
            result[key] = inner
        elif key in declared:
            if inner is None and not declared[key].get("nullable"):
                continue
            result[key] = settle(inner, declared[key], top=False)
        elif isinstance(extra, dict):
            result[key] = settle(inner, extra, top=False)
        elif open_ended:
            result[key] = inner
    for key, inner in declared.items():
        if key not in result and "default" in inner:
            result[key] = settle(copy.deepcopy(inner["default"]), inner, top=False)
    return result


def unknown(value: Any, schema: dict[str, Any] | None, path: str = "") -> Iterator[str]:
    """``spec.parts[0].foo`` for every field that the schema does not have; nothing without a schema."""
    if schema is None:
        return
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, item in enumerate(value):
            yield from unknown(item, schema["items"], f"{path}[{number}]")
    declared, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    if not isinstance(value, dict) or extra is True:
        return
    own = _TOP if not path or schema.get("x-kubernetes-embedded-resource") else set()
    for key, inner in value.items():
        below = declared.get(key, extra)
        if key in own:
            continue
        if isinstance(below, dict):
            yield from unknown(inner, below, _at(path, key))
        elif (declared or not path) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield _at(path, key)


def check(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[Cause]:
    """Every way in which ``value`` breaks ``schema``."""
    if value is None:
        if not schema.get("nullable") and path:
            yield _wrong(path, "null", f'{path} in body must be of type {schema.get("type", "object")}: "null"')
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield _wrong(path, value, f"{path} in body must be of type integer or string")
        return
    kind = schema.get("type")
    if kind in _TYPES and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        seen = _type_of(value)
        yield _wrong(path, seen, f'{path} in body must be of type {kind}: "{seen}"')
        return
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(json.dumps(v) for v in schema["enum"])
        yield {"reason": "FieldValueNotSupported", "field": path,
               "message": f"Unsupported value: {json.dumps(value)}: supported values: {supported}"}  # fmt: skip
    if isinstance(value, dict):
        yield from _check_mapping(value, schema, path)
    elif isinstance(value, list):
        yield from _check_list(value, schema, path)
    else:
        yield from _check_scalar(value, schema, path)


def _check_mapping(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[Cause]:
    declared = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for name in schema.get("required") or []:
        if name not in value:
            yield {"reason": "FieldValueRequired", "field": _at(path, name), "message": "Required value"}
    for key, inner in value.items():
        if not path and key in _TOP:
            continue
        if key in declared:
            yield from check(inner, declared[key], _at(path, key))
        elif isinstance(extra, dict):
            yield from check(inner, extra, _at(path, key))


def _check_list(value: list[Any], schema: dict[str, Any], path: str) -> Iterator[Cause]:
    if len(value) < schema.get("minItems", 0):
        yield _wrong(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    if len(value) > schema.get("maxItems", len(value)):
        yield _wrong(path, len(value), f"{path} in body should have at most {schema['maxItems']} items")
    if isinstance(schema.get("items"), dict):
        for number, item in enumerate(value):
            yield from check(item, schema["items"], f"{path}[{number}]")


def _check_scalar(value: Any, schema: dict[str, Any], path: str) -> Iterator[Cause]:
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield _wrong(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
        if len(value) > schema.get("maxLength", len(value)):
            yield _wrong(path, value, f"{path} in body should be at most {schema['maxLength']} chars long")
        pattern = schema.get("pattern")
        if pattern and not _matches(pattern, value):
            yield _wrong(path, value, f"{path} in body should match '{pattern}'")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield _wrong(path, value, f"{path} in body should be greater than or equal to {schema['minimum']}")
        if value > schema.get("maximum", value):
            yield _wrong(path, value, f"{path} in body should be less than or equal to {schema['maximum']}")


def _matches(pattern: str, value: str) -> bool:
    """RE2 differs from Python's ``re`` in little that CRDs use; what cannot be compiled is let through."""
    try:
        return re.search(pattern.replace(r"\z", r"\Z"), value) is not None
    except re.error:
        return True


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {dict: "object", list: "array", str: "string", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _wrong(path: str, value: Any, why: str) -> Cause:
    return {"reason": "FieldValueInvalid", "field": path, "message": f"Invalid value: {json.dumps(value)}: {why}"}
