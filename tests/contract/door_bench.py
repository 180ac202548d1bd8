"""The real Proxmox client in front of the lab's Proxmox, with everything that passes between them kept and, where a
test says so, spoilt on its way."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pve_bench
from pydantic import SecretStr

from funoffshore import clock as clocks
from funoffshore import errors
from funoffshore.config import model
from funoffshore.lab.base import Latencies
from funoffshore.lab.pve import ProxmoxApi, certificate
from funoffshore.lab.pve.wire import Reply, Request, Server
from funoffshore.world import proxmox, routes

Mishap = Callable[[Request], Reply | None]
SPEED = 100.0
UPID = "UPID:pve:00000B88:0006E38A:6B05104E:qmstart:900:fo@pve!t1:"
VERSION = {"version": "9.1.4", "release": "9.1", "repoid": "5ac30304265fbd8e"}


@dataclass
class Step:
    """What a wait tells, kept. ``stop_after`` is the number of sentences after which the operator presses Ctrl-C."""

    said: list[str] = field(default_factory=list)
    stop_after: int | None = None

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def record(self, **ids: str) -> None:
        """Keeps nothing."""

    def recorded(self, name: str) -> str | None:
        return None

    def checkpoint(self) -> None:
        if self.stop_after is not None and len(self.said) >= self.stop_after:
            raise errors.InterruptedRunError("stopped")


def lent(address: str, fingerprint: str, token_id: str = pve_bench.FO, secret: str = pve_bench.SECRET) -> model.Proxmox:
    """What an env file would say of a Proxmox there."""
    return model.Proxmox(
        url=f"https://{address}:8006",
        token_id=token_id,
        token_secret=SecretStr(secret),
        fingerprint=fingerprint,
        nodes=("pve",),
        pool="fo",
        disk_storage="vmstore",
        image_storage="local",
        bridge="vmbr0",
        vlan=None,
    )


@dataclass
class House:
    """A lab Proxmox, the client, and what went over the wire."""

    bench: pve_bench.Bench
    client: proxmox.Proxmox
    address: str
    fingerprint: str
    asked: list[Request] = field(default_factory=list)
    mishaps: list[Mishap] = field(default_factory=list)

    def answer(self, request: Request) -> Reply:
        self.asked.append(request)
        for mishap in list(self.mishaps):
            if (reply := mishap(request)) is not None:
                return reply
        return self.bench.api.answer(request)

    def calls(self) -> list[str]:
        """Method and path of every request, without the query."""
        found = []
        for request in self.asked:
            path = request.target.partition("?")[0].removeprefix("/api2/json")
            found.append(f"{request.method} {path}")
        return found

    def counted(self, word: str) -> int:
        return sum(word in call for call in self.calls())

    def another(self, **changed: Any) -> proxmox.Proxmox:
        """A client of its own: ``token_id``, ``secret``, ``fingerprint``."""
        known: dict[str, Any] = {"fingerprint": self.fingerprint, **changed}
        return proxmox.Proxmox(lent(self.address, **known), routes.Routes(), self.bench.kit.clock)

    def make(self, vmid: int, **options: Any) -> None:
        """A machine, made by somebody whose calls are not counted."""
        made = self.bench.api.answer(_posted("/nodes/pve/qemu", {"vmid": vmid, "name": f"vm-{vmid}", **options}))
        assert made.status == 200, made
        _over(self.bench, json.loads(made.body)["data"])


def _posted(path: str, values: Mapping[str, Any]) -> Request:
    head = {
        "authorization": f"PVEAPIToken={pve_bench.ROOT}={pve_bench.SECRET}",
        "content-type": "application/json",
    }
    return Request("POST", f"/api2/json{path}", head, json.dumps(values).encode())


def _over(bench: pve_bench.Bench, upid: str) -> None:
    pause = threading.Event()
    for _ in range(4000):
        asked = Request("GET", f"/api2/json/nodes/pve/tasks/{upid}/status", dict(_posted("", {}).headers))
        if json.loads(bench.api.answer(asked).body)["data"]["status"] == "stopped":
            return
        pause.wait(0.002)
    raise AssertionError(f"{upid} does not end")


@contextmanager
def house(
    directory: Path,
    *,
    release: str = "9.1",
    latencies: Latencies | None = None,
    speed: float = SPEED,
    nodes: tuple[str, ...] = ("pve",),
) -> Iterator[House]:
    """A prepared lab Proxmox behind a listener that keeps what it hears."""
    net = pve_bench.subnet()
    bench = pve_bench.Bench(pve_bench.kit(directory, latencies, speed), pve_bench.Guests(), net, release)
    bench.api = ProxmoxApi(
        bench.kit, bench.guests, address=bench.address, release=release, nodes=nodes, secret_for_tls=pve_bench.SECRET
    )
    pve_bench.prepare(bench)
    with served(directory, f"{net}.4") as (found, use):
        client = proxmox.Proxmox(lent(found.address, found.fingerprint), routes.Routes(), bench.kit.clock)
        made = House(bench, client, found.address, found.fingerprint)
        use(made.answer)
        try:
            yield made
        finally:
            bench.session.close()
            bench.api.stop()
            bench.kit.clock.stop()
            bench.kit.store.close()


@dataclass(frozen=True)
class Place:
    """Where something listens, and how it identifies itself."""

    address: str
    fingerprint: str


@contextmanager
def served(
    directory: Path, address: str, who: str = "wire"
) -> Iterator[tuple[Place, Callable[[Callable[[Request], Reply]], None]]]:
    """A TLS server, and how to tell it what to answer."""
    der, pem = certificate.make(who, address)
    (directory / "wire.pem").write_bytes(pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "wire.pem")
    tls.num_tickets = 0
    answers: list[Callable[[Request], Reply]] = []
    server = Server(socket.create_server((address, 8006)), tls, lambda request: answers[-1](request))
    server.start()
    try:
        yield Place(address, hashlib.sha256(der).hexdigest()), answers.append
    finally:
        server.stop()


@contextmanager
def scripted(
    directory: Path, answer: Callable[[Request], Reply], clock: clocks.Clock | None = None, **who: str
) -> Iterator[tuple[proxmox.Proxmox, list[Request]]]:
    """A client of a server that answers whatever ``answer`` says, and what it was asked."""
    heard: list[Request] = []

    def kept(request: Request) -> Reply:
        heard.append(request)
        return answer(request)

    with served(directory, f"{pve_bench.subnet()}.5") as (place, use):
        use(kept)
        config = lent(place.address, place.fingerprint, **who)
        yield proxmox.Proxmox(config, routes.Routes(), clock or Leaping()), heard


class Leaping:
    """A clock on which sleeping costs nothing: it leaps."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0
        self.slept: list[float] = []
        self._guard = threading.Lock()

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        with self._guard:
            self.at += seconds
            self.slept.append(seconds)


def data(value: Any) -> Reply:
    return Reply(body=json.dumps({"data": value}).encode())


def versioned(answer: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
    """The version as it should be, and ``answer`` for everything else."""
    return lambda request: data(VERSION) if request.target.startswith("/api2/json/version") else answer(request)


def refused(status: int, text: str, **fields: str) -> Reply:
    body: dict[str, Any] = {"data": None, "message": f"{text}\n"}
    return Reply(status, text, json.dumps(body | ({"errors": fields} if fields else {})).encode())


def silent(status: int, text: str) -> Reply:
    return Reply(status, text)


def times(
    number: int, method: str, part: str, reply: Reply, *, after: Callable[[Request], object] | None = None
) -> Mishap:
    """The first ``number`` requests like that get ``reply``; ``after`` has them carried out all the same."""
    left = Counter({"left": number})
    guard = threading.Lock()

    def mishap(request: Request) -> Reply | None:
        if request.method != method or part not in request.target:
            return None
        with guard:
            if left["left"] <= 0:
                return None
            left["left"] -= 1
        if after is not None:
            after(request)
        return reply

    return mishap
