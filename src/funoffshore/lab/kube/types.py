"""The Go types of the built-in kinds, as far as clients see them: fields, types, merge keys.

From ``types.txt``, which ``bench/plane_types.py`` writes from a real API server. A line ``=apps/v1/Deployment
apps/v1.Deployment`` names the type of a kind; every other line is a type (``;A``: replaced as a whole, never merged)
with its fields ``name:number:type;mark;mark``. The number is the field's in protobuf, ``2.19`` for field 19 of an
embedded message 2. Types are

    s text, i int32, l int64, d float, b boolean, y base64, q quantity, t time, T time with microseconds,
    x number or text, r any object, j anything, @name another type, [ a list of, { a mapping from text to

and marks are

    ! required, n may be null in Go, z written even when it is empty, S a set, A replaced as a whole,
    m=a,b a list whose items are told apart by a and b, R other union members go away in a strategic merge,
    p=a key of a strategic merge (nothing: of a list of plain values), d=x default
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a type."""

    name: str
    code: str
    """``s``, ``[@core/v1.Container``."""
    number: tuple[int, ...] = ()
    required: bool = False
    pointer: bool = False
    always: bool = False
    is_set: bool = False
    atomic: bool = False
    keys: tuple[str, ...] = ()
    merge_key: str | None = None
    """Of a strategic merge; empty for a list of plain values; None: the list is replaced."""
    retain: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True)
class Type:
    """A Go struct."""

    name: str
    """``apps/v1.DeploymentSpec``."""
    atomic: bool
    fields: dict[str, Field]

    @property
    def go(self) -> str:
        """``v1.DeploymentSpec``, as Go's messages have it."""
        return self.name.rpartition("/")[2]

    @property
    def struct(self) -> str:
        """``DeploymentSpec``."""
        return self.name.rpartition(".")[2]


class Types:
    """Every type, read when it is first asked for."""

    def __init__(self, text: str) -> None:
        self._roots: dict[str, str] = {}
        self._lines: dict[str, tuple[bool, str]] = {}
        self._read: dict[str, Type] = {}
        for line in text.splitlines():
            name, _, rest = line.partition(" ")
            if name.startswith("="):
                self._roots[name[1:]] = rest
            else:
                self._lines[name.removesuffix(";A")] = (name.endswith(";A"), rest)

    def root(self, kind: str) -> Type | None:
        """The type of ``apps/v1/Deployment``; None for a kind that is not built in."""
        name = self._roots.get(kind)
        return self.get(name) if name else None

    def get(self, name: str) -> Type:
        """``meta/v1.ObjectMeta``. Raises KeyError."""
        if name not in self._read:
            atomic, text = self._lines[name]
            self._read[name] = Type(name, atomic, {f.name: f for f in map(_field, text.split())})
        return self._read[name]

    def below(self, code: str) -> Type | None:
        """The struct that a type's code means, its lists and mappings taken off; None when it is none."""
        name = code.lstrip("[{")
        return self.get(name[1:]) if name.startswith("@") else None

    def reached(self, name: str) -> Iterator[Type]:
        """The type and all that it is made of."""
        waiting, seen = [name], set[str]()
        while waiting:
            here = waiting.pop()
            if here not in seen:
                seen.add(here)
                found = self.get(here)
                yield found
                waiting += [f.code.lstrip("[{")[1:] for f in found.fields.values() if "@" in f.code]


def _field(text: str) -> Field:
    name, numbers, rest = text.split(":", 2)
    code, *marks = rest.split(";")
    values = {mark.partition("=")[0]: mark.partition("=")[2] for mark in marks}
    return Field(
        name, code, tuple(int(n) for n in numbers.split(".") if n), "!" in values, "n" in values, "z" in values,
        "S" in values, "A" in values, tuple(values["m"].split(",")) if "m" in values else (), values.get("p"),
        "R" in values, values.get("d", ""),
    )  # fmt: skip


@functools.cache
def table() -> Types:
    """The one that comes with the lab."""
    return Types((Path(__file__).parent / "types.txt").read_text())
