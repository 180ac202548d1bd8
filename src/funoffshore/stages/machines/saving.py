"""Backups that the operator asks for: one vzdump task for each Proxmox node, and a look at what it left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funoffshore import errors, journal, run
from funoffshore.config import Backup, ClusterConfig
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import backups
from funoffshore.stages.machines.facts import Machine, MachineFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

RUN = "backup"
"""What the journal of such a run says it is about."""
DEADLINE = 24 * backups.HOUR
STALL = 4 * backups.HOUR
"""A second vzdump waits for the first one for up to three hours, and says nothing meanwhile (``lockwait``)."""


def wanted(config: ClusterConfig) -> Backup:
    """The backup settings. Raises ConfigError where the env file has none."""
    if config.backup is None:
        raise errors.ConfigError(
            f"{config.name} has no storage for backups of its machines",
            fix="Set VM_BACKUP_STORAGE in the env file; docs/guide/backup.md says what to choose.",
        )
    return config.backup


def chosen(config: ClusterConfig, names: Iterable[str]) -> tuple[str, ...]:
    """The machines meant, in the config's order; all of them when none is named. Raises ConfigError."""
    asked = set(names)
    known = [node.name for node in config.nodes]
    if strange := sorted(asked - set(known)):
        raise errors.ConfigError(
            f"{config.name} has no machine {', '.join(strange)}", fix=f"Choose from {', '.join(known)}."
        )
    return tuple(name for name in known if not asked or name in asked)


def plan(facts: MachineFacts, names: Iterable[str]) -> list[Action]:
    """One action for each Proxmox node that has some of ``names``. Pure."""
    by_node: dict[str, list[Machine]] = {}
    titles: dict[int, str] = {}
    for name in names:
        reading = facts.machine(name)
        if isinstance(reading, Present) and not reading.value.creating:
            by_node.setdefault(reading.value.hypervisor, []).append(reading.value)
            titles[reading.value.vmid] = name
    return [_save(hypervisor, machines, titles) for hypervisor, machines in sorted(by_node.items())]


def _save(hypervisor: str, machines: list[Machine], titles: dict[int, str]) -> Action:
    vmids = sorted(machine.vmid for machine in machines)
    named = [titles[vmid] for vmid in vmids]
    values = {"hypervisor": hypervisor, "vmids": ",".join(map(str, vmids)), "machines": ",".join(named)}
    reason = f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} to be saved now"
    on = named[0] if len(named) == 1 else ""
    return Action(Verb.CREATE, f"vzdump/{hypervisor}", reason, stage=backups.STAGE, on=on, values=values)


def left_out(facts: MachineFacts, names: Iterable[str]) -> list[errors.FoError]:
    """Why some of ``names`` are in no action: nothing is passed over in silence."""
    found: list[errors.FoError] = []
    for name in names:
        match facts.machine(name):
            case Unreadable(why):
                found.append(errors.UnreachableError(f"{name} was not saved: cannot tell where it is, because {why}"))
            case Absent():
                found.append(errors.PreflightError(f"{name} was not saved: it has no VM", fix="fo bootstrap makes it."))
            case Present(machine) if machine.creating:
                found.append(errors.PreflightError(f"{name} was not saved: it is only being created"))
            case _:
                pass
    return found


def apply(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    """Saves the machines of ``action``. Returns when a fresh look shows a new backup of each of them.

    A task that an earlier, stopped run began for the same machines is waited for instead of a second one.
    """
    settings, values = wanted(config), action.values
    names = values["machines"].split(",")
    title = f"the backup of {', '.join(names)}"
    upid = _under_way(world, values["vmids"], step)
    if not upid:
        upid = world.proxmox.vzdump(values["hypervisor"], _body(world, config, settings, values["vmids"]))
        if not upid:
            raise errors.TaskFailedError(
                f"{values['hypervisor']} has none of {', '.join(names)} any more", fix="Run the same command again."
            )
        step.record(upid=upid, vmids=values["vmids"])
    world.proxmox.wait_task(upid, step, title, DEADLINE, stall=STALL)
    _verify(world, config, settings, names, upid)


def _body(world: World, config: ClusterConfig, settings: Backup, vmids: str) -> dict[str, Any]:
    """As the job does it, and without pruning: what a human saves by hand pushes nothing out."""
    kind = backups.storage_kind(world.proxmox.resources(), config, settings.storage)
    job = backups.body(config, settings, kind)
    kept = {"storage", "mode", "compress", "notes-template"}
    return {"vmid": vmids, "remove": False} | {key: value for key, value in job.items() if key in kept}


def unfinished(state: Path) -> dict[str, dict[str, str]]:
    """By action key, the IDs that the last such run recorded, when it did not end well. Raises StateError."""
    for folder in reversed(journal.runs(state)):
        entries = list(journal.read(folder))
        if not entries or entries[0].data.get("until") != RUN:
            continue
        found: dict[str, dict[str, str]] = {}
        if not any(entry.event == "end" and entry.data.get("outcome") == "done" for entry in entries):
            for entry in entries:
                if entry.event == "record":
                    found.setdefault(entry.key, {}).update({key: str(value) for key, value in entry.data.items()})
        return found
    return {}


def _under_way(world: World, vmids: str, step: run.Step) -> str:
    upid = step.recorded("upid")
    if not upid or step.recorded("vmids") != vmids:
        return ""
    try:
        return upid if world.proxmox.task(upid).running else ""
    except errors.RefusedError:
        return ""


def _verify(world: World, config: ClusterConfig, settings: Backup, names: list[str], upid: str) -> None:
    """Raises unless each machine has a backup that is no older than the task."""
    began = int(upid.split(":")[4], 16)
    found = backups.stored(world, config, settings.storage)
    missing = [name for name in names if not any(one.backup.at >= began for one in found.saved.get(name, ()))]
    if not missing:
        return
    if found.unread:
        raise errors.UnreachableError(
            f"the task ended well, but whether it saved {', '.join(missing)} cannot be seen: {found.unread[0]}"
        )
    raise errors.TaskFailedError(
        f"the task ended well, and {settings.storage} holds no new backup of {', '.join(missing)}",
        fix="Look at the task on the Proxmox host.",
        evidence=(upid,),
    )
