"""Patches of a kustomization: which objects they are for, and what they do to them."""

from __future__ import annotations

import re
from typing import Any

from funoffshore.lab.flux.kustomize import merge
from funoffshore.lab.flux.kustomize.documents import BuildError, Object, load_all
from funoffshore.lab.flux.kustomize.generators import Read
from funoffshore.lab.flux.kustomize.resource import Resource

_TARGET = frozenset({"group", "version", "kind", "name", "namespace", "labelSelector", "annotationSelector"})


def apply(resources: list[Resource], patch: Object, read: Read, where: str) -> None:
    """One entry of ``patches``: inline or from a file, strategic merge or JSON 6902. Changes ``resources``."""
    for unknown in patch.keys() - {"patch", "path", "target", "options"}:
        raise BuildError(f'{where}: invalid Kustomization: json: unknown field "{unknown}"')
    text, path = patch.get("patch"), patch.get("path")
    if bool(text) == bool(path):
        raise BuildError(f"{where}: patches: one of patch and path must be given, got {sorted(patch)}")
    name = str(path) if path else where
    documents = load_all(text if text else read(str(path)), name)
    target = patch.get("target")
    if len(documents) == 1 and isinstance(documents[0], list):
        if not target:
            raise BuildError(f"{where}: patches: a JSON patch must specify a target ({name})")
        for resource in select(resources, target, where):
            resource.obj = merge.json_patch(resource.obj, documents[0], f"{name} on {resource.id}")
            resource.rename()
        return
    for document in documents:
        if not isinstance(document, dict):
            raise BuildError(f"{where}: unable to parse SM or JSON patch from {name}")
        found = select(resources, target, where) if target else [_owner(resources, document, name)]
        for resource in found:
            _merge(resources, resource, document, keep_identity=bool(target), options=patch.get("options") or {})


def _merge(resources: list[Resource], resource: Resource, patch: Object, *, keep_identity: bool, options: Any) -> None:
    merged = merge.strategic_merge(resource.obj, patch)
    if merged is None:
        resources.remove(resource)
        return
    if keep_identity:
        if not options.get("allowNameChange"):
            merged["metadata"] = merged.get("metadata", {}) | {"name": resource.name}
        if not options.get("allowKindChange"):
            merged |= {"kind": resource.kind, "apiVersion": resource.obj["apiVersion"]}
    resource.obj = merged
    resource.rename()


def _owner(resources: list[Resource], patch: Object, name: str) -> Resource:
    """The one object that a patch without target is for."""
    metadata = patch.get("metadata") or {}
    if not (patch.get("kind") and patch.get("apiVersion") and metadata.get("name")):
        raise BuildError(f"{name}: a strategic merge patch without target needs apiVersion, kind and metadata.name")
    wanted = Resource(patch)
    found = [
        r
        for r in resources
        if (r.group, r.version, r.kind) == (wanted.group, wanted.version, wanted.kind)
        and r.was_called(wanted.name)
        and (not wanted.namespace or wanted.namespace in {space for space, _ in r.names})
    ]
    if len(found) != 1:
        many = "multiple matches" if found else "no matches"
        raise BuildError(f"{name}: {many} for Id {wanted.id}; failed to find unique target for patch {wanted.id}")
    return found[0]


def select(resources: list[Resource], target: Object, where: str) -> list[Resource]:
    """Objects that fit every field of ``target``. Raises BuildError for an unknown field or a bad pattern."""
    for unknown in target.keys() - _TARGET:
        raise BuildError(f'{where}: invalid Kustomization: json: unknown field "{unknown}"')
    try:
        return [r for r in resources if _fits(r, target)]
    except re.error as why:
        raise BuildError(f"{where}: patches: target is no regular expression: {why}") from why


def _fits(resource: Resource, target: Object) -> bool:
    for field, value in (("group", resource.group), ("version", resource.version), ("kind", resource.kind)):
        if target.get(field) and not re.fullmatch(str(target[field]), value):
            return False
    if target.get("name") and not any(re.fullmatch(str(target["name"]), name) for _, name in resource.names):
        return False
    if target.get("namespace"):
        spaces = {space or "default" for space, _ in resource.names}
        if not any(re.fullmatch(str(target["namespace"]), space) for space in spaces):
            return False
    metadata = resource.obj["metadata"]
    return matches(str(target.get("labelSelector") or ""), metadata.get("labels") or {}) and matches(
        str(target.get("annotationSelector") or ""), metadata.get("annotations") or {}
    )


def matches(selector: str, labels: dict[str, str]) -> bool:
    """Kubernetes' label selector text: ``a=b,c!=d,e,!f,g in (h,i)``."""
    for term in re.split(r",(?![^(]*\))", selector):
        text = term.strip()
        if not text:
            continue
        if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", text):
            inside = labels.get(found[1]) in [v.strip() for v in found[3].split(",")]
            fits = inside if found[2] == "in" else not inside
        elif "!=" in text:
            key, _, value = text.partition("!=")
            fits = labels.get(key.strip()) != value.strip()
        elif "=" in text:
            key, _, value = text.partition("=")
            fits = labels.get(key.strip()) == value.strip("= ")
        else:
            fits = (text.lstrip("!") in labels) != text.startswith("!")
        if not fits:
            return False
    return True
