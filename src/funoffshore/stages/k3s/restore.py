"""The cluster back from a snapshot of etcd: what stands in the way, what would be lost, and the order of the work.

``choose``, ``lost`` and ``problem`` only look; ``restoring.py`` carries out. K3s documentation, "k3s etcd-snapshot"
("Restoring snapshots"): etcd is reset on one server, and the others come back to it with empty disks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.k3s import escrow, offbox, snapshots, upgrade, upkeep
from funoffshore.stages.k3s.facts import holds_data
from funoffshore.world.ssh import HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

RUN = "k3s-restore"
"""What the journal of such a run says it is about."""
STAGE = "k3s"
SAFETY = "before-restore"
"""Name of the snapshot that is taken of what is to be replaced."""
RESET = "restore/reset"
_KINDS = (
    "v1/Namespace", "v1/Node", "v1/PersistentVolume", "v1/PersistentVolumeClaim", "v1/ConfigMap", "v1/Secret",
    "v1/Service", "v1/ServiceAccount", "v1/Pod", "apps/v1/Deployment", "apps/v1/StatefulSet", "apps/v1/DaemonSet",
    "batch/v1/Job", "batch/v1/CronJob", "networking.k8s.io/v1/Ingress",
    "apiextensions.k8s.io/v1/CustomResourceDefinition", "source.toolkit.fluxcd.io/v1/GitRepository",
    "kustomize.toolkit.fluxcd.io/v1/Kustomization", "helm.toolkit.fluxcd.io/v2/HelmRelease",
    "cert-manager.io/v1/Certificate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A snapshot that fits, and where etcd begins anew."""

    snapshot: str
    at: float
    """Unix seconds; 0 when nothing tells."""
    sha256: str
    """Of the snapshot's bytes, 64 hex digits."""
    server: Node
    source: Path | None
    """The copy on this computer, where the server does not have the snapshot."""
    ca_hash: str
    """Authority of the cluster, the same before and after."""
    empty: frozenset[str]
    """Servers without K3s' data: new machines, which join afterwards as new ones do."""
    release: str = ""
    """The pinned release, where it is the snapshot's and nodes run another one; empty: each keeps what it has."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What the API shows today and the snapshot cannot have."""

    newer: tuple[str, ...]
    """``Deployment media/jellyfin``, each made after the snapshot; what others made of them is left out."""
    unread: tuple[str, ...]
    """Why it may be more."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A restore that was begun and has not ended well."""

    snapshot: str
    server: str
    empty: frozenset[str]
    """Servers that had no data when it began."""
    reset: bool
    """Whether etcd may have been reset: from then on the only way is forward."""
    done: frozenset[str]
    """Keys of actions that ended well."""
    records: Mapping[str, Mapping[str, str]]


def choose(world: World, config: ClusterConfig, name: str, begun: Unfinished | None = None) -> Choice:
    """Everything that a restore of ``name`` needs to be true. Changes nothing.

    ``begun``: an earlier attempt with the same snapshot, which is gone on with. Raises UnreachableError when anything
    that decides cannot be read, ForeignError for another machine or another cluster's snapshot, RefusedError when the
    snapshot needs another token than the env file's, PreflightError when there is no such snapshot.
    """
    hosts = world.hosts.observe_all(config.controllers)
    seen = {node.name: upkeep.settled(node, hosts.get(node.name, Absent())) for node in config.controllers}
    empty = frozenset(node.name for node in config.controllers if not _holds(node, seen[node.name]))
    stored = snapshots.observe(world, config)
    found = stored.find(name)
    if found is None:
        raise _no_such(config, name, stored)
    kept = _kept(config, name) if snapshots.OFF_BOX in found.places else None
    tokens = {node.name: upkeep.token_on_disk(world, node) for node in config.controllers if node.name not in empty}
    _require_token(config, name, kept, stored.token_hashes.get(name, ""), {secret for _, secret in tokens.values()})
    on, seen_there = _where(world, config, found, kept, begun.server if begun else "")
    source = offbox.folder(config) / name if seen_there is None else None
    sha256 = seen_there.sha256 if seen_there else offbox.digest(offbox.folder(config) / name)
    if kept and sha256 != kept.sha256:
        raise errors.DigestError(
            f"the copy of {name} is not what was copied: its sha256 is {sha256}, not {kept.sha256}",
            fix="choose another snapshot (fo k3s snapshot list), or another copy of this one",
        )
    ca_hash = _authority({who: ca_hash for who, (ca_hash, _) in tokens.items()}, kept)
    release = _release(config, kept, {server: host.k3s_version for server, host in seen.items()})
    return Choice(name, found.at, sha256, on, source, ca_hash, begun.empty if begun else empty, release)


def lost(world: World, at: float) -> Lost:
    """What was made after ``at`` (Unix seconds), as far as the API shows it."""
    newer, unread = [], []
    for kind in _KINDS:
        match world.kube.list(kind):
            case Present(items):
                newer += [_name(kind, item) for item in items if _made(item) > at and not _owned(item)]
            case Unreadable(why):
                unread.append(f"{kind}: {why}")
                if not newer and len(unread) == 1:  # the API is away, and need not be asked twenty times
                    return Lost((), (why,))
    return Lost(tuple(newer), tuple(unread))


def plan(config: ClusterConfig, choice: Choice, safety: str = "") -> list[Action]:
    """The whole work, in its order. ``safety``: the healthy server that first gives a snapshot of what is there now."""
    values = {
        "snapshot": choice.snapshot, "server": choice.server.name, "sha256": choice.sha256, "ca_hash": choice.ca_hash,
        "source": str(choice.source or ""), "empty": ",".join(sorted(choice.empty)), "release": choice.release,
    }  # fmt: skip
    chosen = choice.server
    actions: list[Action] = []
    if safety:
        saved = {"name": SAFETY}
        reason = "what is there now is to be replaced"
        actions.append(Action(Verb.CREATE, f"snapshot/save/{SAFETY}", reason, stage=STAGE, on=safety, values=saved))

    def then(verb: Verb, key: str, reason: str, on: Node) -> None:
        after = frozenset({actions[-1].key}) if actions else frozenset[str]()
        actions.append(Action(verb, key, reason, after, stage=STAGE, on=on.name, values=values))

    where = "from this computer" if choice.source else "on its disk"
    then(Verb.CREATE, "restore/snapshot", f"{choice.snapshot} ({where}) is what etcd begins anew from", chosen)
    for node in [n for n in config.controllers if n != chosen and n.name not in choice.empty]:
        then(Verb.CHANGE, f"restore/stop/{node.name}", "no server may run while etcd begins anew", node)
    then(Verb.CHANGE, f"restore/stop/{chosen.name}", "etcd begins anew on it", chosen)
    then(
        Verb.CHANGE,
        RESET,
        f"etcd of {chosen.name} becomes what it was in {choice.snapshot}, as its only member",
        chosen,
    )
    others = [node for node in config.controllers if node != chosen and node.name not in choice.empty]
    for node in others:
        then(Verb.CHANGE, f"restore/quiet/{node.name}", "what it left running may hold the API's address", node)
    then(Verb.CHANGE, f"restore/start/{chosen.name}", "it is the cluster now", chosen)
    for node in others:
        then(Verb.CHANGE, f"restore/rejoin/{node.name}", "its etcd is of before the snapshot, so it joins anew", node)
    for node in config.workers if choice.release else ():
        then(Verb.CHANGE, f"restore/agent/{node.name}", f"no agent may be newer than {choice.release}", node)
    then(Verb.WAIT, "restore/proof", "every server must be of the same authority as before", chosen)
    return actions


def unfinished(state: Path) -> Unfinished | None:
    """The restore that an earlier run has begun and not ended. Raises StateError."""
    done, records, _ = upkeep.unfinished(state, RUN)
    began = records.get("restore/snapshot", {})
    if not began.get("began"):
        return None
    empty = frozenset(filter(None, began.get("empty", "").split(",")))
    intended = bool(records.get(RESET, {}).get("intended"))
    return Unfinished(began["began"], began.get("server", ""), empty, intended, done, records)


def going_on(state: Path, name: str) -> Unfinished | None:
    """The attempt that a restore of ``name`` goes on with. One that had not come to the reset has changed nothing that
    lasts, and begins again."""
    begun = unfinished(state)
    return begun if begun and begun.reset and begun.snapshot == name else None


def problem(state: Path) -> errors.FoError | None:
    """Why nothing else may touch the servers: etcd was reset on one, and the others still hold the old cluster."""
    begun = unfinished(state)
    if begun is None or not begun.reset:
        return None
    return errors.PreflightError(
        f"a restore of {begun.snapshot} was begun and has not ended: a server that is started now would bring the old "
        "cluster back beside it",
        fix=f"finish it: fo k3s restore {begun.snapshot}",
    )


def _holds(node: Node, seen: HostFacts) -> bool:
    held = holds_data(Present(seen), node)
    if held is None:
        raise errors.UnreachableError(
            f"whether {node.name} holds a cluster cannot be told (its disk could not be read)",
            fix="mend that host first",
        )
    return held


def _no_such(config: ClusterConfig, name: str, stored: snapshots.Stored) -> errors.FoError:
    if stored.unread:
        return errors.UnreachableError(f"whether there is a snapshot {name} cannot be told", evidence=stored.unread)
    return errors.PreflightError(
        f"there is no snapshot {name}", fix=f"fo k3s snapshot list -c {config.name} shows what there is"
    )


def _kept(config: ClusterConfig, name: str) -> escrow.Escrow | None:
    """What lies beside the off-box copy; None for a file that somebody put there without an escrow."""
    path = offbox.folder(config) / name
    return escrow.read(config, path) if escrow.beside(path).exists() else None


def _require_token(config: ClusterConfig, name: str, kept: escrow.Escrow | None, told: str, on_disk: set[str]) -> None:
    """Raises RefusedError unless the env file's token opens the snapshot, as far as anything tells."""
    token = config.k3s.token.get_secret_value()
    if kept:
        if kept.token.get_secret_value() != token:
            raise errors.RefusedError(
                f"{name} was made under another server token than the K3S_TOKEN of the env file",
                fix=f"fo k3s restore {name} --escrowed-token puts the escrowed one into the env file first",
            )
        return
    fits = told == snapshots.token_hash(token) if told else not on_disk or on_disk == {token}
    if not fits:
        raise errors.RefusedError(
            f"{name} was made under another server token than the K3S_TOKEN of the env file, and lies in no escrow",
            fix="set K3S_TOKEN to the token of its day, or choose another snapshot",
        )


def _release(config: ClusterConfig, kept: escrow.Escrow | None, running: Mapping[str, str | None]) -> str:
    """The pinned release, when it is the snapshot's and a server has another one: how a bad upgrade is taken back.

    Raises RefusedError for a snapshot of a newer K3s than the one that would read it: etcd's data cannot go back.
    """
    if kept is None:
        return ""
    if kept.version == config.k3s.version:
        return kept.version if set(running.values()) - {None, kept.version} else ""
    taken = upgrade.parse(kept.version)
    for server, version in running.items():
        reads = upgrade.parse(version or config.k3s.version)
        if taken and reads and reads < taken:
            raise errors.RefusedError(
                f"the snapshot is of K3s {kept.version}, and {server} has {version or config.k3s.version}",
                fix=f"pin {kept.version} first (fo lock update, or K3S_VERSION), then run the same command again",
            )
    return ""


def _where(
    world: World, config: ClusterConfig, found: snapshots.Snapshot, kept: escrow.Escrow | None, server: str
) -> tuple[Node, offbox.Seen | None]:
    """The server where etcd begins anew, and the snapshot there; None where it must be brought first."""
    holders = [node for node in config.controllers if node.name in found.places]
    preferred = [node for node in config.controllers if node.name == server] or holders or list(config.controllers)
    node = preferred[0]
    match offbox.look(world, node, found.name):
        case Present(seen) if kept is None or seen.sha256 == kept.sha256:
            return node, seen
        case Unreadable(why):
            raise errors.UnreachableError(f"{found.name} on {node.name} cannot be read: {why}")
    if snapshots.OFF_BOX in found.places:
        return node, None
    raise errors.PreflightError(
        f"{found.name} lies only in {', '.join(sorted(found.places))}",
        fix=f"bring the file into {offbox.folder(config)} and run the same command again",
    )


def _authority(on_disk: Mapping[str, str], kept: escrow.Escrow | None) -> str:
    """The one authority that the servers' disks and the escrow agree on."""
    found = {**on_disk, **({"the escrow": kept.ca_hash} if kept else {})}
    if not found:
        raise errors.PreflightError(
            "nothing tells which authority the snapshot's cluster has: no server holds data, and there is no escrow",
            fix="put the escrow of the copy back beside it",
        )
    if len(set(found.values())) > 1:
        told = ", ".join(f"{who} {ca_hash[:12]}…" for who, ca_hash in found.items())
        raise errors.ForeignError(
            f"the snapshot and the servers are not of one cluster: {told}",
            fix="to restore over another cluster, destroy its machines first and make them anew "
            "(fo destroy, fo bootstrap --until machines)",
        )
    return next(iter(found.values()))


def _name(kind: str, item: Mapping[str, Any]) -> str:
    meta = item["metadata"]
    where = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{kind.rpartition('/')[2]} {where}{meta['name']}"


def _made(item: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(item["metadata"].get("creationTimestamp"))).timestamp()
    except ValueError:
        return 0.0


def _owned(item: Mapping[str, Any]) -> bool:
    return bool(item["metadata"].get("ownerReferences"))


def remaining(actions: Sequence[Action], begun: Unfinished | None) -> list[Action]:
    """Without what an earlier attempt got done."""
    return upkeep.redone(actions, begun.done if begun else frozenset())
