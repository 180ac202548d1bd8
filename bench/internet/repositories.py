"""Helm repositories of the old kind: an index and archives, below any URL."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from bench.internet.charts import Package
from bench.internet.images import digest
from bench.internet.reply import Reply

_MADE = "2026-01-01T00:00:00Z"


class Repositories:
    """All of them at once; which one is meant is told by the URL."""

    def __init__(self, charts: Iterable[Package]) -> None:
        self._files: dict[str, bytes] = {}
        indexes: dict[str, dict[str, list[object]]] = {}
        for package in (p for p in charts if not p.chart.oci):
            chart, content = package.chart, package.content
            archive = f"{chart.name}-{chart.version}.tgz"
            self._files[f"{chart.url}/{archive}"] = content
            entry = {**package.metadata, "created": _MADE, "digest": digest(content)[7:], "urls": [archive]}
            indexes.setdefault(chart.url, {}).setdefault(chart.name, []).append(entry)
        for url, entries in indexes.items():
            index = {"apiVersion": "v1", "generated": _MADE, "entries": entries}
            self._files[f"{url}/index.yaml"] = yaml.safe_dump(index).encode()

    def answer(self, url: str) -> Reply | None:
        """``url``: host and path. None for what is not in any repository."""
        content = self._files.get(url)
        if content is None:
            return None
        kind = "text/yaml" if url.endswith(".yaml") else "application/gzip"
        return Reply(200, content, {"Content-Type": kind})
