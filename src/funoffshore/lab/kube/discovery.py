"""What the cluster says about itself: groups, resources, health, version, a minimal OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.kinds import Kind, Kinds

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_READY = ("ping", "log", "etcd", "informer-sync", "poststarthook/start-apiextensions-controllers",
          "poststarthook/crd-informer-synced", "poststarthook/rbac/bootstrap-roles", "shutdown")  # fmt: skip


def version(text: str) -> Object:
    """``/version``; ``text`` is ``v1.36.3+k3s1``."""
    match = re.match(r"v(\d+)\.(\d+)", text)
    major, minor = match.groups() if match else ("1", "0")
    return {"major": major, "minor": minor, "gitVersion": text, "gitCommit": "0" * 40, "gitTreeState": "clean",
            "buildDate": "2026-07-28T00:00:00Z", "goVersion": "go1.26.8", "compiler": "gc", "platform": "linux/amd64",
            "emulationMajor": major, "emulationMinor": minor}  # fmt: skip


def health(path: str, *, verbose: bool) -> str:
    """``ok``, or the list of checks."""
    if not verbose:
        return "ok"
    return "".join(f"[+]{check} ok\n" for check in _READY) + f"{path.strip('/')} check passed\n"


def groups(kinds: Kinds) -> Object:
    """``/apis``."""
    found: dict[str, list[str]] = {}
    for kind in kinds.all():
        if kind.group and kind.version not in found.setdefault(kind.group, []):
            found[kind.group].append(kind.version)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g, v) for g, v in found.items()]}


def group(kinds: Kinds, name: str) -> Object | None:
    """``/apis/<group>``."""
    versions = list(dict.fromkeys(k.version for k in kinds.all() if k.group == name))
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions else None


def _rank(version_: str) -> tuple[int, int, int]:
    """v2 before v1 before v1beta2 before v1alpha1, as Kubernetes prefers versions."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version_)
    if match is None:
        return (3, 0, 0)
    major, stage, minor = match.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0))


def _group(name: str, versions: list[str]) -> Object:
    shown = [{"groupVersion": f"{name}/{v}", "version": v} for v in sorted(versions, key=_rank)]
    return {"name": name, "versions": shown, "preferredVersion": shown[0]}


def resources(kinds: Kinds, group_: str, version_: str) -> Object | None:
    """``/api/v1`` or ``/apis/<group>/<version>``."""
    found: list[Object] = []
    for kind in kinds.all():
        if (kind.group, kind.version) == (group_, version_):
            found += _resource(kind)
    if not found:
        return None
    api_version = f"{group_}/{version_}" if group_ else version_
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def _resource(kind: Kind) -> list[Object]:
    main: Object = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
                    "kind": kind.name, "verbs": _VERBS}  # fmt: skip
    if kind.short:
        main["shortNames"] = list(kind.short)
    if kind.categories:
        main["categories"] = list(kind.categories)
    found = [main]
    verbs = ["get", "patch", "update"]
    base = {"singularName": "", "namespaced": kind.namespaced, "verbs": verbs}
    if kind.status:
        found.append({**base, "name": f"{kind.plural}/status", "kind": kind.name})
    if kind.scale:
        found.append({**base, "name": f"{kind.plural}/scale", "kind": "Scale", "group": "autoscaling", "version": "v1"})
    return found


def openapi(text: str) -> Object:
    """A Swagger document without definitions: clients then send what they have and let the server judge."""
    return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": text}, "paths": {}, "definitions": {}}


def openapi_of(kinds: Kinds, parts: list[str]) -> Object | None:
    """``/openapi/v3/…`` of one group and version: only that the server validates fields itself, which is what
    kubectl wants to know before it applies."""
    group_, version_ = (parts[1], parts[2]) if len(parts) == 3 else ("", parts[-1])
    found = [k for k in kinds.all() if (k.group, k.version) == (group_, version_)]
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    paths = {}
    for kind in found:
        inside = "/namespaces/{namespace}" if kind.namespaced else ""
        patch = {"operationId": f"patch{kind.name}", "parameters": [parameter], "responses": {},
                 "x-kubernetes-action": "patch",
                 "x-kubernetes-group-version-kind": {"group": group_, "kind": kind.name,
                                                     "version": version_}}  # fmt: skip
        paths[f"/{'/'.join(parts)}{inside}/{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version_}, "paths": paths} if found else None


def openapi_v3(kinds: Kinds) -> dict[str, Any]:
    """``/openapi/v3``: where the documents of the groups are."""
    places = {("api/v1" if not k.group else f"apis/{k.group}/{k.version}") for k in kinds.all()}
    return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in sorted(places)}}
