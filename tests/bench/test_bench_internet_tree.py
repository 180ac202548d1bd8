"""What is read from manifests: images, ports, commands, charts."""

from __future__ import annotations

from pathlib import Path

import pytest
from internet_kit import INFRA

from bench.internet.tree import Chart, full_reference, read

TREE = """\
apiVersion: source.toolkit.fluxcd.io/v1
kind: OCIRepository
metadata: {name: app, namespace: flux-system}
spec: {url: oci://ghcr.io/somebody/charts/app-template, ref: {tag: 5.2.0}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: sonarr, namespace: media}
spec:
  chartRef: {kind: OCIRepository, name: app, namespace: flux-system}
  values:
    controllers:
      sonarr:
        initContainers:
          first: {image: {repository: ghcr.io/somebody/sonarr, tag: 1.2.3}, command: [sh, -c]}
        containers:
          app:
            image: {repository: ghcr.io/somebody/sonarr, tag: 1.2.3}
            probes: {liveness: {spec: {httpGet: {port: 8989}}}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: plain, namespace: a}
spec: {url: https://charts.example.org/stable/}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: registry, namespace: a}
spec: {type: oci, url: oci://quay.io/charts}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: one, namespace: a}
spec: {chart: {spec: {chart: one, version: v1.0.0, sourceRef: {kind: HelmRepository, name: plain}}}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: two, namespace: a}
spec: {chart: {spec: {chart: two, version: 2.0.0, sourceRef: {kind: HelmRepository, name: registry}}}}
---
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers:
        - image: postgres:17
          ports: [{containerPort: 5432}, {containerPort: 53, protocol: UDP}]
          readinessProbe: {exec: {command: [pg_isready, -q]}}
"""


def test_everything_that_a_tree_asks_for(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(TREE)
    found = read(tmp_path)
    assert found.images == {
        "docker.io/library/postgres:17": (5432,),
        "ghcr.io/somebody/sonarr:1.2.3": (8989,),
    }
    assert found.commands == {"sh", "pg_isready"}
    assert found.charts == (
        Chart("app-template", "5.2.0", "ghcr.io/somebody/charts/app-template", True),
        Chart("one", "v1.0.0", "charts.example.org/stable", False),
        Chart("two", "2.0.0", "quay.io/charts/two", True),
    )


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("postgres", "docker.io/library/postgres:latest"),
        ("rancher/mirrored-pause:3.6", "docker.io/rancher/mirrored-pause:3.6"),
        ("localhost/a/b:1", "localhost/a/b:1"),
        ("bench:5000/a", "bench:5000/a:latest"),
        ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b@sha256:00"),
    ],
)
def test_references_are_read_as_clients_read_them(short: str, full: str) -> None:
    assert full_reference(short) == full


def test_our_own_tree_is_understood() -> None:
    found = read(INFRA)
    releases = [p for p in INFRA.rglob("*.yaml") if "kind: HelmRelease" in p.read_text()]
    assert len({c.name for c in found.charts}) == len(found.charts)
    assert len(releases) > len(found.charts) > 10
    assert found.images["docker.io/cloudflare/cloudflared:2026.8.2"] == (2000,)
