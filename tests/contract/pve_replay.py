"""The recording played again: its requests sent to the lab, and both answers made comparable.

What is random on a real server (IDs of tasks, digests, times, made-up addresses, key order) is replaced on both sides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pve_bench
from pve_bench import Answer, Bench
from pve_transcripts import Cut, Exchange

TOKENS = {
    "root@pam": "root@pam!full",
    "fo@pve!t": "fo@pve!t1",
    "fo@pve!s": "fo@pve!sep",
    "weak@pve": "weak@pve!t1",
    "nobody@p": "nobody@pve!tok",
}
NUMBERS = frozenset(
    (
        "avail", "cpu", "ctime", "diskread", "diskwrite", "endtime", "maxcpu", "mem", "mhz", "netin", "netout",
        "next-run", "pid", "pstart", "starttime", "uptime", "used", "used_fraction",
    )
)  # fmt: skip
"""Values that are never the same twice: only that there is a number is compared."""
ONLY_THERE = frozenset(("blockstat", "mhz", "running-machine", "running-qemu", "total"))
"""Values of another machine, or another QEMU: only that they are there is compared. ``total``: see ``_is_size``."""
_UPID = re.compile(r"UPID:[\w-]+:[0-9A-F]{8}:[0-9A-F]{8}:[0-9A-F]{8}:")
_RANDOM = (
    (_UPID, "UPID:"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\bBC:24:11(:[0-9A-F]{2}){3}\b"), "MAC"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "DIGEST"),
    (re.compile(r"ctime=\d+"), "ctime=N"),
    (re.compile(r"pveupload-\w+"), "pveupload-HASH"),
    (re.compile(r"qemu-img\.real"), "qemu-img"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( \([\d.]+ .B/s\))?"), "TIME"),
    (re.compile(r"tmp_dwnl\.\d+"), "tmp_dwnl.N"),
    (re.compile(r"creation-qemu=[\d.]+"), "creation-qemu=V"),
)
_KEYS = (
    "upid",
    "volid",
    "vmid",
    "key",
    "iface",
    "storage",
    "poolid",
    "pool",
    "sid",
    "pos",
    "subdir",
    "name",
    "n",
    "id",
)


@dataclass
class Player:
    """Sends the recorded requests to a lab and says what differs."""

    bench: Bench
    upids: dict[str, str] = field(default_factory=dict)
    """Recorded UPID → the lab's."""

    def send(self, recorded: Exchange, named: tuple[str, str, dict[str, Any]] | None = None) -> Answer:
        """The lab's answer to a recorded request; tasks of the recording are the lab's own."""
        path = recorded.path
        for theirs, ours in self.upids.items():
            path = path.replace(theirs, ours)
        token = TOKENS.get(recorded.who, "")
        headers = {"Authorization": f"PVEAPIToken={token}={pve_bench.SECRET}"} if token else {}
        if named is not None:
            method, path, words = named
            headers |= words.get("headers", {})
            return self.bench.raw(method, path, "", **{**words, "headers": headers})
        for name in ("Authorization", "Cookie"):
            if f"sent {name}" in recorded.headers:
                headers[name] = recorded.headers[f"sent {name}"]
        how: dict[str, Any] = {"params" if recorded.method in ("GET", "DELETE") else "data": recorded.sent}
        if recorded.raw is not None:
            how = {"data": recorded.raw.encode()}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self.bench.raw(recorded.method, path, "", headers=headers, allow_redirects=False, **how)

    def differences(self, recorded: Exchange, answer: Answer, *, wait: bool = True) -> list[str]:
        """What the lab says otherwise than the real server did; empty when nothing."""
        found = []
        if (recorded.status, clean(recorded.reason)) != (answer.status, clean(answer.reason)):
            found.append(f"status: {recorded.status} {recorded.reason} != {answer.status} {answer.reason}")
        for name, value in recorded.headers.items():
            if not name.startswith("sent ") and answer.headers.get(name) != value:
                found.append(f"header: {name} {value} != {answer.headers.get(name)}")
        if recorded.body is None and recorded.status == 200:
            return found  # the recording did not keep it
        theirs = recorded.body if recorded.body is not None else ""
        if isinstance(theirs, str) or isinstance(answer.body, str):
            if clean(theirs) != clean(answer.body):
                found.append(f"body: {theirs!r} != {answer.body!r}")
            return found
        found += compare(theirs, answer.body, isinstance(theirs, Cut), "")
        upid = theirs.get("data")
        if isinstance(upid, str) and upid.startswith("UPID:") and answer.status == 200:
            self.upids[upid] = str(answer.body["data"])
            if wait:
                self.bench.status(self.upids[upid])
        return found + self._task_differences(recorded)

    def _task_differences(self, recorded: Exchange) -> list[str]:
        """The same for the task that the recording looks at here, once it is over."""
        if recorded.task is None or recorded.task.get("upid") not in self.upids:
            return []
        upid = self.upids[str(recorded.task["upid"])]
        found = compare(recorded.task, self.bench.status(upid), isinstance(recorded.task, Cut), "task")
        ours, theirs = [essential(self.bench.log(upid)), essential(recorded.log or [])]
        if recorded.log_is_cut:
            ours = ours[: len(theirs)]
        return found + ([f"log: {theirs} != {ours}"] if theirs != ours else [])


def essential(log: list[str]) -> list[str]:
    """A task's log without how far a copy got at which moment."""
    return [clean(line) for line in log if not re.match(r"transferred |\s+\d+K ", line)]


def clean(value: Any) -> Any:
    """A text without what is random in it."""
    if isinstance(value, str):
        for pattern, text in _RANDOM:
            value = pattern.sub(text, value)
    return value


def compare(theirs: Any, ours: Any, cut: bool, where: str) -> list[str]:
    """Differences of two parsed documents. Of one that was cut off only the beginning has to be there."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = [f"{where}: no {key}" for key in theirs if key not in ours]
        if not cut:
            found += [f"{where}: {key} too much" for key in ours if key not in theirs]
        for key in theirs.keys() & ours.keys():
            if key in ONLY_THERE and (key != "total" or _is_size(ours[key])):
                continue
            if key not in NUMBERS or not isinstance(ours[key], int | float):
                found += compare(theirs[key], ours[key], cut, f"{where}.{key}")
        return found
    if isinstance(theirs, list) and isinstance(ours, list):
        return _compare_lists(theirs, ours, cut, where)
    if where.endswith(".content") and isinstance(theirs, str):
        theirs, ours = sorted(theirs.split(",")), sorted(str(ours).split(","))
    if clean(theirs) == clean(ours) or (where.endswith(".saved") and int(theirs) == int(ours)):
        return []
    return [f"{where}: {theirs!r} != {ours!r}"]


def _is_size(value: Any) -> bool:
    """Whether a ``total`` is one of bytes; the other ones count rows."""
    return isinstance(value, int) and value > 1 << 24


def _compare_lists(theirs: list[Any], ours: list[Any], cut: bool, where: str) -> list[str]:
    """Rows are found by what names them; their order is random, as hashes are, unless they are no documents."""
    if not all(isinstance(row, dict) for row in [*theirs, *ours]):
        return [] if theirs == ours else [f"{where}: {theirs} != {ours}"]
    name = next((key for key in _KEYS if theirs and key in theirs[0]), "")
    rest = list(ours)
    found = []
    for row in theirs:
        if cut and name not in row:
            continue
        same = next((other for other in rest if clean(other.get(name)) == clean(row.get(name))), None)
        if same is None:
            found.append(f"{where}: no row {row}")
        else:
            rest.remove(same)
            found += compare(row, same, cut, f"{where}[{row.get(name)}]")
    return found + ([f"{where}: row too much {row}" for row in rest] if not cut else [])
