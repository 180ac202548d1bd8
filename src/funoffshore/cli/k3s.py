"""``fo k3s``: the life of the cluster's K3s."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common, snapshots

if TYPE_CHECKING:
    from funoffshore.cli import runs
    from funoffshore.config import ClusterConfig
    from funoffshore.world.world import World

app = typer.Typer(help="The life of the cluster's K3s. Example: fo k3s upgrade -c home", no_args_is_help=True)
app.add_typer(snapshots.app, name="snapshot")


@app.command()
def restore(
    snapshot: Annotated[str, typer.Argument(help="Its name, as fo k3s snapshot list shows it.")],
    cluster: common.Cluster = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for the cluster's name.")] = False,
    escrowed_token: Annotated[
        bool, typer.Option("--escrowed-token", help="Put the token from the copy's escrow into the env file first.")
    ] = False,
) -> None:
    """Take the whole cluster back to a snapshot of etcd, which lies on a server or off-box.

    Says first what will be lost. All servers stop; one begins anew, the others join it with empty databases. May be
    stopped at any point: the same command goes on, and nothing else touches the servers until it has ended.

    Example: fo k3s restore before-the-move-home-c1-1795492695 -c home
    """
    from funoffshore import lock
    from funoffshore.stages.k3s import rotation

    config = common.load(cluster)
    if escrowed_token:
        config = _take_escrowed(config, snapshot)
    if rotation.begun(config):
        raise errors.PreflightError(
            "new tokens are being given out (K3S_TOKEN_NEXT is set), and a snapshot may need the old ones",
            fix="finish that with fo k3s rotate-token; if the cluster is too broken for it, empty K3S_TOKEN_NEXT and "
            "K3S_AGENT_TOKEN_NEXT in the env file and add --escrowed-token",
        )
    with lock.hold(config.state, "fo k3s restore"), common.world(config) as world:
        _restore(world, config, snapshot, yes)


@app.command("rotate-token")
def rotate_token(cluster: common.Cluster = None) -> None:
    """Give the cluster new tokens, for servers and for agents, one node after another.

    The new ones are made by fo, stand in the env file before any server hears of them, and are never shown. Off-box
    copies of snapshots keep the token of their day. May be stopped at any point: the same command goes on.

    Example: fo k3s rotate-token -c home
    """
    from funoffshore import config as configs
    from funoffshore import lock
    from funoffshore.cli import runs
    from funoffshore.plan import Plan
    from funoffshore.stages.k3s import escrow, rotation, upkeep
    from funoffshore.stages.k3s import restore as restores
    from funoffshore.stages.k3s import snapshots as stored

    config = common.load(cluster)
    env_file = configs.find(config.root, config.name, os.environ)
    with lock.hold(config.state, "fo k3s rotate-token"):
        _refuse(restores.problem(config.state))
        escrow.require_key(config)
        with common.world(config) as world:
            rotation.require_all(world, config)
            if not rotation.begun(config):
                upkeep.require_settled(world, config)
                rotation.begin(env_file)
                config = configs.load(env_file, root=config.root)
            attempt = rotation.attempt(config)
            done, earlier, _ = upkeep.unfinished(config.state, rotation.RUN, attempt=attempt)
            wanted = Plan.of(rotation.plan(config, stored.observe(world, config), done, earlier))
            with runs.journaled(world, config, rotation.RUN, attempt) as carry:
                carry(wanted, lambda w, c, action, step: rotation.apply(w, c, env_file, action, step), earlier)
    common.say(f"{config.name}: every node has the new tokens, and they stand in the env file")


@app.command()
def certificates(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Show until when every certificate of K3s is good, on every node; what ends within 90 days is marked.

    Exit code 20 when one is no good any more, 5 when a node could not be asked. Changes nothing.

    Example: fo k3s certificates -c home
    """
    from funoffshore.show import k3s as text
    from funoffshore.stages.k3s import certificates as all_of_them

    config = common.load(cluster)
    with common.world(config) as world:
        found = all_of_them.observe(world, config)
        now = world.clock.now()
    if json:
        common.data(text.certificates_json(found, now))
    else:
        text.certificates(found, now)
    if bad := [one for one in found.certificates if not one.valid]:
        raise errors.CheckFailedError(
            f"{len(bad)} certificates are no good, {bad[0].file} of {bad[0].node} among them",
            fix=f"fo k3s rotate-certificates -c {config.name}",
        )
    if found.unread:
        raise errors.UnreachableError("not every node could be asked", evidence=found.unread)


@app.command("rotate-certificates")
def rotate_certificates(cluster: common.Cluster = None) -> None:
    """Renew the certificates of every node, one after another, and fetch the kubeconfig anew. The authorities stay.

    Each server restarts only while all the others hold the quorum. May be stopped at any point: the same command goes
    on with the nodes that are left.

    Example: fo k3s rotate-certificates -c home
    """
    from funoffshore import lock
    from funoffshore.cli import runs
    from funoffshore.plan import Plan
    from funoffshore.stages import k3s
    from funoffshore.stages.k3s import certificates as all_of_them
    from funoffshore.stages.k3s import upkeep

    config = common.load(cluster)
    with lock.hold(config.state, "fo k3s rotate-certificates"), common.world(config) as world:
        _refuse(*k3s.begun(config))
        since = world.clock.now() - all_of_them.DAY
        done, earlier, again = upkeep.unfinished(config.state, all_of_them.RUN, since=since)
        if not again:
            upkeep.require_settled(world, config)
        wanted = Plan.of(all_of_them.plan(config, done))
        with runs.journaled(world, config, all_of_them.RUN) as carry:
            carry(wanted, all_of_them.apply, earlier)
    common.say(f"{config.name}: the certificates of {len(config.nodes)} nodes are new")


def _refuse(*problems: errors.FoError | None) -> None:
    for problem in problems:
        if problem:
            raise problem


def _restore(world: World, config: ClusterConfig, snapshot: str, yes: bool) -> None:
    from funoffshore.cli import runs
    from funoffshore.plan import Plan
    from funoffshore.show import k3s as text
    from funoffshore.stages.k3s import restore as restores
    from funoffshore.stages.k3s import restoring

    begun = restores.going_on(config.state, snapshot)
    choice = restores.choose(world, config, snapshot, begun)
    if begun is None:
        for line in text.restore(choice, restores.lost(world, choice.at)):
            common.say(line)
        if not yes:
            _ask(config.name)
    else:
        common.say(f"going on with the restore of {snapshot} that was begun")
    actions = restores.plan(config, choice, _safety(world, config) if begun is None else "")
    wanted = Plan.of(restores.remaining(actions, begun))
    with runs.journaled(world, config, restores.RUN) as carry:
        if wanted:
            carry(wanted, restoring.apply, begun.records if begun else {})
        unread = _settle(world, config, carry)
    common.say(f"{config.name}: restored from {snapshot}; fo bootstrap -c {config.name} brings back what Git says")
    for line in unread:
        common.say(f"not looked at: {line}")


def _settle(world: World, config: ClusterConfig, carry: runs.Carry) -> tuple[str, ...]:
    """Until a fresh look at K3s plans nothing. Returns what could not be looked at."""
    from funoffshore.stages import k3s
    from funoffshore.stages.k3s import restoring

    for _ in range(restoring.ROUNDS):
        wanted, unread = restoring.settling(world, config)
        if not wanted:
            return unread
        carry(wanted, k3s.apply)
    raise errors.StillPlannedError(
        f"the servers are restored, and something is still to be done: {next(iter(wanted.actions.values()))}",
        fix=f"fo plan -c {config.name} shows it; run the same command again",
    )


def _safety(world: World, config: ClusterConfig) -> str:
    """The server that can give a snapshot of what is to be replaced; empty where none can, which is said."""
    from funoffshore.stages.k3s import snapshots as stored

    if config.sops_age_key is None:
        common.say("without SOPS_AGE_KEY there is no copy of what is there now")
        return ""
    try:
        return stored.healthy_server(world, config).name
    except (errors.PreflightError, errors.UnreachableError) as why:
        common.say(f"there is no snapshot of what is there now: {why.message}")
        return ""


def _take_escrowed(config: ClusterConfig, snapshot: str) -> ClusterConfig:
    """The same cluster with the token that the copy's escrow holds, in the env file, too."""
    from funoffshore import config as configs
    from funoffshore.config import edit
    from funoffshore.stages.k3s import escrow, offbox

    kept = escrow.read(config, offbox.folder(config) / snapshot)
    env_file = configs.find(config.root, config.name, os.environ)
    edit.set_values(env_file, {"K3S_TOKEN": kept.token.get_secret_value()})
    return configs.load(env_file, root=config.root)


def _ask(name: str) -> None:
    if not sys.stdin.isatty():
        raise errors.ConfigError("going back to a snapshot needs the cluster's name", fix="add --yes")
    if input(f"type the cluster's name ({name}) to go back: ") != name:
        raise errors.ConfigError("that is not the cluster's name; nothing was restored")
