"""The Proxmox door: typed reads, and the few writes that fo needs."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from funoffshore import errors, run
from funoffshore.clock import Clock
from funoffshore.config import model
from funoffshore.world.proxmox import shapes, tasks
from funoffshore.world.proxmox.door import Door
from funoffshore.world.routes import Routes

K = TypeVar("K")
T = TypeVar("T")
_WORKERS = 12
TASK_DEADLINE = 900.0


class _NamedBytes(io.BytesIO):
    """Bytes that proxmoxer sends as a file of that name."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


class Proxmox:
    """The hypervisor's API. Constructing it contacts nobody; every call may be made from any thread.

    All methods raise TrustError (certificate), UnreachableError (nobody answers), PreflightError (token or
    privilege) and RefusedError (Proxmox said no). Reads are repeated when nobody answers, writes never: after
    UnreachableError their outcome has to be looked up.
    """

    def __init__(self, config: model.Proxmox, routes: Routes, clock: Clock) -> None:
        self._config = config
        self._door = Door(config, routes, clock)
        self._clock = clock
        self._lock = threading.Lock()
        self._workers: ThreadPoolExecutor | None = None

    def gather(self, calls: Mapping[K, Callable[[], T]]) -> dict[K, T | errors.FoError]:
        """Makes the calls side by side; each gives its result or the error it raised. Do not nest."""
        with self._lock:
            self._workers = self._workers or ThreadPoolExecutor(_WORKERS, thread_name_prefix="proxmox")
        return dict(zip(calls, self._workers.map(_outcome, calls.values()), strict=True))

    # Reads

    def version(self) -> shapes.Version:
        return self._door.read(shapes.parse_version, "/version")

    def permissions(self, path: str) -> frozenset[str]:
        """Privileges of the token on ``path``. Listed is granted: the number beside it only says "inherits"
        (pve-access-control RPCEnvironment.pm)."""
        return self._door.read(
            lambda answer: frozenset((answer or {}).get(path) or {}), "/access/permissions", path=path
        )

    def nodes(self) -> list[shapes.NodeStatus]:
        return self._door.read(shapes.each(shapes.parse_node), "/nodes")

    def storages(self, node: str) -> list[shapes.Storage]:
        """Storages that the token may see on ``node``."""
        return self._door.read(shapes.each(shapes.parse_storage), f"/nodes/{node}/storage")

    def bridges(self, node: str) -> frozenset[str]:
        """Names of the bridges that the token may use on ``node``."""
        return self._door.read(
            lambda rows: frozenset(str(row["iface"]) for row in rows), f"/nodes/{node}/network", type="any_bridge"
        )

    def guests(self) -> list[shapes.VmRow]:
        """Every guest of the whole Proxmox cluster that the token may see, containers too.

        A guest made in the last ten seconds has neither name nor status here (pvestatd's cycle).
        """
        return self._door.read(shapes.each(shapes.parse_vm_row), "/cluster/resources", type="vm")

    def vms(self, node: str) -> list[shapes.VmRow]:
        """VMs on one node, with their status as it is now."""
        return self._door.read(shapes.each(lambda row: shapes.parse_vm_row(row, node)), f"/nodes/{node}/qemu")

    def config(self, node: str, vmid: int) -> shapes.VmConfig | None:
        """The VM's configuration, None when there is no such VM on that node."""
        try:
            return self._door.read(shapes.parse_config, f"/nodes/{node}/qemu/{vmid}/config")
        except errors.RefusedError as why:
            if is_missing(why):
                return None
            raise

    def running(self, node: str, vmid: int) -> bool:
        """Whether the VM has power now."""
        return self._door.read(
            lambda answer: bool(answer["status"] == "running"), f"/nodes/{node}/qemu/{vmid}/status/current"
        )

    def pools(self) -> frozenset[str]:
        """Names of the pools that the token may see."""
        return self._door.read(lambda rows: frozenset(str(row["poolid"]) for row in rows), "/pools")

    def content(self, node: str, storage: str) -> list[shapes.Volume]:
        """Volumes on the storage, of every kind the token may see."""
        return self._door.read(shapes.each(shapes.parse_volume), f"/nodes/{node}/storage/{storage}/content")

    def running_tasks(self, node: str, vmid: int) -> list[shapes.TaskRow]:
        """Tasks now at work on the VM. Needs ``source=active``: the default list holds only what has ended."""
        rows = self._door.read(shapes.each(shapes.parse_task_row), f"/nodes/{node}/tasks", source="active", vmid=vmid)
        # An active list may still carry what ended a moment ago.
        return [row for row in rows if row.id == str(vmid) and not row.ended]

    def task(self, upid: str) -> shapes.TaskState:
        """Raises RefusedError for a task that Proxmox does not know."""
        return self._door.read(shapes.parse_task, f"/nodes/{shapes.task_node(upid)}/tasks/{upid}/status")

    def task_log(self, upid: str, start: int = 0) -> list[str]:
        """At most 500 lines of the task's log, from line ``start`` (0 is the first)."""
        path = f"/nodes/{shapes.task_node(upid)}/tasks/{upid}/log"
        return self._door.read(tasks.parse_log, path, start=start, limit=500)

    def guest_addresses(self, node: str, vmid: int) -> list[str]:
        """``name: address`` for every interface, as the guest agent sees them. Raises RefusedError without one."""
        path = f"/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces"
        return self._door.read(shapes.parse_interfaces, path)

    def wait_task(self, upid: str, step: run.Step, title: str, deadline: float = TASK_DEADLINE) -> None:
        """Returns when the task has succeeded; see ``tasks.wait`` for what it raises."""
        tasks.wait(self, self._clock, upid, step, title, deadline)

    # Writes. Those that return a string return the task's UPID.

    def create_vm(self, node: str, body: Mapping[str, Any]) -> str:
        return str(self._door.post(f"/nodes/{node}/qemu", body))

    def upload_iso(self, node: str, storage: str, name: str, content: bytes, sha256: str) -> str:
        """Silently replaces an ISO of that name. ``sha256`` is checked on the other side."""
        form = {
            # Proxmox reads the parts in exactly this order and swallows whatever follows the file.
            "content": "iso",
            "checksum-algorithm": "sha256",
            "checksum": sha256,
            "filename": _NamedBytes(name, content),
        }
        return str(self._door.post(f"/nodes/{node}/storage/{storage}/upload", form))

    def download_url(self, node: str, storage: str, url: str, filename: str, digest: tuple[str, str]) -> str:
        """Has Proxmox fetch a disk image as ``import`` content. A file that is already there and right is success.

        ``digest`` is algorithm (``sha256``, ``sha512``) and hex digits.
        """
        body = {
            "content": "import",
            "url": url,
            "filename": filename,
            "checksum": digest[1],
            "checksum-algorithm": digest[0],
            "verify-certificates": True,
        }
        return str(self._door.post(f"/nodes/{node}/storage/{storage}/download-url", body))

    def resize(self, node: str, vmid: int, disk: str, size_gib: int) -> str:
        """Sets the absolute size; Proxmox refuses to shrink, and takes an equal size as done."""
        return str(self._door.put(f"/nodes/{node}/qemu/{vmid}/resize", {"disk": disk, "size": f"{size_gib}G"}))

    def set_config(self, node: str, vmid: int, changes: Mapping[str, Any]) -> str:
        """Begins the change as a task, so that a busy storage cannot time the call out."""
        return str(self._door.post(f"/nodes/{node}/qemu/{vmid}/config", changes))

    def start(self, node: str, vmid: int) -> str:
        return str(self._door.post(f"/nodes/{node}/qemu/{vmid}/status/start", {}))

    def stop(self, node: str, vmid: int) -> str:
        """Pulls the plug."""
        return str(self._door.post(f"/nodes/{node}/qemu/{vmid}/status/stop", {}))

    def shutdown(self, node: str, vmid: int, timeout: int = 60) -> str:
        """Asks the guest, and pulls the plug after ``timeout`` seconds."""
        body = {"timeout": timeout, "forceStop": True}
        return str(self._door.post(f"/nodes/{node}/qemu/{vmid}/status/shutdown", body))

    def delete(self, node: str, vmid: int) -> str:
        """Removes the VM with its disks and every reference to its id, and nothing that is not its own."""
        return str(
            self._door.delete(f"/nodes/{node}/qemu/{vmid}", **{"purge": True, "destroy-unreferenced-disks": False})
        )

    def delete_volume(self, node: str, storage: str, volid: str) -> str:
        """Empty when it was done at once. A volume that is missing counts as removed."""
        return str(self._door.delete(f"/nodes/{node}/storage/{storage}/content/{volid}") or "")

    def create_pool(self, name: str) -> None:
        self._door.post("/pools", {"poolid": name, "comment": "Machines made by funoffshore"})


def is_missing(why: errors.RefusedError) -> bool:
    """Whether the refusal says that there is no such VM (pve-guest-common AbstractConfig.pm)."""
    return "Configuration file" in why.message and "does not exist" in why.message


def already_exists(why: errors.RefusedError) -> bool:
    """Whether the refusal says that the id, or the name, is taken already."""
    return "already exists" in why.message


def _outcome(call: Callable[[], T]) -> T | errors.FoError:
    try:
        return call()
    except errors.FoError as why:
        return why
