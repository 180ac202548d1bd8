"""A host's service manager: unit files as systemd.service(5) means them, as far as our hosts need.

Known: ExecStartPre, ExecStart (several for a oneshot), Type (simple, exec, notify, oneshot), RemainAfterExit,
Restart, RestartSec, RestartPreventExitStatus, StartLimitBurst and -IntervalSec, WantedBy. Everything else is read
over.
"""

from __future__ import annotations

import os
import re
import shlex
import threading
from dataclasses import dataclass, field
from typing import Any

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Result, Service
from funoffshore.lab.hosts.machine import Host

PLACES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")
WANTS = "/etc/systemd/system/multi-user.target.wants"
EXEC_FAILED = 203
"""Exit status of a process whose program could not be run (systemd.exec(5))."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A unit file, as it was at the last daemon-reload."""

    place: str
    settings: dict[str, list[str]]

    def one(self, key: str, default: str = "") -> str:
        return self.settings.get(key, [default])[-1]


@dataclass
class Job:
    """Somebody waits for a start to end."""

    over: threading.Event = field(default_factory=threading.Event)
    ok: bool = False

    def end(self, ok: bool) -> None:
        if not self.over.is_set():
            self.ok = ok
            self.over.set()


@dataclass
class Unit:
    """A unit at run time."""

    name: str
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    exit_status: int = 0
    restarts: int = 0
    life: int = 0
    """Counts starts and stops, so that a process of an earlier life is not listened to."""
    since: float = 0.0
    service: Service | None = None
    job: Job | None = None
    starts: list[float] = field(default_factory=list)

    def become(self, active: str, sub: str, now: float) -> None:
        self.active, self.sub, self.since = active, sub, now


def seconds(text: str) -> float:
    """systemd.time(7): ``5s``, ``100ms``, ``1min 30s``, bare seconds."""
    scale = {"": 1, "s": 1, "sec": 1, "ms": 0.001, "m": 60, "min": 60, "h": 3600}
    found = re.findall(r"([\d.]+)\s*([a-z]*)", text)
    return float(sum(float(number) * scale.get(unit, 1) for number, unit in found))


def parse(text: str) -> dict[str, list[str]]:
    """Settings of all sections; an empty assignment empties the list, a trailing backslash continues a line."""
    settings: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n[ \t]*", " ", text).splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or line.lstrip().startswith(("#", ";", "[")):
            continue
        if value.strip():
            settings.setdefault(key.strip(), []).append(value.strip())
        else:
            settings[key.strip()] = []
    return settings


def full(name: str) -> str:
    """``k3s`` means ``k3s.service``."""
    return name if re.search(r"\.(service|socket|target|timer|mount)$", name) else name + ".service"


class Units:
    """All units of one host. Services are started and stopped outside the lock: they may call back at once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.RLock()
        self._files: dict[str, UnitFile | None] = {}
        self._units: dict[str, Unit] = {}

    def reload(self) -> None:
        """``daemon-reload``: unit files are read anew at their next use."""
        with self._lock:
            self._files.clear()

    def file(self, name: str) -> UnitFile | None:
        """None when there is no such unit."""
        name = full(name)
        with self._lock:
            if self._files.get(name) is None:
                places = [f"{folder}/{name}" for folder in PLACES]
                place = next((place for place in places if self._host.files.exists(place)), "")
                if not place:
                    return None
                self._files[name] = UnitFile(place, parse(self._host.files.read(place)))
            return self._files[name]

    def unit(self, name: str) -> Unit:
        """The run-time state; a unit never heard of is inactive."""
        with self._lock:
            return self._units.setdefault(full(name), Unit(full(name)))

    def start_enabled(self) -> None:
        """What the boot starts: everything that multi-user.target wants."""
        folder = self._host.path(WANTS)
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            self.start(name)

    def start(self, name: str) -> Job:
        """A job that ends when the unit is active or its start has failed. An active unit's job is over at once."""
        unit, job = self.unit(name), Job()
        with self._lock:
            if unit.active == "active":
                job.end(True)
                return job
            if unit.sub in ("start", "start-pre") and unit.job is not None:
                return unit.job
            unit.job = job
            unit.restarts = 0
            unit.starts = unit.starts[-10:]
        self._begin(unit)
        return job

    def _begin(self, unit: Unit) -> None:
        file, now = self.file(unit.name), self._host.kit.clock.now()
        with self._lock:
            unit.life += 1
            life = unit.life
            if file is None:
                return self._fail(unit, "resources")
            span = seconds(file.one("StartLimitIntervalSec", "10s"))
            unit.starts = [*(start for start in unit.starts if now - start < span), now]
            if 0 < int(file.one("StartLimitBurst", "5")) < len(unit.starts) and span:
                self._host.journal(unit.name, f"{unit.name}: Start request repeated too quickly.")
                return self._fail(unit, "start-limit-hit")
            unit.become("activating", "start", now)
        self._host.journal(unit.name, f"Starting {unit.name} - {file.one('Description', unit.name)}...")
        if self._prepare(unit, file):
            self._launch(unit, file, life)
        else:
            self._ended(unit, file, life, 1)
        return None

    def _fail(self, unit: Unit, result: str) -> None:
        unit.result = result
        unit.become("failed", "failed", self._host.kit.clock.now())
        self._host.journal(unit.name, f"Failed to start {unit.name}.")
        if unit.job:
            unit.job.end(False)

    def _prepare(self, unit: Unit, file: UnitFile) -> bool:
        for line in file.settings.get("ExecStartPre", []):
            lenient = line.startswith("-")
            result = self._run(line.lstrip("-@+!:"))
            if result.code and not lenient:
                self._host.journal(unit.name, f"Control process exited, code=exited, status={result.code}/FAILURE")
                return False
        return True

    def _run(self, line: str) -> Result:
        return self._host.run(shlex.split(line))

    def _launch(self, unit: Unit, file: UnitFile, life: int) -> None:
        argv = shlex.split(file.one("ExecStart").lstrip("-@+!:"))
        place = self._host.find(argv[0]) if argv else None
        words = self._host.entry(place) if place else None
        foreign = circumstances.foreign(self._host, words)
        runnable = bool(words and place) and bool(self._host.files.stat(str(place)).st_mode & 0o111) and not foreign
        service = self._host.services.get(words[0]) if words and runnable else None
        kind = file.one("Type", "simple")
        if service is None and kind == "oneshot" and runnable:
            return self._ended(unit, file, life, self._each(unit, file))
        if service is None:
            why = "No such file or directory" if not argv or words is None else "Permission denied"
            why = "Exec format error" if foreign else why
            program = argv[0] if argv else "nothing"
            self._host.journal(unit.name, f"{unit.name}: Failed at step EXEC spawning {program}: {why}")
            return self._ended(unit, file, life, EXEC_FAILED)
        with self._lock:
            if unit.life != life:
                return None
            unit.service = service
        if kind in ("simple", "exec"):
            self._ready(unit, life)
        service.start(
            self._host, argv, lambda: self._ready(unit, life), lambda code: self._ended(unit, file, life, code)
        )
        return None

    def _each(self, unit: Unit, file: UnitFile) -> int:
        """All commands of a oneshot, one after the other, up to the first that fails; its exit status."""
        for line in file.settings["ExecStart"]:
            result = self._run(line.lstrip("-@+!:"))
            said = (result.out + result.err).decode("utf-8", "replace")
            if said:
                self._host.journal(unit.name, said)
            if result.code and not line.startswith("-"):
                return result.code
        return 0

    def _ready(self, unit: Unit, life: int) -> None:
        with self._lock:
            if unit.life != life or unit.active == "active":
                return
            unit.result = "success"
            unit.become("active", "running", self._host.kit.clock.now())
            if unit.job:
                unit.job.end(True)
        self._host.journal(unit.name, f"Started {unit.name}.")

    def _ended(self, unit: Unit, file: UnitFile, life: int, code: int) -> None:
        """The process is gone: stay down, or come back after RestartSec."""
        with self._lock:
            if unit.life != life or self._host.gone.is_set():
                return None
            unit.life += 1
            unit.service = None
            unit.exit_status = code
            unit.result = "exit-code" if code else "success"
            self._host.journal(unit.name, f"{unit.name}: Main process exited, code=exited, status={code}/{word(code)}")
            oneshot = file.one("Type") == "oneshot"
            if unit.job:
                unit.job.end(oneshot and code == 0)
            now = self._host.kit.clock.now()
            if oneshot and code == 0:
                stays = file.one("RemainAfterExit") in ("yes", "true", "1")
                return unit.become(*(("active", "exited") if stays else ("inactive", "dead")), now)
            policy = file.one("Restart", "no")
            wanted = policy == "always" or (policy in ("on-failure", "on-abnormal") and code != 0)
            if not wanted or str(code) in file.one("RestartPreventExitStatus").split():
                return unit.become(*(("failed", "failed") if code else ("inactive", "dead")), now)
            unit.become("activating", "auto-restart", now)
            waiting = unit.life
        self._host.kit.clock.after(seconds(file.one("RestartSec", "100ms")), lambda: self._again(unit, waiting))
        return None

    def _again(self, unit: Unit, life: int) -> None:
        with self._lock:
            if unit.life != life or self._host.gone.is_set():
                return
            unit.restarts += 1
        self._host.journal(unit.name, f"{unit.name}: Scheduled restart job, restart counter is at {unit.restarts}.")
        # Not on the clock's thread, which is everybody's: a start may take a while.
        threading.Thread(target=self._begin, args=(unit,), name=f"start {unit.name}", daemon=True).start()

    def stop(self, name: str) -> None:
        """Gone when this returns; no restart follows."""
        unit = self.unit(name)
        with self._lock:
            unit.life += 1
            service, unit.service = unit.service, None
            was = unit.active
            unit.become("inactive", "dead", self._host.kit.clock.now())
            if unit.job:
                unit.job.end(False)
        if service is not None:
            service.stop(self._host)
        if was in ("active", "activating"):
            self._host.journal(unit.name, f"Stopped {unit.name}.")

    def stop_all(self) -> None:
        """Power-off: every process ends."""
        for name in list(self._units):
            self.stop(name)

    def enabled(self, name: str) -> str:
        """``enabled``, ``disabled``, ``static`` (nothing to install), or empty without a unit file."""
        file = self.file(name)
        if file is None:
            return ""
        link = self._host.files.path(f"{WANTS}/{full(name)}", follow=False)
        if link.is_symlink() or link.exists():
            return "enabled"
        return "disabled" if "WantedBy" in file.settings else "static"

    def enable(self, name: str) -> bool:
        """False without a unit file."""
        file = self.file(name)
        if file is None:
            return False
        if self.enabled(name) == "disabled":
            self._host.files.make_folders(WANTS)
            self._host.files.path(f"{WANTS}/{full(name)}", follow=False).symlink_to(file.place)
        return True

    def disable(self, name: str) -> bool:
        """False without a unit file."""
        link = self._host.files.path(f"{WANTS}/{full(name)}", follow=False)
        link.unlink(missing_ok=True)
        return self.file(name) is not None

    def show(self, name: str) -> dict[str, Any]:
        """Properties by the names that ``systemctl show`` uses."""
        unit, file = self.unit(name), self.file(name)
        return {
            "Id": full(name),
            "Names": full(name),
            "LoadState": "loaded" if file else "not-found",
            "ActiveState": unit.active,
            "SubState": unit.sub,
            "UnitFileState": self.enabled(name),
            "FragmentPath": file.place if file else "",
            "Description": file.one("Description", full(name)) if file else full(name),
            "Type": file.one("Type", "simple") if file else "",
            "Restart": file.one("Restart", "no") if file else "no",
            "Result": unit.result,
            "ExecMainStatus": unit.exit_status,
            "ExecMainCode": 1 if unit.exit_status else 0,
            "MainPID": 1000 + unit.life if unit.active == "active" else 0,
            "NRestarts": unit.restarts,
        }


def word(code: int) -> str:
    return {0: "SUCCESS", EXEC_FAILED: "EXEC"}.get(code, "FAILURE")
