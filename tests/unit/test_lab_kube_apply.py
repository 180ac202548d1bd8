"""Server-side apply: ownership, conflicts, what goes when nobody applies it any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_kube_kit as lab
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.lab.kube import fields, shapes
from funoffshore.lab.kube.api import ApiError
from funoffshore.lab.kube.cluster import KubeCluster

DEPLOYMENT = "apps/v1/Deployment"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubeCluster]:
    with lab.running(tmp_path) as made:
        yield made


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": data}


def managers(obj: dict[str, Any]) -> dict[str, Any]:
    return {m["manager"]: m["fieldsV1"] for m in obj["metadata"]["managedFields"]}


def containers(obj: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in obj["spec"]["template"]["spec"]["containers"]}


def test_another_managers_field_is_a_conflict(cluster: KubeCluster) -> None:
    cluster.apply(config_map(a="1", b="1"), "one")
    with pytest.raises(fields.ConflictError) as caught:
        cluster.apply(config_map(a="2", b="2"), "two", force=False)
    assert caught.value.code == 409
    assert caught.value.message == 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    assert caught.value.causes[0] == {
        "reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a",
    }  # fmt: skip


def test_force_takes_the_field_over(cluster: KubeCluster) -> None:
    cluster.apply(config_map(a="1", b="1"), "one")
    taken = cluster.apply(config_map(a="2"), "two", force=True)
    assert taken["data"] == {"a": "2", "b": "1"}
    assert managers(taken) == {"one": {"f:data": {"f:b": {}}}, "two": {"f:data": {"f:a": {}}}}


def test_the_same_value_is_shared_and_stays_until_both_let_go(cluster: KubeCluster) -> None:
    cluster.apply(config_map(a="1", b="1"), "one")
    cluster.apply(config_map(a="1"), "two", force=False)
    assert cluster.apply(config_map(b="1"), "one")["data"] == {"a": "1", "b": "1"}
    assert cluster.apply(config_map(), "two")["data"] == {"b": "1"}


def test_a_field_no_longer_applied_goes(cluster: KubeCluster) -> None:
    cluster.apply(config_map(a="1", b="2"), "one")
    assert cluster.apply(config_map(a="1"), "one")["data"] == {"a": "1"}


def test_a_mapping_that_was_empty_may_fill_up(cluster: KubeCluster) -> None:
    cluster.apply(config_map(), "one")
    cluster.apply(config_map(b="2"), "two")
    assert cluster.apply(config_map(a="1"), "one")["data"] == {"a": "1", "b": "2"}


def test_containers_merge_by_name_and_defaults_return(cluster: KubeCluster) -> None:
    first = lab.deployment(replicas=3)
    first["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "x:1"})
    cluster.apply(first, "one")
    extra = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": first["metadata"], "spec": {"template": {"spec":
             {"containers": [{"name": "web", "env": [{"name": "A", "value": "b"}]}]}}}}  # fmt: skip
    both = cluster.apply(extra, "two", force=False)
    assert set(containers(both)) == {"web", "side"}
    assert containers(both)["web"]["image"] == "example.com/web:1"
    assert containers(both)["web"]["env"] == [{"name": "A", "value": "b"}]
    last = lab.deployment()
    del last["spec"]["replicas"]
    after = cluster.apply(last, "one")
    assert set(containers(after)) == {"web"}
    assert after["spec"]["replicas"] == 1
    assert containers(after)["web"]["env"] == [{"name": "A", "value": "b"}]


def test_ports_are_told_apart_by_number_and_protocol(cluster: KubeCluster) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
               "spec": {"ports": [{"name": "tcp", "port": 53},
                                  {"name": "udp", "port": 53, "protocol": "UDP"}]}}  # fmt: skip
    assert [p["protocol"] for p in cluster.apply(service, "one")["spec"]["ports"]] == ["TCP", "UDP"]
    service["spec"]["ports"] = [{"name": "dns", "port": 53, "protocol": "UDP"}]  # type: ignore[index]
    assert [p["name"] for p in cluster.apply(service, "one")["spec"]["ports"]] == ["dns"]


def test_an_update_owns_what_it_changed_and_conflicts_later(cluster: KubeCluster) -> None:
    cluster.apply(lab.deployment(), "fo")
    kind = cluster.core.kinds.get(DEPLOYMENT)

    def scale(obj: dict[str, Any]) -> dict[str, Any]:
        obj["spec"]["replicas"] = 5
        return obj

    scaled = cluster.core.patch(kind, "default", "web", scale, "kubectl")
    assert managers(scaled)["kubectl"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in managers(scaled)["fo"]["f:spec"]
    with pytest.raises(fields.ConflictError) as caught:
        cluster.apply(lab.deployment(), "fo", force=False)
    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'


def test_an_item_is_spelled_with_its_key(cluster: KubeCluster) -> None:
    cluster.apply(lab.deployment(), "one")
    other = lab.deployment()
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "example.com/web:2"
    with pytest.raises(fields.ConflictError) as caught:
        cluster.apply(other, "two", force=False)
    assert caught.value.causes[0]["field"] == '.spec.template.spec.containers[name="web"].image'


def test_custom_lists_merge_only_where_the_schema_says(cluster: KubeCluster) -> None:
    item = {"type": "object", "properties": {"id": {"type": "string"}, "v": {"type": "string"}}}
    schema = {"type": "object", "properties": {
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                  "items": item},
        "plain": {"type": "array", "items": item}}}  # fmt: skip
    cluster.apply(lab.crd(schema=schema), "me")
    lab.until(lambda: cluster.known("example.com/v1/Widget"), "CRD")

    def widget(*ids: str) -> dict[str, Any]:
        items = [{"id": i, "v": i} for i in ids]
        return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"},
                "spec": {"keyed": items, "plain": items}}  # fmt: skip

    cluster.apply(widget("a"), "one")
    both = cluster.apply(widget("b"), "two")
    assert {i["id"] for i in both["spec"]["keyed"]} == {"a", "b"}
    assert both["spec"]["plain"] == [{"id": "b", "v": "b"}]


def test_what_does_not_fit_is_refused_in_the_words_of_apply(cluster: KubeCluster) -> None:
    wrong = lab.deployment()
    wrong["spec"]["replicas"] = "three"
    with pytest.raises(ApiError) as caught:
        cluster.apply(wrong, "one")
    assert caught.value.message == (
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): "
        ".spec.replicas: expected numeric (int or float), got string"
    )


def test_undeclared_fields_of_custom_resources_are_refused(cluster: KubeCluster) -> None:
    cluster.apply(lab.crd(schema={"type": "object", "properties": {"size": {"type": "integer"}}}), "me")
    lab.until(lambda: cluster.known("example.com/v1/Widget"), "CRD")
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}}
    with pytest.raises(ApiError, match=r"\.spec\.sise: field not declared in schema"):
        cluster.apply({**widget, "spec": {"sise": 1}}, "me")
    with pytest.raises(ApiError, match=r"\.spec\.size: expected numeric \(int or float\), got string") as caught:
        cluster.apply({**widget, "spec": {"size": "big"}}, "me")
    assert caught.value.code == 500
    with pytest.raises(ApiError, match=r"spec\.size in body must be of type integer"):
        cluster.create({**widget, "spec": {"size": "big"}}, "me")


_names = st.sampled_from(["a", "b", "c"])
_values = st.recursive(
    st.sampled_from(["x", "y", 1]), lambda inner: st.dictionaries(_names, inner, max_size=3), max_leaves=6
)
_configs = st.dictionaries(_names, _values, max_size=3)


@given(_configs, _configs)
def test_applying_twice_leaves_exactly_the_second(first: dict[str, Any], second: dict[str, Any]) -> None:
    shape = shapes.Shape(custom=True)

    def entry() -> fields.Entry:
        return fields.Entry("me", "Apply", "v1", "", "", set())

    once = fields.apply({"metadata": {}}, {"spec": first}, shape, entry(), force=False)
    twice = fields.apply(once, {"spec": second}, shape, entry(), force=False)
    assert twice.get("spec") == second


@given(_configs)
def test_fields_survive_their_encoding(config: dict[str, Any]) -> None:
    paths = set(fields.flatten({"spec": config}, shapes.Shape(custom=True)))
    assert fields.decode(fields.encode(paths)) == paths
