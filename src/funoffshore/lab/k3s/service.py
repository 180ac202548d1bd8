"""The lab's K3s as one value: program, service, and every cluster that was ever founded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.k3s import program, supervisor
from funoffshore.lab.k3s.agent import Agent
from funoffshore.lab.k3s.plane import BUCKET, Doors, Plane
from funoffshore.lab.k3s.process import Process
from funoffshore.lab.k3s.server import Server
from funoffshore.lab.kube.cluster import KubeCluster


class Planes:
    """Every cluster of the lab, by identity. ``hear`` is told of each one when it comes into this process."""

    def __init__(self, kit: Kit, hear: Callable[[KubeCluster], None]) -> None:
        self.kit = kit
        self.doors = Doors(supervisor.answerer)
        self._hear = hear
        self._lock = threading.RLock()
        self._known: dict[str, Plane] = {}

    def found(self, facts: dict[str, Any]) -> Plane:
        """A new cluster."""
        with self._lock:
            plane = Plane.found(self.kit, self.doors, facts)
            self._known[plane.identity] = plane
        self._hear(plane.kube)
        return plane

    def get(self, identity: str) -> Plane | None:
        """The cluster ``identity``, from memory or from the store."""
        with self._lock:
            if identity in self._known:
                return self._known[identity]
            document = self.kit.store.get(BUCKET, identity)
            if document is None:
                return None
            plane = self._known[identity] = Plane(self.kit, identity, document, self.doors)
        self._hear(plane.kube)
        return plane

    def all(self) -> list[Plane]:
        """Those in this process."""
        with self._lock:
            return list(self._known.values())


class K3s:
    """``Service`` and ``Program`` of the lab's hosts, under the name ``k3s``.

    ``hear`` is called once for every cluster when it is founded or comes back from disk, on a thread of its own
    server; what lives in clusters (the lab's Flux) hooks in there.
    """

    def __init__(self, kit: Kit, hear: Callable[[KubeCluster], None] = lambda cluster: None) -> None:
        self.kit = kit
        self.planes = Planes(kit, hear)
        self._lock = threading.Lock()
        self._processes: dict[int, Process] = {}
        self._closed = False

    def __call__(self, machine: Machine, argv: list[str], stdin: bytes) -> Result:
        """A command of the program, see ``program.call``."""
        return program.call(self.planes, machine, argv)

    def start(self, machine: Machine, argv: list[str], ready: Callable[[], None], ended: Callable[[int], None]) -> None:
        """``argv`` as in the unit's ExecStart: ``/usr/local/bin/k3s server``. Returns at once."""
        kind: type[Process] = Agent if argv[1:2] == ["agent"] else Server
        words = argv if argv[1:2] in (["agent"], ["server"]) else [argv[0], "server", *argv[1:]]
        process = kind(self.planes, machine, words, ready, ended)
        with self._lock:
            if self._closed:
                return
            before = self._processes.pop(machine.vmid, None)
            self._processes[machine.vmid] = process
        if before is not None:
            before.stop()
        process.begin()

    def stop(self, machine: Machine) -> None:
        """SIGTERM, or the machine losing power: nothing answers any more when this returns."""
        with self._lock:
            process = self._processes.pop(machine.vmid, None)
        if process is not None and not self._closed:
            process.stop()

    def clusters(self) -> list[KubeCluster]:
        """The API objects of every cluster in this process."""
        return [plane.kube for plane in self.planes.all()]

    def settle(self, seconds: float) -> None:
        """Waits until everything that ran when the lab's process ended runs again, ``seconds`` real ones at most."""
        give_up = time.monotonic() + seconds
        with self._lock:
            coming = [p for p in self._processes.values() if p.resumed]
        for process in coming:
            process.up.wait(max(0.0, give_up - time.monotonic()))

    def close(self) -> None:
        """The lab's process ends. What runs will be running again when the lab comes back, without starting up.

        Call it before the hosts are closed; a later ``stop`` does nothing.
        """
        with self._lock:
            self._closed = True
            processes = list(self._processes.values())
        for process in processes:
            process.stopped.set()
        for plane in self.planes.all():
            plane.close()
