"""Configs, machines and facts for the cases of shape, drift, numbers, placing and availability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from funoffshore.config import ClusterConfig, Node, Role, identity, loader, new
from funoffshore.reading import Absent, Present, Reading
from funoffshore.stages.machines import shape
from funoffshore.stages.machines.facts import Guest, Hypervisor, Machine, MachineFacts
from funoffshore.stages.machines.placing import Place
from funoffshore.world.proxmox import Storage, VmConfig

GIB = 2**30
NEW, OLD = (9, 1), (8, 4)
_PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)


@cache
def _base() -> ClusterConfig:
    return loader.parse(new.generate("lab", _PINS, lab=True), "lab", Path("/nowhere"))


def config(
    controllers: int = 3, workers: int = 2, hypervisors: tuple[str, ...] = ("pve1", "pve2", "pve3"), **changed: Any
) -> ClusterConfig:
    """Nodes of 2 cores, 4 GiB and 32 GiB of disk that are not pinned, on ``hypervisors``. ``proxmox``, ``shape``,
    ``image``, ``k3s`` and ``ssh`` change fields of those parts; ``nodes`` fields of nodes by name."""
    base = _base()
    nodes = [node(Role.CONTROLLER, at) for at in range(controllers)] + [node(Role.WORKER, at) for at in range(workers)]
    own: Mapping[str, Mapping[str, Any]] = changed.pop("nodes", {})
    proxmox = {"nodes": hypervisors, "vmid_first": 9000, "vmid_last": 9199, **changed.pop("proxmox", {})}
    parts = {part: replace(getattr(base, part), **changed.pop(part, {})) for part in ("shape", "image", "k3s", "ssh")}
    return replace(
        base,
        nodes=tuple(replace(n, **own.get(n.name, {})) for n in nodes),
        proxmox=replace(base.proxmox, **proxmox),
        **parts,
        **changed,
    )


def node(role: Role, at: int, **changed: Any) -> Node:
    name = f"lab-{role.value[0]}{at + 1}"
    offset = 0 if role is Role.CONTROLLER else 10
    first = IPv4Address("10.0.0.11") if role is Role.CONTROLLER else IPv4Address("10.0.1.21")
    made = Node(name, role, 9000 + offset + at, first + at, "", 2, 4096, 32, identity("lab", name))
    return replace(made, **changed)


def storages(disk_gib: int = 500, shared: bool = False, *others: Storage) -> dict[str, Storage]:
    lent = _base().proxmox
    found = {
        lent.disk_storage: Storage(lent.disk_storage, frozenset({"images"}), disk_gib * GIB, True, shared),
        lent.image_storage: Storage(lent.image_storage, frozenset({"import", "iso"}), 50 * GIB, True, False),
    }
    return found | {other.name: other for other in others}


def hypervisor(
    memory_gib: float = 64, used_gib: float = 4, cpus: int = 16, promised_gib: float = 0, **changed: Any
) -> Hypervisor:
    made = Hypervisor(
        online=True,
        memory_total=int(memory_gib * GIB),
        memory_free=int((memory_gib - used_gib) * GIB),
        cpus=cpus,
        promised=int(promised_gib * GIB),
        storages=storages(),
        bridges=frozenset({_base().proxmox.bridge}),
    )
    return replace(made, **changed)


def facts(
    whole: ClusterConfig,
    hypervisors: Mapping[str, Hypervisor | Reading[Hypervisor]],
    machines: Mapping[str, Machine] | None = None,
    guests: tuple[Guest, ...] = (),
    **changed: Any,
) -> MachineFacts:
    """Nodes without an entry in ``machines`` are absent."""
    seen: dict[str, Reading[Machine]] = {n.name: Absent() for n in whole.nodes}
    seen |= {name: Present(found) for name, found in (machines or {}).items()}
    readings = {n: Present(h) if isinstance(h, Hypervisor) else h for n, h in hypervisors.items()}
    made = MachineFacts(release=Present(NEW), machines=seen, guests={g.vmid: g for g in guests}, hypervisors=readings)
    return replace(made, **changed)


def options(whole: ClusterConfig, one: Node, release: tuple[int, int] = NEW) -> dict[str, str]:
    """The configuration of ``one`` as Proxmox stores it right after its creation."""
    body = shape.body(whole, one, Place("pve1", one.vmid, ""), release)
    stored = {key: str(value) for key, value in body.items() if key not in {"vmid", "pool"}}
    disk = whole.proxmox.disk_storage
    stored["scsi0"] = f"{disk}:vm-{one.vmid}-disk-0,discard=on,iothread=1,size={one.disk_gib}G,ssd=1"
    if one.data_disk_gib:
        data = f"{disk}:vm-{one.vmid}-disk-1,discard=on,iothread=1,serial=fo-data"
        stored["scsi1"] = f"{data},size={one.data_disk_gib}G,ssd=1"
    if whole.shape.uefi:
        stored["efidisk0"] = f"{disk}:vm-{one.vmid}-disk-2,efitype=4m,pre-enrolled-keys=0,size=4M"
    return {**stored, "meta": "creation-qemu=9.2.0,ctime=1", "vmgenid": "1b671a64-40d5-491e-99b0-da01ff1f3341"}


def machine(
    whole: ClusterConfig, one: Node, changes: Mapping[str, str | None] | None = None, **changed: Any
) -> Machine:
    """``one`` as it was made, with some of its options changed, None taking one away."""
    stored: dict[str, str | None] = {**options(whole, one), **(changes or {})}
    config_of = VmConfig({key: value for key, value in stored.items() if value is not None}, "0" * 40)
    return replace(Machine("pve1", one.vmid, one.name, config_of, running=True), **changed)
