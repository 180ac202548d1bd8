"""Objects as Go's types have them: what the API server makes of a body, and how it refuses one that does not fit.

Messages as recorded from a v1.36 API server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from funoffshore.lab.kube import refusals
from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind
from funoffshore.lab.kube.types import Field, Type, table

_SAYS = {str: "string", int: "number", float: "number", bool: "bool", dict: "object", list: "array"}
_GO = {
    "s": "string", "i": "int32", "l": "int64", "d": "float64", "b": "bool", "y": "[]uint8", "t": "v1.Time",
    "T": "v1.MicroTime", "q": "resource.Quantity", "x": "int32", "r": "map[string]interface {}", "j": "v1.JSON",
}  # fmt: skip
_PYTHON = {"s": str, "y": str, "b": bool, "r": dict, "t": str, "T": str}
_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_BITS = {"i": 31, "l": 63}


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of fields that nobody knows: ``Ignore``, ``Warn`` or ``Strict``, as fieldValidation says."""

    mode: str = "Ignore"
    warnings: list[str] = field(default_factory=list)
    """What the client is to be told."""

    def judge(self, unknown: Sequence[str]) -> str:
        """Why these fields are a reason to refuse the object; empty when they are none."""
        told = [f'unknown field "{path}"' for path in unknown]
        if self.mode == "Strict" and told:
            return "strict decoding error: " + ", ".join(told)
        if self.mode == "Warn":
            self.warnings.extend(told)
        return ""


LENIENT = Rule()


class GoError(Exception):
    """A value that Go cannot put where it belongs; the text is Go's."""


class Fitting:
    """One object on its way into Go's types. ``unknown`` are the paths of fields that no type has."""

    def __init__(self, *, truncate: bool = False) -> None:
        self.unknown: list[str] = []
        self._truncate = truncate
        """As server-side apply's converter does it with numbers that are too large."""

    def struct(self, type_: Type, value: Any, path: tuple[str, ...] = (), shown: str = "") -> Object:
        """``value`` without nulls and without unknown fields. Raises GoError."""
        found: Object = {}
        for key, inner in value.items():
            known = type_.fields.get(key)
            if known is None:
                self.unknown.append(f"{shown}.{key}".lstrip("."))
            elif inner is not None:
                place = f"{type_.struct}.{'.'.join((*path, key))}"
                found[key] = self._value(known.code, inner, (*path, key), f"{shown}.{key}", place)
        return found

    def _value(self, code: str, value: Any, path: tuple[str, ...], shown: str, place: str) -> Any:
        sort = code[0]
        if sort == "[":
            _need(value, list, code, place)
            return [
                self._value(code[1:], _zero(code[1:]) if item is None else item, path, f"{shown}[{n}]", place)
                for n, item in enumerate(value)
            ]
        if sort == "{":
            _need(value, dict, code, place)
            return {
                k: self._value(code[1:], _zero(code[1:]) if v is None else v, path, f"{shown}.{k}", place)
                for k, v in value.items()
            }
        if sort == "@":
            _need(value, dict, code, place)
            return self.struct(table().get(code[1:]), value, path, shown)
        return self._integer(code, value, place) if code in "il" else _scalar(code, value, place)

    def _integer(self, code: str, value: Any, place: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _cannot(value, code, place)
        half: int = 1 << _BITS[code]
        if isinstance(value, int) and -half <= value < half:
            return value
        if not self._truncate:
            raise GoError(f"json: cannot unmarshal number {value} into Go struct field {place} of type {_GO[code]}")
        if isinstance(value, float):
            raise GoError(f"cannot convert float64 to {_GO[code]}")
        return (value + half) % (2 * half) - half


def _need(value: Any, wanted: type, code: str, place: str) -> None:
    if not isinstance(value, wanted):
        raise _cannot(value, code, place)


def _scalar(code: str, value: Any, place: str) -> Any:
    wanted = _PYTHON.get(code)
    if wanted:
        _need(value, wanted, code, place)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if code == "y":
        _base64(value)
    elif code in "tT" and not _TIME.fullmatch(value):
        raise GoError(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"')
    elif code == "q":
        text = str(value) if number else value if isinstance(value, str) else ""
        if not _QUANTITY.fullmatch(text):
            raise GoError(f"quantities must match the regular expression '^{_QUANTITY.pattern}$'")
        return text
    elif code in "dx" and not (number or (code == "x" and isinstance(value, str))):
        raise _cannot(value, code, place)
    return value


def _cannot(value: Any, code: str, place: str) -> GoError:
    what = _SAYS.get(type(value), "null")
    return GoError(f"json: cannot unmarshal {what} into Go struct field {place} of type {_go_name(code)}")


def _go_name(code: str) -> str:
    if code[0] == "[":
        return f"[]{_go_name(code[1:])}"
    if code[0] == "{":
        return f"map[string]{_go_name(code[1:])}"
    return table().get(code[1:]).go if code[0] == "@" else _GO[code]


def _zero(code: str) -> Any:
    return {"s": "", "i": 0, "l": 0, "d": 0, "b": False, "@": {}, "[": [], "{": {}}.get(code[0], "")


def _base64(text: str) -> None:
    plain = text.replace("\n", "").replace("\r", "")
    wrong = re.search(r"[^A-Za-z0-9+/=]|=(?!=?$)", plain)
    if wrong or len(plain) % 4:
        at = wrong.start() if wrong else len(plain) // 4 * 4
        raise GoError(f"illegal base64 data at input byte {at}")


def type_of(kind: Kind) -> Type | None:
    """The Go type of a built-in kind."""
    return None if kind.crd else table().root(kind.key)


def fit(kind: Kind, obj: Object, *, truncate: bool = False) -> tuple[Object, list[str]]:
    """``obj`` as Go has it, and the fields that were left out because nobody knows them. Raises GoError.

    Of a custom resource only the metadata has a Go type.
    """
    fitting = Fitting(truncate=truncate)
    type_ = type_of(kind)
    if type_ is not None:
        fresh = fitting.struct(type_, obj)
    else:
        meta = obj.get("metadata") or {}
        _need(meta, dict, "@meta/v1.ObjectMeta", f"{kind.name}.metadata")
        inner = fitting.struct(table().get("meta/v1.ObjectMeta"), meta, ("metadata",), ".metadata")
        fresh = {**obj, "metadata": inner}
    fresh.setdefault("metadata", {})
    return fresh, fitting.unknown


def body(kind: Kind, obj: Object) -> tuple[Object, list[str]]:
    """``fit`` for the body of a POST or PUT. Raises ApiError 400."""
    try:
        return fit(kind, obj)
    except GoError as why:
        raise refusals.unfit(kind, str(why)) from None


def complete(kind: Kind, obj: Object) -> None:
    """Adds, in place, the fields that Go writes even when they are empty, and removes those that it does not."""
    type_ = type_of(kind)
    if type_ is not None:
        _complete(type_, obj)


def _complete(type_: Type, obj: Object) -> None:
    for known in type_.fields.values():
        value = obj.get(known.name)
        if value is None and known.always:
            value = obj[known.name] = _empty(known)
        elif not value and known.name in obj and _omitted(known):
            del obj[known.name]
            continue
        if value is not None and "@" in known.code:
            _inside(known.code, value)


def _omitted(known: Field) -> bool:
    """Whether Go leaves the field out while it is empty: no struct, no pointer."""
    return not (known.always or known.pointer or known.code[0] in "@tTqxrj")


def _empty(known: Field) -> Any:
    sort = known.code[0]
    return {} if sort == "@" else {"s": "", "i": 0, "l": 0, "d": 0, "b": False}.get(sort)


def _inside(code: str, value: Any) -> None:
    if code[0] == "@":
        _complete(table().get(code[1:]), value)
        return
    for item in value if code[0] == "[" else value.values():
        _inside(code[1:], item)
