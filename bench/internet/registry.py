"""The reading half of the OCI distribution API, for the images and charts of every registry at once. Anonymous."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.internet.charts import Package
from bench.internet.images import MANIFEST, Image, Images, digest
from bench.internet.reply import Reply, canonical

_CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
_CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_PATHS = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs|tags)/(?P<reference>[^/]+)")
_DOCKER = ("registry-1.docker.io", "index.docker.io", "registry.hub.docker.com")


class Registry:
    """Which registry is meant is told by the host name of the request."""

    def __init__(self, images: Images, charts: Iterable[Package]) -> None:
        self._images = images
        self._charts: dict[str, dict[str, bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        for package in charts:
            if package.chart.oci:
                self._add(package)

    def answer(self, host: str, path: str) -> Reply | None:
        """The reply to GET or HEAD; None for a path that is not of this API."""
        if path in ("/v2", "/v2/"):
            return Reply(200, b"{}", {"Content-Type": "application/json", **_VERSION})
        match = _PATHS.fullmatch(path)
        if match is None:
            return None
        repository = f"{'docker.io' if host in _DOCKER else host}/{match['name']}"
        if match["what"] == "tags":
            return self._tags(repository) if match["reference"] == "list" else None
        if match["what"] == "blobs":
            return self._blob(match["reference"])
        return self._manifest(repository, match["reference"])

    def _add(self, package: Package) -> None:
        config = canonical(package.metadata)
        chart = package.chart
        manifest = canonical({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": _CHART_CONFIG, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": _CHART_LAYER, "digest": digest(package.content), "size": len(package.content)}],
            "annotations": {
                "org.opencontainers.image.title": chart.name,
                "org.opencontainers.image.version": chart.version,
                "org.opencontainers.image.description": str(package.metadata["description"]),
            },
        })  # fmt: skip
        self._charts.setdefault(chart.url, {})[chart.version.replace("+", "_")] = manifest
        self._blobs |= {digest(config): config, digest(package.content): package.content}

    def _manifest(self, repository: str, reference: str) -> Reply:
        charts = self._charts.get(repository)
        if charts is not None:
            by_digest = {digest(m): m for m in charts.values()}
            content = charts.get(reference) or by_digest.get(reference)
        else:
            image: Image | None = self._images.find(repository, reference)
            content = image.manifest if image else None
        if content is None:
            return _error(404, "MANIFEST_UNKNOWN", f"{repository} has no {reference}")
        return Reply(200, content, {"Content-Type": MANIFEST, "Docker-Content-Digest": digest(content), **_VERSION})

    def _blob(self, wanted: str) -> Reply:
        content = self._blobs.get(wanted) or self._images.blob(wanted)
        if content is None:
            return _error(404, "BLOB_UNKNOWN", wanted)
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": wanted, "ETag": f'"{wanted}"'}
        return Reply(200, content, headers | _VERSION)

    def _tags(self, repository: str) -> Reply:
        tags = sorted(self._charts[repository]) if repository in self._charts else self._images.tags(repository)
        if not tags:
            return _error(404, "NAME_UNKNOWN", repository)
        name = repository.partition("/")[2]
        return Reply(200, canonical({"name": name, "tags": tags}), {"Content-Type": "application/json", **_VERSION})


def _error(status: int, code: str, message: str) -> Reply:
    body = canonical({"errors": [{"code": code, "message": message, "detail": None}]})
    return Reply(status, body, {"Content-Type": "application/json", **_VERSION})
