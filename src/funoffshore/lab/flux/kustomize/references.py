"""Makes objects call each other by the names that the build gave them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from funoffshore.lab.flux.kustomize.documents import Object
from funoffshore.lab.flux.kustomize.resource import Resource
from funoffshore.lab.flux.kustomize.transform import POD_TEMPLATES

Fields = dict[str, list[tuple[str, str]]]
"""Kind that is named → (kind that names it or empty for any, path of the field)."""

_POD: dict[str, tuple[str, ...]] = {
    "ConfigMap": (
        "volumes/configMap/name",
        "volumes/projected/sources/configMap/name",
        "containers/env/valueFrom/configMapKeyRef/name",
        "containers/envFrom/configMapRef/name",
        "initContainers/env/valueFrom/configMapKeyRef/name",
        "initContainers/envFrom/configMapRef/name",
    ),
    "Secret": (
        "volumes/secret/secretName",
        "volumes/projected/sources/secret/name",
        "containers/env/valueFrom/secretKeyRef/name",
        "containers/envFrom/secretRef/name",
        "initContainers/env/valueFrom/secretKeyRef/name",
        "initContainers/envFrom/secretRef/name",
        "imagePullSecrets/name",
    ),
    "PersistentVolumeClaim": ("volumes/persistentVolumeClaim/claimName",),
    "ServiceAccount": ("serviceAccountName", "serviceAccount"),
}
_OTHER: Fields = {
    "Secret": [("Ingress", "spec/tls/secretName"), ("ServiceAccount", "imagePullSecrets/name")],
    "Service": [
        ("StatefulSet", "spec/serviceName"),
        ("Ingress", "spec/rules/http/paths/backend/service/name"),
        ("Ingress", "spec/defaultBackend/service/name"),
    ],
    "Role": [("RoleBinding", "roleRef/name")],
    "ClusterRole": [("RoleBinding", "roleRef/name"), ("ClusterRoleBinding", "roleRef/name")],
    "ServiceAccount": [("RoleBinding", "subjects/name"), ("ClusterRoleBinding", "subjects/name")],
    "Deployment": [("HorizontalPodAutoscaler", "spec/scaleTargetRef/name")],
    "StatefulSet": [("HorizontalPodAutoscaler", "spec/scaleTargetRef/name")],
    "PersistentVolume": [("PersistentVolumeClaim", "spec/volumeName")],
    "IngressClass": [("Ingress", "spec/ingressClassName")],
}


def fix(resources: list[Resource], extra: Fields) -> None:
    """Rewrites references to every object of ``resources`` that was renamed. ``extra`` is ``nameReference``."""
    renamed = [r for r in resources if any(name != r.name for _, name in r.names)]
    for kind in {r.kind for r in renamed}:
        targets = [r for r in renamed if r.kind == kind]
        for resource in resources:
            for path in _paths(kind, resource, extra):
                _visit(resource.obj, path.split("/"), _renamer(resource, targets))


def _paths(kind: str, resource: Resource, extra: Fields) -> Iterable[str]:
    if template := POD_TEMPLATES.get(resource.kind):
        yield from ("/".join((*template, "spec", path)) for path in _POD.get(kind, ()))
    if resource.kind == "Pod":
        yield from (f"spec/{path}" for path in _POD.get(kind, ()))
    for holder, path in [*_OTHER.get(kind, []), *extra.get(kind, [])]:
        if holder in ("", resource.kind):
            yield path


def _renamer(holder: Resource, targets: list[Resource]) -> Callable[[Object, str], None]:
    def rename(parent: Object, key: str) -> None:
        name = parent[key]
        if parent.get("kind") not in (None, targets[0].kind) and key == "name":
            return
        found = [t for t in targets if t.was_called(name)]
        if holder.namespaced and len(found) > 1:
            found = [t for t in found if t.namespace == holder.namespace] or found
        elif holder.namespaced and found and found[0].namespaced and found[0].namespace != holder.namespace:
            found = [] if "namespace" not in parent else found
        if len({t.name for t in found}) == 1:
            parent[key] = found[0].name

    return rename


def _visit(value: Any, path: list[str], change: Callable[[Object, str], None]) -> None:
    if isinstance(value, list):
        for element in value:
            _visit(element, path, change)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) > 1:
            _visit(value[path[0]], path[1:], change)
        elif isinstance(value[path[0]], str):
            change(value, path[0])
