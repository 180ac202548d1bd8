"""What stands in the way among the guests: ours in a state that forbids the plan, others where ours belong. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.errors import FoError, ForeignError, PreflightError
from funoffshore.plan import Permits
from funoffshore.reading import Absent, Present
from funoffshore.stages.machines import drift, shape
from funoffshore.stages.machines.facts import Guest, Machine, MachineFacts
from funoffshore.stages.machines.held import release

_SLACK_GIB = 0.01
_LOCKS = {
    "backup": "a backup",
    "clone": "a clone",
    "migrate": "a migration",
    "rollback": "a rollback",
    "snapshot": "a snapshot",
    "snapshot-delete": "the removal of a snapshot",
    "suspending": "a suspension",
}


def problems(config: ClusterConfig, facts: MachineFacts, permits: Permits) -> Iterator[FoError]:
    """Everything wrong with guests, the gravest first."""
    yield from _namesakes(config, facts)
    yield from (double(*seen) for seen in facts.doubles)
    if any(isinstance(facts.machine(node.name), Absent) for node in config.nodes):
        # One of these may be what a machine that seems to be absent began as.
        yield from (half_made(guest) for guest in facts.half_made)
    yield from _removals(config, facts, permits)
    yield from _shrinking(config, facts, permits)
    yield from _locked(config, facts, permits)


def present(config: ClusterConfig, facts: MachineFacts) -> Iterator[tuple[Node, Machine]]:
    """The machines of the config that were seen."""
    for node in config.nodes:
        reading = facts.machine(node.name)
        if isinstance(reading, Present):
            yield node, reading.value


def half_made(guest: Guest) -> PreflightError:
    """The error for a VM that a creation left behind: nobody can tell whose it is."""
    return PreflightError(
        f"VM {guest.vmid} on {guest.hypervisor} is locked by a creation that no longer runs, "
        "so nothing shows whose it is, and no API token may unlock it",
        fix=f"If it is a leftover of fo, run as root on {guest.hypervisor}: qm unlock {guest.vmid} && "
        f"qm destroy {guest.vmid} --destroy-unreferenced-disks 1",
    )


def double(name: str, one: int, other: int) -> PreflightError:
    """The error for two VMs that both are machine ``name`` by their identity."""
    return PreflightError(
        f"VM {one} and VM {other} both carry the identity of {name}; neither was touched",
        fix="One of them is a copy (a restored backup, say). Delete that one by hand, or make it somebody else's: "
        "qm set VMID --smbios1 uuid=$(uuidgen)",
    )


def _namesakes(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    """Two VMs of one name cannot be told apart by whoever looks at Proxmox."""
    fresh = {node.name: node for node in config.nodes if isinstance(facts.machine(node.name), Absent)}
    for guest in facts.guests.values():
        if guest.name in fresh:
            yield ForeignError(
                f"VM {guest.vmid} on {guest.hypervisor} is called {guest.name} and is not ours"
                f"{f' ({guest.why})' if guest.why else ''}. It was not touched.",
                fix="Rename or remove that guest, or choose another CLUSTER_NAME in the env file.",
            )


def _removals(config: ClusterConfig, facts: MachineFacts, permits: Permits) -> Iterator[FoError]:
    """A controller may only go while all others work, or etcd loses its quorum."""
    ours = {node.name: machine for node, machine in present(config, facts) if node.role is Role.CONTROLLER}
    former = {name: m for name, m in facts.former.items() if name.startswith(f"{config.name}-c")}
    leaving = [name for name in ours if name in permits.replace] + [name for name in former if name in permits.remove]
    if not leaving:
        return
    staying = {name: machine for name, machine in {**ours, **former}.items() if name not in leaving}
    if not staying:
        yield PreflightError(
            f"{_listed(leaving)} cannot go: no controller would be left, and the cluster's data with them",
            fix="Add controllers first (CONTROLLERS in the env file), or remove the whole cluster with fo destroy.",
        )
    lacking = [n.name for n in config.controllers if not isinstance(facts.machine(n.name), Present)]
    lacking += [name for name, machine in staying.items() if not machine.running]
    if staying and lacking:
        yield PreflightError(
            f"{_listed(leaving)} cannot go while {_listed(lacking)} is not running: etcd could lose its quorum",
            fix="Run fo bootstrap without --replace and --remove first, so that all other controllers run.",
        )


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _shrinking(config: ClusterConfig, facts: MachineFacts, permits: Permits) -> Iterator[FoError]:
    for node, machine in present(config, facts):
        if node.name in permits.replace:
            continue
        for disk, wanted, key in (
            (shape.BOOT_DISK, node.disk_gib, "DISK_GIB"),
            (shape.DATA_DISK, node.data_disk_gib, "DATA_DISK_GIB"),
        ):
            size = machine.config.disk_gib(disk)
            if wanted and size > wanted + _SLACK_GIB:
                yield PreflightError(
                    f"the disk {disk} of {node.name} has {size:.4g} GiB and shall have {wanted}; a disk never shrinks",
                    fix=f"Give {node.name} at least {_whole(size)} GiB ({_key(config, node)}_{key} in the env file), "
                    f"or make it anew with --replace {node.name}.",
                )


def _whole(size: float) -> int:
    return int(-(-(size - _SLACK_GIB) // 1))


def _key(config: ClusterConfig, node: Node) -> str:
    return f"NODE_{node.name.removeprefix(f'{config.name}-').upper()}"


def _locked(config: ClusterConfig, facts: MachineFacts, permits: Permits) -> Iterator[FoError]:
    """A lock matters only where something is to be done that Proxmox would refuse."""
    for node, machine in present(config, facts):
        if not machine.lock or machine.unborn:
            continue
        if why := _wanted_now(config, facts, node, machine, permits):
            yield locked(node.name, machine, why)
    for name, machine in facts.former.items():
        if machine.lock and name in permits.remove:
            yield locked(name, machine, "it is to be removed")


def _wanted_now(config: ClusterConfig, facts: MachineFacts, node: Node, machine: Machine, permits: Permits) -> str:
    if node.name in permits.replace:
        return "it is to be made anew"
    if not machine.running:
        return "it is off"
    found = drift.differences(config, node, machine, release(facts), machine.pending) if permits.reboots else []
    return ", ".join(difference.sentence for difference in found)


def locked(name: str, machine: Machine, why: str) -> PreflightError:
    """The error for a machine whose lock forbids what ``why`` calls for."""
    where = f"VM {machine.vmid} ({name}) on {machine.hypervisor}"
    if machine.lock == "suspended":
        return PreflightError(
            f"{where} is suspended to disk, and {why}",
            fix=f"As root on {machine.hypervisor} run qm resume {machine.vmid}, then run the same command again.",
        )
    return PreflightError(
        f"{where} is locked by {_LOCKS.get(machine.lock, machine.lock)}, and {why}",
        fix="Wait until that has ended, then run the same command again. If no such task runs any more, "
        f"run as root on {machine.hypervisor}: qm unlock {machine.vmid}",
    )
