"""Looks at the hosts for the doctor: one look for what they are, one for what they reach; and where K3s comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from funoffshore import errors, kubeconfig
from funoffshore.config import ClusterConfig, Node
from funoffshore.doctor import clusters, hosts
from funoffshore.doctor.hosts import Trouble, dark, fail
from funoffshore.findings import Finding
from funoffshore.reading import Present
from funoffshore.stages.k3s import files, sources
from funoffshore.world.ssh import FileLook, HostFacts, Look, ReplyError, parse
from funoffshore.world.world import World

_SIDE_BY_SIDE = 32
_FILES = (
    FileLook(hosts.MACHINE_ID, content=True),
    FileLook(clusters.TOKEN, content=True),
    FileLook(clusters.SQLITE),
    FileLook(clusters.AGENT_CA),
    FileLook(files.BINARY),
)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the hosts showed, and why the others did not."""

    seen: dict[str, HostFacts]
    failures: dict[str, errors.FoError]


def look(world: World, config: ClusterConfig, asked: Iterable[Node], wanted: Mapping[str, Look]) -> Sighting:
    """``wanted`` by node name; all hosts at once, each in one round trip."""
    found = Sighting({}, {})

    def one(node: Node) -> HostFacts | errors.FoError:
        try:
            before = world.clock.now()
            answer = world.hosts.call(node, {"read": wanted[node.name].request()})
            after = world.clock.now()
            facts = parse(answer, (before + after) / 2)
        except ReplyError as why:
            return errors.RefusedError(f"{node.name} answered over SSH, but with no reply of the helper ({why})")
        except errors.FoError as why:
            return why
        # Where in the round trip the host read its clock is not known, so that much of a difference is none.
        vague = (after - before) / 2
        sure = max(abs(facts.clock_skew) - vague, 0.0)
        return replace(facts, clock_skew=sure if facts.clock_skew > 0 else -sure)

    nodes = list(asked)
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="doctor-host") as pool:
        for node, answer in zip(nodes, pool.map(one, nodes), strict=True):
            if isinstance(answer, errors.FoError):
                found.failures[node.name] = answer
            else:
                found.seen[node.name] = answer
    return found


def examine(world: World, config: ClusterConfig, asked: Iterable[Node]) -> Iterator[Finding]:
    """Every finding about hosts; none where there is no host to ask yet."""
    nodes = list(asked)
    if not nodes:
        return
    base = Look(_FILES, commands=(), connect=_source(config))
    found = look(world, config, nodes, dict.fromkeys((node.name for node in nodes), base))
    unseen = len(found.failures)
    yield hosts.login(config, found.failures, found.seen)
    between = _reaching(world, config, found)
    for question in hosts.QUESTIONS:
        if between and question.id > between.id:
            yield between
            between = None
        troubles = list(question.judge(config, found.seen))
        yield hosts.finding(question.id, troubles, question.fine(config, found.seen), unseen)
    kept = kubeconfig.read(config.kubeconfig)
    authority = kept.value.ca_hash if isinstance(kept, Present) else ""
    strangers = list(clusters.belonging(config, found.seen, authority))
    yield hosts.finding("FO-DOC-034", strangers, "none carries another cluster's K3s", unseen)
    yield _supply(world, config, found)


def _reaching(world: World, config: ClusterConfig, found: Sighting) -> Finding | None:
    """None while no K3s runs anywhere: then nobody listens, and a port that is shut looks like one that is blocked."""
    wanted = {
        node.name: Look(
            (), (), commands=(), space=(), file_systems=(), connect=clusters.targets(config, found.seen, node)
        )
        for node, _ in hosts.nodes(config, found.seen)
    }
    if not any(one.connect for one in wanted.values()):
        return None
    asked = [node for node, _ in hosts.nodes(config, found.seen) if wanted[node.name].connect]
    tried = look(world, config, asked, wanted)
    troubles = list(clusters.reaching(config, found.seen, tried.seen))
    tries = sum(len(one.connect) for one in wanted.values())
    fine = f"{hosts.count(tries, 'connection')} tried; {clusters.UDP}"
    return hosts.finding("FO-DOC-032", troubles, fine, len(found.failures))


def _source(config: ClusterConfig) -> tuple[tuple[str, int], ...]:
    """Where the hosts fetch the binary; none where it is brought to them."""
    if config.k3s.folder or config.k3s.source == "push":
        return ()
    parts = urlsplit(config.k3s.download_url)
    return ((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)),)


def _supply(world: World, config: ClusterConfig, found: Sighting) -> Finding:
    """FO-DOC-035: where the hosts that lack the pinned binary get it from."""
    lacking = [(node, host) for node, host in hosts.nodes(config, found.seen) if not _has_it(config, host)]
    unseen = len(found.failures)
    if not lacking:
        return hosts.finding("FO-DOC-035", [], "all of them have it", unseen)
    kinds = sorted({host.architecture for _, host in lacking if config.k3s.digest(host.architecture)})
    if config.k3s.folder:
        troubles = [why for arch in kinds for why in folder_problems(config, config.k3s.folder, arch)]
        return hosts.finding("FO-DOC-035", troubles, f"{config.k3s.folder} holds all of it", unseen)
    if config.k3s.source == "push":
        troubles = list(_reached_from_here(world, config, kinds))
        return hosts.finding("FO-DOC-035", troubles, "this computer reaches the releases", unseen)
    ((name, port),) = _source(config)
    troubles = []
    for node, host in lacking:
        result = host.connect.get(f"{name}:{port}")
        if not isinstance(result, Present):
            troubles.append(dark(f"whether {node.name} reaches {name} could not be tried"))
        elif not result.value.open:
            said = f"{node.name} does not reach {name}:{port}: {result.value.said}"
            troubles.append(fail(said, "let it out (route, DNS, firewall), or set K3S_SOURCE=push or K3S_FOLDER"))
    return hosts.finding(
        "FO-DOC-035", troubles, f"{hosts.count(len(lacking), 'host')} can fetch it from {name}", unseen
    )


def _has_it(config: ClusterConfig, host: HostFacts) -> bool:
    there = host.file(files.BINARY)
    wanted = config.k3s.digest(host.architecture)
    return isinstance(there, Present) and bool(wanted) and there.value.sha256 == wanted


def _reached_from_here(world: World, config: ClusterConfig, kinds: Iterable[str]) -> Iterator[Trouble]:
    """By the release's small list of digests, so that nothing big is fetched for a question."""
    for arch in kinds:
        url = f"{sources.url(config, arch).rsplit('/', 1)[0]}/sha256sum-{arch}.txt"
        try:
            world.downloads.get(url)
        except errors.RefusedError:
            continue  # a mirror that keeps the binary alone answers, too
        except errors.FoError as why:
            yield fail(why.message, why.fix)


def folder_problems(config: ClusterConfig, folder: Path, arch: str) -> Iterator[Trouble]:
    """What ``folder`` lacks for hosts of ``arch``, every file read and compared."""
    wanted = [(folder / sources.asset(arch), config.k3s.digest(arch), "the digest that is pinned")]
    try:
        images = sources.images(folder, arch)
    except errors.FoError as why:
        images = []
        yield fail(why.message, why.fix)
    else:
        if not images:
            fix = f"put the release's k3s-airgap-images-{arch}.tar.zst and sha256sum-{arch}.txt there"
            yield fail(f"{folder} has no images for {arch}", fix)
    wanted += [(path, digest, f"sha256sum-{arch}.txt") for path, digest in images]
    for path, digest, by in wanted:
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as why:
            yield fail(f"{path} cannot be read: {why.strerror}", "put the release's file there")
            continue
        if found != digest:
            yield fail(f"{path} is not what {by} says: its SHA-256 is {found[:16]}…, not {digest[:16]}…",
                       "put the file of the pinned release there")  # fmt: skip
