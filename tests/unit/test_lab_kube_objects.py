"""The objects of a lab cluster: names, versions, namespaces, deletion, what survives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_kube_kit as lab
import pytest

from funoffshore.lab.kube.api import ApiError
from funoffshore.lab.kube.cluster import KubeCluster

CM = "v1/ConfigMap"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubeCluster]:
    with lab.running(tmp_path) as made:
        yield made


def config_map(name: str = "a", namespace: str = "default", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def refusal(act: Any, *args: Any, **named: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        act(*args, **named)
    return caught.value


def test_a_new_object_gets_identity_and_a_version(cluster: KubeCluster) -> None:
    made = cluster.create(config_map(a="1"), "me")
    meta = made["metadata"]
    assert len(meta["uid"]) == 36
    assert int(meta["resourceVersion"]) > 0
    assert meta["creationTimestamp"].endswith("Z")
    assert "generation" not in meta
    assert cluster.get(CM, "default", "a") == made


def test_what_is_returned_is_a_copy(cluster: KubeCluster) -> None:
    cluster.create(config_map(a="1"), "me")["data"]["a"] = "2"
    assert (cluster.get(CM, "default", "a") or {})["data"] == {"a": "1"}


def test_names_are_refused_as_the_api_does(cluster: KubeCluster) -> None:
    cluster.create(config_map(), "me")
    again = refusal(cluster.create, config_map(), "me")
    assert (again.code, again.reason, again.message) == (409, "AlreadyExists", 'configmaps "a" already exists')
    lost = refusal(cluster.create, config_map(namespace="nowhere"), "me")
    assert (lost.code, lost.message) == (404, 'namespaces "nowhere" not found')
    odd = refusal(cluster.create, config_map("Not_A_Name"), "me")
    assert (odd.code, odd.reason) == (422, "Invalid")
    strange = refusal(cluster.list, "example.com/v1/Nothing")
    assert strange.code == 404


def test_a_change_without_difference_makes_no_version(cluster: KubeCluster) -> None:
    first = cluster.apply(config_map(a="1"), "me")
    assert cluster.apply(config_map(a="1"), "me") == first
    assert cluster.apply(config_map(a="2"), "me")["metadata"]["resourceVersion"] > first["metadata"]["resourceVersion"]


def test_generation_counts_changes_of_the_spec_only(cluster: KubeCluster) -> None:
    kind = "apps/v1/Deployment"
    cluster.apply(lab.deployment(), "me")
    cluster.change_metadata(kind, "default", "web", lambda meta: meta["labels"].update(x="y") if "labels" in meta else
                            meta.update(labels={"x": "y"}))  # fmt: skip
    cluster.change_status(kind, "default", "web", lambda obj: {**obj.get("status", {}), "replicas": 7})
    assert (cluster.get(kind, "default", "web") or {})["metadata"]["generation"] == 1
    cluster.apply(lab.deployment(replicas=2), "me")
    assert (cluster.get(kind, "default", "web") or {})["metadata"]["generation"] == 2


def test_an_old_version_conflicts(cluster: KubeCluster) -> None:
    core, kind = cluster.core, cluster.core.kinds.get(CM)
    old = cluster.create(config_map(a="1"), "me")
    core.update(kind, "default", "a", {**old, "data": {"a": "2"}}, "me")
    late = refusal(core.update, kind, "default", "a", {**old, "data": {"a": "3"}}, "me")
    assert (late.code, late.reason) == (409, "Conflict")
    assert late.message.startswith('Operation cannot be fulfilled on configmaps "a": the object has been modified')


def test_a_namespace_goes_with_everything_in_it(cluster: KubeCluster) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, "me")
    lab.until(lambda: cluster.get("v1/ServiceAccount", "shop", "default"), "default service account")
    lab.until(lambda: cluster.get(CM, "shop", "kube-root-ca.crt"), "CA")
    held = config_map("held", "shop")
    held["metadata"]["finalizers"] = ["example.com/wait"]
    cluster.create(held, "me")
    cluster.delete("v1/Namespace", "", "shop")
    lab.until(lambda: len(cluster.list(CM, "shop")) == 1, "the others to go")
    assert (cluster.get("v1/Namespace", "", "shop") or {})["status"]["phase"] == "Terminating"
    late = refusal(cluster.create, config_map("new", "shop"), "me")
    assert late.code == 403
    assert "because it is being terminated" in late.message
    cluster.change_metadata(CM, "shop", "held", lambda meta: meta.update(finalizers=[]))
    lab.until(lambda: cluster.get("v1/Namespace", "", "shop") is None, "the namespace to go")
    assert refusal(cluster.delete, "v1/Namespace", "", "kube-system").code == 403


def test_what_is_owned_goes_with_its_owner(cluster: KubeCluster) -> None:
    owner = cluster.create(config_map("owner"), "me")
    child = config_map("child")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    child["metadata"]["ownerReferences"] = [reference]
    cluster.create(child, "me")
    other = config_map("other")
    other["metadata"]["ownerReferences"] = [reference]
    cluster.create(other, "me")
    cluster.core.delete(cluster.core.kinds.get(CM), "default", "owner", policy="Foreground")
    lab.until(lambda: cluster.get(CM, "default", "owner") is None, "owner to go last")
    assert cluster.get(CM, "default", "child") is None


def test_orphans_stay(cluster: KubeCluster) -> None:
    owner = cluster.create(config_map("owner"), "me")
    child = config_map("child")
    child["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    ]
    cluster.create(child, "me")
    cluster.core.delete(cluster.core.kinds.get(CM), "default", "owner", policy="Orphan")
    lab.until(lambda: cluster.get(CM, "default", "owner") is None, "owner to go")
    assert "ownerReferences" not in (cluster.get(CM, "default", "child") or {})["metadata"]


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    with lab.running(tmp_path) as first:
        first.apply(lab.crd(), "me")
        lab.until(lambda: first.known("example.com/v1/Widget"), "CRD")
        widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}}
        first.apply(widget, "me")
        first.create(config_map("gone"), "me")
        first.delete(CM, "default", "gone")
        uid = (first.get("v1/Namespace", "", "kube-system") or {})["metadata"]["uid"]
        version = first.core.objects.version
    with lab.running(tmp_path) as second:
        assert (second.get("v1/Namespace", "", "kube-system") or {})["metadata"]["uid"] == uid
        assert second.get("example.com/v1/Widget", "default", "w")
        assert second.core.objects.version >= version
        assert int(second.create(config_map("next"), "me")["metadata"]["resourceVersion"]) > version


def test_a_crd_goes_with_its_objects(cluster: KubeCluster) -> None:
    cluster.apply(lab.crd(), "me")
    lab.until(lambda: cluster.known("example.com/v1/Widget"), "CRD")
    crd = "apiextensions.k8s.io/v1/CustomResourceDefinition"
    lab.until(lambda: lab.condition(cluster.get(crd, "", "widgets.example.com"), "Established"), "Established")
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}}
    cluster.apply(widget, "me")
    cluster.delete(crd, "", "widgets.example.com")
    lab.until(lambda: not cluster.known("example.com/v1/Widget"), "the kind to go")
    assert cluster.core.objects.scan("Widget.example.com") == []


def test_listeners_hear_every_commit_in_order(cluster: KubeCluster) -> None:
    heard: list[tuple[str, str]] = []

    def hear(event: str, obj: dict[str, Any]) -> None:
        if obj["kind"] == "ConfigMap" and obj["metadata"]["name"] == "a":
            heard.append((event, obj.get("data", {}).get("n", "")))

    cluster.subscribe(hear)
    for n in range(50):
        cluster.apply(config_map(n=str(n)), "me")
    cluster.delete(CM, "default", "a")
    lab.until(lambda: len(heard) == 51, "all events")
    assert heard == [("ADDED", "0"), *(("MODIFIED", str(n)) for n in range(1, 50)), ("DELETED", "49")]


def test_a_secret_keeps_its_type_and_encodes_its_text(cluster: KubeCluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
              "stringData": {"a": "b"}}  # fmt: skip
    made = cluster.apply(secret, "me")
    assert (made["type"], made["data"]) == ("Opaque", {"a": "Yg=="})
    assert "stringData" not in made
    changed = refusal(cluster.apply, {**secret, "type": "kubernetes.io/tls"}, "me")
    assert changed.code == 422
