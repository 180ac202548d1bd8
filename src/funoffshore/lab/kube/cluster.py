"""One simulated Kubernetes cluster: the objects, the controllers, the API over HTTPS."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable

from funoffshore.lab.base import Kit
from funoffshore.lab.kube import api, housekeeping, pods, serve, volumes, worker, workloads
from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.core import Core
from funoffshore.lab.kube.objects import Event

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class KubeCluster(api.Cluster):
    """Kept in ``kit.store``; made anew with the same ``name`` it has the same objects.

    ``load_balancer`` is the address that services of type LoadBalancer get, ``ca`` the PEM that
    ``kube-root-ca.crt`` shows, ``version`` what ``/version`` says. Tokens and listeners are not kept: whoever
    restarts the lab adds them again.
    """

    def __init__(
        self, kit: Kit, name: str, *, load_balancer: str = "", ca: str = "", version: str = "v1.36.3+k3s1"
    ) -> None:
        self.name = name
        self.core = Core(kit, name)
        self.version = version
        self._kit = kit
        self._worker = worker.Worker(kit, self.core)
        housekeeping.Housekeeping(self._worker, address=load_balancer, ca=ca)
        self._pods = pods.Pods(self._worker)
        workloads.Workloads(self._worker)
        volumes.Volumes(self._worker)
        self._followers: list[worker.Follower] = []
        self._tokens: dict[str, str] = {}
        self._listeners: dict[tuple[str, int], serve.Listener] = {}
        self._lock = threading.Lock()
        self._begin()
        self._worker.start()

    def _begin(self) -> None:
        """What an API server makes at its first start."""
        namespace = self.core.kinds.get("v1/Namespace")
        for name in _NAMESPACES:
            if self.core.find(namespace, "", name) is None:
                self.core.create(namespace, {"metadata": {"name": name}}, "kube-apiserver")
        service = self.core.kinds.get("v1/Service")
        if self.core.find(service, "default", "kubernetes") is None:
            ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
            labels = {"component": "apiserver", "provider": "kubernetes"}
            meta = {"name": "kubernetes", "namespace": "default", "labels": labels}
            spec = {"clusterIP": "10.43.0.1", "ports": ports}
            self.core.create(service, {"metadata": meta, "spec": spec}, "kube-apiserver")

    # api.Cluster

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        found = self.core.kinds.find(kind)
        stored = self.core.find(found, namespace, name) if found else None
        return self.core.served(found, stored) if found and stored else None

    def list(self, kind: str, namespace: str | None = None) -> builtins.list[Object]:
        found = self.core.kinds.get(kind)
        return [self.core.served(found, s) for s in self.core.objects.scan(found.bucket, namespace)]

    def known(self, kind: str) -> bool:
        return self.core.kinds.find(kind) is not None

    def apply(self, obj: Object, manager: str, *, force: bool = True) -> Object:
        kind = self.core.kinds.get(f"{obj.get('apiVersion')}/{obj.get('kind')}")
        meta = obj.get("metadata") or {}
        namespace = meta.get("namespace", "") or ("default" if kind.namespaced else "")
        return self.core.apply(kind, namespace, meta.get("name", ""), obj, manager, force=force)

    def create(self, obj: Object, manager: str) -> Object:
        kind = self.core.kinds.get(f"{obj.get('apiVersion')}/{obj.get('kind')}")
        return self.core.create(kind, obj, manager, keep_status=True)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        found = self.core.kinds.get(kind)
        with self.core.objects.lock:
            if self.core.find(found, namespace, name) is not None:
                self.core.delete(found, namespace, name)

    def change_status(self, kind: str, namespace: str, name: str, change: Callable[[Object], Object]) -> Object | None:
        found = self.core.kinds.find(kind)

        def edit(obj: Object) -> None:
            obj["status"] = change({**obj})

        return self.core.change(found, namespace, name, edit) if found else None

    def change_metadata(self, kind: str, namespace: str, name: str, change: Callable[[Object], None]) -> Object | None:
        found = self.core.kinds.find(kind)

        def edit(obj: Object) -> None:
            fixed = {k: obj["metadata"][k] for k in ("name", "namespace", "uid") if k in obj["metadata"]}
            change(obj["metadata"])
            obj["metadata"].update(fixed)

        return self.core.change(found, namespace, name, edit) if found else None

    def subscribe(self, hear: Callable[[str, Object], None]) -> None:
        def pass_on(event: Event) -> None:
            hear(event.type, event.now.copy())

        self._followers.append(worker.Follower(self.core.objects, "kube-subscriber", pass_on))

    def listen(
        self,
        host: str,
        port: int,
        certificate: bytes,
        key: bytes,
        client_ca: bytes,
        extra: Callable[[api.HttpRequest], api.HttpResponse | None],
    ) -> None:
        socket = self._kit.routes.listen(host, port)
        listener = serve.Listener(self, socket, serve.context(certificate, key, client_ca), extra)
        with self._lock:
            self._listeners[host, port] = listener

    def unlisten(self, host: str, port: int) -> None:
        with self._lock:
            listener = self._listeners.pop((host, port), None)
        if listener:
            listener.close()
            self._kit.routes.forget(host, port)

    def close(self) -> None:
        for host, port in list(self._listeners):
            self.unlisten(host, port)
        self._pods.stop()
        self._worker.stop()
        for follower in self._followers:
            follower.stop()

    # Beyond api.Cluster

    def add_token(self, token: str, user: str) -> None:
        """``Authorization: Bearer token`` is ``user`` from now on."""
        self._tokens[token] = user

    def user_of(self, token: str) -> str | None:
        return self._tokens.get(token)

    @property
    def kit(self) -> Kit:
        return self._kit
