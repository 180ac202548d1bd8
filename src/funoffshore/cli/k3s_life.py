"""``fo k3s upgrade`` and ``fo k3s replace``: one more run of the road, with a permit for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig
    from funoffshore.plan import Permits
    from funoffshore.world.world import World


def upgrade(
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", help="Release, like v1.37.1+k3s1; the pinned one when not given."),
    ] = None,
    cluster: common.Cluster = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")] = False,
) -> None:
    """Bring every node to a release of K3s: pinned first, then a snapshot off the servers, then servers one by one,
    then agents in batches (UPGRADE_BATCH), each drained and given back.

    No minor release is skipped, and there is no way back but fo k3s restore. Ctrl-C pauses at the next safe point; the
    same command goes on where it stopped.

    Example: fo k3s upgrade v1.37.1+k3s1 -c home
    """
    from funoffshore import lock
    from funoffshore.plan import Permits

    config = common.load(cluster)
    allowed = Permits(upgrade=True)
    with lock.hold(config.state, "fo k3s upgrade"), common.world(config) as world:
        wanted = _wanted(world, config, version, pin=not dry_run)
        if dry_run:
            _show(world, wanted, allowed)
            return
        _run(world, wanted, allowed)
        _versions(world, wanted)


def replace(
    name: Annotated[str, typer.Argument(metavar="NODE", help="Node to be made anew.")],
    cluster: common.Cluster = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for the node's name.")] = False,
    new_host_key: Annotated[
        bool, typer.Option("--new-host-key", help="Forget the recorded host key: its system was installed anew.")
    ] = False,
) -> None:
    """Make a node anew: drained where it lives, its etcd member, Node and password gone, its machine rebuilt (a host
    that fo has not made is wiped of K3s), joined again. Volumes that lie on its own disk are lost.

    Example: fo k3s replace home-c2 -c home
    """
    from funoffshore import lock
    from funoffshore.plan import Permits

    config = common.load(cluster)
    known = [node.name for node in config.nodes]
    if name not in known:
        raise errors.ConfigError(f"there is no node {name}", fix=f"one of {', '.join(known)}")
    allowed = Permits(replace=frozenset({name}))
    with lock.hold(config.state, "fo k3s replace"), common.world(config) as world:
        if new_host_key:
            _forget_key(config, name)
        if not yes:
            _show(world, config, allowed)
            _ask(name)
        _run(world, config, allowed)


def _wanted(world: World, config: ClusterConfig, version: str | None, *, pin: bool) -> ClusterConfig:
    """The config with the release to go to, which is pinned when the cluster may be brought to it."""
    import dataclasses

    from funoffshore import config as configs
    from funoffshore import road
    from funoffshore.config import release
    from funoffshore.stages import k3s

    target = release.parse(version) if version else config.k3s.version
    wanted = dataclasses.replace(config, k3s=dataclasses.replace(config.k3s, version=target))
    if problem := k3s.upgrade_refusal(wanted, road.look(world, config, thorough=False).k3s):
        raise problem
    if target == config.k3s.version or not pin:
        return wanted
    path = configs.find(config.root, config.name, os.environ)
    release.pin(path, config.root, target, world.downloads.get, config.k3s.folder)
    common.say(f"{target} is pinned")
    return configs.load(path, root=config.root)


def _run(world: World, config: ClusterConfig, allowed: Permits) -> None:
    from funoffshore.cli import cluster

    cluster.converge(world, config, cluster.Until.K3S, allowed)


def _show(world: World, config: ClusterConfig, allowed: Permits) -> None:
    from funoffshore import history, road
    from funoffshore.cli import cluster
    from funoffshore.show import text

    facts = road.look(world, config)
    if found := road.problems(config, facts, "k3s", allowed):
        cluster.stop_at(found)
    text.plan(road.plan(config, facts, "k3s", allowed), history.durations(config.state))


def _versions(world: World, config: ClusterConfig) -> None:
    """What the kubelets themselves say."""
    from funoffshore.stages import k3s

    told: Mapping[str, str] = k3s.running(world)
    width = max((len(name) for name in told), default=0)
    for name, version in told.items():
        print(f"{name:{width}}  {version}")


def _forget_key(config: ClusterConfig, name: str) -> None:
    from funoffshore.world.ssh import known

    node = config.node(name)
    if node.made or config.ssh.trust != "first-use":
        raise errors.ConfigError(
            f"--new-host-key: the host key of {name} is not recorded by fo",
            fix="leave the option out; with SSH_TRUST=known, write the new key into SSH_KNOWN_HOSTS",
        )
    known.forget(config, node.identity)


def _ask(name: str) -> None:
    if not sys.stdin.isatty():
        raise errors.ConfigError("replacing a node needs a word for it", fix="add --yes")
    if input(f"type the node's name ({name}) to make it anew: ") != name:
        raise errors.ConfigError("that is not the node's name; nothing was changed")
