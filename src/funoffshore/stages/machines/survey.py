"""Which of all guests are ours. The lists only suggest it; a VM's identity decides, read from its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from funoffshore.config import ClusterConfig, identity
from funoffshore.errors import FoError
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import records, shape
from funoffshore.stages.machines.facts import Guest, Machine
from funoffshore.world.proxmox import Proxmox, TaskRow, VmConfig, VmRow

UNBORN = ("create", "clone")
"""Locks of a VM that is still being made."""
SOMEBODY = "somebody else's"
_CREATIONS = ("qmcreate", "qmclone", "qmrestore")
_HIGHEST = {"c": 9, "w": 999}
"""Highest number of a controller and of a worker that the env file could ever have named."""


@dataclass(slots=True)
class Survey:
    """What became of every guest in the lists."""

    machines: dict[str, Reading[Machine]] = field(default_factory=dict)
    former: dict[str, Machine] = field(default_factory=dict)
    doubles: list[tuple[str, int, int]] = field(default_factory=list)
    half_made: list[Guest] = field(default_factory=list)
    guests: dict[int, Guest] = field(default_factory=dict)
    read: dict[int, records.Record] = field(default_factory=dict)
    """Configurations to be remembered, by VMID."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One guest that might be ours, and what was read of it."""

    row: VmRow
    config: VmConfig | FoError | None
    creating: str | FoError = ""
    """UPID of our creation that is at work on it; ``SOMEBODY`` when another's is."""


def with_pending(proxmox: Proxmox, machines: Mapping[str, Reading[Machine]]) -> dict[str, Reading[Machine]]:
    """The same machines, each with what waits for its restart."""
    powered = {
        name: m.value for name, m in machines.items() if isinstance(m, Present) and m.value.running and not m.value.lock
    }
    answers = proxmox.gather({name: partial(proxmox.pending, m.hypervisor, m.vmid) for name, m in powered.items()})
    found = dict(machines)
    for name, answer in answers.items():
        if isinstance(answer, FoError):
            found[name] = Unreadable(answer.message)
        else:
            waiting = {option: values for option, values in answer.items() if values[0] != values[1]}
            found[name] = Present(replace(powered[name], pending=waiting))
    return found


def survey(
    proxmox: Proxmox, config: ClusterConfig, rows: Iterable[VmRow], known: records.Records, now: float
) -> Survey:
    """Reads what the lists cannot tell. ``known`` spares reading what has not changed; empty, everything is read.

    Never changes anything and never raises FoError.
    """
    current, lost = _fresh_rows(proxmox, config, {row.vmid: row for row in rows})
    suspects = [row for row in current.values() if _may_be_ours(config, row)]
    found = Survey(machines={node.name: Absent() for node in config.nodes})
    found.guests = {row.vmid: _guest(row) for row in current.values() if row not in suspects}
    unread: list[tuple[VmRow, str]] = [(row, lost[row.node]) for row in suspects if row.node in lost]
    for seen in _read(proxmox, config, [row for row in suspects if row.node not in lost], known, now):
        if isinstance(seen.config, FoError) or isinstance(seen.creating, FoError):
            why = seen.config if isinstance(seen.config, FoError) else seen.creating
            unread.append((seen.row, str(why)))
        elif seen.config is not None:
            _sort(config, seen.row, seen.config, str(seen.creating), known, found)
            if not seen.config.lock:
                kept = known.configs.get(seen.row.vmid) if known.config(seen.row, now) is seen.config else None
                found.read[seen.row.vmid] = kept or records.Record(records.row_of(seen.row), now, seen.config)
    for row, why in unread:
        _doubt(config, row, why, found)
    return found


def _guest(row: VmRow, name: str = "", why: str = "") -> Guest:
    return Guest(row.vmid, name or row.name, row.node, why, row.pool, row.template)


def blind(config: ClusterConfig, why: str) -> Survey:
    """What is known when the lists themselves could not be read: nothing."""
    return Survey(machines={node.name: Unreadable(why) for node in config.nodes})


def creating_task(rows: list[TaskRow], token_id: str) -> TaskRow | None:
    """The running creation that this token began, if there is one."""
    return next((row for row in rows if row.type in _CREATIONS and row.user == token_id), None)


def _may_be_ours(config: ClusterConfig, row: VmRow) -> bool:
    """Whether anything in the lists suggests that it is worth reading: number, name or tag."""
    if row.kind != "qemu" or row.template:
        return False
    lent = config.proxmox
    numbers = {node.vmid for node in config.nodes}
    in_range = lent.vmid_first <= row.vmid <= lent.vmid_last or row.vmid in numbers
    named = re.fullmatch(rf"{re.escape(config.name)}-[cw][1-9][0-9]*", row.name) is not None
    return in_range or named or f"fo-{config.name}" in row.tags


def _fresh_rows(
    proxmox: Proxmox, config: ClusterConfig, rows: dict[int, VmRow]
) -> tuple[dict[int, VmRow], dict[str, str]]:
    """The rows, and why some Proxmox nodes cannot be asked.

    The cluster's list lags by up to ten seconds (pvestatd's cycle): a guest made since has neither name nor status,
    one that was started since is still off. Where that matters the node's own list is read, which does not lag.
    """
    asked = {row.node for row in rows.values() if _may_be_ours(config, row) and not (row.running and row.name)}
    answers = proxmox.gather({node: partial(proxmox.vms, node) for node in sorted(asked)})
    lost = {node: answer.message for node, answer in answers.items() if isinstance(answer, FoError)}
    current = {vmid: row for vmid, row in rows.items() if row.node not in asked - lost.keys() or row.kind != "qemu"}
    for answer in answers.values():
        if not isinstance(answer, FoError):
            current |= {own.vmid: replace(own, pool=_pool(rows.get(own.vmid))) for own in answer}
    return current, lost


def _pool(row: VmRow | None) -> str:
    """A node's own list does not name the pool."""
    return row.pool if row else ""


def _read(
    proxmox: Proxmox, config: ClusterConfig, rows: list[VmRow], known: records.Records, now: float
) -> list[_Seen]:
    kept = {row.vmid: found for row in rows if (found := known.config(row, now)) is not None}
    asked = [row for row in rows if row.vmid not in kept]
    configs: dict[int, VmConfig | FoError | None] = dict(kept)
    configs |= proxmox.gather({row.vmid: partial(proxmox.config, row.node, row.vmid) for row in asked})
    locked = [row for row in asked if isinstance(c := configs[row.vmid], VmConfig) and c.lock in UNBORN]
    tasks = proxmox.gather({row.vmid: partial(_creating, proxmox, config, row) for row in locked})
    # A creation may have ended between the two looks; only a second look may call the lock a leftover.
    again = [row for row in locked if tasks[row.vmid] == ""]
    configs |= proxmox.gather({row.vmid: partial(proxmox.config, row.node, row.vmid) for row in again})
    return [_Seen(row, configs[row.vmid], tasks.get(row.vmid, "")) for row in rows]


def _creating(proxmox: Proxmox, config: ClusterConfig, row: VmRow) -> str:
    """UPID of our creation of that VM, SOMEBODY for another's. A clone's task names the template, so any clone that
    runs counts."""
    rows = proxmox.running_tasks(row.node, row.vmid)
    rows += [task for task in proxmox.tasks(row.node, 0.0, "qmclone") if not task.ended]
    if task := creating_task(rows, config.proxmox.token_id):
        return task.upid
    return SOMEBODY if any(row.type in _CREATIONS for row in rows) else ""


def _sort(
    config: ClusterConfig, row: VmRow, read: VmConfig, creating: str, known: records.Records, found: Survey
) -> None:
    """Puts one guest whose configuration was read where it belongs."""
    machine = Machine(row.node, row.vmid, read.name or row.name, read, row.running, row.pool, creating)
    current = {str(node.identity): node.name for node in config.nodes}
    name = current.get(read.identity)
    if read.lock in UNBORN and name is None:
        _sort_unborn(config, machine, known, found)
        return
    if name is None and unfinished_clone(config, read, row.vmid, known):
        return
    if name is not None:
        before = found.machines[name]
        if isinstance(before, Present):
            found.doubles.append((name, before.value.vmid, row.vmid))
        found.machines[name] = Present(machine)
    elif f"fo-{config.name}" in row.tags and (old := _former_name(config, read.identity)):
        found.former[old] = machine
    else:
        found.guests[row.vmid] = _guest(row, machine.name, _why_foreign(config, machine))


def unfinished_clone(config: ClusterConfig, read: VmConfig, vmid: int, known: records.Records) -> bool:
    """Whether it is a copy of the template that an interrupted run left before it could give it its identity.

    All of it must fit: the VMID that was written down for that machine, its name, and the mark in its description.
    """
    node = next((n for n in config.nodes if n.name == read.name and known.numbers.get(n.name) == vmid), None)
    if not config.image.template or node is None:
        return False
    return shape.identity_mark(node) in read.options.get("description", "")


def _sort_unborn(config: ClusterConfig, machine: Machine, known: records.Records, found: Survey) -> None:
    """A VM that is only being created shows nothing but its lock."""
    chosen = {vmid: name for name, vmid in known.numbers.items()}
    chosen |= {node.vmid: node.name for node in config.nodes if node.name not in known.numbers}
    name = chosen.get(machine.vmid)
    if machine.creating == SOMEBODY:
        why = "somebody else is making it at this moment"
        found.guests[machine.vmid] = Guest(machine.vmid, machine.name, machine.hypervisor, why)
    elif not machine.creating:
        found.half_made.append(Guest(machine.vmid, machine.name, machine.hypervisor))
    elif name in found.machines and isinstance(found.machines[name], Absent):
        found.machines[name] = Present(machine)
    else:
        row = VmRow(machine.vmid, machine.hypervisor, "", False, frozenset())
        _doubt(config, row, f"it is being created with this token ({machine.creating})", found)


def _former_name(config: ClusterConfig, uuid: str) -> str:
    """The name whose identity that is, of all that this cluster could ever have had; empty when there is none."""
    for role, highest in _HIGHEST.items():
        for number in range(1, highest + 1):
            name = f"{config.name}-{role}{number}"
            if str(identity(config.name, name)) == uuid:
                return name
    return ""


def _why_foreign(config: ClusterConfig, machine: Machine) -> str:
    wanted = {node.name: str(node.identity) for node in config.nodes}.get(machine.name)
    seen = machine.config.identity or "not set"
    return f"its SMBIOS UUID is {seen}" + (f", not {wanted}" if wanted else "")


def _doubt(config: ClusterConfig, row: VmRow, why: str, found: Survey) -> None:
    """A guest that might be ours and cannot be read: whatever machine it may be is not absent then."""
    named = {row.name} & found.machines.keys()
    for name in named or found.machines:
        if isinstance(found.machines[name], Absent):
            found.machines[name] = Unreadable(f"VM {row.vmid} on {row.node} may be it, and cannot be read: {why}")
    found.guests[row.vmid] = _guest(row)
