"""The same Kubernetes API twice: the embedded lab's, and a real one; both through fo's door, and as they are.

Modules with cases for both have ``pytest_plugins = ("kube_fixtures",)`` and ask for ``backend`` or ``space``.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from funoffshore.clock import WallClock
from funoffshore.reading import Present, Reading
from funoffshore.world.kube import Kube, Object
from funoffshore.world.routes import Routes

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds that anything here may take on a machine with other things to do."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; ``json`` is None where the body is none."""

    status: int
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def message(self) -> str:
        """Of a Status."""
        return str((self.json or {}).get("message", ""))


class Wire:
    """Plain HTTPS with the credentials of a kubeconfig; ``fo``'s own door hides too much for some cases."""

    def __init__(self, kubeconfig: Path) -> None:
        document = json.loads(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self.host = urllib.parse.urlsplit(cluster["server"])
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls, self.bare = ssl.create_default_context(cadata=ca), ssl.create_default_context(cadata=ca)
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
            file.flush()
            self._tls.load_cert_chain(file.name)

    def call(
        self, method: str, path: str, body: Any = None, *, content: str = "application/json",
        accept: str = "application/json", agent: str = "fo", tls: ssl.SSLContext | None = None,
        token: str = "",
    ) -> Reply:  # fmt: skip
        """``body``: text and bytes as they are, everything else as JSON. ``tls``: ``bare`` shows no certificate."""
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        headers = {"Content-Type": content, "Accept": accept, "User-Agent": agent}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        connection = self._connection(tls)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def watch(self, path: str, *, accept: str = "application/json", seconds: int = 20) -> Iterator[Object]:
        """The events of a watch until it ends; the server is told to end it after ``seconds``."""
        connection = self._connection(None)
        try:
            sign = "&" if "?" in path else "?"
            connection.request("GET", f"{path}{sign}watch=1&timeoutSeconds={seconds}", headers={"Accept": accept})
            answer = connection.getresponse()
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def _connection(self, tls: ssl.SSLContext | None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            str(self.host.hostname), self.host.port, context=tls or self._tls, timeout=PATIENCE
        )


class Backend:
    """One cluster with one Ready node ``n1``."""

    def __init__(self, kind: str, kubeconfig: Path, token: str, forget: Callable[[], None]) -> None:
        self.kind = kind
        """``lab`` or ``real``."""
        self.kubeconfig = kubeconfig
        self.token = token
        """Bearer token of an administrator."""
        self.forget = forget
        """Lets the server drop its history: older pages and watches are gone."""
        self.wire = Wire(kubeconfig)
        self.door = Kube(kubeconfig, Routes(), WallClock())

    def value(self, reading: Reading[T]) -> T:
        assert isinstance(reading, Present), reading
        return reading.value

    def get(self, kind: str, namespace: str, name: str) -> Object:
        return self.value(self.door.get(kind, namespace, name))

    def until(self, look: Callable[[], T], what: Callable[[], Any] = lambda: "") -> T:
        """The first true value of ``look``; ``what`` says how things stand when it never comes."""
        end = time.monotonic() + PATIENCE
        while not (found := look()):
            assert time.monotonic() < end, f"did not come to pass: {what()}"
            time.sleep(0.02)
        return found


# Objects that many cases use


def config_map(space: str, name: str = "a", **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": space}, "data": data}


def deployment(space: str, name: str = "web", replicas: int = 1, **spec: Any) -> Object:
    """``spec``: more of the pod's."""
    labels = {"app": name}
    pod = {"containers": [{"name": "web", "image": "example.org/web:1"}], **spec}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": space},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": pod}},
    }  # fmt: skip


def crd(kind: str, group: str = "contract.example.org", **version: Any) -> Object:
    """A CRD whose objects have a size from 1 on, a colour that is red unless told, and keyed parts."""
    plural = f"{kind.lower()}s"
    part = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
    }
    spec = {"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "default": "red"},
        "parts": {"type": "array", "items": part, "x-kubernetes-list-type": "map",
                  "x-kubernetes-list-map-keys": ["name"]}}}  # fmt: skip
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}
    whole = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": schema, **version}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                 "versions": [whole]},
    }  # fmt: skip
