"""Backup archives: their names, what lies beside them, which of them a retention keeps.

Names and files as in pve-storage ``PVE/Storage.pm`` (``archive_info``, ``prune_mark_backup_group``); what is inside is
the lab's own: a configuration and the sizes of its disks, the content of the guest's disks behind them.
"""

from __future__ import annotations

import json
import re
import time
from calendar import timegm
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"vzdump-qemu-(\d+)-(\d{4}(?:_\d\d){2}-\d\d(?:_\d\d){2})\.(vma(?:\.(?:gz|lzo|zst))?)\Z")
_PBS = re.compile(r"vm-(\d+)-(\d{4}-\d\d-\d\dT\d\d_\d\d_\d\dZ)\.pbs\Z")
_PBS_STAMP = "%Y-%m-%dT%H_%M_%SZ"
_STAMP = "%Y_%m_%d-%H_%M_%S"
_SUFFIXES = {"": "vma", "0": "vma", "1": "vma.lzo", "lzo": "vma.lzo", "gzip": "vma.gz", "zstd": "vma.zst"}
_SPANS = {
    "keep-hourly": "%Y/%m/%d/%H",
    "keep-daily": "%Y/%m/%d",
    "keep-weekly": "%G/%V",
    "keep-monthly": "%Y/%m",
    "keep-yearly": "%Y",
}


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive of a machine in a folder."""

    path: Path
    vmid: int
    at: int
    """Unix time of its name."""
    form: str
    """``vma.zst``, …; ``pbs-vm`` on a Proxmox Backup Server."""

    @property
    def volume(self) -> str:
        """Its name within the storage."""
        if self.form != "pbs-vm":
            return f"backup/{self.path.name}"
        return f"backup/vm/{self.vmid}/{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self.at))}"

    @property
    def notes(self) -> str:
        file = beside(self.path, ".notes")
        return file.read_text() if file.is_file() else ""

    @property
    def protected(self) -> bool:
        return beside(self.path, ".protected").is_file()

    def row(self) -> dict[str, Any]:
        """What a listing says of it besides what it says of every file."""
        found: dict[str, Any] = {"format": self.form, "ctime": self.at, "vmid": self.vmid, "subtype": "qemu"}
        found |= {"notes": self.notes} if self.notes else {}
        found |= {"verification": {"state": "ok", "upid": ""}} if self.form == "pbs-vm" else {}
        return {**found, "protected": 1} if self.protected else found


def beside(path: Path, suffix: str) -> Path:
    """The file that belongs to an archive: ``.notes``, ``.protected``."""
    return path.with_name(path.name + suffix)


def name(vmid: int, at: float, compress: str, *, pbs: bool = False) -> str:
    """The file name of an archive made at that time; a Proxmox Backup Server's are the lab's own."""
    if pbs:
        return f"vm-{vmid}-{time.strftime(_PBS_STAMP, time.gmtime(at))}.pbs"
    return f"vzdump-qemu-{vmid}-{time.strftime(_STAMP, time.gmtime(at))}.{_SUFFIXES[compress]}"


def owner(filename: str) -> int | None:
    """The machine that an archive is of, by its name."""
    found = _NAME.match(filename) or _PBS.match(filename)
    return int(found[1]) if found else None


def of(path: Path) -> Archive | None:
    """The archive that the file's name says it is."""
    if (found := _PBS.match(path.name)) is not None:
        return Archive(path, int(found[1]), timegm(time.strptime(found[2], _PBS_STAMP)), "pbs-vm")
    found = _NAME.match(path.name)
    if found is None:
        return None
    return Archive(path, int(found[1]), timegm(time.strptime(found[2], _STAMP)), found[3])


def pbs_file(volume: str) -> str | None:
    """The file that holds ``backup/vm/120/2026-11-24T02:30:00Z``; None for what is no such name."""
    found = re.fullmatch(r"backup/vm/(\d+)/([\dT:-]+Z)", volume)
    return f"vm-{found[1]}-{found[2].replace(':', '_')}.pbs" if found else None


def listed(folder: Path, vmid: int) -> list[Archive]:
    """A machine's archives, newest first."""
    found = [archive for path in folder.iterdir() if (archive := of(path)) and archive.vmid == vmid]
    return sorted(found, key=lambda archive: archive.at, reverse=True)


def superfluous(found: Sequence[Archive], keep: Mapping[str, str]) -> list[Archive]:
    """Those that the retention does not keep. ``found`` newest first; no number, or ``keep-all``, keeps everything."""
    limits = {rule: int(number) for rule, number in keep.items() if rule != "keep-all" and int(number)}
    if keep.get("keep-all") == "1" or not limits:
        return []
    mine = [archive for archive in found if not archive.protected]
    kept = set(mine[: limits.get("keep-last", 0)])
    for rule, form in _SPANS.items():
        spans = {time.strftime(form, time.gmtime(archive.at)) for archive in kept}
        left = limits.get(rule, 0)
        for archive in mine:
            span = time.strftime(form, time.gmtime(archive.at))
            if left and archive not in kept and span not in spans:
                kept.add(archive)
                spans.add(span)
                left -= 1
    return [archive for archive in mine if archive not in kept]


def remove(path: Path) -> None:
    """The archive and what lies beside it."""
    for suffix in ("", ".notes", ".protected", ".log", ".disks"):
        beside(path, suffix).unlink(missing_ok=True)


def write(path: Path, body: Mapping[str, Any]) -> None:
    """An archive that holds ``body``; it appears whole or not at all."""
    fresh = path.with_name(f".{path.name}.dat")
    fresh.write_text(json.dumps(body))
    fresh.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Raises ValueError for a file that is no archive of the lab."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found
