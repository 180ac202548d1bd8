"""What fo reads from a cluster and does to it."""

from __future__ import annotations

import builtins
import json
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from funoffshore import clock, errors
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.kube import dial
from funoffshore.world.kube.paths import Paths
from funoffshore.world.routes import Routes

Object = dict[str, Any]
T = TypeVar("T")

_PAGE = 500
_CRD = "apiextensions.k8s.io/v1/CustomResourceDefinition"
_FIRST = (_CRD, "v1/Namespace")
_ESTABLISHED = 60.0
"""Seconds that CRDs get to be served."""
_SILENT = {429, 500, 502, 503, 504}
"""Answers to a read that only say: not now."""


class Kube:
    """One cluster, named by the kubeconfig at ``kubeconfig``, which may come, change and go while this lives.

    Without the file there is no cluster: reads are Absent, changes raise UnreachableError. ``kind`` is
    apiVersion, slash, kind: ``apps/v1/Deployment``. Reads never raise for a door that is shut.
    """

    def __init__(self, kubeconfig: Path, routes: Routes, clock: clock.Clock) -> None:
        self._file = kubeconfig
        self._routes = routes
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._dial: dial.Dial | None = None
        self._paths = Paths(self._resources)
        self._earlier = 0

    # Reading

    @property
    def available(self) -> bool:
        """Whether there is a kubeconfig."""
        return self._file.exists()

    @property
    def calls(self) -> int:
        """HTTP calls so far."""
        return self._earlier + (self._dial.calls if self._dial else 0)

    def readyz(self) -> Reading[str]:
        """The list of checks that all passed. Unreadable while one fails or nobody answers."""
        return self._read(self._readyz)

    def _readyz(self) -> Reading[str]:
        answer = self._call("GET", "/readyz", {"verbose": ""}, wait=10)
        text = answer.body.decode(errors="replace")
        if answer.status == 200:
            return Present(text)
        bad = "; ".join(line for line in text.splitlines() if line.startswith("[-]"))
        said = bad or _message(answer) or f"HTTP {answer.status}"
        return Unreadable(f"{self._server()}/readyz answers {answer.status}: {said}")

    def get(self, kind: str, namespace: str, name: str) -> Reading[Object]:
        """One object; ``namespace`` is empty for cluster-scoped kinds. Absent also when the kind is unknown."""
        return self._read(lambda: self._get(kind, namespace, name))

    def _get(self, kind: str, namespace: str, name: str) -> Reading[Object]:
        resource = self._paths.find(kind)
        if resource is None:
            return Absent()
        answer = self._call("GET", resource.path(namespace, name), {})
        return Absent() if _is_absent(answer) else Present(_object(self._good(answer, f"{kind} {name}")))

    def list(
        self, kind: str, namespace: str | None = None, selector: str | None = None
    ) -> Reading[builtins.list[Object]]:
        """Every object of the kind, in pages of 500; Absent when the cluster does not know the kind.

        ``selector`` is a label selector. Objects carry apiVersion and kind, also where the API leaves them out.
        """
        return self._read(lambda: self._list(kind, namespace, selector))

    def _list(self, kind: str, namespace: str | None, selector: str | None) -> Reading[builtins.list[Object]]:
        resource = self._paths.find(kind)
        if resource is None:
            return Absent()
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        found: list[Object] = []
        restarted = False
        while True:
            answer = self._call("GET", resource.path(namespace), query)
            if answer.status == 410 and not restarted:  # the pages' common moment is forgotten: once more, whole
                query = {k: v for k, v in query.items() if k == "labelSelector"}
                found, restarted = [], True
                continue
            if _is_absent(answer):
                return Absent()
            document = _object(self._good(answer, kind))
            found += document.get("items") or []
            query["continue"] = (document.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                break
        api_version, _, name = kind.rpartition("/")
        return Present([{"apiVersion": api_version, "kind": name, **item} for item in found])

    def cluster_uid(self) -> Reading[str]:
        """UID of the namespace kube-system, which is made with the cluster and lives as long."""
        match self.get("v1/Namespace", "", "kube-system"):
            case Present(found):
                uid = found.get("metadata", {}).get("uid")
                return Present(str(uid)) if uid else Unreadable("the namespace kube-system shows no UID")
            case other:
                return other

    # Changing

    def apply(self, objects: Iterable[Object], manager: str, force: bool = False) -> builtins.list[Object]:
        """Server-side apply: CRDs and namespaces first, the rest once the CRDs are served. Returns what is stored.

        Raises RefusedError (a conflict names the other manager), PreflightError, UnreachableError, TrustError,
        DeadlineError for a CRD that is not established within a minute.
        """
        everything = list(objects)
        first = [o for o in everything if _kind(o) in _FIRST]
        stored = [self._apply(o, manager, force) for o in first]
        crds = {o["metadata"]["name"] for o in first if _kind(o) == _CRD}
        if crds:
            clock.wait(self._clock, "the API to serve new kinds", lambda: self._established(crds),
                       deadline=_ESTABLISHED, interval=0.3)  # fmt: skip
        return stored + [self._apply(o, manager, force) for o in everything if _kind(o) not in _FIRST]

    def _apply(self, obj: Object, manager: str, force: bool) -> Object:
        kind, what = _kind(obj), _name(obj)
        resource = self._need(kind)
        meta = obj.get("metadata") or {}
        namespace = (meta.get("namespace") or "default") if resource.namespaced else None
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        answer = self._call("PATCH", resource.path(namespace, str(meta.get("name", ""))), query, json.dumps(obj),
                            "application/apply-patch+yaml")  # fmt: skip
        return _object(self._good(answer, what, secret=obj.get("kind") == "Secret"))

    def _established(self, names: set[str]) -> clock.Done[None] | clock.Pending:
        match self.list(_CRD):
            case Present(crds):
                served = {c["metadata"]["name"] for c in crds if _is_established(c)}
                missing = sorted(names - served)
                return clock.Pending(f"not yet served: {', '.join(missing)}") if missing else clock.Done(None)
            case Unreadable(why):
                return clock.Pending(why)
            case _:
                return clock.Pending("the API serves no CRDs")

    def patch(self, kind: str, namespace: str, name: str, patch: Object, manager: str = "fo") -> Object:
        """JSON merge patch of an object that is there. Raises as ``apply``; RefusedError 404 when it is not."""
        path = self._need(kind).path(namespace, name)
        answer = self._call("PATCH", path, {"fieldManager": manager}, patch, "application/merge-patch+json")
        return _object(self._good(answer, f"{kind} {namespace}/{name}", secret=kind == "v1/Secret"))

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Background deletion; nothing happens when it is absent already. Raises as ``apply``."""
        resource = self._paths.find(kind)
        if resource is None:
            return
        answer = self._call("DELETE", resource.path(namespace, name), {}, {"propagationPolicy": "Background"})
        if not _is_absent(answer):
            self._good(answer, f"{kind} {namespace}/{name}".replace(" /", " "))

    def evict(self, namespace: str, name: str) -> str:
        """Asks a pod to go, as its PodDisruptionBudgets allow. Empty when it goes or is gone; else why it stays yet.

        Raises as ``apply``.
        """
        path = self._need("v1/Pod").path(namespace, name) + "/eviction"
        meta = {"name": name, "namespace": namespace}
        answer = self._call("POST", path, {}, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta})
        if answer.status == 429:
            return _message(answer) or "a PodDisruptionBudget allows no disruption now"
        if not _is_absent(answer):
            self._good(answer, f"the eviction of {namespace}/{name}")
        return ""

    # Below

    def _need(self, kind: str) -> Any:
        resource = self._paths.find(kind)
        if resource is None:
            api_version, _, name = kind.rpartition("/")
            raise errors.RefusedError(f'the cluster knows no kind "{name}" in version "{api_version}"', status=404)
        return resource

    def _resources(self, path: str) -> Object | None:
        answer = self._call("GET", path, {})
        return None if answer.status == 404 else _object(self._good(answer, path))

    def _read(self, look: Callable[[], Reading[T]]) -> Reading[T]:
        if not self.available:
            return Absent()
        try:
            return look()
        except errors.FoError as why:
            return Unreadable(why.message)

    def _server(self) -> str:
        return self._dial.server if self._dial else str(self._file)

    def _open(self) -> dial.Dial:
        """The connection for the file as it is now. Raises UnreachableError without one, StateError."""
        try:
            seen = self._file.stat()
        except OSError:
            raise errors.UnreachableError(f"there is no kubeconfig {self._file}", fix="fo bootstrap") from None
        stamp = (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        with self._lock:
            if self._dial is None or stamp != self._stamp:
                fresh = dial.Dial(dial.read(self._file), self._routes)
                self._earlier += self._dial.calls if self._dial else 0
                self._dial, self._stamp, self._paths = fresh, stamp, Paths(self._resources)
            return self._dial

    def _call(self, method: str, path: str, query: dict[str, str], body: Any = None,
              content_type: str = "application/json", *, wait: float = 30.0) -> dial.Answer:  # fmt: skip
        return self._open().request(method, path, query, body, content_type, wait=wait)

    def _good(self, answer: dial.Answer, what: str, *, secret: bool = False) -> dial.Answer:
        """``answer`` when it is good news. Messages about Secrets are not passed on: they quote values."""
        if answer.status < 300:
            return answer
        said = f"HTTP {answer.status}" if secret else _message(answer) or f"HTTP {answer.status}"
        if answer.status == 401 or (answer.status == 403 and _lacks_rights(answer)):
            raise errors.PreflightError(
                f"{self._server()} does not let fo at {what}: {said}", fix="delete the kubeconfig and run fo bootstrap"
            )
        # A 500 with a message and no reason is the API server's own word, e.g. about a field of the wrong type.
        judged = answer.status == 500 and _message(answer) and not _status(answer).get("reason")
        if answer.status in _SILENT and not judged:
            raise errors.UnreachableError(f"{self._server()} cannot answer for {what} now: {said}")
        raise errors.RefusedError(f"the cluster refused {what}: {said}", status=answer.status)


def _kind(obj: Object) -> str:
    return f"{obj.get('apiVersion')}/{obj.get('kind')}"


def _name(obj: Object) -> str:
    meta = obj.get("metadata") or {}
    return f"{obj.get('kind')} " + "/".join(str(p) for p in (meta.get("namespace"), meta.get("name")) if p)


def _is_established(crd: Object) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def _status(answer: dial.Answer) -> Object:
    """The answer as metav1.Status; empty when it is none."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) and document.get("kind") == "Status" else {}


def _lacks_rights(answer: dial.Answer) -> bool:
    """Whether a 403 is about who asks; admission uses it too, for what is asked: a namespace that is being deleted,
    a quota, a policy."""
    said = _message(answer)
    return not said or re.search(r'User "[^"]*" cannot ', said) is not None


def _message(answer: dial.Answer) -> str:
    return str(_status(answer).get("message") or "")


def _is_absent(answer: dial.Answer) -> bool:
    """404 as an API server says it; anybody else's 404 is no evidence."""
    return answer.status == 404 and (bool(_status(answer)) or answer.body.startswith(b"404 page not found"))


def _object(answer: dial.Answer) -> Object:
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise errors.UnreachableError("what answers is no Kubernetes API: its answer is not JSON")
    return document
