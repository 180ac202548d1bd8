"""The recording of a real Proxmox 8.4 API, taken apart: requests in several notations, and what they were answered.

Long bodies are cut off in it (``…``); what is left of such a body is read as far as it goes.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parents[2].parent / "shared" / "facts" / "pve-transcripts.txt"
"""Where the recording lies, beside the repository; it is no part of it."""

_METHODS = ("GET", "POST", "PUT", "DELETE")
_WHO = re.compile(r"\s*\[Token=([^\]]*)\]$")
_PAIR = re.compile(r"\s+(?=[a-z][a-zA-Z0-9-]*=)")
_STATUS = re.compile(r"HTTP/1\.\d (\d{3}) ?(.*)$")


class Cut(dict[str, Any]):
    """A document of which only the beginning was recorded."""


@dataclass
class Exchange:
    """One request and its answer."""

    line: int
    """Where the request stands in the recording, counted from 1."""
    text: str
    """The request as written, without the mark of its token."""
    who: str
    """Beginning of the token's name, or empty."""
    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    """Parsed JSON (a ``Cut`` where it was cut off), text, or None when nothing was recorded."""
    task: dict[str, Any] | None = None
    log: list[str] | None = None
    log_is_cut: bool = False
    method: str = ""
    """Empty for a request that has only a name."""
    path: str = ""
    sent: list[tuple[str, str]] = field(default_factory=list)
    raw: str | None = None
    """The parameters as they went over the wire, where they were sent unencoded."""

    @property
    def named(self) -> bool:
        return not self.method


def load(renamed: Mapping[str, str], place: Path = PLACE) -> list[Exchange]:
    """Every request of the recording, in order; ``renamed`` puts other addresses and digests in its text's place.

    Raises OSError when it is not there.
    """
    found: list[Exchange] = []
    text = place.read_bytes().decode()  # not as text: a line of it ends in CR, and has to
    for theirs, ours in renamed.items():
        text = text.replace(theirs, ours)
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        if not lines[number].startswith("> "):
            number += 1
            continue
        end = number + 1
        while end < len(lines) and not lines[end].startswith("> "):
            end += 1
        found.append(_exchange(number + 1, lines[number:end]))
        number = end
    return found


def _exchange(line: int, lines: list[str]) -> Exchange:
    start = next((n for n, text in enumerate(lines) if _STATUS.match(text)), len(lines))
    asked = "\n".join(lines[:start]).removeprefix("> ")
    who = _WHO.search(asked)
    found = Exchange(line, _WHO.sub("", asked), who[1] if who else "")
    _understand(found)
    for number, text in enumerate(lines[start:]):
        status = _STATUS.match(text)
        if status and found.status:
            break  # the answer to a request that was not recorded
        if status:
            found.status, found.reason = int(status[1]), status[2]
        elif text.startswith("TASK "):
            told = _read(text.removeprefix("TASK ")).get("data")
            found.task = told if isinstance(told, dict) else None
            rows = _read(lines[start + number + 1])
            found.log_is_cut = isinstance(rows, Cut)
            found.log = [
                row["t"] for row in sorted(rows.get("data", []), key=lambda row: row.get("n", 0)) if "t" in row
            ]
            break
        elif re.match(r"[A-Z][A-Za-z-]+: ", text):
            name, _, value = text.partition(": ")
            found.headers[name] = value
        elif text and not text.startswith(("[", "===")) and found.body is None:
            found.body = _read(text) if text.startswith("{") else text
    return found


def _understand(found: Exchange) -> None:
    """Method, path and parameters, in whichever of the notations they are."""
    text = found.text
    first, _, rest = text.partition(" ")
    if first.startswith(("/", "http")) or text.startswith("-"):
        _as_curl(found, text.split(" -H ")[0].split())
        header = re.search(r"-H (Authorization: .*|Cookie: .*)$", text)
        if header:
            name, _, value = header[1].partition(": ")
            found.headers[f"sent {name}"] = value
    elif first in _METHODS and rest.startswith("/"):
        found.method = first
        found.path, _, told = rest.partition(" ")
        if " -d " in f" {told}" or "--data-urlencode" in told or " -H " in f" {told}":
            _unencoded(found, shlex.split(told))
        else:
            found.sent = [_split(pair) for pair in _PAIR.split(f" {told.rstrip(' ')}") if pair.strip()]


def _as_curl(found: Exchange, words: list[str]) -> None:
    found.method = "GET"
    for number, word in enumerate(words):
        if word == "-X":
            found.method = words[number + 1]
        elif word == "-I":
            found.method = "HEAD"
        elif word.startswith(("/", "http")):
            found.path = word


def _unencoded(found: Exchange, words: list[str]) -> None:
    from urllib.parse import quote

    raw = []
    for number, word in enumerate(words[:-1]):
        if word == "-d":
            raw.append(words[number + 1])
        elif word == "--data-urlencode":
            name, _, value = words[number + 1].partition("=")
            raw.append(f"{name}={quote(value, safe='')}")
    found.raw = "&".join(raw)


def _split(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return name.strip(), value


def _read(text: str) -> dict[str, Any]:
    """A JSON document, or a ``Cut`` of what is left of one."""
    with contextlib.suppress(ValueError):
        found: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
        return found
    depth: list[str] = []
    quoted, escaped, keep, closers = False, False, 0, ""
    for number, letter in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = letter == "\\", letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in "{[":
            depth.append("}" if letter == "{" else "]")
        elif letter in "}]":
            depth.pop()
        elif letter == ",":
            keep, closers = number, "".join(reversed(depth))
    return Cut(json.loads(text[:keep] + closers)) if keep else Cut()
