"""The values of an env file after each was looked at by itself, before they are looked at together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from funoffshore.config import envfile, keys, proxmox
from funoffshore.config.files import Problem
from funoffshore.config.sections import Key

_ECHO_AT_MOST = 20
"""Characters, enough for a network. Longer texts may be a secret that was pasted beside the wrong key."""
_GUESSES_AT_MOST = 20
"""Looking for similar names takes a while, and a hostile file has thousands of unknown ones."""

_PASSWORD_LOGIN = re.compile(r"(?:PROXMOX|PVE|PM)_(?:[A-Z]+_)?(?:USER|USERNAME|PASS|PASSWORD|TICKET|OTP)")
"""Keys of other tools, by which a password would come in."""


@dataclass(frozen=True)
class Values:
    """What the keys say: given in the file or by default. Keys whose value is wrong are not in it."""

    stem: str
    """Name of the file without ``.env``."""
    parsed: Mapping[str, Any] = field(repr=False)
    texts: Mapping[str, str] = field(repr=False)
    lines: Mapping[str, int]
    given: frozenset[str]
    """Keys that stand in the file with a value."""
    absent: tuple[str, ...] = ()
    """Keys without a default that have no value here, and that not every cluster needs; see ``needs``."""

    def has(self, *names: str) -> bool:
        """Whether all of these are right; a rule that needs them has nothing to say otherwise."""
        return all(name in self.parsed for name in names)

    def __getitem__(self, name: str) -> Any:
        return self.parsed[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.parsed.get(name, default)

    def problem(self, name: str, text: str) -> Problem:
        """``text`` about the key ``name``, with its line where it has one."""
        return Problem(self.lines.get(name, 0), f"{name}: {text}")


def read(lines: envfile.Lines, stem: str, table: keys.Table) -> tuple[Values, list[Problem]]:
    """Reads every value of the file, and puts in the defaults of the keys that are not in it."""
    problems = list(lines.problems)
    parsed: dict[str, Any] = {}
    texts: dict[str, str] = {}
    absent: list[str] = []
    problems.extend(_unknown(lines, table))
    overrides = [key for name in lines.entries if name not in table.keys and (key := table.find(name))]
    for key in (*table.keys.values(), *overrides):
        entry = lines.entries.get(key.name)
        if key.name in lines.broken:
            continue
        if key.required_for and not (entry and entry.value):
            absent.append(key.name)
            continue
        if entry is None and key.default is None:
            problems.append(Problem(0, f"{key.name}: is required and missing"))
            continue
        text = entry.value if entry else key.default or ""
        try:
            parsed[key.name] = parse(key, text)
            texts[key.name] = text
        except ValueError as why:
            problems.append(Problem(entry.line if entry else 0, f"{key.name}: {_reason(key, text, why)}"))
    given = frozenset(name for name, entry in lines.entries.items() if entry.value)
    numbers = {name: entry.line for name, entry in lines.entries.items()}
    return Values(stem, parsed, texts, numbers, given, tuple(absent)), problems


def parse(key: Key, text: str) -> Any:
    """The value that ``text`` is for ``key``. Raises ValueError, whose reason holds no secret and may be empty."""
    if text:
        return key.kind.parse(text)
    if key.default is None:
        raise ValueError("is empty, and required")
    if key.default and not key.may_be_empty:
        raise ValueError(f"is empty; leave the line out to get {key.default}")
    return key.kind.empty


def _reason(key: Key, text: str, why: ValueError) -> str:
    if type(why) is ValueError and str(why):
        return str(why)
    if key.secret or not key.kind.echo or len(text) > _ECHO_AT_MOST:
        return f"the value is not {key.kind.what}"
    return f'"{text}" is not {key.kind.what}'


def _unknown(lines: envfile.Lines, table: keys.Table) -> Iterator[Problem]:
    """Keys that do not exist. Their values are never shown: nobody knows what they are."""
    guessed = 0
    for entry in lines.entries.values():
        if table.find(entry.key):
            continue
        guess = ""
        if guessed < _GUESSES_AT_MOST:
            guessed += 1
            guess = _similar(entry.key, table)
        yield Problem(entry.line, f"{entry.key}: there is no such key" + guess)


def _similar(name: str, table: keys.Table) -> str:
    import difflib

    if name.startswith("NODE_"):
        return f"; for one machine: NODE_C1_ or NODE_W1_ with {', '.join(keys.NODE_FIELDS)}"
    if _PASSWORD_LOGIN.fullmatch(name):
        return f"; fo logs in with an API token alone (PROXMOX_TOKEN_ID, PROXMOX_TOKEN_SECRET): {proxmox.ONLY_TOKENS}"
    found = difflib.get_close_matches(name, table.keys, n=1, cutoff=0.75)
    return f"; did you mean {found[0]}?" if found else ""
