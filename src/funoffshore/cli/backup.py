"""``fo backup``: save machines now, see what is saved, and get one machine back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig
    from funoffshore.plan import Action, Plan
    from funoffshore.run import Step
    from funoffshore.world.world import World

app = typer.Typer(help="Backups of whole machines. Example: fo backup list -c home", no_args_is_help=True)


@app.command()
def now(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Machines; all when none is given.")
    ] = None,
    cluster: common.Cluster = None,
) -> None:
    """Save machines now, to the storage of the backup job. Prunes nothing.

    Ends well only when a fresh look shows a new backup of each of them. Ctrl-C leaves what Proxmox has begun running;
    the same command waits for it.

    Example: fo backup now home-c1 -c home
    """
    from funoffshore import lock
    from funoffshore.plan import Plan
    from funoffshore.stages import machines
    from funoffshore.stages.machines import saving

    config = common.load(cluster)
    saving.wanted(config)
    chosen = saving.chosen(config, names or ())
    with lock.hold(config.state, "fo backup now"), common.world(config) as world:
        facts = machines.observe(world, config)
        if facts.door is not None:
            raise facts.door
        wanted = Plan.of(saving.plan(facts, chosen))
        if wanted:
            _run(world, config, wanted, saving.RUN, saving.apply, saving.unfinished(config.state))
        saved = sum(len(action.values["machines"].split(",")) for action in wanted.actions.values())
        common.say(f"{config.name}: {saved} of {len(chosen)} machines saved")
        _raise_all(saving.left_out(facts, chosen))


@app.command("list")
def show(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Show every backup of the cluster's machines, newest first, and which machines have none. Changes nothing.

    Exit code 5 when some of it could not be read.

    Example: fo backup list -c home --json
    """
    from funoffshore.show import text
    from funoffshore.stages.machines import backups, saving

    config = common.load(cluster)
    wanted = saving.wanted(config)
    with common.world(config) as world:
        found = backups.stored(world, config, wanted.storage)
    if json:
        common.data(text.backups_json(config, found))
    else:
        text.backups(config, found)
    if found.unread:
        raise errors.UnreachableError("not every backup could be looked at", evidence=found.unread)


@app.command()
def restore(
    name: Annotated[str, typer.Argument(help="The machine to get back.")],
    cluster: common.Cluster = None,
    volume: Annotated[str, typer.Option(metavar="VOLUME", help="The backup to take; the newest when not given.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also over the machine that is there, which must be off. Its disks go.")
    ] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The machine's name, typed out, instead of being asked for it.")
    ] = None,
) -> None:
    """Get one machine back from its backup, with its identity and on its VMID. It is off then: fo bootstrap starts it.

    The identity inside the backup is looked at first. A controller is only restored where no other one exists.

    Example: fo backup restore home-w1 -c home
    """
    from funoffshore import lock
    from funoffshore.plan import Plan
    from funoffshore.stages import machines
    from funoffshore.stages.machines import restoring, saving

    config = common.load(cluster)
    (chosen,) = saving.chosen(config, [name])
    node = config.node(chosen)
    with lock.hold(config.state, "fo backup restore"), common.world(config) as world:
        choice = restoring.choose(world, config, node, machines.observe(world, config), volume, force=force)
        action = restoring.plan(node, choice)
        if choice.replaces:
            common.say(str(action))
            _ask(node.name, confirm)
        _run(world, config, Plan.of([action]), restoring.RUN, restoring.apply, {})
    common.say(f"{node.name}: restored from {choice.saved.backup.volid}; fo bootstrap -c {config.name} starts it")


def _run(
    world: World,
    config: ClusterConfig,
    wanted: Plan,
    what: str,
    apply: Callable[[World, ClusterConfig, Action, Step], None],
    earlier: Mapping[str, Mapping[str, str]],
) -> None:
    """Executes a plan as a run with a journal of its own. ``earlier``: IDs of what a stopped run has begun."""
    from funoffshore import journal, redact, run
    from funoffshore.cli.cluster import _interruptible
    from funoffshore.show import live

    redactor = redact.Redactor(redact.secrets_of(config))
    log = journal.Journal.begin(config.state, world.clock.now, redactor, cluster=config.name, until=what)
    try:
        with _interruptible() as stop, live.watch(config, world.clock) as watcher:
            run.execute(wanted, lambda action, step: apply(world, config, action, step), log, watcher, stop, earlier)
        log.write("end", "", sync=True, outcome="done", actions=len(wanted.actions))
    except BaseException as why:
        log.write("end", "", sync=True, outcome="failed", error=f"{type(why).__name__}: {why}")
        raise
    finally:
        log.close()


def _raise_all(found: list[errors.FoError]) -> None:
    """The first one as an error, the others told before."""
    for other in found[1:]:
        common.explain(other)
    if found:
        raise found[0]


def _ask(name: str, confirm: str | None) -> None:
    if confirm is None:
        if not sys.stdin.isatty():
            raise errors.ConfigError("replacing a machine needs its name", fix=f"add --confirm {name}")
        confirm = input(f"type the machine's name ({name}) to replace its disks: ")
    if confirm != name:
        raise errors.ConfigError("that is not the machine's name; nothing was restored")
