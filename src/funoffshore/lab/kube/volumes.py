"""Volume claims: bound to a fresh volume when their class exists and its binding mode allows."""

from __future__ import annotations

import re
from collections.abc import Iterable

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.events import Events
from funoffshore.lab.kube.objects import Event, Place
from funoffshore.lab.kube.worker import Worker

CLAIM, VOLUME, CLASS = "PersistentVolumeClaim", "PersistentVolume", "StorageClass.storage.k8s.io"
_BINDER = "persistentvolume-controller"
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


class Volumes:
    """Plays volume binder and provisioners. A claim whose class does not exist stays Pending."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._core = worker.core
        self._events = Events(worker.core)
        worker.handle(CLAIM, self._claim)
        worker.handle(VOLUME, self._volume)
        worker.notice(self._notice)

    def _notice(self, event: Event) -> Iterable[Place]:
        if event.place[0] == CLASS and event.type == "ADDED":
            for stored in self._core.objects.scan(CLAIM):
                yield CLAIM, stored.body["metadata"]["namespace"], stored.body["metadata"]["name"]
        elif event.place[0] == "Pod" and event.type in ("ADDED", "DELETED"):
            for name in _claims(event.now.body):
                yield CLAIM, event.place[1], name
        elif event.place[0] == CLAIM and event.type == "DELETED":
            self._release(event.now.body)

    def _release(self, claim: Object) -> None:
        name = (claim.get("spec") or {}).get("volumeName")
        kind = self._core.kinds.get("v1/PersistentVolume")
        if not name or self._core.find(kind, "", name) is None:
            return
        volume = self._core.change(kind, "", str(name), lambda o: o["status"].update(phase="Released"))
        if volume and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            self._core.delete(kind, "", str(name))

    def _let_go(self, place: Place, obj: Object, finalizer: str) -> None:
        """Ends the protection of what is deleted and no longer used."""
        kept = [f for f in obj["metadata"].get("finalizers") or () if f != finalizer]
        kind = self._core.kinds.get(f"v1/{place[0]}")
        self._core.change(kind, place[1], place[2], lambda o: o["metadata"].update(finalizers=kept))

    # Volumes that somebody made

    def _volume(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None:
            return
        volume = stored.body
        status = volume.get("status") or {}
        if volume["metadata"].get("deletionTimestamp"):
            if status.get("phase") != "Bound":
                self._let_go(place, volume, "kubernetes.io/pv-protection")
        elif status.get("phase", "Pending") == "Pending":
            kind = self._core.kinds.get("v1/PersistentVolume")
            self._core.change(kind, "", place[2], lambda o: o["status"].update(phase="Available"))
            for claim in self._core.objects.scan(CLAIM):
                meta = claim.body["metadata"]
                self._worker.soon((CLAIM, meta["namespace"], meta["name"]))

    def _available(self, claim: Object) -> Object | None:
        """The smallest volume that somebody made and that the claim can have."""
        wanted, name = claim["spec"], claim["spec"].get("storageClassName") or ""
        fit = [
            v for stored in self._core.objects.scan(VOLUME) if (v := stored.body)["status"].get("phase") == "Available"
            and (v["spec"].get("storageClassName") or "") == name and not v["spec"].get("claimRef")
            and set(wanted.get("accessModes") or ()) <= set(v["spec"].get("accessModes") or ())
            and amount(v["spec"]["capacity"]["storage"]) >= amount(_asked(claim))
        ]  # fmt: skip
        return min(fit, key=lambda v: amount(v["spec"]["capacity"]["storage"]), default=None)

    def _take(self, place: Place, claim: Object, volume: Object) -> None:
        meta, name = claim["metadata"], volume["metadata"]["name"]
        ref = {"apiVersion": "v1", "kind": CLAIM, "name": meta["name"], "namespace": meta["namespace"],
               "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}  # fmt: skip

        def bind(obj: Object) -> None:
            obj["spec"]["claimRef"] = ref
            obj["status"]["phase"] = "Bound"
            obj["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bound-by-controller"] = "yes"

        self._core.change(self._core.kinds.get("v1/PersistentVolume"), "", name, bind)
        self._bind(place, claim, name, volume["spec"].get("storageClassName") or "", volume["spec"]["capacity"])

    def _class(self, claim: Object) -> Object | None:
        name = claim["spec"].get("storageClassName")
        classes = [stored.body for stored in self._core.objects.scan(CLASS)]
        if name is None:
            return next((c for c in classes if c["metadata"].get("annotations", {}).get(_DEFAULT) == "true"), None)
        return next((c for c in classes if c["metadata"]["name"] == name), None)

    def _claim(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None:
            return
        claim = stored.body
        if claim["metadata"].get("deletionTimestamp"):
            if not self._used(place):
                self._let_go(place, claim, "kubernetes.io/pvc-protection")
        elif (claim.get("status") or {}).get("phase") != "Bound":
            self._find(place, claim)

    def _find(self, place: Place, claim: Object) -> None:
        class_ = self._class(claim)
        waits = class_ is not None and class_.get("volumeBindingMode") == "WaitForFirstConsumer"
        if waits and not self._used(place):
            text = "waiting for first consumer to be created before binding"
            self._events.say(claim, "WaitForFirstConsumer", text, _BINDER)
            return
        if claim["spec"].get("volumeName"):
            self._bind(place, claim, claim["spec"]["volumeName"], claim["spec"].get("storageClassName", ""))
        elif (volume := self._available(claim)) is not None:
            self._take(place, claim, volume)
        elif class_ is not None:
            name = f"pvc-{claim['metadata']['uid']}"
            self._provision(name, claim, class_)
            self._bind(place, claim, name, class_["metadata"]["name"])
        elif claim["spec"].get("storageClassName"):
            text = f'storageclass.storage.k8s.io "{claim["spec"]["storageClassName"]}" not found'
            self._events.warn(claim, "ProvisioningFailed", text, _BINDER)
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._events.say(claim, "FailedBinding", text, _BINDER)

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
        made = {"metadata": {"name": name, "annotations": provisioner}, "spec": spec, "status": {"phase": "Bound"}}
        self._core.create(kind, made, "provisioner", keep_status=True)

    def _bind(self, place: Place, claim: Object, volume: str, class_: str, capacity: Object | None = None) -> None:
        def bind(obj: Object) -> None:
            obj["spec"]["volumeName"] = volume
            if class_ or "storageClassName" in obj["spec"]:
                obj["spec"]["storageClassName"] = class_
            obj["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bind-completed"] = "yes"
            obj["status"] = {"phase": "Bound", "accessModes": obj["spec"].get("accessModes", ["ReadWriteOnce"]),
                             "capacity": capacity or {"storage": _asked(claim)}}  # fmt: skip

        self._core.change(self._core.kinds.get("v1/PersistentVolumeClaim"), place[1], place[2], bind)


def _claims(pod: Object) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes
            if (v.get("persistentVolumeClaim") or {}).get("claimName")]  # fmt: skip


_UNITS = {"": 1.0, "m": 1e-3, **{p: 1000.0**n for n, p in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
          **{f"{p}i": 1024.0**n for n, p in enumerate("KMGTPE", 1)}}  # fmt: skip


def amount(quantity: str) -> float:
    """A Kubernetes quantity as a number; 0 for what is none."""
    match = re.fullmatch(r"([+-]?[0-9.]+)([A-Za-z]*)", quantity)
    return float(match[1]) * _UNITS.get(match[2], 0.0) if match else 0.0


def _asked(claim: Object) -> str:
    resources = claim["spec"].get("resources") or {}
    return str((resources.get("requests") or {}).get("storage", "1Gi"))
