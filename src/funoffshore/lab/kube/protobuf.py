"""Bodies in Kubernetes' protobuf, as typed clients send them (kubectl create among them).

Only read, never written: who sends protobuf accepts JSON.
"""

from __future__ import annotations

import base64
import datetime
import struct
from collections.abc import Callable, Iterator
from typing import Any

from funoffshore.lab.kube import refusals
from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.types import Field, Type, Types, table

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _BrokenError(Exception):
    """Not protobuf, or not of this message."""


def read(body: bytes) -> Object:
    """The object in ``body`` as JSON would have it. Raises ApiError 400."""
    if not body.startswith(_MAGIC):
        raise refusals.bad("the body of the request does not start with the protobuf prefix of Kubernetes")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        who = dict(_fields(_bytes(envelope[1])))
        api_version, kind = _bytes(who[1]).decode(), _bytes(who[2]).decode()
        type_ = _type(table(), api_version, kind)
        if type_ is None:
            raise refusals.bad(f'no kind "{kind}" is registered for version "{api_version}"')
        return {"apiVersion": api_version, "kind": kind, **_message(type_, _bytes(envelope[2]))}
    except (_BrokenError, KeyError, IndexError, UnicodeDecodeError, struct.error):
        raise refusals.bad("the body of the request is no protobuf of Kubernetes") from None


def _type(types: Types, api_version: str, kind: str) -> Type | None:
    if kind == "DeleteOptions":
        return types.get("meta/v1.DeleteOptions")
    return types.root(f"{api_version}/{kind}")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _BrokenError
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _BrokenError


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and raw value of each field, in order."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise _BrokenError
        if at + size > len(data):
            raise _BrokenError
        yield number, data[at : at + size]
        at += size


def _message(type_: Type, data: bytes) -> Object:
    found: Object = {}
    _fill(found, {f.number: f for f in type_.fields.values()}, data, ())
    return found


def _fill(found: Object, fields: dict[tuple[int, ...], Field], data: bytes, outer: tuple[int, ...]) -> None:
    """``outer``: numbers of the embedded messages around ``data``, whose fields JSON shows among the others."""
    for number, raw in _fields(data):
        place = (*outer, number)
        field = fields.get(place)
        if field is None:
            if any(known[: len(place)] == place for known in fields):
                _fill(found, fields, _bytes(raw), place)
        elif field.code[0] == "[":
            found.setdefault(field.name, []).append(_value(field.code[1:], raw))
        elif field.code[0] == "{":
            entry = dict(_fields(_bytes(raw)))
            key = _bytes(entry.get(1, b"")).decode()
            found.setdefault(field.name, {})[key] = _value(field.code[1:], entry.get(2, b""))
        else:
            value = _value(field.code, raw)
            if value is not None and (value or field.pointer or field.code[0] in "@x"):
                found[field.name] = value


def _value(code: str, raw: int | bytes) -> Any:
    if isinstance(raw, int):
        number = raw - (1 << 64) if raw >> 63 else raw
        return bool(number) if code == "b" else number
    if code[0] == "@":
        return _message(table().get(code[1:]), raw)
    readers: dict[str, Callable[[bytes], Any]] = {
        "s": bytes.decode, "y": lambda b: base64.b64encode(b).decode(), "q": _first_text, "t": _time, "T": _time,
        "x": _int_or_text, "d": _float,
    }  # fmt: skip
    reader = readers.get(code[0])
    return reader(raw) if reader else None


def _float(data: bytes) -> float:
    return float(struct.unpack("<d", data)[0])


def _first_text(data: bytes) -> str:
    return _bytes(dict(_fields(data)).get(1, b"")).decode()


def _time(data: bytes) -> str | None:
    """None for the empty message, which is no time."""
    seconds = dict(_fields(data)).get(1)
    if not isinstance(seconds, int):
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _int_or_text(data: bytes) -> int | str:
    parts = dict(_fields(data))
    if parts.get(1, 0) == 1:
        return _bytes(parts.get(3, b"")).decode()
    number = parts.get(2, 0)
    return number if isinstance(number, int) else 0
