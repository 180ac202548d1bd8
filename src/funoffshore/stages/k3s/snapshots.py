"""Snapshots of etcd: what there is and where, a fresh one, copies off the servers, and those that may go.

K3s takes them on its own schedule and keeps each on the server that took it; ``k3s etcd-snapshot``, recorded from a
real run. A server that cannot be read is told and never taken for one without snapshots.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import escrow, look, offbox, upkeep
from funoffshore.world.ssh import HostFacts, Look

if TYPE_CHECKING:
    from funoffshore.world.world import World

RUN = "k3s-snapshot"
"""What the journal of such a run says it is about."""
STAGE = "k3s"
OFF_BOX = "off-box"
OBJECTS = "k3s.cattle.io/v1/ETCDSnapshotFile"
_TOKEN_HASH = "etcd.k3s.cattle.io/snapshot-token-hash"  # noqa: S105  the name of an annotation
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_SAVED = re.compile(r"Snapshot (\S+) saved\.")
_SAVE = 300.0
"""Wall seconds for one snapshot; etcd writes at most 8 GiB."""
FRESH = 3600.0
"""Seconds for which a snapshot is something to go back to after a change."""
_DISK = Look(files=(), units=(), commands=("k3s-version",), space=(), file_systems=(), modes=(f"{offbox.FOLDER}/*",))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot, wherever it lies."""

    name: str
    """Its file name."""
    at: float
    """Unix seconds: as K3s puts them at the end of the name, else of the file on a server; 0 where there are none."""
    places: Mapping[str, int]
    """Size in bytes by place: the name of a server, ``off-box``, ``s3``."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What one look showed."""

    snapshots: tuple[Snapshot, ...]
    """Newest first."""
    unread: tuple[str, ...] = ()
    """What could not be looked at, a sentence each."""
    failed: tuple[str, ...] = ()
    """Snapshots that K3s could not take, and why."""
    token_hashes: Mapping[str, str] = field(default_factory=dict)
    """By snapshot: what K3s told of the token that seals it."""

    def find(self, name: str) -> Snapshot | None:
        return next((one for one in self.snapshots if one.name == name), None)

    def at(self, place: str) -> list[Snapshot]:
        """Those that lie at ``place``, newest first."""
        return [one for one in self.snapshots if place in one.places]


def observe(world: World, config: ClusterConfig) -> Stored:
    """Looks at every server's disk, at the copies on this computer and at the API. Changes nothing."""
    hosts = world.hosts.observe_all(config.controllers, _DISK)
    places: dict[str, dict[str, int]] = {}
    dates: dict[str, float] = {}
    unread: list[str] = []
    for node in config.controllers:
        match _on_disk(hosts.get(node.name, Unreadable("it was not looked at"))):
            case Present(files):
                _add(places, node.name, ((name, size) for name, size, _ in files))
                dates |= {name: mtime for name, _, mtime in files}
            case Unreadable(why):
                unread.append(f"{node.name}: {why}")
    match offbox.copies(config):
        case Present(copies):
            _add(places, OFF_BOX, copies)
        case Unreadable(why):
            unread.append(f"{OFF_BOX}: {why}")
    failed, hashes = _from_api(world, places, unread)
    found = [Snapshot(name, taken_at(name) or dates.get(name, 0.0), where) for name, where in places.items()]
    found.sort(key=lambda one: (one.at, one.name), reverse=True)
    return Stored(tuple(found), tuple(unread), tuple(failed), hashes)


def taken_at(name: str) -> float:
    """When a snapshot was taken, Unix seconds, from its name (K3s ``pkg/etcd/snapshot.go``); 0 when it does not say."""
    digits = name.removesuffix(".zip").rpartition("-")[2]
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 11 else 0.0


def token_hash(token: str) -> str:
    """What K3s notes of the token beside a snapshot: 12 hex digits (K3s ``pkg/util/token.go``)."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def plan_save(world: World, config: ClusterConfig, name: str) -> list[Action]:
    """One fresh snapshot, on the first server that is healthy, and its copy off-box.

    Raises ConfigError for a name that K3s would not take, PreflightError when no server is healthy or the copy could
    not be escrowed, UnreachableError when that cannot be told.
    """
    if not _NAME.fullmatch(name):
        raise errors.ConfigError(f"{name!r} is no name for a snapshot", fix="use letters, digits, dots and hyphens")
    escrow.require_key(config)
    node = healthy_server(world, config)
    reason = "a fresh one was asked for"
    return [Action(Verb.CREATE, f"snapshot/save/{name}", reason, stage=STAGE, on=node.name, values={"name": name})]


def plan_copies(config: ClusterConfig, stored: Stored) -> list[Action]:
    """Every snapshot that lies on a server and not off-box yet, newest first, but for ``left_behind``. Raises
    PreflightError without a key."""
    escrow.require_key(config)
    actions = []
    left = left_behind(config, stored)
    for one in stored.snapshots:
        servers = [node.name for node in config.controllers if node.name in one.places]
        if servers and OFF_BOX not in one.places and one.name not in left and _NAME.fullmatch(one.name):
            values = {"name": one.name, "token_hash": stored.token_hashes.get(one.name, "")}
            key, reason = f"snapshot/copy/{one.name}", f"it lies on {', '.join(servers)} alone"
            actions.append(Action(Verb.CREATE, key, reason, stage=STAGE, on=servers[0], lane="keep", values=values))
    return actions


def left_behind(config: ClusterConfig, stored: Stored) -> list[str]:
    """Names of those on servers alone that another token than the env file's seals: nobody here could escrow them."""
    own = token_hash(config.k3s.token.get_secret_value())
    others = {name for name, told in stored.token_hashes.items() if told != own}
    return [one.name for one in stored.snapshots if one.name in others and OFF_BOX not in one.places]


def plan_prune(config: ClusterConfig, stored: Stored, keep: int) -> list[Action]:
    """What is beyond the ``keep`` newest, place by place; what has no date stays. Raises ConfigError below 1."""
    if keep < 1:
        raise errors.ConfigError("--keep must be at least 1: the last snapshot never goes", fix="give --keep 1 or more")
    actions = []
    for place in [*(node.name for node in config.controllers), OFF_BOX]:
        old = [one.name for one in stored.at(place) if one.at][keep:]
        if old := [name for name in old if _NAME.fullmatch(name)]:
            what = f"{len(old)} beyond the {keep} newest: {', '.join(old[:3])}{', …' if len(old) > 3 else ''}"
            on = "" if place == OFF_BOX else place
            key = f"snapshot/prune/{place}"
            actions.append(Action(Verb.DELETE, key, what, stage=STAGE, on=on, values={"names": " ".join(old)}))
    return actions


def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One of these actions. Raises one of ``errors``; doing it again after any failure is safe."""
    _, verb, rest = action.key.split("/", 2)
    if verb == "save":
        _save(world, config, action, step)
    elif verb == "copy":
        copy(world, config, config.node(action.on), action.values["name"], step, action.values["token_hash"])
    elif rest == OFF_BOX:
        for name in action.values["names"].split():
            offbox.forget(config, name)
    else:
        _delete(world, config, config.node(action.on), action.values["names"].split(), step)


def save_off_box(world: World, config: ClusterConfig, name: str, step: Step) -> None:
    """One fresh snapshot called ``name``, and its copy with the escrow off-box. Raises as ``plan_save`` and ``apply``
    do."""
    for action in plan_save(world, config, name):
        apply(world, config, action, step)


def ensure_fresh(world: World, config: ClusterConfig, step: Step) -> None:
    """A snapshot of the last hour is on some server, to go back to. Where no server is healthy there can be none, and
    what is broken is mended all the same."""
    try:
        node = healthy_server(world, config)
    except (errors.PreflightError, errors.UnreachableError) as why:
        return step.say(f"there is no fresh snapshot to go back to: {why.message}")
    now = world.clock.now()
    hosts = world.hosts.observe_all(config.controllers, _DISK)
    on_disk = [_on_disk(reading) for reading in hosts.values()]
    dates = [taken_at(name) for files in on_disk if isinstance(files, Present) for name, *_ in files.value]
    if not any(abs(now - at) < FRESH for at in dates):
        step.say("taking a snapshot of etcd, to go back to")
        run_k3s(world, node, ["etcd-snapshot", "save", "--name", "before-restart"], _SAVE)
    return None


def healthy_server(world: World, config: ClusterConfig) -> Node:
    """The first server that is Ready and votes in etcd. Raises PreflightError, UnreachableError."""
    match look.node_facts(world.kube.list("v1/Node")):
        case Present(nodes):
            for node in config.controllers:
                seen = nodes.get(node.name)
                if seen and seen.ready and seen.voter:
                    return node
            raise errors.PreflightError("no server is Ready and votes in etcd", fix="fo plan says what they lack")
        case Unreadable(why):
            raise errors.UnreachableError(f"which server is healthy cannot be told: {why}", fix="mend the API first")
    raise errors.UnreachableError("there is no kubeconfig", fix="run fo bootstrap first")


def copy(world: World, config: ClusterConfig, node: Node, name: str, step: Step, told_hash: str = "") -> Path:
    """Brings the snapshot ``name`` of ``node`` off-box, its escrow beside it. Returns where it lies.

    The escrow holds the token that the server itself has. ``told_hash``: what K3s noted of the token that seals the
    snapshot; raises RefusedError when that is another one, whose escrow would open nothing.
    """
    ca_hash, token = upkeep.token_on_disk(world, node)
    if told_hash and told_hash != token_hash(token):
        raise errors.RefusedError(
            f"{name} was made with another server token than {node.name} has now, so no escrow of it can be made",
            fix=f"copy it by hand from {offbox.FOLDER} on {node.name}, together with the token of its day",
        )
    match offbox.look(world, node, name):
        case Present(seen):
            pass
        case Unreadable(why):
            raise errors.UnreachableError(f"{name} on {node.name} cannot be read: {why}")
        case Absent():
            raise errors.PreflightError(f"{node.name} has no snapshot {name} any more", fix="fo k3s snapshot list")
    content = escrow.Escrow(
        snapshot=name, sha256=seen.sha256, cluster=config.name, token=SecretStr(token), ca_hash=ca_hash,
        version=_version(world, config, node), nodes=tuple(n.name for n in config.nodes),
    )  # fmt: skip
    return offbox.bring(world, config, node, name, content, step)


def _save(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
    """One that an earlier, stopped run has saved is copied instead of saving another."""
    name, node = step.recorded("snapshot") or "", config.node(step.recorded("server") or action.on)
    if not name:
        step.say("taking a snapshot of etcd")
        words = ["etcd-snapshot", "save", "--name", action.values["name"]]
        said = run_k3s(world, node, words, _SAVE)
        found = _SAVED.findall(said)
        if len(found) != 1 or not _NAME.fullmatch(found[0]):
            raise errors.TaskFailedError(
                f"K3s on {node.name} ended well and did not say what it saved",
                fix="look at fo k3s snapshot list",
                evidence=tuple(said.splitlines()[-6:]),
            )
        name = found[0]
        step.record(snapshot=name, server=node.name)
    target = copy(world, config, node, name, step)
    step.say(f"{name} of {node.name} is at {target}")


def _delete(world: World, config: ClusterConfig, node: Node, names: list[str], step: Step) -> None:
    step.say(f"deleting {len(names)} snapshots")
    run_k3s(world, node, ["etcd-snapshot", "delete", *local(config), *names], _SAVE)
    match _on_disk(world.hosts.observe(node, _DISK)):
        case Present(left):
            if still := sorted({name for name, *_ in left} & set(names)):
                raise errors.TaskFailedError(f"K3s ended well, and {node.name} still has {', '.join(still)}")
        case Unreadable(why):
            raise errors.UnreachableError(f"whether {node.name} deleted them cannot be seen: {why}")


def local(config: ClusterConfig) -> list[str]:
    """Flags that keep K3s to the server's own disk: with S3 in config.yaml it would look there, and delete there."""
    return ["--etcd-s3=false"] if config.k3s.snapshots.s3 else []


def run_k3s(world: World, node: Node, argv: Sequence[str], patience: float, **request: Any) -> str:
    """What ``k3s …`` on ``node`` said on both its streams. ``request``: what the helper shall do in the same call.

    Raises TaskFailedError when it ends with another code than 0, and what ``Hosts.change`` raises.
    """
    label = " ".join(argv[:2])
    answer = world.hosts.change(
        node,
        {**request, "k3s": [{"argv": list(argv), "timeout": patience, "label": label}]},
        patience + 60,
    )
    outcome = answer["changes"]["k3s"][0]
    return f"{outcome.get('out', '')}\n{outcome.get('err', '')}"


def _on_disk(host: Reading[HostFacts]) -> Reading[list[tuple[str, int, float]]]:
    """Name, size and time of change of every snapshot file."""
    match host:
        case Present(seen):
            files = []
            for path, reading in seen.modes.items():
                if isinstance(reading, Unreadable):
                    return Unreadable(f"{path}: {reading.why}")
                if isinstance(reading, Present) and reading.value.kind == "file":
                    files.append((path.rpartition("/")[2], reading.value.size, reading.value.mtime))
            return Present(files)
        case Unreadable(why):
            return Unreadable(why)
    return Unreadable("the host is not there")


def _add(places: dict[str, dict[str, int]], place: str, files: Iterable[tuple[str, int]]) -> None:
    for name, size in files:
        places.setdefault(name, {})[place] = size


def _from_api(world: World, places: dict[str, dict[str, int]], unread: list[str]) -> tuple[list[str], dict[str, str]]:
    """Adds those in S3, which no disk shows. Returns failed ones and the hashes of tokens."""
    failed: list[str] = []
    hashes: dict[str, str] = {}
    match world.kube.list(OBJECTS):
        case Present(items):
            pass
        case Unreadable(why):
            unread.append(f"the API: {why}")
            return failed, hashes
        case _:
            return failed, hashes
    for item in items:
        spec, status = item.get("spec") or {}, item.get("status") or {}
        name = str(spec.get("snapshotName", ""))
        if told := (status.get("error") or {}).get("message"):
            failed.append(f"{name} on {spec.get('nodeName')}: {told}")
        elif spec.get("s3") is not None and status.get("readyToUse") is True:
            _add(places, "s3", [(name, _bytes(status.get("size")))])
        if told := (item["metadata"].get("annotations") or {}).get(_TOKEN_HASH):
            hashes[name] = str(told)
    return failed, hashes


def _bytes(quantity: object) -> int:
    """Kubernetes writes plain numbers as text; anything else is of no known size."""
    text = str(quantity)
    return int(text) if text.isascii() and text.isdigit() else 0


def _version(world: World, config: ClusterConfig, node: Node) -> str:
    match world.hosts.observe(node, Look(files=(), units=(), commands=("k3s-version",), space=(), file_systems=())):
        case Present(host) if host.k3s_version:
            return host.k3s_version
    return config.k3s.version
