"""Stand-in charts: real charts by structure, and by what the real Helm makes of them where it is at hand."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from infra_tree import substituted
from internet_kit import INFRA
from test_infra_tree import SAMPLE, SWITCHES

from bench.internet import charts
from bench.internet.tree import Chart, read
from funoffshore import stage1

CHARTS = {c.name: c for c in read(INFRA).charts}
RELEASES = sorted(p.parent.name for p in INFRA.rglob("release.yaml"))


def content(package: charts.Package) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(package.content))) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_chart_has_its_name_version_and_says_that_it_stands_in(name: str) -> None:
    [package] = charts.packages([CHARTS[name]])
    files = content(package)
    told = yaml.safe_load(files[f"{name}/Chart.yaml"])
    assert (told["name"], told["version"], told["apiVersion"]) == (name, CHARTS[name].version, "v2")
    assert "stand-in" in told["description"]
    assert all(path.startswith(f"{name}/") for path in files)
    assert any("/templates/" in path for path in files)


def test_archives_repeat_to_the_byte() -> None:
    assert charts.packages(CHARTS.values()) == charts.packages(CHARTS.values())


def test_a_chart_that_the_bench_does_not_know_is_one_application() -> None:
    [package] = charts.packages([Chart("novel", "0.1.0", "charts.example.org", False)])
    assert "novel/templates/workloads.yaml" in content(package)


GROUPS = {
    "cert-manager": "cert-manager.io",
    "k8up": "k8up.io",
    "prometheus-operator-crds": "monitoring.coreos.com",
    "traefik": "traefik.io",
}


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("name", sorted(GROUPS))
def test_definitions_come_along_and_have_a_status(name: str, real: bool, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("shared") / "crds" / "raw" if real else None
    [package] = charts.packages([CHARTS[name]], folder)
    found = [json.loads(c) for path, c in content(package).items() if path.endswith(".json")]
    groups = {d["spec"]["group"] for d in found}
    assert GROUPS[name] in groups
    operated = {"Schedule", "Certificate", "ClusterIssuer", "Prometheus", "Alertmanager"}
    for definition in (d for d in found if d["spec"]["names"]["kind"] in operated):
        assert all("status" in v["subresources"] for v in definition["spec"]["versions"])


@pytest.fixture(scope="session")
def helm() -> str:
    """The real Helm, from PATH or as the bench built it."""
    found = shutil.which("helm")
    if found is None:
        try:
            from bench.build import binary

            found = str(binary("helm"))
        except (ImportError, RuntimeError, OSError):
            pytest.skip("there is no helm")
    return found


def rendered(helm: str, name: str, folder: Path) -> list[dict[str, Any]]:
    """What Helm makes of a release of infra/k8s, with samples for what Flux would fill in."""
    [path] = INFRA.rglob(f"{name}/release.yaml")
    release = substituted(yaml.safe_load(path.read_text()), SAMPLE | SWITCHES)
    spec = release["spec"]
    chart = spec["chart"]["spec"]["chart"] if "chart" in spec else spec["chartRef"]["name"]
    [package] = charts.packages([CHARTS[chart]])
    (folder / "chart.tgz").write_bytes(package.content)
    (folder / "values.yaml").write_text(yaml.safe_dump(spec.get("values") or {}))
    namespace = release["metadata"]["namespace"]
    text = subprocess.run(
        [helm, "template", name, "chart.tgz", "-n", namespace, "-f", "values.yaml", "--include-crds"],
        cwd=folder, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [d for d in yaml.safe_load_all(text) if d]


def by_name(objects: list[dict[str, Any]]) -> Mapping[tuple[str, str], dict[str, Any]]:
    named = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    assert len(named) == len(objects), "two objects of one kind and name"
    return named


MADE_BY_OPERATOR = {
    "prometheus-kube-prometheus-stack-prometheus": ("Prometheus", "kube-prometheus-stack-prometheus"),
    "alertmanager-kube-prometheus-stack-alertmanager": ("Alertmanager", "kube-prometheus-stack-alertmanager"),
    "authentik-postgresql": None,
}
"""StatefulSets that no chart renders: made from a custom resource, or standing in infra/k8s itself."""


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_has_the_workloads_that_postcheck_looks_for(helm: str, name: str, tmp_path: Path) -> None:
    objects = by_name(rendered(helm, name, tmp_path))
    [component] = [c for c in stage1.COMPONENTS if name in c.releases]
    for kind, workload in component.workloads:
        wanted = MADE_BY_OPERATOR.get(workload, (kind, workload))
        assert wanted is None or wanted in objects
    for obj in objects.values():
        if "namespace" in obj["metadata"]:
            assert obj["metadata"]["namespace"] == component.namespace
    for service in (o for k, o in objects.items() if k[0] == "Service"):
        assert _selects(service, objects) or _by_operator(service)


def _selects(service: dict[str, Any], objects: Mapping[tuple[str, str], dict[str, Any]]) -> bool:
    """Whether some workload's pods have the Service's labels and its named ports."""
    for (kind, _), obj in objects.items():
        if kind not in ("Deployment", "StatefulSet", "DaemonSet"):
            continue
        template = obj["spec"]["template"]
        named = {p["name"] for c in template["spec"]["containers"] for p in c.get("ports", [])}
        targets = [p["targetPort"] for p in service["spec"]["ports"] if isinstance(p["targetPort"], str)]
        if service["spec"]["selector"].items() <= template["metadata"]["labels"].items():
            return set(targets) <= named
    return False


def _by_operator(service: dict[str, Any]) -> bool:
    return service["spec"]["selector"]["app.kubernetes.io/name"] in ("prometheus", "alertmanager")


RESTRICTED = {"cert-manager", "origin-ca-issuer", "reloader", "traefik"}
"""Releases in namespaces that enforce Kubernetes' strictest pod security."""


@pytest.mark.parametrize("name", sorted(RESTRICTED))
def test_pods_pass_the_namespaces_pod_security(helm: str, name: str, tmp_path: Path) -> None:
    for obj in rendered(helm, name, tmp_path):
        if obj["kind"] not in ("Deployment", "DaemonSet", "StatefulSet"):
            continue
        pod = obj["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_app_template_follows_its_values(helm: str, tmp_path: Path) -> None:
    objects = by_name(rendered(helm, "sonarr", tmp_path))
    pod = objects["Deployment", "sonarr"]["spec"]["template"]["spec"]
    app, exporter = pod["containers"]
    assert app["image"].startswith("ghcr.io/home-operations/sonarr:")
    assert {"name": "STANDIN_PORTS", "value": "8989"} in app["env"]
    assert {"name": "PORT", "value": "9707"} in exporter["env"]
    assert {"name": "media", "persistentVolumeClaim": {"claimName": "media"}} in pod["volumes"]
    assert {("Service", "sonarr-app"), ("Service", "sonarr-metrics"), ("Ingress", "sonarr")} <= objects.keys()
    [rule] = objects["Ingress", "sonarr"]["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "sonarr-app", "port": {"name": "http"}}
    monitor = objects["ServiceMonitor", "sonarr"]["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= objects["Service", "sonarr-metrics"]["metadata"]["labels"].items()


def test_replicas_and_claims_of_the_values_are_kept(helm: str, tmp_path: Path) -> None:
    assert by_name(rendered(helm, "traefik", tmp_path))["Deployment", "traefik"]["spec"]["replicas"] == 2
    loki = by_name(rendered(helm, "loki", tmp_path))["StatefulSet", "loki"]["spec"]
    [claim] = loki["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
