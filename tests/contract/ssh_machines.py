"""A cluster config, and lab hosts booted from the seeds that fo makes for it, on addresses of their own."""

from __future__ import annotations

import http.server
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from funoffshore import hostkeys, seed
from funoffshore.config import model
from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store
from funoffshore.lab.guests import Hardware
from funoffshore.lab.hosts.hosts import Hosts
from funoffshore.world import routes, ssh

_subnets = itertools.count()
GIB = 10.0


def subnet() -> IPv4Network:
    """A /24 of loopback that no other test of any run uses."""
    number = os.getpid() * 97 + next(_subnets)
    return IPv4Network(f"127.{80 + number % 48}.{number // 48 % 256}.0/24")


def config_of(tmp: Path, network: IPv4Network, nodes: int = 1) -> model.ClusterConfig:
    """A lab cluster with ``nodes`` controllers, enough for whatever talks SSH."""
    key = hostkeys.openssh_private(Ed25519PrivateKey.generate())
    return model.ClusterConfig(
        name="lab",
        root=tmp,
        domain="example.test",
        timezone="Etc/UTC",
        proxmox=model.Proxmox("https://x:8006", "a@b!c", SecretStr(""), "0" * 64, ("pve",), "fo", "d", "i", "b", None),
        image=model.Image("http://x/y.qcow2", "0" * 64),
        network=model.Network(network, network[1], (network[1],), network[10]),
        ssh=model.Ssh("ops", 2222, SecretStr(key), SecretStr("ab" * 32)),
        k3s=model.K3s(
            "v1.36.4+k3s1", "http://x", "0" * 64, SecretStr("t"), SecretStr("a"), IPv4Network("10.42.0.0/16"),
            IPv4Network("10.43.0.0/16"), (), True, {}, "kube-vip",
        ),
        flux=model.Flux("2.9.4", "http://x", "0" * 64),
        git=model.Git("http://x", "main", "infra/k8s/flux", None, None, ""),
        nodes=tuple(node_of(network, number) for number in range(1, nodes + 1)),
        settings={},
        switches={},
        app_secrets={},
        sops_age_key=None,
        evidence_key=SecretStr("cd" * 32),
        lab=model.Lab(tmp, "http://x"),
    )  # fmt: skip


def node_of(network: IPv4Network, number: int) -> model.Node:
    name, address = f"lab-c{number}", IPv4Address(int(network[0]) + 10 + number)
    role = model.Role.CONTROLLER
    return model.Node(name, role, 900 + number, address, "pve", 2, 4096, 20, model.identity("lab", name))


def kit_of(tmp: Path, latencies: Latencies | None = None, speed: float = 1.0) -> Kit:
    store = Store(tmp / "lab.sqlite")
    return Kit(tmp, LabClock(speed), store, latencies or Latencies(), Faults(store), Ledger(store), Routes(tmp))


def hardware_of(config: model.ClusterConfig, node: model.Node, *, agent: bool = True, blank: bool = False) -> Hardware:
    """The node's machine with its seed in the drive, or with none."""
    iso = config.root / "iso" / seed.filename(config, node)
    iso.parent.mkdir(exist_ok=True)
    iso.write_bytes(seed.iso(config, node))
    return Hardware(
        vmid=node.vmid, name=node.name, uuid=str(node.identity), cores=node.cores, memory_mib=node.memory_mib,
        disk_gib=GIB, image="local:import/x.qcow2", seed=None if blank else iso, macs=(seed.mac(node.identity),),
        agent=agent,
    )  # fmt: skip


def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Returns once ``true()`` is; fails the test when it does not become so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


class Bench:
    """Lab hosts and the door to them."""

    def __init__(self, tmp: Path, nodes: int = 1, latencies: Latencies | None = None, speed: float = 1.0) -> None:
        self.config = config_of(tmp, subnet(), nodes)
        self.kit = kit_of(tmp, latencies, speed)
        self.lab = Hosts(self.kit)
        self.hosts = ssh.Hosts(self.config, routes.Routes(tmp / "routes.json"), self.kit.clock)
        self.node = self.config.nodes[0]

    def boot(self, *, wait: bool = True) -> None:
        for node in self.config.nodes:
            self.lab.power_on(hardware_of(self.config, node))
        for node in self.config.nodes if wait else ():
            self.settle(node)

    def settle(self, node: model.Node) -> None:
        """Waits until the node's boot is over."""
        until(lambda: (self.kit.store.get("hosts", str(node.vmid)) or {}).get("phase") == "done")

    def root(self) -> Path:
        """The first node's disk."""
        return self.kit.directory / "hosts" / str(self.node.vmid) / "root"

    def close(self) -> None:
        self.hosts.close()
        self.lab.stop()
        self.kit.clock.stop()
        self.kit.store.close()


@contextmanager
def bench(tmp: Path, nodes: int = 1, latencies: Latencies | None = None, speed: float = 1.0) -> Iterator[Bench]:
    made = Bench(tmp, nodes, latencies, speed)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def offering(address: str, path: str, content: bytes) -> Iterator[str]:
    """A web server at ``address`` with one file; its URL without the path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
