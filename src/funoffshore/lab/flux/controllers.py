"""Flux in one simulated cluster: hears what changes, and reconciles what that concerns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from funoffshore.lab.base import Kit
from funoffshore.lab.flux import conditions, manifests
from funoffshore.lab.flux.engine import (
    CONTROLLERS,
    GIT,
    HELM_CHART,
    HELM_RELEASE,
    HELM_REPOSITORY,
    KUSTOMIZATION,
    NAMESPACE,
    OCI,
    Engine,
    key_of,
    kind_of,
)
from funoffshore.lab.flux.fetch import Checkouts
from funoffshore.lab.flux.kustomizations import Kustomizations
from funoffshore.lab.flux.operators import DEPLOYMENT, Operators
from funoffshore.lab.flux.queue import Key, Queue
from funoffshore.lab.flux.releases import Releases
from funoffshore.lab.flux.sources import Sources
from funoffshore.lab.kube.api import Cluster, Object

_THREADS = 3
_SOURCES = (GIT, OCI, HELM_REPOSITORY, HELM_CHART)


class Flux:
    """Acts on a kind only while its controller's Deployment in ``flux-system`` is available.

    Fetched repositories live below ``kit.directory/"flux"``; all else is in the cluster, so that a Flux made anew
    goes on where the last one was killed.
    """

    def __init__(self, kit: Kit, cluster: Cluster) -> None:
        checkouts = Checkouts(kit.directory / "flux", kit.directory / "routes.json")
        self._kit = kit
        self._cluster = cluster
        self._queue = Queue(kit.clock, self._work, _THREADS)
        self._engine = Engine(kit, cluster, self._queue, checkouts)
        self._kustomizations = Kustomizations(self._engine)
        self._releases = Releases(self._engine)
        self._operators = Operators(self._engine)
        sources = Sources(self._engine)
        self._reconcilers: dict[str, Callable[[Key], None]] = dict.fromkeys(_SOURCES, sources.reconcile)
        self._reconcilers[KUSTOMIZATION] = self._kustomizations.reconcile
        self._reconcilers[HELM_RELEASE] = self._releases.reconcile
        self._lock = threading.Lock()
        self._available: set[str] = set()
        self._seen: dict[Key, tuple[object, ...]] = {}
        self._stopped = False

    def start(self) -> None:
        """Returns at once; work goes on in threads of its own."""
        self._queue.start()
        self._cluster.subscribe(self._hear)
        for deployment in self._cluster.list(DEPLOYMENT, NAMESPACE):
            self._notice_controller("ADDED", deployment)
        for deployment in self._cluster.list(DEPLOYMENT):
            self._enqueue(self._operators.concerned(DEPLOYMENT, deployment), delay=False)

    def stop(self) -> None:
        """Returns once no thread of Flux acts any more."""
        self._stopped = True
        self._queue.stop()

    def _work(self, key: Key) -> None:
        if key[0] not in self._reconcilers:
            self._operators.reconcile(key)
            return
        with self._lock:
            runs = CONTROLLERS[key[0]] in self._available
        if runs:
            self._reconcilers[key[0]](key)

    def _hear(self, event: str, obj: Object) -> None:
        if self._stopped:
            return
        kind = kind_of(obj)
        if kind == DEPLOYMENT and obj["metadata"].get("namespace") == NAMESPACE:
            self._notice_controller(event, obj)
        if kind in CONTROLLERS:
            self._notice_own(event, obj)
        if kind in ("v1/ConfigMap", "v1/Secret") and manifests.watched(obj):
            self._enqueue(self._users(obj))
        key = key_of(obj)
        waiting = [*self._kustomizations.waits.concerned(key), *self._releases.waits.concerned(key)]
        self._enqueue(waiting, delay=False)
        if event != "DELETED":
            self._enqueue(self._operators.concerned(kind, obj))

    def _enqueue(self, keys: list[Key], *, delay: bool = True) -> None:
        for key in keys:
            if delay and self._kit.latencies.reconcile:
                self._queue.nudge(self._kit.latencies.reconcile, key)
            else:
                self._queue.soon(key)

    def _notice_controller(self, event: str, deployment: Object) -> None:
        """When a controller becomes available, all that is its is looked at."""
        name = deployment["metadata"]["name"]
        runs = event != "DELETED" and conditions.is_true(deployment, "Available")
        with self._lock:
            woke = runs and name not in self._available
            (self._available.add if runs else self._available.discard)(name)
        if woke:
            for kind in (k for k, controller in CONTROLLERS.items() if controller == name):
                if self._cluster.known(kind):
                    self._enqueue([key_of(o) for o in self._cluster.list(kind)])

    def _notice_own(self, event: str, obj: Object) -> None:
        """Reconciles an object when it was changed from outside, and its users when its outcome has changed."""
        key, metadata = key_of(obj), obj["metadata"]
        wish = (metadata.get("generation"), metadata.get("deletionTimestamp") is None,
                (metadata.get("annotations") or {}).get(conditions.REQUESTED))  # fmt: skip
        status = obj.get("status") or {}
        ready = conditions.find(obj, "Ready") or {}
        outcome = ((status.get("artifact") or {}).get("revision"), ready.get("status"), ready.get("observedGeneration"),
                   status.get("lastAppliedRevision"), status.get("observedGeneration"))  # fmt: skip
        with self._lock:
            old = self._seen.get(key, ((), ()))
            self._seen[key] = (wish, outcome)
            if event == "DELETED":
                self._seen.pop(key, None)
        if old[0] != wish and event != "DELETED":
            self._enqueue([key])
        broke = kind_of(obj) in _SOURCES and ready.get("status") == "False" and "artifact" in status
        if old[1] != outcome and not broke:  # a source that breaks concerns nobody while it has what it had
            self._enqueue([*self._dependents(key)])

    def _dependents(self, key: Key) -> Iterator[Key]:
        """Who refers to the object as source, chart or dependency."""
        kind = key[0].rsplit("/", 1)[1]
        for user in (KUSTOMIZATION, HELM_RELEASE, HELM_CHART):
            if self._cluster.known(user):
                for obj in self._cluster.list(user):
                    if (kind, key[1], key[2]) in _needs(obj):
                        yield key_of(obj)

    def _users(self, config: Object) -> list[Key]:
        """Kustomizations and HelmReleases that read a ConfigMap or Secret."""
        kind, name, namespace = config["kind"], config["metadata"]["name"], config["metadata"].get("namespace")
        found = []
        for user in (KUSTOMIZATION, HELM_RELEASE):
            for obj in self._cluster.list(user, namespace) if self._cluster.known(user) else ():
                spec = obj["spec"]
                refs = [*((spec.get("postBuild") or {}).get("substituteFrom") or []), *(spec.get("valuesFrom") or [])]
                if any((r["kind"], r["name"]) == (kind, name) for r in refs):
                    found.append(key_of(obj))
        return found


def _needs(obj: Object) -> set[tuple[str, str, str]]:
    """Kind, namespace and name of everything that ``obj`` waits for."""
    spec, namespace = obj["spec"], obj["metadata"]["namespace"]
    refs = [spec.get("sourceRef"), spec.get("chartRef")]
    found = {(r["kind"], r.get("namespace") or namespace, r["name"]) for r in refs if r}
    for ref in spec.get("dependsOn") or []:
        found.add((obj["kind"], ref.get("namespace") or namespace, ref["name"]))
    if spec.get("chart") and isinstance(spec["chart"], dict):
        source = spec["chart"]["spec"]["sourceRef"]
        where = source.get("namespace") or namespace
        found.add(("HelmChart", where, f"{namespace}-{obj['metadata']['name']}"))
    return found
