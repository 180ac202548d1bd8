"""Bare machines for the lab's K3s: a directory, a journal in memory, and a unit that remembers how it ended."""

from __future__ import annotations

import base64
import itertools
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


KUBE_VIP = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-vip, namespace: kube-system}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
        - name: kube-vip
          image: kube-vip
          env: [{name: cp_enable, value: "true"}, {name: address, value: "%s"}]
"""
MANIFEST = "/var/lib/rancher/k3s/server/manifests/vip.yaml"


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

    def __init__(self, directory: Path, latencies: Latencies | None = None, net: str = "", speed: float = 20.0) -> None:
        self.directory = directory
        self.net = net or subnet()
        self.kit = make_kit(directory, latencies, speed)
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


def ask(address: str, path: str, *, user: str = "", admin: Box | None = None) -> tuple[int, str]:
    """Status and body of ``https://address:6443path``. ``user`` is ``name:password``."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if admin is not None:
        tls = admin.path("/var/lib/rancher/k3s/server/tls")
        context.load_cert_chain(tls / "client-admin.crt", tls / "client-admin.key")
    request = urllib.request.Request(f"https://{address}:6443{path}")
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as response:  # noqa: S310  # loopback
            return response.status, response.read().decode()
    except urllib.error.HTTPError as why:
        return why.code, why.read().decode()


def node(bench: Bench, name: str) -> dict[str, Any]:
    found = bench.k3s.clusters()[0].get("v1/Node", "", name)
    assert found is not None
    return found


def condition(bench: Bench, name: str, kind: str = "Ready") -> str:
    return str(next(c["status"] for c in node(bench, name)["status"]["conditions"] if c["type"] == kind))


def exits(bench: Bench, box: Box, code: int, said: str, role: str = "server", *argv: str) -> None:
    bench.start(box, role, *argv)
    assert box.is_ended.wait(10), box.said()
    assert box.code == code
    assert said in box.said()
