"""The project's own infra/k8s on the lab's Flux: every component of Stage 1 becomes ready."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flux_bench import HELM_RELEASE, KUSTOMIZATION, Bench, condition

from funoffshore import health, stage1

INFRA = Path(__file__).parents[2] / "infra"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def prepare(bench: Bench) -> None:
    """What fo and K3s put there before Flux begins."""
    shutil.copytree(INFRA, bench.worktree.folder / "infra")
    local = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local-path",
             "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
             "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer"}  # fmt: skip
    bench.cluster.apply(local, "k3s")
    settings = {s.key: s.default or "set.example.org" for s in stage1.SETTINGS}
    settings |= {s.key: "true" for s in stage1.SWITCHES} | {"TRAEFIK_LB_ADDRESS": "192.0.2.7"}
    config(bench, "ConfigMap", "flux-system", "cluster-settings", settings)
    config(bench, "Secret", "flux-system", "sops-age", {})
    for entry in stage1.RENDERED_SECRETS:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": entry.namespace}}
        bench.cluster.apply(namespace, "kubectl")
        config(bench, "Secret", entry.namespace, entry.name, dict.fromkeys([*entry.keys, *entry.literals], "eA=="))


def config(bench: Bench, kind: str, namespace: str, name: str, data: dict[str, str]) -> None:
    metadata = {"name": name, "namespace": namespace}
    bench.cluster.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}, "fo")


def lagging(bench: Bench) -> list[str]:
    """Kustomizations that are not ready, with what they say."""
    found = []
    for obj in bench.cluster.list(KUSTOMIZATION):
        ready = condition(obj)
        if not ready or ready["status"] != "True":
            found.append(f"{obj['metadata']['name']}: {ready and ready['message']}")
    return found


def test_every_component_becomes_ready(bench: Bench) -> None:
    prepare(bench)
    bench.publish({})
    bench.follow()
    source = {"kind": "GitRepository", "name": "flux-system"}
    spec = {"interval": "10m", "ref": {"branch": "main"}, "url": bench.web.git_url("fleet")}
    bench.apply("source.toolkit.fluxcd.io/v1/GitRepository", "flux-system", spec)
    substitutes = [{"kind": "ConfigMap", "name": "cluster-settings"}]
    bench.apply(KUSTOMIZATION, "cluster", {"interval": "10m", "path": "./infra/k8s/flux", "prune": True,
                "sourceRef": source, "postBuild": {"substituteFrom": substitutes}})  # fmt: skip
    expected = {c.kustomization for c in stage1.COMPONENTS}
    bench.until(
        lambda: expected <= {o["metadata"]["name"] for o in bench.cluster.list(KUSTOMIZATION)} and not lagging(bench),
        lambda: lagging(bench),
    )
    for component in stage1.COMPONENTS:
        for name in component.releases:
            release = bench.get(HELM_RELEASE, name, component.namespace)
            assert health.assess(release).state is health.State.READY, component.id
        for kind, name in component.workloads:
            workload = bench.get(f"apps/v1/{kind}", name, component.namespace)
            assert health.assess(workload).state is health.State.READY, f"{component.id}: {kind} {name}"
    groups = {c["spec"]["group"] for c in bench.cluster.list("apiextensions.k8s.io/v1/CustomResourceDefinition")}
    assert {g for c in stage1.COMPONENTS for g in c.groups} <= groups
