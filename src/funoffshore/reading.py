"""A read has three outcomes. Absent was seen to be absent; unreadable was not seen at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Present(Generic[T]):
    """The door answered, and this is what it showed."""

    value: T


@dataclass(frozen=True, slots=True)
class Absent:
    """The door answered, and the thing is not there."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The door did not answer. Nothing may be created, minted or deleted on the strength of this."""

    why: str
    """Completes "cannot tell, because …"; never a secret."""


Reading: TypeAlias = Present[T] | Absent | Unreadable
