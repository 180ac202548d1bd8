"""What the lab's controllers make of workloads, and what keeps them from being ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_kube_kit as lab
import pytest

from funoffshore import health
from funoffshore.lab.kube.cluster import KubeCluster

DEPLOYMENT, STATEFUL_SET, DAEMON_SET = "apps/v1/Deployment", "apps/v1/StatefulSet", "apps/v1/DaemonSet"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubeCluster]:
    with lab.running(tmp_path) as made:
        yield made


def state(cluster: KubeCluster, kind: str, name: str) -> str:
    obj = cluster.get(kind, "default", name)
    return health.assess(obj).state.value if obj else "absent"


def ready(cluster: KubeCluster, kind: str, name: str = "web") -> dict[str, Any]:
    lab.until(lambda: state(cluster, kind, name) == "ready", f"{kind} {name} ready")
    return cluster.get(kind, "default", name) or {}


def waiting(cluster: KubeCluster) -> str:
    for pod in cluster.list("v1/Pod", "default"):
        for container in (pod.get("status") or {}).get("containerStatuses", []):
            if "waiting" in container["state"]:
                return str(container["state"]["waiting"]["reason"])
    return ""


def test_a_deployment_becomes_available(cluster: KubeCluster) -> None:
    cluster.apply(lab.deployment(replicas=3), "me")
    status = ready(cluster, DEPLOYMENT)["status"]
    assert status["availableReplicas"] == status["updatedReplicas"] == status["replicas"] == 3
    assert lab.condition({"status": status}, "Progressing")["reason"] == "NewReplicaSetAvailable"
    pods = cluster.list("v1/Pod", "default")
    assert [p["metadata"]["ownerReferences"][0]["kind"] for p in pods] == ["ReplicaSet"] * 3
    assert {p["spec"]["nodeName"] for p in pods} == {"n1"}


def test_pods_spread_over_nodes(cluster: KubeCluster) -> None:
    lab.add_node(cluster, "n2")
    lab.add_node(cluster, "n3")
    cluster.apply(lab.deployment(replicas=3), "me")
    ready(cluster, DEPLOYMENT)
    assert {p["spec"]["nodeName"] for p in cluster.list("v1/Pod")} == {"n1", "n2", "n3"}


def test_a_new_template_replaces_the_pods(cluster: KubeCluster) -> None:
    cluster.apply(lab.deployment(), "me")
    ready(cluster, DEPLOYMENT)
    fresh = lab.deployment()
    fresh["spec"]["template"]["spec"]["containers"][0]["image"] = "example.com/web:2"
    cluster.apply(fresh, "me")
    lab.until(lambda: [p["spec"]["containers"][0]["image"] for p in cluster.list("v1/Pod")] == ["example.com/web:2"])
    annotations = ready(cluster, DEPLOYMENT)["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/revision"] == "2"


def test_nothing_runs_without_a_ready_node(cluster: KubeCluster) -> None:
    lab.set_ready(cluster, "n1", "False")
    cluster.apply(lab.deployment(), "me")
    unscheduled = lab.until(lambda: [p for p in cluster.list("v1/Pod") if lab.condition(p, "PodScheduled")])
    assert lab.condition(unscheduled[0], "PodScheduled")["reason"] == "Unschedulable"
    lab.set_ready(cluster, "n1", "True")
    ready(cluster, DEPLOYMENT)
    lab.set_ready(cluster, "n1", "Unknown")
    lab.until(lambda: state(cluster, DEPLOYMENT, "web") == "progressing", "unavailable with its node")
    lab.set_ready(cluster, "n1", "True")
    ready(cluster, DEPLOYMENT)


def test_pods_of_a_deleted_node_move(cluster: KubeCluster) -> None:
    cluster.apply(lab.deployment(), "me")
    ready(cluster, DEPLOYMENT)
    lab.add_node(cluster, "n2")
    cluster.delete("v1/Node", "", "n1")
    lab.until(lambda: [p["spec"].get("nodeName") for p in cluster.list("v1/Pod")] == ["n2"], "moved")
    ready(cluster, DEPLOYMENT)


def test_the_fault_keeps_a_component_unready(cluster: KubeCluster) -> None:
    faults = cluster.kit.faults
    faults.on("component-unready", namespace="default", name="web")
    cluster.kit.clock.after(0, lambda: None)
    stuck = lab.deployment()
    stuck["spec"]["progressDeadlineSeconds"] = 1
    lab.until(lambda: cluster._pods._fault is not None, "the fault to be seen")
    cluster.apply(stuck, "me")
    lab.until(lambda: waiting(cluster) == "ImagePullBackOff", "back-off")
    lab.until(lambda: state(cluster, DEPLOYMENT, "web") == "failed", "the deadline")
    assert (
        lab.condition(cluster.get(DEPLOYMENT, "default", "web"), "Progressing")["reason"] == "ProgressDeadlineExceeded"
    )
    faults.off("component-unready")
    ready(cluster, DEPLOYMENT)


def test_a_pod_waits_for_its_secret(cluster: KubeCluster) -> None:
    volumes = [{"name": "token", "secret": {"secretName": "token"}}]
    cluster.apply(lab.deployment(volumes=volumes), "me")
    lab.until(lambda: waiting(cluster) == "ContainerCreating", "waiting for the volume")
    assert state(cluster, DEPLOYMENT, "web") == "progressing"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": "default"}}
    cluster.apply(secret, "me")
    ready(cluster, DEPLOYMENT)


def test_a_pod_waits_for_its_environment(cluster: KubeCluster) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]
    obj = lab.deployment()
    obj["spec"]["template"]["spec"]["containers"][0]["env"] = env
    cluster.apply(obj, "me")
    lab.until(lambda: waiting(cluster) == "CreateContainerConfigError", "config error")


def test_a_stateful_set_starts_in_order_on_its_volumes(cluster: KubeCluster) -> None:
    obj = lab.deployment(replicas=3)
    obj["kind"] = "StatefulSet"
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
             "resources": {"requests": {"storage": "2Gi"}}}}  # fmt: skip
    obj["spec"].update(serviceName="web", volumeClaimTemplates=[claim])
    cluster.apply(obj, "me")
    status = ready(cluster, STATEFUL_SET)["status"]
    assert status["currentRevision"] == status["updateRevision"]
    assert [p["metadata"]["name"] for p in cluster.list("v1/Pod")] == ["web-0", "web-1", "web-2"]
    claims = cluster.list("v1/PersistentVolumeClaim")
    assert {c["status"]["phase"] for c in claims} == {"Bound"}
    assert {v["spec"]["capacity"]["storage"] for v in cluster.list("v1/PersistentVolume")} == {"2Gi"}


def test_a_claim_waits_for_its_first_consumer(cluster: KubeCluster) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec}
    cluster.apply({**claim, "metadata": {"name": "c", "namespace": "default"}}, "me")
    nowhere = {**claim, "spec": {**spec, "storageClassName": "nowhere"}}
    cluster.apply({**nowhere, "metadata": {"name": "lost", "namespace": "default"}}, "me")
    cluster.apply(lab.deployment(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]), "me")
    ready(cluster, DEPLOYMENT)
    assert (cluster.get("v1/PersistentVolumeClaim", "default", "c") or {})["spec"]["storageClassName"] == "local-path"
    assert (cluster.get("v1/PersistentVolumeClaim", "default", "lost") or {})["status"]["phase"] == "Pending"


def test_a_daemon_set_follows_the_nodes(cluster: KubeCluster) -> None:
    obj = lab.deployment()
    obj["kind"] = "DaemonSet"
    del obj["spec"]["replicas"]
    cluster.apply(obj, "me")
    assert ready(cluster, DAEMON_SET)["status"]["desiredNumberScheduled"] == 1
    lab.add_node(cluster, "n2")
    lab.until(lambda: ready(cluster, DAEMON_SET)["status"]["numberReady"] == 2, "two pods")
    cluster.delete("v1/Node", "", "n2")
    lab.until(lambda: ready(cluster, DAEMON_SET)["status"]["numberReady"] == 1, "one pod")


def test_a_job_completes_and_stays_so(cluster: KubeCluster) -> None:
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b:1"}]}}}
    meta = {"name": "once", "namespace": "default"}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}, "me")
    done = ready(cluster, "batch/v1/Job", "once")
    assert done["status"]["succeeded"] == 1
    assert [p["status"]["phase"] for p in cluster.list("v1/Pod")] == ["Succeeded"]


def test_services_get_their_addresses(cluster: KubeCluster) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
               "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}  # fmt: skip
    cluster.apply(service, "me")
    found = lab.until(lambda: (cluster.get("v1/Service", "default", "s") or {}).get("status", {}).get("loadBalancer"))
    assert found["ingress"][0]["ip"] == "127.0.0.9"
    assert (cluster.get("v1/Service", "default", "s") or {})["spec"]["clusterIP"].startswith("10.43.")


def test_a_workload_takes_its_time(tmp_path: Path) -> None:
    with lab.running(tmp_path, workload=0.3) as slow:
        slow.apply(lab.deployment(), "me")
        lab.until(lambda: waiting(slow) == "ContainerCreating", "creating")
        assert state(slow, DEPLOYMENT, "web") == "progressing"
        ready(slow, DEPLOYMENT)


def test_a_restart_finishes_what_was_under_way(tmp_path: Path) -> None:
    with lab.running(tmp_path, workload=60) as slow:
        slow.apply(lab.deployment(), "me")
        lab.until(lambda: waiting(slow) == "ContainerCreating", "creating")
    with lab.running(tmp_path) as again:
        ready(again, DEPLOYMENT)
