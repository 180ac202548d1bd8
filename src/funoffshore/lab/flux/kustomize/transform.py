"""What a kustomization does to every object it holds: namespace, names, labels, images, replicas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from funoffshore.lab.flux.kustomize.documents import BuildError, Object
from funoffshore.lab.flux.kustomize.resource import Resource

POD_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_UNPREFIXED = ("CustomResourceDefinition", "APIService", "Namespace")
_SCALED = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController")


def set_namespace(resources: Iterable[Resource], namespace: str) -> None:
    """Puts every namespaced object into ``namespace``; a Namespace takes the name itself."""
    accounts: set[str] = set()
    found = list(resources)
    for resource in found:
        if resource.kind == "ServiceAccount":
            accounts.add(resource.name)
        if resource.kind == "Namespace":
            resource.rename(name=namespace)
        elif resource.namespaced:
            resource.rename(namespace=namespace)
    for resource in found:
        if resource.kind in ("RoleBinding", "ClusterRoleBinding"):
            for subject in resource.obj.get("subjects") or []:
                if subject.get("kind") == "ServiceAccount" and subject.get("name") in {"default", *accounts}:
                    subject["namespace"] = namespace


def add_affixes(resources: Iterable[Resource], prefix: str, suffix: str) -> None:
    for resource in resources:
        if resource.kind not in _UNPREFIXED:
            resource.rename(name=f"{prefix}{resource.name}{suffix}")


def add_labels(
    resources: Iterable[Resource], pairs: dict[str, str], *, selectors: bool = False, templates: bool = False
) -> None:
    for resource in resources:
        obj = resource.obj
        _update(obj, ("metadata", "labels"), pairs)
        template = POD_TEMPLATES.get(resource.kind)
        if template and (selectors or templates):
            _update(obj, (*template, "metadata", "labels"), pairs)
        if resource.kind == "CronJob" and (selectors or templates):
            _update(obj, ("spec", "jobTemplate", "metadata", "labels"), pairs)
        if resource.kind == "StatefulSet" and (selectors or templates):
            for claim in obj.get("spec", {}).get("volumeClaimTemplates") or []:
                _update(claim, ("metadata", "labels"), pairs)
        if selectors:
            _add_selectors(resource, pairs)


def _add_selectors(resource: Resource, pairs: dict[str, str]) -> None:
    spec = resource.obj.get("spec") or {}
    match resource.kind:
        case "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet":
            _update(resource.obj, ("spec", "selector", "matchLabels"), pairs)
        case "Service" if spec.get("selector"):
            _update(resource.obj, ("spec", "selector"), pairs)
        case "PodDisruptionBudget" if spec.get("selector"):
            _update(resource.obj, ("spec", "selector", "matchLabels"), pairs)
        case "NetworkPolicy" if (spec.get("podSelector") or {}).get("matchLabels"):
            _update(resource.obj, ("spec", "podSelector", "matchLabels"), pairs)


def add_annotations(resources: Iterable[Resource], pairs: dict[str, str]) -> None:
    for resource in resources:
        _update(resource.obj, ("metadata", "annotations"), pairs)
        if template := POD_TEMPLATES.get(resource.kind):
            _update(resource.obj, (*template, "metadata", "annotations"), pairs)


def _update(obj: Object, path: tuple[str, ...], pairs: dict[str, str]) -> None:
    for part in path:
        if not isinstance(obj.get(part), dict):
            obj[part] = {}
        obj = obj[part]
    obj.update(pairs)


def set_replicas(resources: list[Resource], name: str, count: Any, where: str) -> None:
    """Raises BuildError when nothing scalable is called ``name``."""
    found = [r for r in resources if r.kind in _SCALED and r.was_called(name)]
    if not found:
        raise BuildError(f"{where}: replicas: resource with name {name} does not match a config with a replica count")
    for resource in found:
        resource.obj.setdefault("spec", {})["replicas"] = int(count)


def set_image(resources: Iterable[Resource], image: Object, where: str) -> None:
    """``image`` is an entry of ``images``: name, newName, newTag, digest."""
    for unknown in image.keys() - {"name", "newName", "newTag", "digest", "tagSuffix"}:
        raise BuildError(f'{where}: invalid Kustomization: json: unknown field "{unknown}"')
    for resource in resources:
        for container in _containers(resource.obj):
            old = container.get("image")
            if isinstance(old, str):
                container["image"] = _new_image(old, image)


def _new_image(old: str, image: Object) -> str:
    name, tag, digest = _split_image(old)
    if not re.fullmatch(str(image.get("name", "")), name):
        return old
    name = image.get("newName") or name
    if image.get("digest"):
        return f"{name}@{image['digest']}"
    if image.get("newTag"):
        tag, digest = str(image["newTag"]), ""
    tag = f"{tag}{image.get('tagSuffix') or ''}"
    return name + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def _split_image(text: str) -> tuple[str, str, str]:
    text, _, digest = text.partition("@")
    head, slash, tail = text.rpartition("/")
    name, _, tag = tail.partition(":")
    return f"{head}{slash}{name}", tag, digest


def _containers(value: Any) -> Iterator[Object]:
    """Every entry of ``containers`` and ``initContainers`` at whatever depth, as kustomize looks for them."""
    if isinstance(value, list):
        for element in value:
            yield from _containers(element)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in ("containers", "initContainers") and isinstance(inner, list):
                yield from (e for e in inner if isinstance(e, dict))
            yield from _containers(inner)
