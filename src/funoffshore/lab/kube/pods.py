"""Pods: which node they run on, when they are ready, and what keeps them from it."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.events import Events
from funoffshore.lab.kube.objects import Event, Place
from funoffshore.lab.kube.worker import Worker, owner_place

_FAULT = "component-unready"
_PULLS = ("image-pull", "dns-broken")
_REFERENCES = {
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
}


class Pods:
    """Plays scheduler and kubelets. A pod is ready ``workload`` seconds after it was scheduled, on a Ready node,
    with its volumes bound and its Secrets and ConfigMaps there, unless the fault ``component-unready`` is on."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._core = worker.core
        self._kit = worker.kit
        self._events = Events(worker.core)
        self._due: dict[str, float] = {}
        self._fault = self._kit.faults.all().get(_FAULT)
        self._pulls = self._pulling()
        self._stopped = False
        worker.handle("Pod", self._pod)
        worker.notice(self._notice)
        self._watch_faults()

    def stop(self) -> None:
        self._stopped = True

    def _watch_faults(self) -> None:
        if self._stopped:
            return
        fault, pulls = self._kit.faults.all().get(_FAULT), self._pulling()
        if (fault, pulls) != (self._fault, self._pulls):
            self._fault, self._pulls = fault, pulls
            self._worker.soon(*(("Pod", o["metadata"]["namespace"], o["metadata"]["name"]) for o in self._all()))
        # Faults are switched in the store, perhaps by another process; nobody tells.
        self._kit.clock.after(max(1.0, self._kit.clock.speed * 0.25), self._watch_faults)

    def _pulling(self) -> dict[str, dict[str, str]]:
        """The faults that keep images away, as they are set now."""
        return {name: told for name, told in self._kit.faults.all().items() if name in _PULLS}

    def _all(self, namespace: str | None = None) -> list[Object]:
        return [stored.body for stored in self._core.objects.scan("Pod", namespace)]

    def _notice(self, event: Event) -> Iterable[Place]:
        bucket, namespace, name = event.place
        if bucket == "Pod" and event.type == "DELETED":
            self._due.pop(event.now.body["metadata"]["uid"], None)
        elif bucket == "Node" and self._node_changed(event):
            for pod in self._all():
                if (pod.get("spec") or {}).get("nodeName") in (None, name):
                    yield "Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]
        elif bucket in ("Secret", "ConfigMap", "PersistentVolumeClaim") and event.type != "DELETED":
            for pod in self._all(namespace):
                if (pod.get("status") or {}).get("phase", "Pending") == "Pending":
                    yield "Pod", namespace, pod["metadata"]["name"]

    def _node_changed(self, event: Event) -> bool:
        if event.before is None or event.type == "DELETED":
            return True
        now, before = event.now.body, event.before.body
        return node_ready(now) != node_ready(before) or now.get("spec") != before.get("spec")

    def _pod(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None or (stored.body.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return
        pod = stored.body
        kind = self._core.kinds.get("v1/Pod")
        node_name = pod["spec"].get("nodeName")
        node = self._core.objects.get(("Node", "", node_name)) if node_name else None
        if node_name and node is None:
            self._core.delete(kind, place[1], place[2])  # as the pod garbage collector does
            return
        chosen = node.body if node else self._schedule(pod)
        now = self._core.stamp()
        if chosen is None:
            nodes = len(self._core.objects.scan("Node"))
            self._core.change(kind, place[1], place[2], lambda o: _unschedulable(o, _nowhere(nodes), now))
            self._events.warn(pod, "FailedScheduling", _nowhere(nodes), "default-scheduler")
            return
        waiting = self._waiting(place, pod, chosen)
        self._core.change(kind, place[1], place[2], lambda o: _running(o, chosen, waiting, now))
        self._tell(pod, waiting)

    def _tell(self, pod: Object, waiting: tuple[str, str] | None) -> None:
        """What a kubelet would say about why the pod does not start."""
        reason, message = waiting or ("", "")
        if reason == "ContainerCreating" and "is not bound" in message:
            text = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
            self._events.warn(pod, "FailedScheduling", text, "default-scheduler")
        elif reason == "ContainerCreating" and message:
            self._events.warn(pod, "FailedMount", message, "kubelet")
        elif reason == "CreateContainerConfigError":
            self._events.warn(pod, "Failed", f"Error: {message}", "kubelet")
        elif reason == "ImagePullBackOff":
            image = pod["spec"]["containers"][0].get("image")
            self._events.warn(pod, "Failed", f'Failed to pull image "{image}": not found', "kubelet")
        elif reason == "CrashLoopBackOff":
            self._events.warn(pod, "BackOff", message, "kubelet")

    def _schedule(self, pod: Object) -> Object | None:
        nodes = [stored.body for stored in self._core.objects.scan("Node")]
        fit = [node for node in nodes if node_ready(node) and _fits(pod, node)]
        if not fit:
            return None
        owner = next((o["uid"] for o in pod["metadata"].get("ownerReferences", [])), "")
        siblings = [s.body["spec"].get("nodeName") for s in self._core.objects.owned(owner)] if owner else []
        seed = zlib.crc32(pod["metadata"]["name"].encode())
        order = sorted(
            enumerate(fit), key=lambda n: (siblings.count(n[1]["metadata"]["name"]), (n[0] + seed) % len(fit))
        )
        return order[0][1]

    def _waiting(self, place: Place, pod: Object, node: Object) -> tuple[str, str] | None:
        """Reason and message of what keeps the pod from being ready; None when nothing does."""
        uid = pod["metadata"]["uid"]
        if not node_ready(node):
            return "NodeNotReady", "Node is not ready"
        missing = self._missing(pod, place[1])
        if missing:
            return missing
        if self._fault is not None and self._hit(place, pod):
            return self._fault.get("reason", "ImagePullBackOff"), "Back-off pulling image"
        if self._pulls and not is_ready(pod) and self._lacks_image(pod, node):
            return "ImagePullBackOff", "Back-off pulling image"
        now = self._kit.clock.monotonic()
        if uid not in self._due:
            pace = float(pod["metadata"].get("annotations", {}).get("lab.funoffshore/pace", "1"))
            self._due[uid] = now + self._kit.latencies.workload * pace
        if self._due[uid] > now and not is_ready(pod):
            self._worker.later(self._due[uid] - now, place)
            return "ContainerCreating", ""
        return None

    def _lacks_image(self, pod: Object, node: Object) -> bool:
        """Whether the node gets one of the pod's images not; one that runs has them."""
        name, faults = node["metadata"]["name"], self._kit.faults
        images = [str(container.get("image", "")) for container in pod["spec"].get("containers") or []]
        return faults.hits("dns-broken", node=name) or any(
            faults.hits("image-pull", node=name, image=image) for image in images
        )

    def _hit(self, place: Place, pod: Object) -> bool:
        names = [place[2], *self._workload_names(pod)]
        return any(self._kit.faults.hits(_FAULT, namespace=place[1], name=name) for name in names)

    def _workload_names(self, pod: Object) -> Iterator[str]:
        obj = pod
        while (owner := owner_place(obj)) is not None:
            yield owner[2]
            stored = self._core.objects.get(owner)
            if stored is None:
                return
            obj = stored.body

    def _missing(self, pod: Object, namespace: str) -> tuple[str, str] | None:
        spec = pod["spec"]
        for volume in spec.get("volumes") or []:
            for bucket, field, key in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
                source = volume.get(field)
                if source and not source.get("optional") and not self._has(bucket, namespace, source.get(key)):
                    return "ContainerCreating", (
                        f'MountVolume.SetUp failed for volume "{volume.get("name")}" : '
                        f'{bucket.lower()} "{source.get(key)}" not found'
                    )
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim:
                kept = self._core.objects.get(("PersistentVolumeClaim", namespace, claim))
                if kept is None or (kept.body.get("status") or {}).get("phase") != "Bound":
                    return "ContainerCreating", f'persistentvolumeclaim "{claim}" is not bound'
        for bucket, name in _env_sources(spec):
            if not self._has(bucket, namespace, name):
                return "CreateContainerConfigError", f'{bucket.lower()} "{name}" not found'
        return None

    def _has(self, bucket: str, namespace: str, name: Any) -> bool:
        return self._core.objects.get((bucket, namespace, str(name))) is not None


def _env_sources(spec: Object) -> Iterator[tuple[str, str]]:
    """Secrets and ConfigMaps that the containers' environments cannot do without."""
    for container in itertools.chain(spec.get("containers") or [], spec.get("initContainers") or []):
        sources = [env.get("valueFrom") or {} for env in container.get("env") or []]
        for source in [*sources, *(container.get("envFrom") or [])]:
            for key, bucket in _REFERENCES.items():
                ref = source.get(key)
                if ref and not ref.get("optional") and ref.get("name"):
                    yield bucket, ref["name"]


def node_ready(node: Object) -> bool:
    """By the condition of type Ready, wherever it stands."""
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _fits(pod: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels", {})
    if any(labels.get(k) != v for k, v in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        return False
    taints = [t for t in spec.get("taints") or [] if t.get("effect") in ("NoSchedule", "NoExecute")]
    return all(any(_tolerates(t, taint) for t in pod["spec"].get("tolerations") or []) for taint in taints)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _nowhere(nodes: int) -> str:
    if not nodes:
        return "no nodes available to schedule pods"
    return (
        f"0/{nodes} nodes are available: {nodes} node(s) didn't match Pod's node affinity/selector. no new claims to "
        f"deallocate, preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    )


def _unschedulable(pod: Object, message: str, now: str) -> None:
    condition = {"lastProbeTime": None, "lastTransitionTime": now, "message": message, "reason": "Unschedulable",
                 "observedGeneration": pod["metadata"].get("generation", 1), "status": "False",
                 "type": "PodScheduled"}  # fmt: skip
    if any(c.get("message") == message for c in (pod.get("status") or {}).get("conditions") or []):
        return
    quality = (pod.get("status") or {}).get("qosClass", "BestEffort")
    pod["status"] = {"conditions": [condition], "phase": "Pending", "qosClass": quality}


def _running(pod: Object, node: Object, waiting: tuple[str, str] | None, now: str) -> None:
    """Sets ``spec.nodeName`` and the whole status."""
    spec = pod["spec"]
    spec["nodeName"] = node["metadata"]["name"]
    status = pod.setdefault("status", {})
    started = status.get("startTime", now)
    ready = "True" if waiting is None else "False"
    before = {c["type"]: c for c in status.get("conditions") or []}
    lost = waiting is not None and waiting[0] == "NodeNotReady"
    was_running = status.get("phase") == "Running"
    conditions = []
    for type_ in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"):
        value = ready if type_ in ("Ready", "ContainersReady") else "True"
        condition = {"lastProbeTime": None, "lastTransitionTime": now, "status": value, "type": type_}
        if value == "False":
            names = " ".join(c["name"] for c in spec["containers"])
            condition["reason"] = "NodeNotReady" if lost else "ContainersNotReady"
            condition["message"] = "" if lost else f"containers with unready status: [{names}]"
        old = before.get(type_, {})
        if old.get("status") == value:
            condition["lastTransitionTime"] = old["lastTransitionTime"]
        conditions.append(condition)
    address = next((a["address"] for a in (node.get("status") or {}).get("addresses") or []
                    if a.get("type") == "InternalIP"), "")  # fmt: skip
    seed = zlib.crc32(pod["metadata"]["uid"].encode())
    pod_ip = address if spec.get("hostNetwork") else f"10.42.{seed // 250 % 250}.{seed % 250 + 2}"
    pod["status"] = {
        "phase": "Running" if waiting is None or (lost and was_running) else "Pending",
        "conditions": conditions, "startTime": started, "hostIP": address, "hostIPs": [{"ip": address}],
        "qosClass": status.get("qosClass", "BestEffort"),
        "containerStatuses": [
            _container(c, status, None if lost and was_running else waiting, now) for c in spec["containers"]
        ],
    }  # fmt: skip
    if waiting is None or was_running:
        pod["status"].update(podIP=pod_ip, podIPs=[{"ip": pod_ip}])


def _container(container: Object, status: Object, waiting: tuple[str, str] | None, now: str) -> Object:
    old: Object = next((c for c in status.get("containerStatuses") or [] if c["name"] == container["name"]), {})
    shown: Object = {
        "name": container["name"], "image": container["image"], "imageID": "", "lastState": {},
        "ready": waiting is None, "started": waiting is None, "restartCount": old.get("restartCount", 0),
    }  # fmt: skip
    if waiting is None:
        since = old.get("state", {}).get("running", {}).get("startedAt", now)
        shown["state"] = {"running": {"startedAt": since}}
        return shown
    reason, message = waiting
    if reason == "ImagePullBackOff":
        message = f'Back-off pulling image "{container["image"]}"'
    elif reason == "CrashLoopBackOff":
        message = f"back-off 5m0s restarting failed container={container['name']}"
        shown["restartCount"] = max(5, shown["restartCount"])
    shown["state"] = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return shown
