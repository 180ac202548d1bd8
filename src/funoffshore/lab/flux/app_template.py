"""The chart app-template: workloads, services, volumes and ingresses follow from its values, so they are rendered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from funoffshore.lab.flux.chart_objects import Release, service, workload
from funoffshore.lab.kube.api import Object

_KINDS = {"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet"}


def objects(release: Release) -> Iterator[Object]:
    """In the order of the values."""
    values = release.values
    controllers = _enabled(values, "controllers")
    for key, controller in controllers.items():
        yield _controller(release, key, _name(release, controllers, key), controller)
    services = _enabled(values, "service")
    for key, entry in services.items():
        target = entry.get("controller") or next(iter(controllers), key)
        ports = [p.get("port") for p in (entry.get("ports") or {}).values() if isinstance(p, dict)]
        component = _name(release, controllers, target)
        yield service(release, _name(release, services, key), component, int((ports or [80])[0] or 80))
    yield from _claims(release)
    ingresses = _enabled(values, "ingress")
    for key, entry in ingresses.items():
        yield _ingress(release, _name(release, ingresses, key), entry)
    for field, kind in (("configMaps", "ConfigMap"), ("secrets", "Secret")):
        found = _enabled(values, field)
        for key, entry in found.items():
            texts = {k: str(v) for k, v in (entry.get("data") or entry.get("stringData") or {}).items()}
            data = "data" if kind == "ConfigMap" else "stringData"
            yield release.object("v1", kind, _name(release, found, key)) | {data: texts}
    monitors = _enabled(values, "serviceMonitor")
    for key in monitors:
        spec = {"endpoints": [{"port": "http"}], "selector": {"matchLabels": {}}}
        yield release.object("monitoring.coreos.com/v1", "ServiceMonitor", _name(release, monitors, key), spec=spec)
    for entry in _enabled(values, "rawResources").values():
        if isinstance(entry.get("manifest"), dict):
            yield _raw(release, entry["manifest"])


def _enabled(values: Object, field: str) -> dict[str, Any]:
    found = values.get(field) or {}
    return {k: v for k, v in found.items() if isinstance(v, dict) and v.get("enabled", True)}


def _name(release: Release, group: dict[str, Any], key: str) -> str:
    """A thing that is alone of its sort is called like the release; ``suffix`` and ``forceRename`` say otherwise."""
    entry = group.get(key) or {}
    base = str(release.values.get("fullnameOverride") or release.name)
    if entry.get("forceRename"):
        return str(entry["forceRename"])
    prefix = f"{entry['prefix']}-" if entry.get("prefix") else ""
    suffix = entry.get("suffix") or (key if len(group) > 1 else "")
    return f"{prefix}{base}-{suffix}" if suffix else f"{prefix}{base}"


def _controller(release: Release, key: str, name: str, controller: Object) -> Object:
    kind = str(controller.get("type") or "deployment").lower()
    containers = [_container(k, c) for k, c in (controller.get("containers") or {}).items() if isinstance(c, dict)]
    containers = containers or [{"name": "main", "image": "lab.invalid/app:1"}]
    if kind in ("cronjob", "job"):
        pod = {"containers": containers, "restartPolicy": "Never"}
        job: Object = {"template": {"metadata": {"labels": release.selector(name)}, "spec": pod}}
        if kind == "job":
            return release.object("batch/v1", "Job", name, spec=job)
        schedule = (controller.get("cronjob") or {}).get("schedule") or "0 3 * * *"
        return release.object("batch/v1", "CronJob", name, spec={"schedule": schedule, "jobTemplate": {"spec": job}})
    made = workload(release, _KINDS.get(kind, "Deployment"), name, int(controller.get("replicas", 1) or 0))
    made["spec"]["template"]["spec"] |= {"containers": containers, "volumes": list(_volumes(release, key))}
    made["metadata"]["annotations"] |= controller.get("annotations") or {}
    return made


def _image(image: Object) -> str:
    return f"{image.get('repository', 'lab.invalid/app')}:{image.get('tag', '1')}"


def _container(name: str, values: Object) -> Object:
    """Name, image, and what its environment is taken from."""
    made: Object = {"name": name, "image": _image(values.get("image") or {})}
    env = values.get("env") or {}
    pairs = env.items() if isinstance(env, dict) else ((e.get("name"), e) for e in env if isinstance(e, dict))
    referring = [{"name": k, "valueFrom": v["valueFrom"]} for k, v in pairs if isinstance(v, dict) and "valueFrom" in v]
    if referring:
        made["env"] = referring
    sources = []
    for entry in values.get("envFrom") or []:
        if not isinstance(entry, dict):
            continue
        for short, long in (("secret", "secretRef"), ("configMap", "configMapRef")):
            found = entry.get(long) or ({"name": entry[short]} if isinstance(entry.get(short), str) else None)
            if found:
                sources.append({long: found})
    if sources:
        made["envFrom"] = sources
    return made


def _volumes(release: Release, controller: str) -> Iterator[Object]:
    """Volumes that the pods of ``controller`` mount."""
    made = _own_claims(release)
    for key, entry in _enabled(release.values, "persistence").items():
        mounts = entry.get("advancedMounts")
        if mounts and controller not in mounts:
            continue
        kind = entry.get("type", "persistentVolumeClaim")
        if kind == "persistentVolumeClaim":
            claim = entry.get("existingClaim") or _name(release, made, key)
            yield {"name": key, "persistentVolumeClaim": {"claimName": claim}}
        elif kind == "secret" and entry.get("name"):
            yield {"name": key, "secret": {"secretName": entry["name"]}}
        elif kind == "configMap" and entry.get("name"):
            yield {"name": key, "configMap": {"name": entry["name"]}}
        elif kind == "nfs":
            yield {"name": key, "nfs": {"server": str(entry.get("server")), "path": str(entry.get("path"))}}


def _own_claims(release: Release) -> dict[str, Any]:
    """Claims that the chart makes itself; a claim of another maker is only used."""
    return {
        key: entry
        for key, entry in _enabled(release.values, "persistence").items()
        if entry.get("type", "persistentVolumeClaim") == "persistentVolumeClaim" and not entry.get("existingClaim")
    }


def _claims(release: Release) -> Iterator[Object]:
    made = _own_claims(release)
    for key, entry in made.items():
        spec: Object = {
            "accessModes": [entry.get("accessMode") or "ReadWriteOnce"],
            "resources": {"requests": {"storage": entry.get("size") or "1Gi"}},
        }
        if entry.get("storageClass"):
            spec["storageClassName"] = entry["storageClass"]
        obj = release.object("v1", "PersistentVolumeClaim", _name(release, made, key), spec=spec)
        obj["metadata"]["labels"] |= entry.get("labels") or {}
        obj["metadata"]["annotations"] |= entry.get("annotations") or {}
        yield obj


def _ingress(release: Release, name: str, entry: Object) -> Object:
    rules = [{"host": h["host"]} for h in entry.get("hosts") or [] if isinstance(h, dict) and h.get("host")]
    spec: Object = (
        {"rules": rules} if rules else {"defaultBackend": {"service": {"name": name, "port": {"number": 80}}}}
    )
    if entry.get("className"):
        spec["ingressClassName"] = entry["className"]
    obj = release.object("networking.k8s.io/v1", "Ingress", name, spec=spec)
    obj["metadata"]["annotations"] |= entry.get("annotations") or {}
    return obj


def _raw(release: Release, manifest: Object) -> Object:
    metadata = manifest.get("metadata") or {}
    name = str(metadata.get("name") or release.name)
    rest = {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind", "metadata")}
    return release.object(str(manifest["apiVersion"]), str(manifest["kind"]), name) | rest
