"""What stands in the way, from facts alone. Pure: said before anything is touched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from funoffshore.config import ClusterConfig, Node
from funoffshore.errors import FoError, ForeignError, PreflightError, UnreachableError
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import privileges
from funoffshore.stages.machines.facts import Hypervisor, Machine, MachineFacts, Missing
from funoffshore.stages.machines.graph import is_being_created, is_ours

OLDEST_RELEASE = (8, 4)
"""Earlier ones take no qcow2 as ``import`` content (pve-storage 8.3.6)."""
_GIB = 2**30


def problems(config: ClusterConfig, facts: MachineFacts) -> list[FoError]:
    """Everything that must be mended before the plan may run, the gravest first; empty when nothing must."""
    if facts.door is not None:
        return [facts.door]
    if facts.missing:
        return [lacking_privileges(config, facts.missing)]
    found = [*_release(facts), *_machines(config, facts), *_strays(config, facts), *unseen(config, facts)]
    fresh = [node for node in config.nodes if isinstance(facts.machine(node.name), Absent)]
    return [*found, *_answering(config, facts), *_room(config, facts, fresh)]


def lacking_privileges(config: ClusterConfig, missing: tuple[Missing, ...]) -> PreflightError:
    """The error for privileges the token has not got, every one of them, with the lines that grant them."""
    listed = ", ".join(f"{lack.privilege} on {lack.path}" for lack in missing)
    return PreflightError(
        f"the Proxmox token {config.proxmox.token_id} lacks {listed}",
        fix="On the Proxmox host run: " + "; ".join(privileges.remedy(config, missing)),
        evidence=tuple(f"{lack.privilege} on {lack.path} is needed to {lack.purpose}" for lack in missing),
    )


def _release(facts: MachineFacts) -> Iterator[FoError]:
    if isinstance(facts.release, Present) and facts.release.value < OLDEST_RELEASE:
        major, minor = facts.release.value
        yield PreflightError(
            f"Proxmox {major}.{minor} cannot import a cloud image through its API", fix="Upgrade it to 8.4 or later."
        )


def present(config: ClusterConfig, facts: MachineFacts) -> Iterator[tuple[Node, Machine]]:
    for node in config.nodes:
        reading = facts.machine(node.name)
        if isinstance(reading, Present):
            yield node, reading.value


def _machines(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    for node, machine in present(config, facts):
        if is_being_created(machine):
            continue
        if machine.lock == "create":
            yield half_made(machine)
        elif not is_ours(machine, node):
            yield foreign(node, machine.hypervisor, machine.name, machine.identity)
        elif machine.disk_gib > node.disk_gib:
            yield PreflightError(
                f"the disk of {node.name} has {machine.disk_gib:.4g} GiB and shall have {node.disk_gib}; "
                "a disk never shrinks",
                fix=f"Give {node.name} a disk of at least {machine.disk_gib:.0f} GiB in the env file.",
            )


def foreign(node: Node, hypervisor: str, name: str, identity: str) -> ForeignError:
    """The error for a guest in our VMID that is not ours."""
    return ForeignError(
        f"VM {node.vmid} on {hypervisor} ({name or 'without a name'}) is not {node.name}: its SMBIOS UUID is "
        f"{identity or 'not set'}, not {node.identity}. It was not touched.",
        fix="Choose VMIDs that are free (VMID_FIRST in the env file), or move that guest away.",
    )


def half_made(machine: Machine) -> PreflightError:
    return PreflightError(
        f"VM {machine.vmid} on {machine.hypervisor} is locked by a creation that no longer runs, "
        "so nothing shows whose it is, and no API token may unlock it",
        fix=f"If it is a leftover of fo, run as root on {machine.hypervisor}: qm unlock {machine.vmid} && "
        f"qm destroy {machine.vmid} --destroy-unreferenced-disks 1",
    )


def _strays(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    for name, machine in facts.strays.items():
        yield PreflightError(
            f"{name} exists as VM {machine.vmid} on {machine.hypervisor}, and the config gives it "
            f"VM {config.node(name).vmid}",
            fix="Put the old VMID back into the env file, or remove that VM first.",
        )


def unseen(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    """Nothing may be made or removed on the strength of what was not seen."""
    readings = {
        **{f"machine {node.name}": facts.machine(node.name) for node in config.nodes},
        **{f"the seed of {node.name}": facts.seed(node.name) for node in config.nodes},
    }
    whys: dict[str, list[str]] = defaultdict(list)
    for name, reading in readings.items():
        if isinstance(reading, Unreadable):
            whys[reading.why].append(name)
    for why, names in whys.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield UnreachableError(
            f"cannot tell whether {names[0]}{others} exists: {why}", fix="Run the same command again."
        )


def _answering(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    for name in facts.answering:
        address = config.network.vip if name == "VIP" else config.node(name).address
        owner = "the cluster's VIP" if name == "VIP" else name
        yield PreflightError(
            f"{address} already answers on port {config.ssh.port}, and {owner} does not exist yet",
            fix="Find out who has that address, and free it or choose another one in the env file.",
        )


def _room(config: ClusterConfig, facts: MachineFacts, fresh: list[Node]) -> Iterator[FoError]:
    """Storages, bridges, memory and disk for the machines that are still to be made or started."""
    made = {node.name for node in fresh}
    off = {n.name for n, m in present(config, facts) if not m.running and m.lock != "create"}
    for name in config.proxmox.nodes:
        to_make = [node for node in fresh if node.hypervisor == name]
        to_start = [n for n in config.nodes if n.hypervisor == name and n.name in made | off]
        if not to_start:
            continue
        match facts.hypervisors.get(name, Absent()):
            case Unreadable(why):
                yield UnreachableError(f"cannot tell what {name} has to give: {why}", fix="Run the same command again.")
            case Absent():
                yield PreflightError(f"there is no Proxmox node {name}", fix="Correct PROXMOX_NODES in the env file.")
            case Present(found):
                yield from _memory(name, found, to_start)
                if to_make:
                    yield from _storages(config, name, found, to_make)
                    yield from _bridge(config, name, found)
    yield from _shared_disk(config, facts, fresh)


def _memory(name: str, found: Hypervisor, nodes: list[Node]) -> Iterator[FoError]:
    if not found.online:
        yield UnreachableError(f"the Proxmox node {name} is offline", fix="Start it, then run the same command again.")
        return
    need = sum(node.memory_mib for node in nodes)
    free = found.memory_free // 2**20
    if need > free:
        yield PreflightError(
            f"{name} has {free} MiB of memory free, and its {len(nodes)} machines to start need {need} MiB",
            fix="Give the machines less memory, or the cluster another Proxmox node, in the env file.",
        )


def _storages(config: ClusterConfig, name: str, found: Hypervisor, nodes: list[Node]) -> Iterator[FoError]:
    lent = config.proxmox
    for key, storage, contents in (
        ("the disk storage", lent.disk_storage, {"images"}),
        ("the image storage", lent.image_storage, {"import", "iso"}),
    ):
        seen = found.storages.get(storage)
        if seen is None or not seen.active:
            state = "not active" if seen else "not there"
            yield PreflightError(f"{key} {storage} is {state} on {name}", fix="Correct its name in the env file.")
        elif lacking := contents - seen.content:
            both = ",".join(sorted(seen.content | contents))
            yield PreflightError(
                f"{key} {storage} on {name} does not allow content {', '.join(sorted(lacking))}",
                fix=f"On the Proxmox host run: pvesm set {storage} --content {both}",
            )
    disks = found.storages.get(lent.disk_storage)
    if disks is not None and disks.active and not disks.shared:
        yield from _disk(f"{disks.name} on {name}", disks.available, nodes)


def _shared_disk(config: ClusterConfig, facts: MachineFacts, fresh: list[Node]) -> Iterator[FoError]:
    """A shared storage shows the same room on every node, so all machines count against it once."""
    for reading in facts.hypervisors.values():
        disks = reading.value.storages.get(config.proxmox.disk_storage) if isinstance(reading, Present) else None
        if disks is not None and disks.active and disks.shared:
            yield from _disk(disks.name, disks.available, fresh)
            return


def _disk(name: str, available: int, nodes: list[Node]) -> Iterator[FoError]:
    need = sum(node.disk_gib for node in nodes)
    if need * _GIB > available:
        yield PreflightError(
            f"{name} has {available / _GIB:.0f} GiB free, and {len(nodes)} new machines need {need} GiB",
            fix="Give the machines smaller disks, or make room.",
        )


def _bridge(config: ClusterConfig, name: str, found: Hypervisor) -> Iterator[FoError]:
    if config.proxmox.bridge not in found.bridges:
        known = ", ".join(sorted(found.bridges)) or "none"
        yield PreflightError(
            f"there is no bridge {config.proxmox.bridge} on {name} that the token may use (it may use: {known})",
            fix="Correct PROXMOX_BRIDGE in the env file, or create the bridge.",
        )
