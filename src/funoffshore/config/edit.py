"""Changing values in an env file that is the operator's: those lines and no other byte of it."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from funoffshore import atomic, errors
from funoffshore.config import envfile, keys, place, values
from funoffshore.config.envfile import Lines


def set_values(path: Path, wanted: Mapping[str, str]) -> None:
    """Makes the env file at ``path`` say ``wanted``, by key; a value may be empty where the key's may.

    A key that is in the file already keeps its line, and the line its bytes where it says the same. One that is not
    comes behind the others of its section. Everything else stays byte for byte, and so does the mode. A reader sees
    the old file or the new one, never a mixture.

    Raises ConfigError, which holds no value, and then the file is as it was: for a file that cannot be trusted or
    whose lines cannot all be read, a key that there is not, a value that is none for its key, and a file that cannot
    be written.
    """
    shown = place.shown(path, place.root(path.parent))
    data, problems = envfile.read(path)
    if data is None or problems:
        raise _refusal(shown, map(str, problems))
    lines = envfile.parse(data)
    if lines.problems:
        raise _refusal(shown, map(str, lines.problems))
    if wrong := [f"{key}: {said}" for key, text in wanted.items() if (said := _fault(key, text))]:
        raise _refusal(shown, wrong)
    edited = changed(data, lines, wanted)
    if edited == data:
        return
    if len(edited) > envfile.MAX_BYTES:
        raise _refusal(shown, [f"it would be larger than {envfile.MAX_BYTES // 1024} KiB"])
    if worse := envfile.parse(edited).problems:
        raise _refusal(shown, map(str, worse))
    try:
        atomic.write(path, edited, mode=stat.S_IMODE(path.stat().st_mode) & atomic.PRIVATE)
    except OSError as why:
        raise errors.ConfigError(f"{shown} cannot be written: {why.strerror}") from None


def changed(data: bytes, lines: Lines, wanted: Mapping[str, str]) -> bytes:
    """``data``, whose lines are ``lines``, with other values. Pure. Raises ValueError for one that cannot be quoted."""
    rows = data.split(b"\n")
    fresh: dict[int, list[bytes]] = {}
    for key in sorted(wanted, key=_rank):
        row, entry = f"{key}={envfile.quote(wanted[key])}".encode(), lines.entries.get(key)
        if entry is None:
            fresh.setdefault(_end_of_section(key, lines, rows), []).append(row)
        elif entry.value != wanted[key]:
            rows[entry.line - 1] = row
    for at in sorted(fresh, reverse=True):
        rows[at:at] = fresh[at]
    return b"\n".join(rows)


def _fault(key: str, text: str) -> str:
    """What is wrong with ``text`` as the value of ``key``, without showing it; empty when nothing is."""
    known = keys.known().find(key)
    if known is None:
        return "there is no such key"
    try:
        envfile.quote(text)
    except ValueError as why:
        return str(why)
    if not text and known.required_for:
        return ""  # whether it is required hangs on other keys
    try:
        values.parse(known, text)
    except ValueError as why:
        return str(why) if type(why) is ValueError and str(why) else f"the value is not {known.kind.what}"
    return ""


def _rank(key: str) -> tuple[int, str]:
    order = list(keys.known().keys)
    return (order.index(key) if key in order else len(order), key)


def _section(key: str) -> tuple[str, Sequence[str]]:
    """Title of the section of ``key``, and the keys in it; those of single machines stand with CONTROLLERS."""
    name = "CONTROLLERS" if keys.NODE_KEY.fullmatch(key) else key
    for section in keys.known().sections:
        names = [known.name for known in section.keys]
        if name in names:
            return section.title, names
    raise KeyError(key)


def _end_of_section(key: str, lines: Lines, rows: Sequence[bytes]) -> int:
    """Before which of ``rows`` a line for ``key`` comes: behind the last key of its section, else behind the section's
    heading and what is below it, else at the end of the file."""
    title, names = _section(key)
    is_machines = "CONTROLLERS" in names
    there = [e.line for e in lines.entries.values() if e.key in names or (is_machines and keys.NODE_KEY.match(e.key))]
    if there:
        return max(there)
    heading = f"# ==== {title} =".encode()
    starts = [at for at, row in enumerate(rows) if row.startswith(heading)]
    end = len(rows)
    if starts:
        end = next((at for at in range(starts[0] + 1, len(rows)) if rows[at].startswith(b"# ==== ")), end)
    while end > 0 and not rows[end - 1]:
        end -= 1
    return end


def _refusal(shown: str, said: Iterable[str]) -> errors.ConfigError:
    lines = tuple(said)
    return errors.ConfigError(
        f"{shown} was not changed", fix="correct what is named, and run the same command again", evidence=lines[:40]
    )
