"""What a part of the internet answers, before it is put on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body, headers. Ranges and HEAD are the server's business."""

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.stat().st_size


def plain(status: int, text: str) -> Reply:
    """One line of text."""
    return Reply(status, f"{text}\n".encode(), {"Content-Type": "text/plain; charset=utf-8"})


def canonical(value: Any) -> bytes:
    """JSON with one form for one value, so that digests repeat."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
