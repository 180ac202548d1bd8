"""A cluster of the lab behind HTTPS on an address of its own, with a kubeconfig for it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from bench.plane import kubeconfig
from bench.plane_pki import Pair, authority, client, server
from funoffshore.lab import base
from funoffshore.lab.kube.api import HttpRequest, HttpResponse
from funoffshore.lab.kube.cluster import KubeCluster

_numbers = itertools.count()


def address() -> str:
    """An address in a /24 that no other test uses."""
    return f"127.{64 + os.getpid() % 150}.{next(_numbers) % 250}.{os.getpid() // 150 % 250 + 1}"


def pair(name: str, issuer: Pair | None = None, ip: str = "") -> Pair:
    """A CA, a client's or (with ``ip``) a server's certificate."""
    if issuer is None:
        return authority(name)
    return server(issuer, name, (ip,)) if ip else client(issuer, name)


class Served:
    """The cluster ``cluster`` at ``host``:6443; ``kubeconfig`` is the administrator's file."""

    def __init__(self, directory: Path, *, detour: bool = False, **latencies: float) -> None:
        store = base.Store(directory / "lab.sqlite")
        self.kit = base.Kit(
            directory, base.LabClock(), store, base.Latencies(**latencies), base.Faults(store), base.Ledger(store),
            base.Routes(directory, detour=detour),
        )  # fmt: skip
        self.host = address()
        self.ca = pair("k3s-ca")
        self.admin = pair("system:admin", self.ca)
        self.cluster = KubeCluster(self.kit, "demo", ca=self.ca.pem.decode())
        self.before: Callable[[HttpRequest], HttpResponse | None] = lambda request: None
        self.server = pair("k3s", self.ca, self.host)
        self.listen()
        self.kubeconfig = directory / "kubeconfig"
        self.write_kubeconfig()

    def listen(self) -> None:
        def first(request: HttpRequest) -> HttpResponse | None:
            return self.before(request)

        self.cluster.listen(self.host, 6443, self.server.pem, self.server.key_pem, self.ca.pem, first)

    def write_kubeconfig(self, ca: Pair | None = None, user: Pair | None = None, token: str = "") -> None:
        """With ``token``, that instead of a certificate; ``user`` instead of the administrator."""
        who = None if token else user or self.admin
        self.kubeconfig.write_bytes(kubeconfig(f"https://{self.host}:6443", ca or self.ca, who, token))
        self.kubeconfig.chmod(0o600)

    def add_node(self, name: str = "n1") -> None:
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        self.cluster.create(node, "kubelet")
        status = {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}
        self.cluster.change_status("v1/Node", "", name, lambda _: status)

    def close(self) -> None:
        self.cluster.close()
        self.kit.clock.stop()
        self.kit.store.close()
