"""What server-side apply refuses before it merges: values and lists that the schema of the kind does not allow.

Messages as sigs.k8s.io/structured-merge-diff writes them (recorded from a v1.36 API server).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from funoffshore.lab.kube.patches import go_text
from funoffshore.lab.kube.shapes import SET, Shape

_NUMERIC = "expected numeric (int or float)"


def problem(config: Any, shape: Shape) -> str:
    """``.spec.replicas: expected numeric (int or float), got string``: the first thing that is wrong, or empty."""
    top = {k: v for k, v in config.items() if k not in ("apiVersion", "kind")}
    return next(_struct(top, shape, ""), "")


def _value(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if value is None:
        return
    sort = shape.sort()
    if sort == "map":
        if isinstance(value, dict):
            yield from _struct(value, shape, path)
        else:
            yield f"{path}: expected map, got &{{{go_text(value)}}}"
    elif sort == "list":
        if isinstance(value, list):
            yield from _list(value, shape, path)
        else:
            yield f"{path}: expected list, got &{{{go_text(value)}}}"
    elif wrong := _scalar(value, sort):
        yield f"{path}: {wrong}"


def _scalar(value: Any, sort: str) -> str:
    if sort == "string" and not isinstance(value, str):
        return f"expected string, got &value.valueUnstructured{{Value:{go_text(value)}}}"
    if sort == "numeric" and (isinstance(value, bool) or not isinstance(value, int | float)):
        names = {str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
        return f"{_NUMERIC}, got {names.get(type(value), 'nil')}"
    if sort == "boolean" and not isinstance(value, bool):
        return f"expected boolean, got &{{{go_text(value)}}}"
    return ""


def _struct(value: dict[str, Any], shape: Shape, path: str) -> Iterator[str]:
    for key, inner in value.items():
        if not shape.declares(key):
            yield f"{path}.{key}: field not declared in schema"
        else:
            yield from _value(inner, shape.child(key), f"{path}.{key}")


def _list(value: list[Any], shape: Shape, path: str) -> Iterator[str]:
    keys = shape.keys()
    seen: set[str] = set()
    for number, item in enumerate(value):
        place = f"{path}[{number}]"
        if keys and keys != SET and (wrong := _unkeyed(item, shape)):
            yield f"{path}: element {number}: associative list with keys {wrong}"
            continue
        if keys:
            key = shape.key_of(item) or ""
            place = path + spell_key(key)
            if key in seen:
                yield f"{path}: duplicate entries for key {spell_key(key)}"
            seen.add(key)
        yield from _value(item, shape.item(), place)


def _unkeyed(item: Any, shape: Shape) -> str:
    if not isinstance(item, dict):
        return "may not have non-map elements"
    keys = shape.keys()
    missing = [key for key in keys if item.get(key) is None and shape.default(key) is None]
    return f'has an element that omits key field "{missing[0]}" (and doesn\'t have default value)' if missing else ""


def spell_key(key: str) -> str:
    """``[name="a"]`` for ``k:{"name":"a"}``."""
    sort, _, rest = key.partition(":")
    if sort == "k":
        return "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items()) + "]"
    return f"[={rest}]"
