"""What a Helm chart would install: the names, kinds and counts that the real one renders, with empty insides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.flux import app_template, chart_crds, crds
from funoffshore.lab.flux.chart_objects import Release, dig, named, service, use, workload
from funoffshore.lab.kube.api import Object

_VERSIONS = {
    "cert-manager": "v1.21.1", "origin-ca-issuer": "0.6.9", "traefik": "41.3.0", "tailscale-operator": "1.102.3",
    "csi-driver-nfs": "4.13.4", "authentik": "2026.8.0", "kube-prometheus-stack": "88.5.3", "grafana": "12.11.1",
    "prometheus-operator-crds": "31.0.1", "loki": "18.11.0", "alloy": "1.11.1", "app-template": "5.1.0",
    "portainer": "239.4.0", "velero": "12.1.0", "volsync": "0.16.0", "k8up": "4.9.0", "reloader": "2.2.16",
    "cloudnative-pg": "0.29.0", "seerr-chart": "3.3.0", "jellyfin": "3.2.0", "external-dns": "1.21.1",
}  # fmt: skip
"""The newest version the lab has heard of; what a range resolves to."""
_CRD_SWITCHES = {
    "cert-manager": (("crds", "enabled"), False),
    "kube-prometheus-stack": (("crds", "enabled"), True),
    "volsync": (("manageCRDs",), True),
    "tailscale-operator": (("installCRDs",), True),
    "alloy": (("crds", "create"), True),
    "cloudnative-pg": (("crds", "create"), True),
}
"""Where a chart's values say whether its CRDs come along, and what they say by default."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One workload of a chart. ``{}`` in the name is the full name of the release."""

    kind: str
    name: str
    replicas: tuple[tuple[str, ...], int] = ((), 1)
    """Where the values say how many, and the default."""
    enabled: tuple[tuple[str, ...], bool] = ((), True)
    port: int = 0
    """Port of a Service of the same name; 0: none."""
    claim: tuple[str, ...] = ()
    """Where the values of a StatefulSet ask for storage."""


def _one(kind: str = "Deployment", name: str = "{}", port: int = 0, *path: str, count: int = 1) -> tuple[_Part, ...]:
    return (_Part(kind, name, (path, count), port=port),)


_PROMETHEUS = (
    _Part("Deployment", "{}-operator", port=443),
    _Part("Deployment", "{release}-kube-state-metrics", enabled=(("kubeStateMetrics", "enabled"), True), port=8080),
    _Part("DaemonSet", "{release}-prometheus-node-exporter", enabled=(("nodeExporter", "enabled"), True), port=9100),
    _Part(
        "StatefulSet", "prometheus-{}-prometheus", (("prometheus", "prometheusSpec", "replicas"), 1), port=9090,
        enabled=(("prometheus", "enabled"), True), claim=("prometheus", "prometheusSpec", "storageSpec"),
    ),
    _Part(
        "StatefulSet", "alertmanager-{}-alertmanager", (("alertmanager", "alertmanagerSpec", "replicas"), 1),
        enabled=(("alertmanager", "enabled"), True), port=9093, claim=("alertmanager", "alertmanagerSpec", "storage"),
    ),
    _Part("Deployment", "{release}-grafana", enabled=(("grafana", "enabled"), True), port=80),
)  # fmt: skip
_PARTS: dict[str, tuple[_Part, ...]] = {
    "traefik": _one("Deployment", "{}", 443, "deployment", "replicas"),
    "cert-manager": (
        _Part("Deployment", "{}", (("replicaCount",), 1), port=9402),
        _Part("Deployment", "{}-webhook", (("webhook", "replicaCount"), 1), port=443),
        _Part("Deployment", "{}-cainjector", (("cainjector", "replicaCount"), 1)),
    ),
    "origin-ca-issuer": _one("Deployment", "{}", 0, "controller", "replicaCount"),
    "kube-prometheus-stack": _PROMETHEUS,
    "prometheus-operator-crds": (),
    "loki": (
        _Part("StatefulSet", "{}", (("singleBinary", "replicas"), 0), port=3100, claim=("singleBinary", "persistence")),
        _Part("Deployment", "{}-gateway", enabled=(("gateway", "enabled"), True), port=80),
        _Part("DaemonSet", "{}-canary", enabled=(("lokiCanary", "enabled"), True), port=3500),
        _Part("StatefulSet", "{}-chunks-cache", enabled=(("chunksCache", "enabled"), True), port=11211),
        _Part("StatefulSet", "{}-results-cache", enabled=(("resultsCache", "enabled"), True), port=11211),
    ),
    "grafana": _one("Deployment", "{}", 80, "replicas"),
    "authentik": (
        _Part("Deployment", "{}-server", (("server", "replicas"), 1), port=80),
        _Part("Deployment", "{}-worker", (("worker", "replicas"), 1)),
    ),
    "csi-driver-nfs": (
        _Part("Deployment", "csi-nfs-controller", (("controller", "replicas"), 1)),
        _Part("DaemonSet", "csi-nfs-node"),
    ),
    "tailscale-operator": _one("Deployment", "operator"),
    "volsync": _one("Deployment", "{}", 8443, "replicaCount"),
    "k8up": _one("Deployment", "{}", 8080, "replicaCount"),
    "cloudnative-pg": _one("Deployment", "{}", 443, "replicaCount"),
    "velero": (
        _Part("Deployment", "{}", port=8085),
        _Part("DaemonSet", "node-agent", enabled=(("deployNodeAgent",), False)),
    ),
    "reloader": _one("Deployment", "{}", 0, "reloader", "deployment", "replicas"),
    "portainer": _one("Deployment", "{}", 9443),
}
_SECRETS = {"tailscale-operator": ("operator-oauth",)}
"""Secrets that a chart's pods need without being told in its values."""
_SUFFIXED = ("reloader",)
"""Charts whose full name repeats the chart's even when the release is called like it."""


def name_of(url: str) -> str:
    """The chart in an OCI address: its last part."""
    return url.rstrip("/").rpartition("/")[2]


def version_of(chart: str, constraint: str) -> str:
    """``constraint`` itself when it is one version, else the newest the lab knows (``1.0.0`` of an unknown chart)."""
    if re.fullmatch(r"v?\d+\.\d+\.\d+([-+].*)?", constraint):
        return constraint
    return _VERSIONS.get(chart, "1.0.0")


def definitions(chart: str, values: Object) -> list[Object]:
    """The CRDs that the chart installs with these values."""
    path, default = _CRD_SWITCHES.get(chart, ((), True))
    if path and not dig(values, path, default):
        return []
    return [crds.definition(crd) for crd in chart_crds.brought_by(chart)]


def objects(release: Release) -> list[Object]:
    """Everything else that the chart installs."""
    if release.chart == "app-template":
        return [*app_template.objects(release)]
    return [
        *_workloads(release),
        *(_EXTRAS[release.chart](release) if release.chart in _EXTRAS else ()),
        *_claims(release),
        *_monitors(release),
    ]


def _full_name(release: Release) -> str:
    override = release.values.get("fullnameOverride") or dig(release.values, (release.chart, "fullnameOverride"), None)
    if override:
        return str(override)
    if release.chart in _SUFFIXED or (release.chart in _PARTS and release.chart not in release.name):
        return f"{release.name}-{release.chart}"
    return release.name


def _parts(release: Release) -> tuple[_Part, ...]:
    if release.chart == "alloy":
        # the chart's controller.type, in lower case: daemonset unless the values say otherwise
        kinds = {"daemonset": "DaemonSet", "deployment": "Deployment", "statefulset": "StatefulSet"}
        return _one(kinds.get(str(dig(release.values, ("controller", "type"), "daemonset")), "DaemonSet"), "{}", 12345)
    return _PARTS.get(release.chart, _one("Deployment", "{}", 80))


def _workloads(release: Release) -> Iterator[Object]:
    full = _full_name(release)
    parts = _parts(release)
    for part in parts:
        if not dig(release.values, part.enabled[0], part.enabled[1]):
            continue
        replicas = int(dig(release.values, part.replicas[0], part.replicas[1]) or 0)
        if release.chart == "loki" and part.name == "{}" and not replicas:
            continue
        name = part.name.replace("{release}", release.name).replace("{}", full)
        claim = dig(release.values, part.claim, None) if part.claim else None
        made = workload(release, part.kind, name, replicas, storage=_size(claim) if claim else "")
        if part is parts[0]:
            secrets = [*named(release.values, "existingSecret", "envFromSecrets"), *_SECRETS.get(release.chart, ())]
            use(made["spec"]["template"], named(release.values, "existingClaim"), secrets)
        yield made
        if part.port and release.chart != "traefik":
            yield service(release, name, name, part.port)


def _size(claim: Any) -> str:
    """The size in a claim template, or in Loki's short form."""
    if not isinstance(claim, dict):
        return "10Gi"
    path = ("volumeClaimTemplate", "spec", "resources", "requests", "storage")
    return str(dig(claim, path, claim.get("size") or "10Gi"))


def _claims(release: Release) -> Iterator[Object]:
    """The one volume of charts with a ``persistence`` of Helm's usual form."""
    persistence = release.values.get("persistence")
    wanted = isinstance(persistence, dict) and persistence.get("enabled", release.chart == "portainer")
    if release.chart == "portainer" and persistence is None:
        persistence, wanted = {}, True
    if not wanted or not isinstance(persistence, dict) or persistence.get("existingClaim"):
        return
    spec: Object = {
        "accessModes": persistence.get("accessModes") or [persistence.get("accessMode") or "ReadWriteOnce"],
        "resources": {"requests": {"storage": persistence.get("size") or "10Gi"}},
    }
    if persistence.get("storageClass") or persistence.get("storageClassName"):
        spec["storageClassName"] = persistence.get("storageClass") or persistence["storageClassName"]
    yield release.object("v1", "PersistentVolumeClaim", _full_name(release), spec=spec)


def _monitors(release: Release) -> Iterator[Object]:
    """A ServiceMonitor for every part of the values that asks for one, whatever it is called."""
    for number, _ in enumerate(_asking(release.values)):
        name = _full_name(release) + (f"-{number}" if number else "")
        spec = {"endpoints": [{"port": "http"}], "selector": {"matchLabels": release.selector(name)}}
        yield release.object("monitoring.coreos.com/v1", "ServiceMonitor", name, spec=spec)


def _asking(values: Any) -> Iterator[None]:
    if isinstance(values, dict):
        for key, inner in values.items():
            if str(key).lower() == "servicemonitor" and isinstance(inner, dict) and inner.get("enabled") is True:
                yield None
            else:
                yield from _asking(inner)


def _traefik(release: Release) -> Iterator[Object]:
    spec = dig(release.values, ("service", "spec"), {}) or {}
    name = _full_name(release)
    ports = [{"name": "web", "port": 80, "targetPort": "web"}, {"name": "websecure", "port": 443}]
    front = service(release, name, name, 443)
    front["spec"] |= {"ports": ports, "type": "LoadBalancer"} | spec
    front["metadata"]["annotations"] |= dig(release.values, ("service", "annotations"), {}) or {}
    yield front
    if dig(release.values, ("ingressClass", "enabled"), True):
        default = str(bool(dig(release.values, ("ingressClass", "isDefaultClass"), True))).lower()
        made = release.object("networking.k8s.io/v1", "IngressClass", "traefik", cluster=True)
        made["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"] = default
        yield made | {"spec": {"controller": "traefik.io/ingress-controller"}}
    for field, kind in (("tlsOptions", "TLSOption"), ("tlsStore", "TLSStore")):
        for name, spec in (release.values.get(field) or {}).items():
            yield release.object("traefik.io/v1alpha1", kind, name, spec=spec)


def _csi(release: Release) -> Iterator[Object]:
    spec = {"attachRequired": False, "volumeLifecycleModes": ["Persistent"], "fsGroupPolicy": "File"}
    yield release.object("storage.k8s.io/v1", "CSIDriver", "nfs.csi.k8s.io", cluster=True, spec=spec)
    classes = list(release.values.get("storageClasses") or [])
    single = release.values.get("storageClass") or {}
    for entry in classes + ([single] if single.get("create") else []):
        made = release.object("storage.k8s.io/v1", "StorageClass", entry.get("name", "nfs-csi"), cluster=True)
        made["metadata"]["annotations"] |= entry.get("annotations") or {}
        yield made | {
            "provisioner": "nfs.csi.k8s.io",
            "parameters": {k: str(v) for k, v in (entry.get("parameters") or {}).items()},
            "reclaimPolicy": entry.get("reclaimPolicy") or "Delete",
            "volumeBindingMode": entry.get("volumeBindingMode") or "Immediate",
        }


def _stack(release: Release) -> Iterator[Object]:
    full = _full_name(release)
    for kind, field in (("Prometheus", "prometheus"), ("Alertmanager", "alertmanager")):
        if dig(release.values, (field, "enabled"), True):
            name = f"{full}-{field}"
            yield release.object("monitoring.coreos.com/v1", kind, name, spec={"replicas": 1})


_EXTRAS: dict[str, Callable[[Release], Iterator[Object]]] = {
    "traefik": _traefik,
    "csi-driver-nfs": _csi,
    "kube-prometheus-stack": _stack,
}
