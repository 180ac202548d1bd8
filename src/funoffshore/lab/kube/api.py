"""One simulated Kubernetes cluster, as the parts of the lab that live inside it see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

Object = dict[str, Any]
"""A Kubernetes object as JSON: apiVersion, kind, metadata, …"""


class ApiError(Exception):
    """An API request that is answered with a Status object."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """CamelCase, as in metav1.Status: NotFound, Conflict, Invalid, AlreadyExists."""
        self.message = message
        self.details = details
        """metav1.StatusDetails; None where the API gives none, which is not the same as empty ones."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request for a path that is not the Kubernetes API's (``/ping``, ``/cacerts``, ``/v1-k3s/…``)."""

    method: str
    path: str
    headers: dict[str, str]
    """Lower-case names."""
    peer: str
    """Common name of the verified client certificate, or empty."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)


class Cluster(Protocol):
    """The objects of one cluster and the addresses it is served on. ``kind`` is ``v1/Namespace``,
    ``apps/v1/Deployment``, ``helm.toolkit.fluxcd.io/v2/HelmRelease``: apiVersion, slash, kind. Cluster-scoped
    objects have namespace ``""``. Every object returned is a copy."""

    def get(self, kind: str, namespace: str, name: str) -> Object | None: ...

    def list(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Raises ApiError(404) for a kind that the cluster does not know."""

    def known(self, kind: str) -> bool:
        """Whether the cluster serves the kind (built in, or an established CRD)."""

    def apply(self, obj: Object, manager: str, *, force: bool = True) -> Object:
        """Server-side apply. Raises ApiError (404 unknown kind, 409 conflict, 422 invalid)."""

    def create(self, obj: Object, manager: str) -> Object: ...

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Background deletion, owned objects included. Does nothing when it is absent."""

    def change_status(self, kind: str, namespace: str, name: str, change: Callable[[Object], Object]) -> Object | None:
        """Replaces ``status`` by ``change(copy of the whole object)``; None when the object is gone."""

    def change_metadata(self, kind: str, namespace: str, name: str, change: Callable[[Object], None]) -> Object | None:
        """Lets ``change`` edit labels, annotations or finalizers of a copy of the object's metadata, and stores it."""

    def subscribe(self, hear: Callable[[str, Object], None]) -> None:
        """``hear("ADDED"|"MODIFIED"|"DELETED", object)`` after each commit, in order, on a thread of the cluster."""

    def listen(
        self,
        host: str,
        port: int,
        certificate: bytes,
        key: bytes,
        client_ca: bytes,
        extra: Callable[[HttpRequest], HttpResponse | None],
    ) -> None:
        """Serves the API over TLS (PEM texts). ``extra`` sees every request first and may answer it; None passes."""

    def unlisten(self, host: str, port: int) -> None:
        """Closes the listener and its connections. Does nothing when there is none."""

    def close(self) -> None:
        """Stops everything; the objects stay on disk."""
