"""A real Kubernetes control plane as plain processes on loopback, in one folder, without root.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are the real ones; nodes and what runs on them are
kwok's: pods become Running without any container.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import ssl
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import plane_pki as pki
from bench.plane_process import PlaneError, Processes, free_ports, program

PROGRAMS = ("etcd", "kube", "kwok")
_PATIENCE = 90.0
"""Seconds for each step of the start on a machine that has other things to do."""
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_PORTS = ("etcd", "peer", "api", "manager", "scheduler", "kwok")


class Plane:
    """One cluster. ``kubeconfig`` is its administrator's file (client certificate, group system:masters).

    As a K3s server it lets nobody in without credentials and gives services addresses of 10.43.0.0/16.
    """

    token = "bench-opens-nothing"  # noqa: S105 - opens this plane on loopback
    """A bearer token of the administrator."""

    def __init__(self, folder: Path, nodes: Sequence[str] = ("n1",)) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.processes = Processes(folder / "logs")
        self._nodes = nodes
        self._keys = folder / "pki"
        self._data = folder / "data"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def server(self) -> str:
        """``https://127.0.0.1:PORT``."""
        return f"https://127.0.0.1:{self.ports['api']}"

    def start(self) -> None:
        """Returns when the API is ready, every node is Ready and pods can be made. The programs end with the thread
        that calls this. Raises build.MissingError, PlaneError."""
        programs = {name: program(name) for name in PROGRAMS}
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self._credentials()
        try:
            self._etcd(programs["etcd"])
            self._apiserver(programs["kube"])
            self._controllers(programs["kube"])
            self._kwok(programs["kwok"])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends everything and removes the data; the logs stay."""
        self.processes.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def rss(self) -> dict[str, int]:
        """Resident bytes of each process."""
        return self.processes.rss()

    def forget(self) -> None:
        """Lets etcd drop its history up to now, as the API server has it done every five minutes. Pages that began
        before are gone as soon as the API server has noticed the note that it leaves itself."""
        newest = int(self._etcd_call("kv/range", {"key": "AA=="})["header"]["revision"])
        key, value = (base64.b64encode(text.encode()).decode() for text in ("compact_rev_key", str(newest)))
        self._etcd_call("kv/put", {"key": key, "value": value})
        self._etcd_call("kv/compaction", {"revision": str(newest), "physical": True})

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and parsed answer of the API, as administrator; the text where it is no JSON. Raises OSError."""
        context = ssl.create_default_context(cafile=self._keys / "ca.crt")
        context.load_cert_chain(self._keys / "admin.crt", self._keys / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.ports["api"], context=context, timeout=10)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode(errors="replace")
        except http.client.HTTPException as why:
            raise OSError(f"{method} {path}: {why!r}") from why
        finally:
            connection.close()
        try:
            return answer.status, json.loads(said)
        except ValueError:
            return answer.status, said

    # Below

    def _credentials(self) -> None:
        self._keys.mkdir(parents=True, mode=0o700)
        self.ca = pki.authority("bench-ca")
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", "10.43.0.1")
        pairs = {
            "ca": self.ca,
            "server": pki.server(self.ca, "kube-apiserver", names),
            "admin": pki.client(self.ca, "system:admin", "system:masters"),
            "manager": pki.client(self.ca, "system:kube-controller-manager"),
            "scheduler": pki.client(self.ca, "system:kube-scheduler"),
        }
        for name, pair in pairs.items():
            _write(self._keys / f"{name}.crt", pair.pem)
            _write(self._keys / f"{name}.key", pair.key_pem)
        hidden, shown = pki.signing_key()
        _write(self._keys / "accounts.key", hidden)
        _write(self._keys / "accounts.pub", shown)
        _write(self._keys / "tokens.csv", f'{self.token},admin,admin,"system:masters"\n'.encode())
        for name, file in (("admin", self.kubeconfig), ("manager", self._keys / "manager.kubeconfig"),
                           ("scheduler", self._keys / "scheduler.kubeconfig")):  # fmt: skip
            _write(file, kubeconfig(self.server, self.ca, pairs[name]))

    def _etcd(self, etcd: Path) -> None:
        clients, peers = (f"http://127.0.0.1:{self.ports[port]}" for port in ("etcd", "peer"))
        self.processes.start("etcd", [
            etcd, "--name=bench", f"--data-dir={self._data}/etcd", f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=bench={peers}", "--unsafe-no-fsync",
            "--log-level=warn",
        ])  # fmt: skip
        self.processes.wait("etcd", "etcd", lambda: bool(self._etcd_call("maintenance/status", {})), _PATIENCE)

    def _etcd_call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["etcd"], timeout=10)
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise PlaneError(f"etcd refuses {path}: {said}")
        return said

    def _apiserver(self, kube: Path) -> None:
        keys = self._keys
        self.processes.start("apiserver", [
            kube, "apiserver", f"--etcd-servers=http://127.0.0.1:{self.ports['etcd']}", "--bind-address=127.0.0.1",
            f"--secure-port={self.ports['api']}", "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # refuses loopback addresses otherwise
            f"--cert-dir={self._data}/apiserver", f"--tls-cert-file={keys}/server.crt",
            f"--tls-private-key-file={keys}/server.key", f"--client-ca-file={keys}/ca.crt",
            f"--token-auth-file={keys}/tokens.csv", "--anonymous-auth=false",
            f"--service-account-key-file={keys}/accounts.pub",
            f"--service-account-signing-key-file={keys}/accounts.key", f"--service-account-issuer={_ISSUER}",
            "--service-cluster-ip-range=10.43.0.0/16", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction", "--profiling=false",
        ])  # fmt: skip
        self.processes.wait("apiserver", "/readyz", lambda: self.call("GET", "/readyz")[0] == 200, _PATIENCE)

    def _controllers(self, kube: Path) -> None:
        keys = self._keys
        self.processes.start("controller-manager", [
            kube, "controller-manager", f"--kubeconfig={keys}/manager.kubeconfig", "--bind-address=127.0.0.1",
            f"--secure-port={self.ports['manager']}", f"--cert-dir={self._data}/manager",
            f"--service-account-private-key-file={keys}/accounts.key", f"--root-ca-file={keys}/ca.crt",
            f"--cluster-signing-cert-file={keys}/ca.crt", f"--cluster-signing-key-file={keys}/ca.key",
            "--use-service-account-credentials=true", "--leader-elect=false", "--profiling=false",
        ])  # fmt: skip
        self.processes.start("scheduler", [
            kube, "scheduler", f"--kubeconfig={keys}/scheduler.kubeconfig", "--bind-address=127.0.0.1",
            f"--secure-port={self.ports['scheduler']}", f"--cert-dir={self._data}/scheduler", "--leader-elect=false",
            "--profiling=false",
        ])  # fmt: skip

    def _kwok(self, kwok: Path) -> None:
        stages = next((f for f in (kwok.parent / "stages.yaml", kwok.parent / "kwok-stages.yaml") if f.exists()), None)
        if stages is None:
            raise PlaneError(f"there is no stages.yaml beside {kwok}")
        self.processes.start("kwok", [
            kwok, f"--kubeconfig={self.kubeconfig}", "--manage-all-nodes", f"--config={stages}",
            f"--server-address=127.0.0.1:{self.ports['kwok']}", "--node-ip=127.0.0.1",
            "--node-lease-duration-seconds=40",
        ], {"KWOK_WORKDIR": str(self._data / "kwok")})  # fmt: skip
        for name in self._nodes:
            labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            status, said = self.call("POST", "/api/v1/nodes", node)
            if status != 201:
                raise PlaneError(f"the API refuses node {name}: {said}")
        self.processes.wait("kwok", "a Ready node", self._nodes_ready, _PATIENCE)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        made = lambda: self.call("GET", account)[0] == 200  # noqa: E731 - a name reads better here
        self.processes.wait("controller-manager", "the service account default", made, _PATIENCE)

    def _nodes_ready(self) -> bool:
        _, said = self.call("GET", "/api/v1/nodes")
        ready = [
            c for node in said["items"] for c in node.get("status", {}).get("conditions", [])
            if c["type"] == "Ready" and c["status"] == "True"
        ]  # fmt: skip
        return len(ready) == len(self._nodes)


def kubeconfig(server: str, ca: pki.Pair, user: pki.Pair | None = None, token: str = "") -> bytes:
    """A kubeconfig with one cluster and one user, by certificate or token."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    who = {"client-certificate-data": text(user.pem), "client-key-data": text(user.key_pem)} if user else {}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": server, "certificate-authority-data": text(ca.pem)}}],
        "users": [{"name": "bench", "user": who or {"token": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }  # fmt: skip
    return json.dumps(document, indent=1).encode()


def _write(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
