"""infra/k8s as a tree: what kustomize and Flux need to find, and what must never be in it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from infra_tree import (
    TREE,
    Document,
    Item,
    documents,
    everything,
    flux_kustomizations,
    objects,
    of_kind,
    substituted,
    variables,
    walk,
)

from funoffshore import stage1

SAMPLE = {s.key: s.default or "sample.example.test" for s in stage1.SETTINGS} | {
    "CLUSTER_NAME": "home",
    "VIP": "192.0.2.10",
    "TRAEFIK_LB_ADDRESS": "192.0.2.10",
    "TIMEZONE": "Etc/UTC",
    "ACME_EMAIL": "ops@example.test",
}
SWITCHES = {s.key: "true" for s in stage1.SWITCHES}


def test_duplicate_keys_are_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="duplicate key 'a'"):
        documents("a: 1\na: 2\n")


def _used(folder: Path, seen: set[Path]) -> None:
    """Adds every file that building ``folder`` reads."""
    file = folder / "kustomization.yaml"
    assert file.is_file(), f"{folder.relative_to(TREE)} has no kustomization.yaml"
    seen.add(file)
    [local] = documents(file.read_text(encoding="utf-8"))
    for entry in local.get("resources", []) + local.get("components", []):
        path = (folder / entry).resolve()
        assert path.exists(), f"{file.relative_to(TREE)} names {entry}, which is not there"
        if path.is_dir():
            _used(path, seen)
        else:
            seen.add(path)
    for generator in local.get("configMapGenerator", []):
        for name in generator["files"]:
            assert (folder / name).is_file()
            seen.add(folder / name)


def _paths(document: Document) -> list[Path]:
    text = document["spec"]["path"]
    choices = [("true", "false") if v.endswith("_ENABLED") else () for v in sorted(variables(text))]
    return [
        TREE.parents[1] / re.sub(r"\$\{[^}]*\}", next(iter(choice), ""), text) for choice in itertools.product(*choices)
    ]


def test_every_path_builds_and_no_file_is_orphaned() -> None:
    seen: set[Path] = set()
    for folder in (TREE / "flux", *(p for d in flux_kustomizations().values() for p in _paths(d))):
        _used(folder, seen)
    assert sorted(p for p in TREE.rglob("*") if p.is_file() and p not in seen) == []


def test_kustomizations_use_only_fields_that_the_lab_knows_too() -> None:
    known = {
        "apiVersion", "kind", "resources", "components", "namespace", "configMapGenerator", "generatorOptions",
        "patches", "labels", "images",
    }  # fmt: skip
    assert [(str(i), set(i.document) - known) for i in everything() if i.is_local and set(i.document) - known] == []


def test_flux_kustomizations_share_their_rules() -> None:
    for name, document in flux_kustomizations().items():
        spec = document["spec"]
        assert document["metadata"] == {"name": name, "namespace": "flux-system"}
        assert spec["sourceRef"] == {"kind": "GitRepository", "name": "flux-system"}
        assert spec["wait"] is True
        assert spec["prune"] is True
        assert {"interval", "retryInterval", "timeout", "path"} <= set(spec)
        assert spec["postBuild"]["substituteFrom"] == [
            {"kind": "ConfigMap", "name": "cluster-settings"},
            {"kind": "Secret", "name": "cluster-secrets", "optional": True},
        ]


def test_depends_on_is_complete_and_acyclic() -> None:
    graph = {n: [d["name"] for d in k["spec"].get("dependsOn", [])] for n, k in flux_kustomizations().items()}
    assert {d for after in graph.values() for d in after} <= set(graph)
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {n for n, after in graph.items() if n not in done and done.issuperset(after)}
        assert ready, f"a circle among {sorted(set(graph) - done)}"
        done |= ready


def _before(name: str) -> set[str]:
    """Everything that is ready before Flux applies ``name``, itself included."""
    after = [d["name"] for d in flux_kustomizations()[name]["spec"].get("dependsOn", [])]
    return {name}.union(*(_before(a) for a in after))


def _needs() -> list[tuple[str, Item]]:
    """Flux Kustomization → object, nested folders counted to the component that they belong to."""
    return [(i.component, i) for i in objects() if i.component in flux_kustomizations()]


def test_custom_resources_come_after_whoever_brings_their_api() -> None:
    brings = {g: c.kustomization for c in stage1.COMPONENTS for g in c.groups}
    wrong = [
        str(item)
        for name, item in _needs()
        if item.group in brings and brings[item.group] not in _before(name) - {name}
    ]
    assert wrong == []
    k8up = {i.file.parents[1].name for i in everything() if i.is_local and i.file.parent.name == "backup"}
    for name in k8up - {"components"}:
        assert {"k8up", "storage"} <= _before(name), name


def test_monitors_of_charts_come_after_their_api() -> None:
    for name, item in _needs():
        asks = any(
            path[-1] in {"serviceMonitor", "servicemonitor", "podMonitor"} and value
            for path, value in walk(item.document)
            if path
        )
        if item.kind == "HelmRelease" and asks:
            assert "prometheus-operator-crds" in _before(name), item


def test_namespaces_are_defined_once_protected_and_labelled() -> None:
    names = [i.name for i in of_kind("Namespace")]
    assert len(names) == len(set(names))
    for item in of_kind("Namespace"):
        meta = item.document["metadata"]
        assert meta["annotations"]["kustomize.toolkit.fluxcd.io/prune"] == "disabled", item
        assert meta["labels"]["pod-security.kubernetes.io/enforce"] in {"restricted", "baseline", "privileged"}, item


def test_every_namespace_in_use_is_made_before() -> None:
    made_by = {i.name: i.component for i in of_kind("Namespace")}
    for name, item in _needs():
        if item.namespace in {"", "flux-system"}:
            continue
        assert item.namespace in made_by, item
        assert made_by[item.namespace] in _before(name), item
    for secret in stage1.RENDERED_SECRETS:
        assert secret.namespace in made_by, secret.name


def test_volumes_survive_pruning_and_are_backed_up_or_exempt() -> None:
    claims = [(i, i.document["metadata"].get("annotations", {})) for i in of_kind("PersistentVolumeClaim")]
    with_schedule = {
        documents(i.file.read_text(encoding="utf-8"))[0]["namespace"]
        for i in everything()
        if i.is_local and i.file.parent.name == "backup" and i.document["kind"] == "Kustomization"
    }
    assert claims
    for item, notes in claims:
        assert notes["kustomize.toolkit.fluxcd.io/prune"] == "disabled", item
        exempt = bool(notes.get("funoffshore.dev/backup-exempt"))
        assert (notes["k8up.io/backup"] == "true") is not exempt, item
        assert exempt or item.namespace in with_schedule, item
    for item in of_kind("StatefulSet", "HelmRelease"):
        for path, value in walk(item.document):
            if path and path[-1] in {"volumeClaimTemplates", "volumeClaimTemplate"}:
                assert "funoffshore.dev/backup-exempt" in json.dumps(value), (item, path)


def test_databases_never_lie_on_nfs() -> None:
    for item in of_kind("PersistentVolumeClaim"):
        spec = item.document["spec"]
        if spec["accessModes"] == ["ReadWriteOnce"]:
            assert spec["storageClassName"] == "local-path", item


def test_no_secret_has_data_in_git() -> None:
    for item in of_kind("Secret"):
        assert "sops" in item.document, item
    for path in TREE.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"-----BEGIN|AGE-SECRET-KEY|tskey-|eyJhIjoi", text), path


def test_secret_names_in_git_are_rendered_by_fo() -> None:
    rendered = {(s.namespace, s.name): {*s.keys, *s.literals} for s in stage1.RENDERED_SECRETS}
    made_here = {("cert-manager", "letsencrypt-account")}
    for _, item in _needs():
        namespace = item.namespace or "cert-manager"
        if item.kind == "CustomResourceDefinition":
            continue
        for path, value in walk(item.document):
            if not path or not isinstance(value, dict):
                continue
            if path[-1] in {"secretKeyRef", "apiTokenSecretRef", "tokenRef", "urlSecret", "repoPasswordSecretRef"}:
                assert value["key"] in rendered[namespace, value["name"]], (item, path)
            if path[-1] in {"secretRef", "privateKeySecretRef"} and item.kind != "Kustomization":
                assert (namespace, value["name"]) in rendered.keys() | made_here, (item, path)


def test_only_known_names_are_substituted() -> None:
    known = {s.key for s in stage1.SETTINGS} | {s.key for s in stage1.SWITCHES}
    for path in TREE.rglob("*"):
        if path.is_file():
            assert variables(path.read_text(encoding="utf-8")) <= known, path


@pytest.mark.parametrize("item", objects(), ids=str)
def test_substitution_keeps_every_type(item: Item) -> None:
    """A value such as ``true`` or an empty one would change the type, because quotes do not survive kustomize."""
    after = dict(walk(substituted(item.document, SAMPLE | SWITCHES)))
    assert {p: type(v) for p, v in walk(item.document)} == {p: type(v) for p, v in after.items()}


def _tags(item: Item) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    for path, value in walk(item.document):
        if path and path[-1] == "image":
            if isinstance(value, str):
                found.append((path, value.partition("@")[0].rpartition(":")[2] if ":" in value else ""))
            elif "repository" in value:
                found.append((path, str(value.get("tag", ""))))
        if path == ("spec", "ref"):
            found.append((path, value.get("tag", "")))
        if path == ("spec", "chart", "spec"):
            found.append((path, value.get("version", "")))
    return found


def test_every_image_and_chart_is_pinned() -> None:
    tags = [(str(i), path, tag) for i in objects() for path, tag in _tags(i)]
    assert len(tags) > 25
    exact = re.compile(r"v?\d+\.\d+(\.\d+)*(\.\d+)?(-[a-z0-9]+)?")
    assert [t for t in tags if not exact.fullmatch(t[2])] == []


def test_releases_retry_and_find_their_chart() -> None:
    sources = {(i.kind, i.namespace, i.name): i for i in of_kind("OCIRepository", "HelmRepository")}
    for name, item in _needs():
        if item.kind != "HelmRelease":
            continue
        spec = item.document["spec"]
        reference = spec.get("chartRef") or spec["chart"]["spec"]["sourceRef"]
        source = sources[reference["kind"], reference.get("namespace", item.namespace), reference["name"]]
        assert source.component in _before(name), item
        assert spec["install"]["strategy"]["name"] == spec["upgrade"]["strategy"]["name"] == "RetryOnFailure"
        assert "timeout" in spec


def test_default_deny_where_promised() -> None:
    policies = {(i.namespace, i.name): i.document["spec"] for i in of_kind("NetworkPolicy") if i.namespace}
    for namespace in ("cloudflared", "traefik", "cert-manager", "authentik", "media", "syncthing", "code-server",
                      "portainer"):  # fmt: skip
        assert policies[namespace, "default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
