"""K3s twice: the embedded lab's, and the bench's stand-in, which runs a real etcd, kube-apiserver and kubelet.

Every real node is a network namespace on one bridge, with a mount namespace of its own over everything that a kubelet
writes: nothing of this machine's /etc/rancher, /var or /run is touched. No pods are run.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from k3s_machines import Bench, Box
from k3s_namespaces import Network, obstacles

from funoffshore.config import Node
from funoffshore.lab.base import Latencies
from funoffshore.reading import Absent, Present, Reading
from funoffshore.stages.k3s import causes

SECRET = "0123456789abcdef0123456789abcdef"
AGENT_SECRET = "fedcba9876543210fedcba9876543210"
PARTS = ["coredns", "local-storage", "metrics-server", "servicelb", "traefik"]
"""Everything that would run pods."""
DATA = "/var/lib/rancher/k3s"
SERVER = f"{DATA}/server"
CONFIG = "/etc/rancher/k3s/config.yaml"
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
PATIENCE = 60.0
"""Seconds for whatever a server does; two shared cores are slow."""


@dataclass(frozen=True)
class Ran:
    """A command of k3s that has ended."""

    code: int
    out: str
    err: str


class Machine(Protocol):
    """One host with k3s on it, as its unit."""

    kind: str
    name: str
    address: str
    version: str
    data: str
    """Where K3s itself says that its data lies."""

    def path(self, absolute: str) -> Path: ...
    def sysctl(self, name: str, value: int) -> None: ...
    def configure(self, **settings: object) -> None: ...
    def start(self, role: str = "server", *argv: str) -> None: ...
    def stop(self) -> None: ...
    def is_ready(self) -> bool: ...
    def code(self) -> int | None: ...
    def lines(self) -> list[str]: ...
    def run(self, *argv: str) -> Ran: ...


class Place(Protocol):
    """A subnet of machines."""

    kind: str
    net: str
    """``10.78.0.``"""

    def machine(self, name: str, number: int) -> Machine: ...
    def close(self) -> None: ...


class LabMachine:
    """A box of the lab's K3s."""

    kind = "lab"
    data = DATA

    def __init__(self, bench: Bench, box: Box) -> None:
        self._bench, self._box = bench, box
        self.name, self.address = box.name, box.address
        self.version = "v1.36.4+k3s1"

    def path(self, absolute: str) -> Path:
        return self._box.path(absolute)

    def sysctl(self, name: str, value: int) -> None:
        """``name`` as below /proc/sys."""
        self._box.write(f"/proc/sys/{name}", f"{value}\n")

    def configure(self, **settings: object) -> None:
        self._box.configure(**settings)

    def start(self, role: str = "server", *argv: str) -> None:
        self._box.lines.clear()
        self._bench.start(self._box, role, *argv)

    def stop(self) -> None:
        self._bench.k3s.stop(self._box)

    def is_ready(self) -> bool:
        return self._box.is_ready.is_set()

    def code(self) -> int | None:
        return self._box.code if self._box.is_ended.is_set() else None

    def lines(self) -> list[str]:
        return self._box.said().splitlines()

    def run(self, *argv: str) -> Ran:
        return Ran(*self._bench.run(self._box, *argv))


class LabPlace:
    """The lab's K3s, with starts that take a second or two."""

    kind = "lab"

    def __init__(self, folder: Path) -> None:
        self._bench = Bench(folder, Latencies(k3s_first=20, k3s_join=10))
        self.net = self._bench.net

    def machine(self, name: str, number: int) -> LabMachine:
        return LabMachine(self._bench, self._bench.box(name, number))

    def close(self) -> None:
        self._bench.close()


class RealMachine:
    """A namespace with the stand-in in it. What ``start`` runs ends with the test's process, whatever ends that."""

    kind = "real"

    def __init__(self, network: Network, name: str, number: int) -> None:
        self._room = network.room(name, number)
        self.name, self.address = name, network.net + str(number)
        self.version = "v1.36.3+k3s1"
        self.data = str(self.path(DATA))

    def path(self, absolute: str) -> Path:
        return self._room.root / absolute.lstrip("/")

    def sysctl(self, name: str, value: int) -> None:
        """``name`` as below /proc/sys, of which each room sees a copy; ``name`` is one that kubelets look at."""
        copy = self._room.root / "sysctl" / name
        assert copy.exists()
        copy.write_text(f"{value}\n")

    def configure(self, **settings: object) -> None:
        """``settings``, the data folder, and what a kubelet needs that shares its machine."""
        told = settings.get("kubelet-arg", [])
        assert isinstance(told, list)
        kubelet = [*told, "fail-cgroupv1=false", "cgroups-per-qos=false", "enforce-node-allocatable="]
        whole = {**settings, "kubelet-arg": kubelet, "data-dir": self.data}
        write(self, CONFIG, yaml.safe_dump(whole, sort_keys=False))

    def start(self, role: str = "server", *argv: str) -> None:
        self._room.start([role, *argv])

    def stop(self) -> None:
        self._room.stop()

    def is_ready(self) -> bool:
        return self._room.notified()

    def code(self) -> int | None:
        return self._room.code()

    def lines(self) -> list[str]:
        return self._room.log().splitlines()

    def run(self, *argv: str) -> Ran:
        done = self._room.run(["k3s", *argv], {"K3S_DATA_DIR": self.data})
        return Ran(done.returncode, done.stdout, done.stderr)


class RealPlace:
    """Namespaces of this machine."""

    kind = "real"

    def __init__(self, network: Network) -> None:
        self._network = network
        self.net = network.net

    def machine(self, name: str, number: int) -> RealMachine:
        return RealMachine(self._network, name, number)

    def close(self) -> None:
        self._network.close()


@contextlib.contextmanager
def place(kind: str, tmp: Path) -> Iterator[Place]:
    """A subnet of the backend; within the body this thread can talk to its machines. Skips where there is none."""
    if kind == "lab":
        lab = LabPlace(tmp)
        try:
            yield lab
        finally:
            lab.close()
        return
    if why := obstacles():
        pytest.skip(f"K3S' CONTRACT IS NOT TRIED ON REAL SERVERS: {'; '.join(why)}")
    network = Network()
    try:
        network.make()
        with network.inside():
            yield RealPlace(network)
    finally:
        network.close()


def write(machine: Machine, path: str, text: str) -> None:
    real = machine.path(path)
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_text(text)


def read(machine: Machine, path: str) -> str:
    return machine.path(path).read_text()


def token(machine: Machine, name: str = "token") -> str:
    return read(machine, f"{SERVER}/{name}").strip()


def settings(machine: Machine, **more: object) -> dict[str, object]:
    """What every server of these tests is told."""
    return {
        "node-name": machine.name,
        "node-ip": machine.address,
        "agent-token": AGENT_SECRET,
        "disable": PARTS,
        **more,
    }


def await_ready(machine: Machine) -> None:
    until(lambda: machine.is_ready() or machine.code() is not None, said=machine.lines)
    assert machine.code() is None, tail(machine)


def await_end(machine: Machine) -> int:
    """The exit code."""
    until(lambda: machine.code() is not None, said=machine.lines)
    code = machine.code()
    assert code is not None
    return code


def tail(machine: Machine) -> str:
    return "\n".join(machine.lines()[-30:])


def until(probe: Callable[[], object], seconds: float = PATIENCE, said: Callable[[], object] = str) -> None:
    """Fails when ``probe`` stays false for ``seconds``."""
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, f"{probe} stayed false: {said()}"
        time.sleep(0.02)


def cause_of(machine: Machine) -> causes.Cause | None:
    """What fo reads in the journal of the last start."""
    return causes.find(machine.lines()[-60:])


@dataclass(frozen=True)
class Answer:
    """What port 6443 said; status 0 when it is closed."""

    status: int
    body: str = ""
    kind: str = ""

    @property
    def message(self) -> str:
        """Of a metav1.Status, else the body."""
        with contextlib.suppress(ValueError, AttributeError):
            return str(json.loads(self.body).get("message", self.body))
        return self.body


def ask(
    address: str, path: str, *, user: str = "", admin: Machine | None = None, method: str = "GET",
    body: dict[str, Any] | None = None, timeout: float = 10,
) -> Answer:  # fmt: skip
    """``user`` is ``name:password``; ``admin`` the server whose administrator asks. Raises TimeoutError."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if admin is not None:
        tls = admin.path(f"{SERVER}/tls")
        context.load_cert_chain(tls / "client-admin.crt", tls / "client-admin.key")
    head = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
    door = http.client.HTTPSConnection(address, 6443, timeout=timeout, context=context)
    try:
        content = json.dumps(body) if body is not None else None
        door.request(method, path, content, {**head, "Content-Type": "application/json"})
        answer = door.getresponse()
        return Answer(answer.status, answer.read().decode(), answer.getheader("Content-Type", ""))
    except (ConnectionError, ssl.SSLError, http.client.RemoteDisconnected):
        return Answer(0)
    finally:
        door.close()


def thing(admin: Machine, path: str) -> dict[str, Any] | None:
    """An object of the API, None when there is none. ``path`` begins behind ``/api/v1/``."""
    answer = ask(admin.address, f"/api/v1/{path}", admin=admin)
    if answer.status == 404:
        return None
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def things(admin: Machine, path: str) -> list[dict[str, Any]]:
    """The objects of a collection. ``path`` is whole: ``/apis/…``."""
    answer = ask(admin.address, path, admin=admin)
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = json.loads(answer.body)["items"]
    return found


def condition(admin: Machine, node: str, kind: str = "Ready") -> dict[str, Any]:
    """A condition of a Node; empty when there is none."""
    found = thing(admin, f"nodes/{node}") or {}
    all_of_them = found.get("status", {}).get("conditions", [])
    return next((c for c in all_of_them if c["type"] == kind), {})


class Disk:
    """A machine's files, through the door by which fo reads them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read_file(self, node: Node, path: str) -> Reading[bytes]:
        real = self._machine.path(path)
        return Present(real.read_bytes()) if real.is_file() else Absent()


@dataclass(frozen=True)
class Looker:
    """As much of fo's World as reading a server's files takes."""

    hosts: Disk
