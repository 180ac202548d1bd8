"""What a handler gets: the request, checked, and everything the lab's Proxmox consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.base import Kit
from funoffshore.lab.guests import Guests
from funoffshore.lab.pve.access import Access, Caller
from funoffshore.lab.pve.machines import Machines
from funoffshore.lab.pve.refusal import invalid
from funoffshore.lab.pve.tasks import Task, Tasks
from funoffshore.lab.pve.volumes import Volumes


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class House:
    """The lab's Proxmox: all state that handlers share."""

    kit: Kit
    guests: Guests
    release: str
    nodes: tuple[str, ...]
    address: str
    fingerprint: str
    access: Access
    tasks: Tasks
    volumes: Volumes
    machines: Machines
    bridges: tuple[str, ...] = ("vmbr0",)

    @property
    def qemu(self) -> str:
        """Version of QEMU that the release ships."""
        return "9.2.0" if self.release == "8.4" else "10.1.2"


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
        """Only a root ticket may; the lab knows only tokens."""
        if self.flag("skiplock"):
            raise invalid(skiplock="Only root may use this option.")

    def begin(self, kind: str, ident: str, work: Callable[[Task], None], done: Callable[[], None] = _nothing) -> str:
        """Begins a task on the call's node and returns its UPID."""
        return self.house.tasks.start(self.node, kind, ident, self.caller, work, done)


def parts(release: str, option: str, value: str) -> dict[str, str]:
    """A checked property string, parsed. Raises FormatError for one that was not checked."""
    known = pveapi.table(release)["POST", "/nodes/{node}/qemu"].parameter(option)
    inner = pveapi.parts_of(known) if known is not None else None
    return pveapi.parse(inner, value, option) if inner is not None else {}
