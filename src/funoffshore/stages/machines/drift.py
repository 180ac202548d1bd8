"""What of a machine is not as the config wants it, and what it takes to mend that. Pure.

When a change comes into force: qemu-server ``PVE/QemuServer.pm`` (``vmconfig_hotplug_pending``,
``vmconfig_update_net``, ``vmconfig_update_disk``, ``vmconfig_update_agent``), and recorded from a real 8.4 API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from funoffshore.config import ClusterConfig, Node
from funoffshore.stages.machines import shape, stored
from funoffshore.stages.machines.facts import Machine
from funoffshore.world.proxmox.shapes import GIB, size_bytes


class How(StrEnum):
    """What it takes."""

    LIVE = "live"
    """Written, and in force at once."""
    GROW = "grow"
    """A disk is resized, which works with and without power."""
    RESTART = "restart"
    """In force once the machine has been off. To be written while it is: some options, such as another network device,
    would be swapped under the running guest, and whatever else waits comes into force together with them."""
    REBUILD = "rebuild"
    """Only a new machine has it."""
    HELD = "held"
    """Proxmox would refuse the change for as long as the machine is locked."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One option that is not as it shall be."""

    option: str
    """``cores``, ``net0``, ``scsi0``."""
    wanted: str
    """The whole value to write, with what an operator added to it; the new size in GiB where ``how`` is GROW. Empty:
    nothing is to be written, as with every REBUILD and HELD."""
    found: str
    """As Proxmox stores it; empty when it is not set."""
    how: How
    sentence: str
    """A clause: "it has 2 cores, not 4"."""


Pending = Mapping[str, tuple[str | None, str | None]]
"""Option → value in force, value that waits for a restart; None: not set."""
_NOTHING: Pending = MappingProxyType({})
_AT_ONCE = frozenset({"name", "description", "tags", "onboot", "startup"})
_NET_AT_ONCE = frozenset({"bridge", "tag", "firewall", "link_down"})


def differences(
    config: ClusterConfig, node: Node, machine: Machine, release: tuple[int, int], pending: Pending = _NOTHING
) -> list[Difference]:
    """Everything that differs in options fo vouches for; what an operator added by himself is none.

    Compared as values: neither order, nor spelling, nor a default said or unsaid matters. A disk that is too large is
    no difference, and cloud-init's keys never are. ``pending`` is what Proxmox said waits for a restart. A machine
    that is only being created has no differences.
    """
    if machine.unborn:
        return []
    found = []
    for option, want in shape.wanted(config, node, release).items():
        have = machine.config.options.get(option, "")
        now = _compared(config, node, release, option, want, have)
        if not now and option in pending and machine.running:
            # What counts as set may still wait; only where the value in force is wrong does that matter.
            running = pending[option][0] or ""
            now = [_waiting(d) for d in _compared(config, node, release, option, want, running)]
        found += [_timed(difference, machine) for difference in now]
    return found


def _compared(
    config: ClusterConfig, node: Node, release: tuple[int, int], option: str, want: str, have: str
) -> list[Difference]:
    if option in {shape.BOOT_DISK, shape.DATA_DISK, "efidisk0"}:
        return _disk(config, node, release, option, want, have)
    if option == "tags":
        return _tags(want, have)
    if option == "description":
        return _description(config, node, want, have)
    if option == "boot":
        return _boot(want, have)
    if option == "machine":
        return _machine_type(release, want, have)
    changed = stored.changed(release, option, want, have)
    if not changed:
        return []
    how = How.REBUILD if option == "bios" else How.LIVE if option in _AT_ONCE else How.RESTART
    if option == "net0" and changed <= _NET_AT_ONCE:
        how = How.LIVE
    sentence = _sentence(release, option, want, have, changed)
    return [Difference(option, stored.merged(release, option, want, have), have, how, sentence)]


def _timed(difference: Difference, machine: Machine) -> Difference:
    if machine.lock:
        sentence = f"{difference.sentence} (it is locked: {machine.lock})"
        return replace(difference, wanted="", how=How.HELD, sentence=sentence)
    if difference.how is How.RESTART and not machine.running:
        return replace(difference, how=How.LIVE)
    # Firmware, say, can be written, and the guest then no longer starts.
    return replace(difference, wanted="") if difference.how is How.REBUILD else difference


def _waiting(difference: Difference) -> Difference:
    """A change that is right, has been written, and waits."""
    sentence = f"{difference.sentence} (already set, waits for a restart)"
    return replace(difference, wanted="", how=How.RESTART, sentence=sentence)


def _disk(
    config: ClusterConfig, node: Node, release: tuple[int, int], option: str, want: str, have: str
) -> list[Difference]:
    if not stored.parsed(release, option, have).get("file", "").replace("none", ""):
        return [_missing_disk(config, node, option, have)]
    found = []
    there = stored.parsed(release, option, have)
    store = there["file"].partition(":")[0]
    if option == shape.BOOT_DISK and store != config.proxmox.disk_storage:
        sentence = f"its boot disk is on {store}, not {config.proxmox.disk_storage}"
        found.append(Difference(option, "", have, How.REBUILD, sentence))
    size = size_bytes(stored.parsed(release, option, want).get("size", ""))
    smaller = size_bytes(there.get("size", ""))
    if smaller < size:
        name = "data disk" if option == shape.DATA_DISK else "disk"
        sentence = f"its {name} has {smaller / GIB:.3g} GiB, not {size // GIB}"
        found.append(Difference(option, str(size // GIB), have, How.GROW, sentence))
    changed = stored.changed(release, option, want, have)
    # An EFI disk is made once; its options say how, and nothing can be changed afterwards.
    if changed and option != "efidisk0":
        sentence = _sentence(release, option, want, have, changed)
        found.append(Difference(option, stored.merged(release, option, want, have), have, How.RESTART, sentence))
    return found


def _missing_disk(config: ClusterConfig, node: Node, option: str, have: str) -> Difference:
    if option == "efidisk0":
        fresh = shape.fresh_disk(config, node, option)
        return Difference(option, fresh, have, How.RESTART, "it has no EFI disk")
    if option == shape.DATA_DISK:
        # K3s has its data on the boot disk by now; a disk put in today would stay empty.
        return Difference(option, "", have, How.REBUILD, "it has no data disk, which has to be there at the first boot")
    return Difference(option, "", have, How.REBUILD, "it has no boot disk scsi0")


def _tags(want: str, have: str) -> list[Difference]:
    """The cluster's tags are to be among them; further ones are the operator's."""
    there = {tag.lower() for tag in stored.words(have)}
    lacking = [tag for tag in stored.words(want) if tag not in there]
    if not lacking:
        return []
    whole = ";".join(sorted({*there, *stored.words(want)}))
    noun = "tag" if len(lacking) == 1 else "tags"
    return [Difference("tags", whole, have, How.LIVE, f"it lacks the {noun} {', '.join(lacking)}")]


def _description(config: ClusterConfig, node: Node, mark: str, have: str) -> list[Difference]:
    """The mark of the identity is to be in it; the rest is the operator's."""
    if mark.lower() in have.lower():
        return []
    rest = "\n".join(line for line in have.splitlines() if not line.startswith(shape.IDENTITY_MARK)).strip()
    whole = "\n\n".join(part for part in (rest, shape.description(config, node)) if part)
    return [Difference("description", whole, have, How.LIVE, "its description does not name its identity")]


def _boot(want: str, have: str) -> list[Difference]:
    first = stored.first_boot_device(have)
    # Unset, Proxmox takes the first disk.
    if first in {shape.BOOT_DISK, ""}:
        return []
    return [Difference("boot", want, have, How.RESTART, f"it boots from {first}, not {shape.BOOT_DISK}")]


def _machine_type(release: tuple[int, int], want: str, have: str) -> list[Difference]:
    there = stored.parsed(release, "machine", have).get("type") or "pc"
    if there == want:
        return []
    same = there.startswith("pc-q35-")
    whole = stored.merged(release, "machine", want, have) if same else ""
    sentence = f"its machine type is {there}, not {want}"
    return [Difference("machine", whole, have, How.RESTART if same else How.REBUILD, sentence)]


_WORDS: Mapping[str, tuple[str, str]] = {
    "cores": ("it has {} cores, not {}", "1"),
    "sockets": ("it has {} sockets, not {}", "1"),
    "memory": ("it has {} MiB of memory, not {}", "512"),
    "name": ("it is called {}, not {}", "nothing"),
    "cpu": ("its CPU type is {}, not {}", "kvm64"),
    "bios": ("its firmware is {}, not {}", "seabios"),
}
_KEYS = {
    "bridge": "its network is on bridge {}, not {}",
    "tag": "its VLAN is {}, not {}",
    "macaddr": "its MAC address is {}, not {}",
    "model": "its network device is {}, not {}",
}


def _sentence(release: tuple[int, int], option: str, want: str, have: str, changed: frozenset[str]) -> str:
    if option in _WORDS:
        text, default = _WORDS[option]
        return text.format(stored.bare(release, option, have) or default, stored.bare(release, option, want))
    if option == "onboot":
        return "it does not start with its Proxmox node" if want == "1" else "it starts with its Proxmox node"
    if option == "balloon":
        return "its memory may be taken back (balloon)"
    there, shall = stored.normal(release, option, have), stored.normal(release, option, want)
    if option == "net0" and have:
        return ", ".join(
            _KEYS.get(key, key + " of net0 is {}, not {}").format(there.get(key) or "none", shall.get(key) or "none")
            for key in sorted(changed)
        )
    if not have:
        return f"{option} is not set to {want}"
    if changed == {""}:
        return f"{option} is {have}, not {want}"
    keys = sorted(changed)
    return ", ".join(
        f"{key} of {option} is {there.get(key) or 'not set'}, not {shall.get(key) or 'unset'}" for key in keys
    )
