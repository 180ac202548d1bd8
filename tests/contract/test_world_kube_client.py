"""The official Python client against the lab's API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kube_server
import pytest
from kubernetes import client as typed_client
from kubernetes import config as typed_config
from kubernetes import watch as typed_watch

# Its types want models where it takes plain mappings as well.
client: Any = typed_client
config: Any = typed_config
watch: Any = typed_watch


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kube_server.Served]:
    directory: Path = tmp_path_factory.mktemp("lab")
    made = kube_server.Served(directory)
    made.add_node()
    yield made
    made.close()


@pytest.fixture(scope="module")
def api(served: kube_server.Served) -> Any:
    settings = client.Configuration()
    config.load_kube_config(config_file=str(served.kubeconfig), client_configuration=settings)
    return client.ApiClient(settings)


def deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}}}}  # fmt: skip


def test_version_and_discovery(api: Any) -> None:
    assert client.VersionApi(api).get_code().git_version == "v1.36.3+k3s1"
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "apiextensions.k8s.io", "rbac.authorization.k8s.io"} <= groups
    assert "pods" in {r.name for r in client.CoreV1Api(api).get_api_resources().resources}


def test_a_deployment_through_its_life(api: Any) -> None:
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    apps.create_namespaced_deployment("default", deployment("life"))
    seen = watch.Watch()
    for event in seen.stream(apps.list_namespaced_deployment, "default", timeout_seconds=5):
        if event["object"].metadata.name == "life" and event["object"].status.available_replicas:
            seen.stop()
    start = core.list_namespaced_pod("default").metadata.resource_version
    apps.patch_namespaced_deployment_scale("life", "default", {"spec": {"replicas": 0}})
    assert not apps.read_namespaced_deployment_scale("life", "default").spec.replicas  # 0 is left out, as by Go
    for event in (seen := watch.Watch()).stream(core.list_namespaced_pod, "default", label_selector="app=life",
                                                resource_version=start, timeout_seconds=5):  # fmt: skip
        if event["type"] == "DELETED":
            seen.stop()
    apps.delete_namespaced_deployment("life", "default")
    with pytest.raises(client.ApiException) as caught:
        apps.read_namespaced_deployment("life", "default")
    assert caught.value.status == 404


def test_statuses_carry_reason_and_details(api: Any) -> None:
    with pytest.raises(client.ApiException) as caught:
        client.CoreV1Api(api).read_namespaced_secret("nothing", "default")
    assert caught.value.status == 404
    text = caught.value.body if isinstance(caught.value.body, str) else caught.value.body.decode()
    assert 'secrets \\"nothing\\" not found' in text
    assert '"kind": "secrets"' in text


def test_an_old_version_is_a_conflict(api: Any) -> None:
    core = client.CoreV1Api(api)
    old = core.create_namespaced_config_map("default", {"metadata": {"name": "old"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("old", "default", {"data": {"a": "2"}})
    old.data = {"a": "3"}
    with pytest.raises(client.ApiException) as caught:
        core.replace_namespaced_config_map("old", "default", old)
    assert caught.value.status == 409


def test_pages(api: Any) -> None:
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": "pages"}})
    for n in range(7):
        core.create_namespaced_secret("pages", {"metadata": {"name": f"s{n}"}})
    first = core.list_namespaced_secret("pages", limit=5)
    assert len(first.items) == 5
    assert first.metadata.remaining_item_count == 2
    second = core.list_namespaced_secret("pages", limit=5, _continue=first.metadata._continue)
    assert [s.metadata.name for s in second.items] == ["s5", "s6"]
    assert not second.metadata._continue


def test_an_expired_page_is_gone(api: Any, served: kube_server.Served) -> None:
    core = client.CoreV1Api(api)
    first = core.list_node(limit=1)
    core.create_namespaced_secret("default", {"metadata": {"generateName": "n-"}})
    page = core.list_secret_for_all_namespaces(limit=1)
    core.create_namespaced_secret("default", {"metadata": {"generateName": "n-"}})
    served.cluster.core.objects.forget()
    with pytest.raises(client.ApiException) as caught:
        core.list_secret_for_all_namespaces(limit=1, _continue=page.metadata._continue)
    assert caught.value.status == 410
    with pytest.raises(client.ApiException) as watched:
        list(watch.Watch().stream(core.list_node, resource_version=first.metadata.resource_version, timeout_seconds=2))
    assert watched.value.status == 410


def test_a_watch_follows_its_selector_from_its_version(api: Any) -> None:
    core = client.CoreV1Api(api)
    start = core.list_namespaced_config_map("default").metadata.resource_version
    heard: list[tuple[str, str]] = []

    def follow() -> None:
        for event in watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version=start,
                                          label_selector="mark=yes", timeout_seconds=3):  # fmt: skip
            heard.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map("default", {"metadata": {"name": "w", "labels": {"mark": "no"}}})
    core.patch_namespaced_config_map("w", "default", {"metadata": {"labels": {"mark": "yes"}}})
    core.patch_namespaced_config_map("w", "default", {"data": {"a": "b"}})
    core.patch_namespaced_config_map("w", "default", {"metadata": {"labels": {"mark": "no"}}})
    thread.join(timeout=5)
    assert heard == [("ADDED", "w"), ("MODIFIED", "w"), ("DELETED", "w")]


def test_field_selectors(api: Any) -> None:
    core = client.CoreV1Api(api)
    assert [n.metadata.name for n in core.list_node(field_selector="metadata.name=n1").items] == ["n1"]
    assert core.list_pod_for_all_namespaces(field_selector="status.phase=Failed").items == []
    with pytest.raises(client.ApiException) as caught:
        core.list_node(field_selector="spec.colour=red")
    assert caught.value.status == 400


def test_custom_objects(api: Any) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "default": "red"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}  # fmt: skip
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
               "schema": {"openAPIV3Schema": schema}}  # fmt: skip
    body = {"metadata": {"name": "gadgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets"}, "versions": [version]}}  # fmt: skip
    extensions, custom = client.ApiextensionsV1Api(api), client.CustomObjectsApi(api)
    extensions.create_custom_resource_definition(body)
    seen = watch.Watch()
    for event in seen.stream(extensions.list_custom_resource_definition, timeout_seconds=5):
        if any(c.type == "Established" for c in event["object"].status.conditions or []):
            seen.stop()
    place = ("example.com", "v1", "default", "gadgets")
    gadget = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}}
    with pytest.raises(client.ApiException) as caught:
        custom.create_namespaced_custom_object(*place, {**gadget, "spec": {"size": 0}})
    assert caught.value.status == 422
    made = custom.create_namespaced_custom_object(*place, {**gadget, "spec": {"size": 2}, "status": {"ignored": True}})
    assert made["spec"] == {"size": 2, "colour": "red"}
    assert "status" not in made
    custom.patch_namespaced_custom_object_status(*place, "g", {"status": {"seen": 1}, "spec": {"size": 9}})
    now = custom.get_namespaced_custom_object(*place, "g")
    assert (now["spec"]["size"], now["status"], now["metadata"]["generation"]) == (2, {"seen": 1}, 1)


def test_namespaces_and_dry_runs(api: Any, served: kube_server.Served) -> None:
    core = client.CoreV1Api(api)
    before = served.kit.ledger.count()
    core.create_namespace({"metadata": {"name": "dry"}}, dry_run="All")
    assert served.kit.ledger.count() == before
    with pytest.raises(client.ApiException) as caught:
        core.read_namespace("dry")
    assert caught.value.status == 404
