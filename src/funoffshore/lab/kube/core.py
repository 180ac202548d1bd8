"""Reading and changing objects as the API server does it: names, versions, managers, conflicts, deletion."""

from __future__ import annotations

import datetime
import json
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.kube import bodies, decode, defaults, fields, refusals, schema, shapes, typed, validation
from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.bodies import CRD
from funoffshore.lab.kube.kinds import Kind, Kinds
from funoffshore.lab.kube.objects import Objects, Place, Stored

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_PROTECTED = {
    "PersistentVolumeClaim": "kubernetes.io/pvc-protection",
    "PersistentVolume": "kubernetes.io/pv-protection",
}
_UNDELETABLE = {"default", "kube-system", "kube-public"}


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
            raise refusals.not_found(kind, name)
        return stored

    # Creating

    def create(
        self, kind: Kind, obj: Object, manager: str, *, dry: bool = False, keep_status: bool = False,
        rule: decode.Rule = decode.LENIENT,
    ) -> Object:  # fmt: skip
        """``obj`` may lack a name when it has a generateName. Raises ApiError 400, 403, 404, 409, 422."""
        new = self._read(kind, _plain(obj), rule)
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
            fields.note_update(_nothing(kind), new, shapes.of(kind), entry, kind.status)
            return self._store(kind, new, dry=dry)

    def _read(self, kind: Kind, obj: Object, rule: decode.Rule) -> Object:
        """``obj`` as its kind has it. Raises ApiError 400."""
        new, unknown = decode.body(kind, obj)
        if why := rule.judge([*unknown, *schema.unknown(new, kind.schema)]):
            raise refusals.unfit(kind, why)
        return new

    def _admit(self, kind: Kind, new: Object) -> None:
        meta = new["metadata"]
        name, namespace = meta.get("name", ""), meta.get("namespace", "")
        if kind.namespaced:
            if not namespace:
                raise refusals.bad("an empty namespace may not be set during creation")
            home = self.objects.get(("Namespace", "", namespace))
            if home is None:
                raise refusals.no_namespace(namespace)
            if home.body["metadata"].get("deletionTimestamp"):
                why = f"unable to create new content in namespace {namespace} because it is being terminated"
                raise refusals.forbidden(kind, name, why)
        else:
            meta.pop("namespace", None)
        if name and self.find(kind, namespace, name) is not None:
            raise refusals.exists(kind, name)

    def _born(self, kind: Kind, new: Object) -> None:
        meta = new["metadata"]
        for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"):
            meta.pop(key, None)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = self.stamp()
        if kind.generation:
            meta["generation"] = 1
        if kind.bucket in _PROTECTED:
            meta["finalizers"] = [*dict.fromkeys([*meta.get("finalizers", ()), _PROTECTED[kind.bucket]])]

    # Changing

    def update(
        self, kind: Kind, namespace: str, name: str, obj: Object, manager: str, *, sub: str = "", dry: bool = False,
        rule: decode.Rule = decode.LENIENT,
    ) -> Object:  # fmt: skip
        """Replaces the object (``sub`` empty) or its status. Raises ApiError 400, 404, 409, 422."""
        new = self._read(kind, _plain(obj), rule)
        with self.objects.lock:
            old = self.need(kind, namespace, name)
            self._check_precondition(kind, old, new)
            if kind.crd and not new["metadata"].get("resourceVersion"):
                why = "Invalid value: 0: must be specified for an update"
                raise refusals.InvalidError(kind, name, [refusals.cause("Invalid", "metadata.resourceVersion", why)])
            return self._replace(kind, old, new, manager, sub, dry=dry)

    def patch(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], Object], manager: str,
        *, sub: str = "", dry: bool = False, rule: decode.Rule = decode.LENIENT, quoted: Any = None,
    ) -> Object:  # fmt: skip
        """Stores ``change(copy)``. Raises ApiError 400, 404, 409, 422; ``quoted`` is what a refusal says that it was
        given, None: the whole object after the change."""
        with self.objects.lock:
            old = self.need(kind, namespace, name)
            changed = change(self.served(kind, old))
            try:
                new, unknown = decode.fit(kind, changed)
                why = rule.judge([*unknown, *schema.unknown(new, kind.schema)])
            except decode.GoError as wrong:
                why = str(wrong)
            if why:
                raise refusals.patch(changed if quoted is None else quoted, why)
            self._check_precondition(kind, old, new)
            return self._replace(kind, old, new, manager, sub, dry=dry)

    def _check_precondition(self, kind: Kind, old: Stored, new: Object) -> None:
        meta, name = new["metadata"], old.body["metadata"]["name"]
        if meta.get("name", name) != name:
            raise refusals.bad(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL ({name})"
            )
        if meta.get("resourceVersion", str(old.version)) != str(old.version):
            raise refusals.changed(kind, name)
        uid = old.body["metadata"]["uid"]
        if (other := meta.get("uid", uid)) != uid:
            why = refusals.cause("Invalid", "metadata.uid", f'Invalid value: "{other}": field is immutable')
            raise refusals.InvalidError(kind, name, [why])

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
        bodies.inherit(before, new)
        self._settle(kind, new, before)
        entry = fields.Entry(manager, "Update", kind.api_version, sub, self.stamp(), set())
        raw = new["metadata"].get("managedFields")
        fields.note_update(bodies.with_managers(before, raw), new, shapes.of(kind), entry, kind.status and not sub)
        return self._store(kind, new, before, dry=dry)

    def apply(
        self, kind: Kind, namespace: str, name: str, obj: Object, manager: str,
        *, force: bool = False, sub: str = "", dry: bool = False,
    ) -> Object:  # fmt: skip
        """Server-side apply. Raises ApiError 400, 403, 404, 409 (ConflictError), 422."""
        config = self._applied(kind, name, _plain(obj))
        meta = config["metadata"]
        if kind.namespaced:
            meta["namespace"] = namespace
        mine = fields.Entry(manager, "Apply", kind.api_version, sub, self.stamp(), set())
        with self.objects.lock:
            old = self.find(kind, namespace, name)
            if old is None and sub:
                raise refusals.not_found(kind, name)
            bodies.keep(config, kind, sub)
            if old is None:
                return self._apply_new(kind, config, mine, dry=dry)
            before = self.served(kind, old)
            self._check_precondition(kind, old, config)
            new = fields.apply(before, config, shapes.of(kind), mine, force=force, over=bodies.kubectl(before, manager))
            if bodies.kubectl(before, manager):
                new["metadata"]["annotations"][bodies.LAST_APPLIED] = bodies.last_applied(config)
            new["apiVersion"], new["kind"] = kind.api_version, kind.name
            bodies.inherit(before, new)
            self._settle(kind, new, before)
            return self._store(kind, new, before, dry=dry)

    def _applied(self, kind: Kind, name: str, config: Object) -> Object:
        """What is applied, as its kind has it. Raises ApiError 400, and 500 without a reason, which is how the API
        server answers when it does not fit."""
        named = meta if isinstance(meta := config.get("metadata"), dict) else {}
        where = f"({named.get('namespace', '')}/{named.get('name', '')}; {kind.group}/{kind.version}, Kind={kind.name})"
        if problem := typed.problem(config, shapes.of(kind)):
            raise ApiError(500, "", f"failed to create typed patch object {where}: {problem}")
        try:
            fresh, _ = decode.fit(kind, config, truncate=True)
        except decode.GoError as why:
            what = f"{kind.group}/{kind.version}, Kind={kind.name}"
            how = "error decoding from json: " if str(why).startswith("illegal base64") else ""
            raise ApiError(500, "", f"failed to convert new object {where} to proper version: unable to convert "
                           f"unstructured object to {what}: {how}{why}") from None  # fmt: skip
        if named.get("managedFields"):
            raise refusals.bad("metadata.managedFields must be nil")
        fresh["metadata"]["name"] = name
        return fresh

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
        causes = list(validation.metadata(kind, new, before))
        if kind.schema is not None:
            settled = schema.settle(new, kind.schema)
            new.clear()
            new.update(settled)
            causes += schema.check(new, kind.schema)
        elif not kind.crd:
            defaults.fill(kind, new)
            decode.complete(kind, new)
            causes += validation.check(kind, new, before)
        if causes:
            raise refusals.InvalidError(kind, new["metadata"].get("name", ""), causes)

    def _store(self, kind: Kind, new: Object, before: Object | None = None, *, dry: bool = False) -> Object:
        """Commits ``new``, removes it when its last finalizer went, or leaves all alone when nothing changed."""
        meta = new["metadata"]
        place = self.place(kind, meta.get("namespace", ""), meta["name"])
        if before is not None:
            if kind.generation and bodies.essence(before) != bodies.essence(new):
                meta["generation"] = before["metadata"].get("generation", 0) + 1
            if bodies.same(before, new):
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
                found = old.body["metadata"].get(key)
                if found != value:
                    raise refusals.precondition(kind, name, key, value, found)
            if kind.bucket == "Namespace" and name in _UNDELETABLE:
                raise refusals.forbidden(kind, name, "this namespace may not be deleted")
            new = self.served(kind, old)
            meta = new["metadata"]
            if not meta.get("deletionTimestamp"):
                bodies.hold(kind, meta, policy)
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


def _nothing(kind: Kind) -> Object:
    """An object of the kind before anybody set a field of it."""
    empty: Object = {"metadata": {}}
    decode.complete(kind, empty)
    return empty


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
