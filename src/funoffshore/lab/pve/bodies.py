"""Bodies and queries, parsed as the real API server parses them, with all its departures from the RFCs.

Recorded from a real 8.4 API; pve-http-server ``PVE/APIServer/AnyEvent.pm``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from funoffshore.lab.pve.refusal import RefusalError, plain, silent

_AT = "at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line"
_FIELDS = ("content", "checksum-algorithm", "checksum")


@dataclass(slots=True)
class Upload:
    """A multipart body."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    data: bytes = b""


def form(text: str) -> dict[str, Any]:
    """Splits at ``&`` and ``;`` and cuts a value at its second ``=``; a repeated key becomes a list."""
    found: dict[str, Any] = {}
    for pair in re.split("[&;]", text):
        if not pair:
            continue
        key, _, rest = pair.partition("=")
        name = unquote_plus(key, errors="replace")
        value = unquote_plus(rest.split("=")[0], errors="replace")
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def document(body: bytes) -> dict[str, Any]:
    """A JSON body: true and false become 1 and 0. Refuses null and broken JSON with 500."""
    try:
        found = json.loads(body.decode("utf-8")) if body.strip() else {}
    except (ValueError, RecursionError) as why:
        where = getattr(why, "pos", 0)
        text = f"malformed JSON string, neither tag, array, object, number, string or atom, at character offset {where}"
        raise plain(500, f'{text} (before "(end of string)") {_AT} 917.') from None
    if not isinstance(found, dict):
        raise plain(500, f"Not a HASH reference {_AT} 925.")
    for name, value in found.items():
        if value is None:
            raise RefusalError(500, f"unable to parse value of '{name}' - got undefined value")
        if isinstance(value, bool):
            found[name] = int(value)
        elif isinstance(value, list):
            found[name] = [int(v) if isinstance(v, bool) else v for v in value]
    return found


def parameters(content_type: str, body: bytes) -> dict[str, Any]:
    """The parameters of a body that is no upload. Refuses other content types with 506."""
    kind = content_type.split(";")[0].strip().lower()
    if kind == "application/json":
        return document(body)
    if kind in ("", "application/x-www-form-urlencoded"):
        return form(body.decode("latin-1"))
    if not body:
        return {}
    raise plain(506, f"upload 'Content-Type '{content_type}' not implemented")


def upload(content_type: str, body: bytes) -> Upload:
    """A multipart body: fields in the server's fixed order, then the file, which swallows all that follows it."""
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if boundary is None:
        raise silent(400, "Bad Request")
    mark = b"--" + boundary[1].encode("latin-1")
    found = Upload()
    position = 0
    allowed = list(_FIELDS)
    while True:
        head, start = _head(body, position, mark)
        name = re.search(r'[;\s]name="?([^";]*)"?', head)
        filename = re.search(r'filename="([^"]*)"', head)
        if name is None:
            raise silent(400, "Bad Request")
        if filename is not None:
            if name[1] != "filename":
                text = f"wrong field name '{name[1]}' for file upload, expected 'filename' {_AT} 1281."
                raise plain(500, text)
            found.filename = filename[1].encode("latin-1", "replace").decode("utf-8", "replace")
            found.data = body[start : max(start, len(body.rstrip(b"\r\n")) - len(mark) - 4)]
            return found
        end = body.find(b"\r\n" + mark, start)
        if name[1] not in allowed or end < 0:
            raise silent(400, "Bad Request")
        allowed = allowed[allowed.index(name[1]) + 1 :]
        found.fields[name[1]] = body[start:end].decode("utf-8", "replace")
        position = end + 2


def _head(body: bytes, position: int, mark: bytes) -> tuple[str, int]:
    """Headers of the part that starts at ``position``, and where its content starts."""
    if not body.startswith(mark + b"\r\n", position):
        raise plain(500, f"upload failed {_AT} 1317.")
    end = body.find(b"\r\n\r\n", position)
    if end < 0:
        raise plain(500, f"upload failed {_AT} 1317.")
    return body[position + len(mark) : end].decode("latin-1"), end + 4
