"""What a check is, and the one sight that all checks of a postcheck share: one list call per kind, not per object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from funoffshore import health
from funoffshore.checks import hosts as host_looks
from funoffshore.config import ClusterConfig, Node
from funoffshore.findings import Finding, Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.ssh import HostFacts
from funoffshore.world.world import World

Object = dict[str, Any]

NODE = "v1/Node"
SECRET = "v1/Secret"  # noqa: S105 - a kind of object, not a secret
CONFIG_MAP = "v1/ConfigMap"
PVC = "v1/PersistentVolumeClaim"
DEPLOYMENT = "apps/v1/Deployment"
STATEFUL_SET = "apps/v1/StatefulSet"
DAEMON_SET = "apps/v1/DaemonSet"
JOB = "batch/v1/Job"
GIT_REPOSITORY = "source.toolkit.fluxcd.io/v1/GitRepository"
OCI_REPOSITORY = "source.toolkit.fluxcd.io/v1/OCIRepository"
HELM_REPOSITORY = "source.toolkit.fluxcd.io/v1/HelmRepository"
KUSTOMIZATION = "kustomize.toolkit.fluxcd.io/v1/Kustomization"
HELM_RELEASE = "helm.toolkit.fluxcd.io/v2/HelmRelease"
CERTIFICATE = "cert-manager.io/v1/Certificate"
CLUSTER_ISSUER = "cert-manager.io/v1/ClusterIssuer"
ISSUER = "cert-manager.io/v1/Issuer"
ETCD_SNAPSHOT = "k3s.cattle.io/v1/ETCDSnapshotFile"

EVERY_KIND = (
    NODE, SECRET, CONFIG_MAP, PVC, DEPLOYMENT, STATEFUL_SET, DAEMON_SET, JOB, GIT_REPOSITORY, OCI_REPOSITORY,
    HELM_REPOSITORY, KUSTOMIZATION, HELM_RELEASE, CERTIFICATE, CLUSTER_ISSUER, ISSUER, ETCD_SNAPSHOT,
)  # fmt: skip


class Sight:
    """The cluster and its repository, each thing read once for all checks."""

    def __init__(self, world: World, config: ClusterConfig) -> None:
        self.world = world
        self.config = config
        self._lock = threading.Lock()
        self._lists: dict[str, Reading[list[Object]]] = {}
        self._once: dict[str, Reading[Any]] = {}
        self._looking = threading.Lock()
        self._hosts: Mapping[str, Reading[HostFacts]] | None = None

    def fetch(self, kinds: Iterable[str] = EVERY_KIND) -> None:
        """Lists ``kinds`` and looks at the hosts side by side, so that the checks need not wait for one another."""
        with ThreadPoolExecutor(8, thread_name_prefix="sight") as pool:
            hosts = pool.submit(self.hosts)
            list(pool.map(self.list, kinds))
            hosts.result()

    def hosts(self) -> Mapping[str, Reading[HostFacts]]:
        """What every configured host shows, by name: one round trip to each for all checks together."""
        with self._looking:
            if self._hosts is None:
                self._hosts = host_looks.look(self.world, self.config)
            return self._hosts

    def host(self, node: Node) -> Reading[HostFacts]:
        """What ``node`` shows."""
        return self.hosts()[node.name]

    def list(self, kind: str) -> Reading[list[Object]]:
        """Every object of ``kind``; Absent when the cluster does not know the kind."""
        with self._lock:
            if kind in self._lists:
                return self._lists[kind]
        reading = self.world.kube.list(kind)
        with self._lock:
            return self._lists.setdefault(kind, reading)

    def head(self) -> Reading[str]:
        """The commit that the operator sees."""
        return self._read("head", self.world.repo.head)

    def remote_head(self) -> Reading[str]:
        """The commit that Flux's branch is at."""
        return self._read("remote", self.world.repo.remote_head)

    def files(self) -> Reading[dict[str, bytes]]:
        """The files of ``infra/k8s`` at the operator's commit, by path from the repository's root."""
        match self.head():
            case Present(commit):
                return self._read("files", lambda: self.world.repo.files(commit, "infra/k8s"))
            case other:
                return other

    def cluster_uid(self) -> Reading[str]:
        """UID of the namespace kube-system."""
        return self._read("uid", self.world.kube.cluster_uid)

    def _read(self, name: str, read: Callable[[], Reading[Any]]) -> Reading[Any]:
        if name not in self._once:
            self._once[name] = read()
        return self._once[name]


@dataclass(frozen=True, slots=True)
class Check:
    """A question to the cluster. ``look`` never raises for what it sees, only for a bug."""

    id: str
    title: str
    """Completes "waiting for …"."""
    look: Callable[[Sight], tuple[Outcome, str, tuple[str, ...], str]]
    """Outcome, what was seen, evidence lines, and what to do about it."""

    def ask(self, sight: Sight) -> Finding:
        """The finding; a check that breaks is *unknown*, never *fine*."""
        try:
            outcome, said, evidence, fix = self.look(sight)
        except Exception as why:
            outcome, said, evidence, fix = (
                Outcome.UNKNOWN,
                f"the check itself broke: {type(why).__name__}: {why}",
                (),
                "",
            )
        return Finding(self.id, self.title, outcome, said, evidence, fix)


Answer = tuple[Outcome, str, tuple[str, ...], str]


def passed(said: str, *evidence: str) -> Answer:
    return Outcome.PASS, said, evidence, ""


def warned(said: str, *evidence: str, fix: str = "") -> Answer:
    return Outcome.WARN, said, evidence, fix


def failed(said: str, *evidence: str, fix: str = "") -> Answer:
    return Outcome.FAIL, said, evidence, fix


def unknown(why: str) -> Answer:
    return Outcome.UNKNOWN, f"cannot tell, because {why}", (), ""


def name_of(obj: Object) -> str:
    """``namespace/name``, or the name alone for what lives in no namespace."""
    meta = obj.get("metadata", {})
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta.get("name"))


def judge(reading: Reading[list[Object]], things: str, *, at_least: int = 0, fix: str = "") -> Answer:
    """Whether all objects of a list are ready. An unknown kind counts as a list of none."""
    match reading:
        case Unreadable(why):
            return unknown(why)
        case Absent():
            objects: list[Object] = []
        case Present(objects):
            pass
    if len(objects) < at_least:
        return failed(f"there are {len(objects)} {things}, expected at least {at_least}", fix=fix)
    bad, dark = [], []
    for obj in objects:
        state = health.assess(obj)
        line = f"{name_of(obj)}: {state.state.value}: {state.reason} {state.message}".strip()
        if state.state is health.State.UNKNOWN:
            dark.append(line)
        elif state.state is not health.State.READY:
            bad.append(line)
    if bad:
        return failed(f"{len(bad)} of {len(objects)} {things} are not ready", *bad, *dark, fix=fix)
    if dark:
        return Outcome.UNKNOWN, f"{len(dark)} of {len(objects)} {things} do not say how they are", tuple(dark), fix
    return passed(f"all {len(objects)} {things} are ready")
