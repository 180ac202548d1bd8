"""The three older patch formats: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic merge.

Every one takes the current object, returns a new one, leaves its arguments alone and raises ApiError 400 or 422
for a patch that makes no sense.
"""

from __future__ import annotations

import copy
from typing import Any

from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.shapes import Shape


def _bad(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, mappings merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(target: Any, patch: Any, shape: Shape) -> Any:
    """Merges lists that have a merge key item by item. Knows the directives ``$patch`` (replace, delete),
    ``$deleteFromPrimitiveList/…``, ``$setElementOrder/…`` (ignored) and ``$retainKeys``."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {k: copy.deepcopy(v) for k, v in patch.items() if k != "$patch"}
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {k: v for k, v in result.items() if k in retained}
    for key, value in patch.items():
        _merge_key(result, key, value, shape)
    return result


def _merge_key(result: Object, key: str, value: Any, shape: Shape) -> None:
    if key.startswith("$deleteFromPrimitiveList/"):
        name = key.partition("/")[2]
        gone = value if isinstance(value, list) else []
        result[name] = [item for item in result.get(name) or [] if item not in gone]
    elif key.startswith("$"):
        return
    elif value is None:
        result.pop(key, None)
    elif isinstance(value, list):
        current = result.get(key)
        result[key] = _merge_list(current if isinstance(current, list) else [], value, shape.child(key))
    else:
        result[key] = strategic(result.get(key), value, shape.child(key))


def _merge_list(target: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    name = shape.merge_key()
    if name == "":
        return [*target, *(copy.deepcopy(item) for item in patch if item not in target)]
    if not name or any(not isinstance(item, dict) for item in patch):
        return copy.deepcopy(patch)
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if item.get("$patch") != "replace"]
    result = [item for item in target if isinstance(item, dict)]
    for item in patch:
        if name not in item:
            raise _bad(f"map: {go_text(item)} does not contain declared merge key: {name}")
        place = next((i for i, old in enumerate(result) if old.get(name) == item[name]), None)
        if item.get("$patch") == "delete":
            if place is not None:
                del result[place]
        elif place is None:
            result.append(strategic({}, item, shape.item()))
        else:
            result[place] = strategic(result[place], item, shape.item())
    return result


def go_text(value: Any) -> str:
    """As Go's ``%v`` prints it."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{go_text(v)}' for k, v in sorted(value.items()))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(go_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<nil>" if value is None else str(value)


def json_patch(target: Object, operations: Any) -> Object:
    """RFC 6902. A failed ``test`` is 422, as the API server answers it."""
    if not isinstance(operations, list):
        raise _bad("error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Patch")
    document: Any = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict):
            raise _bad("error decoding patch: an operation must be an object")
        document = _operate(document, operation)
    if not isinstance(document, dict):
        raise _bad("the patched document is not an object")
    return document


def _operate(document: Any, operation: Object) -> Any:
    op, path = operation.get("op"), _pointer(operation.get("path"))
    if op in ("add", "replace", "test") and "value" not in operation:
        raise _bad(f"error in patch: {op} without a value")
    value = copy.deepcopy(operation.get("value"))
    if op == "test":
        if _look(document, path) != value:
            raise _refused()
        return document
    if op in ("move", "copy"):
        source = _pointer(operation.get("from"))
        value = copy.deepcopy(_look(document, source))
        if op == "move":
            document = _remove(document, source)
        return _add(document, path, value)
    if op == "remove":
        return _remove(document, path)
    if op == "replace":
        if path and isinstance(_look(document, path[:-1]), dict):
            return _add(document, path, value)  # the API server's library takes a key that is not there
        _look(document, path)
        return _add(_remove(document, path) if path else document, path, value)
    if op == "add":
        return _add(document, path, value)
    raise _bad(f"Unexpected kind: {op}")


def _refused() -> ApiError:
    """The API server does not say which operation failed."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise _bad(f"error in patch: {text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(items: list[Any], part: str, limit: int) -> int:
    if part == "-":
        return len(items)
    if not part.isascii() or not part.isdigit() or int(part) > limit:
        raise _refused()
    return int(part)


def _look(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            index = _index(document, part, len(document) - 1)
            if index >= len(document):
                raise _refused()
            document = document[index]
        else:
            raise _refused()
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _look(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        parent.insert(_index(parent, path[-1], len(parent)), value)
    else:
        raise _refused()
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise _refused()
    _look(document, path)
    parent = _look(document, path[:-1])
    if isinstance(parent, dict):
        del parent[path[-1]]
    else:
        del parent[_index(parent, path[-1], len(parent) - 1)]
    return document
