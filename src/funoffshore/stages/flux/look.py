"""Looks at Flux, without changing anything."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import yaml

from funoffshore import errors, health
from funoffshore.config import ClusterConfig
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.flux import wanted
from funoffshore.stages.flux.facts import (
    CONTROLLERS,
    GIT_REPOSITORY,
    KUSTOMIZATION,
    NAMESPACE,
    SETTINGS,
    SOURCE,
    Controllers,
    FluxFacts,
    Name,
    Object,
    digest,
)
from funoffshore.world.world import World

CRD = "apiextensions.k8s.io/v1/CustomResourceDefinition"
SOURCE_CRD = "gitrepositories.source.toolkit.fluxcd.io"


def observe(world: World, config: ClusterConfig, cluster_exists: bool) -> FluxFacts:
    """``cluster_exists``: some controller holds K3s data. Without a kubeconfig such a cluster is unreadable, not
    empty."""
    commit, wanted_names = _in_git(world, config)
    if not world.kube.available:
        if cluster_exists:
            return FluxFacts(unreadable="fo has no kubeconfig for it yet", commit=commit, wanted=wanted_names)
        return FluxFacts(commit=commit, wanted=wanted_names)
    with ThreadPoolExecutor(6, thread_name_prefix="flux") as pool:
        lists = [
            pool.submit(world.kube.list, "apps/v1/Deployment", NAMESPACE),
            # only ours: all of them would be megabytes of Helm's history
            pool.submit(world.kube.list, "v1/Secret", None, wanted.SELECTOR),
            pool.submit(world.kube.list, KUSTOMIZATION, NAMESPACE),
        ]
        single = [
            pool.submit(world.kube.get, "v1/ConfigMap", NAMESPACE, SETTINGS),
            pool.submit(world.kube.get, GIT_REPOSITORY, NAMESPACE, SOURCE),
            pool.submit(world.kube.get, CRD, "", SOURCE_CRD),
        ]
        deployments, secrets, kustomizations = (_items(f.result()) for f in lists)
        settings, source, crd = (f.result() for f in single)
    shut = [r for r in (deployments, secrets, kustomizations, settings, source, crd) if isinstance(r, Unreadable)]
    if shut:
        return FluxFacts(unreadable=shut[0].why, commit=commit, wanted=wanted_names)
    there = _value(settings)
    return FluxFacts(
        commit=commit,
        wanted=wanted_names,
        controllers=_controllers(_list(deployments), _value(crd)),
        settings=dict(there.get("data") or {}) if there else None,
        secrets=_digests(_list(secrets), set(wanted.secrets(config))),
        source=_value(source),
        kustomizations={k["metadata"]["name"]: k for k in _list(kustomizations)},
    )


def _items(reading: Reading[list[Object]]) -> Reading[list[Object]]:
    return Present([]) if isinstance(reading, Absent) else reading


def _list(reading: Reading[list[Object]]) -> list[Object]:
    return reading.value if isinstance(reading, Present) else []


def _value(reading: Reading[Object]) -> Object | None:
    return reading.value if isinstance(reading, Present) else None


def _controllers(deployments: list[Object], crd: Object | None) -> Controllers:
    ours = {d["metadata"]["name"]: d for d in deployments if d["metadata"]["name"] in CONTROLLERS}
    states = {name: health.assess(d) for name, d in ours.items()}
    versions = {str(_labels(d).get("app.kubernetes.io/version", "")) for d in ours.values()}
    labels = _labels(crd or {})
    owner = labels.get("kustomize.toolkit.fluxcd.io/name") or labels.get("fluxcd.controlplane.io/name") or ""
    return Controllers(
        missing=tuple(name for name in CONTROLLERS if name not in ours),
        waiting=tuple(
            f"{name}: {s.reason} {s.message}".strip() for name, s in states.items() if s.state is not health.State.READY
        ),
        version=versions.pop() if len(versions) == 1 and len(ours) == len(CONTROLLERS) else "",
        owner=str(owner),
    )


def read_controllers(world: World) -> Controllers:
    """Flux's Deployments as they are now. Raises UnreachableError when they cannot be read."""
    deployments, crd = _items(world.kube.list("apps/v1/Deployment", NAMESPACE)), world.kube.get(CRD, "", SOURCE_CRD)
    for reading in (deployments, crd):
        if isinstance(reading, Unreadable):
            raise errors.UnreachableError(f"Flux cannot be looked at: {reading.why}")
    return _controllers(_list(deployments), _value(crd))


def _labels(obj: Object) -> Mapping[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def _digests(found: list[Object], names: set[Name]) -> dict[Name, str]:
    digests = {}
    for obj in found:
        name = (str(obj["metadata"].get("namespace")), str(obj["metadata"]["name"]))
        if name in names:
            data = obj.get("data") or {}
            digests[name] = digest({key: base64.b64decode(value or "") for key, value in data.items()})
    return digests


def _in_git(world: World, config: ClusterConfig) -> tuple[Reading[str], dict[str, frozenset[str]]]:
    """The branch's commit and the Kustomizations of its entry folder. A commit whose files cannot be read counts as
    unreadable, lest a plan without its Kustomizations look finished."""
    commit = world.repo.remote_head()
    if not isinstance(commit, Present):
        return commit, {}
    files = world.repo.files(commit.value, config.git.path)
    if isinstance(files, Unreadable):
        return Unreadable(f"the files of {commit.value[:12]} cannot be read: {files.why}"), {}
    found: dict[str, frozenset[str]] = {}
    for path, text in files.value.items() if isinstance(files, Present) else ():
        if path.endswith((".yaml", ".yml")):
            found |= _kustomizations(text)
    return commit, found


def _kustomizations(text: bytes) -> dict[str, frozenset[str]]:
    found = {}
    try:
        documents = list(yaml.safe_load_all(text.decode()))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # Flux itself says what is wrong with it, better than a guess here
    for body in documents:
        if isinstance(body, dict) and str(body.get("apiVersion", "")).startswith("kustomize.toolkit.fluxcd.io/"):
            needs = (body.get("spec") or {}).get("dependsOn") or []
            found[str(body["metadata"]["name"])] = frozenset(str(n["name"]) for n in needs)
    return found
