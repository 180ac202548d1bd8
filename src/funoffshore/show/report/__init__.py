"""One self-contained HTML file about a run: timeline, topology, checks and gate.

Needs no script, no network and no other file. What it tells was written by hosts, charts and people: all of it is
redacted before anything else is done with it, and escaped where it is put into an element.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from funoffshore import atomic, errors, gate, journal
from funoffshore.config import ClusterConfig
from funoffshore.reading import Reading
from funoffshore.redact import Redactor, secrets_of
from funoffshore.show.report import page
from funoffshore.status import Status

__all__ = ["write"]


def write(
    config: ClusterConfig, folder: Path, status: Reading[Status], reasons: tuple[gate.Reason, ...], now: float
) -> Path:
    """Writes ``folder/report.html``, 0600, whole or not at all, and returns its path.

    ``folder`` is a run's; ``reasons`` are those the gate is closed for; ``now`` is Unix seconds on the run's clock.
    A journal that cannot be read is said in the report. Raises StateError when the disk does not let us write.
    """
    entries, problem = _entries(folder)
    view = page.View(config, folder.name, tuple(entries), problem, status, reasons, now)
    text = page.page(_clean(view, Redactor(secrets_of(config))))
    path = folder / "report.html"
    try:
        atomic.write(path, text.encode("utf-8", "replace"))
    except OSError as why:
        raise errors.StateError(
            f"cannot write {path}: {why.strerror}", fix="look at the folder's owner, its mode and the free space"
        ) from why
    return path


def _entries(folder: Path) -> tuple[list[journal.Entry], str]:
    try:
        return [replace(e, data=_flat(e.data)) for e in journal.read(folder)], ""
    except errors.StateError as why:
        return [], str(why)
    except RecursionError:
        return [], f"{folder / 'journal.jsonl'} is nested deeper than fo would ever write"
    except OSError as why:
        return [], f"{folder / 'journal.jsonl'}: {why.strerror}"


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a report shows of an entry: texts and lists of texts."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    lists = {key: [v for v in value if isinstance(v, str)] for key, value in data.items() if isinstance(value, list)}
    return texts | lists


def _clean(value: Any, redact: Callable[[str], str]) -> Any:
    """``value`` with every text in it redacted. Values of other kinds stay what they are."""
    if type(value) is str:
        return redact(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_clean(item, redact) for item in value)
    if isinstance(value, Mapping):
        return {_clean(key, redact): _clean(item, redact) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _clean(getattr(value, f.name), redact) for f in dataclasses.fields(value)}
        return replace(value, **fields)
    return value
