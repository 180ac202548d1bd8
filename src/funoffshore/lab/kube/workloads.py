"""Controllers of what runs pods: Deployments with their ReplicaSets, StatefulSets, DaemonSets, Jobs."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.objects import Event, Place
from funoffshore.lab.kube.pods import is_ready
from funoffshore.lab.kube.worker import Worker, owner_place

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
DEPLOYMENT, REPLICA_SET = "Deployment.apps", "ReplicaSet.apps"
STATEFUL_SET, DAEMON_SET, JOB = "StatefulSet.apps", "DaemonSet.apps", "Job.batch"
_REVISION = "deployment.kubernetes.io/revision"
_OWNERS = {DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET, JOB}


class Workloads:
    """Makes the pods that a workload asks for and reports on them in its status; Deployments as recorded from v1.36."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._core = worker.core
        worker.handle(DEPLOYMENT, self._deployment)
        worker.handle(REPLICA_SET, self._replica_set)
        worker.handle(STATEFUL_SET, self._stateful_set)
        worker.handle(DAEMON_SET, self._daemon_set)
        worker.handle(JOB, self._job)
        worker.notice(self._notice)

    def _notice(self, event: Event) -> Iterable[Place]:
        if event.place[0] in ("Pod", REPLICA_SET):
            owner = owner_place(event.now.body)
            if owner and owner[0] in _OWNERS:
                yield owner
        elif event.place[0] == "Node" and (event.before is None or event.type == "DELETED" or _labels(event)):
            for stored in self._core.objects.scan(DAEMON_SET):
                yield DAEMON_SET, stored.body["metadata"]["namespace"], stored.body["metadata"]["name"]

    def _live(self, place: Place) -> Object | None:
        stored = self._core.objects.get(place)
        if stored is None or stored.body["metadata"].get("deletionTimestamp"):
            return None
        return stored.body

    def _owned(self, owner: Object, kind: str) -> list[Object]:
        found = [stored.body for stored in self._core.objects.owned(owner["metadata"]["uid"])]
        return [o for o in found if o["kind"] == kind and not o["metadata"].get("deletionTimestamp")]

    def _make_pod(self, owner: Object, name: str, labels: Object, *, node: str = "", pace: float = 1.0) -> None:
        """``name`` ending in ``-`` is completed. ``pace`` times the workload latency is what it takes to be ready."""
        template = copy.deepcopy(owner["spec"]["template"])
        meta = {k: v for k, v in (template.get("metadata") or {}).items() if k in ("labels", "annotations")}
        meta["generateName" if name.endswith("-") else "name"] = name
        meta["labels"] = {**(meta.get("labels") or {}), **labels}
        meta["namespace"] = owner["metadata"]["namespace"]
        meta["ownerReferences"] = [reference(owner)]
        if pace != 1.0:
            meta["annotations"] = {**(meta.get("annotations") or {}), "lab.funoffshore/pace": f"{pace:.3f}"}
        spec = template["spec"]
        if node:
            spec["nodeName"] = node
        for claim in owner["spec"].get("volumeClaimTemplates") or []:
            volume = {"name": claim["metadata"]["name"],
                      "persistentVolumeClaim": {"claimName": f"{claim['metadata']['name']}-{name}"}}  # fmt: skip
            spec["volumes"] = [*(spec.get("volumes") or []), volume]
        self._core.create(self._core.kinds.get("v1/Pod"), {"metadata": meta, "spec": spec}, "kube-controller-manager")

    def _drop_pod(self, pod: Object) -> None:
        kind = self._core.kinds.get("v1/Pod")
        if self._core.find(kind, pod["metadata"]["namespace"], pod["metadata"]["name"]):
            self._core.delete(kind, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _report(self, key: str, place: Place, status: Object) -> None:
        def change(obj: Object) -> None:
            old = obj.get("status") or {}
            if "conditions" in status:
                status["conditions"] = _aged(old.get("conditions") or [], status["conditions"])
            obj["status"] = status

        self._core.change(self._core.kinds.get(key), place[1], place[2], change)

    # Deployments

    def _deployment(self, place: Place) -> None:
        obj = self._live(place)
        if obj is None:
            return
        digest = template_hash(obj["spec"]["template"])
        sets = self._owned(obj, "ReplicaSet")
        current = next((s for s in sets if s["metadata"]["name"] == f"{place[2]}-{digest}"), None)
        old = [s for s in sets if s is not current]
        newest = max(map(_number, sets), default=0)
        if current is None:
            if obj["spec"]["strategy"].get("type") == "Recreate":
                self._retire(obj, old)
            self._make_set(obj, digest, newest + 1)
            return
        if _number(current) < newest or current["spec"]["replicas"] != obj["spec"]["replicas"]:
            self._take_up(obj, current, max(newest + (_number(current) < newest), 1))
            return
        pods = self._owned(current, "Pod")
        ready = sum(map(is_ready, pods))
        if old and ready >= obj["spec"]["replicas"]:
            self._retire(obj, old)
        before = [pod for s in old for pod in self._owned(s, "Pod")]
        self._report_deployment(place, obj, current, pods, before)

    def _retire(self, obj: Object, old: list[Object]) -> None:
        """Takes the pods from old sets, and removes those that nobody can want back."""
        kind = self._core.kinds.get("apps/v1/ReplicaSet")
        kept = sorted(old, key=_number, reverse=True)[: obj["spec"].get("revisionHistoryLimit", 10)]
        for one in old:
            namespace, name = one["metadata"]["namespace"], one["metadata"]["name"]
            if one["spec"]["replicas"]:
                self._core.change(kind, namespace, name, _to_zero)
            elif one not in kept:
                self._core.delete(kind, namespace, name)

    def _take_up(self, obj: Object, current: Object, revision: int) -> None:
        """Gives the current set its size, and after a step back a new revision."""
        mark, replicas = {_REVISION: str(revision)}, obj["spec"]["replicas"]

        def change(one: Object) -> None:
            one["spec"]["replicas"] = replicas
            one["metadata"].setdefault("annotations", {}).update(mark)

        namespace = obj["metadata"]["namespace"]
        self._core.change(self._core.kinds.get("apps/v1/ReplicaSet"), namespace, current["metadata"]["name"], change)
        self._mark(obj, revision)

    def _mark(self, obj: Object, revision: int) -> None:
        mark = {_REVISION: str(revision)}
        self._core.change(self._core.kinds.get("apps/v1/Deployment"), obj["metadata"]["namespace"],
                          obj["metadata"]["name"],
                          lambda o: o["metadata"].setdefault("annotations", {}).update(mark))  # fmt: skip

    def _make_set(self, obj: Object, digest: str, revision: int) -> None:
        template = copy.deepcopy(obj["spec"]["template"])
        template.setdefault("metadata", {}).setdefault("labels", {})["pod-template-hash"] = digest
        selector = copy.deepcopy(obj["spec"]["selector"])
        selector.setdefault("matchLabels", {})["pod-template-hash"] = digest
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        meta = {"name": f"{name}-{digest}", "namespace": namespace, "ownerReferences": [reference(obj)],
                "labels": template["metadata"]["labels"], "annotations": {_REVISION: str(revision)}}  # fmt: skip
        spec = {"replicas": obj["spec"]["replicas"], "selector": selector, "template": template}
        self._core.create(self._core.kinds.get("apps/v1/ReplicaSet"), {"metadata": meta, "spec": spec},
                          "kube-controller-manager")  # fmt: skip
        self._mark(obj, revision)

    def _report_deployment(
        self, place: Place, obj: Object, current: Object, pods: list[Object], before: list[Object]
    ) -> None:
        wanted, now = obj["spec"]["replicas"], self._core.stamp()
        ready = sum(map(is_ready, [*pods, *before]))
        new_ready = sum(map(is_ready, pods))
        status: Object = {"observedGeneration": obj["metadata"]["generation"]}
        counts = {"replicas": len(pods) + len(before), "updatedReplicas": len(pods), "readyReplicas": ready,
                  "availableReplicas": ready, "unavailableReplicas": max(wanted - ready, 0)}  # fmt: skip
        status |= {k: v for k, v in counts.items() if v}
        status["terminatingReplicas"] = 0
        enough = ready >= wanted - (1 if wanted > 3 else 0)
        available = (
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
            if enough
            else ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        )
        progress = self._progress(place, obj, current, done=new_ready >= wanted and not before)
        status["conditions"] = [
            _condition("Available", *available, now) | {"lastUpdateTime": now},
            _condition("Progressing", *progress, now) | {"lastUpdateTime": now},
        ]
        self._report("apps/v1/Deployment", place, status)

    def _progress(self, place: Place, obj: Object, current: Object, *, done: bool) -> tuple[str, str, str]:
        name = f'ReplicaSet "{current["metadata"]["name"]}"'
        conditions = (obj.get("status") or {}).get("conditions") or []
        last = next((c for c in conditions if c["type"] == "Progressing"), None)
        if done or (last and last["reason"] == "NewReplicaSetAvailable" and name in last["message"]):
            return "True", "NewReplicaSetAvailable", f"{name} has successfully progressed."
        started = _seconds(current["metadata"]["creationTimestamp"])
        left = started + obj["spec"]["progressDeadlineSeconds"] - self._worker.kit.clock.now()
        if left < 0:
            return "False", "ProgressDeadlineExceeded", f"{name} has timed out progressing."
        if last is None or name not in last["message"]:
            self._worker.later(left + 1, place)
        return "True", "ReplicaSetUpdated", f"{name} is progressing."

    def _replica_set(self, place: Place) -> None:
        obj = self._live(place)
        if obj is None:
            return
        pods = self._owned(obj, "Pod")
        for pod in [p for p in pods if (p.get("status") or {}).get("phase") in ("Failed", "Succeeded")]:
            self._drop_pod(pod)
            pods.remove(pod)
        wanted = obj["spec"]["replicas"]
        for _ in range(wanted - len(pods)):
            self._make_pod(obj, f"{place[2]}-", {})
        for pod in sorted(pods, key=is_ready)[: max(len(pods) - wanted, 0)]:
            self._drop_pod(pod)
        pods = self._owned(obj, "Pod")
        ready = sum(map(is_ready, pods))
        status = {"replicas": len(pods), "fullyLabeledReplicas": len(pods), "readyReplicas": ready,
                  "availableReplicas": ready}  # fmt: skip
        shown = {k: v for k, v in status.items() if v or k == "replicas"}
        self._report("apps/v1/ReplicaSet", place, shown | {"observedGeneration": obj["metadata"]["generation"]})

    # StatefulSets

    def _stateful_set(self, place: Place) -> None:
        obj = self._live(place)
        if obj is None:
            return
        wanted, revision = obj["spec"]["replicas"], f"{place[2]}-{template_hash(obj['spec']['template'])}"
        by_name = {p["metadata"]["name"]: p for p in self._owned(obj, "Pod")}
        names = [f"{place[2]}-{i}" for i in range(wanted)]
        self._make_claims(obj, names)
        ordered = obj["spec"]["podManagementPolicy"] == "OrderedReady"
        for name in [n for n in by_name if n not in names]:
            self._drop_pod(by_name.pop(name))
        stale = [n for n in reversed(names) if n in by_name and _revision(by_name[n]) != revision]
        if stale and obj["spec"]["updateStrategy"].get("type") != "OnDelete":
            self._drop_pod(by_name.pop(stale[0]))
        for name in names:
            if name not in by_name:
                labels = {"controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name,
                          "apps.kubernetes.io/pod-index": name.rpartition("-")[2]}  # fmt: skip
                self._make_pod(obj, name, labels, pace=1 / wanted if ordered else 1.0)
            if ordered and not (name in by_name and is_ready(by_name[name])):
                break
        self._report_stateful_set(place, obj, revision)

    def _report_stateful_set(self, place: Place, obj: Object, revision: str) -> None:
        pods = self._owned(obj, "Pod")
        ready = sum(map(is_ready, pods))
        updated = [p for p in pods if _revision(p) == revision]
        done = len(updated) == obj["spec"]["replicas"] and all(map(is_ready, updated))
        before = (obj.get("status") or {}).get("currentRevision", revision)
        status = {
            "observedGeneration": obj["metadata"]["generation"], "replicas": len(pods), "collisionCount": 0,
            "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": len(updated),
            "currentReplicas": len(pods) if done else len(pods) - len(updated), "updateRevision": revision,
            "currentRevision": revision if done else before,
        }  # fmt: skip
        shown = {k: v for k, v in status.items() if v or k in ("replicas", "availableReplicas", "collisionCount")}
        self._report("apps/v1/StatefulSet", place, shown)

    def _make_claims(self, obj: Object, pods: list[str]) -> None:
        kind = self._core.kinds.get("v1/PersistentVolumeClaim")
        namespace = obj["metadata"]["namespace"]
        for claim in obj["spec"].get("volumeClaimTemplates") or []:
            for pod in pods:
                name = f"{claim['metadata']['name']}-{pod}"
                if self._core.find(kind, namespace, name) is None:
                    labels = (obj["spec"]["selector"].get("matchLabels")) or {}
                    meta = {"name": name, "namespace": namespace, "labels": labels}
                    self._core.create(kind, {"metadata": meta, "spec": claim["spec"]}, "kube-controller-manager")

    # DaemonSets

    def _daemon_set(self, place: Place) -> None:
        obj = self._live(place)
        if obj is None:
            return
        selector = obj["spec"]["template"]["spec"].get("nodeSelector") or {}
        nodes = [s.body["metadata"] for s in self._core.objects.scan("Node")]
        names = {n["name"] for n in nodes if all(n.get("labels", {}).get(k) == v for k, v in selector.items())}
        revision = template_hash(obj["spec"]["template"])
        pods = {}
        for pod in self._owned(obj, "Pod"):
            node = pod["spec"].get("nodeName", "")
            if node not in names or node in pods or _revision(pod) != revision:
                self._drop_pod(pod)
            else:
                pods[node] = pod
        for node in sorted(names - pods.keys()):
            labels = {
                "controller-revision-hash": revision,
                "pod-template-generation": str(obj["metadata"]["generation"]),
            }
            self._make_pod(obj, f"{place[2]}-", labels, node=node)
        ready = sum(map(is_ready, pods.values()))
        status = {
            "currentNumberScheduled": len(names), "desiredNumberScheduled": len(names), "numberAvailable": ready,
            "numberMisscheduled": 0, "numberReady": ready, "numberUnavailable": len(names) - ready,
            "observedGeneration": obj["metadata"]["generation"], "updatedNumberScheduled": len(names),
        }  # fmt: skip
        kept = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
        self._report("apps/v1/DaemonSet", place, {k: v for k, v in status.items() if v or k in kept})

    # Jobs

    def _job(self, place: Place) -> None:
        obj = self._live(place)
        done = ("Complete", "Failed")
        if obj is None or any(c["type"] in done for c in (obj.get("status") or {}).get("conditions") or []):
            return
        now = self._core.stamp()
        if obj["spec"].get("suspend"):
            condition = _condition("Suspended", "True", "JobSuspended", "Job suspended", now)
            self._report("batch/v1/Job", place, {"conditions": [condition]})
            return
        pods = self._owned(obj, "Pod")
        for _ in range(obj["spec"]["completions"] - len(pods)):
            labels = {"batch.kubernetes.io/job-name": place[2], "job-name": place[2],
                      "batch.kubernetes.io/controller-uid": obj["metadata"]["uid"]}  # fmt: skip
            self._make_pod(obj, f"{place[2]}-", labels)
        kind = self._core.kinds.get("v1/Pod")
        for pod in filter(is_ready, pods):
            self._core.change(kind, place[1], pod["metadata"]["name"], lambda o: _finish(o, now))
        pods = self._owned(obj, "Pod")
        succeeded = sum((p.get("status") or {}).get("phase") == "Succeeded" for p in pods)
        started = (obj.get("status") or {}).get("startTime", now)
        status: Object = {"startTime": started, "terminating": 0, "ready": 0, "uncountedTerminatedPods": {}}
        status |= {"succeeded": succeeded} if succeeded else {}
        if succeeded >= obj["spec"]["completions"]:
            text = "Reached expected number of succeeded pods"
            status["completionTime"] = now
            status["conditions"] = [
                _condition(type_, "True", "CompletionsReached", text, now) | {"lastProbeTime": now}
                for type_ in ("SuccessCriteriaMet", "Complete")
            ]
        else:
            status["active"] = len(pods) - succeeded
        self._report("batch/v1/Job", place, status)


def _number(replica_set: Object) -> int:
    """Its revision."""
    return int((replica_set["metadata"].get("annotations") or {}).get(_REVISION, "0"))


def _to_zero(replica_set: Object) -> None:
    replica_set["spec"]["replicas"] = 0


def _labels(event: Event) -> bool:
    before = event.before.body["metadata"] if event.before else {}
    return bool(event.now.body["metadata"].get("labels") != before.get("labels"))


def reference(owner: Object) -> Object:
    """An owner reference to the controlling ``owner``."""
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}  # fmt: skip


def template_hash(template: Object) -> str:
    """Ten letters and digits that are the same for the same pod template."""
    number = int.from_bytes(hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()[:8], "big")
    return "".join(_ALPHABET[number // 27**i % 27] for i in range(10))


def _revision(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get("controller-revision-hash", ""))


def _condition(type_: str, status: str, reason: str, message: str, now: str) -> Object:
    return {"lastTransitionTime": now, "message": message, "reason": reason, "status": status, "type": type_}


def _aged(old: list[Object], new: list[Object]) -> list[Object]:
    """``new`` with the times of ``old`` where nothing but the time differs."""
    by_type = {c["type"]: c for c in old}
    result = []
    for condition in new:
        before = by_type.get(condition["type"])
        if before and before["status"] == condition["status"]:
            condition = {**condition, "lastTransitionTime": before["lastTransitionTime"]}
            if all(before.get(k) == condition[k] for k in ("reason", "message")):
                condition = before
        result.append(condition)
    return result


def _finish(pod: Object, now: str) -> None:
    status = pod["status"]
    status["phase"] = "Succeeded"
    for condition in status["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition.update(status="False", reason="PodCompleted", lastTransitionTime=now)
    for container in status["containerStatuses"]:
        since = (container["state"].get("running") or {}).get("startedAt", now)
        ended = {"exitCode": 0, "finishedAt": now, "reason": "Completed", "startedAt": since}
        container.update(ready=False, started=False, state={"terminated": ended})


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
