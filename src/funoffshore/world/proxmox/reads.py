"""What can be looked at: the Proxmox cluster, its nodes and storages, the token's privileges, tasks."""

from __future__ import annotations

from funoffshore.world.proxmox import answers, shapes
from funoffshore.world.proxmox.base import Base
from funoffshore.world.proxmox.grants import Grants, parse_grants
from funoffshore.world.proxmox.watch import LIMIT


class Reads(Base):
    """Questions about what is around the machines. None changes anything."""

    def version(self) -> shapes.Version:
        return self._door.version()

    def release(self) -> tuple[int, int]:
        """The release, asked for once."""
        return self._door.known_version().release

    def grants(self) -> Grants:
        """Everything that the token may do, in one call."""
        return self._door.read(parse_grants, "/access/permissions")

    def permissions(self, path: str) -> frozenset[str]:
        """Privileges of the token on ``path``, as Proxmox itself reckons them. Listed is granted: the number beside
        it only says "inherits" (pve-access-control RPCEnvironment.pm)."""
        return self._door.read(
            lambda answer: frozenset((answer or {}).get(path) or {}), "/access/permissions", path=path
        )

    def resources(self) -> shapes.Resources:
        """Guests, nodes and storages of the whole Proxmox cluster that the token may see, in one call.

        A guest made in the last ten seconds has neither name nor status here (pvestatd's cycle).
        """
        return self._door.read(answers.parse_resources, "/cluster/resources")

    def guests(self) -> list[shapes.VmRow]:
        """Every guest of the whole Proxmox cluster that the token may see, containers too; see ``resources``."""
        return self._door.read(answers.each(answers.parse_vm_row), "/cluster/resources", type="vm")

    def cluster_status(self) -> shapes.ClusterStatus:
        """Whether the Proxmox nodes are a quorate cluster, and which of them are online. Needs Sys.Audit on /."""
        return self._door.read(answers.parse_cluster_status, "/cluster/status")

    def nodes(self) -> list[shapes.NodeStatus]:
        return self._door.read(answers.each(answers.parse_node), "/nodes")

    def storages(self, node: str) -> list[shapes.Storage]:
        """Storages that the token may see on ``node``."""
        return self._door.read(answers.each(lambda row: answers.parse_storage(row, node)), f"/nodes/{node}/storage")

    def bridges(self, node: str) -> frozenset[str]:
        """Names of the bridges that the token may use on ``node``."""
        return self._door.read(
            lambda rows: frozenset(str(row["iface"]) for row in rows), f"/nodes/{node}/network", type="any_bridge"
        )

    def cpu_models(self, node: str) -> frozenset[str]:
        """CPU types that a VM on ``node`` may have."""
        return self._door.read(
            lambda rows: frozenset(str(row["name"]) for row in rows), f"/nodes/{node}/capabilities/qemu/cpu"
        )

    def time(self, node: str) -> float:
        """Unix time on the clock of ``node``. Needs Sys.Audit on it."""
        return self._door.read(lambda answer: float(answer["time"]), f"/nodes/{node}/time")

    def pools(self) -> frozenset[str]:
        """Names of the pools that the token may see."""
        return self._door.read(lambda rows: frozenset(str(row["poolid"]) for row in rows), "/pools")

    def content(self, node: str, storage: str, kind: str = "") -> list[shapes.Volume]:
        """Volumes on the storage that the token may see, of every kind or of one (``iso``, ``import``, …)."""
        only = {"content": kind} if kind else {}
        path = f"/nodes/{node}/storage/{storage}/content"
        return self._door.read(answers.each(answers.parse_volume), path, **only)

    def url_metadata(self, node: str, url: str) -> shapes.UrlMetadata:
        """What the server of ``url`` says of it to ``node``. Raises RefusedError when it says no, or ``node`` cannot
        reach it. Needs what ``download_url`` needs."""
        how = {"url": url, "verify-certificates": True}
        return self._door.read(answers.parse_metadata, f"/nodes/{node}/query-url-metadata", **how)

    def mappings(self, kind: str) -> dict[str, frozenset[str]]:
        """Resource mapping (``kind`` is ``pci`` or ``usb``) → the Proxmox nodes that have such a device."""
        return self._door.read(answers.parse_mapping, f"/cluster/mapping/{kind}")

    def tasks(self, node: str, since: float, kind: str = "") -> list[shapes.TaskRow]:
        """Tasks of ``node``, running and ended, that began at ``since`` (Unix time) or later; newest first, at most
        500. ``kind`` is the type (``vzdump``). Without Sys.Audit on the node only the token's own."""
        return self._watch.list(node, since, kind)

    def running_tasks(self, node: str, vmid: int) -> list[shapes.TaskRow]:
        """Tasks now at work on the VM. Needs ``source=active``: the default list holds only what has ended."""
        rows = self._door.read(answers.each(answers.parse_task_row), f"/nodes/{node}/tasks", source="active", vmid=vmid)
        # An active list may still carry what ended a moment ago.
        return [row for row in rows if row.id == str(vmid) and not row.ended]

    def task(self, upid: str) -> shapes.TaskState:
        """Raises RefusedError for a task that Proxmox does not know."""
        return self._door.read(answers.parse_task, f"/nodes/{shapes.task_node(upid)}/tasks/{upid}/status")

    def task_log(self, upid: str, start: int = 0) -> list[str]:
        """At most 500 lines of the task's log, from line ``start`` (0 is the first)."""
        path = f"/nodes/{shapes.task_node(upid)}/tasks/{upid}/log"
        return self._door.read(answers.parse_log, path, start=start, limit=LIMIT)
