"""A cluster of the lab in this process, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from funoffshore.lab import base
from funoffshore.lab.kube.cluster import KubeCluster

T = TypeVar("T")


def kit(directory: Path, **latencies: float) -> base.Kit:
    store = base.Store(directory / "lab.sqlite")
    return base.Kit(
        directory, base.LabClock(), store, base.Latencies(**latencies), base.Faults(store), base.Ledger(store),
        base.Routes(directory),
    )  # fmt: skip


@contextmanager
def running(directory: Path, **latencies: float) -> Iterator[KubeCluster]:
    """A cluster with one Ready node and a default storage class."""
    made = kit(directory, **latencies)
    cluster = KubeCluster(made, "demo", load_balancer="127.0.0.9", ca="PEM")
    if cluster.get("v1/Node", "", "n1") is None:
        add_node(cluster, "n1")
        cluster.create(
            {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "rancher.io/local-path",
             "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
             "volumeBindingMode": "WaitForFirstConsumer"},
            "test",
        )  # fmt: skip
    try:
        yield cluster
    finally:
        cluster.close()
        made.clock.stop()
        made.store.close()


def add_node(cluster: KubeCluster, name: str, ready: str = "True") -> None:
    cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}, "kubelet")
    set_ready(cluster, name, ready)


def set_ready(cluster: KubeCluster, name: str, ready: str) -> None:
    status = {"conditions": [{"type": "Ready", "status": ready}],
              "addresses": [{"type": "InternalIP", "address": "127.0.0.11"}]}  # fmt: skip
    cluster.change_status("v1/Node", "", name, lambda _: status)


def until(probe: Callable[[], T], what: str = "", seconds: float = 5.0) -> T:
    """The first true value of ``probe``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = probe()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f"never came: {what}")


def deployment(name: str = "web", replicas: int = 1, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"containers": [{"name": "web", "image": "example.com/web:1"}], **spec}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": pod}},
    }  # fmt: skip


def crd(kind: str = "Widget", schema: dict[str, Any] | None = None, scope: str = "Namespaced") -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    whole = {"type": "object", "properties": {
        "spec": schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {"group": "example.com", "scope": scope,
                 "names": {"kind": kind, "plural": plural, "shortNames": ["wd"]},
                 "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                               "schema": {"openAPIV3Schema": whole}}]},
    }  # fmt: skip


def condition(obj: dict[str, Any] | None, type_: str) -> dict[str, Any]:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type_), {})
