"""What a tree of manifests takes from the internet: images with the ports they serve, and Helm charts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart at one version, and where it is asked for."""

    name: str
    version: str
    url: str
    """Without the scheme: the chart's own repository in a registry, or the folder that has the ``index.yaml``."""
    oci: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """All that some manifests need from outside."""

    images: Mapping[str, tuple[int, ...]]
    """Full reference (host, path, tag or digest) → TCP ports that its containers serve."""
    commands: frozenset[str]
    """First words of what containers and their probes execute."""
    charts: tuple[Chart, ...]


def read(root: Path) -> Tree:
    """Everything below ``root``. Raises OSError, yaml.YAMLError for what is no YAML."""
    documents = [d for path in sorted(root.rglob("*.yaml")) for d in _load(path)]
    images: dict[str, set[int]] = {}
    commands: set[str] = set()
    for container in (c for d in documents for c in containers(d)):
        image = container.get("image")
        reference = f"{image.get('repository')}:{image.get('tag')}" if isinstance(image, dict) else str(image)
        images.setdefault(full_reference(reference), set()).update(_ports(container))
        commands.update(_commands(container))
    charts = tuple(sorted(set(_charts(documents)), key=lambda c: (c.name, c.version, c.url)))
    return Tree({k: tuple(sorted(v)) for k, v in sorted(images.items())}, frozenset(commands), charts)


def full_reference(reference: str) -> str:
    """``postgres`` becomes ``docker.io/library/postgres:latest``, as every client reads it."""
    first, slash, rest = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "docker.io", reference if slash else f"library/{reference}"
    tagged = "@" in rest or ":" in rest.rpartition("/")[2]
    return f"{first}/{rest}" + ("" if tagged else ":latest")


def containers(document: Any) -> Iterator[Document]:
    """Every container in any depth: in pod templates, and in the values of charts that take them as a mapping."""
    if isinstance(document, list):
        for inner in document:
            yield from containers(inner)
    elif isinstance(document, dict):
        for key, inner in document.items():
            if key in ("containers", "initContainers"):
                found: Iterable[Any] = inner.values() if isinstance(inner, dict) else inner or ()
                yield from (c for c in found if isinstance(c, dict) and c.get("image"))
            else:
                yield from containers(inner)


def _load(path: Path) -> list[Document]:
    text = path.read_text(encoding="utf-8")
    return [d for d in yaml.safe_load_all(text) if isinstance(d, dict)]


def _ports(container: Document) -> Iterator[int]:
    for port in container.get("ports") or ():
        if (
            isinstance(port, dict)
            and port.get("protocol", "TCP") == "TCP"
            and isinstance(port.get("containerPort"), int)
        ):
            yield port["containerPort"]
    probes = [container.get(f"{name}Probe") for name in ("startup", "readiness", "liveness")]
    probes += [p.get("spec") for p in (container.get("probes") or {}).values() if isinstance(p, dict)]
    for probe in probes:
        for way in ("httpGet", "tcpSocket"):
            asked = ((probe or {}).get(way) or {}).get("port")
            if isinstance(asked, int):
                yield asked


def _commands(container: Document) -> Iterator[str]:
    lists = [container.get("command")]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        lists.append(((container.get(name) or {}).get("exec") or {}).get("command"))
    yield from (str(words[0]) for words in lists if isinstance(words, list) and words)


def _charts(documents: list[Document]) -> Iterator[Chart]:
    named = {(str(d.get("kind")), _meta(d, "namespace"), _meta(d, "name")): d.get("spec") or {} for d in documents}
    for document in documents:
        if document.get("kind") != "HelmRelease":
            continue
        spec, own = document.get("spec") or {}, _meta(document, "namespace")
        if reference := spec.get("chartRef"):
            source = named.get(_key(reference, own), {})
            url = _bare(str(source.get("url", "")))
            version = (source.get("ref") or {}).get("tag")
            if url and version:
                yield Chart(url.rpartition("/")[2], str(version), url, True)
        elif chart := (spec.get("chart") or {}).get("spec"):
            reference = chart.get("sourceRef") or {}
            source = named.get(_key(reference, own), {})
            url, oci = _bare(str(source.get("url", ""))), str(source.get("url", "")).startswith("oci://")
            if url and chart.get("version"):
                yield Chart(chart["chart"], str(chart["version"]), f"{url}/{chart['chart']}" if oci else url, oci)


def _key(reference: Document, namespace: str) -> tuple[str, str, str]:
    return str(reference.get("kind")), str(reference.get("namespace") or namespace), str(reference.get("name"))


def _meta(document: Document, key: str) -> str:
    return str((document.get("metadata") or {}).get(key) or "")


def _bare(url: str) -> str:
    return url.partition("://")[2].rstrip("/")
