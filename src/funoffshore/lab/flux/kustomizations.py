"""kustomize-controller: build, apply, prune, wait for health, and say all of it in conditions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from funoffshore.lab.flux import applier, conditions, kstatus, manifests, waits
from funoffshore.lab.flux.applier import KSA, ApplyError
from funoffshore.lab.flux.engine import KUSTOMIZATION, Engine, key_of, source_kind
from funoffshore.lab.flux.fetch import FetchError
from funoffshore.lab.flux.kustomize import BuildError, Object
from funoffshore.lab.flux.queue import Key

MANAGER = "kustomize-controller"
_LEAST_TIMEOUT = 30.0
"""Seen on a real controller: a health check took 30 s although the spec said 10 s."""
_RESOURCES = {"GitRepository": "gitrepositories", "OCIRepository": "ocirepositories", "Bucket": "buckets"}
_DEPENDENCY_SECONDS = 5.0


class NotReadyError(Exception):
    """What a Kustomization depends on is not ready yet."""


class Kustomizations:
    """Reconciles Kustomizations. Never blocks: a health check under way is a ``waits.Wait``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.waits = waits.Waits()

    def reconcile(self, key: Key) -> None:
        obj = self._engine.get(key)
        if obj is None:
            self.waits.end(key)
            return
        if obj["metadata"].get("deletionTimestamp"):
            self._delete(key, obj)
            return
        self._engine.finalize(obj)
        if obj["spec"].get("suspend"):
            self.waits.end(key)
            self._engine.write(key, _suspended)
            return
        artifact = self._artifact(key, obj)
        if artifact is None:
            return
        inputs = self._inputs(obj, artifact["revision"])
        wait = self.waits.get(key)
        if wait is not None and wait.inputs[0] == inputs[0]:
            self._look(key, obj, wait)
            if wait.inputs != inputs and self.waits.get(key) is None:
                self._engine.queue.soon(key)  # what came meanwhile: by default Flux ends no check for it
        else:
            self.waits.end(key)
            self._run(key, obj, artifact["revision"], inputs)

    def _inputs(self, obj: Object, revision: str) -> tuple[object, ...]:
        annotations = obj["metadata"].get("annotations") or {}
        return obj["metadata"].get("generation"), revision, annotations.get(conditions.REQUESTED)

    def _delete(self, key: Key, obj: Object) -> None:
        self.waits.end(key)
        if obj["spec"].get("prune") and not obj["spec"].get("suspend"):
            applier.prune(self._engine, _inventory(obj), [], _owned_by(obj))
        self._engine.release(key)

    def _artifact(self, key: Key, obj: Object) -> Object | None:
        """The artifact of the source; says why there is none."""
        ref = obj["spec"]["sourceRef"]
        namespace = ref.get("namespace") or key[1]
        source = self._engine.cluster.get(source_kind(ref["kind"]), namespace, ref["name"])
        if source is None:
            resource = _RESOURCES.get(ref["kind"], ref["kind"].lower())
            message = f'{resource}.source.toolkit.fluxcd.io "{ref["name"]}" not found'
        else:
            artifact: Object | None = (source.get("status") or {}).get("artifact")
            if artifact is not None:
                return artifact
            message = "Source is not ready, artifact not found"
        self._write_failure(key, "", "ArtifactFailed", message, retrying=False)
        self._engine.queue.later(conditions.seconds(obj["spec"].get("retryInterval"), 30), key)
        return None

    def _run(self, key: Key, obj: Object, revision: str, inputs: tuple[object, ...]) -> None:
        try:
            self._check_dependencies(obj, revision)
        except NotReadyError as why:
            self._write_failure(key, "", "DependencyNotReady", str(why), retrying=False)
            self._engine.queue.later(_DEPENDENCY_SECONDS, key)
            return
        started = self._engine.now()
        doing, reason = "Building manifests", "BuildFailed"
        try:
            objects = self._build(obj, revision)
            doing, reason = "Detecting drift", "ReconciliationFailed"
            manifests.normalize(objects)
            forced = functools.partial(_forced, obj)
            applied = applier.apply_all(self._engine, objects, MANAGER, self._adjust, forced)
        except (BuildError, ApplyError, FetchError) as why:
            if isinstance(why, BuildError) and why.args[0].startswith("kustomization path not found"):
                reason = "ArtifactFailed"
            sentence = f"{doing} for revision {revision} with a timeout of {_timeout_text(obj)}"
            self._write_failure(key, revision, reason, str(why), sentence=sentence)
            self._retry(key, obj)
            return
        inventory = [applier.entry(o) for o in applied]
        if obj["spec"].get("prune"):
            applier.prune(self._engine, _inventory(obj), inventory, _owned_by(obj))
        targets = self._targets(obj, applied)
        if targets:
            self._begin(key, obj, revision, inputs, inventory, targets, started)
        else:
            self._succeed(key, revision, inventory, "")
            self._engine.queue.later(conditions.seconds(obj["spec"]["interval"], 600), key)

    def _build(self, obj: Object, revision: str) -> list[Object]:
        ref = obj["spec"]["sourceRef"]
        name = f"{ref.get('namespace') or obj['metadata']['namespace']}_{ref['name']}"
        if ref["kind"] != "GitRepository":
            raise BuildError(f"the lab has no content for {ref['kind']} {ref['name']}")
        files = self._engine.checkouts.files(name, revision.rpartition(":")[2])
        path = str(obj["spec"].get("path") or "./").removeprefix("./").strip("/")
        if path and path != "." and not any(f.startswith(f"{path}/") for f in files):
            raise BuildError(
                f"kustomization path not found: stat /data/kustomization/{path}: no such file or directory"
            )
        return manifests.render(self._engine, obj, files)

    def _adjust(self, there: Object) -> bool:
        marks = {**(there["metadata"].get("labels") or {}), **(there["metadata"].get("annotations") or {})}
        if marks.get(f"{KSA}/ssa") in ("Ignore", "IfNotPresent") or marks.get(f"{KSA}/reconcile") == "disabled":
            return False
        applier.adopt(self._engine, there, MANAGER)
        return True

    def _check_dependencies(self, obj: Object, revision: str) -> None:
        own = obj["spec"]["sourceRef"]
        namespace = obj["metadata"]["namespace"]
        for ref in obj["spec"].get("dependsOn") or []:
            name = f"{ref.get('namespace') or namespace}/{ref['name']}"
            other = self._engine.cluster.get(KUSTOMIZATION, ref.get("namespace") or namespace, ref["name"])
            if other is None:
                resource = f'kustomizations.kustomize.toolkit.fluxcd.io "{ref["name"]}" not found'
                raise NotReadyError(f"unable to get '{name}' dependency: {resource}")
            ready = conditions.find(other, "Ready")
            generation = other["metadata"].get("generation")
            if not ready or ready["status"] != "True" or ready.get("observedGeneration") != generation:
                raise NotReadyError(f"dependency '{name}' is not ready")
            theirs = other["spec"]["sourceRef"]
            same = all(own.get(k) == theirs.get(k) for k in ("kind", "name", "namespace"))
            if same and other["status"].get("lastAppliedRevision") != revision:
                raise NotReadyError(f"dependency '{name}' revision is not up to date")

    def _targets(self, obj: Object, applied: list[Object]) -> tuple[Key, ...]:
        spec = obj["spec"]
        if spec.get("wait"):
            return tuple(key_of(o) for o in applied)
        namespace = obj["metadata"]["namespace"]
        checks = spec.get("healthChecks") or []
        return tuple(
            (f"{c.get('apiVersion', 'v1')}/{c['kind']}", c.get("namespace") or namespace, c["name"]) for c in checks
        )

    def _begin(
        self, key: Key, obj: Object, revision: str, inputs: tuple[object, ...], inventory: list[Object],
        targets: tuple[Key, ...], started: float,
    ) -> None:  # fmt: skip
        timeout = max(conditions.seconds(obj["spec"].get("timeout") or obj["spec"]["interval"], 600), _LEAST_TIMEOUT)
        now = self._engine.now()
        wait = waits.Wait(inputs, targets, now, now + timeout, timeout, {"revision": revision})
        self.waits.begin(key, wait)
        if self._outcome(obj, wait).healthy:
            self._look(key, obj, wait, inventory)
            return
        sentence = f"Running health checks for revision {revision} with a timeout of {_timeout_text(obj)}"

        def change(status: conditions.Status, _: Object) -> None:
            status.set("Reconciling", "True", "Progressing", sentence)
            status.set("Ready", "Unknown", "Progressing", "Reconciliation in progress")
            status.set("Healthy", "Unknown", "Progressing", sentence)
            status.fields["lastAttemptedRevision"] = revision
            status.fields["inventory"] = {"entries": inventory}

        self._engine.write(key, change)
        self._engine.queue.later(timeout, key)

    def _outcome(self, obj: Object, wait: waits.Wait) -> waits.Outcome:
        rules = obj["spec"].get("healthCheckExprs") or []
        judge = (lambda target: kstatus.by_expression(target, rules)) if rules else kstatus.status
        return waits.look(wait, self._engine.get, judge)

    def _look(self, key: Key, obj: Object, wait: waits.Wait, inventory: list[Object] | None = None) -> None:
        outcome = self._outcome(obj, wait)
        now = self._engine.now()
        took = conditions.go_duration(now - wait.started)
        revision = wait.detail["revision"]
        if outcome.healthy:
            self.waits.end(key)
            self._succeed(key, revision, inventory, f"Health check passed in {took}")
            self._engine.queue.later(conditions.seconds(obj["spec"]["interval"], 600), key)
            return
        if not outcome.failed and now < wait.deadline:
            self._engine.queue.later(max(wait.deadline - now, 0.01), key)
            return
        self.waits.end(key)
        cause = f"timeout waiting for: [{', '.join((*outcome.failed, *outcome.pending))}]"
        if outcome.failed:
            cause = f"failed early due to stalled resources: [{', '.join(outcome.failed)}]"
        sentence = f"Running health checks for revision {revision} with a timeout of {_timeout_text(obj)}"
        message = f"health check failed after {took}: {cause}"
        self._write_failure(key, revision, "HealthCheckFailed", message, sentence=sentence, unhealthy=cause)
        self._retry(key, obj)

    def _retry(self, key: Key, obj: Object) -> None:
        spec = obj["spec"]
        self._engine.queue.later(conditions.seconds(spec.get("retryInterval") or spec["interval"], 600), key)

    def _succeed(self, key: Key, revision: str, inventory: list[Object] | None, healthy: str) -> None:
        def change(status: conditions.Status, obj: Object) -> None:
            status.handled(obj)
            status.observed()
            status.drop("Reconciling", "Stalled")
            status.set("Ready", "True", "ReconciliationSucceeded", f"Applied revision: {revision}")
            if healthy:
                status.set("Healthy", "True", "Succeeded", healthy)
            else:
                status.drop("Healthy")
            if inventory is not None:
                status.fields["inventory"] = {"entries": inventory}
            status.fields |= {"lastAppliedRevision": revision, "lastAttemptedRevision": revision}
            _remember(status.fields, revision, "ReconciliationSucceeded", self._engine.now())

        self._engine.write(key, change)

    def _write_failure(
        self, key: Key, revision: str, reason: str, message: str,
        *, sentence: str = "", unhealthy: str = "", retrying: bool = True,
    ) -> None:  # fmt: skip
        """``observedGeneration`` and ``lastAppliedRevision`` stay, as on a real controller."""

        def change(status: conditions.Status, obj: Object) -> None:
            status.handled(obj)
            if retrying:
                status.set("Reconciling", "True", "ProgressingWithRetry", sentence)
            else:
                status.drop("Reconciling")
            status.set("Ready", "False", reason, message)
            if unhealthy:
                status.set("Healthy", "False", "HealthCheckFailed", unhealthy)
            if revision:
                status.fields["lastAttemptedRevision"] = revision
                if reason != "BuildFailed":
                    _remember(status.fields, revision, reason, self._engine.now())

        self._engine.write(key, change)


def _forced(obj: Object, applied: Object) -> bool:
    marks = {**(applied["metadata"].get("labels") or {}), **(applied["metadata"].get("annotations") or {})}
    return bool(obj["spec"].get("force")) or str(marks.get(f"{KSA}/force")).lower() == "enabled"


def _suspended(status: conditions.Status, obj: Object) -> None:
    """Only what was ready before counts as observed."""
    status.handled(obj)
    if conditions.is_true(obj):
        status.observed()


def _timeout_text(obj: Object) -> str:
    wanted = conditions.seconds(obj["spec"].get("timeout") or obj["spec"]["interval"], 600)
    return conditions.go_duration(max(wanted, _LEAST_TIMEOUT))


def _inventory(obj: Object) -> list[Object]:
    entries = ((obj.get("status") or {}).get("inventory") or {}).get("entries") or []
    return [dict(e) for e in entries]


def _owned_by(obj: Object) -> Callable[[Object], bool]:
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]

    def owned(there: Object) -> bool:
        labels = there["metadata"].get("labels") or {}
        return bool(labels.get(f"{KSA}/name") == name and labels.get(f"{KSA}/namespace") == namespace)

    return owned


def _remember(fields: Object, revision: str, outcome: str, now: float) -> None:
    """The last five snapshots, newest first."""
    history: list[Any] = [dict(h) for h in fields.get("history") or []]
    digest = conditions.digest([revision, outcome])
    old = next((h for h in history if h["digest"] == digest), None)
    entry = {
        "digest": digest,
        "firstReconciled": old["firstReconciled"] if old else conditions.stamp(now),
        "lastReconciled": conditions.stamp(now),
        "lastReconciledDuration": "100ms",
        "lastReconciledStatus": outcome,
        "metadata": {"revision": revision},
        "totalReconciliations": (old["totalReconciliations"] if old else 0) + 1,
    }
    fields["history"] = [entry, *(h for h in history if h["digest"] != digest)][:5]
