"""What the cluster says about itself: groups, resources, health, version."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
            "emulationMajor": major, "emulationMinor": minor, "minCompatibilityMajor": major,
            "minCompatibilityMinor": str(int(minor) - 1)}  # fmt: skip


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
    for kind in sorted(kinds.all(), key=lambda k: k.plural):
        if (kind.group, kind.version) == (group_, version_):
            found += _resource(kind)
    if not found:
        return None
    api_version = f"{group_}/{version_}" if group_ else version_
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


_SPECIAL = {
    "v1/Namespace": (("finalize", "", "", "Namespace", ("update",)),),
    "v1/Pod": (("eviction", "policy", "v1", "Eviction", ("create",)), ("log", "", "", "Pod", ("get",))),
    "v1/ServiceAccount": (("token", "authentication.k8s.io", "v1", "TokenRequest", ("create",)),),
}
"""Subresources beside ``status`` and ``scale``: name, group, version, kind, verbs."""


def _subresources(kind: Kind) -> Iterator[tuple[str, str, str, str, tuple[str, ...]]]:
    verbs = ("get", "patch", "update")
    yield from _SPECIAL.get(kind.key, ())
    if kind.scale:
        yield "scale", "autoscaling", "v1", "Scale", verbs
    if kind.status:
        yield "status", "", "", kind.name, verbs


def _verbs(kind: Kind) -> list[str]:
    return [v for v in _VERBS if v != "deletecollection" or kind.key not in ("v1/Namespace", "v1/Service")]


def _resource(kind: Kind) -> list[Object]:
    main: Object = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
                    "kind": kind.name, "verbs": _verbs(kind)}  # fmt: skip
    if kind.short:
        main["shortNames"] = list(kind.short)
    if kind.categories:
        main["categories"] = list(kind.categories)
    found = [main]
    for name, group_, version_, of, verbs in _subresources(kind):
        where = {"group": group_, "version": version_} if group_ else {}
        found.append({"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced, **where,
                      "kind": of, "verbs": list(verbs)})  # fmt: skip
    return found


# All of it in one answer

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def aggregated(kinds: Kinds, *, core: bool) -> Object:
    """``/api`` or ``/apis`` for clients that accept AGGREGATED."""
    found: dict[str, dict[str, list[Object]]] = {}
    for kind in kinds.all():
        if (kind.group == "") == core:
            found.setdefault(kind.group, {}).setdefault(kind.version, []).append(_discovered(kind))
    for versions in found.values():
        for kept in versions.values():
            kept.sort(key=lambda r: str(r["resource"]))
    items = []
    for name, versions in found.items():
        shown = [{"version": v, "resources": versions[v], "freshness": "Current"} for v in sorted(versions, key=_rank)]
        items.append({"metadata": {"name": name} if name else {}, "versions": shown})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _discovered(kind: Kind) -> Object:
    def kind_of(group_: str, version_: str, name: str) -> Object:
        return {"group": group_, "version": version_, "kind": name}

    found: Object = {
        "resource": kind.plural, "responseKind": kind_of("", "", kind.name), "verbs": _verbs(kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster", "singularResource": kind.singular,
    }  # fmt: skip
    if kind.crd:
        found["responseKind"] = kind_of(kind.group, kind.version, kind.name)
    if kind.short:
        found["shortNames"] = list(kind.short)
    if kind.categories:
        found["categories"] = list(kind.categories)
    subs = [
        {"subresource": name, "responseKind": kind_of(group_, version_, of), "verbs": list(verbs)}
        for name, group_, version_, of, verbs in _subresources(kind)
    ]
    return {**found, "subresources": subs} if subs else found
