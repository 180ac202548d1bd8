"""What runs, and what does not: workloads, claims and services on the lab and on a real control plane, as fo judges
them. Pods are kwok's on the real one: they get ready without any container."""

from __future__ import annotations

from typing import Any

import pytest
from kube_backends import Backend, config_map, crd, deployment

from funoffshore import health
from funoffshore.health import State
from funoffshore.reading import Absent, Present
from funoffshore.stages.flux import causes
from funoffshore.world.kube import Object

pytest_plugins = ("kube_fixtures",)

DEPLOYMENT, CLAIM, VOLUME = "apps/v1/Deployment", "v1/PersistentVolumeClaim", "v1/PersistentVolume"
NOWHERE = {"disk": "none"}
"""A selector for nodes that there are not."""


def settled(backend: Backend, kind: str, space: str, name: str, state: State = State.READY) -> Object:
    """The object once fo judges it to be in that state."""

    def look() -> Object:
        found = backend.door.get(kind, space, name)
        return found.value if isinstance(found, Present) and health.assess(found.value).state is state else {}

    return backend.until(look, lambda: backend.door.get(kind, space, name))


def conditions(obj: Object) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in obj["status"]["conditions"]}


def owned(backend: Backend, kind: str, space: str, owner: Object) -> list[Object]:
    return [
        o for o in backend.value(backend.door.list(kind, space))
        if owner["metadata"]["uid"] in {r["uid"] for r in o["metadata"].get("ownerReferences", ())}
    ]  # fmt: skip


def pod_of(obj: Object) -> Object:
    spec: Object = obj["spec"]["template"]["spec"]
    return spec


# Deployments


def test_a_deployment_gets_ready(backend: Backend, space: str) -> None:
    backend.door.apply([deployment(space, replicas=2)], "fo")
    ready = settled(backend, DEPLOYMENT, space, "web")
    counts = {k: v for k, v in ready["status"].items() if k.endswith("eplicas")}
    assert counts == {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
                      "terminatingReplicas": 0}  # fmt: skip
    assert conditions(ready) == {
        "Available": ("True", "MinimumReplicasAvailable"), "Progressing": ("True", "NewReplicaSetAvailable"),
    }  # fmt: skip
    assert ready["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}
    [made] = owned(backend, "apps/v1/ReplicaSet", space, ready)
    digest = made["metadata"]["labels"]["pod-template-hash"]
    assert made["metadata"]["name"] == f"web-{digest}"
    pods = owned(backend, "v1/Pod", space, made)
    assert len(pods) == 2
    for pod in pods:
        assert pod["metadata"]["labels"] == {"app": "web", "pod-template-hash": digest}
        assert pod["metadata"]["name"].startswith(f"web-{digest}-")
        assert pod["spec"]["nodeName"] == "n1"
        assert pod["spec"]["serviceAccountName"] == "default"
        assert (pod["status"]["phase"], pod["status"]["qosClass"]) == ("Running", "BestEffort")
        assert health.assess(pod).state is State.READY


def test_a_change_rolls_out_and_the_old_set_stays_empty(backend: Backend, space: str) -> None:
    backend.door.apply([deployment(space)], "fo")
    settled(backend, DEPLOYMENT, space, "web")
    changed = deployment(space)
    pod_of(changed)["containers"][0]["image"] = "example.org/web:2"
    stored = backend.door.apply([changed], "fo")[0]
    assert stored["metadata"]["generation"] == 2
    ready = settled(backend, DEPLOYMENT, space, "web")
    sets = owned(backend, "apps/v1/ReplicaSet", space, ready)
    shown = {s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: s["spec"]["replicas"] for s in sets}
    assert shown == {"1": 0, "2": 1}
    backend.door.apply([deployment(space)], "fo")  # back to the first
    back = settled(backend, DEPLOYMENT, space, "web")
    assert back["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert len(owned(backend, "apps/v1/ReplicaSet", space, back)) == 2


def test_a_pod_that_no_node_takes_keeps_its_deployment_waiting(backend: Backend, space: str) -> None:
    waiting = deployment(space, nodeSelector=NOWHERE)
    waiting["spec"]["progressDeadlineSeconds"] = 2
    backend.door.apply([waiting], "fo")
    failed = settled(backend, DEPLOYMENT, space, "web", State.FAILED)
    assert conditions(failed) == {
        "Available": ("False", "MinimumReplicasUnavailable"), "Progressing": ("False", "ProgressDeadlineExceeded"),
    }  # fmt: skip
    assert health.assess(failed).reason == "ProgressDeadlineExceeded"
    [pod] = backend.value(backend.door.list("v1/Pod", space))
    judged = health.assess(pod)
    assert (judged.state, judged.reason) == (State.PROGRESSING, "Unschedulable")
    assert judged.message.startswith("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
    told = backend.until(lambda: causes.warnings(lambda kind: backend.door.list(kind, space)))
    said = told["Pod", f"{space}/{pod['metadata']['name']}"]
    assert said == f"FailedScheduling {judged.message}"[:317]


def test_scaling_down_and_up(backend: Backend, space: str) -> None:
    backend.door.apply([deployment(space, replicas=2)], "fo")
    settled(backend, DEPLOYMENT, space, "web")
    backend.door.patch(DEPLOYMENT, space, "web", {"spec": {"replicas": 0}})
    empty = settled(backend, DEPLOYMENT, space, "web")
    backend.until(lambda: not backend.value(backend.door.list("v1/Pod", space)))
    assert empty["status"].get("replicas", 0) == 0
    backend.door.patch(DEPLOYMENT, space, "web", {"spec": {"replicas": 1}})
    settled(backend, DEPLOYMENT, space, "web")
    assert len(backend.value(backend.door.list("v1/Pod", space))) == 1


def test_a_deployment_takes_its_pods_with_it(backend: Backend, space: str) -> None:
    backend.door.apply([deployment(space)], "fo")
    settled(backend, DEPLOYMENT, space, "web")
    backend.door.delete(DEPLOYMENT, space, "web")
    for kind in ("apps/v1/ReplicaSet", "v1/Pod"):
        backend.until(lambda kind=kind: not backend.value(backend.door.list(kind, space)))  # type: ignore[misc]


def test_what_the_api_fills_in(backend: Backend, space: str) -> None:
    given = deployment(space, volumes=[{"name": "c", "configMap": {"name": "c"}}, {"name": "e"}], replicas=0)
    pod_of(given)["containers"][0] |= {"ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}},
                                       "resources": {"limits": {"memory": "64Mi"}}}  # fmt: skip
    spec = backend.door.apply([given], "fo")[0]["spec"]
    assert (spec["progressDeadlineSeconds"], spec["revisionHistoryLimit"]) == (600, 10)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    inner = spec["template"]["spec"]
    assert {k: v for k, v in inner.items() if k not in ("containers", "volumes")} == {
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
        "securityContext": {}, "terminationGracePeriodSeconds": 30,
    }  # fmt: skip
    assert inner["volumes"] == [
        {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
        {"name": "e", "emptyDir": {}},
    ]
    assert inner["containers"] == [{
        "name": "web", "image": "example.org/web:1", "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {"limits": {"memory": "64Mi"}},
        "livenessProbe": {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1,
                          "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    }]  # fmt: skip


# The other workloads


def controller(kind: str, space: str, **spec: Any) -> Object:
    made = deployment(space)
    made["kind"], made["spec"] = kind, {k: made["spec"][k] for k in ("selector", "template")} | spec
    return made


def test_a_stateful_set_makes_its_pods_in_order(backend: Backend, space: str) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
             "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    backend.door.apply([controller("StatefulSet", space, replicas=2, serviceName="web")], "fo")
    ready = settled(backend, "apps/v1/StatefulSet", space, "web")
    names = [p["metadata"]["name"] for p in backend.value(backend.door.list("v1/Pod", space))]
    assert names == ["web-0", "web-1"]
    status = ready["status"]
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"]) == (2, 2, 2)
    assert status["currentRevision"] == status["updateRevision"]
    backend.door.delete("apps/v1/StatefulSet", space, "web")
    backend.until(lambda: not backend.value(backend.door.list("v1/Pod", space)))
    claimed = controller("StatefulSet", space, serviceName="web", volumeClaimTemplates=[claim])
    backend.door.apply([claimed], "fo")
    held = backend.until(lambda: backend.value(backend.door.list(CLAIM, space)))
    assert [(c["metadata"]["name"], c["status"]["phase"]) for c in held] == [("data-web-0", "Pending")]
    assert health.assess(backend.get("apps/v1/StatefulSet", space, "web")).state is State.PROGRESSING


def test_a_daemon_set_runs_on_every_node(backend: Backend, space: str) -> None:
    backend.door.apply([controller("DaemonSet", space)], "fo")
    ready = settled(backend, "apps/v1/DaemonSet", space, "web")
    assert {k: v for k, v in ready["status"].items() if k != "observedGeneration"} == {
        "currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberAvailable": 1, "numberMisscheduled": 0,
        "numberReady": 1, "updatedNumberScheduled": 1,
    }  # fmt: skip
    [pod] = backend.value(backend.door.list("v1/Pod", space))
    assert pod["spec"]["nodeName"] == "n1"


def test_a_job_completes(backend: Backend, space: str) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b:1"}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": space},
           "spec": {"template": {"spec": pod}}}  # fmt: skip
    stored = backend.door.apply([job], "fo")[0]
    mark = {"batch.kubernetes.io/controller-uid": stored["metadata"]["uid"]}
    assert stored["spec"]["selector"] == {"matchLabels": mark}
    done = settled(backend, "batch/v1/Job", space, "once")
    assert conditions(done)["Complete"] == ("True", "CompletionsReached")
    assert done["status"]["succeeded"] == 1
    [made] = owned(backend, "v1/Pod", space, done)
    assert made["status"]["phase"] == "Succeeded"
    assert made["metadata"]["labels"].items() >= mark.items()


# Storage


def claim(space: str, name: str = "data", size: str = "1Gi", **spec: Any) -> Object:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": space},
            "spec": whole}  # fmt: skip


def volume(space: str, size: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "hostPath": {"path": "/x"},
            "storageClassName": space}  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{space}-{size.lower()}"},
        "spec": spec,
    }


def test_a_claim_takes_the_smallest_volume_that_fits(backend: Backend, space: str) -> None:
    backend.door.apply([volume(space, size) for size in ("500Mi", "20Gi", "2Gi")], "fo")
    names = [f"{space}-{size}" for size in ("500mi", "20gi", "2gi")]
    # the controller chooses among those that it has seen
    backend.until(lambda: all(backend.get(VOLUME, "", n).get("status", {}).get("phase") == "Available" for n in names))
    made = backend.door.apply([claim(space, storageClassName=space)], "fo")[0]
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert made["spec"]["volumeMode"] == "Filesystem"
    bound = settled(backend, CLAIM, space, "data")
    assert bound["spec"]["volumeName"] == f"{space}-2gi"
    assert bound["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}}
    taken = settled(backend, VOLUME, "", f"{space}-2gi")
    assert taken["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]
    assert taken["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    backend.door.delete(CLAIM, space, "data")
    backend.until(lambda: backend.door.get(CLAIM, space, "data") == Absent())
    backend.until(lambda: backend.get(VOLUME, "", f"{space}-2gi")["status"]["phase"] == "Released")
    for size in ("500mi", "20gi", "2gi"):
        backend.door.delete(VOLUME, "", f"{space}-{size}")
    backend.until(lambda: backend.door.get(VOLUME, "", f"{space}-2gi") == Absent())


def test_a_claim_without_a_class_says_what_is_missing(backend: Backend, space: str) -> None:
    backend.door.apply([claim(space, storageClassName="no-such-class")], "fo")
    told = backend.until(lambda: causes.warnings(lambda kind: backend.door.list(kind, space)))
    assert told == {
        ("PersistentVolumeClaim", f"{space}/data"):
            'ProvisioningFailed storageclass.storage.k8s.io "no-such-class" not found'
    }  # fmt: skip
    waiting = backend.get(CLAIM, space, "data")
    assert (waiting["status"]["phase"], health.assess(waiting).state) == ("Pending", State.PROGRESSING)


def test_a_claim_stays_while_a_pod_uses_it(backend: Backend, space: str) -> None:
    backend.door.apply([volume(space, "2Gi"), claim(space, storageClassName=space)], "fo")
    settled(backend, CLAIM, space, "data")
    using = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    backend.door.apply([deployment(space, volumes=using)], "fo")
    settled(backend, DEPLOYMENT, space, "web")
    backend.door.delete(CLAIM, space, "data")
    assert backend.get(CLAIM, space, "data")["metadata"]["deletionTimestamp"]
    backend.door.delete(DEPLOYMENT, space, "web")
    backend.until(lambda: backend.door.get(CLAIM, space, "data") == Absent())
    backend.door.delete(VOLUME, "", f"{space}-2gi")


# Services and what a namespace has


@pytest.mark.parametrize(
    ("spec", "type_", "policies"),
    [
        ({}, "ClusterIP", {"internalTrafficPolicy": "Cluster"}),
        ({"type": "LoadBalancer"}, "LoadBalancer",
         {"externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": True}),
        ({"clusterIP": "None"}, "ClusterIP", {"internalTrafficPolicy": "Cluster", "clusterIP": "None"}),
    ],
)  # fmt: skip
def test_services(backend: Backend, space: str, spec: Object, type_: str, policies: Object) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": space},
               "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}], **spec}}  # fmt: skip
    found = backend.door.apply([service], "fo")[0]
    assert (
        found["spec"].items() >= {"type": type_, "sessionAffinity": "None", "ipFamilies": ["IPv4"], **policies}.items()
    )
    assert found["spec"]["clusterIPs"] == [found["spec"]["clusterIP"]]
    assert spec.get("clusterIP") == "None" or found["spec"]["clusterIP"].startswith("10.43.")
    [port] = found["spec"]["ports"]
    assert (port["protocol"], port["targetPort"], "nodePort" in port) == ("TCP", "http", type_ == "LoadBalancer")
    wanted = State.PROGRESSING if type_ == "LoadBalancer" else State.READY
    assert health.assess(backend.get("v1/Service", space, "web")).state is wanted
    assert backend.door.apply([service], "fo")[0]["spec"]["clusterIP"] == found["spec"]["clusterIP"]


def test_what_every_namespace_has(backend: Backend, space: str) -> None:
    namespace = backend.get("v1/Namespace", "", space)
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": space}
    assert (namespace["spec"], namespace["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
    root = backend.until(lambda: backend.value(backend.door.list("v1/ConfigMap", space)))
    assert [c["metadata"]["name"] for c in root] == ["kube-root-ca.crt"]
    assert root[0]["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    backend.door.delete("v1/ServiceAccount", space, "default")
    backend.until(lambda: isinstance(backend.door.get("v1/ServiceAccount", space, "default"), Present))


def test_a_crd_is_ready_when_its_kind_is_served(backend: Backend, space: str) -> None:
    kind, crds = f"Served{space.title()}", "apiextensions.k8s.io/v1/CustomResourceDefinition"
    backend.door.apply([crd(kind)], "fo")
    name = f"{kind.lower()}s.contract.example.org"
    found = settled(backend, crds, "", name)
    assert conditions(found) == {
        "NamesAccepted": ("True", "NoConflicts"), "Established": ("True", "InitialNamesAccepted"),
    }  # fmt: skip
    assert found["status"]["storedVersions"] == ["v1"]
    assert found["status"]["acceptedNames"] == {
        "kind": kind, "listKind": f"{kind}List", "plural": f"{kind.lower()}s", "singular": kind.lower()
    }  # fmt: skip
    assert "finalizers" not in found["metadata"]
    obj = {"apiVersion": "contract.example.org/v1", "kind": kind, "metadata": {"name": "x", "namespace": space},
           "spec": {"size": 1}}  # fmt: skip
    backend.door.apply([obj, config_map(space)], "fo")
    backend.door.delete(crds, "", name)
    backend.until(lambda: backend.door.get(crds, "", name) == Absent())
    backend.until(lambda: backend.door.list(f"contract.example.org/v1/{kind}") == Absent())
