"""Facts about three Proxmox nodes and a cluster of three controllers, for tests of what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import config_samples

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node, parse
from funoffshore.reading import Absent, Present, Reading
from funoffshore.stages.machines import shape
from funoffshore.stages.machines.facts import Hypervisor, Machine, MachineFacts
from funoffshore.world.proxmox import Storage, VmConfig

GIB = 2**30
NEW = (9, 1)
NAMES = ("pve1", "pve2", "pve3")
_HOME = parse(config_samples.home(), "home", config_samples.ROOT)
BASE = replace(_HOME, proxmox=replace(_HOME.proxmox, nodes=NAMES))
"""Three controllers and some workers, placed freely on three Proxmox nodes."""
C1, C2, C3, W1 = (BASE.node(f"home-{label}") for label in ("c1", "c2", "c3", "w1"))
PREFLIGHT, FOREIGN, UNREACHABLE = errors.PreflightError, errors.ForeignError, errors.UnreachableError


def config(**changed: Any) -> ClusterConfig:
    return replace(BASE, **changed)


def part(name: str, **values: Any) -> ClusterConfig:
    return replace(BASE, **{name: replace(getattr(BASE, name), **values)})


def with_node(name: str, **values: Any) -> ClusterConfig:
    return replace(BASE, nodes=tuple(replace(n, **values) if n.name == name else n for n in BASE.nodes))


def storage(name: str, *content: str, free: int = 900, active: bool = True, shared: bool = False) -> Storage:
    return Storage(name, frozenset(content), free * GIB, active, shared)


def house(**changed: Any) -> Hypervisor:
    storages = [storage("local-lvm", "images"), storage("local", "import", "iso", free=50)]
    storages += changed.pop("also", [])
    whole = Hypervisor(
        online=True, memory_total=128 * GIB, memory_free=120 * GIB, cpus=32, promised=0,
        storages={one.name: one for one in storages}, bridges=frozenset({"vmbr0"}),
        cpu_models=Present(frozenset({"x86-64-v2-AES"})), clock_skew=Present(0.2),
    )  # fmt: skip
    return replace(whole, **changed)


def machine(
    node: Node, *, lock: str = "", disk: str = "", running: bool = True, on: str = "pve1", **more: Any
) -> Machine:
    options = dict(shape.wanted(BASE, node, NEW))
    options |= {"name": node.name, "smbios1": f"uuid={node.identity}", "ide2": "none,media=cdrom"}
    options["scsi0"] = f"local-lvm:vm-{node.vmid}-disk-0,discard=on,iothread=1,size={disk or f'{node.disk_gib}G'},ssd=1"
    options["lock"] = lock
    stored = {option: value for option, value in options.items() if value}
    return Machine(on, node.vmid, node.name, VmConfig(stored, "d"), running, BASE.proxmox.pool, **more)


def facts(seen: Mapping[str, Reading[Machine]] | None = None, **changed: Any) -> MachineFacts:
    """Every machine absent but those of ``seen``; ``houses`` are the Proxmox nodes that differ."""
    houses = {name: Present(house()) for name in NAMES} | changed.pop("houses", {})
    absent: dict[str, Reading[Machine]] = {node.name: Absent() for node in BASE.nodes}
    whole = MachineFacts(
        release=Present(NEW),
        machines=absent | dict(seen or {}),
        pool=Absent(),
        images=dict.fromkeys(NAMES, Absent()),
        seeds={node.name: Absent() for node in BASE.nodes},
        hypervisors=houses,
        quorate=Present(True),
    )
    return replace(whole, **changed)


def all_there(**changed: Any) -> MachineFacts:
    """Every machine as it shall be; ``but`` by name the machines that differ."""
    but = changed.pop("but", {})
    where = dict(zip((n.name for n in BASE.nodes), NAMES * len(BASE.nodes), strict=False))
    seen: dict[str, Reading[Machine]] = {
        node.name: Present(machine(node, **{"on": where[node.name], **but.get(node.name, {})})) for node in BASE.nodes
    }
    return facts({**seen, **changed.pop("seen", {})}, **changed)


def told(found: list[errors.FoError]) -> str:
    return "\n".join(f"{type(why).__name__} {why.message} → {why.fix} | {' | '.join(why.evidence)}" for why in found)


def expect(found: list[errors.FoError], *wanted: tuple[type[errors.FoError], str]) -> None:
    """Exactly these errors, in this order: class, and words that message, fix or evidence hold, parted by ``…``."""
    assert len(found) == len(wanted), told(found)
    for why, (kind, words) in zip(found, wanted, strict=True):
        assert type(why) is kind, told([why])
        for word in words.split("…"):
            assert word in told([why]), f"{word!r} is not in {told([why])}"
        assert "\n" not in why.message


def everywhere(**changed: Any) -> dict[str, Reading[Hypervisor]]:
    return dict.fromkeys(NAMES, Present(house(**changed)))


def lent(*storages: Storage) -> dict[str, Any]:
    return {"storages": {one.name: one for one in storages}}


LVM, LOCAL = storage("local-lvm", "images"), storage("local", "import", "iso", free=50)
