"""Controllers for what every cluster tidies by itself: namespaces, CRDs, orphans, services, API services."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.bodies import CLEANUP, CRD
from funoffshore.lab.kube.core import established
from funoffshore.lab.kube.objects import Event, Place
from funoffshore.lab.kube.worker import Worker

API_SERVICE = "APIService.apiregistration.k8s.io"
_KEPT = (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt"))
"""In every namespace; made again when somebody deletes them."""
_ORPHANS = "orphans"
"""Not a bucket: places in the queue whose name is the UID of an owner that went."""


class Housekeeping:
    """``address`` is what services of type LoadBalancer get; empty: they stay pending."""

    def __init__(self, worker: Worker, *, address: str, ca: str) -> None:
        self._worker = worker
        self._core = worker.core
        self._address = address
        self._ca = ca
        worker.handle("Namespace", self._namespace)
        worker.handle(CRD, self._crd)
        worker.handle("Service", self._service)
        worker.handle(API_SERVICE, self._api_service)
        worker.handle(_ORPHANS, self._orphans)
        worker.notice(self._notice)

    def _notice(self, event: Event) -> Iterable[Place]:
        meta = event.now.body["metadata"]
        if event.type == "DELETED":
            yield _ORPHANS, "", meta["uid"]
            if meta.get("namespace"):
                home = self._core.objects.get(("Namespace", "", meta["namespace"]))
                kept = (event.place[0], meta["name"]) in _KEPT
                if home and (kept or home.body["metadata"].get("deletionTimestamp")):
                    yield "Namespace", "", meta["namespace"]
            if event.place[0] == CRD:
                self._core.kinds.drop(meta["name"])
        elif meta.get("deletionTimestamp") and {"foregroundDeletion", "orphan"} & set(meta.get("finalizers", [])):
            yield _ORPHANS, "", meta["uid"]

    # Namespaces

    def _namespace(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None:
            return
        kind = self._core.kinds.get("v1/Namespace")
        name = place[2]
        if stored.body["metadata"].get("deletionTimestamp"):
            if self._empty(name):
                self._core.change(kind, "", name, lambda o: o["spec"].update(finalizers=[]))
            return
        if (stored.body.get("status") or {}).get("phase") != "Active":
            self._core.change(kind, "", name, lambda o: o.update(status={"phase": "Active"}))
        self._ensure("v1/ServiceAccount", name, {"metadata": {"name": "default"}})
        config = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self._ca}}
        self._ensure("v1/ConfigMap", name, config)

    def _ensure(self, key: str, namespace: str, obj: Object) -> None:
        kind = self._core.kinds.get(key)
        if self._core.find(kind, namespace, obj["metadata"]["name"]) is None:
            obj["metadata"]["namespace"] = namespace
            self._core.create(kind, obj, "kube-controller-manager")

    def _empty(self, namespace: str) -> bool:
        """Begins to delete all that is in the namespace. True when nothing is left."""
        left = False
        for kind in self._core.kinds.all():
            if not kind.namespaced or kind.version != kind.storage:
                continue
            for stored in self._core.objects.scan(kind.bucket, namespace):
                meta = stored.body["metadata"]
                if not meta.get("deletionTimestamp"):
                    _, gone = self._core.delete(kind, namespace, meta["name"])
                    left = left or not gone
                else:
                    left = True
        return not left

    # CustomResourceDefinitions

    def _crd(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None:
            return
        crd = stored.body
        kind = self._core.kinds.get("apiextensions.k8s.io/v1/CustomResourceDefinition")
        name = place[2]
        if crd["metadata"].get("deletionTimestamp"):
            self._empty_crd(crd)
            return
        fresh = _crd_status(crd, self._core.stamp())
        # Served before it says so: whoever sees Established may use it at once.
        self._core.kinds.add(crd)
        self._core.change(kind, "", name, lambda o: o.update(status=fresh))

    def _empty_crd(self, crd: Object) -> None:
        left = False
        for kind in self._core.kinds.all():
            if kind.crd != crd["metadata"]["name"]:
                continue
            for stored in self._core.objects.scan(kind.bucket):
                meta = stored.body["metadata"]
                if not meta.get("deletionTimestamp"):
                    self._core.delete(kind, meta.get("namespace", ""), meta["name"])
                left = True
        own = self._core.kinds.get("apiextensions.k8s.io/v1/CustomResourceDefinition")
        if left:
            self._worker.later(0.2, (CRD, "", crd["metadata"]["name"]))
        else:
            self._core.change(own, "", crd["metadata"]["name"], _cleaned_up)

    # Owners

    def _orphans(self, place: Place) -> None:
        uid = place[2]
        kept = self._core.objects.by_uid(uid)
        owner = kept.body if kept else None
        finalizers = owner["metadata"].get("finalizers", []) if owner else []
        dependents = [stored.body for stored in self._core.objects.owned(uid)]
        if "orphan" in finalizers:
            for obj in dependents:
                self._edit(obj, lambda o: _disown(o, uid))
        elif owner is None or "foregroundDeletion" in finalizers:
            for obj in dependents:
                self._collect(obj, uid, foreground=owner is not None)
        if owner is not None and (dependents == [] or "orphan" in finalizers):
            gone = {"orphan", "foregroundDeletion"}
            self._edit(owner, lambda o: o["metadata"].update(
                finalizers=[f for f in o["metadata"].get("finalizers", []) if f not in gone]))  # fmt: skip
        elif owner is not None and "foregroundDeletion" in finalizers:
            self._worker.later(0.2, place)

    def _collect(self, obj: Object, uid: str, *, foreground: bool) -> None:
        others = [o["uid"] for o in obj["metadata"]["ownerReferences"] if o["uid"] != uid]
        if any(self._core.objects.by_uid(other) for other in others):
            self._edit(obj, lambda o: _disown(o, uid))
            return
        kind = self._core.kinds.find(f"{obj['apiVersion']}/{obj['kind']}")
        if kind and not obj["metadata"].get("deletionTimestamp"):
            policy = "Foreground" if foreground else "Background"
            self._core.delete(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], policy=policy)

    def _edit(self, obj: Object, edit: Callable[[Object], None]) -> None:
        kind = self._core.kinds.find(f"{obj['apiVersion']}/{obj['kind']}")
        if kind:
            self._core.change(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], edit)

    # Services and API services

    def _service(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None or stored.body["metadata"].get("deletionTimestamp"):
            return
        ports = stored.body["spec"].get("ports") or []

        def settle(obj: Object) -> None:
            spec = obj["spec"]
            status = obj.setdefault("status", {}).setdefault("loadBalancer", {})
            if spec["type"] == "LoadBalancer" and self._address:
                shown = [{"port": p["port"], "protocol": p["protocol"]} for p in ports if "port" in p]
                status["ingress"] = [{"ip": self._address, "ipMode": "VIP", "ports": shown}]
            else:
                status.pop("ingress", None)

        self._core.change(self._core.kinds.get("v1/Service"), place[1], place[2], settle)

    def _api_service(self, place: Place) -> None:
        stored = self._core.objects.get(place)
        if stored is None or (stored.body.get("status") or {}).get("conditions"):
            return
        local = not (stored.body.get("spec") or {}).get("service")
        condition = {
            "type": "Available", "status": "True", "lastTransitionTime": self._core.stamp(),
            "reason": "Local" if local else "Passed",
            "message": "Local APIServices are always available" if local else "all checks passed",
        }  # fmt: skip
        kind = self._core.kinds.get("apiregistration.k8s.io/v1/APIService")
        self._core.change(kind, "", place[2], lambda o: o.update(status={"conditions": [condition]}))


def _cleaned_up(crd: Object) -> None:
    meta = crd["metadata"]
    meta["finalizers"] = [f for f in meta.get("finalizers", ()) if f != CLEANUP]


def _disown(obj: Object, uid: str) -> None:
    left = [o for o in obj["metadata"].get("ownerReferences", []) if o["uid"] != uid]
    obj["metadata"]["ownerReferences"] = left
    if not left:
        del obj["metadata"]["ownerReferences"]


def _crd_status(crd: Object, now: str) -> Object:
    """The status of an accepted CRD, its old times kept."""
    status = dict(crd.get("status") or {})
    spec = crd["spec"]
    if not established(crd):
        status["conditions"] = [
            {"lastTransitionTime": now, "message": "no conflicts found", "reason": "NoConflicts", "status": "True",
             "type": "NamesAccepted"},
            {"lastTransitionTime": now, "message": "the initial names have been accepted",
             "reason": "InitialNamesAccepted", "status": "True", "type": "Established"},
        ]  # fmt: skip
    status["acceptedNames"] = spec["names"]
    storage = [v["name"] for v in spec["versions"] if v.get("storage")]
    status["storedVersions"] = sorted({*(status.get("storedVersions") or []), *storage})
    return status
