"""The text of an env file and its lines. Nothing is ever expanded, run or guessed; docs/reference/config.md has the
grammar.

No problem reported here holds a byte of the file except the name of a key.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from funoffshore.config import files
from funoffshore.config.files import FILE, Problem

MAX_BYTES = 64 * 1024
MAX_LINE_BYTES = 4 * 1024

_KEY = r"[A-Z][A-Z0-9_]{0,63}"
_ASSIGNMENT = re.compile(rf"({_KEY})=(.*)")
_LOOSE_ASSIGNMENT = re.compile(rf"(?:export\s+)?\s*({_KEY})\s*=")
_NEEDS_QUOTES = re.compile(r"""[\s#'"]""")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands in the file."""

    key: str
    value: str = field(repr=False)
    line: int


@dataclass(frozen=True, slots=True)
class Lines:
    """What the lines of a file say."""

    entries: dict[str, Entry]
    """By key; of a key that stands there twice, the first."""
    broken: frozenset[str]
    """Keys whose line is there and cannot be read; they are not missing."""
    problems: tuple[Problem, ...]


def read(path: Path) -> tuple[bytes | None, list[Problem]]:
    """The bytes of the file, or why it is not trusted: see ``files.read``. It must be private and the reader's own."""
    return files.read(path, MAX_BYTES, _distrust)


def parse(data: bytes) -> Lines:
    """Reads every line, whatever is wrong with others. ``data`` may be any bytes."""
    entries: dict[str, Entry] = {}
    broken: set[str] = set()
    problems: list[Problem] = []
    unclean: dict[str, list[int]] = {}
    for number, raw in enumerate(data.split(b"\n"), start=1):
        line = raw.decode("utf-8", errors="replace")
        if faults := list(_unclean(raw, number)):
            for fault in faults:
                unclean.setdefault(fault, []).append(number)
            broken.update(match[1] for match in [_LOOSE_ASSIGNMENT.match(line)] if match)
            continue
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        text = _wrong_shape(line, match)
        if text:
            problems.append(Problem(number, text))
            broken.update(found[1] for found in [_LOOSE_ASSIGNMENT.match(line)] if found)
        elif match and match[1] in entries:
            problems.append(Problem(number, f"{match[1]}: is already on line {entries[match[1]].line}"))
        elif match:
            entries[match[1]] = Entry(match[1], _unquoted(match[2]), number)
    problems.extend(_gathered(unclean))
    return Lines(entries, frozenset(broken), tuple(problems))


def quote(value: str) -> str:
    """``value`` as it is written after ``KEY=``. Raises ValueError for a value that no quoting can hold."""
    if any(_is_forbidden(c) for c in value):
        raise ValueError("an env file holds no control characters")
    if not _NEEDS_QUOTES.search(value):
        return value
    for mark in "\"'":
        if mark not in value:
            return mark + value + mark
    raise ValueError("a value with both kinds of quotes cannot be written in an env file")


def _distrust(status: os.stat_result) -> Iterator[Problem]:
    if status.st_uid != os.geteuid():
        yield Problem(FILE, f"belongs to uid {status.st_uid}, and fo runs as uid {os.geteuid()}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~0o600:
        yield Problem(FILE, f"has mode {mode:04o}; it holds secrets and must have 0600")


def _unclean(raw: bytes, number: int) -> Iterator[str]:
    """What keeps the line from being text at all."""
    if len(raw) > MAX_LINE_BYTES:
        yield f"is longer than {MAX_LINE_BYTES // 1024} KiB"
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError:
        yield "is not UTF-8"
        return
    if number == 1 and line.startswith("\ufeff"):
        yield "starts with a byte order mark; save the file without one"
        line = line[1:]
    if line.endswith("\r"):
        yield "ends in a carriage return; save the file with Unix line ends"
        line = line[:-1]
    names = {"\0": "NUL", "\t": "a tab", "\r": "a carriage return"}
    for name in sorted({names.get(c, f"the character U+{ord(c):04X}") for c in line if _is_forbidden(c)}):
        yield f"holds {name}"


def _is_forbidden(char: str) -> bool:
    """Control, format (zero width, bidirectional), line separators, surrogates: what the eye cannot check."""
    return not " " <= char <= "~" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _gathered(unclean: dict[str, list[int]]) -> Iterator[Problem]:
    """One problem per fault, since such faults come in hundreds."""
    for text, numbers in unclean.items():
        more = f" (and {len(numbers) - 1} more {'lines' if len(numbers) > 2 else 'line'})" if numbers[1:] else ""
        yield Problem(numbers[0], text + more)


def _wrong_shape(line: str, match: re.Match[str] | None) -> str:
    """Why the line cannot be read, without its text; empty when it can."""
    if match is None:
        if line.startswith("export "):
            return 'starts with "export"; write KEY=value'
        if _LOOSE_ASSIGNMENT.match(line.lstrip()):
            return "has spaces before the key or around its =; write KEY=value"
        return "is neither KEY=value nor a # comment"
    key, value = match[1], match[2]
    if value[:1] in ('"', "'"):
        if len(value) < 2 or value[-1] != value[0] or value[0] in value[1:-1]:
            return f"{key}: a value that starts with a quote ends with the same one, and has none in between"
        return ""
    if value != value.strip():
        return f"{key}: has spaces at the start or end of its value; remove them or put quotes around the whole"
    if found := _NEEDS_QUOTES.search(value):
        what = {"#": "a #", '"': "a quote", "'": "a quote"}.get(found[0], "a space")
        return f"{key}: has {what} in its value; put quotes around the whole value (comments have lines of their own)"
    return ""


def _unquoted(value: str) -> str:
    return value[1:-1] if value[:1] in ('"', "'") else value
