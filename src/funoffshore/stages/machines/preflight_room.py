"""What the Proxmox nodes do not lend that the plan needs: storages, bridge, CPU type, memory, devices. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from funoffshore.config import ClusterConfig, Node
from funoffshore.errors import FoError, PreflightError, UnreachableError
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import placing, room
from funoffshore.stages.machines.facts import Hypervisor, MachineFacts
from funoffshore.stages.machines.placing import Place
from funoffshore.stages.machines.preflight_subjects import Subject, Told
from funoffshore.world.proxmox import Storage

IMAGE_GIB = 1
"""Room for a cloud image; today's take a third to three quarters of it."""
_HIDING = {
    "Sys.Audit": "/nodes",
    "Datastore.Audit": "/storage/",
    "Datastore.AllocateSpace": "/storage/",
    "SDN.Use": "/sdn/",
}
"""Privileges without which a Proxmox node shows less than it has, by where they are missing."""


@dataclass(frozen=True, slots=True)
class Defect:
    """Why one Proxmox node cannot take any machine of this cluster, or not all it should."""

    subject: Subject
    hypervisor: str
    what: str
    """A clause whose subject is the Proxmox node or something on it."""
    fix: str


def problems(config: ClusterConfig, facts: MachineFacts) -> Iterator[Told]:
    """Everything that keeps machines from being made or started where they belong.

    A Proxmox node that lends too little is a problem only once some machine finds no place without it.
    """
    yield from ((Subject.NODES, why) for why in _absent_nodes(facts))
    yield from ((Subject.IMAGE, why) for why in _template(config, facts))
    if is_hidden(facts):
        return
    mappings = facts.mappings.value if isinstance(facts.mappings, Present) else None
    places = placing.place(config, facts, mappings)
    refused = [found for found in places.values() if isinstance(found, FoError)]
    if refused:
        yield from _unplaced(config, facts, refused)
    else:
        chosen = {place.hypervisor for place in places.values() if isinstance(place, Place)}
        yield from ((Subject.IMAGE, why) for why in _image_room(config, facts, chosen))
    fresh = [node for node in config.nodes if node.name in places]
    yield from ((Subject.DEVICES, why) for why in _devices(facts, fresh))
    yield from ((Subject.ROOM, why) for why in _starting(config, facts))
    yield from ((Subject.BACKUPS, why) for why in _backups(config, facts))


def _unplaced(config: ClusterConfig, facts: MachineFacts, refused: list[FoError]) -> Iterator[Told]:
    """What can be mended comes first; where it explains everything, nothing more is said."""
    found = defects(config, facts)
    yield from ((defect.subject, PreflightError(defect.what, fix=defect.fix)) for defect in found)
    yield from ((Subject.NODES, why) for why in _unread(facts))
    explained = {defect.hypervisor for defect in found} >= set(config.proxmox.nodes)
    left = [why for why in refused if not (explained and why.evidence)]
    yield from ((Subject.ROOM, why) for why in together(left))


def is_hidden(facts: MachineFacts) -> bool:
    """Whether a missing privilege makes Proxmox nodes show less than they have."""
    return any(lack.path.startswith(_HIDING[lack.privilege]) for lack in facts.missing if lack.privilege in _HIDING)


def _absent_nodes(facts: MachineFacts) -> Iterator[FoError]:
    known = ", ".join(name for name, reading in facts.hypervisors.items() if isinstance(reading, Present))
    for name, reading in facts.hypervisors.items():
        if isinstance(reading, Absent):
            yield PreflightError(
                f"there is no Proxmox node {name}{f' (there is {known})' if known else ''}",
                fix="Correct PROXMOX_NODES in the env file.",
            )


def _unread(facts: MachineFacts) -> Iterator[FoError]:
    for name, reading in facts.hypervisors.items():
        if isinstance(reading, Unreadable):
            yield UnreachableError(
                f"cannot tell what {name} has to give: {reading.why}", fix="Run the same command again."
            )


def _template(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    name = config.image.template
    if not name or not any(isinstance(facts.machine(node.name), Absent) for node in config.nodes):
        return
    called = [guest for guest in facts.guests.values() if guest.name == name]
    templates = [guest for guest in called if guest.template]
    if len(templates) == 1:
        return
    if not called:
        message, fix = f"there is no VM template {name} that the token may see", "Correct IMAGE_TEMPLATE, or make it."
    elif not templates:
        message = f"VM {called[0].vmid} on {called[0].hypervisor} is called {name} and is no template"
        fix = f"Make it one, as root on {called[0].hypervisor}: qm template {called[0].vmid}"
    else:
        where = " and ".join(f"VM {guest.vmid} on {guest.hypervisor}" for guest in templates)
        message, fix = f"{where} are all templates called {name}", "Give the right one a name of its own."
    yield PreflightError(message, fix=fix)


def defects(config: ClusterConfig, facts: MachineFacts) -> list[Defect]:
    """Why Proxmox nodes that are online cannot take any machine, whatever it needs."""
    found: list[Defect] = []
    for name, reading in facts.hypervisors.items():
        if isinstance(reading, Present) and reading.value.online:
            found += [*_storages(config, name, reading.value), *_bridge(config, name, reading.value)]
            found += _cpu(config, name, reading.value)
    return found


def _storages(config: ClusterConfig, name: str, seen: Hypervisor) -> Iterator[Defect]:
    lent = config.proxmox
    images = ({"iso"} if lent.seed == "iso" else set()) | (set() if config.image.template else {"import"})
    for key, storage, contents in (
        ("STORAGE_DISK", lent.disk_storage, {"images"}),
        ("STORAGE_IMAGE", lent.image_storage, images),
    ):
        if contents:
            yield from _storage(key, name, storage, seen.storages.get(storage), contents)


def _storage(key: str, name: str, storage: str, seen: Storage | None, contents: set[str]) -> Iterator[Defect]:
    if seen is None:
        fix = f"Correct {key} in the env file, or add {name} to the nodes of that storage."
        yield Defect(Subject.STORAGES, name, f"there is no storage {storage} on {name} ({key})", fix)
    elif not seen.active:
        fix = f"Bring it back (pvesm status on {name} says why), or correct {key} in the env file."
        yield Defect(Subject.STORAGES, name, f"the storage {storage} is not active on {name} ({key})", fix)
    elif lacking := contents - seen.content:
        both = ",".join(sorted(seen.content | contents))
        kinds = ", ".join(sorted(lacking))
        fix = f"As root on a Proxmox node run: pvesm set {storage} --content {both}"
        yield Defect(
            Subject.STORAGES, name, f"the storage {storage} on {name} does not allow content {kinds} ({key})", fix
        )


def _bridge(config: ClusterConfig, name: str, seen: Hypervisor) -> Iterator[Defect]:
    if config.proxmox.bridge not in seen.bridges:
        known = ", ".join(sorted(seen.bridges)) or "none"
        what = f"there is no bridge {config.proxmox.bridge} on {name} that the token may use (it may use {known})"
        yield Defect(Subject.BRIDGE, name, what, "Correct BRIDGE in the env file, or create the bridge.")


def _cpu(config: ClusterConfig, name: str, seen: Hypervisor) -> Iterator[Defect]:
    wanted = config.shape.cpu
    if isinstance(seen.cpu_models, Present) and wanted not in seen.cpu_models.value | {"host", "max"}:
        what = f"{name} does not know the CPU type {wanted}"
        yield Defect(Subject.CPU, name, what, "Choose a type that every Proxmox node knows (CPU_TYPE in the env file).")


def together(errors: list[FoError]) -> Iterator[FoError]:
    """The same, with those in one that have the same evidence: what keeps a hundred machines out is said once."""
    groups: dict[tuple[object, ...], list[FoError]] = {}
    for n, why in enumerate(errors):
        groups.setdefault((type(why), why.fix, why.evidence or n), []).append(why)
    for first, *others in groups.values():
        more = f", nor {len(others)} {'other' if len(others) == 1 else 'others'} like it" if others else ""
        yield type(first)(f"{first.message}{more}", fix=first.fix, evidence=first.evidence)


def _image_room(config: ClusterConfig, facts: MachineFacts, chosen: set[str]) -> Iterator[FoError]:
    lent = config.proxmox
    if config.image.template:
        return
    told = set()
    for name in sorted(chosen):
        reading = facts.hypervisors.get(name, Absent())
        seen = reading.value.storages.get(lent.image_storage) if isinstance(reading, Present) else None
        if seen is None or not isinstance(facts.images.get(name), Absent):
            continue
        key = seen.name if seen.shared else f"{seen.name} on {name}"
        if seen.available < IMAGE_GIB * room.GIB and key not in told:
            told.add(key)
            yield PreflightError(
                f"the storage {key} has {seen.available / room.GIB:.1f} GiB free, and the image needs up to "
                f"{IMAGE_GIB} GiB",
                fix="Make room there, or choose another STORAGE_IMAGE in the env file.",
            )


def _devices(facts: MachineFacts, fresh: list[Node]) -> Iterator[FoError]:
    wanted = {device: node for node in fresh for device in (*node.pci, *node.usb)}
    if isinstance(facts.mappings, Unreadable) and wanted and facts.mappings.why != "not asked":
        yield UnreachableError(
            f"cannot tell which mapped devices there are: {facts.mappings.why}", fix="Run the same command again."
        )
    if not isinstance(facts.mappings, Present):
        return
    for device, node in wanted.items():
        if device not in facts.mappings.value:
            yield PreflightError(
                f"there is no resource mapping {device}, which {node.name} shall have",
                fix="Make it in Proxmox (Datacenter, Resource Mappings), or correct the device in the env file.",
            )


def _starting(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    """Memory for machines that exist, are off, and are started where they are."""
    house = room.house(config, facts)
    for name, left in house.rooms.items():
        off = [
            node.name
            for node in config.nodes
            if isinstance(seen := facts.machine(node.name), Present)
            and seen.value.hypervisor == name
            and not seen.value.running
            and not seen.value.unborn
        ]
        if off and left.memory < 0:
            yield PreflightError(
                f"{name} lacks {-left.memory / room.GIB:.1f} GiB of memory to start {', '.join(off)}",
                fix=f"Shut other guests on {name} down, or move some to another Proxmox node.",
            )


def _backups(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    if config.backup is None:
        return
    for name, reading in facts.hypervisors.items():
        if isinstance(reading, Present) and reading.value.online:
            storage = config.backup.storage
            found = _storage("VM_BACKUP_STORAGE", name, storage, reading.value.storages.get(storage), {"backup"})
            yield from (PreflightError(defect.what, fix=defect.fix) for defect in found)
