"""Bodies of requests, whole or in chunks, and the byte ranges that clients ask for."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from io import BufferedIOBase
from typing import BinaryIO

_IN_MEMORY = 1 << 20
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    host: str
    """In lower case, without port."""
    path: str
    """Decoded."""
    query: str
    headers: Mapping[str, str]
    body: BinaryIO | bytes = b""


@contextlib.contextmanager
def read_body(headers: Message, source: BufferedIOBase) -> Iterator[BinaryIO | bytes]:
    """All of a request's body: bytes while it is small, else a file that is gone afterwards. Raises OSError."""
    size = int(headers.get("Content-Length") or 0)
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    if not chunked and size <= _IN_MEMORY:
        yield source.read(size) if size else b""
        return
    with tempfile.TemporaryFile() as file:
        for part in _chunks(source) if chunked else _parts(source, size):
            file.write(part)
        file.seek(0)
        yield file


def _chunks(source: BufferedIOBase) -> Iterator[bytes]:
    while size := int(source.readline(64).partition(b";")[0].strip() or b"0", 16):
        yield from _parts(source, size)
        source.readline(64)
    while source.readline(_CHUNK).strip():
        """trailers"""


def _parts(source: BufferedIOBase, size: int) -> Iterator[bytes]:
    while size:
        part = source.read(min(size, _CHUNK))
        if not part:
            raise ConnectionError("the body ended early")
        size -= len(part)
        yield part


def span(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last that a ``Range`` header asks for; None when there are none such.

    What is no range of one part is ignored, as the standard allows.
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.strip())
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) and size else None
    end = min(size, int(last) + 1) if last else size
    return (int(first), end) if int(first) < end else None
