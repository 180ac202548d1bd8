"""Stand-in charts: real Helm charts with the real ones' names, versions and workloads, and our own program inside."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import paths
from bench.internet.tree import Chart
from funoffshore.lab.flux import chart_crds, crds

SOURCES = Path(__file__).with_name("standin_charts")
"""One folder for each chart; ``_common`` is part of all, ``_default`` is for charts that have no folder."""
_SAYS = "A stand-in of funoffshore's bench for the chart {}: same names and workloads, nothing of the original inside."


@dataclass(frozen=True, slots=True)
class _Definitions:
    """Custom resources that a chart brings along."""

    file: str
    """Name of the list of real definitions, without ``.json``."""
    switch: str = ""
    """Values that must be true for them to be templates; empty: they lie in ``crds/`` and always come."""


_DEFINITIONS = {
    "alloy": _Definitions("alloy"),
    "cert-manager": _Definitions("cert-manager", ".Values.crds.enabled"),
    "k8up": _Definitions("k8up"),
    "prometheus-operator-crds": _Definitions("prometheus-operator", "true"),
    "tailscale-operator": _Definitions("tailscale", ".Values.installCRDs"),
    "traefik": _Definitions("traefik"),
}


@dataclass(frozen=True, slots=True)
class Package:
    """A chart as it is published."""

    chart: Chart
    metadata: Mapping[str, Any]
    """Its ``Chart.yaml``."""
    content: bytes
    """The archive, the same for the same files."""


def reference() -> Path | None:
    """Where lists of the real CRDs lie beside the project (or in FO_SHARED), if they do."""
    found = Path(os.environ.get("FO_SHARED") or paths.project().parent / "shared") / "crds" / "raw"
    return found if found.is_dir() else None


def packages(wanted: Iterable[Chart], definitions: Path | None = None) -> tuple[Package, ...]:
    """One for each chart. ``definitions``: folder with lists of the real CRDs; without it they take everything."""
    return tuple(_package(chart, definitions) for chart in wanted)


def files(chart: Chart, definitions: Path | None = None) -> dict[str, bytes]:
    """The chart's files by their path inside the archive, below no folder."""
    own = SOURCES / chart.name
    found: dict[str, bytes] = {"Chart.yaml": yaml.safe_dump(metadata(chart), sort_keys=False).encode()}
    for path in (SOURCES / "_common").iterdir():
        found[f"templates/{path.name}"] = path.read_bytes()
    source = own if own.is_dir() else SOURCES / "_default"
    for path in (p for p in source.rglob("*") if p.is_file()):
        found[str(path.relative_to(source))] = path.read_bytes()
    found.setdefault("values.yaml", b"{}\n")
    brought = _DEFINITIONS.get(chart.name)
    if brought:
        folder = "files" if brought.switch else "crds"
        for definition in _definitions(chart, brought, definitions):
            name = f"{folder}/{definition['metadata']['name']}.json"
            found[name] = json.dumps(definition, sort_keys=True, separators=(",", ":")).encode()
        if brought.switch:
            found["templates/crds.yaml"] = _TEMPLATE.replace("SWITCH", brought.switch).encode()
    return found


_TEMPLATE = """\
{{- if SWITCH }}
{{- range $path, $_ := .Files.Glob "files/*.json" }}
---
{{ $.Files.Get $path }}
{{- end }}
{{- end }}
"""


def metadata(chart: Chart) -> dict[str, Any]:
    """The chart's ``Chart.yaml``."""
    return {
        "apiVersion": "v2",
        "name": chart.name,
        "version": chart.version,
        "appVersion": chart.version,
        "description": _SAYS.format(chart.name),
        "type": "application",
        "annotations": {"dev.funoffshore.bench": "stand-in"},
    }


def _package(chart: Chart, definitions: Path | None) -> Package:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(files(chart, definitions).items(), key=lambda f: (f[0] != "Chart.yaml", f[0])):
            entry = tarfile.TarInfo(f"{chart.name}/{path}")
            entry.mode, entry.size = 0o644, len(content)
            tar.addfile(entry, io.BytesIO(content))
    return Package(chart, metadata(chart), gzip.compress(raw.getvalue(), 6, mtime=0))


def _definitions(chart: Chart, brought: _Definitions, folder: Path | None) -> Iterator[dict[str, Any]]:
    real = folder / f"{brought.file}.json" if folder else None
    if real is None or not real.exists():
        for crd in chart_crds.brought_by(chart.name):
            yield crds.definition(crd)
        return
    for definition in json.loads(real.read_text(encoding="utf-8"))["items"]:
        kept = {k: v for k, v in definition["metadata"].items() if k in ("name", "labels", "annotations")}
        yield {**{k: definition[k] for k in ("apiVersion", "kind", "spec")}, "metadata": kept}
