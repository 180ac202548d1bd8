"""Lists in pages, watches, discovery, OpenAPI and tables, on the lab and on a real control plane."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from kube_backends import Backend, config_map, crd, deployment

from funoffshore.world.kube import Object

pytest_plugins = ("kube_fixtures",)

CMS = "/api/v1/namespaces/{space}/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def fill(backend: Backend, space: str, count: int) -> str:
    """A label selector for that many ConfigMaps."""
    for number in range(count):
        obj = config_map(space, f"c{number}")
        obj["metadata"]["labels"] = {"mark": "yes"}
        assert backend.wire.call("POST", CMS.format(space=space), obj).status == 201
    return "labelSelector=mark%3Dyes"


# Pages


def test_pages_go_on_where_the_last_one_ended(backend: Backend, space: str) -> None:
    path = f"{CMS.format(space=space)}?{fill(backend, space, 5)}&limit=2"
    first = backend.wire.call("GET", path).json
    assert (first["kind"], first["apiVersion"]) == ("ConfigMapList", "v1")
    assert "remainingItemCount" not in first["metadata"]  # with a selector nobody counts
    assert not {"kind", "apiVersion"} & first["items"][0].keys()
    backend.wire.call("POST", CMS.format(space=space), config_map(space, "b0"))
    second = backend.wire.call("GET", f"{path}&continue={first['metadata']['continue']}").json
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    third = backend.wire.call("GET", f"{path}&continue={second['metadata']['continue']}").json
    names = [i["metadata"]["name"] for page in (first, second, third) for i in page["items"]]
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    assert not third["metadata"].get("continue")


def test_without_a_selector_the_rest_is_counted(backend: Backend, space: str) -> None:
    fill(backend, space, 4)
    page = backend.wire.call("GET", f"{CMS.format(space=space)}?limit=2&fieldSelector=metadata.name%21%3Dx").json
    assert "remainingItemCount" not in page["metadata"]
    names = [i["metadata"]["name"] for i in backend.wire.call("GET", CMS.format(space=space)).json["items"]]
    page = backend.wire.call("GET", f"{CMS.format(space=space)}?limit=2").json
    assert page["metadata"]["remainingItemCount"] == len(names) - 2


def test_pages_of_a_forgotten_moment_are_gone(backend: Backend, space: str) -> None:
    path = f"{CMS.format(space=space)}?{fill(backend, space, 3)}&limit=1"
    page = backend.wire.call("GET", path).json
    for number in range(3):
        backend.wire.call("POST", CMS.format(space=space), config_map(space, f"later{number}"))
    backend.forget()

    def gone() -> Any:
        reply = backend.wire.call("GET", f"{path}&continue={page['metadata']['continue']}")
        return reply if reply.status == 410 else None

    reply = backend.until(gone)
    assert reply.json["reason"] == "Expired"
    assert "The provided continue parameter is too old" in reply.message
    assert len(backend.value(backend.door.list("v1/ConfigMap", space, "mark=yes"))) == 3


def test_a_continue_that_nobody_gave_is_refused(backend: Backend) -> None:
    reply = backend.wire.call("GET", "/api/v1/configmaps?continue=x")
    assert (reply.status, reply.json["reason"]) == (400, "BadRequest")
    assert reply.message.startswith("invalid continue token: continue key is not valid")


# Watches


def follow(backend: Backend, path: str, last: str, heard: list[tuple[str, str]]) -> threading.Thread:
    """Notes the types and names of events until ``last`` (a type) is heard."""

    def listen() -> None:
        for event in backend.wire.watch(path):
            if event["type"] != "BOOKMARK":
                heard.append((event["type"], event["object"]["metadata"]["name"]))
            if event["type"] == last:
                return

    thread = threading.Thread(target=listen)
    thread.start()
    return thread


def test_a_watch_follows_its_selector_from_its_version(backend: Backend, space: str) -> None:
    base = CMS.format(space=space)
    version = backend.wire.call("GET", base).json["metadata"]["resourceVersion"]
    heard: list[tuple[str, str]] = []
    thread = follow(backend, f"{base}?labelSelector=mark%3Dyes&resourceVersion={version}", "DELETED", heard)
    backend.door.apply([config_map(space, "w")], "fo")
    for patch in ({"metadata": {"labels": {"mark": "yes"}}}, {"data": {"a": "b"}}, {"metadata": {"labels": None}}):
        backend.door.patch("v1/ConfigMap", space, "w", patch)
    thread.join(30)
    assert heard == [("ADDED", "w"), ("MODIFIED", "w"), ("DELETED", "w")]


def test_a_watch_without_a_version_begins_with_what_is_there(backend: Backend, space: str) -> None:
    fill(backend, space, 2)
    heard: list[tuple[str, str]] = []
    thread = follow(backend, f"{CMS.format(space=space)}?labelSelector=mark%3Dyes", "DELETED", heard)
    backend.until(lambda: len(heard) == 2)
    backend.door.delete("v1/ConfigMap", space, "c1")
    thread.join(30)
    assert sorted(heard[:2]) == [("ADDED", "c0"), ("ADDED", "c1")]
    assert heard[2:] == [("DELETED", "c1")]


def test_a_streamed_list_ends_with_a_bookmark(backend: Backend, space: str) -> None:
    fill(backend, space, 2)
    path = (
        f"{CMS.format(space=space)}?labelSelector=mark%3Dyes&sendInitialEvents=true&allowWatchBookmarks=true"
        "&resourceVersionMatch=NotOlderThan"
    )
    seen: list[Object] = []
    for event in backend.wire.watch(path):
        seen.append(event)
        if event["type"] == "BOOKMARK":
            break
    assert [e["type"] for e in seen] == ["ADDED", "ADDED", "BOOKMARK"]
    assert seen[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_watch_from_a_forgotten_version_is_gone(backend: Backend, gadget: str, space: str) -> None:
    """Version 1 was before the kind: no server remembers it."""
    backend.forget()

    def answer() -> Object:
        [event] = list(backend.wire.watch(f"/apis/shown.example.org/v1/{gadget}?resourceVersion=1", seconds=5))
        return event["object"] if event.get("type") == "ERROR" else event

    status = answer()
    give_up = time.monotonic() + 30
    while status["code"] == 429 and time.monotonic() < give_up:  # its watch cache is not up yet
        time.sleep(0.2)
        status = answer()
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert "too old resource version" in status["message"]


# What there is


@pytest.fixture(scope="module")
def gadget(backend: Backend) -> str:
    """The plural of a kind with printer columns."""
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    made = crd("Gadget", "shown.example.org", additionalPrinterColumns=columns)
    made["spec"]["names"] |= {"shortNames": ["gd"], "categories": ["all"]}
    backend.door.apply([made], "fo")
    return "gadgets"


@pytest.mark.parametrize("place", ["api/v1", "apis/apps/v1", "apis/batch/v1", "apis/networking.k8s.io/v1"])
def test_resources_of_a_group(backend: Backend, place: str) -> None:
    document = backend.wire.call("GET", f"/{place}").json
    assert (document["kind"], document["groupVersion"]) == ("APIResourceList", place.split("/", 1)[1])
    by_name = {r["name"]: r for r in document["resources"]}
    for name, kind, namespaced, short in KINDS:
        if name.startswith(f"{place}/"):
            found = by_name[name.removeprefix(f"{place}/")]
            assert (found["kind"], found["namespaced"], found.get("shortNames", [])) == (kind, namespaced, short)
            assert {"create", "delete", "get", "list", "patch", "update", "watch"} <= set(found["verbs"])
    if place == "apis/apps/v1":
        assert by_name["deployments/scale"]["kind"] == "Scale"
        assert by_name["deployments/status"]["verbs"] == ["get", "patch", "update"]


KINDS = [
    ("api/v1/namespaces", "Namespace", False, ["ns"]), ("api/v1/pods", "Pod", True, ["po"]),
    ("api/v1/secrets", "Secret", True, []), ("api/v1/persistentvolumeclaims", "PersistentVolumeClaim", True, ["pvc"]),
    ("apis/apps/v1/deployments", "Deployment", True, ["deploy"]), ("apis/batch/v1/cronjobs", "CronJob", True, ["cj"]),
    ("apis/apps/v1/daemonsets", "DaemonSet", True, ["ds"]),
    ("apis/networking.k8s.io/v1/ingresses", "Ingress", True, ["ing"]),
]  # fmt: skip


def test_all_resources_in_one_answer(backend: Backend, gadget: str) -> None:
    core = backend.wire.call("GET", "/api", accept=f"{AGGREGATED},application/json")
    assert core.headers["content-type"] == AGGREGATED
    assert (core.json["kind"], core.json["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    [group] = core.json["items"]
    [version] = group["versions"]
    pods = next(r for r in version["resources"] if r["resource"] == "pods")
    assert (pods["scope"], pods["singularResource"], pods["shortNames"], pods["categories"]) == (
        "Namespaced", "pod", ["po"], ["all"]
    )  # fmt: skip
    assert {"log", "eviction", "status"} <= {s["subresource"] for s in pods["subresources"]}

    def found() -> Any:
        groups = backend.wire.call("GET", "/apis", accept=f"{AGGREGATED},application/json").json["items"]
        return next((g for g in groups if g["metadata"]["name"] == "shown.example.org"), None)

    [shown] = backend.until(found)["versions"][0]["resources"]
    assert (shown["resource"], shown["responseKind"]["kind"], shown["shortNames"]) == (gadget, "Gadget", ["gd"])
    plain = backend.wire.call("GET", "/apis").json
    assert plain["kind"] == "APIGroupList"
    assert {"apps", "batch", "shown.example.org"} <= {g["name"] for g in plain["groups"]}


def test_openapi_says_what_fields_there_are(backend: Backend, gadget: str) -> None:
    def index() -> Any:
        paths = backend.wire.call("GET", "/openapi/v3").json["paths"]
        return paths if "apis/shown.example.org/v1" in paths else None

    paths = backend.until(index)
    assert "?hash=" in paths["apis/apps/v1"]["serverRelativeURL"]
    apps = backend.wire.call("GET", paths["apis/apps/v1"]["serverRelativeURL"]).json
    schemas = apps["components"]["schemas"]
    spec = schemas["io.k8s.api.apps.v1.DeploymentSpec"]
    assert set(spec["required"]) == {"selector", "template"}
    assert {"replicas", "strategy", "template", "paused"} <= spec["properties"].keys()
    container = schemas["io.k8s.api.core.v1.Container"]["properties"]
    assert container["ports"]["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    one = apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in {p["name"] for p in one["parameters"]}
    custom = backend.wire.call("GET", paths["apis/shown.example.org/v1"]["serverRelativeURL"]).json
    [schema] = [s for n, s in custom["components"]["schemas"].items() if n.endswith(".v1.Gadget")]
    assert set(schema["properties"]["spec"]["properties"]) == {"size", "colour", "parts"}
    assert schema["x-kubernetes-group-version-kind"] == [
        {"group": "shown.example.org", "version": "v1", "kind": "Gadget"}
    ]


# As kubectl prints it


def table(backend: Backend, path: str) -> tuple[list[str], list[list[Any]]]:
    """Titles of the columns (wide ones with a star), and the cells."""
    document = backend.wire.call("GET", path, accept=TABLE).json
    assert (document["kind"], document["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    titles = [c["name"] + "*" * (c["priority"] > 0) for c in document["columnDefinitions"]]
    assert all(row["object"]["kind"] == "PartialObjectMetadata" for row in document["rows"])
    return titles, [row["cells"] for row in document["rows"]]


def test_tables(backend: Backend, space: str) -> None:
    backend.door.apply([deployment(space, replicas=0), config_map(space, "c", a="1", b="2")], "fo")
    titles, [row] = table(backend, f"/apis/apps/v1/namespaces/{space}/deployments")
    assert titles == ["Name", "Ready", "Up-to-date", "Available", "Age", "Containers*", "Images*", "Selector*"]
    assert row[:4] + row[5:] == ["web", "0/0", 0, 0, "web", "example.org/web:1", "app=web"]
    titles, rows = table(backend, CMS.format(space=space))
    assert titles == ["Name", "Data", "Age"]
    assert ["c", 2] in [r[:2] for r in rows]
    titles, [row] = table(backend, "/api/v1/nodes")
    assert titles[:5] == ["Name", "Status", "Roles", "Age", "Version"]
    assert row[:3] == ["n1", "Ready", "<none>"]
    titles, [row] = table(backend, f"/api/v1/namespaces/{space}")
    assert (titles, row[:2]) == (["Name", "Status", "Age"], [space, "Active"])


@pytest.mark.parametrize(
    ("path", "titles"),
    [
        ("/api/v1/pods", "Name Ready Status Restarts Age IP* Node* Nominated_Node* Readiness_Gates*"),
        ("/api/v1/services", "Name Type Cluster-IP External-IP Port(s) Age Selector*"),
        ("/api/v1/secrets", "Name Type Data Age"),
        ("/api/v1/persistentvolumeclaims",
         "Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age VolumeMode*"),
        ("/apis/apps/v1/statefulsets", "Name Ready Age Containers* Images*"),
        ("/apis/apps/v1/daemonsets", ("Name Desired Current Ready Up-to-date Available Node_Selector Age Containers* "
         "Images* Selector*")),
        ("/apis/apps/v1/replicasets", "Name Desired Current Ready Age Containers* Images* Selector*"),
        ("/apis/batch/v1/jobs", "Name Status Completions Duration Age Containers* Images* Selector*"),
        ("/apis/networking.k8s.io/v1/ingresses", "Name Class Hosts Address Ports Age"),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "Name Created_At"),
        ("/apis/storage.k8s.io/v1/storageclasses",
         "Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age"),
    ],
)  # fmt: skip
def test_columns(backend: Backend, path: str, titles: str) -> None:
    shown, _ = table(backend, path)
    assert shown == [title.replace("_", " ") for title in titles.split()]


def test_custom_columns(backend: Backend, gadget: str, space: str) -> None:
    api = "shown.example.org/v1"
    meta = {"name": "g", "namespace": space}
    backend.door.apply([{"apiVersion": api, "kind": "Gadget", "metadata": meta, "spec": {"size": 2}}], "fo")
    titles, [row] = table(backend, f"/apis/{api}/namespaces/{space}/{gadget}")
    assert titles == ["Name", "Size", "Ready", "Colour*", "Age"]
    assert row[:4] == ["g", 2, None, "red"]


def test_watches_come_as_tables_too(backend: Backend, space: str) -> None:
    fill(backend, space, 2)
    path = f"{CMS.format(space=space)}?labelSelector=mark%3Dyes"
    shown = []
    for event in backend.wire.watch(path, accept=TABLE):
        shown.append(event["object"])
        if len(shown) == 2:
            break
    assert [(t["kind"], t["rows"][0]["cells"][:2]) for t in shown] == [("Table", ["c0", 0]), ("Table", ["c1", 0])]
    assert shown[0]["columnDefinitions"][0]["name"] == "Name"
    assert not shown[1]["columnDefinitions"]
