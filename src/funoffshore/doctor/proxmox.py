"""What one look at Proxmox says about each subject of the preflight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from funoffshore import errors
from funoffshore.config import ClusterConfig
from funoffshore.doctor import findings
from funoffshore.findings import Finding
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import preflight, preflight_advice, preflight_room, privileges
from funoffshore.stages.machines.facts import Hypervisor, MachineFacts
from funoffshore.stages.machines.preflight_subjects import Subject
from funoffshore.world.world import World

T = TypeVar("T")
IDS: Mapping[Subject, str] = {
    Subject.PRIVILEGES: "FO-DOC-007",
    Subject.RELEASE: "FO-DOC-008",
    Subject.NODES: "FO-DOC-009",
    Subject.GUESTS: "FO-DOC-010",
    Subject.CLOCKS: "FO-DOC-011",
    Subject.STORAGES: "FO-DOC-012",
    Subject.BRIDGE: "FO-DOC-013",
    Subject.CPU: "FO-DOC-014",
    Subject.IMAGE: "FO-DOC-015",
    Subject.DEVICES: "FO-DOC-016",
    Subject.ROOM: "FO-DOC-017",
    Subject.BACKUPS: "FO-DOC-018",
    Subject.AVAILABILITY: "FO-DOC-019",
}
"""Addresses are not among them: Proxmox does not know who has them."""
_OF_NODES = frozenset(IDS) - {Subject.PRIVILEGES, Subject.RELEASE, Subject.GUESTS}
"""What only a look at the Proxmox nodes can show."""


class Patient:
    """One look, and the questions that it leaves open."""

    def __init__(self, world: World, config: ClusterConfig, seen: MachineFacts) -> None:
        self._world, self._config, self._seen = world, config, seen
        self.told = {} if seen.door else preflight.by_subject(config, seen)
        self._advice = [] if seen.door else preflight_advice.advice(config, seen)
        nodes = {name: reading.value for name, reading in seen.hypervisors.items() if isinstance(reading, Present)}
        self._online: dict[str, Hypervisor] = {name: one for name, one in nodes.items() if one.online}
        self._fresh = [node.name for node in config.nodes if isinstance(seen.machine(node.name), Absent)]

    def findings(self) -> Iterator[Finding]:
        """One for each subject that concerns this cluster."""
        config = self._config
        idle = {
            Subject.DEVICES: not any(node.pci or node.usb for node in config.nodes),
            Subject.BACKUPS: config.backup is None,
            Subject.AVAILABILITY: not config.proxmox.high_availability,
        }
        yield from (self._finding(subject) for subject in IDS if not idle.get(subject))

    def _finding(self, subject: Subject) -> Finding:
        id_ = IDS[subject]
        if self._seen.door:
            return findings.unknown(id_, "Proxmox could not be asked", "see FO-DOC-005")
        if found := self.told[subject]:
            return findings.failed(id_, found)
        if unseen := self._unseen(subject):
            return findings.unknown(id_, *unseen)
        if subject is Subject.IMAGE and (found := self._image()):
            return findings.failed(id_, found)
        if advice := dict.fromkeys(sentence for about, sentence in self._advice if about is subject):
            return findings.warned(id_, list(advice))
        return findings.passed(id_, self._all_well(subject))

    def _unseen(self, subject: Subject) -> tuple[str, str] | None:
        """Why nothing can be said about the subject, and what to do; None when it was looked at."""
        hidden = any(lack.privilege == "VM.Audit" for lack in self._seen.missing)
        if (subject is Subject.GUESTS and hidden) or (subject in _OF_NODES and preflight_room.is_hidden(self._seen)):
            return "a missing privilege hides it", "see FO-DOC-007"
        if subject is Subject.PRIVILEGES:
            granted = _ask(self._world.proxmox.grants)
            return (granted.message, granted.fix) if isinstance(granted, errors.FoError) else None
        readings: dict[str, object] = {}
        if subject in _OF_NODES:
            readings |= self._seen.hypervisors
        if subject is Subject.NODES:
            readings["the quorum"] = self._seen.quorate
        if subject is Subject.CLOCKS:
            readings |= {f"the clock of {name}": one.clock_skew for name, one in self._online.items()}
        if subject is Subject.CPU:
            readings |= {f"the CPU types of {name}": one.cpu_models for name, one in self._online.items()}
        lost = {what: one.why for what, one in readings.items() if isinstance(one, Unreadable)}
        if subject in _OF_NODES and not self._online and not lost:
            return "no Proxmox node of the env file is online", "see FO-DOC-009"
        return next(((f"{what} could not be read: {why}", findings.AGAIN) for what, why in lost.items()), None)

    def _image(self) -> list[errors.FoError]:
        """Whether a Proxmox node that lacks the image could fetch it, and keep it."""
        lacking = [name for name in self._online if not isinstance(self._seen.images.get(name), Present)]
        if self._config.image.template or not self._fresh or not lacking:
            return []
        name, url = lacking[0], self._config.image.url
        answer = _ask(lambda: self._world.proxmox.url_metadata(name, url))
        if isinstance(answer, errors.FoError):
            kind = errors.UnreachableError if isinstance(answer, errors.UnreachableError) else errors.PreflightError
            fix = f"Correct IMAGE_URL, or let {name} out to the web (its DNS, gateway, and Proxmox' HTTP proxy)."
            return [kind(f"{name} cannot fetch {url}: {answer.message}", fix=fix)]
        store = self._online[name].storages.get(self._config.proxmox.image_storage)
        if store is None or answer.size <= store.available:
            return []
        said = f"the image has {answer.size >> 20} MiB, and {store.name} on {name} has {store.available >> 20} free"
        return [errors.PreflightError(said, fix="Make room there.")]

    def _all_well(self, subject: Subject) -> str:
        config, lent, nodes = self._config, self._config.proxmox, count(len(self._online), "Proxmox node")
        made, others = len(config.nodes) - len(self._fresh), len(self._seen.guests)
        if subject is Subject.PRIVILEGES:
            held = privileges.needed(config, _release(self._seen))
            return f"{sum(len(one) for one in held.values())} privileges on {count(len(held), 'path')}"
        if subject is Subject.RELEASE:
            return f"it is Proxmox VE {'.'.join(str(part) for part in _release(self._seen))}"
        tag = f", VLAN {lent.vlan}," if lent.vlan is not None else ""
        source = f"the template {config.image.template} is there" if config.image.template else "it is"
        return {
            Subject.NODES: f"{nodes}, quorate",
            Subject.GUESTS: f"{made} of {count(len(config.nodes), 'machine')} there, and "
            + (f"{count(others, 'other guest')} to be left alone" if others else "no other guest"),
            Subject.CLOCKS: f"they differ by at most {self._skew():.1f} s",
            Subject.STORAGES: f"{lent.disk_storage} and {lent.image_storage} on {nodes}",
            Subject.BRIDGE: f"{lent.bridge}{tag} is on {nodes}",
            Subject.CPU: f"{config.shape.cpu} on {nodes}",
            Subject.IMAGE: source if self._fresh else "no machine has to be made",
            Subject.DEVICES: "all of them are",
            Subject.ROOM: f"{count(len(self._fresh), 'machine')} to be made, and there is room",
            Subject.BACKUPS: f"{config.backup.storage if config.backup else ''} takes backups",
            Subject.AVAILABILITY: f"{nodes}, and {lent.disk_storage} is shared",
        }[subject]

    def _skew(self) -> float:
        skews: Iterable[Reading[float]] = (one.clock_skew for one in self._online.values())
        return max((abs(skew.value) for skew in skews if isinstance(skew, Present)), default=0.0)


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 machine``, ``2 machines``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def _release(seen: MachineFacts) -> tuple[int, int]:
    return seen.release.value if isinstance(seen.release, Present) else (0, 0)


def _ask(question: Callable[[], T]) -> T | errors.FoError:
    try:
        return question()
    except errors.FoError as why:
        return why
