"""helm-controller: resolves a chart, applies what it would install, waits for it, and keeps Helm's history."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.flux import applier, charts, conditions, release_status, waits
from funoffshore.lab.flux.applier import ApplyError
from funoffshore.lab.flux.chart_objects import Release
from funoffshore.lab.flux.engine import Engine, key_of
from funoffshore.lab.flux.kustomize import Object
from funoffshore.lab.flux.queue import Key
from funoffshore.lab.flux.release_inputs import BlockedError, release_name, resolve
from funoffshore.lab.kube.api import ApiError

MANAGER = "helm-controller"
_DEPENDENCY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One install or upgrade."""

    release: Release
    action: str
    """``install`` or ``upgrade``."""
    number: int
    """Helm's revision of the release."""
    config: str
    """Digest of the values."""

    @property
    def chart(self) -> str:
        return f"{self.release.chart}@{self.release.version}"

    @property
    def place(self) -> str:
        return f"{self.release.namespace}/{self.release.name}"


class Releases:
    """Reconciles HelmReleases. Never blocks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.waits = waits.Waits()
        self._attempts: dict[Key, _Attempt] = {}

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
        try:
            release = resolve(self._engine, key, obj)
        except BlockedError as why:
            self._block(key, why)
            return
        config = conditions.digest(release.values)
        inputs = (release.version, config, obj["metadata"].get("generation"), _asked(obj))
        wait = self.waits.get(key)
        if wait is not None and wait.inputs == inputs:
            self._look(key, obj, wait)
            return
        self.waits.end(key)
        if release_status.is_deployed(obj, release.version, config) and not _forced(obj):
            self._settle(key, obj, release, config)
        elif not release_status.is_stalled(obj, release.version, config):
            self._run(key, obj, release, config, inputs)

    def _block(self, key: Key, why: BlockedError) -> None:
        def change(status: conditions.Status, obj: Object) -> None:
            status.handled(obj)
            status.set("Ready", "False", why.reason, str(why))
            status.set("Reconciling", "True", "Progressing", "Fulfilling prerequisites")

        self._engine.write(key, change)
        self._engine.queue.later(_DEPENDENCY_SECONDS, key)

    def _delete(self, key: Key, obj: Object) -> None:
        """Uninstalls: all but CRDs, which Helm leaves."""
        self.waits.end(key)
        entries = ((obj.get("status") or {}).get("inventory") or {}).get("entries") or []
        old = [e for e in entries if not str(e["id"]).endswith("_CustomResourceDefinition")]
        if not obj["spec"].get("suspend"):
            applier.prune(self._engine, old, [], lambda there: _owned(there, key))
            self._forget_secrets(obj)
        self._engine.release(key)

    def _forget_secrets(self, obj: Object) -> None:
        namespace = (obj.get("status") or {}).get("storageNamespace") or obj["metadata"]["namespace"]
        for secret in self._engine.cluster.list("v1/Secret", namespace):
            labels = secret["metadata"].get("labels") or {}
            if labels.get("owner") == "helm" and labels.get("name") == release_name(obj):
                self._engine.cluster.delete("v1/Secret", namespace, secret["metadata"]["name"])

    # Installing

    def _run(self, key: Key, obj: Object, release: Release, config: str, inputs: tuple[object, ...]) -> None:
        history = (obj.get("status") or {}).get("history") or []
        number = max((h.get("version", 0) for h in history), default=0) + 1
        attempt = _Attempt(release, release_status.next_action(obj), number, config)
        self._attempts[key] = attempt
        try:
            applied = self._apply(obj, attempt)
        except (ApplyError, ApiError) as why:
            self._fail(key, obj, attempt, str(why).rstrip("\n"), 0.0)
            return
        timeout = conditions.seconds(obj["spec"].get("timeout"), 300)
        now = self._engine.now()
        action = obj["spec"].get(attempt.action) or {}
        targets = () if action.get("disableWait") else tuple(key_of(o) for o in applied)
        wait = waits.Wait(inputs, targets, now, now + timeout, timeout)
        inventory = [applier.entry(o) for o in applied]
        old = ((obj.get("status") or {}).get("inventory") or {}).get("entries") or []
        applier.prune(self._engine, old, inventory, lambda there: _owned(there, key))
        self.waits.begin(key, wait)

        def change(status: conditions.Status, _: Object) -> None:
            sentence = f"Running '{attempt.action}' action with timeout of {conditions.go_duration(timeout)}"
            status.set("Reconciling", "True", "Progressing", sentence)
            if (status.fields.get("failures") or 0) == 0:
                status.set("Ready", "Unknown", "Progressing", sentence)
            status.fields["inventory"] = {"entries": inventory}
            status.fields["storageNamespace"] = obj["spec"].get("storageNamespace") or obj["metadata"]["namespace"]
            if obj["spec"].get("chart"):
                namespace = obj["spec"]["chart"]["spec"]["sourceRef"].get("namespace") or key[1]
                status.fields["helmChart"] = f"{namespace}/{key[1]}-{key[2]}"

        self._engine.write(key, change)
        self._look(key, obj, wait)

    def _apply(self, obj: Object, attempt: _Attempt) -> list[Object]:
        """What the chart would install. Raises ApplyError in Helm's words."""
        release = attempt.release
        spec = obj["spec"].get(attempt.action) or {}
        if self._engine.cluster.get("v1/Namespace", "", release.namespace) is None:
            if not spec.get("createNamespace"):
                raise ApplyError(f'create: failed to create: namespaces "{release.namespace}" not found')
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": release.namespace}}
            self._engine.cluster.apply(made, MANAGER)
        found = charts.definitions(release.chart, release.values)
        for crd in found:
            crd["metadata"]["labels"] = {
                "helm.toolkit.fluxcd.io/name": release.owner[1],
                "helm.toolkit.fluxcd.io/namespace": release.owner[0],
            }
        others = charts.objects(release)
        brought = {(c["spec"]["group"], c["spec"]["names"]["kind"]) for c in found}
        for other in others:
            kind = (str(other["apiVersion"]).rpartition("/")[0], other["kind"])
            if kind not in brought and not self._engine.cluster.known(f"{other['apiVersion']}/{other['kind']}"):
                name, namespace = other["metadata"]["name"], other["metadata"].get("namespace", "")
                raise ApplyError(
                    "unable to build kubernetes objects from release manifest: resource mapping not found for name: "
                    f'"{name}" namespace: "{namespace}" from "": no matches for kind "{other["kind"]}" in version '
                    f'"{other["apiVersion"]}"\nensure CRDs are installed first'
                )
        return applier.apply_all(self._engine, [*found, *others], MANAGER, lambda there: True)

    def _look(self, key: Key, obj: Object, wait: waits.Wait) -> None:
        outcome = waits.look(wait, self._engine.get)
        attempt = self._attempts[key]
        now = self._engine.now()
        if outcome.healthy:
            self.waits.end(key)
            self._succeed(key, obj, attempt, now - wait.started)
        elif outcome.failed or now >= wait.deadline:
            self.waits.end(key)
            words = ", ".join((*outcome.failed, *outcome.pending))
            self._fail(key, obj, attempt, f"timeout waiting for: [{words}]", now - wait.started)
        else:
            self._engine.queue.later(max(wait.deadline - now, 0.01), key)

    def _succeed(self, key: Key, obj: Object, attempt: _Attempt, took: float) -> None:
        reason = f"{attempt.action.capitalize()}Succeeded"
        message = (
            f"Helm {attempt.action} succeeded for release {attempt.place}.v{attempt.number} with chart {attempt.chart}"
        )
        self._write_attempt(key, attempt, reason, message, took, done=True)
        self._store_secret(obj, attempt)
        self._engine.queue.later(conditions.seconds(obj["spec"]["interval"], 600), key)

    def _fail(self, key: Key, obj: Object, attempt: _Attempt, cause: str, took: float) -> None:
        reason = f"{attempt.action.capitalize()}Failed"
        message = f"Helm {attempt.action} failed for release {attempt.place} with chart {attempt.chart}: {cause}"
        stall = release_status.stalls(obj, attempt.action)
        self._write_attempt(key, attempt, reason, message, took, done=False, stall=stall)
        if not stall:
            self._engine.queue.later(release_status.retry_seconds(obj, attempt.action), key)

    def _write_attempt(
        self, key: Key, attempt: _Attempt, reason: str, message: str, took: float, *, done: bool, stall: bool = False
    ) -> None:
        now = conditions.stamp(self._engine.now())

        def change(status: conditions.Status, obj: Object) -> None:
            status.handled(obj)
            status.observed()
            status.drop("Reconciling", "Stalled")
            status.set("Ready", "True" if done else "False", reason, message)
            status.set("Released", "True" if done else "False", reason, message)
            failures = 0 if done else (status.fields.get("failures") or 0) + 1
            if stall:
                words = f"Failed to {attempt.action} after {failures} attempt(s)"
                status.set("Stalled", "True", "RetriesExceeded", words)
            elif not done:
                status.set("Reconciling", "True", "ProgressingWithRetry", message)
            release_status.count(status.fields, attempt.action, failures)
            entry = release_status.entry(attempt.release, attempt.action, attempt.number, attempt.config, now, done)
            release_status.remember(status.fields, entry, obj["metadata"].get("generation", 1), took)

        self._engine.write(key, change)

    def _store_secret(self, obj: Object, attempt: _Attempt) -> None:
        """Helm's own record of the release; its content stays opaque."""
        namespace = obj["spec"].get("storageNamespace") or obj["metadata"]["namespace"]
        labels = {"name": attempt.release.name, "owner": "helm", "status": "deployed", "version": str(attempt.number)}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "helm.sh/release.v1",
            "metadata": {
                "name": f"sh.helm.release.v1.{attempt.release.name}.v{attempt.number}",
                "namespace": namespace,
                "labels": labels,
            },
            "data": {"release": base64.b64encode(attempt.chart.encode()).decode()},
        }
        self._engine.cluster.apply(secret, MANAGER)

    def _settle(self, key: Key, obj: Object, release: Release, config: str) -> None:
        """Nothing to install: only says so where the status lags behind."""
        entry = obj["status"]["history"][0]
        verb = entry.get("action") or "install"

        def change(status: conditions.Status, now: Object) -> None:
            status.handled(now)
            status.observed()
            status.drop("Reconciling", "Stalled")
            message = (
                f"Helm {verb} succeeded for release {release.namespace}/{release.name}.v{entry['version']} "
                f"with chart {release.chart}@{release.version}"
            )
            status.set("Ready", "True", f"{verb.capitalize()}Succeeded", message)

        self._engine.write(key, change)
        self._engine.queue.later(conditions.seconds(obj["spec"]["interval"], 600), key)


def _suspended(status: conditions.Status, obj: Object) -> None:
    status.handled(obj)
    status.observed()


def _owned(there: Object, key: Key) -> bool:
    labels = there["metadata"].get("labels") or {}
    return bool(
        labels.get("helm.toolkit.fluxcd.io/name") == key[2] and labels.get("helm.toolkit.fluxcd.io/namespace") == key[1]
    )


def _asked(obj: Object) -> tuple[Any, Any]:
    annotations = obj["metadata"].get("annotations") or {}
    return annotations.get(conditions.REQUESTED), annotations.get("reconcile.fluxcd.io/forceAt")


def _forced(obj: Object) -> bool:
    """``forceAt`` equal to a ``requestedAt`` that was not handled yet asks for an upgrade without any change."""
    requested, forced = _asked(obj)
    return bool(forced and forced == requested and obj["status"].get("lastHandledReconcileAt") != requested)
