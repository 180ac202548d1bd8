"""``fo destroy``: our machines and nothing else, after the operator has typed the cluster's name."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common


def destroy(
    cluster: common.Cluster = None,
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The cluster's name, typed out, instead of being asked for it.")
    ] = None,
) -> None:
    """Delete the cluster's machines and seeds: only those that carry its identity. Data on NFS is not touched.

    Example: fo destroy -c home
    """
    from funoffshore import journal, lock, redact, run, status
    from funoffshore.cli.cluster import _interruptible
    from funoffshore.plan import Plan
    from funoffshore.reading import Absent
    from funoffshore.show import live, text
    from funoffshore.stages import machines

    config = common.load(cluster)
    with lock.hold(config.state, "fo destroy"), common.world(config) as world:
        wanted = Plan.of(machines.destroy_plan(config, machines.observe(world, config)))
        if not wanted:
            common.say(f"{config.name}: no machine of it exists, nothing to do")
            return
        text.plan(wanted)
        _ask(config.name, confirm)
        log = journal.Journal.begin(
            config.state,
            world.clock.now,
            redact.Redactor(redact.secrets_of(config)),
            cluster=config.name,
            until="destroy",
        )
        with _interruptible() as stop, live.watch(config, world.clock) as watcher:
            run.execute(
                wanted, lambda action, step: machines.apply(world, config, action, step), log, watcher, stop, {}
            )
            left = machines.destroy_plan(config, machines.observe(world, config))
        log.write("end", "", sync=True, outcome="failed" if left else "done")
        if left:
            raise errors.StillPlannedError(f"was deleted, and a fresh look still shows it: {left[0].key}")
        config.kubeconfig.unlink(missing_ok=True)
        if not isinstance(status.read(config.state), Absent):
            status.write(config.state, status.Status(config.name, False, None, "", None))
        common.say(f"{config.name}: {len(wanted.actions)} deletions, and none of its machines is left")


def _ask(name: str, confirm: str | None) -> None:
    if confirm is None:
        if not sys.stdin.isatty():
            raise errors.ConfigError("destroying needs the cluster's name", fix=f"add --confirm {name}")
        confirm = input(f"type the cluster's name ({name}) to delete these: ")
    if confirm != name:
        raise errors.ConfigError("that is not the cluster's name; nothing was deleted")
