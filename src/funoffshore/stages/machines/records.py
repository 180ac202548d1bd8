"""What was read of every VM, and when, kept between runs: an unchanged cluster is not read anew each time.

Only a shortcut: a record counts for ``FRESH`` seconds and only while the lists show its VM unchanged, ``fo plan`` and
``fo doctor`` do not use it, and without the file everything is simply read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from funoffshore import atomic
from funoffshore.world.proxmox import VmConfig, VmRow

FRESH = 3600.0
"""Seconds for which a configuration that was read is believed while the lists show its VM unchanged."""
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Record:
    """The configuration of one VM as it was read."""

    row: str
    """What the lists said of the VM at that time; see ``row_of``."""
    at: float
    """Unix seconds."""
    config: VmConfig


@dataclass(slots=True)
class Records:
    """The file in memory."""

    configs: dict[int, Record] = field(default_factory=dict)
    """By VMID."""
    numbers: dict[str, int] = field(default_factory=dict)
    """VMID that was chosen for a machine, by node name: while it is being created, nothing else tells whose it is."""
    seedless: set[str] = field(default_factory=set)
    """Identities of machines whose seed was seen to be gone."""
    guarded: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By identity, the fingerprint of the firewall rules that were seen to be in force, and when (Unix seconds)."""

    def config(self, row: VmRow, now: float) -> VmConfig | None:
        """What a read of ``row``'s VM would show, as far as anybody can tell without reading."""
        found = self.configs.get(row.vmid)
        if found is None or found.row != row_of(row) or not 0 <= now - found.at <= FRESH:
            return None
        return found.config

    def guards(self, identity: str, rules: str, now: float) -> bool:
        """Whether a machine's firewall was seen to be in force with those rules, not too long ago."""
        found = self.guarded.get(identity)
        return found is not None and found[0] == rules and 0 <= now - found[1] <= FRESH


def row_of(row: VmRow) -> str:
    """What the lists say of a VM that changes only when its configuration does."""
    return "|".join((row.node, row.name, ";".join(sorted(row.tags)), str(row.cpus), str(row.memory), str(row.disk),
                     row.lock, row.pool, str(row.template)))  # fmt: skip


def read(state: Path) -> Records:
    """The records below ``state``; empty ones when there is no file that can be read."""
    try:
        return _parse(json.loads(_path(state).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Records()


def update(state: Path, change: Callable[[Records], None]) -> None:
    """Reads, changes, writes, alone: a ``fo plan`` may look while a bootstrap writes down what it is about to make.

    A disk that takes no more costs time at the next look and nothing else.
    """
    with _LOCK, contextlib.suppress(OSError):
        state.mkdir(parents=True, exist_ok=True)
        with (state / "seen.lock").open("a") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            records = read(state)
            change(records)
            atomic.write(_path(state), json.dumps(_plain(records)).encode())


def forget(state: Path, vmids: Iterable[int]) -> None:
    """The next look reads these VMs whatever the lists say."""

    def change(records: Records) -> None:
        for vmid in vmids:
            records.configs.pop(vmid, None)

    update(state, change)


def _path(state: Path) -> Path:
    return state / "seen.json"


def _plain(records: Records) -> dict[str, Any]:
    return {
        "configs": {
            str(vmid): {"row": r.row, "at": r.at, "digest": r.config.digest, "options": dict(r.config.options)}
            for vmid, r in records.configs.items()
        },
        "numbers": records.numbers,
        "seedless": sorted(records.seedless),
        "guarded": records.guarded,
    }


def _parse(data: Mapping[str, Any]) -> Records:
    configs = {
        int(vmid): Record(
            str(r["row"]),
            float(r["at"]),
            VmConfig({str(k): str(v) for k, v in r["options"].items()}, str(r["digest"])),
        )
        for vmid, r in data["configs"].items()
    }
    numbers = {str(name): int(vmid) for name, vmid in data["numbers"].items()}
    guarded = {str(identity): (str(rules), float(at)) for identity, (rules, at) in data["guarded"].items()}
    return Records(configs, numbers, {str(identity) for identity in data["seedless"]}, guarded)
