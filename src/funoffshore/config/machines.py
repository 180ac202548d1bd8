"""The machines that the values describe, drafted even where some of their values are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from funoffshore.config import keys
from funoffshore.config.model import Node, Role, identity
from funoffshore.config.values import Values

_HIGHEST = 0xFFFFFFFF
_LAST_16_BITS = 0xFFFF
WORKER_VMID_OFFSET = 10
"""Above the first controller's VMID, so that no number moves when controllers are added."""

VMIDS = 200
"""How many VMIDs are fo's where VMID_LAST is not given: room for all machines to move on once."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A machine in the making. ``*_key`` is the key that its value came from."""

    label: str
    """``C1``, ``W12``."""
    name: str
    role: Role
    number: int
    address: int | None
    """None: cannot be told, as its key is wrong."""
    address_key: str
    vmid: int | None
    """None: cannot be told, or the machine is an existing one."""
    vmid_key: str
    made: bool | None
    """Whether fo makes it. None: cannot be told."""

    @property
    def vmid_pinned(self) -> bool:
        return self.vmid_key.startswith("NODE_")


def drafts(values: Values) -> list[Draft]:
    """Controllers first; none at all while their counts are wrong."""
    if not values.has("CONTROLLERS", "WORKERS"):
        return []
    return [
        *_drafts(values, Role.CONTROLLER, values["CONTROLLERS"]),
        *_drafts(values, Role.WORKER, values["WORKERS"]),
    ]


def makes(values: Values) -> bool | None:
    """Whether fo makes any machine; None while that cannot be told."""
    found = [draft.made for draft in drafts(values)]
    if not found:
        return True if values.get("MACHINES") == "proxmox" else None
    return True if True in found else None if None in found else False


def address_v6(values: Values, draft: Draft) -> IPv6Address | None:
    """The IPv6 address of a machine: its own, or the one that follows from SUBNET_V6 and its IPv4 address."""
    own = values.get(f"NODE_{draft.label}_IPV6")
    subnet: IPv6Network | None = values.get("SUBNET_V6")
    if isinstance(own, IPv6Address):
        return own
    if subnet is None or draft.address is None:
        return None
    return IPv6Address(int(subnet.network_address) | draft.address & _LAST_16_BITS)


def last_vmid(values: Values) -> int:
    """The last VMID that fo may take; VMID_FIRST and VMID_LAST must be right."""
    last: int | None = values["VMID_LAST"]
    return values["VMID_FIRST"] + VMIDS - 1 if last is None else last


def nodes(values: Values) -> tuple[Node, ...]:
    """The machines of values in which nothing is wrong."""
    return tuple(_node(values, draft) for draft in drafts(values))


def _drafts(values: Values, role: Role, count: int) -> Iterator[Draft]:
    first_key = f"{role.name}_FIRST_IP"
    first: IPv4Address | None = values.get(first_key)
    offset = 0 if role is Role.CONTROLLER else WORKER_VMID_OFFSET
    for number in range(1, count + 1):
        label = f"{role.name[0]}{number}"
        own_ip, own_vmid, own_machine = (f"NODE_{label}_{field}" for field in ("IP", "VMID", "MACHINE"))
        machine = values.get(own_machine if own_machine in values.lines else "MACHINES")
        address = int(first) + number - 1 if first is not None else None
        vmid = values["VMID_FIRST"] + offset + number - 1 if values.has("VMID_FIRST") else None
        if own_ip in values.lines:
            address = int(values[own_ip]) if values.has(own_ip) else None
        if own_vmid in values.lines:
            vmid = values.get(own_vmid)
        yield Draft(
            label=label,
            name=f"{values.stem}-{label.lower()}",
            role=role,
            number=number,
            address=address if address is None or address <= _HIGHEST else _HIGHEST,
            address_key=own_ip if own_ip in values.lines else first_key,
            vmid=None if machine == "existing" else vmid,
            vmid_key=own_vmid if own_vmid in values.lines else "VMID_FIRST",
            made=None if machine is None else machine == "proxmox",
        )


def _node(values: Values, draft: Draft) -> Node:
    assert draft.address is not None  # noqa: S101 - rules.all_of has refused values that leave it open
    own = {field: values.get(f"NODE_{draft.label}_{field}") for field in keys.NODE_FIELDS}
    for field in ("CORES", "MEMORY_MIB", "DISK_GIB", "DATA_DISK_GIB"):
        if own[field] is None:
            own[field] = values[f"{draft.role.name}_{field}"] if draft.made else 0
    return Node(
        name=draft.name,
        role=draft.role,
        vmid=draft.vmid or 0,
        address=IPv4Address(draft.address),
        hypervisor=own["PROXMOX_NODE"] or "",
        cores=own["CORES"],
        memory_mib=own["MEMORY_MIB"],
        disk_gib=own["DISK_GIB"],
        identity=identity(values.stem, draft.name),
        vmid_pinned=draft.vmid_pinned,
        data_disk_gib=own["DATA_DISK_GIB"],
        pci=own["PCI"] or (),
        usb=own["USB"] or (),
        made=bool(draft.made),
        address_v6=address_v6(values, draft) if values["CLUSTER_CIDR_V6"] else None,
        labels=own["LABELS"] or (),
        taints=own["TAINTS"] or (values["CONTROLLER_TAINTS"] if draft.role is Role.CONTROLLER else ()),
    )
