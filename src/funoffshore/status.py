"""``status.json``: what the last postcheck proved, and the human marks. Read strictly, written whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funoffshore import atomic, errors, evidence
from funoffshore.reading import Absent, Present, Reading, Unreadable

SCHEMA = 1
LARGEST = 4 * 1024 * 1024
"""Bytes. A real one with 100 nodes is below 200 KiB."""


@dataclass(frozen=True, slots=True)
class Unlock:
    """A human's mark that Stage 2 may run, bound to one statement."""

    by: str
    at: float
    """Unix seconds."""
    digest: str
    """SHA-256 of the canonical statement that the human was shown."""
    signature: str


@dataclass(frozen=True, slots=True)
class Status:
    """The file's content. ``stage_1_complete`` is for people and scripts to read; the gate never believes it."""

    cluster: str
    stage_1_complete: bool
    statement: evidence.Statement | None
    signature: str
    unlock: Unlock | None


def read(state: Path) -> Reading[Status]:
    """Absent when there is no file; Unreadable with the reason when it is anything but exactly what fo writes."""
    path = state / "status.json"
    try:
        text = _bytes(path).decode()
        body = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        return Present(_status(body))
    except FileNotFoundError:
        return Absent()
    except (OSError, ValueError, RecursionError) as why:
        return Unreadable(f"{path.name}: {why}")


def write(state: Path, status: Status) -> None:
    """Replaces ``status.json`` atomically. Raises StateError when the disk does not let us."""
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "cluster": status.cluster,
        "stage_1_complete": status.stage_1_complete,
        "statement": evidence.to_json(status.statement) if status.statement else None,
        "signature": status.signature,
        "unlock": None,
    }
    if status.unlock:
        mark = status.unlock
        body["unlock"] = {"by": mark.by, "at": mark.at, "digest": mark.digest, "signature": mark.signature}
    try:
        state.mkdir(parents=True, exist_ok=True)
        atomic.write(state / "status.json", json.dumps(body, indent=1).encode() + b"\n", mode=0o644)
    except OSError as why:
        raise errors.StateError(f"cannot write {state / 'status.json'}: {why.strerror}") from why


def _bytes(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("is not a regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("is larger than fo would ever write")
    return content


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("has a key twice")
    return body


def _no_constant(name: str) -> Any:
    raise ValueError(f"holds {name}")


def _status(body: object) -> Status:
    expected = {"schema", "cluster", "stage_1_complete", "statement", "signature", "unlock"}
    if not isinstance(body, dict) or body.keys() != expected:
        raise ValueError("does not have exactly the fields that fo writes")
    if type(body["schema"]) is not int or body["schema"] != SCHEMA:
        raise ValueError(f"is of a schema other than {SCHEMA}")
    if type(body["cluster"]) is not str or type(body["signature"]) is not str:
        raise ValueError("cluster and signature must be text")
    if type(body["stage_1_complete"]) is not bool:
        raise ValueError("stage_1_complete is neither true nor false")
    statement = evidence.from_json(body["statement"]) if body["statement"] is not None else None
    return Status(body["cluster"], body["stage_1_complete"], statement, body["signature"], _unlock(body["unlock"]))


def _unlock(body: object) -> Unlock | None:
    if body is None:
        return None
    if not isinstance(body, dict) or body.keys() != {"by", "at", "digest", "signature"}:
        raise ValueError("unlock does not have exactly the fields that fo writes")
    if type(body["at"]) not in (int, float) or any(type(body[k]) is not str for k in ("by", "digest", "signature")):
        raise ValueError("unlock has a field of the wrong type")
    return Unlock(body["by"], float(body["at"]), body["digest"], body["signature"])
