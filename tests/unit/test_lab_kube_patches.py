"""The older patch formats, and that no patch whatever breaks the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_kube_kit as lab
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from funoffshore.lab.kube import patches, requests, shapes
from funoffshore.lab.kube.api import ApiError, HttpResponse
from funoffshore.lab.kube.cluster import KubeCluster
from funoffshore.lab.kube.kinds import Kinds

SHAPE = shapes.of(Kinds().get("apps/v1/Deployment"))


def test_merge_patch_removes_by_null() -> None:
    assert patches.merge({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": None}}) == {"b": {"d": 3}}


def pod(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


def test_strategic_merge_finds_containers_by_name() -> None:
    old = pod({"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"})
    new = patches.strategic(old, pod({"name": "a", "image": "2"}, {"name": "c", "image": "3"}), SHAPE)
    assert new == pod(
        {"name": "a", "image": "2", "args": ["x"]}, {"name": "b", "image": "1"}, {"name": "c", "image": "3"}
    )
    assert old == pod({"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"})


def test_strategic_merge_knows_its_directives() -> None:
    old = pod({"name": "a", "image": "1"}, {"name": "b", "image": "1"})
    assert patches.strategic(old, pod({"name": "a", "$patch": "delete"}), SHAPE) == pod({"name": "b", "image": "1"})
    assert patches.strategic(old, pod({"$patch": "replace"}, {"name": "z"}), SHAPE) == pod({"name": "z"})
    finalizers = {"metadata": {"finalizers": ["x", "y"]}}
    gone = patches.strategic(finalizers, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}, SHAPE)
    assert gone == {"metadata": {"finalizers": ["y"]}}
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        patches.strategic(old, pod({"image": "1"}), SHAPE)


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1, 2]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a", "value": {}}], {"a": {}}),
        ([{"op": "move", "from": "/a", "path": "/b"}], {"b": [1, 2]}),
        ([{"op": "copy", "from": "/a/1", "path": "/x~1y"}], {"a": [1, 2], "x/y": 2}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
    ],
)
def test_json_patch(operations: list[dict[str, Any]], result: dict[str, Any]) -> None:
    assert patches.json_patch({"a": [1, 2]}, operations) == result


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "test", "path": "/a/0", "value": 2}, 422),
        ({"op": "remove", "path": "/z"}, 422),
        ({"op": "add", "path": "/a/9", "value": 1}, 422),
        ({"op": "add", "path": "a", "value": 1}, 400),
        ({"op": "jump", "path": "/a"}, 400),
        ({"op": "add", "path": "/a"}, 400),
    ],
)
def test_a_json_patch_that_makes_no_sense(operation: dict[str, Any], code: int) -> None:
    with pytest.raises(ApiError) as caught:
        patches.json_patch({"a": [1, 2]}, [operation])
    assert caught.value.code == code


class _Raw:
    """A request as a connection would hand it over."""

    def __init__(self, content_type: str, body: Any, target: str) -> None:
        self.method, self.target = "PATCH", target
        self.headers = {"content-type": content_type}
        self.body = json.dumps(body).encode()


class _Door:
    closed = False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    directory: Path = tmp_path_factory.mktemp("lab")
    with lab.running(directory) as made:
        yield made


def patch(cluster: KubeCluster, content_type: str, body: Any) -> HttpResponse:
    where = "/apis/apps/v1/namespaces/default/deployments/web?fieldManager=me&force=true"
    answer = requests.answer(cluster, lambda _: None, _Raw(content_type, body, where), "admin", _Door())
    assert isinstance(answer, HttpResponse)
    return answer


_keys = st.sampled_from(
    ["metadata", "spec", "status", "labels", "finalizers", "ownerReferences", "replicas", "template", "containers",
     "name", "image", "selector", "matchLabels", "$patch", "volumes", "secret", "env", "strategy", "ports",
     "apiVersion", "kind", "resourceVersion", "uid", "annotations"]
)  # fmt: skip
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "web", "replace", "delete"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=4)),
    max_leaves=12,
)
_paths = st.sampled_from(["", "/", "/spec", "/spec/replicas", "/metadata/labels", "/spec/template/spec/containers/0",
                          "/metadata", "/spec/template/spec/containers/-", "/x/y", "/metadata/finalizers"])  # fmt: skip
_operation = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "test", "move", "copy", "?"])},
    optional={"path": _paths, "from": _paths, "value": _json},
)
_hostile = st.one_of(
    st.tuples(st.just("application/merge-patch+json"), _json),
    st.tuples(st.just("application/strategic-merge-patch+json"), _json),
    st.tuples(st.just("application/apply-patch+yaml"), st.fixed_dictionaries(
        {"apiVersion": st.just("apps/v1"), "kind": st.just("Deployment")},
        optional={"spec": _json, "metadata": _json})),
    st.tuples(st.just("application/json-patch+json"), st.one_of(_json, st.lists(_operation, max_size=4))),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_hostile)
def test_no_patch_breaks_the_server(
    cluster: KubeCluster, caplog: pytest.LogCaptureFixture, hostile: tuple[str, Any]
) -> None:
    if cluster.get("apps/v1/Deployment", "default", "web") is None:
        cluster.apply(lab.deployment(), "me")
    answer = patch(cluster, *hostile)
    document = json.loads(answer.body)
    if answer.status >= 500:  # an apply that does not fit is 500 without a reason, as the real one answers
        assert document["message"].startswith("failed to create typed patch object")
        assert "reason" not in document
    else:
        assert answer.status in (200, 201, 400, 409, 415, 422)
    assert not [record for record in caplog.records if record.exc_info]
