"""The helper's reply, value by value: JSON that is not of the promised kind raises ReplyError."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from funoffshore.reading import Absent, Present, Reading, Unreadable

T = TypeVar("T")


class ReplyError(ValueError):
    """The bytes are not an answer of the helper. Never holds the bytes."""


def reading(item: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> Reading[T]:
    """Absent only where the host said so in so many words."""
    match item.get("state"):
        case "present":
            return Present(read(item))
        case "absent":
            return Absent()
        case "unreadable":
            return Unreadable(text(item, "error") or "the host did not say why")
    raise ReplyError("a reading is neither present, absent nor unreadable")


def bytes_of(item: Mapping[str, Any]) -> bytes | None:
    """The content that came with a file, if it did."""
    if "content" not in item:
        return None
    try:
        return base64.b64decode(text(item, "content"), validate=True)
    except (binascii.Error, ValueError):
        raise ReplyError("a file's content is not base64") from None


def table(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ReplyError(f"{name} is not a table")
    return value


def text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key, "")
    if not isinstance(value, str):
        raise ReplyError(f"{key} is not text")
    return value


def words(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = item.get(key, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ReplyError(f"{key} is not a list of words")
    return tuple(value)


def number(item: Mapping[str, Any], key: str) -> float:
    value = item.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e18:
        raise ReplyError(f"{key} is not a sensible number")
    return value


def count(digits: str) -> int:
    """systemd leaves out what it does not know."""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def ports(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(port) is int and 0 < port < 65536 for port in value):
        raise ReplyError("listening is not a list of ports")
    return value
