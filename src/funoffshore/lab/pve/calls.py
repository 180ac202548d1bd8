"""What a handler gets: the request, checked, and everything the lab's Proxmox consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.base import Kit
from funoffshore.lab.guests import Guests
from funoffshore.lab.pve.access import Access, Caller
from funoffshore.lab.pve.cluster import NO_QUORUM, Cluster
from funoffshore.lab.pve.machines import Machines
from funoffshore.lab.pve.refusal import die, invalid
from funoffshore.lab.pve.shelf import Shelves
from funoffshore.lab.pve.tasks import Task, TaskError, Tasks
from funoffshore.lab.pve.timers import Timers
from funoffshore.lab.pve.volumes import Volumes

_QUORATE = ("qmstart", "qmreset", "qmreboot", "vzdump")
"""Tasks that end without a quorum before they do anything."""


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class House:
    """The lab's Proxmox: all state that handlers share."""

    kit: Kit
    guests: Guests
    release: str
    cluster: Cluster
    address: str
    fingerprint: str
    access: Access
    tasks: Tasks
    volumes: Volumes
    machines: Machines
    shelf: Shelves
    """Documents by kind: ``shelf("ha").all()``."""
    timers: Timers
    """What the nodes do by themselves."""
    bridges: tuple[str, ...] = ("vmbr0",)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All Proxmox nodes, up or down; the first one answers."""
        return self.cluster.nodes

    @property
    def qemu(self) -> str:
        """Version of QEMU that the release ships."""
        return {"8.0": "8.0.2", "8.4": "9.2.0"}.get(self.release, "10.1.2")


@dataclass(slots=True)
class Call:
    """One request whose parameters have the types and formats of the table."""

    house: House
    caller: Caller
    values: dict[str, Any]
    """All parameters, strings as sent; path parameters included."""
    upload: bytes = b""
    extra: dict[str, Any] = field(default_factory=dict)
    """Put beside ``data`` in the answer: ``total`` of a list."""

    @property
    def node(self) -> str:
        node = str(self.values["node"])
        return self.house.nodes[0] if node == "localhost" else node

    @property
    def vmid(self) -> int:
        return int(self.values["vmid"])

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name, default)
        return ",".join(str(part) for part in value) if isinstance(value, list) else str(value)

    def list(self, name: str) -> list[str]:
        """The values of a repeated parameter; a single one is a list of one."""
        value = self.values.get(name, [])
        return [str(part) for part in value] if isinstance(value, list) else [str(value)]

    def number(self, name: str, default: int = 0) -> int:
        return int(self.values.get(name, default))

    def flag(self, name: str) -> bool:
        return str(self.values.get(name, "0")) == "1"

    def may(self, path: str, *wanted: str) -> bool:
        """Whether the caller holds at least one of ``wanted`` at ``path``."""
        return self.house.access.has(self.caller, path, *wanted)

    def need(self, path: str, *wanted: str) -> None:
        """Refuses with 403 unless the caller holds at least one of ``wanted`` at ``path``."""
        self.house.access.need(self.caller, path, *wanted)

    def refuse_skiplock(self) -> None:
        """Only root@pam in person may, no token."""
        if self.flag("skiplock") and not self.caller.is_root:
            raise invalid(skiplock="Only root may use this option.")

    def begin(self, kind: str, ident: str, work: Callable[[Task], None], done: Callable[[], None] = _nothing) -> str:
        """Begins a task on the call's node and returns its UPID.

        Refuses with 500 when there is no worker to be had, by fault; what was prepared for the task stays as it is.
        """
        if self.house.kit.faults.hits("no-worker", type=kind, vmid=ident.split("@")[0]):
            done()
            raise die("got no worker upid - start worker failed")

        def begun(task: Task) -> None:
            if kind in _QUORATE and not self.house.cluster.quorate:
                raise TaskError(NO_QUORUM)
            work(task)

        return self.house.tasks.start(self.node, kind, ident, self.caller, begun, done)


def parts(release: str, option: str, value: str) -> dict[str, str]:
    """A checked property string, parsed. Raises FormatError for one that was not checked."""
    known = pveapi.table(release)["POST", "/nodes/{node}/qemu"].parameter(option)
    inner = pveapi.parts_of(known) if known is not None else None
    return pveapi.parse(inner, value, option) if inner is not None else {}
