"""``fo k3s snapshot``: snapshots of etcd, on the servers and off them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig
    from funoffshore.plan import Action
    from funoffshore.stages.k3s.snapshots import Stored
    from funoffshore.world.world import World

app = typer.Typer(help="Snapshots of etcd. Example: fo k3s snapshot list -c home", no_args_is_help=True)


@app.command("list")
def show(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Show every snapshot and where it lies: on the servers' disks, in S3, off-box on this computer. Changes nothing.

    Exit code 5 when some place could not be read.

    Example: fo k3s snapshot list -c home --json
    """
    from funoffshore.show import k3s as text
    from funoffshore.stages.k3s import snapshots

    config = common.load(cluster)
    with common.world(config) as world:
        found = snapshots.observe(world, config)
    if json:
        common.data(text.snapshots_json(found))
    else:
        text.snapshots(found)
    _require_read(found)


@app.command()
def save(
    name: Annotated[str, typer.Option(metavar="NAME", help="First part of its name; K3s adds node and time.")] = "fo",
    cluster: common.Cluster = None,
) -> None:
    """Take a snapshot now, on a healthy server, and copy it off-box. Ends well only when the copy is proven.

    Example: fo k3s snapshot save --name before-the-move -c home
    """
    from funoffshore import lock
    from funoffshore.stages.k3s import offbox, snapshots

    config = common.load(cluster)
    with lock.hold(config.state, "fo k3s snapshot save"), common.world(config) as world:
        _carry(world, config, snapshots.plan_save(world, config, name))
        found = snapshots.observe(world, config)
    fresh = next((one.name for one in found.snapshots if one.name.startswith(f"{name}-")), name)
    common.say(f"{config.name}: {fresh} is saved, and copied to {offbox.folder(config)}")


@app.command()
def copy(cluster: common.Cluster = None) -> None:
    """Copy every snapshot that lies on servers alone off-box, each with its token beside it, encrypted.

    Example: fo k3s snapshot copy -c home
    """
    from funoffshore import lock
    from funoffshore.stages.k3s import offbox, snapshots

    config = common.load(cluster)
    with lock.hold(config.state, "fo k3s snapshot copy"), common.world(config) as world:
        found = snapshots.observe(world, config)
        wanted = snapshots.plan_copies(config, found)
        _carry(world, config, wanted)
    common.say(f"{config.name}: {len(wanted)} copied to {offbox.folder(config)}")
    for name in snapshots.left_behind(config, found):
        common.say(f"{name} was not copied: another token than the env file's seals it, and it is not known here")
    _require_read(found)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(metavar="N", help="How many of the newest stay, at each place.")],
    cluster: common.Cluster = None,
) -> None:
    """Delete all but the N newest snapshots on each server and off-box; never the last one.

    Example: fo k3s snapshot prune --keep 20 -c home
    """
    from funoffshore import lock
    from funoffshore.stages.k3s import restore, snapshots

    config = common.load(cluster)
    with lock.hold(config.state, "fo k3s snapshot prune"), common.world(config) as world:
        if problem := restore.problem(config.state):
            raise problem
        found = snapshots.observe(world, config)
        wanted = snapshots.plan_prune(config, found, keep)
        _carry(world, config, wanted)
    gone = sum(len(action.values["names"].split()) for action in wanted)
    common.say(f"{config.name}: {gone} snapshots deleted")
    _require_read(found)


def _carry(world: World, config: ClusterConfig, actions: list[Action]) -> None:
    from funoffshore.cli import runs
    from funoffshore.plan import Plan
    from funoffshore.stages.k3s import snapshots, upkeep

    if not actions:
        return
    _, earlier, _ = upkeep.unfinished(config.state, snapshots.RUN, since=world.clock.now() - snapshots.FRESH)
    with runs.journaled(world, config, snapshots.RUN) as carry:
        carry(Plan.of(actions), snapshots.apply, earlier)


def _require_read(found: Stored) -> None:
    if found.unread:
        raise errors.UnreachableError("not every place could be looked at", evidence=found.unread)
