"""Reading and changing objects as the API server does it: names, versions, managers, conflicts, deletion."""

from __future__ import annotations

import datetime
import json
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.kube import decode, defaults, fields, refusals, schema, shapes
from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.kinds import Kind, Kinds
from funoffshore.lab.kube.objects import Objects, Place, Stored

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_UNDELETABLE = {"default", "kube-system", "kube-public"}
CRD = "CustomResourceDefinition.apiextensions.k8s.io"


class Core:
    """The verbs. Everything returned may be changed by the caller; what is passed in is not kept."""

    def __init__(self, kit: Kit, name: str) -> None:
        self.kit = kit
        self.objects = Objects(kit.store, f"kube/{name}")
        self.kinds = Kinds()
        for stored in self.objects.scan(CRD):
            if established(stored.body):
                self.kinds.add(stored.body)

    # Time and names

    def stamp(self) -> str:
        """Now, as Kubernetes writes times."""
        return stamp(self.kit.clock.now())

    def not_found(self, kind: Kind, name: str) -> ApiError:
        return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found')

    def place(self, kind: Kind, namespace: str, name: str) -> Place:
        return kind.bucket, namespace if kind.namespaced else "", name

    # Reading

    def served(self, kind: Kind, stored: Stored) -> Object:
        """A copy in the version that was asked for."""
        obj = stored.copy()
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.name
        return obj

    def find(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        return self.objects.get(self.place(kind, namespace, name))

    def need(self, kind: Kind, namespace: str, name: str) -> Stored:
        stored = self.find(kind, namespace, name)
        if stored is None:
            raise self.not_found(kind, name)
        return stored

    # Creating

    def create(self, kind: Kind, obj: Object, manager: str, *, dry: bool = False, keep_status: bool = False) -> Object:
        """``obj`` may lack a name when it has a generateName. Raises ApiError 400, 403, 404, 409, 422."""
        new = _plain(obj)
        decode.check(kind, new)
        meta = new["metadata"]
        meta.pop("resourceVersion", None)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(secrets.choice(_SUFFIX) for _ in range(5))
        if kind.status and not keep_status:
            new.pop("status", None)
        with self.objects.lock:
            self._admit(kind, new)
            meta.pop("managedFields", None)
            self._born(kind, new)
            self._settle(kind, new, None)
            entry = fields.Entry(manager, "Update", kind.api_version, "", self.stamp(), set())
            fields.note_update(None, new, shapes.of(kind), entry)
            return self._store(kind, new, dry=dry)

    def _admit(self, kind: Kind, new: Object) -> None:
        meta = new["metadata"]
        name, namespace = meta.get("name", ""), meta.get("namespace", "")
        refusals.check_name(kind, name)
        if kind.namespaced:
            if not namespace:
                raise ApiError(400, "BadRequest", "an empty namespace may not be set during creation")
            home = self.objects.get(("Namespace", "", namespace))
            if home is None:
                raise ApiError(404, "NotFound", f'namespaces "{namespace}" not found')
            if home.body["metadata"].get("deletionTimestamp"):
                raise ApiError(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: unable to create new content '
                               f"in namespace {namespace} because it is being terminated")  # fmt: skip
        else:
            meta.pop("namespace", None)
        if self.find(kind, namespace, name) is not None:
            raise ApiError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists')

    def _born(self, kind: Kind, new: Object) -> None:
        meta = new["metadata"]
        for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"):
            meta.pop(key, None)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = self.stamp()
        if kind.generation:
            meta["generation"] = 1
        if kind.status and not kind.crd:  # a struct in Go, written even when it is empty
            new.setdefault("status", {})

    # Changing

    def update(
        self, kind: Kind, namespace: str, name: str, obj: Object, manager: str, *, sub: str = "", dry: bool = False
    ) -> Object:
        """Replaces the object (``sub`` empty) or its status. Raises ApiError 400, 404, 409, 422."""
        with self.objects.lock:
            old = self.need(kind, namespace, name)
            new = _plain(obj)
            decode.check_metadata(new.get("metadata"))
            self._check_precondition(kind, old, new)
            if kind.crd and not new["metadata"].get("resourceVersion"):
                why = "Invalid value: 0: must be specified for an update"
                cause = {"reason": "FieldValueInvalid", "field": "metadata.resourceVersion", "message": why}
                raise refusals.InvalidError(kind, name, [cause])
            return self._replace(kind, old, new, manager, sub, dry=dry)

    def patch(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], Object], manager: str,
        *, sub: str = "", dry: bool = False,
    ) -> Object:  # fmt: skip
        """Stores ``change(copy)``. Raises ApiError 400, 404, 409, 422."""
        with self.objects.lock:
            old = self.need(kind, namespace, name)
            new = change(self.served(kind, old))
            decode.check_metadata(new.get("metadata"))
            self._check_precondition(kind, old, new)
            return self._replace(kind, old, new, manager, sub, dry=dry)

    def _check_precondition(self, kind: Kind, old: Stored, new: Object) -> None:
        meta, name = new["metadata"], old.body["metadata"]["name"]
        if meta.get("name", name) != name:
            raise ApiError(400, "BadRequest", f"the name of the object ({meta.get('name')}) does not match the name "
                           f"on the URL ({name})")  # fmt: skip
        if meta.get("resourceVersion", str(old.version)) != str(old.version):
            raise ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": the object '
                           "has been modified; please apply your changes to the latest version and try "
                           "again")  # fmt: skip
        if meta.get("uid", old.body["metadata"]["uid"]) != old.body["metadata"]["uid"]:
            raise ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": Precondition '
                           "failed: UID in precondition differs from UID in object meta")  # fmt: skip

    def _replace(self, kind: Kind, old: Stored, new: Object, manager: str, sub: str, *, dry: bool) -> Object:
        before = self.served(kind, old)
        if sub == "status":
            new = {**old.copy(), "status": new.get("status", {})}
            if new["status"] is None:
                del new["status"]
        elif kind.status:
            new.pop("status", None)
            if "status" in before:
                new["status"] = before["status"]
        _inherit(before, new)
        self._settle(kind, new, before)
        entry = fields.Entry(manager, "Update", kind.api_version, sub, self.stamp(), set())
        raw = new["metadata"].get("managedFields")
        fields.note_update(_with_managers(before, raw), new, shapes.of(kind), entry)
        return self._store(kind, new, before, dry=dry)

    def apply(
        self, kind: Kind, namespace: str, name: str, obj: Object, manager: str,
        *, force: bool = False, sub: str = "", dry: bool = False,
    ) -> Object:  # fmt: skip
        """Server-side apply. Raises ApiError 400, 403, 404, 409 (ConflictError), 422."""
        config = _plain(obj)
        meta = config.setdefault("metadata", {})
        refusals.check_typed(kind, namespace, name, config)
        if meta.get("managedFields"):
            raise ApiError(400, "BadRequest", "metadata.managedFields must be nil")
        meta["name"] = name
        if kind.namespaced:
            meta["namespace"] = namespace
        mine = fields.Entry(manager, "Apply", kind.api_version, sub, self.stamp(), set())
        with self.objects.lock:
            old = self.find(kind, namespace, name)
            if old is None and sub:
                raise self.not_found(kind, name)
            _keep(config, kind, sub)
            if kind.bucket == "Secret":
                defaults.fill(kind, config)
            if old is None:
                return self._apply_new(kind, config, mine, dry=dry)
            before = self.served(kind, old)
            self._check_precondition(kind, old, config)
            new = fields.apply(before, config, shapes.of(kind), mine, force=force)
            new["apiVersion"], new["kind"] = kind.api_version, kind.name
            _inherit(before, new)
            self._settle(kind, new, before)
            return self._store(kind, new, before, dry=dry)

    def _apply_new(self, kind: Kind, config: Object, mine: fields.Entry, *, dry: bool) -> Object:
        self._admit(kind, config)
        config["metadata"].pop("resourceVersion", None)
        config["metadata"].pop("uid", None)
        new = fields.apply({"metadata": {}}, config, shapes.of(kind), mine, force=True)
        new["apiVersion"], new["kind"] = kind.api_version, kind.name
        self._born(kind, new)
        self._settle(kind, new, None)
        return self._store(kind, new, dry=dry)

    def _settle(self, kind: Kind, new: Object, before: Object | None) -> None:
        """Defaults and validation, in place."""
        new["apiVersion"], new["kind"] = kind.api_version, kind.name
        decode.check(kind, new)
        if kind.schema is not None:
            settled = schema.settle(new, kind.schema)
            new.clear()
            new.update(settled)
            causes = list(schema.check(new, kind.schema))
        else:
            defaults.fill(kind, new)
            causes = list(defaults.check(kind, new, before))
        if causes:
            raise refusals.InvalidError(kind, new["metadata"]["name"], causes)

    def _store(self, kind: Kind, new: Object, before: Object | None = None, *, dry: bool = False) -> Object:
        """Commits ``new``, removes it when its last finalizer went, or leaves all alone when nothing changed."""
        meta = new["metadata"]
        place = self.place(kind, meta.get("namespace", ""), meta["name"])
        if before is not None:
            if kind.generation and _essence(before) != _essence(new):
                meta["generation"] = before["metadata"].get("generation", 0) + 1
            if _same(before, new):
                return before
        if dry:
            return _plain(new)
        if before is not None and meta.get("deletionTimestamp") and not held(kind, new):
            last = self.objects.remove(place)
            return self.served(kind, last) if last else new
        if kind.storage:
            new["apiVersion"] = f"{kind.group}/{kind.storage}" if kind.group else kind.storage
        return self.served(kind, self.objects.put(place, new))

    # Deleting

    def delete(
        self, kind: Kind, namespace: str, name: str, *, policy: str = "Background", dry: bool = False,
        preconditions: Object | None = None,
    ) -> tuple[Object, bool]:  # fmt: skip
        """The last state, and whether the object is gone already. Raises ApiError 403, 404, 409."""
        with self.objects.lock:
            old = self.need(kind, namespace, name)
            for key, value in (preconditions or {}).items():
                if old.body["metadata"].get(key) != value:
                    raise ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": '
                                   f"Precondition failed: {key} in precondition: {value}")  # fmt: skip
            if kind.bucket == "Namespace" and name in _UNDELETABLE:
                raise ApiError(403, "Forbidden", f'namespaces "{name}" is forbidden: this namespace may not be deleted')
            new = self.served(kind, old)
            meta = new["metadata"]
            extra = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy)
            if extra and not meta.get("deletionTimestamp"):
                meta["finalizers"] = [*meta.get("finalizers", []), extra]
            if dry:
                return new, not held(kind, new)
            if not held(kind, new):
                last = self.objects.remove(self.place(kind, namespace, name))
                return (self.served(kind, last) if last else new), True
            if not meta.get("deletionTimestamp"):
                meta["deletionTimestamp"] = self.stamp()
                meta["deletionGracePeriodSeconds"] = 0
                if kind.generation:
                    meta["generation"] = meta.get("generation", 0) + 1
                if kind.bucket == "Namespace":
                    new.setdefault("status", {})["phase"] = "Terminating"
                new = self._store(kind, new)
            return new, False

    # For the parts of the lab that play controllers

    def change(self, kind: Kind, namespace: str, name: str, edit: Callable[[Object], None]) -> Object | None:
        """Lets ``edit`` change a copy of the whole object and stores it; managers are not recorded.

        ``edit`` runs without the lock, so it may take others, and again when somebody else was faster.
        """
        while True:
            old = self.find(kind, namespace, name)
            if old is None:
                return None
            new = self.served(kind, old)
            edit(new)
            with self.objects.lock:
                if self.find(kind, namespace, name) is old:
                    return self._store(kind, new, self.served(kind, old))


def _plain(obj: Object) -> Object:
    """A copy that shares nothing; raises ApiError 400 for what is not JSON."""
    try:
        fresh: Object = json.loads(json.dumps(obj))
    except (TypeError, ValueError, RecursionError) as why:
        raise ApiError(400, "BadRequest", f"the object is not JSON: {why}") from None
    return fresh


def stamp(seconds: float) -> str:
    """Unix time as RFC 3339 in UTC, whole seconds."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def established(crd: Object) -> bool:
    """Whether the API serves what the CRD defines."""
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def held(kind: Kind, obj: Object) -> bool:
    """Whether finalizers keep the object from going away."""
    in_spec = kind.bucket == "Namespace" and bool((obj.get("spec") or {}).get("finalizers"))
    return in_spec or bool(obj["metadata"].get("finalizers"))


def _keep(config: Object, kind: Kind, sub: str) -> None:
    """Leaves in ``config`` only what the subresource may set."""
    if sub == "status":
        for key in [k for k in config if k not in ("apiVersion", "kind", "metadata", "status")]:
            del config[key]
        config["metadata"] = {k: v for k, v in config["metadata"].items() if k in ("name", "namespace")}
    elif kind.status:
        config.pop("status", None)


def _inherit(before: Object, new: Object) -> None:
    """What no client may change."""
    old, meta = before["metadata"], new["metadata"]
    for key in ("uid", "creationTimestamp", "generation", "name", "namespace", "resourceVersion",
                "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"):  # fmt: skip
        if key in old:
            meta[key] = old[key]
        else:
            meta.pop(key, None)


def _with_managers(before: Object, raw: Any) -> Object:
    """``before``, with the managers that a client sent where it reset them (``managedFields: [{}]``)."""
    if isinstance(raw, list) and raw != before["metadata"].get("managedFields"):
        return {**before, "metadata": {**before["metadata"], "managedFields": [r for r in raw if r]}}
    return before


def _essence(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status", "apiVersion")}


def _same(before: Object, new: Object) -> bool:
    """Equal but for versions and the times in managedFields."""

    def bare(obj: Object) -> Object:
        meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
        managed = [{k: v for k, v in m.items() if k != "time"} for m in obj["metadata"].get("managedFields", [])]
        return {**obj, "metadata": {**meta, "managedFields": managed}, "apiVersion": ""}

    return bare(before) == bare(new)
