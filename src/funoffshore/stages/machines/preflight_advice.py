"""What stops no plan, and should be known before it runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from funoffshore.config import ClusterConfig
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import placing, preflight, preflight_guests, preflight_room
from funoffshore.stages.machines.facts import MachineFacts
from funoffshore.stages.machines.placing import Place
from funoffshore.stages.machines.preflight_subjects import Advice, Subject

NEWEST_MAJOR = 9
"""Newest generation of Proxmox whose API was looked at."""
NOTED_SKEW = 5.0
"""Seconds from which a difference of clocks is mentioned."""


def advice(config: ClusterConfig, facts: MachineFacts) -> list[Advice]:
    """Sentences, by what they are about."""
    if facts.door is not None:
        return []
    return [
        *_release(facts),
        *_guests(config, facts),
        *_clocks(facts),
        *_nodes(config, facts),
        *_places(config, facts),
        *_availability(config, facts),
    ]


def _release(facts: MachineFacts) -> Iterator[Advice]:
    if isinstance(facts.release, Present) and facts.release.value[0] > NEWEST_MAJOR:
        release = ".".join(str(part) for part in facts.release.value)
        yield Subject.RELEASE, f"Proxmox VE {release} is newer than what this fo was tried with ({NEWEST_MAJOR}.x)"


def _guests(config: ClusterConfig, facts: MachineFacts) -> Iterator[Advice]:
    if not any(isinstance(facts.machine(node.name), Absent) for node in config.nodes):
        for guest in facts.half_made:
            yield Subject.GUESTS, preflight.half_made(guest).message
    for node, machine in preflight_guests.present(config, facts):
        if machine.lock and not machine.unborn:
            yield Subject.GUESTS, f"VM {machine.vmid} ({node.name}) is locked ({machine.lock}), so it is left as it is"
    for name, machine in sorted(facts.former.items()):
        where = f"VM {machine.vmid} on {machine.hypervisor}"
        yield Subject.GUESTS, f"{where} is {name}, which the env file names no more (--remove {name} deletes it)"


def _clocks(facts: MachineFacts) -> Iterator[Advice]:
    for name, reading in facts.hypervisors.items():
        skew = reading.value.clock_skew if isinstance(reading, Present) else None
        if isinstance(skew, Present) and NOTED_SKEW < abs(skew.value) <= preflight.MOST_SKEW:
            yield Subject.CLOCKS, f"the clock of {name} differs from this computer's by {abs(skew.value):.0f} s"


def _nodes(config: ClusterConfig, facts: MachineFacts) -> Iterator[Advice]:
    found = preflight_room.defects(config, facts)
    yield from ((defect.subject, defect.what) for defect in found)
    told = {defect.hypervisor for defect in found}
    if not preflight_room.is_hidden(facts):
        for sentence in placing.left_out(config, facts):
            name = sentence.split(" ", 1)[0]
            if name not in told and not isinstance(facts.hypervisors.get(name), Absent | None):
                yield Subject.NODES, sentence


def _places(config: ClusterConfig, facts: MachineFacts) -> Iterator[Advice]:
    mappings = facts.mappings.value if isinstance(facts.mappings, Present) else None
    shared: dict[str, str] = {}
    for place in placing.place(config, facts, mappings).values():
        if isinstance(place, Place) and place.warning:
            shared.setdefault(place.hypervisor, place.warning)
    yield from ((Subject.ROOM, sentence) for sentence in shared.values())


def _availability(config: ClusterConfig, facts: MachineFacts) -> Iterator[Advice]:
    if not config.proxmox.high_availability:
        return
    seen = {name: reading.value for name, reading in facts.hypervisors.items() if isinstance(reading, Present)}
    online = [name for name, one in seen.items() if one.online]
    if len(seen) == len(config.proxmox.nodes) and len(online) < 3:
        sentence = f"high availability needs 3 Proxmox nodes to outlive the loss of one; {len(online)} are online"
        yield Subject.AVAILABILITY, sentence
    storage = config.proxmox.disk_storage
    if any((found := one.storages.get(storage)) is not None and not found.shared for one in seen.values()):
        sentence = f"{storage} is not shared between Proxmox nodes, so a machine cannot be started on another one"
        yield Subject.AVAILABILITY, sentence


def unseen_nodes(facts: MachineFacts) -> dict[str, str]:
    """Why Proxmox nodes could not be looked at, by name."""
    return {name: reading.why for name, reading in facts.hypervisors.items() if isinstance(reading, Unreadable)}
