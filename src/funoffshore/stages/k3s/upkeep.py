"""What every change to a K3s that is up has in common: stop, start, the climb after, and what earlier runs got done."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from funoffshore import errors, journal
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role
from funoffshore.plan import Action
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import differences, files, graph, look, quorum
from funoffshore.stages.k3s.classes import ENTRY
from funoffshore.stages.k3s.facts import TOKEN
from funoffshore.stages.k3s.ladder import Ladder
from funoffshore.world.ssh import FileWrite, HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

_FULL = re.compile(r"K10([0-9a-f]{64})::server:(.+)")


def host(world: World, config: ClusterConfig, node: Node) -> HostFacts:
    """A fresh look at ``node``, proven to be it. Raises UnreachableError, ForeignError."""
    return settled(node, world.hosts.observe(node))


def settled(node: Node, reading: Reading[HostFacts]) -> HostFacts:
    """What was seen of ``node``. Raises UnreachableError when it was not, ForeignError when it is another machine."""
    match reading:
        case Present(seen):
            if node.made and seen.uuid and seen.uuid != str(node.identity):
                raise errors.ForeignError(
                    f"{node.address} is not {node.name}: its system UUID is {seen.uuid}, not {node.identity}",
                    fix="another machine answers on that address; find it before anything else",
                )
            return seen
        case Unreadable(why):
            raise errors.UnreachableError(f"{node.name} cannot be read: {why}", fix="bring that host back first")
    raise errors.UnreachableError(f"{node.name} is not there", fix="make it with fo bootstrap --until machines")


def require_settled(world: World, config: ClusterConfig) -> None:
    """K3s is as the env file says, all over. Raises PreflightError: a change is made to what is settled, and not amid
    others."""
    facts = look.observe(world, config, world.hosts.observe_all(config.nodes, look.look_of(config)))
    if left := graph.plan(config, facts):
        raise errors.PreflightError(
            f"K3s is not as the env file says yet: {left[0]}", fix=f"run fo bootstrap -c {config.name} first"
        )


def gate(world: World, config: ClusterConfig, node: Node, seen: HostFacts, step: Step) -> None:
    """Waits until ``node`` may go down. One that is down already, say by an attempt that was cut short, costs the
    quorum nothing more, and may be what the others wait for."""
    unit = seen.unit(files.unit_name(node))
    down = isinstance(unit, Present) and unit.value.active in ("inactive", "failed")
    if node.role is Role.CONTROLLER and not down:
        quorum.others_hold(world, config, node, step)


def stops(node: Node, *, disable: bool = False) -> list[dict[str, str]]:
    """The helper's ``before``: the unit of ``node`` stopped; with ``disable`` a reboot does not start it either."""
    actions = ["stop", "disable"] if disable else ["stop"]
    return [{"name": files.unit_name(node), "action": action} for action in actions]


def starts(node: Node, action: str = "start") -> list[dict[str, Any]]:
    """The helper's ``units``: enabled, and started without waiting for it."""
    name = files.unit_name(node)
    return [{"name": name, "action": "enable"}, {"name": name, "action": action, "no_block": True}]


def settings(config: ClusterConfig, node: Node, entry: dict[str, Any]) -> dict[str, Any]:
    """The helper's ``write`` item for config.yaml of ``node``, which came in by ``entry``."""
    return FileWrite(files.CONFIG, SecretStr(files.config_yaml(config, node, entry)), 0o600).request()


def entry_of(node: Node, seen: HostFacts) -> dict[str, Any]:
    """The keys by which ``node`` came in, from its config.yaml. Raises UnreachableError when it does not show them."""
    there = differences.read_settings(seen.file(files.CONFIG))
    entry = {key: value for key, value in (there or {}).items() if key in ENTRY}
    if not isinstance(entry.get("token"), str):
        raise errors.UnreachableError(
            f"{files.CONFIG} of {node.name} shows no token", fix="run fo bootstrap, which writes it anew, first"
        )
    return entry


def token_on_disk(world: World, node: Node) -> tuple[str, str]:
    """Authority and password of the server token on the disk of ``node``, whatever the env file says. Raises
    UnreachableError."""
    match world.hosts.read_file(node, TOKEN):
        case Present(data):
            found = _FULL.fullmatch(data.decode("utf-8", "replace").strip())
            if found:
                return found[1], found[2]
            why = "it is no token"
        case Unreadable(said):
            why = said
        case Absent():
            why = "it is absent, although K3s' data is there"
    raise errors.UnreachableError(f"{TOKEN} of {node.name} cannot be read: {why}")


def authority(world: World, config: ClusterConfig) -> str:
    """SHA-256 of the cluster's authority, from the disk of the first server that shows it, whatever its token.

    Raises UnreachableError when none does.
    """
    said = []
    for node in config.controllers:
        try:
            return token_on_disk(world, node)[0]
        except errors.UnreachableError as why:
            said.append(why.message)
    raise errors.UnreachableError("no server shows its token", fix="bring one server up first", evidence=tuple(said))


def full_token(config: ClusterConfig, node: Node, ca_hash: str) -> str:
    """What a joining ``node`` shows: it names the authority that it expects."""
    if node.role is Role.CONTROLLER:
        return f"K10{ca_hash}::server:{config.k3s.token.get_secret_value()}"
    return f"K10{ca_hash}::node:{config.k3s.agent_token.get_secret_value()}"


def restart(
    world: World, config: ClusterConfig, node: Node, seen: HostFacts, step: Step, ca_hash: str, **request: Any
) -> None:
    """Starts the unit of ``node`` anew, after the helper's ``request``, and waits until the node is Ready again, with
    its vote. ``seen`` tells which release it has: that stays."""
    ladder = Ladder(world, config, node, step, (), seen.k3s_version or "")
    ladder.before = tuple(ladder.journal())
    world.hosts.change(node, {**request, "units": starts(node, "restart")})
    climb(world, config, ladder, ca_hash)


def climb(world: World, config: ClusterConfig, ladder: Ladder, ca_hash: str) -> None:
    """Until the ladder's node is Ready. Raises TrustError when a server comes up with another authority."""
    if ladder.node.role is Role.WORKER:
        return ladder.climb_agent(ca_hash)
    return ladder.climb_server(lambda: proven_hash(world, config, ladder.node, ca_hash))


def proven_hash(world: World, config: ClusterConfig, node: Node, ca_hash: str) -> str:
    """``ca_hash``, if the token on the disk of ``node`` names it. Raises TrustError, UnreachableError, RefusedError."""
    match look.token_hash(world, config, node):
        case Present(found) if found == ca_hash:
            return found
        case Present(found):
            raise errors.TrustError(
                f"{node.name} has come up with another authority ({found[:12]}…) than the cluster's ({ca_hash[:12]}…)",
                fix="stop k3s on that server and look at its journal: it must not stay beside the cluster",
            )
        case Unreadable(why):
            raise errors.UnreachableError(f"the token of {node.name} cannot be read: {why}")
        case Absent():
            raise errors.TaskFailedError(f"K3s on {node.name} is up without a token file", fix="look at its journal")


def unfinished(
    state: Path, what: str, *, attempt: str = "", since: float = 0.0
) -> tuple[frozenset[str], dict[str, dict[str, str]], bool]:
    """What the last runs of ``what`` got done since one of them ended well: keys of actions that ended well, what was
    recorded by key, and whether there was any such run. Raises StateError.

    ``attempt``: only runs that say they belong to it. ``since`` (Unix seconds on the run's clock): only younger ones.
    """
    done: set[str] = set()
    records: dict[str, dict[str, str]] = {}
    any_run = False
    for folder in reversed(journal.runs(state)):
        about = _about(folder)
        if about.get("until") != what or about.get("attempt", "") != attempt:
            continue
        entries = list(journal.read(folder))
        over = any(entry.event == "end" and entry.data.get("outcome") == "done" for entry in entries)
        if over or entries[0].at < since:
            break
        any_run = True
        done |= {entry.key for entry in entries if entry.event == "done"}
        for entry in reversed(entries):
            if entry.event == "record":
                kept = records.setdefault(entry.key, {})
                kept.update({key: str(value) for key, value in entry.data.items() if key not in kept})
        if any(entry.event == "record" and entry.data.get("began") for entry in entries):
            break
    return frozenset(done), records, any_run


def _about(folder: Path) -> dict[str, Any]:
    """What a run is about, from its first line alone: there may be hundreds of runs."""
    try:
        with (folder / "journal.jsonl").open("rb") as stream:
            first = json.loads(stream.readline(1 << 16))
    except (OSError, ValueError):
        return {}
    return first if isinstance(first, dict) else {}


def redone(actions: Sequence[Action], done: frozenset[str]) -> list[Action]:
    """``actions`` without those that ended well already."""
    return [action for action in actions if action.key not in done]
