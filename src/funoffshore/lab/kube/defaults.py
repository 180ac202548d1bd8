"""What the API server fills in for built-in kinds.

Deployments and pods as recorded from a Kubernetes v1.36 API server, the rest as in the API reference.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind

_PROBE = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
_TOLERATED = tuple(
    {"effect": "NoExecute", "key": f"node.kubernetes.io/{key}", "operator": "Exists", "tolerationSeconds": 300}
    for key in ("not-ready", "unreachable")
)
"""Of every pod, for five minutes."""
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}


def _each(value: Any) -> Iterator[Object]:
    """The mappings in what should be a list of them."""
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            yield item


def _part(obj: Object, key: str) -> Object:
    """``obj[key]`` as a mapping, made when absent."""
    if not isinstance(obj.get(key), dict):
        obj[key] = {}
    part: Object = obj[key]
    return part


def pod_spec(spec: Object, *, restart: str = "Always") -> None:
    """Fills in a pod's or pod template's ``spec``."""
    if restart:
        spec.setdefault("restartPolicy", restart)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for volume in _each(spec.get("volumes")):
        _volume(volume)
    for container in [*_each(spec.get("containers")), *_each(spec.get("initContainers"))]:
        _container(container)


def _volume(volume: Object) -> None:
    for source in ("configMap", "secret", "projected", "downwardAPI"):
        if isinstance(volume.get(source), dict):
            volume[source].setdefault("defaultMode", 420)
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}


def _container(container: Object) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    floating = "@" not in image and tag in ("", "latest")
    container.setdefault("imagePullPolicy", "Always" if floating else "IfNotPresent")
    container.setdefault("resources", {})
    for variable in _each(container.get("env")):
        field = (variable.get("valueFrom") or {}).get("fieldRef")
        if isinstance(field, dict):
            field.setdefault("apiVersion", "v1")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in _each(container.get("ports")):
        port.setdefault("protocol", "TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(name), dict):
            container[name] = {**_PROBE, **container[name]}
            if isinstance(container[name].get("httpGet"), dict):
                container[name]["httpGet"] = {"path": "/", "scheme": "HTTP", **container[name]["httpGet"]}


def _quantities(resources: Object) -> None:
    """Limits count as requests where there are none."""
    limits, requests = resources.get("limits"), resources.get("requests")
    if isinstance(limits, dict) and limits:
        resources["requests"] = {**limits, **(requests or {})}


def _template(spec: Object, restart: str = "Always") -> None:
    pod_spec(_part(_part(spec, "template"), "spec"), restart=restart)


def _deployment(obj: Object) -> None:
    spec = _part(obj, "spec")
    for key, value in {"replicas": 1, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10}.items():
        spec.setdefault(key, value)
    strategy = spec.setdefault("strategy", dict(_ROLLING))
    if isinstance(strategy, dict) and strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy["rollingUpdate"] = {**_ROLLING["rollingUpdate"], **(strategy.get("rollingUpdate") or {})}  # type: ignore[dict-item]
    _template(spec)


def _replica_set(obj: Object) -> None:
    _part(obj, "spec").setdefault("replicas", 1)
    _template(obj["spec"])


def _stateful_set(obj: Object) -> None:
    spec = _part(obj, "spec")
    for key, value in {"replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10}.items():
        spec.setdefault(key, value)
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    for claim in _each(spec.get("volumeClaimTemplates")):
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        _part(claim, "spec").setdefault("volumeMode", "Filesystem")
        _part(claim, "status").setdefault("phase", "Pending")
    _template(spec)


def _daemon_set(obj: Object) -> None:
    spec = _part(obj, "spec")
    meta = obj["metadata"]
    generation = str(meta.get("generation", 1))
    _part(meta, "annotations")["deprecated.daemonset.template.generation"] = generation
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    _template(spec)


def _job_spec(spec: Object) -> None:
    parts = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False,
             "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed"}  # fmt: skip
    for key, value in parts.items():
        spec.setdefault(key, value)
    _template(spec, restart="")


def _job(obj: Object) -> None:
    spec = _part(obj, "spec")
    _job_spec(spec)
    uid = obj["metadata"].get("uid")
    if uid and not spec.get("manualSelector") and not spec.get("selector"):
        name = obj["metadata"].get("name", "")
        labels = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
                  "controller-uid": uid, "job-name": name}  # fmt: skip
        _part(_part(spec["template"], "metadata"), "labels").update(labels)
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)


def _cron_job(obj: Object) -> None:
    spec = _part(obj, "spec")
    parts = {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    }
    for key, value in parts.items():
        spec.setdefault(key, value)
    _template(_part(_part(spec, "jobTemplate"), "spec"), restart="")


def _pod(obj: Object) -> None:
    spec = _part(obj, "spec")
    pod_spec(spec)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    for container in [*_each(spec.get("containers")), *_each(spec.get("initContainers"))]:
        _quantities(_part(container, "resources"))
    known = {(t.get("key"), t.get("effect")) for t in _each(spec.get("tolerations"))}
    missing = [t for t in _TOLERATED if (t["key"], t["effect"]) not in known and (None, None) not in known]
    spec["tolerations"] = [*_each(spec.get("tolerations")), *(dict(t) for t in missing)]
    status = _part(obj, "status")
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", _quality(spec))


def _quality(spec: Object) -> str:
    asked = [c.get("resources") or {} for c in _each(spec.get("containers"))]
    if not any(r.get("limits") or r.get("requests") for r in asked):
        return "BestEffort"
    whole = all({"cpu", "memory"} <= set(r.get("limits") or {}) and r["limits"] == r.get("requests") for r in asked)
    return "Guaranteed" if whole else "Burstable"


def _service(obj: Object) -> None:
    spec = _part(obj, "spec")
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] != "ExternalName":
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("LoadBalancer", "NodePort"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for port in _each(spec.get("ports")):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    if spec["type"] != "ExternalName":
        _cluster_ip(spec, "/".join((obj["metadata"].get("namespace", ""), obj["metadata"].get("name", ""))))


def _cluster_ip(spec: Object, place: str) -> None:
    seed = zlib.crc32(f"Service/{place}".encode())
    if not spec.get("clusterIP"):
        spec["clusterIP"] = f"10.43.{seed // 250 % 250 + 1}.{seed % 250 + 2}"
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    if spec["type"] in ("LoadBalancer", "NodePort"):
        for number, port in enumerate(_each(spec.get("ports"))):
            if not port.get("nodePort"):
                port["nodePort"] = 30000 + (seed + number) % 2768


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict):
        data = _part(obj, "data")
        data.update({k: base64.b64encode(str(v).encode()).decode() for k, v in plain.items()})


def _namespace(obj: Object) -> None:
    _part(obj["metadata"], "labels")["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
    _part(obj, "spec").setdefault("finalizers", ["kubernetes"])


def _claim(obj: Object) -> None:
    _part(obj, "spec").setdefault("volumeMode", "Filesystem")
    _part(obj, "status").setdefault("phase", "Pending")


def _persistent_volume(obj: Object) -> None:
    spec = _part(obj, "spec")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    if isinstance(spec.get("hostPath"), dict):
        spec["hostPath"].setdefault("type", "")
    _part(obj, "status").setdefault("phase", "Pending")


def _network_policy(obj: Object) -> None:
    spec = _part(obj, "spec")
    for direction in ("ingress", "egress"):
        for rule in _each(spec.get(direction)):
            for port in _each(rule.get("ports")):
                port.setdefault("protocol", "TCP")
    spec.setdefault("policyTypes", ["Ingress", *(["Egress"] if spec.get("egress") else [])])


def _priority_class(obj: Object) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _autoscaler(obj: Object) -> None:
    spec = _part(obj, "spec")
    spec.setdefault("minReplicas", 1)
    target = {"type": "Utilization", "averageUtilization": 80}
    spec.setdefault("metrics", [{"type": "Resource", "resource": {"name": "cpu", "target": target}}])


def _role_binding(obj: Object) -> None:
    for subject in _each(obj.get("subjects")):
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _storage_class(obj: Object) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def _crd(obj: Object) -> None:
    spec = _part(obj, "spec")
    spec.setdefault("conversion", {"strategy": "None"})
    names = _part(spec, "names")
    if isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")


_FILL: dict[str, Callable[[Object], None]] = {
    "Deployment.apps": _deployment, "ReplicaSet.apps": _replica_set, "StatefulSet.apps": _stateful_set,
    "DaemonSet.apps": _daemon_set, "Job.batch": _job, "CronJob.batch": _cron_job, "Pod": _pod, "Service": _service,
    "Secret": _secret, "Namespace": _namespace, "PersistentVolumeClaim": _claim,
    "PersistentVolume": _persistent_volume, "NetworkPolicy.networking.k8s.io": _network_policy,
    "PriorityClass.scheduling.k8s.io": _priority_class, "HorizontalPodAutoscaler.autoscaling": _autoscaler,
    "RoleBinding.rbac.authorization.k8s.io": _role_binding,
    "ClusterRoleBinding.rbac.authorization.k8s.io": _role_binding,
    "StorageClass.storage.k8s.io": _storage_class, "CustomResourceDefinition.apiextensions.k8s.io": _crd,
}  # fmt: skip


def fill(kind: Kind, obj: Object) -> None:
    """Completes ``obj`` in place."""
    filler = _FILL.get(kind.bucket)
    if filler:
        filler(obj)
