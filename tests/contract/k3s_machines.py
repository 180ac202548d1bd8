"""Bare machines for the lab's K3s: a directory, a journal in memory, and a unit that remembers how it ended."""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from funoffshore.lab import k3s
from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store

VERSION = "v1.36.4+k3s1"
SECRET = "0123456789abcdef0123456789abcdef"
AGENT_SECRET = "fedcba9876543210fedcba9876543210"
_COUNT = itertools.count()


def subnet() -> str:
    """A /24 that no other test of this process, and hardly one of another, uses: ``127.X.Y.``."""
    number = (os.getpid() * 7 + next(_COUNT) * 101) % (120 * 250)
    return f"127.{128 + number // 250 % 120}.{number % 250 + 1}."


def make_kit(directory: Path, latencies: Latencies | None = None, speed: float = 20.0) -> Kit:
    store = Store(directory / "lab.db")
    return Kit(
        directory, LabClock(speed), store, latencies or Latencies(), Faults(store), Ledger(store), Routes(directory)
    )


@dataclass
class Box:
    """Satisfies ``lab.hosts.api.Machine``; at the same time its one unit."""

    kit: Kit
    vmid: int
    name: str
    address: str
    root: Path
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    lines: dict[str, list[str]] = field(default_factory=dict)
    ports: set[int] = field(default_factory=set)
    is_ready: threading.Event = field(default_factory=threading.Event)
    is_ended: threading.Event = field(default_factory=threading.Event)
    code: int | None = None

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def journal(self, unit: str, line: str) -> None:
        self.lines.setdefault(unit, []).append(line)

    def journal_lines(self, unit: str, count: int) -> list[str]:
        return self.lines.get(unit, [])[-count:]

    def listen_port(self, port: int) -> None:
        self.ports.add(port)

    def unlisten_port(self, port: int) -> None:
        self.ports.discard(port)

    def said(self) -> str:
        return "\n".join(line for lines in self.lines.values() for line in lines)

    def configure(self, **settings: object) -> None:
        self.write("/etc/rancher/k3s/config.yaml", yaml.safe_dump(settings, sort_keys=False))

    def write(self, path: str, text: str) -> None:
        real = self.path(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_text(text)

    def read(self, path: str) -> str:
        return self.path(path).read_text()

    def ended(self, code: int) -> None:
        self.code = code
        self.is_ended.set()


class Bench:
    """A subnet of boxes with one K3s."""

    def __init__(self, directory: Path, latencies: Latencies | None = None, net: str = "") -> None:
        self.directory = directory
        self.net = net or subnet()
        self.kit = make_kit(directory, latencies)
        self.k3s = k3s.K3s(self.kit)
        self.boxes: dict[str, Box] = {}

    @property
    def vip(self) -> str:
        return self.net + "10"

    def box(self, name: str, number: int) -> Box:
        root = self.directory / "hosts" / str(number)
        box = Box(self.kit, 900 + number, name, f"{self.net}{number}", root)
        box.path("/usr/local/bin").mkdir(parents=True, exist_ok=True)
        box.path("/usr/local/bin/k3s").write_bytes(k3s.binary(VERSION))
        self.boxes[name] = box
        return box

    def start(self, box: Box, role: str = "server", *argv: str) -> None:
        box.is_ready.clear()
        box.is_ended.clear()
        box.code = None
        self.k3s.start(box, ["/usr/local/bin/k3s", role, *argv], box.is_ready.set, box.ended)

    def run(self, box: Box, *argv: str) -> tuple[int, str, str]:
        result = self.k3s(box, ["k3s", *argv], b"")
        return result.code, result.out.decode(), result.err.decode()

    def found(self, box: Box, **more: object) -> Box:
        """``box`` as the ready first server."""
        names = [self.vip, *(f"{self.net}{n}" for n in (11, 12, 13))]
        box.configure(**{"cluster-init": True, "token": SECRET, "agent-token": AGENT_SECRET, "tls-san": names,
                         "node-ip": box.address, **more})  # fmt: skip
        self.start(box)
        assert box.is_ready.wait(10), box.said()
        return box

    def token(self, box: Box, name: str = "token") -> str:
        return box.read(f"/var/lib/rancher/k3s/server/{name}").strip()

    def join(self, box: Box, first: Box, role: str = "server", **more: object) -> None:
        settings: dict[str, object] = {"server": f"https://{first.address}:6443", "node-ip": box.address}
        settings["token"] = self.token(first, "token" if role == "server" else "agent-token")
        if role == "server":
            settings["agent-token"] = AGENT_SECRET
        box.configure(**{**settings, **more})
        self.start(box, role)

    def close(self) -> None:
        self.k3s.close()
        self.kit.clock.stop()
        self.kit.store.close()


def eventually(probe: Callable[[], object], seconds: float = 10.0) -> None:
    """Fails when ``probe`` is not true within wall ``seconds``."""
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, f"{probe} stayed false"
        time.sleep(0.005)
