"""The lab's Flux tells the same stories as a real one: its conditions are compared with recorded objects."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from flux_bench import GIT, KUSTOMIZATION, Bench, condition, essence, sample

from funoffshore.config import age

CONFIG = """
    apiVersion: v1
    kind: ConfigMap
    metadata:
      name: settings
      namespace: default
    data: {color: blue}
"""
DEPLOYMENT = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: plain, namespace: default}
    spec:
      replicas: 1
      selector: {matchLabels: {app: plain}}
      template:
        metadata: {labels: {app: plain}}
        spec: {containers: [{name: main, image: example.org/plain:1}]}
"""
ROOT = "resources: [configmap.yaml, deployment.yaml]\n"
APPS: dict[str, str | None] = {
    "apps/kustomization.yaml": ROOT,
    "apps/configmap.yaml": CONFIG,
    "apps/deployment.yaml": DEPLOYMENT,
}
SECOND: dict[str, str | None] = {"second/config.yaml": CONFIG.replace("settings", "second")}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, speed=100)
    yield made
    made.close()


@pytest.fixture
def ready(bench: Bench) -> Bench:
    """``fleet`` is followed and ``apps`` is applied."""
    _make_ready(bench)
    return bench


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Bench]:
    """The same, with time to look while a health check runs."""
    made = Bench(tmp_path, speed=15)
    _make_ready(made)
    yield made
    made.close()


def _make_ready(bench: Bench) -> None:
    bench.publish(APPS)
    bench.follow()
    bench.kustomize("apps")
    bench.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded")


def test_a_source_that_was_just_made(bench: Bench) -> None:
    commit = bench.publish(APPS)
    bench.follow()
    found = bench.reason(GIT, "fleet", "Succeeded")
    assert found["status"]["artifact"]["revision"] == f"main@sha1:{commit}"
    assert essence(found) == essence(sample("01-gitrepository-ready", GIT, "fleet"))


def test_all_ready(ready: Bench) -> None:
    found = ready.get(KUSTOMIZATION, "apps")
    expected = sample("02-all-ready", KUSTOMIZATION, "apps")
    assert essence(found) == essence(expected)
    assert found["status"]["inventory"] == expected["status"]["inventory"]
    config = ready.get("v1/ConfigMap", "settings", "default")
    assert config["metadata"]["labels"] == {
        "kustomize.toolkit.fluxcd.io/name": "apps",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    }
    assert config["metadata"]["managedFields"][0]["manager"] == "kustomize-controller"


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("03-broken-yaml", {"apps/configmap.yaml": "kind: ConfigMap\nmetadata:\n  name: x: y\n"}, "BuildFailed"),
        (
            "04-unknown-kind",
            {"apps/configmap.yaml": CONFIG.replace("v1", "example.com/v1").replace("ConfigMap", "Thing")},
            "ReconciliationFailed",
        ),
        (
            "05-rejected-by-api",
            {"apps/deployment.yaml": DEPLOYMENT.replace("replicas: 1", "replicas: many")},
            "ReconciliationFailed",
        ),
        ("06-missing-resource", {"apps/kustomization.yaml": ROOT.replace("configmap", "gone")}, "BuildFailed"),
    ],
)
def test_a_commit_that_cannot_be_applied(ready: Bench, name: str, change: dict[str, str | None], reason: str) -> None:
    good = ready.get(KUSTOMIZATION, "apps")["status"]["lastAppliedRevision"]
    commit = ready.publish(change)
    found = ready.reason(KUSTOMIZATION, "apps", reason)
    assert found["status"]["lastAppliedRevision"] == good
    assert found["status"]["lastAttemptedRevision"] == f"main@sha1:{commit}"
    ours, theirs = essence(found), essence(sample(name, KUSTOMIZATION, "apps"))
    if name == "05-rejected-by-api":  # the API's own words, which are another part of the lab
        for essential in (ours, theirs):
            essential["conditions"][1] = (*essential["conditions"][1][:3], "", 1)
    assert ours == theirs


def test_a_workload_that_never_gets_ready_then_a_good_commit(slow: Bench) -> None:
    slow.kit.faults.on("component-unready", namespace="default", name="plain")
    slow.publish({**SECOND, "apps/deployment.yaml": DEPLOYMENT.replace("plain:1", "plain:2")})
    waiting = slow.reason(KUSTOMIZATION, "apps", "Progressing")
    assert essence(waiting) == essence(sample("07-dependency-not-ready", KUSTOMIZATION, "apps"))
    slow.kustomize("second", dependsOn=[{"name": "apps"}])
    second = slow.reason(KUSTOMIZATION, "second", "DependencyNotReady")
    assert essence(second) == essence(sample("07-dependency-not-ready", KUSTOMIZATION, "second"))
    failed = slow.reason(KUSTOMIZATION, "apps", "HealthCheckFailed")
    assert essence(failed) == essence(sample("08-health-check-failed", KUSTOMIZATION, "apps"))
    slow.kit.faults.off("component-unready")
    slow.publish({"apps/deployment.yaml": DEPLOYMENT.replace("plain:1", "plain:3")})
    for name in ("apps", "second"):
        found = slow.reason(KUSTOMIZATION, name, "ReconciliationSucceeded")
        assert essence(found) == essence(sample("09-recovered", KUSTOMIZATION, name))


def test_suspended_answers_requests_and_applies_nothing(ready: Bench) -> None:
    old = ready.get(KUSTOMIZATION, "apps")["status"]["lastAppliedRevision"]
    ready.kustomize("apps", suspend=True)
    new = ready.publish({"apps/configmap.yaml": CONFIG.replace("blue", "red")})
    ready.until(lambda: new in ready.get(GIT, "fleet")["status"]["artifact"]["revision"])
    ready.request(KUSTOMIZATION, "apps")
    found = ready.until(lambda: _handled(ready))
    assert found["status"]["lastAppliedRevision"] == old
    assert essence(found) == essence(sample("10-suspended", KUSTOMIZATION, "apps"))
    ready.cluster.apply(_without_suspend(found), "test")
    resumed = ready.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded", new)
    assert essence(resumed) == essence(sample("11-resumed", KUSTOMIZATION, "apps"))


def _handled(bench: Bench) -> dict[str, object] | None:
    found = bench.get(KUSTOMIZATION, "apps")
    return found if "lastHandledReconcileAt" in found["status"] else None


def _without_suspend(obj: dict[str, object]) -> dict[str, object]:
    spec = obj["spec"]
    assert isinstance(spec, dict)
    metadata = {"name": "apps", "namespace": "flux-system"}
    spec = {k: v for k, v in spec.items() if k != "suspend"}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, "spec": spec}


def test_a_source_that_breaks_keeps_what_it_had(ready: Bench) -> None:
    ready.follow(ref={"branch": "nope"})
    found = ready.reason(GIT, "fleet", "GitOperationFailed", "nope")
    # the recorded one was asked to reconcile before; that shows in one more key
    expected = essence(sample("12-source-missing-branch", GIT, "fleet"))
    assert essence(found)["conditions"] == expected["conditions"]
    ready.follow(url="http://127.0.0.1:9/fleet.git")
    found = ready.reason(GIT, "fleet", "GitOperationFailed", "connection refused")
    assert essence(found)["conditions"] == essence(sample("13-source-unreachable", GIT, "fleet"))["conditions"]
    assert (condition(ready.get(KUSTOMIZATION, "apps")) or {})["status"] == "True"


def test_git_that_is_unreachable_by_fault(ready: Bench) -> None:
    ready.kit.faults.on("git-unreachable")
    ready.request(GIT, "fleet")
    ready.reason(GIT, "fleet", "GitOperationFailed", "unable to list remote")
    ready.kit.faults.off("git-unreachable")
    ready.request(GIT, "fleet")
    ready.reason(GIT, "fleet", "Succeeded")


SOPS = """
    apiVersion: v1
    kind: Secret
    metadata: {{name: token, namespace: default}}
    data: {{t: "ENC[AES256_GCM,data:x]"}}
    sops: {{age: [{{recipient: {0}}}], version: 3.13.2}}
"""


def test_sops(bench: Bench) -> None:
    identity, other = age.identity(b"a" * 32), age.identity(b"b" * 32)
    bench.publish({"secrets/secret.yaml": SOPS.format(age.recipient(identity))})
    bench.follow()
    bench.kustomize("secrets", decryption={"provider": "sops", "secretRef": {"name": "sops-age"}})
    found = bench.reason(KUSTOMIZATION, "secrets", "BuildFailed")
    assert essence(found) == essence(sample("14-sops-no-key-secret", KUSTOMIZATION, "secrets"))
    _give_key(bench, other)
    bench.request(KUSTOMIZATION, "secrets")
    found = bench.reason(KUSTOMIZATION, "secrets", "BuildFailed", "cannot get sops data key")
    expected = essence(sample("25-sops-wrong-key", KUSTOMIZATION, "secrets"))
    assert essence(found)["conditions"] == expected["conditions"]
    _give_key(bench, identity)
    bench.request(KUSTOMIZATION, "secrets")
    found = bench.reason(KUSTOMIZATION, "secrets", "ReconciliationSucceeded")
    assert essence(found) == essence(sample("26-sops-decrypted", KUSTOMIZATION, "secrets"))
    assert "sops" not in bench.get("v1/Secret", "token", "default")


def _give_key(bench: Bench, identity: str) -> None:
    data = {"age.agekey": base64.b64encode(identity.encode()).decode()}
    metadata = {"name": "sops-age", "namespace": "flux-system"}
    bench.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}, "test")


def test_what_git_drops_is_pruned_and_what_it_marks_is_not(ready: Bench) -> None:
    kept = CONFIG.replace("settings", "kept").replace(
        "namespace: default", "namespace: default\n      annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}"
    )
    ready.publish({"apps/kustomization.yaml": ROOT.replace("]", ", kept.yaml]"), "apps/kept.yaml": kept})
    ready.until(lambda: ready.cluster.get("v1/ConfigMap", "default", "kept"))
    ready.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded")
    ready.publish({"apps/kustomization.yaml": "resources: [deployment.yaml]\n"})
    ready.until(lambda: ready.cluster.get("v1/ConfigMap", "default", "settings") is None)
    assert ready.cluster.get("v1/ConfigMap", "default", "kept")
    ready.cluster.delete(KUSTOMIZATION, "flux-system", "apps")
    ready.until(lambda: ready.cluster.get("apps/v1/Deployment", "default", "plain") is None)
    ready.until(lambda: ready.cluster.get(KUSTOMIZATION, "flux-system", "apps") is None)


def test_substitution_is_strict(bench: Bench) -> None:
    template = CONFIG.replace("{color: blue}", '{color: "${COLOR}", size: "${SIZE:=big}", raw: "$${RAW}"}')
    bench.publish({"apps/config.yaml": template})
    bench.follow()
    values = {"kind": "ConfigMap", "name": "values"}
    bench.kustomize("apps", postBuild={"substituteFrom": [values]})
    bench.reason(KUSTOMIZATION, "apps", "BuildFailed", 'configmaps "values" not found')
    _give_values(bench, {})
    bench.request(KUSTOMIZATION, "apps")
    bench.reason(KUSTOMIZATION, "apps", "BuildFailed", 'variable not set (strict mode): "COLOR"')
    _give_values(bench, {"COLOR": "green"})
    bench.request(KUSTOMIZATION, "apps")
    bench.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded")
    found = bench.get("v1/ConfigMap", "settings", "default")["data"]
    assert found == {"color": "green", "size": "big", "raw": "${RAW}"}


def _give_values(bench: Bench, data: dict[str, str]) -> None:
    metadata = {"name": "values", "namespace": "flux-system"}
    bench.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, "test")


def test_nothing_happens_while_the_controller_is_gone(ready: Bench) -> None:
    ready.cluster.delete("apps/v1/Deployment", "flux-system", "kustomize-controller")
    ready.until(lambda: ready.cluster.get("apps/v1/Deployment", "flux-system", "kustomize-controller") is None)
    commit = ready.publish({"apps/configmap.yaml": CONFIG.replace("blue", "red")})
    ready.until(lambda: commit in ready.get(GIT, "fleet")["status"]["artifact"]["revision"])
    assert ready.get("v1/ConfigMap", "settings", "default")["data"] == {"color": "blue"}
    ready.install_again("kustomize-controller")
    ready.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded", commit)
    assert ready.get("v1/ConfigMap", "settings", "default")["data"] == {"color": "red"}


def test_a_lab_made_anew_goes_on(ready: Bench) -> None:
    ready.close()
    ready.open()
    commit = ready.publish({"apps/configmap.yaml": CONFIG.replace("blue", "red")})
    ready.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded", commit)


def test_git_takes_over_what_kubectl_applied(bench: Bench) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": {"a": "b"}}}
    bench.cluster.apply(namespace, "kubectl")
    bench.publish({"apps/n.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"})
    bench.follow()
    bench.kustomize("apps")
    bench.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded")
    found = bench.cluster.get("v1/Namespace", "", "team")
    assert found is not None
    assert "a" not in found["metadata"]["labels"]
    assert {m["manager"] for m in found["metadata"]["managedFields"]} == {"kustomize-controller"}


def test_reconciling_takes_its_latency(tmp_path: Path) -> None:
    made = Bench(tmp_path, speed=50, reconcile=10)
    try:
        made.publish(APPS)
        made.follow()
        made.kustomize("apps")
        began = made.kit.clock.now()
        made.reason(KUSTOMIZATION, "apps", "ReconciliationSucceeded")
        assert made.kit.clock.now() - began >= 10
    finally:
        made.close()
