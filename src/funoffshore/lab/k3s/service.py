"""The lab's K3s as one value: program, service, and every cluster that was ever founded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.k3s import program, sealed, supervisor
from funoffshore.lab.k3s.agent import Agent
from funoffshore.lab.k3s.plane import BUCKET, Doors, Plane
from funoffshore.lab.k3s.process import Process
from funoffshore.lab.k3s.server import Server
from funoffshore.lab.kube.cluster import KubeCluster


class Planes:
    """Every cluster of the lab, by identity. ``hear`` is told of each one when it comes into this process, ``forget``
    of one that leaves it."""

    def __init__(self, kit: Kit, hear: Callable[[KubeCluster], None], forget: Callable[[KubeCluster], None]) -> None:
        self.kit = kit
        self._forget = forget
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

    def adopt(self, identity: str, state: sealed.State, *, removed: bool) -> Plane:
        """A cluster made of what another one was, or is: its objects, its authorities, its tokens.

        ``removed``: it is the same etcd, from which the other members have been removed.
        """
        store = self.kit.store
        for key, body in state.objects.items():
            store.put(f"kube/{identity}", key, body)
        store.put(f"kube/{identity}/meta", "version", {"n": state.version})
        store.put(BUCKET, identity, state.document)
        plane = self.get(identity)
        if plane is None:
            raise LookupError(identity)
        for other in self.all():
            if other is not plane and other.ca == plane.ca and not other.servers:
                self._supersede(other, {"by": identity, "removed": removed})
        return plane

    def _supersede(self, plane: Plane, successor: dict[str, Any]) -> None:
        """One of its members has gone its own way. With no server left it leaves this process; its data stays."""
        plane.remember(superseded=successor)
        with self._lock:
            if plane.servers:
                return
            self._known.pop(plane.identity, None)
        self._forget(plane.kube)
        plane.close()

    def all(self) -> list[Plane]:
        """Those in this process."""
        with self._lock:
            return list(self._known.values())


class K3s:
    """``Service`` and ``Program`` of the lab's hosts, under the name ``k3s``.

    ``hear`` is called once for every cluster when it is founded or comes back from disk, on a thread of its own
    server; what lives in clusters (the lab's Flux) hooks in there. ``forget`` is called for one that a reset or a
    restore has left behind.
    """

    def __init__(
        self, kit: Kit, hear: Callable[[KubeCluster], None] = lambda cluster: None,
        forget: Callable[[KubeCluster], None] = lambda cluster: None,
    ) -> None:  # fmt: skip
        self.kit = kit
        self.planes = Planes(kit, hear, forget)
        self._lock = threading.Lock()
        self._processes: dict[int, Process] = {}
        self._closed = False

    def __call__(self, machine: Machine, argv: list[str], stdin: bytes) -> Result:
        """A command of the program, see ``program.call``."""
        with self._lock:
            process = self._processes.get(machine.vmid)
        return program.call(self.planes, machine, argv, process)

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
