"""What every part of the lab shares: its clock, its store on disk, its latencies, its faults, its ledger."""

from __future__ import annotations

import heapq
import itertools
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any


class LabClock:
    """Lab seconds: real seconds times ``speed``. Also runs callbacks when their lab time has come.

    Callbacks run one at a time on the clock's own thread and must be short; whoever needs longer starts a thread.
    """

    def __init__(self, speed: float = 1.0, *, real: float | None = None, epoch: float | None = None) -> None:
        """Two clocks with the same ``speed``, ``real`` and ``epoch`` show the same time, also in two processes."""
        self.speed = speed
        self.real = time.monotonic() if real is None else real
        self.epoch = time.time() if epoch is None else epoch
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._wake = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """Unix time in lab seconds; starts at the real time."""
        return self.epoch + self.monotonic()

    def monotonic(self) -> float:
        return (time.monotonic() - self.real) * self.speed

    def sleep(self, seconds: float) -> None:
        time.sleep(max(seconds, 0) / self.speed)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Runs ``call`` once, ``seconds`` lab seconds from now. Zero means as soon as the clock's thread is free."""
        with self._wake:
            heapq.heappush(self._due, (self.monotonic() + seconds, next(self._count), call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="lab-clock", daemon=True)
                self._thread.start()
            self._wake.notify()

    def stop(self) -> None:
        """No callback starts after this returns."""
        with self._wake:
            self._stopped = True
            self._due.clear()
            self._wake.notify()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._stopped and (not self._due or self._due[0][0] > self.monotonic()):
                    pause = (self._due[0][0] - self.monotonic()) / self.speed if self._due else None
                    self._wake.wait(pause)
                if self._stopped:
                    return
                _, _, call = heapq.heappop(self._due)
            call()


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long things take, in lab seconds. All zero: as fast as the machine can."""

    api: float = 0.0
    """One Proxmox API call."""
    download: float = 0.0
    """Proxmox fetching a cloud image."""
    create: float = 0.0
    """Creating a VM with an imported disk."""
    task: float = 0.0
    """Any other Proxmox task (start, resize, destroy, …)."""
    boot: float = 0.0
    """Power on until sshd answers."""
    cloud_init: float = 0.0
    """sshd answering until cloud-init is done."""
    host_download: float = 0.0
    """A host fetching the K3s binary."""
    k3s_first: float = 0.0
    """First server: start until ``/readyz``."""
    k3s_join: float = 0.0
    """Another server joining: start until Ready and voting."""
    k3s_agent: float = 0.0
    """An agent joining: start until Ready."""
    workload: float = 0.0
    """A workload applied until its pods are ready."""
    reconcile: float = 0.0
    """One Flux reconciliation, without what it waits for."""

    @classmethod
    def realistic(cls) -> Latencies:
        """What a small Proxmox on SSD showed, rounded (k3s figures: ``facts`` recorded from a real run)."""
        return cls(
            api=0.03, download=25, create=14, task=2, boot=12, cloud_init=15, host_download=4,
            k3s_first=12, k3s_join=20, k3s_agent=6, workload=8, reconcile=2,
        )  # fmt: skip


class Store:
    """JSON documents on disk, by bucket and key. A write that returned survives SIGKILL of the process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE IF NOT EXISTS doc (bucket TEXT, key TEXT, body TEXT, PRIMARY KEY (bucket, key))")

    def get(self, bucket: str, key: str) -> Any | None:
        """The document, freshly parsed, or None."""
        with self._lock:
            row = self._db.execute("SELECT body FROM doc WHERE bucket=? AND key=?", (bucket, key)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, bucket: str, key: str, body: Any) -> None:
        text = json.dumps(body)
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO doc VALUES (?,?,?)", (bucket, key, text))

    def delete(self, bucket: str, key: str) -> None:
        with self._lock:
            self._db.execute("DELETE FROM doc WHERE bucket=? AND key=?", (bucket, key))

    def scan(self, bucket: str) -> Iterator[tuple[str, Any]]:
        """Every (key, document) of the bucket, sorted by key, as of now."""
        with self._lock:
            rows = self._db.execute("SELECT key, body FROM doc WHERE bucket=? ORDER BY key", (bucket,)).fetchall()
        for key, body in rows:
            yield key, json.loads(body)

    def clear(self, bucket: str) -> None:
        with self._lock:
            self._db.execute("DELETE FROM doc WHERE bucket=?", (bucket,))

    def close(self) -> None:
        with self._lock:
            self._db.close()


class Ledger:
    """Counts and lists every call that changed something, by door (``pve``, ``ssh``, ``kube``)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._next = max((int(k) for k, _ in store.scan("ledger")), default=0) + 1

    def add(self, door: str, what: str) -> None:
        """``what`` names call and object (``POST /nodes/pve/qemu 901``), never a body."""
        with self._lock:
            self._store.put("ledger", f"{self._next:09d}", {"door": door, "what": what})
            self._next += 1

    def entries(self) -> list[dict[str, str]]:
        return [body for _, body in self._store.scan("ledger")]

    def count(self) -> int:
        return self._next - 1


class Faults:
    """Faults an operator or a test has switched on: name → parameters. Kept in the store, read at each use.

    ``KNOWN`` has their names and which parameters each takes. A parameter narrows a fault down to what fits it (``*``,
    ``?`` and ``[…]`` as in file names); ``times`` is how often it strikes, always when absent. What each does is told
    in ``docs/guide/lab.md``.
    """

    KNOWN: Mapping[str, tuple[str, ...]] = {
        "task-fail": ("type", "vmid", "times"),
        "task-hang": ("type", "vmid", "times"),
        "task-lost": ("type", "vmid", "times"),
        "task-warnings": ("type", "vmid", "times"),
        "no-worker": ("type", "vmid", "times"),
        "vmid-race": ("vmid", "times"),
        "lock-timeout": ("vmid", "storage", "times"),
        "storage-full": ("storage", "vmid", "times"),
        "image-corrupt": ("storage", "filename", "times"),
        "agent-silent": ("vmid", "command", "times"),
        "pve-596": ("method", "path", "node", "vmid", "storage", "times"),
        "pve-cut": ("method", "path", "node", "vmid", "storage", "times"),
        "pve-html": ("method", "path", "times"),
        "pve-redirect": ("method", "path", "times"),
        "ssh-cut": ("node", "times"),
        "node-no-join": ("node",),
        "join-hang": ("node",),
        "learner-stuck": ("node",),
        "image-pull": ("node", "image"),
        "dns-broken": ("node",),
        "port-blocked": ("from", "to", "port"),
        "clock-off": ("node", "minutes"),
        "disk-full": ("node",),
        "disk-read-only": ("node",),
        "no-python3": ("node",),
        "certificates-old": ("node", "days"),
        "data-lost": ("node",),
        "component-unready": ("namespace", "name"),
        "git-unreachable": (),
    }

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()

    @classmethod
    def problem(cls, name: str, parameters: Mapping[str, str]) -> str:
        """What is wrong with a fault as somebody has spelt it; empty when nothing."""
        if name not in cls.KNOWN:
            return f"{name} is no fault"
        for key in parameters:
            if key not in cls.KNOWN[name]:
                return f"{name} has no {key}"
        if not parameters.get("times", "1").isdecimal():
            return "times is no number"
        for key in ("minutes", "days"):
            if not parameters.get(key, "1").removeprefix("-").isdecimal():
                return f"{key} is no whole number"
        return ""

    def on(self, name: str, /, **parameters: str) -> None:
        self._store.put("faults", name, parameters)

    def off(self, name: str) -> None:
        self._store.delete("faults", name)

    def all(self) -> dict[str, dict[str, str]]:
        return dict(self._store.scan("faults"))

    @staticmethod
    def _fits(parameters: Mapping[str, str], thing: Mapping[str, str]) -> bool:
        return all(fnmatchcase(thing[k], v) for k, v in parameters.items() if k in thing and k != "times")

    def value(self, name: str, key: str, default: str = "", /, **thing: str) -> str:
        """Parameter ``key`` of a fault that is on and fits ``thing``, ``default`` where it was not given; empty when
        the fault is off. Uses up nothing."""
        parameters = self._store.get("faults", name)
        if parameters is None or not self._fits(parameters, thing):
            return ""
        return str(parameters.get(key, default))

    def hits(self, name: str, /, **thing: str) -> bool:
        """True when the fault is on and fits ``thing``; uses up one of its ``times``."""
        with self._lock:
            parameters = self._store.get("faults", name)
            if parameters is None:
                return False
            if not self._fits(parameters, thing):
                return False
            if "times" in parameters:
                left = int(parameters["times"]) - 1
                if left < 0:
                    return False
                self._store.put("faults", name, {**parameters, "times": str(left)})
            return True


@dataclass(frozen=True)
class Kit:
    """Handed to every part of the lab."""

    directory: Path
    clock: LabClock
    store: Store
    latencies: Latencies
    faults: Faults
    ledger: Ledger
    routes: Routes


class Routes:
    """Binds listeners. Where an address of the lab cannot be bound (macOS has only 127.0.0.1), a free port of
    127.0.0.1 stands in and the detour is written to ``routes.json``, which the world's dialers read."""

    def __init__(self, directory: Path, *, detour: bool = False) -> None:
        self._path = directory / "routes.json"
        self._lock = threading.Lock()
        self._detour = detour
        self._routes: dict[str, list[Any]] = {}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)

    def listen(self, host: str, port: int) -> Any:
        """A listening TCP socket for ``host:port``. Raises OSError when even the stand-in cannot be had."""
        import socket

        if not self._detour:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen(128)
                return listener
            except OSError as why:
                listener.close()
                if host == "127.0.0.1" or (why.errno != 49 and why.errno != 99):  # EADDRNOTAVAIL: macOS, Linux
                    raise
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        with self._lock:
            self._routes[f"{host}:{port}"] = list(listener.getsockname())
            self._write()
        return listener

    def forget(self, host: str, port: int) -> None:
        """Call after closing the listener of ``host:port``."""
        with self._lock:
            if self._routes.pop(f"{host}:{port}", None):
                self._write()

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self._routes))
        fresh.replace(self._path)
