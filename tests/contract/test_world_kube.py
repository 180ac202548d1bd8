"""fo's door to Kubernetes against the lab's API over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kube_server
import pytest

from funoffshore import errors
from funoffshore.clock import WallClock
from funoffshore.lab.kube.api import HttpResponse
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.kube import Kube
from funoffshore.world.routes import Routes

CM = "v1/ConfigMap"
WIDGET = "example.com/v1/Widget"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[kube_server.Served]:
    made = kube_server.Served(tmp_path)
    made.add_node()
    yield made
    made.close()


@pytest.fixture
def door(served: kube_server.Served) -> Kube:
    return Kube(served.kubeconfig, Routes(), WallClock())


def value(reading: Reading[Any]) -> Any:
    assert isinstance(reading, Present), reading
    return reading.value


def why(reading: Reading[Any]) -> str:
    assert isinstance(reading, Unreadable), reading
    return reading.why


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def crd(kind: str = "Widget") -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]},
    }  # fmt: skip


def test_readiness_and_identity(door: Kube, served: kube_server.Served) -> None:
    assert value(door.readyz()).strip().endswith("readyz check passed")
    uid = (served.cluster.get("v1/Namespace", "", "kube-system") or {})["metadata"]["uid"]
    assert value(door.cluster_uid()) == uid


def test_absent_is_what_the_api_says_is_not_there(door: Kube) -> None:
    assert door.get(CM, "default", "nothing") == Absent()
    assert door.list("example.com/v1/Widget") == Absent()
    assert door.get("example.com/v1/Widget", "default", "x") == Absent()
    assert value(door.list("batch/v1/Job")) == []


def test_apply_goes_crds_and_namespaces_first(door: Kube) -> None:
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "shop"}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    stored = door.apply([widget, namespace, crd()], "fo")
    assert {o["kind"] for o in stored} == {"Widget", "Namespace", "CustomResourceDefinition"}
    assert [o["metadata"]["name"] for o in value(door.list(WIDGET))] == ["w"]
    door.delete(WIDGET, "shop", "w")
    door.delete(WIDGET, "shop", "w")
    assert door.get(WIDGET, "shop", "w") == Absent()


def test_a_conflict_names_the_other_manager(door: Kube) -> None:
    door.apply([config_map(a="1")], "fo")
    with pytest.raises(errors.RefusedError) as caught:
        door.apply([config_map(a="2")], "somebody")
    assert caught.value.status == 409
    assert 'ConfigMap default/a: Apply failed with 1 conflict: conflict with "fo"' in caught.value.message
    assert door.apply([config_map(a="2")], "somebody", force=True)[0]["data"] == {"a": "2"}


def test_patch_changes_what_is_there(door: Kube) -> None:
    door.apply([config_map(a="1", b="2")], "fo")
    assert door.patch(CM, "default", "a", {"data": {"a": None}})["data"] == {"b": "2"}
    with pytest.raises(errors.RefusedError) as caught:
        door.patch(CM, "default", "nothing", {"data": {}})
    assert caught.value.status == 404


def test_no_message_quotes_a_secret(door: Kube) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    door.apply([{**secret, "type": "Opaque", "stringData": {"a": "hunter2"}}], "fo")
    with pytest.raises(errors.RefusedError) as caught:
        door.apply([{**secret, "type": "hunter2"}], "fo", force=True)
    assert caught.value.status == 422
    assert "hunter2" not in f"{caught.value}{caught.value.evidence}"


def test_an_object_that_does_not_fit_is_refused_with_the_apis_words(door: Kube) -> None:
    wrong = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "default"},
             "spec": {"replicas": "many"}}  # fmt: skip
    with pytest.raises(errors.RefusedError, match=r"\.spec\.replicas: expected numeric"):
        door.apply([wrong], "fo")
    with pytest.raises(errors.RefusedError, match=r'no kind "Widget" in version "example\.com/v1"'):
        door.apply([{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}], "fo")


def test_lists_come_in_pages_and_start_again_when_they_expire(
    door: Kube, served: kube_server.Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(25):
        served.cluster.create(config_map(f"c{n:02}"), "test")
    monkeypatch.setattr("funoffshore.world.kube.door._PAGE", 10)
    before = door.calls
    assert len([o for o in value(door.list(CM, "default")) if o["metadata"]["name"].startswith("c")]) == 25
    assert door.calls - before == 3
    seen = 0

    def expire(request: Any) -> HttpResponse | None:
        nonlocal seen
        seen += request.path.endswith("/configmaps")
        if seen == 2:
            served.cluster.create(config_map("late"), "test")
            served.cluster.core.objects.forget()
        return None

    served.before = expire
    assert len([o for o in value(door.list(CM, "default")) if o["metadata"]["name"].startswith("c")]) == 25


def test_labels_select(door: Kube, served: kube_server.Served) -> None:
    marked = config_map("marked")
    marked["metadata"]["labels"] = {"app": "x", "tier": "web"}
    served.cluster.create(marked, "test")
    found = value(door.list(CM, None, "app in (x,y),tier!=db,!other"))
    assert [o["metadata"]["name"] for o in found] == ["marked"]
    assert found[0]["kind"] == "ConfigMap"


def test_without_a_kubeconfig_there_is_no_cluster(door: Kube, served: kube_server.Served) -> None:
    served.kubeconfig.unlink()
    assert not door.available
    assert (door.readyz(), door.cluster_uid(), door.list(CM)) == (Absent(), Absent(), Absent())
    with pytest.raises(errors.UnreachableError, match="there is no kubeconfig"):
        door.apply([config_map()], "fo")


def test_another_ca_is_a_matter_of_trust(door: Kube, served: kube_server.Served) -> None:
    value(door.readyz())
    served.write_kubeconfig(ca=kube_server.pair("k3s-ca"))
    assert "does not vouch for" in why(door.readyz())
    with pytest.raises(errors.TrustError):
        door.apply([config_map()], "fo")
    assert door.calls == 3


def test_credentials_that_open_nothing(door: Kube, served: kube_server.Served) -> None:
    served.write_kubeconfig(token="wrong")
    assert "Unauthorized" in why(door.list(CM))
    with pytest.raises(errors.PreflightError):
        door.apply([config_map()], "fo")
    served.cluster.add_token("right", "admin")
    served.write_kubeconfig(token="right")
    value(door.list(CM))


def test_a_foreign_client_certificate_is_not_taken(door: Kube, served: kube_server.Served) -> None:
    served.write_kubeconfig(user=kube_server.pair("system:admin"))
    why(door.readyz())
    with pytest.raises((errors.TrustError, errors.UnreachableError)):
        door.apply([config_map()], "fo")


def test_a_shut_door_is_unreadable_and_opens_again(door: Kube, served: kube_server.Served) -> None:
    value(door.readyz())
    served.cluster.unlisten(served.host, 6443)
    assert "does not answer" in why(door.readyz())
    with pytest.raises(errors.UnreachableError):
        door.apply([config_map()], "fo")
    served.listen()
    value(door.readyz())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HttpResponse(503, b'{"kind":"Status","message":"starting","reason":"ServiceUnavailable"}'), "starting"),
        (HttpResponse(404, b"<html>not here</html>", "text/html"), "HTTP 404"),
        (HttpResponse(200, b"<html>hotel wifi</html>", "text/html"), "no Kubernetes API"),
        (HttpResponse(500, b"[+]ping ok\n[-]etcd failed: reason withheld\n"), "500"),
    ],
)
def test_strange_answers_are_unreadable(
    door: Kube, served: kube_server.Served, answer: HttpResponse, said: str
) -> None:
    served.before = lambda _: answer
    assert said in why(door.list(CM))
    if answer.status == 500:
        assert "[-]etcd failed" in why(door.readyz())


@pytest.mark.parametrize("text", ["", "[", "a: b", "clusters: []\ncurrent-context: x\ncontexts: []\nusers: []"])
def test_a_broken_kubeconfig_is_unreadable_and_not_quoted(door: Kube, served: kube_server.Served, text: str) -> None:
    served.kubeconfig.write_text(text + "\n# hunter2")
    assert "cannot be read" in why(door.readyz())
    assert "hunter2" not in why(door.readyz())
    with pytest.raises(errors.StateError):
        door.apply([config_map()], "fo")


def test_the_routes_are_followed_and_the_name_still_checked(tmp_path: Path) -> None:
    served = kube_server.Served(tmp_path, detour=True)
    try:
        door = Kube(served.kubeconfig, Routes(tmp_path / "routes.json"), WallClock())
        value(door.readyz())
        served.server = kube_server.pair("k3s", served.ca, "127.9.9.9")
        served.cluster.unlisten(served.host, 6443)
        served.listen()
        fresh = Kube(served.kubeconfig, Routes(tmp_path / "routes.json"), WallClock())
        assert "does not vouch for" in why(fresh.readyz())
    finally:
        served.close()


def test_what_changes_is_in_the_ledger_and_what_reads_is_not(door: Kube, served: kube_server.Served) -> None:
    door.list(CM)
    assert served.kit.ledger.count() == 0
    door.apply([config_map(a="1")], "fo")
    door.patch(CM, "default", "a", {"data": {"b": "2"}})
    door.delete(CM, "default", "a")
    with pytest.raises(errors.RefusedError):
        door.patch(CM, "default", "a", {})
    assert [e["what"] for e in served.kit.ledger.entries()] == [
        "PATCH v1/ConfigMap default/a", "PATCH v1/ConfigMap default/a", "DELETE v1/ConfigMap default/a",
    ]  # fmt: skip
