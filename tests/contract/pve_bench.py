"""A lab Proxmox for tests: one API on its own addresses, machines that only have power, a web server for images."""

from __future__ import annotations

import hashlib
import itertools
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
import requests.adapters

from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store
from funoffshore.lab.guests import AgentSilentError, Hardware
from funoffshore.lab.pve import ProxmoxApi

SECRET = "0b5f6d1a-lab"
ROOT = "root@pam!full"
FO = "fo@pve!t1"
_numbers = itertools.count()


def subnet() -> str:
    """The first three bytes of a /24 that no other test uses at this moment."""
    number = os.getpid() * 131 + next(_numbers)
    return f"127.{100 + number // 200 % 100}.{1 + number % 200}"


def qcow2(size: int, *, backing: int = 0) -> bytes:
    """An image file with a correct header and nothing in it."""
    head = b"QFI\xfb" + (3).to_bytes(4, "big") + backing.to_bytes(8, "big") + bytes(8) + size.to_bytes(8, "big")
    return head + bytes(4096)


@dataclass
class Guests:
    """Machines that have power or not. ``deaf`` ones ignore a shutdown; ``broken`` ones do not start."""

    on: dict[int, Hardware] = field(default_factory=dict)
    history: list[tuple[str, int]] = field(default_factory=list)
    deaf: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    talking: set[int] = field(default_factory=set)

    def power_on(self, hardware: Hardware) -> None:
        if hardware.vmid in self.broken:
            raise ValueError("kvm: no such firmware")
        self.on[hardware.vmid] = hardware
        self.history.append(("on", hardware.vmid))

    def power_off(self, vmid: int) -> None:
        self.on.pop(vmid, None)
        self.history.append(("off", vmid))

    def shut_down(self, vmid: int) -> None:
        if vmid not in self.deaf:
            self.power_off(vmid)

    def is_on(self, vmid: int) -> bool:
        return vmid in self.on

    def destroy(self, vmid: int) -> None:
        self.history.append(("destroy", vmid))

    def agent(self, vmid: int, command: str, arguments: dict[str, Any]) -> object:
        if vmid not in self.talking:
            raise AgentSilentError
        return [{"name": "eth0"}] if command == "network-get-interfaces" else {}


def kit(directory: Path, latencies: Latencies | None = None, speed: float = 1.0) -> Kit:
    """A lab's common ground in ``directory``."""
    store = Store(directory / "lab.sqlite")
    return Kit(
        directory=directory,
        clock=LabClock(speed),
        store=store,
        latencies=latencies or Latencies(),
        faults=Faults(store),
        ledger=Ledger(store),
        routes=Routes(directory),
    )


@dataclass
class Answer:
    """What a call gave."""

    status: int
    reason: str
    body: Any
    headers: Mapping[str, str]

    @property
    def data(self) -> Any:
        assert self.status == 200, (self.status, self.reason, self.body)
        return self.body["data"]

    @property
    def errors(self) -> dict[str, str]:
        assert self.status == 400, (self.status, self.reason, self.body)
        found: dict[str, str] = self.body["errors"]
        return found


class Pinned(requests.adapters.HTTPAdapter):
    """Trusts one certificate. One TLS context for all connections, as making one costs more than a handshake."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *args: Any, **how: Any) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        super().init_poolmanager(*args, ssl_context=tls, assert_fingerprint=self._fingerprint, **how)


class Bench:
    """A running API and a client for it."""

    def __init__(self, kit: Kit, guests: Guests, net: str, release: str, nodes: tuple[str, ...] = ("pve",)) -> None:
        self.kit, self.guests, self.address, self.release = kit, guests, f"{net}.2", release
        self.api = ProxmoxApi(kit, guests, address=self.address, release=release, nodes=nodes, secret_for_tls=SECRET)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = False
        self.session.mount("https://", Pinned(self.api.fingerprint))

    @property
    def url(self) -> str:
        return f"https://{self.address}:8006/api2/json"

    def call(self, method: str, path: str, /, token: str = ROOT, **parameters: Any) -> Answer:
        """One call with form or query parameters; ``_`` in a name stands for ``-``."""
        values = {name.replace("_", "-"): value for name, value in parameters.items()}
        how = {"params" if method in ("GET", "DELETE") else "data": values}
        return self.raw(method, path, token, **how)

    def raw(self, method: str, path: str, token: str = ROOT, **how: Any) -> Answer:
        """One call as ``requests`` takes it."""
        headers = {"Authorization": f"PVEAPIToken={token}={SECRET}"} if token else {}
        url = path if path.startswith("http") else self.url + path
        reply = self.session.request(method, url, headers={**headers, **how.pop("headers", {})}, timeout=20, **how)
        is_json = reply.headers.get("Content-Type", "").startswith("application/json")
        return Answer(reply.status_code, reply.reason, reply.json() if is_json else reply.text, reply.headers)

    def wait(self, upid: str) -> str:
        """The exit text of a task, awaited without sleeping."""
        return str(self.status(upid)["exitstatus"])

    def status(self, upid: str) -> dict[str, Any]:
        """The status of a task once it is over."""
        pause = threading.Event()
        for _ in range(2000):
            found: dict[str, Any] = self.call("GET", f"/nodes/{upid.split(':')[1]}/tasks/{upid}/status").data
            if found["status"] == "stopped":
                return found
            pause.wait(0.002)
        raise AssertionError(f"{upid} does not end")

    def log(self, upid: str) -> list[str]:
        """The whole log of a task that is over."""
        self.status(upid)
        rows = self.call("GET", f"/nodes/{upid.split(':')[1]}/tasks/{upid}/log", limit=0).data
        return [row["t"] for row in rows]

    def done(self, method: str, path: str, /, token: str = ROOT, **parameters: Any) -> str:
        """Calls, waits for the task, returns its exit text."""
        return self.wait(self.call(method, path, token, **parameters).data)

    def put_file(self, path: str, content: bytes) -> None:
        """A file on the storage ``local``: ``import/deb.qcow2``, ``iso/a.iso``."""
        kind, _, name = path.partition("/")
        folder = self.kit.directory / "pve" / "storage" / "local" / {"iso": "template/iso"}.get(kind, kind)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    def config(self, vmid: int) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/nodes/pve/qemu/{vmid}/config").data
        return found


def prepare(bench: Bench) -> None:
    """The tokens, storages and files that the recording had."""
    bench.api.add_token(ROOT, SECRET)
    bench.api.add_token(FO, SECRET)
    bench.api.add_token("weak@pve!t1", SECRET, {})
    bench.api.add_token("fo@pve!old", SECRET, {}, expires=1.0)
    bench.api.add_storage("local", "dir", ("iso", "vztmpl", "import", "backup", "snippets"))
    bench.api.add_storage("vmstore", "dir", ("images", "rootdir"))
    bench.api.add_storage("tiny", "dir", ("images",))
    bench.put_file("import/deb.qcow2", qcow2(300 << 20))
    bench.put_file("import/fake.qcow2", b"no image")
    bench.put_file("import/backed.qcow2", qcow2(1 << 20, backing=4096))
    bench.put_file("iso/a.iso", bytes(2048))


@contextmanager
def bench(
    directory: Path,
    *,
    release: str = "8.4",
    latencies: Latencies | None = None,
    speed: float = 1.0,
    nodes: tuple[str, ...] = ("pve",),
) -> Iterator[Bench]:
    """A prepared API, stopped at the end."""
    made = Bench(kit(directory, latencies, speed), Guests(), subnet(), release, nodes)
    prepare(made)
    made.api.start()
    try:
        yield made
    finally:
        made.session.close()
        made.api.stop()
        made.kit.clock.stop()
        made.kit.store.close()


@contextmanager
def web(files: Mapping[str, bytes]) -> Iterator[str]:
    """A web server; yields its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path.lstrip("/"))
            self.send_response(404 if body is None else 200, "File not found" if body is None else "OK")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer((f"{subnet()}.3", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://{server.server_address[0]!s}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
