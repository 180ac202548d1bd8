"""The lab's Proxmox VE API: authentication, dispatch, answers."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from funoffshore import pveapi
from funoffshore.lab.base import Kit
from funoffshore.lab.guests import Guests
from funoffshore.lab.pve import bodies, certificate, change, content, create, pools, power, reads, tasklists, transfers
from funoffshore.lab.pve.access import Access, Caller
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machines
from funoffshore.lab.pve.refusal import RefusalError, die, forbidden, invalid_fields, plain, silent
from funoffshore.lab.pve.tasks import TaskError, Tasks
from funoffshore.lab.pve.volumes import Volumes
from funoffshore.lab.pve.wire import Reply, Request, Server

UNAUTHORISED_SECONDS = 3.0
"""How long the real API lets every 401 wait."""
_Q = "/nodes/{node}/qemu/{vmid}"
_S = "/nodes/{node}/storage/{storage}"
_T = "/nodes/{node}/tasks/{upid}"

HANDLERS: Mapping[tuple[str, str], Callable[[Call], Any]] = {
    ("GET", "/version"): reads.version,
    ("GET", "/access/permissions"): reads.permissions,
    ("GET", "/cluster/status"): reads.cluster_status,
    ("GET", "/cluster/resources"): reads.resources,
    ("GET", "/cluster/nextid"): reads.next_id,
    ("GET", "/nodes"): reads.nodes,
    ("GET", "/nodes/{node}/status"): reads.node_status,
    ("GET", "/nodes/{node}/network"): reads.network,
    ("GET", "/pools"): reads.pools,
    ("POST", "/pools"): pools.create,
    ("PUT", "/pools"): pools.update,
    ("DELETE", "/pools"): pools.delete,
    ("GET", "/nodes/{node}/storage"): content.storages,
    ("GET", _S + "/status"): content.status,
    ("GET", _S + "/content"): content.volumes,
    ("POST", _S + "/content"): content.allocate,
    ("GET", _S + "/content/{volume}"): content.show,
    ("DELETE", _S + "/content/{volume}"): content.delete,
    ("POST", _S + "/download-url"): transfers.download,
    ("POST", _S + "/upload"): transfers.upload,
    ("GET", "/nodes/{node}/qemu"): reads.machines,
    ("POST", "/nodes/{node}/qemu"): create.create,
    ("DELETE", _Q): create.destroy,
    ("GET", _Q + "/config"): reads.config,
    ("PUT", _Q + "/config"): change.put_config,
    ("POST", _Q + "/config"): change.post_config,
    ("GET", _Q + "/pending"): reads.pending,
    ("PUT", _Q + "/resize"): change.resize,
    ("POST", _Q + "/clone"): create.clone,
    ("GET", _Q + "/status/current"): reads.machine_status,
    ("POST", _Q + "/status/start"): power.begin_start,
    ("POST", _Q + "/status/stop"): power.begin_stop,
    ("POST", _Q + "/status/shutdown"): power.begin_shutdown,
    ("POST", _Q + "/status/reset"): power.begin_reset,
    ("POST", _Q + "/status/reboot"): power.begin_reboot,
    ("GET", _Q + "/agent/network-get-interfaces"): power.agent("network-get-interfaces"),
    ("GET", _Q + "/agent/get-host-name"): power.agent("get-host-name"),
    ("POST", _Q + "/agent/ping"): power.agent("ping"),
    ("GET", "/nodes/{node}/tasks"): tasklists.listed,
    ("GET", _T + "/status"): tasklists.status,
    ("GET", _T + "/log"): tasklists.log,
    ("DELETE", _T): tasklists.stop,
}

_NAMED_BY = {
    "/nodes/{node}/qemu": "vmid",
    "/pools": "poolid",
    _S + "/upload": "filename",
    _S + "/download-url": "filename",
}
"""Which parameter names the object in the ledger, where the path does not."""


class ProxmoxApi:
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
        machines = Machines(kit, guests)
        self._house = House(
            kit=kit,
            guests=guests,
            release=release,
            nodes=nodes,
            address=address,
            fingerprint=self.fingerprint,
            access=Access(kit, release, lambda path: _pool_of(machines, path)),
            tasks=Tasks(kit),
            volumes=Volumes(kit, nodes),
            machines=machines,
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
            if machine.on:
                try:
                    power.switch_on(self._house, machine)
                except TaskError:
                    machine.on = False
                    self._house.machines.save(machine)
        self._server = Server(listener, tls, self.answer)
        self._server.start()

    def stop(self) -> None:
        """Nothing answers any more; running tasks are brought to their end first."""
        if self._server is not None:
            self._server.stop()
            self._server = None
            self._kit.routes.forget(self._house.address, self._port)
        self._house.tasks.stop()

    def volume_file(self, node: str, volid: str) -> Path:
        """The file of a volume that lies in a directory storage, like ``local:import/x.qcow2``."""
        volumes = self._house.volumes
        return volumes.file(node, volumes.parse(volid))

    def add_token(
        self, token_id: str, secret: str, acl: Mapping[str, Iterable[str]] | None = None, *, expires: float = 0
    ) -> None:
        """Makes or replaces ``user@realm!name``. ``acl`` maps paths to privileges, all inherited downwards.

        None means the role that fo needs, for a token of root@pam everything. ``expires`` is Unix time, 0 never.
        """
        self._house.access.add(token_id, secret, acl, expires)

    def ensure_token(self, token_id: str, secret: str) -> None:
        """The token works with ``secret``; one that is there keeps its rights, a new one gets the role fo needs."""
        self._house.access.ensure(token_id, secret)

    def set_privileges(self, token_id: str, path: str, privileges: Iterable[str]) -> None:
        """Replaces what the token has at ``path``. Raises KeyError for an unknown token."""
        self._house.access.set(token_id, path, privileges)

    def remove_privilege(self, token_id: str, privilege: str) -> None:
        """Takes one privilege from the token, at every path. Raises KeyError for an unknown token."""
        self._house.access.remove(token_id, privilege)

    def add_storage(self, name: str, kind: str, content: tuple[str, ...]) -> None:
        """Makes or replaces a storage of type ``dir`` or ``lvmthin``."""
        self._house.volumes.add(name, kind, content)

    def add_stranger(self, vmid: int, name: str, node: str = "pve") -> None:
        """A machine that somebody else made. Raises RefusalError when the ID is taken."""
        machine = self._house.machines.reserve(node, vmid, 0.0)
        machine.config = create.configuration(self._house, {"name": name, "memory": "2048", "cores": "2"})
        self._house.machines.save(machine)
        self._house.machines.release(vmid)

    def answer(self, request: Request) -> Reply:
        """The answer to one request, whatever it is. Never raises."""
        delay = self._kit.latencies.api
        if delay > 0:
            self._kit.clock.sleep(delay)
        path, _, query = request.target.partition("?")
        extjs = path.startswith("/api2/extjs/")
        try:
            call, operation = self._admit(request, path, query)
            data = HANDLERS[operation.method, operation.path](call)
        except RefusalError as why:
            if why.status == 401 and delay > 0:
                self._kit.clock.sleep(UNAUTHORISED_SECONDS)
            return _refused(why, extjs)
        except Exception as why:  # the real API, too, turns whatever a handler dies of into a 500
            self._note(f"{request.method} {path}: {why!r}")
            return _refused(die(f"internal error: {type(why).__name__}"), extjs)
        self._enter(call, operation)
        body = {"data": data, **call.extra, **({"success": 1} if extjs else {})}
        text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        return Reply(body=text, protected=operation.protected)

    def _admit(self, request: Request, path: str, query: str) -> tuple[Call, pveapi.Operation]:
        """The checked call, or the first refusal in the real API's order: 401, 501, 403, node, 400."""
        if request.method not in ("GET", "POST", "PUT", "DELETE"):
            raise silent(501, f"method '{request.method}' not available")
        inner = _inner(path)
        if (request.method, inner) == ("POST", "/access/ticket"):
            raise RefusalError(401, "authentication failure")
        caller = self._house.access.authenticate(request.headers)
        _refuse_content(request)
        try:
            operation, from_path = pveapi.find(self._house.release, request.method, inner)
        except pveapi.UnknownOperationError:
            self._note(f"{request.method} {inner}")
            raise RefusalError(501, f"Method '{request.method} {inner}' not implemented") from None
        values, data = self._parameters(request, query, operation)
        values |= from_path
        self._check_privileges(caller, operation, values, is_upload=data is not None)
        if "node" in from_path and from_path["node"] not in (*self._house.nodes, "localhost"):
            node = from_path["node"]
            text = f"hostname lookup '{node}' failed - failed to get address info for: {node}: "
            raise die(f"{text}Temporary failure in name resolution")
        errors = pveapi.check_parameters(operation, values)
        if errors:
            raise invalid_fields(errors)
        return Call(self._house, caller, values, data or b""), operation

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

        why = pveapi.privileges.denied(operation.allowed, values, held)
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


def _refused(why: RefusalError, extjs: bool) -> Reply:
    if why.body is not None:
        return Reply(why.status, why.text, why.body, content_type="text/plain")
    body: dict[str, Any] = {"data": None, "message": why.text if why.status == 501 else f"{why.text}\n"}
    if why.errors is not None:
        body["errors"] = dict(why.errors)
    if extjs:
        body |= {"success": 0, "status": why.status}
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return Reply(body=text) if extjs else Reply(why.status, why.text, text)


def _pool_of(machines: Machines, path: str) -> str | None:
    """The pool whose rights reach ``path``."""
    kind, _, name = path.lstrip("/").partition("/")
    if kind == "vms" and name.isdigit():
        return machines.pool_of(int(name))
    if kind == "storage":
        return next((pool for pool, body in machines.pools.items() if name in body["storage"]), None)
    return None
