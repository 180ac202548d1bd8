"""source-controller: Git is really fetched; charts and OCI artifacts are made up from their names, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from funoffshore.lab.flux import charts, conditions
from funoffshore.lab.flux.engine import GIT, HELM_CHART, HELM_REPOSITORY, OCI, Engine, source_kind
from funoffshore.lab.flux.fetch import FetchError, credentials_of
from funoffshore.lab.flux.kustomize import BuildError, load_all
from funoffshore.lab.flux.queue import Key
from funoffshore.lab.kube.api import Object

_STORE = "http://source-controller.flux-system.svc.cluster.local./"


def _unreachable(url: str, path: str) -> str:
    """Why nobody answers at ``url``: the lab asks no network, but names below .invalid are nowhere (RFC 2606)."""
    parts = urlsplit(url)
    if not (parts.hostname or "").endswith(".invalid"):
        return ""
    return f'Get "{parts.scheme}://{parts.netloc}{path}": dial tcp: lookup {parts.hostname}: no such host'


class Sources:
    """Reconciles GitRepository, OCIRepository, HelmRepository and HelmChart."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reconcile(self, key: Key) -> None:
        obj = self._engine.get(key)
        if obj is None:
            return
        if obj["metadata"].get("deletionTimestamp"):
            self._engine.release(key)
            return
        self._engine.finalize(obj)
        if obj["spec"].get("suspend"):
            self._engine.write(key, lambda status, now: status.handled(now))
            return
        {GIT: self._git, OCI: self._oci, HELM_REPOSITORY: self._helm_repository, HELM_CHART: self._chart}[key[0]](
            key, obj
        )
        self._engine.queue.later(conditions.seconds(obj["spec"].get("interval"), 600), key)

    def _git(self, key: Key, obj: Object) -> None:
        spec, name = obj["spec"], f"{key[1]}_{key[2]}"
        try:
            credentials = credentials_of(self._secret(key[1], spec.get("secretRef")))
        except LookupError as why:
            self._fail(key, "AuthenticationFailed", str(why.args[0]))
            return
        try:
            commit = self._engine.checkouts.fetch(name, spec["url"], spec.get("ref") or {}, credentials)
        except FetchError as why:
            self._fail(key, "GitOperationFailed", f"failed to checkout and determine revision: {why}")
            self._engine.queue.later(30, key)
            return
        branch = (spec.get("ref") or {}).get("branch") or (spec.get("ref") or {}).get("tag") or "master"
        revision = f"{branch}@sha1:{commit}"
        path = f"gitrepository/{key[1]}/{key[2]}/{commit}.tar.gz"
        self._store(key, revision, path, f"stored artifact for revision '{revision}'", "Succeeded")

    def _secret(self, namespace: str, ref: Object | None) -> dict[str, str]:
        """Raises LookupError in source-controller's words."""
        if not ref:
            return {}
        secret = self._engine.cluster.get("v1/Secret", namespace, ref["name"])
        if secret is None:
            name = f"{namespace}/{ref['name']}"
            raise LookupError(f"failed to get secret '{name}': secrets \"{ref['name']}\" not found")
        return dict(secret.get("data") or {})

    def _oci(self, key: Key, obj: Object) -> None:
        ref = obj["spec"].get("ref") or {}
        if why := _unreachable("https://" + obj["spec"]["url"].removeprefix("oci://"), "/v2/"):
            self._fail(key, "OCIArtifactPullFailed", f"failed to determine artifact digest: {why}", "building artifact")
            return
        name = charts.name_of(obj["spec"]["url"])
        tag = ref.get("tag") or (charts.version_of(name, ref["semver"]) if ref.get("semver") else "latest")
        digest = ref.get("digest") or conditions.digest([obj["spec"]["url"], tag])
        revision = digest if ref.get("digest") else f"{tag}@{digest}"
        path = f"ocirepository/{key[1]}/{key[2]}/{digest}.tar.gz"
        self._store(key, revision, path, f"stored artifact for digest '{revision}'", "Succeeded")

    def _helm_repository(self, key: Key, obj: Object) -> None:
        if obj["spec"].get("type") == "oci":
            return  # static: an OCI HelmRepository has no status
        if why := _unreachable(obj["spec"]["url"], f"{urlsplit(obj['spec']['url']).path.rstrip('/')}/index.yaml"):
            cause = f"failed to fetch Helm repository index: failed to cache index to temporary file: {why}"
            self._fail(key, "Failed", cause, "building artifact")
            return
        revision = conditions.digest([obj["spec"]["url"], "index"])
        path = f"helmrepository/{key[1]}/{key[2]}/index-{revision[7:]}.yaml"
        self._store(key, revision, path, f"stored artifact: revision '{revision}'", "Succeeded")

    def _chart(self, key: Key, obj: Object) -> None:
        spec = obj["spec"]
        source = self._engine.cluster.get(source_kind(spec["sourceRef"]["kind"]), key[1], spec["sourceRef"]["name"])
        if source is None:
            kind, name = spec["sourceRef"]["kind"], spec["sourceRef"]["name"]
            resource = {"HelmRepository": "helmrepositories", "GitRepository": "gitrepositories"}.get(kind, "buckets")
            message = f'failed to get source: {resource}.source.toolkit.fluxcd.io "{name}" not found'
            self._fail(key, "SourceUnavailable", message)
            return
        artifact = (source.get("status") or {}).get("artifact")
        if artifact is None and source["spec"].get("type") != "oci":
            name = source["metadata"]["name"]
            message = f"no artifact available for {source['kind']} source '{name}'"
            self._fail(key, "NoSourceArtifact", message, "building artifact")
            return
        try:
            name, version, verb = self._pick(spec, source, artifact)
        except BuildError as why:
            self._fail(key, "InvalidChartReference", str(why), stalled=True)
            return
        except FetchError as why:
            self._fail(key, "ChartPullError", str(why))
            return
        reason = "ChartPackageSucceeded" if verb == "packaged" else "ChartPullSucceeded"
        path = f"helmchart/{key[1]}/{key[2]}/{name}-{version}.tgz"
        message = f"{verb} '{name}' chart with version '{version}'"
        chart = {
            "observedChartName": name,
            "observedSourceArtifactRevision": (artifact or {}).get("revision", version),
            "url": f"{_STORE}helmchart/{key[1]}/{key[2]}/latest.tar.gz",
        }
        self._store(key, version, path, message, reason, chart)

    def _pick(self, spec: Object, source: Object, artifact: Any) -> tuple[str, str, str]:
        """Name and version of the chart, and what was done to it."""
        if source["kind"] != "GitRepository":
            return spec["chart"], charts.version_of(spec["chart"], spec.get("version") or "*"), "pulled"
        commit = artifact["revision"].rpartition(":")[2]
        where = f"{source['metadata']['namespace']}_{source['metadata']['name']}"
        files = self._engine.checkouts.files(where, commit)
        folder = spec["chart"].removeprefix("./").strip("/")
        if f"{folder}/Chart.yaml" not in files:
            raise BuildError(f"invalid chart reference: stat {folder}: no such file or directory")
        about = load_all(files[f"{folder}/Chart.yaml"], f"{folder}/Chart.yaml")[0]
        version = str(about["version"])
        if spec.get("reconcileStrategy") == "Revision":
            version += f"+{commit[:12]}"
        return str(about["name"]), version, "packaged"

    def _store(
        self, key: Key, revision: str, path: str, message: str, reason: str, more: Mapping[str, str] | None = None
    ) -> None:
        """``more`` are further fields of the status."""
        digest = conditions.digest([*key, revision])

        def change(status: conditions.Status, obj: Object) -> None:
            status.handled(obj)
            status.observed()
            status.drop("Reconciling", "Stalled", "FetchFailed")
            status.set("Ready", "True", reason, message)
            status.set("ArtifactInStorage", "True", reason, message)
            status.fields |= more or {}
            if (status.fields.get("artifact") or {}).get("revision") != revision:
                status.fields["artifact"] = {
                    "digest": digest,
                    "lastUpdateTime": conditions.stamp(self._engine.now()),
                    "path": path,
                    "revision": revision,
                    "size": 1024 + len(json.dumps(obj["spec"])),
                    "url": _STORE + path,
                }

        self._engine.write(key, change)

    def _fail(self, key: Key, reason: str, message: str, doing: str = "", *, stalled: bool = False) -> None:
        """The old artifact stays, and so does what was made of it. ``stalled``: trying again would not help."""

        def change(status: conditions.Status, obj: Object) -> None:
            status.handled(obj)
            observed, generation = status.fields.get("observedGeneration", -1), obj["metadata"].get("generation", 1)
            progress = "reconciliation in progress"
            if observed != generation:
                shown = f" {observed} -> {generation}" if observed > 0 else f" 0 -> {generation}"
                progress = f"processing object: new generation{shown}"
            if stalled:
                status.observed()
                status.drop("Reconciling")
                status.set("Stalled", "True", reason, message)
            else:
                status.drop("Stalled")
                status.set("Reconciling", "True", "ProgressingWithRetry", doing or progress)
            status.set("Ready", "False", reason, message)
            status.set("FetchFailed", "True", reason, message)

        self._engine.write(key, change)
