"""The health of objects: tables of our own, and what a real cluster and real Flux controllers showed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import health

SHARED = Path(os.environ.get("FO_SHARED", Path(__file__).parents[2].parent / "shared"))
SAMPLES = SHARED / "bench/k8s/samples"

READY, PROGRESSING, FAILED, SUSPENDED, UNKNOWN = (
    health.State.READY, health.State.PROGRESSING, health.State.FAILED, health.State.SUSPENDED, health.State.UNKNOWN,
)  # fmt: skip


def thing(
    kind: str, status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **meta: Any
) -> dict[str, Any]:
    api_version, _, name = kind.rpartition("/")
    return {"apiVersion": api_version, "kind": name, "metadata": {"name": "x", "generation": 1, **meta},
            "spec": spec or {}, "status": status or {}}  # fmt: skip


def conditions(**types: str | tuple[str, str]) -> dict[str, Any]:
    """``Ready="True"`` or ``Ready=("False", "Reason")``."""
    found = []
    for type_, said in types.items():
        status, reason = said if isinstance(said, tuple) else (said, "")
        found.append({"type": type_, "status": status, "reason": reason})
    return {"conditions": found, "observedGeneration": 1}


COUNTS = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
AVAILABLE = {**COUNTS, "conditions": [{"type": "Available", "status": "True"}]}
KUSTOMIZATION, RELEASE = "kustomize.toolkit.fluxcd.io/v1/Kustomization", "helm.toolkit.fluxcd.io/v2/HelmRelease"
GIT, HELM_REPOSITORY = "source.toolkit.fluxcd.io/v1/GitRepository", "source.toolkit.fluxcd.io/v1/HelmRepository"
CERTIFICATE = "cert-manager.io/v1/Certificate"
ARTIFACT = {"artifact": {"revision": "main@sha1:1"}}


@pytest.mark.parametrize(
    ("obj", "state"),
    [
        (thing("apps/v1/Deployment", AVAILABLE, {"replicas": 2}), READY),
        (thing("apps/v1/Deployment", AVAILABLE, {"replicas": 3}), PROGRESSING),
        (thing("apps/v1/Deployment", AVAILABLE, {"replicas": 2}, generation=2), PROGRESSING),
        (thing("apps/v1/Deployment", {**AVAILABLE, "replicas": 3}, {"replicas": 2}), PROGRESSING),
        (thing("apps/v1/Deployment", AVAILABLE, {"replicas": 2}, deletionTimestamp="now"), PROGRESSING),
        (thing("apps/v1/StatefulSet", {**COUNTS, "currentRevision": "a", "updateRevision": "a"}, {"replicas": 2}),
         READY),
        (thing("apps/v1/StatefulSet", {**COUNTS, "currentRevision": "a", "updateRevision": "b"}, {"replicas": 2}),
         PROGRESSING),
        (thing("apps/v1/StatefulSet", {**COUNTS, "currentRevision": "a", "updateRevision": "b"},
               {"replicas": 2, "updateStrategy": {"type": "OnDelete"}}), READY),
        (thing("apps/v1/DaemonSet", {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberAvailable": 2,
                                     "updatedNumberScheduled": 3}), PROGRESSING),
        (thing("apps/v1/DaemonSet", {"observedGeneration": 1, "desiredNumberScheduled": 0}), READY),
        (thing("batch/v1/Job", conditions(Complete="True")), READY),
        (thing("batch/v1/Job", conditions(Failed=("True", "BackoffLimitExceeded"))), FAILED),
        (thing("batch/v1/Job", {"active": 1}), PROGRESSING),
        (thing("v1/Pod", {"phase": "Running", **conditions(Ready="True")}), READY),
        (thing("v1/Pod", {"phase": "Succeeded"}), READY),
        (thing("v1/Pod", {"phase": "Failed", "reason": "Evicted"}), FAILED),
        (thing("v1/Pod", {"phase": "Pending", "containerStatuses": [
            {"name": "a", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}), FAILED),
        (thing("v1/Pod", {"phase": "Pending", "containerStatuses": [
            {"name": "a", "state": {"waiting": {"reason": "ContainerCreating"}}}]}), PROGRESSING),
        (thing("v1/PersistentVolumeClaim", {"phase": "Bound"}), READY),
        (thing("v1/PersistentVolumeClaim", {"phase": "Pending"}), PROGRESSING),
        (thing("v1/PersistentVolumeClaim", {"phase": "Lost"}), FAILED),
        (thing("v1/Node", conditions(MemoryPressure="False", Ready="True", EtcdIsVoter="True")), READY),
        (thing("v1/Node", conditions(Ready="True", EtcdIsVoter=("False", "MemberIsLearner"))), PROGRESSING),
        (thing("v1/Node", conditions(Ready="True", DiskPressure="True")), FAILED),
        (thing("v1/Node", conditions(Ready=("Unknown", "NodeStatusUnknown"))), FAILED),
        (thing("v1/Node", conditions(Ready="True"), {"unschedulable": True}), SUSPENDED),
        (thing("v1/Node", conditions(Ready="True"), {"taints": [{"key": "node.kubernetes.io/not-ready"}]}),
         PROGRESSING),
        (thing("v1/Namespace", {"phase": "Active"}), READY),
        (thing("v1/Service", {}, {"type": "LoadBalancer"}), PROGRESSING),
        (thing("v1/Service", {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}, {"type": "LoadBalancer"}), READY),
        (thing("v1/ConfigMap"), READY),
        (thing("apiextensions.k8s.io/v1/CustomResourceDefinition", conditions(Established="True")), READY),
        (thing("apiextensions.k8s.io/v1/CustomResourceDefinition", conditions(NamesAccepted="False")), FAILED),
        (thing(KUSTOMIZATION, conditions(Ready="True")), READY),
        (thing(KUSTOMIZATION, conditions(Ready="True"), {"suspend": True}), SUSPENDED),
        (thing(KUSTOMIZATION, conditions(Ready=("False", "BuildFailed"))), FAILED),
        (thing(KUSTOMIZATION, conditions(Ready=("False", "DependencyNotReady"))), PROGRESSING),
        (thing(KUSTOMIZATION, {"observedGeneration": -1}), PROGRESSING),
        (thing(KUSTOMIZATION, {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]},
               generation=2), PROGRESSING),
        (thing(RELEASE, conditions(Ready=("False", "UpgradeFailed"), Stalled=("True", "RetriesExceeded"))), FAILED),
        (thing(RELEASE, {**conditions(Ready="True"), "history": [{"status": "deployed"}]}), READY),
        (thing(RELEASE, {**conditions(Ready="True"), "history": [{"status": "failed"}]}), FAILED),
        (thing(GIT, {**conditions(Ready="True"), **ARTIFACT}), READY),
        (thing(GIT, conditions(Ready="True")), PROGRESSING),
        (thing(GIT, {**conditions(Ready="True", FetchFailed=("True", "GitOperationFailed")), **ARTIFACT}), FAILED),
        (thing(HELM_REPOSITORY, {}, {"type": "oci"}), READY),
        (thing(CERTIFICATE, conditions(Ready="True", Issuing="True")), READY),
        (thing(CERTIFICATE, conditions(Ready=("False", "Expired"), Issuing="True")), PROGRESSING),
        (thing(CERTIFICATE, {**conditions(Ready=("False", "Failed")), "lastFailureTime": "2026"}), FAILED),
        (thing("cert-manager.io/v1/ClusterIssuer", conditions(Ready=("False", "ErrRegisterACMEAccount"))), FAILED),
        (thing("traefik.io/v1alpha1/IngressRoute"), UNKNOWN),
        (thing("postgresql.cnpg.io/v1/Cluster", conditions(Ready="True")), READY),
        (thing("postgresql.cnpg.io/v1/Cluster", conditions(Ready="False")), FAILED),
    ],
)  # fmt: skip
def test_state(obj: dict[str, Any], state: health.State) -> None:
    assert health.assess(obj).state is state, health.assess(obj)


def test_a_certificate_that_ran_out_is_failed_when_the_time_is_known() -> None:
    obj = thing(CERTIFICATE, {**conditions(Ready="True"), "notAfter": "2026-01-01T00:00:00Z"})
    assert health.assess(obj).state is READY
    assert health.assess(obj, now=1_700_000_000).state is READY
    assert health.assess(obj, now=1_800_000_000).reason == "Expired"


RECORDED = {
    "01-gitrepository-ready": {"fleet": READY},
    "02-all-ready": {"fleet": READY, "apps": READY},
    "03-broken-yaml": {"fleet": READY, "apps": FAILED},
    "04-unknown-kind": {"apps": FAILED},
    "05-rejected-by-api": {"apps": FAILED},
    "06-missing-resource": {"apps": FAILED},
    "07-dependency-not-ready": {"apps": PROGRESSING, "second": PROGRESSING},
    "08-health-check-failed": {"apps": FAILED, "second": PROGRESSING},
    "09-recovered": {"fleet": READY, "apps": READY, "second": READY},
    "10-suspended": {"fleet": READY, "apps": SUSPENDED},
    "11-resumed": {"apps": READY},
    "12-source-missing-branch": {"fleet": FAILED, "apps": READY},
    "13-source-unreachable": {"fleet": FAILED},
    "14-sops-no-key-secret": {"secrets": FAILED},
    "21-all-ready-with-helm": {"fleet": READY, "apps": READY, "web": READY, "flux-system-web": READY},
    "22-helm-broken-template": {"web": FAILED, "flux-system-web": READY, "apps": PROGRESSING},
    "23-helm-upgraded": {"web": READY, "flux-system-web": READY},
    "24-helm-upgrade-timeout": {"web": FAILED},
    "25-sops-wrong-key": {"secrets": FAILED},
    "26-sops-decrypted": {"secrets": READY},
    "k8s-crd-established": {"gitrepositories.source.toolkit.fluxcd.io": READY},
    "k8s-deployment-available": {"source-controller": READY},
    "k8s-deployment-deadline-exceeded": {"stuck": FAILED},
    "k8s-deployment-progressing": {"stuck": PROGRESSING},
    "k8s-node-kwok": {"fake-0": READY},
    "k8s-pod-kwok": {"source-controller-76dbdf465-j9xv4": READY},
}


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the recorded samples are not here")
@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_objects(name: str) -> None:
    document = json.loads((SAMPLES / f"{name}.json").read_text())
    objects = document.get("objects", [document])
    seen = {o["metadata"]["name"]: health.assess(o).state for o in objects}
    assert seen == RECORDED[name]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the recorded samples are not here")
def test_an_unschedulable_pod_progresses_and_says_why() -> None:
    status = json.loads((SAMPLES / "k8s-pod-unschedulable-status.json").read_text())
    judged = health.assess({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": status})
    assert (judged.state, judged.reason) == (PROGRESSING, "Unschedulable")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the recorded samples are not here")
def test_every_recorded_file_is_in_the_table() -> None:
    assert {p.stem for p in SAMPLES.glob("*.json")} == {*RECORDED, "k8s-pod-unschedulable-status"}


_any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["conditions", "type", "status", "phase", "replicas", "artifact", "history",
                                         "containerStatuses", "state", "waiting", "taints"]), inner, max_size=4)),
    max_leaves=10,
)  # fmt: skip


@given(st.sampled_from([*health._RULES, CERTIFICATE, "Foo.example.com"]), _any, _any)
def test_no_object_breaks_it(name: str, spec: Any, status: Any) -> None:
    kind, _, group = name.partition(".")
    obj = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": {}, "spec": spec, "status": status}
    assert health.assess(obj).state in health.State
