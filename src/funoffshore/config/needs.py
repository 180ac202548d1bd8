"""What a key without a default can be required for: not every cluster needs each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from funoffshore.config import envfile, keys, machines, values
from funoffshore.config.files import Problem
from funoffshore.config.sections import Key
from funoffshore.config.values import Values


@dataclass(frozen=True, slots=True)
class Need:
    """Why a key may be required."""

    text: str
    """Completes "Required …"."""
    holds: Callable[[Values], bool | None]
    """None: cannot be told, as a value that decides it is wrong."""


def problems(found: Values, table: keys.Table) -> Iterator[Problem]:
    """The keys that are required here and not given."""
    for name in found.absent:
        if NEEDS[table.keys[name].required_for].holds(found):
            text = "is empty, and required" if name in found.lines else "is required and missing"
            yield found.problem(name, text)


def of(answers: Mapping[str, str], name: str) -> Values:
    """The values of a file that would hold ``answers`` alone, as far as they are right."""
    entries = {key: envfile.Entry(key, text, at) for at, (key, text) in enumerate(answers.items(), 1)}
    return values.read(envfile.Lines(entries, frozenset(), ()), name, keys.known())[0]


def is_needed(key: Key, found: Values) -> bool:
    """Whether ``key``, which has no default, is required in a file that holds ``found``, or may turn out to be."""
    return not key.required_for or NEEDS[key.required_for].holds(found) is not False


def _made(found: Values) -> bool | None:
    return bool(found.get("LAB")) or machines.makes(found)


def _vip(found: Values) -> bool | None:
    return found["CONTROLLERS"] > 1 if found.has("CONTROLLERS") else None


def _controllers(found: Values) -> bool | None:
    if not found.has("CONTROLLERS"):
        return None
    return not all(f"NODE_C{number}_IP" in found.lines for number in range(1, found["CONTROLLERS"] + 1))


def _auth(way: str) -> Callable[[Values], bool | None]:
    return lambda found: found["SSH_AUTH"] == way if found.has("SSH_AUTH") else None


NEEDS: Mapping[str, Need] = {
    "made": Need("where fo makes machines", _made),
    "vip": Need("with more than one controller", _vip),
    "controllers": Need("unless every controller has an address of its own", _controllers),
    "key": Need("with SSH_AUTH=key", _auth("key")),
    "file": Need("with SSH_AUTH=file", _auth("file")),
    "agent": Need("with SSH_AUTH=agent", _auth("agent")),
}
