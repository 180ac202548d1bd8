"""Carries out a restore. Every action may be done again after any failure, until it is recorded as done.

The order keeps a second cluster from coming up at any moment, and through any reboot: all servers are stopped and
disabled, with config.yaml already as it must be for what comes next, before etcd is reset; the one that begins anew is
started only when its database is there; the others lose their old one before they are enabled again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funoffshore import clock, errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Plan
from funoffshore.reading import Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import access, causes, files, graph, look, offbox, placing, snapshots, sources, upkeep
from funoffshore.stages.k3s.facts import ETCD, Role, holds_data
from funoffshore.stages.k3s.ladder import Ladder
from funoffshore.world import supervisor
from funoffshore.world.ssh import HostFacts

if TYPE_CHECKING:
    from funoffshore.world import kube
    from funoffshore.world.world import World

RESETTING = 600.0
"""Wall seconds that K3s gets to read a snapshot and to begin etcd anew with it."""
QUIET = 90.0
"""Seconds that a server which is down gets to give up the API's address; kube-vip's lease lasts five."""
ROUNDS = 4
"""Looks once the servers are back, until nothing is left to do."""
MEMBER = 300.0
"""Seconds that a server which has come up gets to be told as the new member."""
DATABASE = "/var/lib/rancher/k3s/server/db/etcd"
_FLAG = "/var/lib/rancher/k3s/server/db/reset-flag"
_ETCD_NAME = f"{DATABASE}/name"
_ANNOTATION = "etcd.k3s.cattle.io/node-name"
_IS_RESET = re.compile(r"restart without --cluster-reset flag now")


def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One action of ``restore.plan``. Raises one of ``errors``."""
    if action.key.startswith("snapshot/"):
        return snapshots.apply(world, config, action, step)
    verb, node = action.key.split("/")[1], config.node(action.on)
    if verb == "snapshot":
        _deliver(world, node, action, step)
    elif verb == "stop":
        _stop(world, config, node, action, step)
    elif verb == "reset":
        _reset(world, config, node, action, step)
    elif verb == "quiet":
        _quiet(world, config, node, step)
    elif verb == "agent":
        _agent(world, config, node, action, step)
    elif verb == "start":
        _start(world, config, node, action, step)
    elif verb == "rejoin":
        _rejoin(world, config, node, action, step)
    else:
        _prove(world, config, action)
    return None


def settling(world: World, config: ClusterConfig) -> tuple[Plan, tuple[str, ...]]:
    """What is left to do once the servers are back: agents that were forgotten, new machines, the kubeconfig. Hosts
    that cannot be read are told instead."""
    hosts = world.hosts.observe_all(config.nodes, look.look_of(config))
    facts = look.observe(world, config, hosts)
    unread = {name: reading.why for name, reading in hosts.items() if isinstance(reading, Unreadable)}
    actions = [action for action in graph.plan(config, facts) if action.on not in unread]
    return Plan.of(actions), tuple(f"{name}: {why}" for name, why in unread.items())


def _deliver(world: World, node: Node, action: Action, step: Step) -> None:
    """The snapshot is on the server's disk, byte for byte."""
    values = action.values
    step.record(began=values["snapshot"], server=node.name, empty=values["empty"])
    if values["source"]:
        path = f"{offbox.FOLDER}/{values['snapshot']}"
        world.hosts.push(node, path, Path(values["source"]), values["sha256"], 0o600, step.say)
    match offbox.look(world, node, values["snapshot"]):
        case Present(seen) if seen.sha256 == values["sha256"]:
            return
        case Unreadable(why):
            raise errors.UnreachableError(f"{values['snapshot']} on {node.name} cannot be read: {why}")
    raise errors.DigestError(
        f"{values['snapshot']} on {node.name} is not what was chosen any more", fix="run the same command again"
    )


def _stop(world: World, config: ClusterConfig, node: Node, action: Action, step: Step) -> None:
    """Down, and not up again by a reboot; config.yaml says how it comes back."""
    seen = upkeep.host(world, config, node)
    chosen = node.name == action.values["server"]
    if chosen:
        entry = files.entry_keys(config, files.Entry(Role.FOUND))
    else:
        token = upkeep.full_token(config, node, action.values["ca_hash"])
        entry = files.entry_keys(config, files.Entry(Role.JOIN, token))
    _lay_down(world, config, node, seen, entry, step, action.values["release"])


def _lay_down(
    world: World, config: ClusterConfig, node: Node, seen: HostFacts, entry: dict[str, Any], step: Step, release: str
) -> None:
    """K3s of ``node`` is down and stays so, and its files are as they shall be; the binary, too, where there is none
    or ``release`` is another one."""
    unit = seen.unit(files.unit_name(node))
    if isinstance(unit, Unreadable):
        raise errors.UnreachableError(f"whether K3s runs on {node.name} cannot be told: {unit.why}")
    request: dict[str, Any] = {"write": [upkeep.settings(config, node, entry)]}
    if isinstance(unit, Present):
        step.say(f"stopping {files.unit_name(node)}")
        request["before"] = upkeep.stops(node, disable=True)
    if not isinstance(unit, Present) or not seen.k3s_version or release not in ("", seen.k3s_version):
        if problem := sources.problem(config, node, seen):
            raise problem
        step.say(f"putting K3s {config.k3s.version} in its place")
        sources.push(world, config, node, seen, step)
        request |= {**placing.request_of(config, node, entry), "download": sources.request(config, seen)}
    world.hosts.change(node, request, 900)


def _quiet(world: World, config: ClusterConfig, node: Node, step: Step) -> None:
    """Containers outlive K3s, kube-vip among them: one that is left on a server that is down could take the API's
    address to where nothing answers. Whoever holds the address gives it up by itself as soon as no API answers."""

    def given_up() -> clock.Done[None] | clock.Pending:
        step.checkpoint()
        held = str(config.network.vip) in upkeep.host(world, config, node).addresses
        return clock.Pending(f"it still holds {config.network.vip}") if held else clock.Done(None)

    if config.virtual:
        clock.wait(
            world.clock, f"{node.name} to give up the API's address", given_up, deadline=QUIET, interval=1.0,
            say=step.say, fix="restart that machine (its K3s stays down), then run the same command again",
        )  # fmt: skip
    world.hosts.change(node, {"wipe": ["/run/k3s"]})


def _agent(world: World, config: ClusterConfig, node: Node, action: Action, step: Step) -> None:
    """An agent on the snapshot's release again. One that cannot be read is told, and waited for by nobody."""
    reading = world.hosts.observe(node)
    if not isinstance(reading, Present):
        return step.say("it cannot be read and keeps its release")
    seen = upkeep.settled(node, reading)
    if seen.k3s_version in (None, action.values["release"]):
        return None
    _lay_down(world, config, node, seen, upkeep.entry_of(node, seen), step, action.values["release"])
    return upkeep.restart(world, config, node, upkeep.host(world, config, node), step, action.values["ca_hash"])


def _reset(world: World, config: ClusterConfig, node: Node, action: Action, step: Step) -> None:
    """etcd on ``node`` becomes what the snapshot holds. Never while another server runs."""
    for other in config.controllers:
        _require_down(other, upkeep.host(world, config, other))
    step.record(intended="1")
    step.say(f"etcd begins anew from {action.values['snapshot']}")
    path = f"{offbox.FOLDER}/{action.values['snapshot']}"
    argv = ["server", "--cluster-reset", f"--cluster-reset-restore-path={path}", *snapshots.local(config)]
    said = ""
    try:
        said = snapshots.run_k3s(world, node, argv, RESETTING, remove=[_FLAG])
        if _IS_RESET.search(said):
            return
        lines = said.splitlines()
    except errors.TaskFailedError as why:
        lines = [why.message, *why.evidence]
    cause = causes.find(lines)
    says = cause.says if cause else "it did not say why"
    raise errors.TaskFailedError(
        f"K3s on {node.name} did not begin etcd anew from the snapshot: {says}",
        fix="its old database lies beside (server/db/etcd-old-…); "
        + (f"{cause.fix}; " if cause and cause.fix else "")
        + "run the same command again, or restore another snapshot",
        evidence=causes.redacted(config, [line for line in lines if line.strip()][-8:]),
    )


def _require_down(node: Node, seen: HostFacts) -> None:
    match seen.unit(files.unit_name(node)):
        case Present(unit) if unit.active not in ("inactive", "failed"):
            raise errors.PreflightError(
                f"{files.unit_name(node)} on {node.name} is {unit.active}; etcd cannot begin anew beside it",
                fix=f"stop it there (systemctl disable --now {files.unit_name(node)}) and run the same command again",
            )
        case Unreadable(why):
            raise errors.UnreachableError(f"whether K3s runs on {node.name} cannot be told: {why}")


def _start(world: World, config: ClusterConfig, node: Node, action: Action, step: Step) -> None:
    """The cluster's first server, until it is Ready. Never without a database: it would found another cluster."""
    seen = upkeep.host(world, config, node)
    if not isinstance(seen.file(ETCD), Present):
        raise errors.TaskFailedError(
            f"{node.name} has no database of etcd although it was begun anew", fix="run the same command again"
        )
    ladder = Ladder(world, config, node, step, (), seen.k3s_version or "")
    ladder.before = tuple(ladder.journal())
    step.say(f"starting {files.unit_name(node)}")
    world.hosts.change(node, {"units": upkeep.starts(node)})
    ca_hash = action.values["ca_hash"]
    upkeep.climb(world, config, ladder, ca_hash)
    with access.api(world, config, node, str(node.address), ca_hash) as api:
        for other in [one for one in config.nodes if one != node]:
            # A machine that was made anew since the snapshot has another password; without the old one it sets its own.
            api.delete("v1/Secret", "kube-system", f"{other.name}.node-password.k3s")


def _rejoin(world: World, config: ClusterConfig, node: Node, action: Action, step: Step) -> None:
    """An old member without its old database joins anew. Once wiped it is not wiped again: it may be a member."""
    ca_hash = action.values["ca_hash"]
    seen = upkeep.host(world, config, node)
    if not step.recorded("wiped"):
        step.say("removing its old database of etcd")
        world.hosts.change(node, {"before": upkeep.stops(node, disable=True), "wipe": [DATABASE]})
        step.record(wiped="1")
    ladder = Ladder(world, config, node, step, (), seen.k3s_version or "")
    ladder.before = tuple(ladder.journal())
    step.say(f"starting {files.unit_name(node)}")
    world.hosts.change(node, {"units": upkeep.starts(node)})
    upkeep.climb(world, config, ladder, ca_hash)
    with access.api_of_cluster(world, config, ca_hash) as api:
        clock.wait(
            world.clock, f"{node.name} to be told as the new member of etcd", lambda: _is_member(world, node, api),
            deadline=MEMBER, interval=1.0, say=step.say, evidence=ladder.evidence,
        )  # fmt: skip


def _is_member(world: World, node: Node, api: kube.Kube) -> clock.Done[None] | clock.Pending:
    """The Node came out of the snapshot, so what it tells counts only once it names the new member."""
    name = world.hosts.read_file(node, _ETCD_NAME)
    if not isinstance(name, Present):
        return clock.Pending(name.why if isinstance(name, Unreadable) else "it has no name in etcd yet")
    match api.get("v1/Node", "", node.name):
        case Present(item):
            told = (item["metadata"].get("annotations") or {}).get(_ANNOTATION, "")
            if told == name.value.decode("utf-8", "replace").strip():
                return clock.Done(None)
            return clock.Pending("its Node still names the old member")
        case Unreadable(why):
            return clock.Pending(why)
    return clock.Pending("the cluster does not know it yet")


def _prove(world: World, config: ClusterConfig, action: Action) -> None:
    """Raises TrustError unless every server that holds a cluster holds this one, on its disk and on its port."""
    expected, door = action.values["ca_hash"], supervisor.Supervisor(config, world.routes)
    for node in config.controllers:
        if not holds_data(Present(upkeep.host(world, config, node)), node):
            continue
        upkeep.proven_hash(world, config, node, expected)
        match door.ca_hash(str(node.address)):
            case Present(claimed) if claimed != expected:
                raise errors.TrustError(
                    f"{node.name} serves another authority ({claimed[:12]}…) than the cluster's ({expected[:12]}…)",
                    fix="stop k3s on that server: it must not stay beside the cluster",
                )
            case Unreadable(why):
                raise errors.UnreachableError(f"{node.name} cannot be asked for its authority: {why}")
