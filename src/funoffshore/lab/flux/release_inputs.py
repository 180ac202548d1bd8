"""What a HelmRelease is made of: its chart, its values, and what must be ready before it."""

from __future__ import annotations

import base64
import copy

from funoffshore.lab.flux import charts, conditions
from funoffshore.lab.flux.chart_objects import Release
from funoffshore.lab.flux.engine import HELM_CHART, HELM_RELEASE, OCI, Engine
from funoffshore.lab.flux.kustomize import BuildError, Object, load_all
from funoffshore.lab.flux.queue import Key

_MANAGER = "helm-controller"


class BlockedError(Exception):
    """Why a release cannot begin: reason and message of its Ready condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def resolve(engine: Engine, key: Key, obj: Object) -> Release:
    """Raises BlockedError."""
    spec = obj["spec"]
    _check_dependencies(engine, key, spec)
    chart, version, digest = _chart(engine, key, obj)
    values = _values(engine, key[1], spec)
    namespace = spec.get("targetNamespace") or key[1]
    return Release(chart, version, release_name(obj), namespace, values, (key[1], key[2]), digest)


def _check_dependencies(engine: Engine, key: Key, spec: Object) -> None:
    for ref in spec.get("dependsOn") or []:
        namespace = ref.get("namespace") or key[1]
        other = engine.cluster.get(HELM_RELEASE, namespace, ref["name"])
        if other is None:
            text = f'helmreleases.helm.toolkit.fluxcd.io "{ref["name"]}" not found'
            raise BlockedError("DependencyNotReady", f"unable to get '{namespace}/{ref['name']}' dependency: {text}")
        ready = conditions.find(other, "Ready")
        if (
            not ready
            or ready["status"] != "True"
            or other["status"].get("observedGeneration") != other["metadata"].get("generation")
        ):
            raise BlockedError("DependencyNotReady", f"dependency '{namespace}/{ref['name']}' is not ready")


def _chart(engine: Engine, key: Key, obj: Object) -> tuple[str, str, str]:
    """Name, version and OCI digest of the chart, once its source has it."""
    spec = obj["spec"]
    ref = spec.get("chartRef")
    if ref:
        where = (HELM_CHART if ref["kind"] == "HelmChart" else OCI, ref.get("namespace") or key[1], ref["name"])
    elif spec.get("chart"):
        where = _helm_chart(engine, key, spec["chart"])
    else:
        raise BlockedError("ArtifactFailed", "neither chart nor chartRef is given")
    source = engine.get(where)
    words = f"{where[0].rsplit('/', 1)[1]} '{where[1]}/{where[2]}'"
    if source is None:
        kind = f"{where[0].rsplit('/', 1)[1]}.source.toolkit.fluxcd.io"
        raise BlockedError("ArtifactFailed", f'could not get Source object: {kind} "{where[2]}" not found')
    if why := _not_ready(source):
        raise BlockedError("SourceNotReady", f"{words} is not ready: {why}")
    artifact = source["status"]["artifact"]
    if where[0] == OCI:
        tag, _, digest = artifact["revision"].partition("@")
        short = f"+{digest.partition(':')[2][:12]}" if digest else ""
        # a version with something added is written anew, without a leading v
        return charts.name_of(source["spec"]["url"]), (tag.removeprefix("v") if short else tag) + short, digest
    return str(source["status"].get("observedChartName") or source["spec"]["chart"]), artifact["revision"], ""


def _not_ready(source: Object) -> str:
    """Why a source cannot be used; one that could not be fetched anew still has what it had."""
    status = source.get("status") or {}
    ready, stalled = conditions.find(source, "Ready"), conditions.find(source, "Stalled")
    if status.get("observedGeneration") != source["metadata"].get("generation"):
        lag = "latest generation of object has not been reconciled"
        return str(ready["message"]) if ready and ready["status"] == "False" else lag
    if stalled and stalled["status"] == "True":
        return str(stalled["message"])
    return "" if status.get("artifact") else "does not have an artifact"


def _helm_chart(engine: Engine, key: Key, chart: Object) -> Key:
    spec = chart["spec"]
    namespace = spec["sourceRef"].get("namespace") or key[1]
    name = f"{key[1]}-{key[2]}"
    wanted = {
        "chart": spec["chart"],
        "interval": spec.get("interval") or "1m0s",
        "reconcileStrategy": spec.get("reconcileStrategy") or "ChartVersion",
        "sourceRef": {k: spec["sourceRef"][k] for k in ("kind", "name")},
        "version": spec.get("version") or "*",
    }
    labels = {"helm.toolkit.fluxcd.io/name": key[2], "helm.toolkit.fluxcd.io/namespace": key[1]}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    api, _, kind = HELM_CHART.rpartition("/")
    there = engine.cluster.get(HELM_CHART, namespace, name)
    if there is None or any(there["spec"].get(k) != v for k, v in wanted.items()):
        engine.cluster.apply({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": wanted}, _MANAGER)
    return HELM_CHART, namespace, name


def _values(engine: Engine, namespace: str, spec: Object) -> Object:
    """``valuesFrom`` in order, then ``values`` over all. Raises BlockedError for what is not there."""
    merged: Object = {}
    for ref in spec.get("valuesFrom") or []:
        source = engine.cluster.get(f"v1/{ref['kind']}", namespace, ref["name"])
        key = ref.get("valuesKey") or "values.yaml"
        data = (source or {}).get("data") or {}
        if source is None or key not in data:
            if ref.get("optional"):
                continue
            what = f"{ref['kind']} chart values reference '{namespace}/{ref['name']}' with key '{key}'"
            why = f"missing key '{key}'" if source else f'{ref["kind"].lower()}s "{ref["name"]}" not found'
            raise BlockedError("ValuesError", f"could not resolve {what}: {why}")
        text = base64.b64decode(data[key]).decode() if ref["kind"] == "Secret" else data[key]
        if ref.get("targetPath"):
            _set(merged, ref["targetPath"], text)
            continue
        try:
            documents = load_all(text, key)
        except BuildError as why:
            raise BlockedError("ValuesError", f"unable to read values from key '{key}': {why}") from why
        _merge(merged, documents[0] if documents and isinstance(documents[0], dict) else {})
    _merge(merged, copy.deepcopy(spec.get("values") or {}))
    return merged


def release_name(obj: Object) -> str:
    spec, metadata = obj["spec"], obj["metadata"]
    target = spec.get("targetNamespace")
    return str(spec.get("releaseName") or (f"{target}-{metadata['name']}" if target else metadata["name"]))[:53]


def _merge(into: Object, values: Object) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _set(into: Object, path: str, value: str) -> None:
    *parents, last = path.split(".")
    for part in parents:
        into = into.setdefault(part, {})
    into[last] = value
