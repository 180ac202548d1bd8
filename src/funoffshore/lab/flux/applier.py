"""Applying a set of objects as Flux does it: definitions first, all checked before any is changed, then the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from funoffshore.lab.flux.engine import Engine, kind_of
from funoffshore.lab.flux.kustomize import Object
from funoffshore.lab.flux.kustomize.resource import CLUSTER_KINDS
from funoffshore.lab.kube.api import ApiError

KSA = "kustomize.toolkit.fluxcd.io"
_DEFINITIONS = ("Namespace", "CustomResourceDefinition")
_FIRST = (
    "Namespace", "ResourceQuota", "StorageClass", "CustomResourceDefinition", "ServiceAccount", "PodSecurityPolicy",
    "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ConfigMap", "Secret", "Endpoints", "Service",
    "LimitRange", "PriorityClass", "PersistentVolume", "PersistentVolumeClaim", "Deployment", "StatefulSet", "CronJob",
    "PodDisruptionBudget",
)  # fmt: skip
_LAST = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_ESTABLISH_SECONDS = 10.0


class ApplyError(Exception):
    """Why a set could not be applied, in the words of fluxcd/pkg ``ssa``."""


def subject(obj: Object) -> str:
    """``Deployment/default/web``."""
    metadata = obj["metadata"]
    return "/".join(filter(None, (obj["kind"], metadata.get("namespace"), metadata["name"])))


def entry(obj: Object) -> Object:
    """An inventory entry: ``default_web_apps_Deployment`` and its version."""
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    metadata = obj["metadata"]
    name = str(metadata["name"]).replace(":", "__")
    return {"id": f"{metadata.get('namespace') or ''}_{name}_{group if version else ''}_{obj['kind']}", "v": version}


def parse(entry: Object) -> tuple[str, str, str]:
    """Kind, namespace and name of an inventory entry."""
    namespace, rest = str(entry["id"]).split("_", 1)
    name, group, kind = rest.rsplit("_", 2)
    api = f"{group}/{entry['v']}" if group else entry["v"]
    return f"{api}/{kind}", namespace, name.replace("__", ":")


def ordered(objects: Iterable[Object]) -> list[Object]:
    """By kind as Flux applies them, then by name."""

    def rank(obj: Object) -> tuple[int, str, str, str]:
        kind = obj["kind"]
        place = _FIRST.index(kind) if kind in _FIRST else 200 if kind in _LAST else 100
        return place, kind if place == 100 else "", obj["metadata"].get("namespace") or "", obj["metadata"]["name"]

    return sorted(objects, key=rank)


def apply_all(
    engine: Engine, objects: list[Object], manager: str, adjust: Callable[[Object], bool],
    forced: Callable[[Object], bool] = lambda _: False,
) -> list[Object]:  # fmt: skip
    """Applies ``objects`` and returns them as stored, in order. Raises ApplyError; earlier stages then stay applied.

    ``adjust`` sees each object that is there already and says whether it may be applied; ``forced`` sees each one that
    is applied and says whether it is made anew where a field may not change.
    """
    place(engine, objects)
    done: list[Object] = []
    definitions = [o for o in ordered(objects) if o["kind"] in _DEFINITIONS]
    others = [o for o in ordered(objects) if o["kind"] not in _DEFINITIONS]
    brought = {(o["spec"]["group"], o["spec"]["names"]["kind"]) for o in definitions if _is_crd(o)}
    for stage in (definitions, others):
        for obj in stage:
            _check(engine, obj, brought if stage is others else set())
        done += [_apply(engine, obj, manager, adjust, forced) for obj in stage]
        if stage is definitions:
            _wait_established(engine, [o for o in stage if _is_crd(o)])
    return done


def _is_crd(obj: Object) -> bool:
    return bool(obj["kind"] == "CustomResourceDefinition")


def place(engine: Engine, objects: list[Object]) -> None:
    """Takes the namespace from cluster-scoped objects. Raises ApplyError for a namespaced one that has none."""
    scopes = {(o["spec"]["group"], o["spec"]["names"]["kind"]): o["spec"]["scope"] for o in objects if _is_crd(o)}
    known: dict[tuple[str, str], bool] = {}
    for obj in objects:
        kind = (str(obj["apiVersion"]).rpartition("/")[0], str(obj["kind"]))
        if kind not in known:
            scope = scopes.get(kind) or (engine.scope(obj) if "." in kind[0] else None)
            known[kind] = scope == "Cluster" or (scope is None and kind[1] in CLUSTER_KINDS)
        if known[kind]:
            obj["metadata"].pop("namespace", None)
        elif not obj["metadata"].get("namespace"):
            raise ApplyError(f"{obj['kind']}/{obj['metadata']['name']} namespace not specified")


def _check(engine: Engine, obj: Object, brought: set[tuple[str, str]]) -> None:
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    if engine.cluster.known(kind_of(obj)) or (group, obj["kind"]) in brought:
        return
    api = obj["apiVersion"] if group else version
    raise ApplyError(f'{subject(obj)} dry-run failed: no matches for kind "{obj["kind"]}" in version "{api}"\n')


def _apply(
    engine: Engine, obj: Object, manager: str, adjust: Callable[[Object], bool], forced: Callable[[Object], bool]
) -> Object:
    there = engine.cluster.get(kind_of(obj), obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
    if there is not None and not adjust(there):
        return there
    try:
        try:
            return engine.cluster.apply(obj, manager)
        except ApiError as why:
            if there is None or not (why.code == 422 and "immutable" in why.message and forced(obj)):
                raise
            engine.cluster.delete(kind_of(obj), obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
            return engine.cluster.apply(obj, manager)
    except ApiError as why:
        reason = f" ({why.reason})" if why.code in (403, 404, 422) else ""
        raise ApplyError(f"{subject(obj)} dry-run failed{reason}: {why.message}\n") from why


def _wait_established(engine: Engine, definitions: list[Object]) -> None:
    """The API serves a new kind a moment after its definition is stored."""
    until = time.monotonic() + _ESTABLISH_SECONDS
    for crd in definitions:
        spec = crd["spec"]
        kind = f"{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['kind']}"
        while not engine.cluster.known(kind):
            if time.monotonic() > until:
                raise ApplyError(f"CustomResourceDefinition/{crd['metadata']['name']} is not established")
            time.sleep(0.002)


def prune(engine: Engine, old: list[Object], new: list[Object], owner: Callable[[Object], bool]) -> None:
    """Deletes what ``old`` inventory holds and ``new`` does not, as long as it is still ours."""
    kept = {e["id"] for e in new}
    for gone in reversed(old):
        if gone["id"] in kept:
            continue
        kind, namespace, name = parse(gone)
        there = engine.cluster.get(kind, namespace, name)
        if there is None or not owner(there):
            continue
        marks = {**(there["metadata"].get("labels") or {}), **(there["metadata"].get("annotations") or {})}
        if marks.get(f"{KSA}/prune") != "disabled":
            try:
                engine.cluster.delete(kind, namespace, name)
            except ApiError:
                continue


def adopt(engine: Engine, obj: Object, manager: str) -> None:
    """Makes ``manager`` the owner of what kubectl applied, so that it goes when Git drops it (fluxcd/pkg ``ssa``)."""
    managed = obj["metadata"].get("managedFields") or []
    if not any(m.get("manager") in ("kubectl", "before-first-apply") for m in managed):
        return

    def edit(metadata: Object) -> None:
        mine = any(m.get("manager") == manager for m in metadata.get("managedFields", []))
        kept = []
        for m in metadata.get("managedFields", []):
            if m.get("manager") not in ("kubectl", "before-first-apply"):
                kept.append(m)
            elif not mine and m.get("operation") == "Apply":
                kept.append({**m, "manager": manager})
        metadata["managedFields"] = kept

    metadata = obj["metadata"]
    engine.cluster.change_metadata(kind_of(obj), metadata.get("namespace") or "", metadata["name"], edit)
