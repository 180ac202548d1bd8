"""A Helm release, and the plain objects that stand for what its templates would make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.kube.api import Object


@dataclass(frozen=True, slots=True)
class Release:
    """What a chart is rendered with."""

    chart: str
    version: str
    name: str
    """Name of the release, not necessarily of the HelmRelease."""
    namespace: str
    values: Object
    owner: tuple[str, str]
    """Namespace and name of the HelmRelease."""
    digest: str = ""
    """Of the OCI artifact that holds the chart; empty for a chart from elsewhere."""

    def selector(self, component: str) -> dict[str, str]:
        """Labels by which the pods of one workload are known."""
        return {"app.kubernetes.io/instance": self.name, "app.kubernetes.io/name": component}

    def object(self, api: str, kind: str, name: str, *, cluster: bool = False, **rest: Any) -> Object:
        """An object with the marks that Helm and helm-controller leave."""
        metadata: Object = {
            "name": name,
            "labels": {
                "app.kubernetes.io/instance": self.name,
                "app.kubernetes.io/managed-by": "Helm",
                "helm.sh/chart": f"{self.chart}-{self.version}".replace("+", "_"),
                "helm.toolkit.fluxcd.io/name": self.owner[1],
                "helm.toolkit.fluxcd.io/namespace": self.owner[0],
            },
            "annotations": {
                "meta.helm.sh/release-name": self.name,
                "meta.helm.sh/release-namespace": self.namespace,
            },
        }
        if not cluster:
            metadata["namespace"] = self.namespace
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def dig(values: Any, path: tuple[str, ...], default: Any) -> Any:
    """The value at ``path``, or ``default`` where the path ends early. An empty path gives ``default``."""
    if not path:
        return default
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return default
        values = values[part]
    return values


def workload(release: Release, kind: str, name: str, replicas: int = 1, storage: str = "", image: str = "") -> Object:
    """A Deployment, StatefulSet or DaemonSet of one container; ``storage`` is the size of a StatefulSet's volume."""
    labels = release.selector(name)
    container = {"name": "main", "image": image or f"lab.invalid/{release.chart}:{release.version.replace('+', '_')}"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec: Object = {"selector": {"matchLabels": labels}, "template": template}
    if kind != "DaemonSet":
        spec["replicas"] = replicas
    if kind == "StatefulSet":
        spec["serviceName"] = name
        if storage:
            claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
            spec["volumeClaimTemplates"] = [{"metadata": {"name": "storage"}, "spec": claim}]
    return release.object("apps/v1", kind, name, spec=spec)


def service(release: Release, name: str, component: str, port: int) -> Object:
    """A ClusterIP Service in front of the pods of ``component``."""
    ports = [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}]
    spec = {"type": "ClusterIP", "selector": release.selector(component), "ports": ports}
    return release.object("v1", "Service", name, spec=spec)


def use(template: Object, claims: Iterator[str] | list[str], secrets: Iterator[str] | list[str]) -> None:
    """Makes the pods of a workload's ``template`` need these claims and Secrets, as the real chart's would."""
    spec = template["spec"]
    for name in dict.fromkeys(claims):
        volume = {"name": f"claim-{name}"[:63], "persistentVolumeClaim": {"claimName": name}}
        spec.setdefault("volumes", []).append(volume)
    for name in dict.fromkeys(secrets):
        container = spec["containers"][0]
        container.setdefault("envFrom", []).append({"secretRef": {"name": name}})


def named(values: Any, *keys: str) -> Iterator[str]:
    """Every text under one of ``keys``, however deep, with the two usual nestings of a Secret's name."""
    if isinstance(values, list):
        for inner in values:
            yield from named(inner, *keys)
    elif isinstance(values, dict):
        for key, inner in values.items():
            if key in keys and isinstance(inner, str) and inner:
                yield inner
            elif key in keys and isinstance(inner, dict) and isinstance(inner.get("secretName"), str):
                yield inner["secretName"]
            elif key in keys and isinstance(inner, list):
                yield from (str(e["name"]) for e in inner if isinstance(e, dict) and e.get("name"))
            else:
                yield from named(inner, *keys)
