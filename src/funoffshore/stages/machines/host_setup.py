"""What the seed ISO would have brought, for machines that started from Proxmox' own drive: done over SSH, once.

Files first, then one unit on the host that does the long part; it goes on by itself when the connection drops, and
is joined rather than begun again by the next run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from funoffshore import errors, run, seed
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world.ssh import FileLook, FileWrite, HostFacts, Look, UnitFact

if TYPE_CHECKING:
    from funoffshore.world.world import World

UNIT = "fo-setup.service"
_UNIT_FILE = f"/etc/systemd/system/{UNIT}"
DEADLINE = 1800.0
"""Seconds for the unit: packages over a slow line, and whoever holds the lock of the package manager before it."""
FORMATTING = 1000.0
"""Wall seconds for making and mounting a file system."""
_LOCK_PATIENCE = 600


def complete(world: World, config: ClusterConfig, node: Node, step: run.Step) -> None:
    """The host has files, packages, settings and data disk when this returns, as a fresh look shows.

    Raises TaskFailedError when it could not be done, DeadlineError, and whatever the door raises.
    """
    host = look(world, config, node)
    wrong = lacking(config, host)
    if wrong:
        step.say(f"setting it up, as it lacks {', '.join(wrong)}")
        _begin(world, config, node, host)
        _await(world, config, node, step)
    if node.data_disk_gib and data_disk_problem(node, host):
        step.say("preparing its data disk")
        world.hosts.change(node, {"prepare": [_DATA_DISK]}, deadline=FORMATTING)
    host = look(world, config, node)
    if wrong := lacking(config, host):
        raise errors.TaskFailedError(
            f"{node.name} was set up and still lacks {', '.join(wrong)}",
            fix=f"Look there: journalctl -u {UNIT}; then run the same command again.",
        )


_DATA_DISK = {
    "device": seed.DATA_DEVICE,
    "path": seed.DATA_FOLDER,
    "type": seed.DATA_TYPE,
    "label": seed.DATA_LABEL,
    "options": seed.DATA_OPTIONS,
}


def lacking(config: ClusterConfig, host: HostFacts) -> list[str]:
    """What is not there of all that K3s needs and fo brings, in words; ``host`` comes from ``look``."""
    wrong = []
    for path, content in seed.files(config).items():
        reading = host.file(path)
        digest = hashlib.sha256(content.encode()).hexdigest()
        if not isinstance(reading, Present) or reading.value.sha256 != digest:
            wrong.append(path)
    wrong += [name for name in seed.PACKAGES if not isinstance(host.file(_installed(name)), Present)]
    agent = host.unit(seed.AGENT_UNIT)
    if not isinstance(agent, Present) or agent.value.active != "active":
        wrong.append("a running guest agent")
    return wrong


def data_disk_problem(node: Node, host: HostFacts) -> str:
    """Why the node's data is not on its data disk, a clause; empty when it is, or when it has none."""
    if not node.data_disk_gib:
        return ""
    match host.file_systems.get(seed.DATA_FOLDER, Unreadable("it was not looked at")):
        case Present(found) if seed.DATA_ID in found.ids:
            return ""
        case Present(found):
            return f"{found.device or found.type} is mounted at {seed.DATA_FOLDER} instead of its data disk"
        case Absent():
            return f"its data disk is not mounted at {seed.DATA_FOLDER}"
        case Unreadable(why):
            return f"nobody can tell what is mounted at {seed.DATA_FOLDER} ({why})"


def look(world: World, config: ClusterConfig, node: Node) -> HostFacts:
    """One look at all that matters here. Raises UnreachableError when the host cannot be looked at."""
    paths = [*seed.files(config), *(_installed(name) for name in seed.PACKAGES)]
    asked = Look(tuple(FileLook(path) for path in paths), units=(UNIT, seed.AGENT_UNIT), journal=12, space=())
    match world.hosts.observe(node, asked):
        case Present(host):
            return host
        case Unreadable(why):
            raise errors.UnreachableError(f"{node.name} cannot be looked at: {why}", fix="Run the same command again.")
        case Absent():
            raise errors.UnreachableError(f"{node.name} is not there")


def unit_file(config: ClusterConfig) -> str:
    """The unit that does the long part; every command in it may be run again."""
    lock = f"DPkg::Lock::Timeout={_LOCK_PATIENCE}"
    commands = [
        seed.mask_upgrades(),
        # It only fetches lists, and holds a lock for which apt-get does not wait.
        ["-systemctl", "stop", seed.UPGRADES[0]],
        ["timedatectl", "set-timezone", config.timezone],
        ["apt-get", "-q", "update"],
        ["apt-get", "-q", "-y", "-o", lock, "install", *seed.PACKAGES],
        *seed.setup_commands(),
        ["-systemctl", "try-reload-or-restart", "ssh.service"],
    ]
    return "".join(
        [
            "[Unit]\nDescription=What K3s needs of this machine, set up by funoffshore\n",
            "Wants=network-online.target\nAfter=network-online.target\n\n",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\n",
            "Environment=DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1\n",
            f"TimeoutStartSec={DEADLINE:.0f}\n",
            *(f"ExecStart={' '.join(command)}\n" for command in commands),
        ]
    )


def _installed(package: str) -> str:
    """dpkg's list of what belongs to the package (dpkg(1))."""
    return f"/var/lib/dpkg/info/{package}.list"


def _begin(world: World, config: ClusterConfig, node: Node, host: HostFacts) -> None:
    files = [FileWrite(path, content.encode()) for path, content in seed.files(config).items()]
    files.append(FileWrite(_UNIT_FILE, unit_file(config).encode()))
    request: dict[str, object] = {"write": [file.request() for file in files]}
    # An earlier run may have begun it; stopping a package manager half-way is the one thing not to do.
    if not _is(host, "activating"):
        request["units"] = [
            {"name": UNIT, "action": "stop"},
            {"name": UNIT, "action": "start", "no_block": True},
        ]
    world.hosts.change(node, request)


def _await(world: World, config: ClusterConfig, node: Node, step: run.Step) -> None:
    def probe() -> Done[None] | Pending:
        step.checkpoint()
        try:
            unit = look(world, config, node).unit(UNIT)
        except errors.UnreachableError as gone:
            return Pending(gone.message)
        match unit:
            case Present(found) if found.active == "active":
                return Done(None)
            case Present(found) if found.active == "failed":
                raise _failed(node, found)
            case Present(found):
                return Pending(found.journal[-1] if found.journal else f"{UNIT} is {found.active}")
            case Unreadable(why):
                return Pending(why)
        return Pending(f"{UNIT} is not there")

    fix = f"Look there: journalctl -u {UNIT}; can the machine reach its package servers? Then run the same command."
    wait(world.clock, f"{node.name} to install what K3s needs", probe, deadline=DEADLINE, say=step.say, fix=fix)


def _is(host: HostFacts, state: str) -> bool:
    unit = host.unit(UNIT)
    return isinstance(unit, Present) and unit.value.active == state


def _failed(node: Node, unit: UnitFact) -> errors.TaskFailedError:
    # What systemd says of the unit itself only tells that it failed.
    told = [line for line in unit.journal if UNIT not in line]
    return errors.TaskFailedError(
        f"setting up {node.name} failed: {told[-1] if told else unit.result}",
        fix=f"Look there: journalctl -u {UNIT}; can the machine reach its package servers? Then run the same command.",
        evidence=unit.journal,
    )
