"""What fo reads from a Kubernetes API and does to it through its own door, on the lab and on a real control plane."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from kube_backends import Backend, config_map, crd, deployment

from bench import plane_pki
from funoffshore import errors
from funoffshore.clock import WallClock
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world.kube import Kube
from funoffshore.world.routes import Routes

pytest_plugins = ("kube_fixtures",)

CM = "v1/ConfigMap"
CRD = "apiextensions.k8s.io/v1/CustomResourceDefinition"


def refused(backend: Backend, obj: dict[str, Any], *, manager: str = "fo", force: bool = False) -> errors.RefusedError:
    with pytest.raises(errors.RefusedError) as caught:
        backend.door.apply([obj], manager, force)
    return caught.value


def test_readiness_and_identity(backend: Backend) -> None:
    ready = backend.value(backend.door.readyz())
    assert "[+]etcd ok" in ready
    assert ready.strip().endswith("readyz check passed")
    assert (
        backend.value(backend.door.cluster_uid()) == backend.get("v1/Namespace", "", "kube-system")["metadata"]["uid"]
    )


def test_what_the_api_says_is_not_there_is_absent(backend: Backend, space: str) -> None:
    assert backend.door.get(CM, space, "nothing") == Absent()
    assert backend.door.get("nowhere.example.org/v1/Thing", space, "x") == Absent()
    assert backend.door.list("nowhere.example.org/v1/Thing") == Absent()
    assert backend.door.list("apps/v1/Thing") == Absent()
    assert backend.value(backend.door.list("batch/v1/Job", space)) == []
    assert backend.value(backend.door.list(CM, "no-such-namespace")) == []


def test_lists_carry_version_and_kind(backend: Backend, space: str) -> None:
    backend.door.apply([config_map(space, "marked")], "fo")
    for found in (
        backend.value(backend.door.list(CM, space)), backend.value(backend.door.list(CM, None))
    ):  # fmt: skip
        assert {(o["apiVersion"], o["kind"]) for o in found} == {("v1", "ConfigMap")}
        assert (space, "marked") in {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in found}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=x", ["one", "two"]), ("app in (x,y),tier!=db", ["one", "three"]), ("tier", ["one", "two"]),
        ("!tier", ["kube-root-ca.crt", "three"]), ("app=x,tier=db", ["two"]),
        ("app notin (x)", ["kube-root-ca.crt", "three"]),
    ],
)  # fmt: skip
def test_labels_select(backend: Backend, space: str, selector: str, names: list[str]) -> None:
    for name, labels in (
        ("one", {"app": "x", "tier": "web"}),
        ("two", {"app": "x", "tier": "db"}),
        ("three", {"app": "y"}),
    ):
        obj = config_map(space, name)
        obj["metadata"]["labels"] = labels
        backend.door.apply([obj], "fo")
    backend.until(lambda: isinstance(backend.door.get(CM, space, "kube-root-ca.crt"), Present))
    assert [o["metadata"]["name"] for o in backend.value(backend.door.list(CM, space, selector))] == names


def test_a_selector_that_cannot_be_read_is_no_empty_list(backend: Backend, space: str) -> None:
    reading = backend.door.list(CM, space, "a b c")
    assert isinstance(reading, Unreadable)
    assert "unable to parse requirement" in reading.why


def test_lists_come_in_pages_and_start_again_when_they_expire(
    backend: Backend, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.door.apply([config_map(space, f"c{n:02}") for n in range(25)], "fo")
    monkeypatch.setattr("funoffshore.world.kube.door._PAGE", 10)
    before = backend.door.calls
    names = [o["metadata"]["name"] for o in backend.value(backend.door.list(CM, space))]
    assert [name for name in names if name.startswith("c")] == [f"c{n:02}" for n in range(25)]
    assert backend.door.calls - before == 3


def test_a_list_whose_pages_expire_is_read_anew(backend: Backend, space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.door.apply([config_map(space, f"c{n:02}") for n in range(25)], "fo")
    monkeypatch.setattr("funoffshore.world.kube.door._PAGE", 10)
    door = Kube(backend.kubeconfig, Routes(), WallClock())
    original, asked = door._call, list[str]()

    def call(method: str, path: str, query: dict[str, str], *rest: Any, **more: Any) -> Any:
        answer = original(method, path, query, *rest, **more)
        asked.append(query.get("continue", ""))
        if len(asked) == 1:
            token = json.loads(answer.body)["metadata"]["continue"]
            backend.door.apply([config_map(space, "late")], "fo")
            backend.forget()
            backend.until(lambda: backend.wire.call("GET", f"{path}?limit=10&continue={token}").status == 410)
        return answer

    monkeypatch.setattr(door, "_call", call)
    names = [o["metadata"]["name"] for o in backend.value(door.list(CM, space))]
    assert {"c00", "c24", "late"} <= set(names)
    assert len(names) == len(set(names))
    assert [bool(token) for token in asked] == [False, True, False]


def test_kinds_and_namespaces_come_before_what_needs_them(backend: Backend, space: str) -> None:
    kind = f"Early{space.title()}"
    group = "contract.example.org/v1"
    place = f"{space}-inner"
    widget = {"apiVersion": group, "kind": kind, "metadata": {"name": "w", "namespace": place}, "spec": {"size": 1}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}}
    stored = backend.door.apply([widget, namespace, crd(kind)], "fo")
    assert {o["kind"] for o in stored} == {kind, "Namespace", "CustomResourceDefinition"}
    found = backend.value(backend.door.list(f"{group}/{kind}"))
    assert [(o["metadata"]["name"], o["spec"]) for o in found] == [("w", {"size": 1, "colour": "red"})]
    backend.door.delete(CRD, "", f"{kind.lower()}s.contract.example.org")
    backend.until(lambda: backend.door.list(f"{group}/{kind}") == Absent())
    backend.door.delete("v1/Namespace", "", place)


def test_another_managers_field_is_a_conflict_unless_forced(backend: Backend, space: str) -> None:
    backend.door.apply([config_map(space, a="1", b="1")], "one")
    error = refused(backend, config_map(space, a="2"), manager="two")
    assert (error.status, error.message) == (
        409, f'the cluster refused ConfigMap {space}/a: Apply failed with 1 conflict: conflict with "one": .data.a'
    )  # fmt: skip
    several = refused(backend, config_map(space, a="2", b="2"), manager="two")
    assert 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b' in several.message
    assert backend.door.apply([config_map(space, a="2")], "two", force=True)[0]["data"] == {"a": "2", "b": "1"}
    assert '"two": .data.a' in refused(backend, config_map(space, a="1", b="1"), manager="one").message


def test_a_field_stays_while_one_manager_applies_it(backend: Backend, space: str) -> None:
    backend.door.apply([config_map(space, a="1", b="1")], "one")
    backend.door.apply([config_map(space, a="1")], "two")
    assert backend.door.apply([config_map(space, b="1")], "one")[0]["data"] == {"a": "1", "b": "1"}
    assert backend.door.apply([config_map(space)], "two")[0]["data"] == {"b": "1"}
    backend.door.patch(CM, space, "a", {"data": {"c": "1"}}, "three")
    assert backend.door.apply([config_map(space)], "one")[0]["data"] == {"c": "1"}


def test_a_patched_field_belongs_to_who_patched_it(backend: Backend, space: str) -> None:
    backend.door.apply([config_map(space, a="1")], "fo")
    backend.door.patch(CM, space, "a", {"data": {"a": "2"}}, "somebody")
    assert 'conflict with "somebody" using v1: .data.a' in refused(backend, config_map(space, a="1")).message


def test_applying_the_same_again_changes_nothing(backend: Backend, space: str) -> None:
    objects = [config_map(space, a="1"), deployment(space, replicas=0)]
    backend.door.apply(objects, "fo")
    backend.until(lambda: backend.get("apps/v1/Deployment", space, "web").get("status", {}).get("observedGeneration"))
    before = [backend.get(k, space, n)["metadata"] for k, n in ((CM, "a"), ("apps/v1/Deployment", "web"))]
    again = [o["metadata"] for o in backend.door.apply(objects, "fo")]
    assert [(m["resourceVersion"], m.get("generation")) for m in again] == [
        (m["resourceVersion"], m.get("generation")) for m in before
    ]


def test_containers_merge_by_name_and_a_manager_owns_its_own(backend: Backend, space: str) -> None:
    backend.door.apply([deployment(space, replicas=0)], "one")
    extra = deployment(space, replicas=0)
    extra["spec"]["template"]["spec"]["containers"] = [{"name": "side", "image": "example.org/side:1"}]
    both = backend.door.apply([extra], "two")[0]["spec"]["template"]["spec"]["containers"]
    assert {c["name"] for c in both} == {"web", "side"}
    lone = backend.door.apply([{**extra, "spec": deployment(space, replicas=0)["spec"]}], "two")[0]
    assert [c["name"] for c in lone["spec"]["template"]["spec"]["containers"]] == ["web"]


def test_patch_changes_what_is_there(backend: Backend, space: str) -> None:
    backend.door.apply([config_map(space, a="1", b="2")], "fo")
    assert backend.door.patch(CM, space, "a", {"data": {"a": None}})["data"] == {"b": "2"}
    with pytest.raises(errors.RefusedError) as caught:
        backend.door.patch(CM, space, "nothing", {"data": {}})
    assert (caught.value.status, caught.value.message) == (
        404, f'the cluster refused v1/ConfigMap {space}/nothing: configmaps "nothing" not found'
    )  # fmt: skip


def test_secrets_keep_what_is_no_longer_applied_as_text(backend: Backend, space: str) -> None:
    """stringData is copied into data, which nobody owns: hence fo takes keys away itself."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": space}}
    backend.door.apply([{**secret, "stringData": {"a": "1", "b": "2"}}], "fo")
    backend.door.apply([{**secret, "stringData": {"a": "3"}}], "fo")
    stored = backend.get("v1/Secret", space, "s")
    assert stored["type"] == "Opaque"
    assert "stringData" not in stored
    assert {k: base64.b64decode(v) for k, v in stored["data"].items()} == {"a": b"3", "b": b"2"}
    assert backend.door.patch("v1/Secret", space, "s", {"data": {"b": None}})["data"].keys() == {"a"}
    other = {**secret, "metadata": {"name": "t", "namespace": space}}
    backend.door.apply([{**other, "data": {"a": "eA=="}}], "fo")
    backend.door.apply([{**other, "data": {"b": "eA=="}}], "fo")
    assert backend.get("v1/Secret", space, "t")["data"] == {"b": "eA=="}


def test_no_message_quotes_a_secret(backend: Backend, space: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": space}, "type": "Opaque"}
    backend.door.apply([{**secret, "stringData": {"a": "hunter2"}}], "fo")
    changes: list[dict[str, Any]] = [
        {"type": "hunter2"}, {"data": {"a": "hunter2!"}}, {"data": {"a": 7}, "hunter2": ""},
    ]  # fmt: skip
    for wrong in changes:
        error = refused(backend, {**secret, **wrong}, force=True)
        assert "hunter2" not in f"{error}{error.evidence}{error.message}"
    with pytest.raises(errors.RefusedError) as caught:
        backend.door.patch("v1/Secret", space, "s", {"data": {"b": ["hunter2"]}})
    assert caught.value.status == 422
    assert "hunter2" not in f"{caught.value}{caught.value.evidence}{caught.value.message}"


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"spec": {"replicas": "many"}}, 500, ".spec.replicas: expected numeric (int or float), got string"),
        ({"spec": {"replica": 1}}, 500, ".spec.replica: field not declared in schema"),
        ({"metadata": {"label": {}}}, 500, ".metadata.label: field not declared in schema"),
        ({"spec": {"replicas": -1}}, 422, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"spec": {"strategy": {"type": "Odd"}}}, 422, 'supported values: "Recreate", "RollingUpdate"'),
        ({"spec": {"selector": {"matchLabels": {"app": "y"}}}}, 422, "`selector` does not match template `labels`"),
        ({"metadata": {"labels": {"a": "b c"}}}, 422, "a valid label must be an empty string or consist of"),
    ],
)
def test_a_deployment_that_does_not_fit_is_refused(
    backend: Backend, space: str, change: dict[str, Any], status: int, said: str
) -> None:
    wrong: dict[str, Any] = deployment(space)
    for key, inner in change.items():
        wrong[key] = {**wrong[key], **inner}
    error = refused(backend, wrong)
    assert error.status == status
    assert said in error.message


def test_what_may_not_change_does_not(backend: Backend, space: str) -> None:
    backend.door.apply([deployment(space, replicas=0)], "fo")
    other = deployment(space, replicas=0)
    other["spec"]["selector"] = other["spec"]["template"]["metadata"] = {"matchLabels": {"app": "y"}}
    other["spec"]["template"]["metadata"] = {"labels": {"app": "y"}}
    error = refused(backend, other)
    assert (error.status, error.message.partition("spec.selector: ")[2]) == (
        422, 'Invalid value: {"matchLabels":{"app":"y"}}: field is immutable'
    )  # fmt: skip


def test_objects_without_a_home_are_refused(backend: Backend) -> None:
    error = refused(backend, config_map("no-such-namespace"))
    assert (error.status, error.message) == (
        404, 'the cluster refused ConfigMap no-such-namespace/a: namespaces "no-such-namespace" not found'
    )  # fmt: skip
    unknown = {"apiVersion": "nowhere.example.org/v1", "kind": "Thing", "metadata": {"name": "x"}}
    with pytest.raises(errors.RefusedError, match=r'no kind "Thing" in version "nowhere\.example\.org/v1"'):
        backend.door.apply([unknown], "fo")


def test_custom_resources_are_held_to_their_schema(backend: Backend, space: str) -> None:
    kind = f"Held{space.title()}"
    backend.door.apply([crd(kind)], "fo")
    obj: dict[str, Any] = {"apiVersion": "contract.example.org/v1", "kind": kind,
                           "metadata": {"name": "g", "namespace": space}}  # fmt: skip
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"size": 0}, 422, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"colour": "blue"}, 422, "spec.size: Required value"),
        ({"size": "big"}, 500, ".spec.size: expected numeric (int or float), got string"),
        ({"size": 1, "sise": 1}, 500, ".spec.sise: field not declared in schema"),
        ({"size": 1, "parts": [{"name": "a"}] * 2}, 500, '.spec.parts: duplicate entries for key [name="a"]'),
    ]
    for spec, status, said in cases:
        error = refused(backend, {**obj, "spec": spec})
        assert (error.status, said in error.message) == (status, True), error.message
    stored = backend.door.apply([{**obj, "spec": {"size": 2, "parts": [{"name": "a", "n": 1}]}}], "one")[0]
    assert stored["metadata"]["generation"] == 1
    merged = backend.door.apply([{**obj, "spec": {"size": 2, "parts": [{"name": "b", "n": 2}]}}], "two")[0]
    assert {p["name"] for p in merged["spec"]["parts"]} == {"a", "b"}
    assert merged["metadata"]["generation"] == 2
    backend.door.delete(CRD, "", f"{kind.lower()}s.contract.example.org")


def test_deleting_is_done_once(backend: Backend, space: str) -> None:
    backend.door.apply([config_map(space)], "fo")
    backend.door.delete(CM, space, "a")
    backend.door.delete(CM, space, "a")
    backend.door.delete("nowhere.example.org/v1/Thing", space, "x")
    assert backend.door.get(CM, space, "a") == Absent()


def test_finalizers_hold_what_is_deleted(backend: Backend, space: str) -> None:
    held = config_map(space)
    held["metadata"]["finalizers"] = ["example.org/hold"]
    backend.door.apply([held], "fo")
    backend.door.delete(CM, space, "a")
    found = backend.get(CM, space, "a")["metadata"]
    assert found["deletionTimestamp"]
    assert found["deletionGracePeriodSeconds"] == 0
    with pytest.raises(errors.RefusedError, match="no new finalizers can be added if the object is being deleted"):
        backend.door.patch(CM, space, "a", {"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}})
    backend.door.patch(CM, space, "a", {"metadata": {"finalizers": None}})
    assert backend.door.get(CM, space, "a") == Absent()


def test_what_is_owned_goes_with_its_owner(backend: Backend, space: str) -> None:
    [owner] = backend.door.apply([config_map(space, "owner")], "fo")
    owned = config_map(space, "owned")
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    ]
    backend.door.apply([owned, config_map(space, "free")], "fo")
    backend.door.delete(CM, space, "owner")
    backend.until(lambda: backend.door.get(CM, space, "owned") == Absent())
    assert isinstance(backend.door.get(CM, space, "free"), Present)


def test_a_namespace_takes_all_that_is_in_it(backend: Backend, space: str) -> None:
    held = config_map(space, "held")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    backend.door.apply([held, config_map(space, "plain"), deployment(space)], "fo")
    backend.door.delete("v1/Namespace", "", space)
    backend.until(lambda: backend.door.get(CM, space, "plain") == Absent())
    assert backend.get("v1/Namespace", "", space)["status"]["phase"] == "Terminating"
    error = refused(backend, config_map(space, "late"))
    assert (error.status, error.message.partition("late: ")[2]) == (
        403,
        (
            'configmaps "late" is forbidden: '
            f"unable to create new content in namespace {space} because it is being terminated"
        ),
    )
    backend.door.patch(CM, space, "held", {"metadata": {"finalizers": None}})
    backend.until(lambda: backend.door.get("v1/Namespace", "", space) == Absent())


def test_some_namespaces_stay(backend: Backend) -> None:
    with pytest.raises(errors.RefusedError, match="this namespace may not be deleted"):
        backend.door.delete("v1/Namespace", "", "kube-system")


def test_who_may_not_is_told_apart_from_what_may_not_be(backend: Backend, tmp_path: Path) -> None:
    """A wrong token is a matter of the kubeconfig; an object in the way is not."""
    document = json.loads(backend.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": "wrong"}
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    door = Kube(tmp_path / "kubeconfig", Routes(), WallClock())
    reading = door.list(CM)
    assert isinstance(reading, Unreadable)
    assert "Unauthorized" in reading.why
    with pytest.raises(errors.PreflightError):
        door.apply([config_map("default")], "fo")
    document["users"][0]["user"] = {"token": backend.token}
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    backend.value(door.list(CM, "default"))


def test_a_strangers_certificate_opens_nothing(backend: Backend, tmp_path: Path) -> None:
    """The lab's server breaks the connection off, which the real one leaves to its authentication."""
    stranger = plane_pki.client(plane_pki.authority("stranger-ca"), "system:admin", "system:masters")
    document = json.loads(backend.kubeconfig.read_text())
    document["users"][0]["user"] = {
        "client-certificate-data": base64.b64encode(stranger.pem).decode(),
        "client-key-data": base64.b64encode(stranger.key_pem).decode(),
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    door = Kube(tmp_path / "kubeconfig", Routes(), WallClock())
    assert isinstance(door.list(CM), Unreadable)
    with pytest.raises((errors.PreflightError, errors.TrustError, errors.UnreachableError)):
        door.apply([config_map("default")], "fo")
