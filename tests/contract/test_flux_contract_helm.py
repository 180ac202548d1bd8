"""HelmReleases and their sources as fo relies on them, on the embedded lab and on the real controllers. A difference is
a bug in the lab; what a chart holds is no part of the contract."""

from __future__ import annotations

from typing import Any

import pytest
from flux_backends import BACKENDS, GIT, HELM_RELEASE, KUSTOMIZATION, Flux, Object, Story, condition, kept, state

from funoffshore import health
from funoffshore.stages.flux import causes

OCI = "source.toolkit.fluxcd.io/v1/OCIRepository"
HELM_REPOSITORY = "source.toolkit.fluxcd.io/v1/HelmRepository"
HELM_CHART = "source.toolkit.fluxcd.io/v1/HelmChart"
LAYER = {"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "operation": "copy"}


@pytest.fixture(scope="module", params=BACKENDS)
def flux(request: pytest.FixtureRequest) -> Flux:
    return kept(request)


@pytest.fixture(scope="module", autouse=True)
def chart(flux: Flux) -> str:
    """The name of an OCIRepository with a chart. An install takes its time, so all that work begin together."""
    for name in ("podinfo", "podinfo-up"):
        _oci(flux, name, "1.2.3")
        _release(flux, name, name)
    _release(flux, "podinfo-still", "podinfo")
    flux.put(HELM_REPOSITORY, "podinfo-old", {"interval": "10m", "url": f"http://{flux.servers.charts}/helm"})
    _classic(flux, "podinfo-old", "podinfo-old", "1.2.4", "podinfo-old")
    return "podinfo"


def _oci(flux: Flux, name: str, tag: str, url: str = "") -> str:
    flux.put(OCI, name, {"interval": "10m", "url": url or f"oci://{flux.servers.charts}/charts/podinfo",
                         "ref": {"tag": tag}, "insecure": True, "layerSelector": LAYER})  # fmt: skip
    return name


def _release(flux: Flux, name: str, source: str, **spec: Any) -> Object:
    whole = {"interval": "10m", "timeout": "30s", "releaseName": name, "targetNamespace": "default",
             "chartRef": {"kind": "OCIRepository", "name": source}}  # fmt: skip
    return flux.put(HELM_RELEASE, name, whole | spec)


def _classic(flux: Flux, name: str, chart: str, version: str, source: str) -> None:
    reference = {"kind": "HelmRepository", "name": source}
    flux.put(HELM_RELEASE, name, {"interval": "10m", "releaseName": name, "targetNamespace": "default", "chart": {
        "spec": {"chart": chart, "version": version, "sourceRef": reference}}})  # fmt: skip


def test_a_chart_in_a_registry(flux: Flux, chart: str) -> None:
    source = flux.says(OCI, chart, "Succeeded", "stored artifact for digest '1.2.3@sha256:")
    assert state(source) is health.State.READY
    revision = source["status"]["artifact"]["revision"]
    tag, _, digest = revision.partition("@")
    assert (tag, len(digest)) == ("1.2.3", 71)
    assert [c["type"] for c in source["status"]["conditions"]] == ["Ready", "ArtifactInStorage"]
    found = flux.says(HELM_RELEASE, "podinfo", "InstallSucceeded")
    version = f"1.2.3+{digest[7:19]}"
    message = f"Helm install succeeded for release default/podinfo.v1 with chart podinfo@{version}"
    assert (condition(found) or {})["message"] == message
    assert (condition(found, "Released") or {})["reason"] == "InstallSucceeded"
    assert state(found) is health.State.READY

    def whole() -> Object | None:
        """The controller writes the conditions first, and the history a moment later."""
        told: Object = flux.get(HELM_RELEASE, "podinfo")["status"]
        return told if {"history", "inventory"} <= told.keys() else None

    status = flux.until(whole)
    assert (status["lastAttemptedRevision"], status["lastAttemptedRevisionDigest"]) == (version, digest)
    [newest] = status["history"]
    expected = {"action": "install", "chartName": "podinfo", "chartVersion": version, "appVersion": "1.2.3",
                "ociDigest": digest, "status": "deployed", "version": 1, "name": "podinfo",
                "namespace": "default"}  # fmt: skip
    assert {k: newest[k] for k in expected} == expected
    assert {e["id"] for e in status["inventory"]["entries"]} == {"default_podinfo__Service",
                                                                 "default_podinfo_apps_Deployment"}  # fmt: skip
    made = flux.get("apps/v1/Deployment", "podinfo", "default")
    assert state(made) is health.State.READY
    assert made["metadata"]["labels"]["helm.toolkit.fluxcd.io/name"] == "podinfo"
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert made["metadata"]["annotations"]["meta.helm.sh/release-name"] == "podinfo"
    assert flux.get("v1/Secret", "sh.helm.release.v1.podinfo.v1")["type"] == "helm.sh/release.v1"


def test_new_values_and_a_new_version_are_upgrades(flux: Flux) -> None:
    flux.says(HELM_RELEASE, "podinfo-up", "InstallSucceeded")
    _release(flux, "podinfo-up", "podinfo-up", values={"replicas": 2})
    flux.says(HELM_RELEASE, "podinfo-up", "UpgradeSucceeded", "podinfo-up.v2 with chart podinfo@1.2.3+")
    _oci(flux, "podinfo-up", "v2.0.0")
    found = flux.says(HELM_RELEASE, "podinfo-up", "UpgradeSucceeded", "podinfo-up.v3 with chart podinfo@2.0.0+")
    assert state(found) is health.State.READY

    def history() -> list[tuple[str, int]]:
        newest = flux.get(HELM_RELEASE, "podinfo-up")["status"].get("history", [])[:2]
        return [(h["status"], h["version"]) for h in newest]

    # the controller patches conditions first and the rest of the status after them
    flux.until(lambda: history() == [("deployed", 3), ("superseded", 2)], history)


def test_a_chart_in_a_helm_repository(flux: Flux) -> None:
    source = flux.says(HELM_REPOSITORY, "podinfo-old", "Succeeded", "stored artifact: revision 'sha256:")
    assert state(source) is health.State.READY
    found = flux.says(HELM_RELEASE, "podinfo-old", "InstallSucceeded", "with chart podinfo-old@1.2.4")
    assert found["status"]["lastAttemptedRevision"] == "1.2.4"
    assert found["status"]["helmChart"] == "flux-system/flux-system-podinfo-old"
    pulled = flux.says(HELM_CHART, "flux-system-podinfo-old", "ChartPullSucceeded",
                       "pulled 'podinfo-old' chart with version '1.2.4'")  # fmt: skip
    assert state(pulled) is health.State.READY
    assert pulled["status"]["artifact"]["revision"] == "1.2.4"


def test_a_repository_without_state(flux: Flux) -> None:
    flux.put(
        HELM_REPOSITORY, "static", {"interval": "10m", "type": "oci", "url": f"oci://{flux.servers.charts}/charts"}
    )
    assert state(flux.get(HELM_REPOSITORY, "static")) is health.State.READY


def test_registries_that_are_nowhere(flux: Flux) -> None:
    _oci(flux, "nowhere", "1.2.3", "oci://registry.invalid/charts/podinfo")
    flux.put(HELM_REPOSITORY, "nowhere", {"interval": "10m", "url": "http://registry.invalid/helm"})
    _release(flux, "podinfo-nowhere-a", "nowhere")
    _classic(flux, "podinfo-nowhere-b", "podinfo-old", "1.2.4", "nowhere")
    for kind, reason in ((OCI, "OCIArtifactPullFailed"), (HELM_REPOSITORY, "Failed")):
        found = flux.says(kind, "nowhere", reason, "lookup registry.invalid")
        assert state(found) is health.State.FAILED
        assert (condition(found, "FetchFailed") or {})["status"] == "True"
        assert found["status"]["observedGeneration"] == -1
    parts = ("OCIRepository 'flux-system/nowhere' is not ready: ",
             "HelmChart 'flux-system/flux-system-podinfo-nowhere-b' is not ready: ")  # fmt: skip
    for name, part in zip(("podinfo-nowhere-a", "podinfo-nowhere-b"), parts, strict=True):
        waiting = flux.says(HELM_RELEASE, name, "SourceNotReady", part)
        assert state(waiting) is health.State.PROGRESSING
        assert (condition(waiting, "Reconciling") or {})["status"] == "True"
    lines = causes.evidence(flux.kube.list, limit=200)
    order = [next(n for n, line in enumerate(lines) if line.startswith(start)) for start in (
        "OCIRepository flux-system/nowhere: OCIArtifactPullFailed", "HelmRepository flux-system/nowhere: Failed",
        "HelmRelease flux-system/podinfo-nowhere-a: SourceNotReady")]  # fmt: skip
    assert order == sorted(order)


def test_what_a_release_waits_for(flux: Flux, chart: str) -> None:
    _release(flux, "podinfo-no-source", "absent")
    _release(flux, "podinfo-no-values", chart, valuesFrom=[{"kind": "Secret", "name": "absent"}])
    _release(flux, "podinfo-waits", chart, dependsOn=[{"name": "podinfo-no-values"}])
    _release(flux, "podinfo-alone", chart, dependsOn=[{"name": "nobody"}])
    expected = {
        "podinfo-no-source": ("ArtifactFailed", '"absent" not found', health.State.PROGRESSING),
        "podinfo-no-values": ("ValuesError", 'secrets "absent" not found', health.State.FAILED),
        "podinfo-waits": ("DependencyNotReady", "dependency 'flux-system/podinfo-no-values' is not ready",
                          health.State.PROGRESSING),
        "podinfo-alone": ("DependencyNotReady", '"nobody" not found', health.State.PROGRESSING),
    }  # fmt: skip
    for name, (reason, part, judged) in expected.items():
        found = flux.says(HELM_RELEASE, name, reason, part)
        assert state(found) is judged, name
        assert (condition(found, "Reconciling") or {})["message"] == "Fulfilling prerequisites"
        assert found["status"]["observedGeneration"] == -1
    _release(flux, "podinfo-no-values", chart, valuesFrom=[{"kind": "Secret", "name": "absent", "optional": True}])
    for name in ("podinfo-no-values", "podinfo-waits"):
        flux.says(HELM_RELEASE, name, "InstallSucceeded")


def test_an_install_that_fails_stalls(flux: Flux, chart: str) -> None:
    _release(flux, "podinfo-lost", chart, targetNamespace="lost")
    found = flux.says(HELM_RELEASE, "podinfo-lost", "InstallFailed", 'namespaces "lost" not found')
    stalled = condition(found, "Stalled") or {}
    assert (stalled["reason"], stalled["message"]) == ("RetriesExceeded", "Failed to install after 1 attempt(s)")
    assert health.assess(found) == health.Health(health.State.FAILED, "RetriesExceeded", stalled["message"])
    assert found["status"]["installFailures"] == 1
    assert found["status"]["observedGeneration"] == 1
    # what failed once is upgraded from then on, and an upgrade makes no namespace
    _release(flux, "podinfo-lost", chart, targetNamespace="lost", install={"createNamespace": True})
    flux.says(HELM_RELEASE, "podinfo-lost", "UpgradeFailed", 'namespaces "lost" not found')
    flux.kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lost"}}], "kubectl")
    _release(flux, "podinfo-lost", chart, targetNamespace="lost", values={"replicas": 2})
    found = flux.says(HELM_RELEASE, "podinfo-lost", "UpgradeSucceeded")
    assert state(found) is health.State.READY
    assert not {"failures", "installFailures", "upgradeFailures"} & set(found["status"])


CHART = "apiVersion: v2\nname: own\nversion: {}\n"
TEMPLATE = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: {{ .Release.Name }}}
    spec:
      replicas: {{ .Values.replicas }}
      selector: {matchLabels: {app: {{ .Release.Name }}}}
      template:
        metadata: {labels: {app: {{ .Release.Name }}}}
        spec: {containers: [{name: main, image: "example.org/own:{{ .Chart.Version }}"}]}
    """
RELEASE = """
    apiVersion: helm.toolkit.fluxcd.io/v2
    kind: HelmRelease
    metadata: {name: own, namespace: flux-system}
    spec:
      interval: 10m
      releaseName: own
      targetNamespace: default
      chart:
        spec:
          chart: ./charts/own
          reconcileStrategy: Revision
          sourceRef: {kind: GitRepository, name: own}
      values: {replicas: 2}
    """


def test_a_chart_in_git(flux: Flux) -> None:
    files: dict[str, str | None] = {
        "apps/r.yaml": RELEASE, "charts/own/Chart.yaml": CHART.format("0.1.0"),
        "charts/own/templates/d.yaml": TEMPLATE, "charts/own/values.yaml": "replicas: 1\n",
    }  # fmt: skip
    story = Story(flux, "own", files)
    story.kustomize(wait=True)
    story.ready()
    found = flux.says(HELM_RELEASE, "own", "InstallSucceeded", f"with chart own@0.1.0+{story.commit[:12]}")
    assert found["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"] == "own"
    chart = flux.says(HELM_CHART, "flux-system-own", "ChartPackageSucceeded")
    assert chart["status"]["artifact"]["revision"] == f"0.1.0+{story.commit[:12]}"
    assert "ociDigest" not in found["status"]["history"][0]
    story.publish({"charts/own/Chart.yaml": CHART.format("0.2.0")})
    flux.says(HELM_RELEASE, "own", "UpgradeSucceeded", f"with chart own@0.2.0+{story.commit[:12]}")
    story.ready()
    story.publish({"charts/own/Chart.yaml": None, "charts/own/templates/d.yaml": None, "charts/own/values.yaml": None})
    flux.ready(GIT, "own", story.commit)
    chart = flux.says(HELM_CHART, "flux-system-own", "InvalidChartReference")
    assert state(chart) is health.State.FAILED
    assert (condition(chart, "Stalled") or {})["status"] == "True"
    assert state(flux.get(HELM_RELEASE, "own")) is health.State.READY  # it is not looked at, but when asked to
    flux.request(HELM_RELEASE, "own")
    found = flux.says(HELM_RELEASE, "own", "SourceNotReady", "HelmChart 'flux-system/flux-system-own' is not ready")
    assert state(found) is health.State.PROGRESSING
    assert flux.get("apps/v1/Deployment", "own", "default")
    story.publish({"apps/r.yaml": None, "apps/n.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: own}\n"})
    flux.ready(KUSTOMIZATION, "own", story.commit)
    flux.gone(HELM_RELEASE, "own", "flux-system")
    flux.gone("apps/v1/Deployment", "own")
    flux.gone("v1/Secret", "sh.helm.release.v1.own.v2", "flux-system")


def test_a_suspended_release_is_left_alone(flux: Flux, chart: str) -> None:
    flux.says(HELM_RELEASE, "podinfo-still", "InstallSucceeded")
    _release(flux, "podinfo-still", chart, suspend=True, values={"replicas": 3})
    token = flux.request(HELM_RELEASE, "podinfo-still")
    found = flux.says(HELM_RELEASE, "podinfo-still", "InstallSucceeded", lastHandledReconcileAt=token)
    assert state(found) is health.State.SUSPENDED
    assert len(found["status"]["history"]) == 1
    _release(flux, "podinfo-still", chart, values={"replicas": 3})
    flux.says(HELM_RELEASE, "podinfo-still", "UpgradeSucceeded")


def test_a_request_resets_what_stalled(flux: Flux, chart: str) -> None:
    _release(flux, "podinfo-reset", chart, targetNamespace="reset")
    flux.says(HELM_RELEASE, "podinfo-reset", "RetriesExceeded", type_="Stalled")
    flux.kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "reset"}}], "kubectl")
    token = flux.request(HELM_RELEASE, "podinfo-reset", resetAt="")
    found = flux.says(HELM_RELEASE, "podinfo-reset", "UpgradeSucceeded", lastHandledReconcileAt=token)
    assert state(found) is health.State.READY
