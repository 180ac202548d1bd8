"""The official Python client against the lab's API and a real one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kube_backends import Backend, crd, deployment
from kubernetes import client as typed_client
from kubernetes import config as typed_config
from kubernetes import watch as typed_watch

pytest_plugins = ("kube_fixtures",)

# Its types want models where it takes plain mappings as well.
client: Any = typed_client
config: Any = typed_config
watch: Any = typed_watch


@pytest.fixture(scope="module")
def api(backend: Backend) -> Any:
    settings = client.Configuration()
    config.load_kube_config(config_file=str(backend.kubeconfig), client_configuration=settings)
    return client.ApiClient(settings)


def test_version_and_discovery(api: Any) -> None:
    assert client.VersionApi(api).get_code().git_version == "v1.36.3+k3s1"
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "apiextensions.k8s.io", "rbac.authorization.k8s.io"} <= groups
    assert "pods" in {r.name for r in client.CoreV1Api(api).get_api_resources().resources}


def test_a_deployment_through_its_life(api: Any, space: str) -> None:
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    apps.create_namespaced_deployment(space, deployment(space, "life"))
    seen = watch.Watch()
    for event in seen.stream(apps.list_namespaced_deployment, space, timeout_seconds=60):
        if event["object"].metadata.name == "life" and event["object"].status.available_replicas:
            seen.stop()
    start = core.list_namespaced_pod(space).metadata.resource_version
    apps.patch_namespaced_deployment_scale("life", space, {"spec": {"replicas": 0}})
    assert not apps.read_namespaced_deployment_scale("life", space).spec.replicas
    for event in (seen := watch.Watch()).stream(core.list_namespaced_pod, space, label_selector="app=life",
                                                resource_version=start, timeout_seconds=60):  # fmt: skip
        if event["type"] == "DELETED":
            seen.stop()
    apps.delete_namespaced_deployment("life", space)
    with pytest.raises(client.ApiException) as caught:
        apps.read_namespaced_deployment("life", space)
    assert caught.value.status == 404


def test_an_old_version_is_a_conflict(api: Any, space: str) -> None:
    core = client.CoreV1Api(api)
    old = core.create_namespaced_config_map(space, {"metadata": {"name": "old"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("old", space, {"data": {"a": "2"}})
    old.data = {"a": "3"}
    with pytest.raises(client.ApiException) as caught:
        core.replace_namespaced_config_map("old", space, old)
    assert caught.value.status == 409


def test_pages(api: Any, space: str) -> None:
    core = client.CoreV1Api(api)
    for n in range(7):
        core.create_namespaced_secret(space, {"metadata": {"name": f"s{n}"}})
    first = core.list_namespaced_secret(space, limit=5)
    assert len(first.items) == 5
    assert first.metadata.remaining_item_count == 2
    second = core.list_namespaced_secret(space, limit=5, _continue=first.metadata._continue)
    assert [s.metadata.name for s in second.items] == ["s5", "s6"]
    assert not second.metadata._continue


def test_a_watch_follows_its_selector_from_its_version(api: Any, space: str) -> None:
    core = client.CoreV1Api(api)
    start = core.list_namespaced_config_map(space).metadata.resource_version
    heard: list[tuple[str, str]] = []

    def follow() -> None:
        for event in watch.Watch().stream(core.list_namespaced_config_map, space, resource_version=start,
                                          label_selector="mark=yes", timeout_seconds=30):  # fmt: skip
            heard.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map(space, {"metadata": {"name": "w", "labels": {"mark": "no"}}})
    core.patch_namespaced_config_map("w", space, {"metadata": {"labels": {"mark": "yes"}}})
    core.patch_namespaced_config_map("w", space, {"data": {"a": "b"}})
    core.patch_namespaced_config_map("w", space, {"metadata": {"labels": {"mark": "no"}}})
    thread.join(timeout=30)
    assert heard == [("ADDED", "w"), ("MODIFIED", "w"), ("DELETED", "w")]


def test_field_selectors(api: Any, space: str) -> None:
    core = client.CoreV1Api(api)
    assert [n.metadata.name for n in core.list_node(field_selector="metadata.name=n1").items] == ["n1"]
    assert core.list_namespaced_pod(space, field_selector="status.phase=Failed").items == []
    with pytest.raises(client.ApiException) as caught:
        core.list_node(field_selector="spec.colour=red")
    assert caught.value.status == 400


def test_custom_objects(api: Any, backend: Backend, space: str) -> None:
    kind = f"Typed{space.title()}"
    backend.door.apply([crd(kind)], "test")
    custom = client.CustomObjectsApi(api)
    place = ("contract.example.org", "v1", space, f"{kind.lower()}s")
    gadget = {"apiVersion": "contract.example.org/v1", "kind": kind, "metadata": {"name": "g"}}
    with pytest.raises(client.ApiException) as caught:
        custom.create_namespaced_custom_object(*place, {**gadget, "spec": {"size": 0}})
    assert caught.value.status == 422
    made = custom.create_namespaced_custom_object(*place, {**gadget, "spec": {"size": 2}, "status": {"ignored": True}})
    assert made["spec"] == {"size": 2, "colour": "red"}
    assert "status" not in made
    custom.patch_namespaced_custom_object_status(*place, "g", {"status": {"seen": 1}, "spec": {"size": 9}})
    now = custom.get_namespaced_custom_object(*place, "g")
    assert (now["spec"]["size"], now["status"], now["metadata"]["generation"]) == (2, {"seen": 1}, 1)
    client.ApiextensionsV1Api(api).delete_custom_resource_definition(f"{kind.lower()}s.contract.example.org")
