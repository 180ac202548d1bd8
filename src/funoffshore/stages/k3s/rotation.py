"""New tokens for a living cluster, in an order that any crash leaves repairable: run it again.

The new ones stand in the env file (K3S_TOKEN_NEXT, K3S_AGENT_TOKEN_NEXT) before any server hears of them, and go from
there only when every node has them. Snapshots of before keep the token of their day in their escrow, so all of them
are copied off-box first. ``PUT /v1-k3s/token``: K3s ``pkg/server/handlers/token.go``; the rest, K3s documentation,
"k3s token rotate". No secret is ever on a command line.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import SecretStr

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node, edit
from funoffshore.config.model import Role
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import files, snapshots, upkeep
from funoffshore.world import supervisor

if TYPE_CHECKING:
    from funoffshore.world.world import World

RUN = "k3s-token"
"""What the journal of such a run says it is about."""
STAGE = "k3s"
_NEXT = {"K3S_TOKEN_NEXT": "", "K3S_AGENT_TOKEN_NEXT": ""}


def begin(env_file: Path) -> None:
    """Puts two new tokens into the env file, where they are kept until every node has them. Prints none."""
    edit.set_values(env_file, {key: secrets.token_hex(16) for key in _NEXT})


def begun(config: ClusterConfig) -> bool:
    """Whether a rotation was begun and has not ended."""
    return config.k3s.token_next is not None or config.k3s.agent_token_next is not None


def attempt(config: ClusterConfig) -> str:
    """Names the attempt that gives out these very tokens: 12 hex digits that tell nothing of them."""
    k3s = config.k3s
    both = [token.get_secret_value() if token else "" for token in (k3s.token_next, k3s.agent_token_next)]
    return hashlib.sha256("/".join(both).encode()).hexdigest()[:12]


def problem(config: ClusterConfig) -> errors.FoError | None:
    """Why nothing else may touch K3s: some servers may have the new token already."""
    if not begun(config):
        return None
    return errors.PreflightError(
        "new tokens were begun to be given out (K3S_TOKEN_NEXT is set), and not every node has them yet",
        fix=f"finish it: fo k3s rotate-token -c {config.name}",
    )


def turned(config: ClusterConfig) -> ClusterConfig:
    """The same cluster with the new tokens as its own."""
    k3s = config.k3s
    return replace(
        config,
        k3s=replace(
            k3s, token=k3s.token_next or k3s.token, agent_token=k3s.agent_token_next or k3s.agent_token,
            token_next=None, agent_token_next=None,
        ),
    )  # fmt: skip


def plan(
    config: ClusterConfig,
    stored: snapshots.Stored,
    done: Iterable[str] = (),
    records: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> list[Action]:
    """The whole order. ``done`` and ``records``: what an earlier attempt got done, and recorded, by key.

    Raises UnreachableError when a server's snapshots cannot be seen: they would lose their token.
    """
    turning = config.k3s.token_next in (None, config.k3s.token) or bool(records.get("token/cluster"))
    places = {snapshots.OFF_BOX, *(node.name for node in config.controllers)}
    blind = tuple(line for line in stored.unread if line.partition(":")[0] in places)
    if blind and not turning:
        raise errors.UnreachableError(
            "not every snapshot can be seen, and one that stays behind would open with no token that is kept",
            fix="bring those servers up first",
            evidence=blind,
        )
    actions = [] if turning else snapshots.plan_copies(config, stored)
    before = frozenset(action.key for action in actions)

    def then(verb: Verb, key: str, reason: str, node: Node | None = None, *, lane: str = "") -> None:
        on = node.name if node else ""
        actions.append(Action(verb, key, reason, before, lane=lane, stage=STAGE, on=on))

    then(Verb.CHANGE, "token/cluster", "a new server token stands in the env file")
    before = frozenset({"token/cluster"})
    for node in config.controllers:
        then(Verb.CHANGE, f"token/settings/{node.name}", "it must not restart with the old token", node)
    before = frozenset(f"token/settings/{node.name}" for node in config.controllers)
    then(Verb.CHANGE, "token/env", "the new tokens are the cluster's now")
    before = frozenset({"token/env"})
    for node in config.controllers:
        then(Verb.CHANGE, f"token/restart/{node.name}", "it takes the new tokens when it starts", node, lane="restart")
        before = frozenset({f"token/restart/{node.name}"})
    for node in config.workers:
        then(
            Verb.CHANGE, f"token/agent/{node.name}", "the servers take the new agent token alone", node, lane="restart"
        )
    before = frozenset({*before, *(f"token/agent/{node.name}" for node in config.workers)})
    then(Verb.CHANGE, "token/end", "every node has the new tokens")
    return upkeep.redone(actions, frozenset(done))


def apply(world: World, config: ClusterConfig, env_file: Path, action: Action, step: Step) -> None:
    """One of these actions. ``config`` is as it was when the run began, with the new tokens beside the old ones."""
    if action.key.startswith("snapshot/"):
        return snapshots.apply(world, config, action, step)
    fresh = turned(config)
    verb = action.key.split("/")[1]
    if verb == "cluster":
        _turn(world, config, fresh, step)
    elif verb == "env":
        tokens = {"K3S_TOKEN": fresh.k3s.token, "K3S_AGENT_TOKEN": fresh.k3s.agent_token}
        edit.set_values(env_file, {key: token.get_secret_value() for key, token in tokens.items()})
    elif verb == "end":
        edit.set_values(env_file, _NEXT)
    else:
        _give(world, fresh, config.node(action.on), verb, step)
    return None


def require_all(world: World, config: ClusterConfig) -> None:
    """Every host can be read and is the right one. Raises UnreachableError, ForeignError."""
    hosts = world.hosts.observe_all(config.nodes)
    for node in config.nodes:
        upkeep.entry_of(node, upkeep.settled(node, hosts.get(node.name, Absent())))


def _turn(world: World, config: ClusterConfig, fresh: ClusterConfig, step: Step) -> None:
    """One server gets the new token and seals the cluster's keys with it; one that has it already is left alone.

    A lost answer is looked up: a server that takes the new token has done it.
    """
    if fresh.k3s.token == config.k3s.token:
        return None
    ca_hash, door = upkeep.authority(world, config), supervisor.Supervisor(config, world.routes)
    said = []
    for node in config.controllers:
        match door.accepts(str(node.address), ca_hash, fresh.k3s.token):
            case Present(True):
                return step.say(f"{node.name} has the new token already")
            case Unreadable(why):
                # The server that was asked to rotate cannot start again before its config.yaml names the new one.
                if upkeep.token_on_disk(world, node)[1] == fresh.k3s.token.get_secret_value():
                    return step.say(f"{node.name} has the new token on its disk")
                said.append(f"{node.name}: {why}")
            case _:
                pass
    if said:
        raise errors.UnreachableError(
            "whether the cluster has the new token already cannot be told", fix="mend those first", evidence=tuple(said)
        )
    node = snapshots.healthy_server(world, config)
    step.say(f"giving the cluster its new token through {node.name}")
    step.record(turning="1")
    door.rotate_token(str(node.address), ca_hash, config.k3s.token, fresh.k3s.token)
    return None


def _give(world: World, fresh: ClusterConfig, node: Node, verb: str, step: Step) -> None:
    """The new tokens in config.yaml of ``node``; unless ``verb`` is ``settings``, its K3s anew with them."""
    seen = upkeep.host(world, fresh, node)
    entry = upkeep.entry_of(node, seen)
    ca_hash = upkeep.authority(world, fresh)
    password = fresh.k3s.token if node.role is Role.CONTROLLER else fresh.k3s.agent_token
    full = entry["token"].startswith("K10")
    entry["token"] = upkeep.full_token(fresh, node, ca_hash) if full else password.get_secret_value()
    written = upkeep.settings(fresh, node, entry)
    if verb == "settings":
        world.hosts.change(node, {"write": [written]})
        return
    upkeep.gate(world, fresh, node, seen, step)
    step.say(f"restarting {files.unit_name(node)} with the new tokens")
    upkeep.restart(world, fresh, node, seen, step, ca_hash, write=[written])
    if node.role is Role.CONTROLLER:
        _prove(world, fresh, node, ca_hash, fresh.k3s.token)


def _prove(world: World, fresh: ClusterConfig, node: Node, ca_hash: str, token: SecretStr) -> None:
    match supervisor.Supervisor(fresh, world.routes).accepts(str(node.address), ca_hash, token):
        case Present(True):
            return
        case Unreadable(why):
            raise errors.UnreachableError(f"whether {node.name} takes the new token cannot be told: {why}")
    raise errors.TaskFailedError(
        f"{node.name} was restarted with the new token and does not take it", fix="look at its journal"
    )
