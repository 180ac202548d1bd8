"""The lab's Proxmox VE API: authentication, dispatch, answers."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from funoffshore import pveapi
from funoffshore.lab.base import Kit
from funoffshore.lab.guests import Guests
from funoffshore.lab.pve import bodies, certificate, duties, index, mishaps, power, tickets
from funoffshore.lab.pve.access import Access, Caller
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.cluster import Cluster
from funoffshore.lab.pve.handlers import HANDLERS
from funoffshore.lab.pve.machines import Machines
from funoffshore.lab.pve.operator import Operator
from funoffshore.lab.pve.refusal import RefusalError, die, forbidden, invalid_fields, plain, silent
from funoffshore.lab.pve.shelf import Shelves
from funoffshore.lab.pve.tasks import TaskError, Tasks
from funoffshore.lab.pve.timers import Timers
from funoffshore.lab.pve.volumes import Volumes
from funoffshore.lab.pve.wire import Reply, Request, Server

UNAUTHORISED_SECONDS = 3.0
"""How long the real API lets every 401 wait."""
_NAMED_BY = {
    "/nodes/{node}/qemu": "vmid",
    "/pools": "poolid",
    "/nodes/{node}/storage/{storage}/upload": "filename",
    "/nodes/{node}/storage/{storage}/download-url": "filename",
    "/cluster/ha/resources": "sid",
    "/cluster/ha/rules": "rule",
    "/cluster/ha/groups": "group",
    "/cluster/backup": "id",
}
"""Which parameter names the object in the ledger, where the path does not."""


_INDEX = pveapi.Operation("GET", "", {}, "array")
"""Stands for a look at what there is below a path."""


class ProxmoxApi(Operator):
    """A Proxmox VE cluster on loopback, answering between ``start`` and ``stop``. State outlives the process."""

    def __init__(
        self,
        kit: Kit,
        guests: Guests,
        *,
        address: str,
        port: int = 8006,
        release: str = "9.1",
        nodes: tuple[str, ...] = ("pve",),
        bridges: tuple[str, ...] = ("vmbr0",),
        secret_for_tls: str,
    ) -> None:
        """Raises ValueError for a release that the table does not know."""
        pveapi.table(release)
        der, self._pem = certificate.make(secret_for_tls, address)
        self.fingerprint = hashlib.sha256(der).hexdigest()
        """SHA-256 of the certificate, 64 lower-case hex digits."""
        self._kit, self._port, self._unknown = kit, port, threading.Lock()
        self._server: Server | None = None
        guests = mishaps.hushed(kit, guests)
        machines = Machines(kit, guests)
        self._house = House(
            kit=kit,
            guests=guests,
            release=release,
            cluster=Cluster(kit, nodes),
            address=address,
            fingerprint=self.fingerprint,
            access=Access(kit, release, lambda path: _pool_of(machines, path)),
            tasks=Tasks(kit),
            volumes=Volumes(kit, nodes, release),
            machines=machines,
            shelf=Shelves(kit),
            timers=Timers(kit),
            bridges=bridges,
        )

    def start(self) -> None:
        """Listens, and gives power to every machine that had it when the lab ended. Raises OSError."""
        folder = self._kit.directory / "pve"
        folder.mkdir(parents=True, exist_ok=True)
        pem = folder / "tls.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(self._pem)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        tls.num_tickets = 0
        listener = self._kit.routes.listen(self._house.address, self._port)
        for machine in self._house.machines.all():
            if machine.on and self._house.cluster.online(machine.node):
                try:
                    power.switch_on(self._house, machine)
                except TaskError:
                    machine.on = False
                    self._house.machines.save(machine)
        duties.begin(self._house)
        self._server = Server(listener, tls, self.answer)
        self._server.start()

    def stop(self) -> None:
        """Nothing answers any more; running tasks are brought to their end first."""
        if self._server is not None:
            self._server.stop()
            self._server = None
            self._kit.routes.forget(self._house.address, self._port)
        self._house.timers.stop()
        self._house.tasks.stop()

    def answer(self, request: Request) -> Reply:
        """The answer to one request, whatever it is. Never raises."""
        delay = self._kit.latencies.api
        if delay > 0:
            self._kit.clock.sleep(delay)
        if (foreign := mishaps.instead(self._kit, request)) is not None:
            return foreign
        path, _, query = request.target.partition("?")
        extjs = path.startswith("/api2/extjs/")
        try:
            call, operation = self._admit(request, path, query)
            data = call.values["below"] if operation is _INDEX else HANDLERS[operation.method, operation.path](call)
        except RefusalError as why:
            if why.status == 401 and delay > 0:
                self._kit.clock.sleep(UNAUTHORISED_SECONDS)
            return self._refused(why, extjs)
        except Exception as why:  # the real API, too, turns whatever a handler dies of into a 500
            self._note(f"{request.method} {path}: {why!r}")
            return self._refused(die(f"internal error: {type(why).__name__}"), extjs)
        self._enter(call, operation)
        body = {"data": data, **call.extra, **({"success": 1} if extjs else {})}
        text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        return mishaps.on_the_way_back(call, operation, Reply(body=text, protected=operation.protected))

    def _admit(self, request: Request, path: str, query: str) -> tuple[Call, pveapi.Operation]:
        """The checked call, or the first refusal in the real API's order: 401, 501, 403, node, 400."""
        if request.method not in ("GET", "POST", "PUT", "DELETE"):
            raise silent(501, f"method '{request.method}' not available")
        inner = _inner(path)
        caller = self._caller(request, inner)
        _refuse_content(request)
        try:
            operation, from_path = pveapi.find(self._house.release, request.method, inner)
        except pveapi.UnknownOperationError:
            if request.method == "GET" and (rows := index.below(self._house.release, inner)):
                return Call(self._house, caller, {"below": rows}), _INDEX
            self._note(f"{request.method} {inner}")
            raise RefusalError(501, f"Method '{request.method} {inner}' not implemented") from None
        values, data = self._parameters(request, query, operation)
        values |= from_path
        self._check_privileges(caller, operation, values, is_upload=data is not None)
        if "node" in from_path and (gone := self._house.cluster.unreachable(str(from_path["node"]))) is not None:
            raise gone
        errors = pveapi.check_parameters(operation, values)
        if errors:
            raise invalid_fields(errors)
        self._house.cluster.need_quorum(operation.method, operation.path)
        return Call(self._house, caller, values, data or b""), operation

    def _caller(self, request: Request, inner: str) -> Caller:
        """Who asks. Whoever logs in is nobody yet."""
        if (request.method, inner) in (("POST", "/access/ticket"), ("GET", "/access/domains")):
            return tickets.NOBODY
        shown = tickets.caller(self._house, request.headers, request.method)
        return shown or self._house.access.authenticate(request.headers)

    def _parameters(
        self, request: Request, query: str, operation: pveapi.Operation
    ) -> tuple[dict[str, Any], bytes | None]:
        """Query and body together; the bytes of an uploaded file, or None where there is no upload."""
        values = bodies.form(query)
        kind = request.headers.get("content-type", "")
        if request.method in ("GET", "DELETE"):
            return values, None
        if kind.lower().startswith("multipart/form-data") and operation.path.endswith("/upload"):
            sent = bodies.upload(kind, request.body)
            return {**values, **sent.fields, "filename": sent.filename}, sent.data
        return {**values, **bodies.parameters(kind, request.body)}, None

    def _check_privileges(
        self, caller: Caller, operation: pveapi.Operation, values: Mapping[str, Any], *, is_upload: bool
    ) -> None:
        def held(path: str) -> set[str]:
            return set(self._house.access.held(caller, path))

        why = pveapi.privileges.denied(operation.allowed, values, held, caller.user)
        if why is not None:
            refusal = forbidden(why)
            raise silent(403, refusal.text) if is_upload else refusal

    def _enter(self, call: Call, operation: pveapi.Operation) -> None:
        """Every accepted call that changes something goes into the ledger."""
        if operation.method == "GET" or "/agent/" in operation.path:
            return
        path = operation.path
        for name in ("node", "vmid", "storage", "volume", "upid"):
            path = path.replace(f"{{{name}}}", str(call.values.get(name, "")))
        thing = call.text(_NAMED_BY.get(operation.path, ""))
        self._kit.ledger.add("pve", f"{operation.method} {path} {thing}".rstrip())

    def _refused(self, why: RefusalError, extjs: bool) -> Reply:
        """A refusal in JSON, or as the HTTP layer gives it. Before 8.3 its text was in the reason phrase only."""
        if why.body is not None:
            return Reply(why.status, why.text, why.body, content_type="text/plain")
        body: dict[str, Any] = {"data": None, "message": why.text if why.status == 501 else f"{why.text}\n"}
        if self._house.release < "8.4":
            body.pop("message")
        if why.errors is not None:
            body["errors"] = dict(why.errors)
        if extjs:
            body |= {"success": 0, "status": why.status}
        text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        return Reply(body=text) if extjs else Reply(why.status, why.text, text)

    def _note(self, line: str) -> None:
        """Into ``unknown.log``: what the lab does not play, for whoever extends the table."""
        with self._unknown, (self._kit.directory / "pve" / "unknown.log").open("a") as log:
            log.write(line.replace("\n", " ") + "\n")


def _inner(path: str) -> str:
    """The path below the API's root, decoded. Refuses what is no API path with 500 in plain text."""
    for root in ("/api2/json", "/api2/extjs"):
        if path == root or path.startswith(root + "/"):
            if "//" in path:
                raise plain(500, f"no such file '{path.removeprefix('/api2')}'")
            return unquote(path.removeprefix(root)).rstrip("/") or "/"
    raise plain(500, f"no such file '{path}'")


def _refuse_content(request: Request) -> None:
    if request.trouble == "chunked":
        raise plain(501, "chunked transfer encoding not supported")
    if request.trouble == "large":
        raise plain(501, "for data too large")
    if request.body and request.method in ("GET", "DELETE"):
        raise plain(501, f"Unexpected content for method '{request.method}'")


def _pool_of(machines: Machines, path: str) -> str | None:
    """The pool whose rights reach ``path``."""
    kind, _, name = path.lstrip("/").partition("/")
    if kind == "vms" and name.isdigit():
        return machines.pool_of(int(name))
    if kind == "storage":
        return next((pool for pool, body in machines.pools.items() if name in body["storage"]), None)
    return None
