"""``fo destroy``: what is ours and nothing else, after the operator has typed the cluster's name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig
    from funoffshore.demolition import End
    from funoffshore.plan import Plan
    from funoffshore.world.world import World


def destroy(
    cluster: common.Cluster = None,
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The cluster's name, typed out, instead of being asked for it.")
    ] = None,
    keep_disks: Annotated[
        bool, typer.Option("--keep-disks", help="Hang the machines' disks into a VM that is never started.")
    ] = False,
) -> None:
    """Delete the cluster's machines, seeds, pool and backup job: only what carries its identity. Hosts that fo has not
    made stay, wiped of K3s and its data.

    Backups and data on NFS are not touched. What is left, and why, is listed at the end.

    Example: fo destroy -c home
    """
    from funoffshore import demolition, lock
    from funoffshore.show import text

    config = common.load(cluster)
    with lock.hold(config.state, "fo destroy"), common.world(config) as world:
        end = demolition.look(world, config, keep_disks=keep_disks)
        wanted = end.plan
        if wanted:
            text.plan(wanted)
            _ask(config.name, confirm)
            end = _run(world, config, wanted, keep_disks)
            _forget(config)
        said = f"{len(wanted.actions)} deletions, and none of its machines is left" if wanted else "nothing to do"
        common.say(f"{config.name}: {said}")
        for line in end.left:
            common.say(f"  left: {line}")


def _run(world: World, config: ClusterConfig, wanted: Plan, keep_disks: bool) -> End:
    from funoffshore import demolition, journal, redact, run
    from funoffshore.cli.cluster import _interruptible
    from funoffshore.show import live

    redactor = redact.Redactor(redact.secrets_of(config))
    log = journal.Journal.begin(config.state, world.clock.now, redactor, cluster=config.name, until="destroy")
    with _interruptible() as stop, live.watch(config, world.clock) as watcher:
        run.execute(wanted, lambda action, step: demolition.apply(world, config, action, step), log, watcher, stop, {})
        end = demolition.look(world, config, keep_disks=keep_disks)
    log.write("end", "", sync=True, outcome="failed" if end.plan else "done")
    if end.plan:
        raise errors.StillPlannedError(f"was deleted, and a fresh look still shows it: {next(iter(end.plan.actions))}")
    return end


def _forget(config: ClusterConfig) -> None:
    """What spoke of machines that are no more."""
    from funoffshore import status
    from funoffshore.reading import Absent

    config.kubeconfig.unlink(missing_ok=True)
    if not isinstance(status.read(config.state), Absent):
        status.write(config.state, status.Status(config.name, False, None, "", None))


def _ask(name: str, confirm: str | None) -> None:
    if confirm is None:
        if not sys.stdin.isatty():
            raise errors.ConfigError("destroying needs the cluster's name", fix=f"add --confirm {name}")
        confirm = input(f"type the cluster's name ({name}) to delete these: ")
    if confirm != name:
        raise errors.ConfigError("that is not the cluster's name; nothing was deleted")
