"""From power on to a host that can be worked with. Long, so it says what it waits for and why it gave up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funoffshore import errors, run
from funoffshore.clock import Done, Pending, wait
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import host_evidence, host_setup, trust
from funoffshore.stages.machines.host_setup import data_disk_problem as data_disk_problem
from funoffshore.stages.machines.settled import CLOUD_INIT_OFF, filesystem_lags, is_settled
from funoffshore.world.ssh import FileWrite, HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

DEADLINE = 900.0
"""Seconds from power on until cloud-init has ended, package installation on a slow line included."""
GROWING = 1000.0
"""Wall seconds for growing partitions and file systems."""
_NOTE = b"Written by funoffshore: the first boot is over, and its seed is gone.\n"


def settle(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> None:
    """Returns when the host is reached, cloud-init has ended, and will not run at a later boot.

    With SEED=drive what K3s needs is there as well: the ISO would have brought it. Raises TrustError for a wrong host
    key, TaskFailedError when cloud-init or the set-up failed, DeadlineError with evidence.
    """
    trust.learn(world, config, node, action.values, step)
    host = _wait(world, config, node, action, step)
    if is_settled(host):
        return
    if config.proxmox.seed == "drive":
        host_setup.complete(world, config, node, step)
        host = host_setup.look(world, config, node)
    if why := data_disk_problem(node, host):
        # K3s would fill the root disk, and its data would be hidden by a later mount.
        raise errors.TaskFailedError(
            f"{node.name} came up, but {why}",
            fix=f"Look at /var/log/cloud-init.log on {node.name}, and at its disks with lsblk -f.",
        )
    step.say("switching cloud-init off for later boots")
    world.hosts.write(node, [FileWrite(CLOUD_INIT_OFF, _NOTE)])


def grow_filesystems(world: World, node: Node, step: run.Step) -> None:
    """Every file system that fo looks at fills its disk when this returns; mounted all the while, nothing is lost.

    Raises UnreachableError when the host cannot be looked at, TaskFailedError when one could not be grown.
    """
    step.checkpoint()
    host = _look(world, node)
    paths = [
        path for path, seen in sorted(host.file_systems.items()) if isinstance(seen, Present) and seen.value.unused
    ]
    if paths:
        step.say(f"growing the file system of {' and '.join(paths)}")
        world.hosts.change(node, {"grow": [{"path": path} for path in paths]}, deadline=GROWING)
        host = _look(world, node)
    if why := filesystem_lags(host):
        raise errors.TaskFailedError(
            f"{node.name}: {why}, and fo did what it can",
            fix=f"Look at its disks: lsblk -f on {node.name}. Partitions behind the root one, say, leave it no room.",
        )


def _look(world: World, node: Node) -> HostFacts:
    match world.hosts.observe(node):
        case Present(host):
            return host
        case Unreadable(why):
            raise errors.UnreachableError(f"{node.name} cannot be looked at: {why}", fix="Run the same command again.")
        case Absent():
            raise errors.UnreachableError(f"{node.name} is not there")


def _wait(world: World, config: ClusterConfig, node: Node, action: Action, step: run.Step) -> HostFacts:
    said = ["it was never reached"]

    def probe() -> Done[HostFacts] | Pending:
        step.checkpoint()
        match world.hosts.observe(node):
            case Present(host) if host.cloud_init == "error" and not is_settled(host):
                raise _failed(node, host)
            case Present(host) if host.cloud_init in {"running", "unknown"}:
                said[0] = f"cloud-init says {host.cloud_init}"
            case Present(host):
                return Done(host)
            case Unreadable(why):
                said[0] = why
            case Absent():
                said[0] = "it is not there"
        return Pending(said[0])

    return wait(
        world.clock,
        f"{node.name} ({node.address}) to answer over SSH and finish cloud-init",
        probe,
        deadline=DEADLINE,
        say=step.say,
        evidence=lambda: host_evidence.gather(world, config, node, action.values, said[0]),
        fix=f"Look at the console of {host_evidence.console(action.values)}, then run the same command again.",
    )


def _failed(node: Node, host: HostFacts) -> errors.TaskFailedError:
    why = host.cloud_init_said[0] if host.cloud_init_said else "it does not say why"
    return errors.TaskFailedError(
        f"cloud-init failed on {node.name}: {why}",
        fix=f"Look at /var/log/cloud-init-output.log on {node.name}. Once it is mended by hand, "
        f"`sudo touch {CLOUD_INIT_OFF}` there and run the same command again.",
        evidence=host.cloud_init_said,
    )
