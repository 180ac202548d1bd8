"""Volume claims: bound to a fresh volume when their class exists and its binding mode allows."""

from __future__ import annotations

from collections.abc import Iterable

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.objects import Event, Place
from funoffshore.lab.kube.worker import Worker

CLAIM, CLASS = "PersistentVolumeClaim", "StorageClass.storage.k8s.io"
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


class Volumes:
    """Plays volume binder and provisioners. A claim whose class does not exist stays Pending."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._core = worker.core
        worker.handle(CLAIM, self._claim)
        worker.notice(self._notice)

    def _notice(self, event: Event) -> Iterable[Place]:
        if event.place[0] == CLASS and event.type == "ADDED":
            for stored in self._core.objects.scan(CLAIM):
                yield CLAIM, stored.body["metadata"]["namespace"], stored.body["metadata"]["name"]
        elif event.place[0] == "Pod" and event.type == "ADDED":
            for name in _claims(event.now.body):
                yield CLAIM, event.place[1], name
        elif event.place[0] == CLAIM and event.type == "DELETED":
            self._release(event.now.body)

    def _release(self, claim: Object) -> None:
        name = (claim.get("spec") or {}).get("volumeName")
        kind = self._core.kinds.get("v1/PersistentVolume")
        volume = self._core.find(kind, "", name) if name else None
        if volume is None:
            return
        if volume.body["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            self._core.delete(kind, "", str(name))
        else:
            self._core.change(kind, "", str(name), lambda o: o["status"].update(phase="Released"))

    def _class(self, claim: Object) -> Object | None:
        name = claim["spec"].get("storageClassName")
        classes = [stored.body for stored in self._core.objects.scan(CLASS)]
        if name is None:
            return next((c for c in classes if c["metadata"].get("annotations", {}).get(_DEFAULT) == "true"), None)
        return next((c for c in classes if c["metadata"]["name"] == name), None)

    def _claim(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None or (stored.body.get("status") or {}).get("phase") == "Bound":
            return
        claim = stored.body
        class_ = self._class(claim)
        waits = class_ is not None and class_.get("volumeBindingMode") == "WaitForFirstConsumer"
        if waits and not self._used(place):
            return
        if claim["spec"].get("volumeName"):
            self._bind(place, claim, claim["spec"]["volumeName"], claim["spec"].get("storageClassName", ""))
        elif class_ is not None:
            name = f"pvc-{claim['metadata']['uid']}"
            self._provision(name, claim, class_)
            self._bind(place, claim, name, class_["metadata"]["name"])

    def _used(self, place: Place) -> bool:
        return any(place[2] in _claims(stored.body) for stored in self._core.objects.scan("Pod", place[1]))

    def _provision(self, name: str, claim: Object, class_: Object) -> None:
        kind = self._core.kinds.get("v1/PersistentVolume")
        if self._core.find(kind, "", name) is not None:
            return
        meta = claim["metadata"]
        spec = {
            "accessModes": claim["spec"].get("accessModes", ["ReadWriteOnce"]),
            "capacity": {"storage": _asked(claim)}, "volumeMode": claim["spec"].get("volumeMode", "Filesystem"),
            "storageClassName": class_["metadata"]["name"],
            "hostPath": {"path": f"/var/lib/rancher/k3s/storage/{name}"},
            "persistentVolumeReclaimPolicy": class_.get("reclaimPolicy", "Delete"),
            "claimRef": {"apiVersion": "v1", "kind": CLAIM, "name": meta["name"], "namespace": meta["namespace"],
                         "uid": meta["uid"]},
        }  # fmt: skip
        provisioner = {"pv.kubernetes.io/provisioned-by": class_.get("provisioner", "")}
        self._core.create(kind, {"metadata": {"name": name, "annotations": provisioner}, "spec": spec}, "provisioner")
        self._core.change(kind, "", name, lambda o: o.update(status={"phase": "Bound"}))

    def _bind(self, place: Place, claim: Object, volume: str, class_: str) -> None:
        def bind(obj: Object) -> None:
            obj["spec"]["volumeName"] = volume
            obj["spec"]["storageClassName"] = class_
            obj["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bind-completed"] = "yes"
            obj["status"] = {"phase": "Bound", "accessModes": obj["spec"].get("accessModes", ["ReadWriteOnce"]),
                             "capacity": {"storage": _asked(claim)}}  # fmt: skip

        self._core.change(self._core.kinds.get("v1/PersistentVolumeClaim"), place[1], place[2], bind)


def _claims(pod: Object) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes
            if (v.get("persistentVolumeClaim") or {}).get("claimName")]  # fmt: skip


def _asked(claim: Object) -> str:
    resources = claim["spec"].get("resources") or {}
    return str((resources.get("requests") or {}).get("storage", "1Gi"))
