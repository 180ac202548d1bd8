"""Flux's health checks as fo relies on them: what is waited for, what has failed, and how fo explains it. On the
embedded lab and on the real controllers; a difference is a bug in the lab.

A real health check waits half a minute at least, so all that fail begin together.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from flux_backends import BACKENDS, GIT, HELM_RELEASE, KUSTOMIZATION, Flux, Object, Said, Story, condition, kept, state

from funoffshore import errors, health
from funoffshore.plan import Action, Verb
from funoffshore.stages import flux as stage
from funoffshore.stages.flux import causes, graph


def deployment(name: str, version: int = 1, *, fits: bool = True, patience: int = 600) -> str:
    """A Deployment of one pod; one that does not fit waits for a node that nobody has."""
    node = "" if fits else "nodeSelector: {disk: none}, "
    return f"""
        apiVersion: apps/v1
        kind: Deployment
        metadata: {{name: {name}, namespace: default}}
        spec:
          replicas: 1
          progressDeadlineSeconds: {patience}
          selector: {{matchLabels: {{app: {name}}}}}
          template:
            metadata: {{labels: {{app: {name}}}}}
            spec: {{{node}containers: [{{name: main, image: "example.org/web:{version}"}}]}}
        """


@dataclass(frozen=True)
class Slow:
    """Stories that were begun together, and what was seen of the first while it was checked."""

    late: Story
    early: Story
    checked: Story
    queued: Story
    under_way: Object


@pytest.fixture(scope="module", params=BACKENDS)
def flux(request: pytest.FixtureRequest) -> Flux:
    return kept(request)


@pytest.fixture(scope="module")
def slow(flux: Flux) -> Slow:
    late = Story(flux, "late", {"apps/d.yaml": deployment("late"), "after/d.yaml": deployment("late-after")})
    early = Story(flux, "early", {"apps/d.yaml": deployment("early", fits=False, patience=3)})
    checked = Story(flux, "checked", {"apps/d.yaml": deployment("checked", fits=False),
                                      "apps/e.yaml": deployment("unchecked", fits=False)})  # fmt: skip
    queued = Story(flux, "queued", {"apps/d.yaml": deployment("queued", fits=False)})
    late.kustomize(wait=True, retryInterval="20s")  # time for a commit between two checks
    late.ready()
    late.publish({"apps/d.yaml": deployment("late", 2, fits=False)})
    for story in (early, queued):
        story.kustomize(wait=True)
    checks = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "checked", "namespace": "default"}]
    checked.kustomize(healthChecks=checks, retryInterval="20s")
    late.kustomize("after", wait=True, dependsOn=[{"name": "late"}])
    under_way = flux.says(KUSTOMIZATION, "late", "Progressing", lastAttemptedRevision=late.commit)
    flux.says(KUSTOMIZATION, "queued", "Progressing", lastAttemptedRevision=queued.commit)
    return Slow(late, early, checked, queued, under_way)


def test_a_check_under_way_is_neither_ready_nor_failed(flux: Flux, slow: Slow) -> None:
    found = slow.under_way
    assert (condition(found) or {})["status"] == "Unknown"
    assert state(found) is health.State.PROGRESSING
    assert not found["status"]["lastAppliedRevision"].endswith(slow.late.commit)
    waiting = flux.says(KUSTOMIZATION, "late-after", "DependencyNotReady", "late")
    assert state(waiting) is health.State.PROGRESSING


def test_a_commit_waits_for_the_check_of_the_one_before(flux: Flux, slow: Slow) -> None:
    old = slow.queued.commit
    slow.queued.publish({"apps/d.yaml": deployment("queued", 2)})
    flux.ready(GIT, "queued", slow.queued.commit)
    assert flux.get(KUSTOMIZATION, "queued")["status"]["lastAttemptedRevision"].endswith(old)
    history = slow.queued.ready()["status"]["history"]
    ends = [(h["metadata"]["revision"].rpartition(":")[2], h["lastReconciledStatus"]) for h in history]
    assert ends[0] == (slow.queued.commit, "ReconciliationSucceeded")
    assert ends[1:] in (
        [(old, "HealthCheckFailed")],
        [],
    )  # at times missing on a busy machine


def test_what_gave_up_fails_the_check_at_once(flux: Flux, slow: Slow) -> None:
    found = flux.says(KUSTOMIZATION, "early", "HealthCheckFailed", "failed early due to stalled resources: ["
                      "Deployment/default/early status: 'Failed']")  # fmt: skip
    assert state(found) is health.State.FAILED
    assert (condition(found, "Healthy") or {})["status"] == "False"
    assert found["status"]["observedGeneration"] == -1
    assert [e["id"] for e in found["status"]["inventory"]["entries"]] == ["default_early_apps_Deployment"]
    made = flux.get("apps/v1/Deployment", "early", "default")
    assert health.assess(made) == health.Health(
        health.State.FAILED, "ProgressDeadlineExceeded", (condition(made, "Progressing") or {})["message"]
    )


def test_what_is_never_ready_fails_the_check_in_the_end(flux: Flux, slow: Slow) -> None:
    found = flux.says(KUSTOMIZATION, "late", "HealthCheckFailed", "timeout waiting for: [Deployment/default/late status"
                      ": 'InProgress']", lastAttemptedRevision=slow.late.commit)  # fmt: skip
    assert state(found) is health.State.FAILED
    assert (condition(found, "Reconciling") or {})["reason"] == "ProgressingWithRetry"
    assert flux.lag(KUSTOMIZATION, "late", slow.late.commit).startswith(
        "HealthCheckFailed: health check failed after 30"
    )
    waiting = flux.says(KUSTOMIZATION, "late-after", "DependencyNotReady", "late")
    assert state(waiting) is health.State.PROGRESSING


def test_only_what_is_named_is_checked(flux: Flux, slow: Slow) -> None:
    found = flux.says(KUSTOMIZATION, "checked", "HealthCheckFailed", "Deployment/default/checked status: 'InProgress'")
    assert "unchecked" not in (condition(found) or {})["message"]
    slow.checked.publish({"apps/d.yaml": deployment("checked", 2)})
    slow.checked.ready()
    assert state(flux.get("apps/v1/Deployment", "unchecked", "default")) is health.State.PROGRESSING


def test_fo_names_the_first_cause(flux: Flux, slow: Slow) -> None:
    lines = causes.evidence(flux.kube.list, limit=200)
    pods = [n for n, line in enumerate(lines) if line.startswith("Pod default/late-") and "nodes are available" in line]
    deployments = [n for n, line in enumerate(lines) if line.startswith("Deployment default/late:")]
    kustomizations = [n for n, line in enumerate(lines) if line.startswith("Kustomization flux-system/late:")]
    assert pods, lines
    assert deployments, lines
    assert kustomizations, lines
    assert pods[0] < deployments[0] < kustomizations[0]
    assert not [line for line in lines if "late-after:" in line]


def test_the_next_good_commit_mends_it(flux: Flux, slow: Slow) -> None:
    for story in (slow.late, slow.early):
        story.publish({"apps/d.yaml": deployment(story.name, 3)})
    for story in (slow.late, slow.early):
        found = story.ready()
        assert [c["type"] for c in found["status"]["conditions"]] == ["Ready", "Healthy"]
        assert (condition(found, "Healthy") or {})["status"] == "True"
    slow.late.ready("late-after")


def test_fo_does_not_wait_for_what_somebody_suspended(flux: Flux) -> None:
    story = Story(flux, "paused", {"apps/d.yaml": deployment("paused")})
    story.kustomize(suspend=True)
    flux.until(lambda: flux.get(KUSTOMIZATION, "paused")["metadata"].get("finalizers"))
    found = flux.get(KUSTOMIZATION, "paused")
    assert found["status"] == {"observedGeneration": -1}
    assert state(found) is health.State.SUSPENDED
    action = Action(Verb.WAIT, graph.kustomization_key("paused"), "", stage="flux")
    with pytest.raises(errors.TaskFailedError, match="Kustomization paused is suspended"):
        stage.apply(flux.world, flux.config, action, Said())


def test_a_release_among_what_is_waited_for(flux: Flux) -> None:
    chart = "apiVersion: v2\nname: part\nversion: 0.1.0\n"
    template = """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: {{ .Release.Name }}}
        spec:
          selector: {matchLabels: {app: {{ .Release.Name }}}}
          template:
            metadata: {labels: {app: {{ .Release.Name }}}}
            spec: {containers: [{name: main, image: example.org/part:1}]}
        """
    release = """
        apiVersion: helm.toolkit.fluxcd.io/v2
        kind: HelmRelease
        metadata: {name: part, namespace: flux-system}
        spec:
          interval: 10m
          releaseName: part
          targetNamespace: default
          chart: {spec: {chart: ./charts/part, sourceRef: {kind: GitRepository, name: part}}}
        """
    story = Story(flux, "part", {"apps/r.yaml": release, "charts/part/Chart.yaml": chart,
                                 "charts/part/templates/d.yaml": template})  # fmt: skip
    story.kustomize(wait=True)
    story.ready()
    assert state(flux.get("apps/v1/Deployment", "part", "default")) is health.State.READY
    assert state(flux.get(HELM_RELEASE, "part")) is health.State.READY
