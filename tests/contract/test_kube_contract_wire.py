"""What a Kubernetes API answers on the wire, on the lab and on a real control plane: refusals to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kube_backends import Backend, config_map, deployment

pytest_plugins = ("kube_fixtures",)

MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
CMS, CM_A = "/api/v1/namespaces/{space}/configmaps", "/api/v1/namespaces/{space}/configmaps/a"
DEPLOYMENTS = "/apis/apps/v1/namespaces/{space}/deployments"
Expected = tuple[int, str | None, str, dict[str, str] | None]
NO_METHOD: Expected = (405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})
NO_RESOURCE: Expected = (404, "NotFound", "the server could not find the requested resource", {})
PATCH_FAILED: Expected = (422, "Invalid", "the server rejected our request due to an error in our request", {})
THE_A = {"name": "a", "kind": "configmaps"}
EXACT = {"group": "meta.k8s.io", "kind": "PatchOptions"}


def refusal(
    backend: Backend, space: str, method: str, path: str, body: Any, content: str = "application/json"
) -> tuple[int, Any, Any, Any]:
    reply = backend.wire.call(method, path.format(space=space), body, content=content)
    status = reply.json
    assert status is not None, reply.body
    assert {k: status[k] for k in ("kind", "apiVersion", "metadata", "status", "code")} == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": reply.status,
    }  # fmt: skip
    details = status.get("details")
    if details:
        details = {k: v for k, v in details.items() if k != "causes"}
    return reply.status, status.get("reason"), status["message"].replace(space, "SPACE"), details


@pytest.fixture
def filled(backend: Backend, space: str) -> str:
    """A namespace with the ConfigMap ``a`` that ``fo`` has created."""
    body = {"metadata": {"name": "a"}, "data": {"a": "1"}}
    assert backend.wire.call("POST", CMS.format(space=space), body).status == 201
    return space


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", CMS + "/b", None, (404, "NotFound", 'configmaps "b" not found', {**THE_A, "name": "b"})),
        ("GET", DEPLOYMENTS + "/b", None, (404, "NotFound", 'deployments.apps "b" not found',
                                           {"name": "b", "group": "apps", "kind": "deployments"})),
        ("GET", "/api/v1/widgets", None, NO_RESOURCE),
        ("GET", "/apis/apps/v2/deployments", None, NO_RESOURCE),
        ("GET", "/api/v1/configmaps/a", None, NO_RESOURCE),
        ("GET", "/api/v1/namespaces/{space}/nodes", None, NO_RESOURCE),
        ("GET", CM_A + "/status", None, NO_RESOURCE),
        ("POST", CM_A, {}, NO_METHOD),
        ("PUT", CMS, {}, NO_METHOD),
        ("DELETE", "/api/v1/configmaps", None, NO_METHOD),
        ("POST", CMS, {"metadata": {"name": "a"}}, (409, "AlreadyExists", 'configmaps "a" already exists', THE_A)),
        ("POST", CMS, {"metadata": {}}, (422, "Invalid", ('ConfigMap "" is invalid: metadata.name: Required value: '
                                         "name or generateName is required"), {"kind": "ConfigMap"})),
        ("POST", CMS, {"metadata": {"name": "b", "namespace": "other"}},
         (400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request",
          None)),
        ("POST", "/api/v1/namespaces/nowhere/configmaps", {"metadata": {"name": "b"}},
         (404, "NotFound", 'namespaces "nowhere" not found', {"name": "nowhere", "kind": "namespaces"})),
        ("POST", CMS, {"metadata": {"name": "b"}, "data": {"a": 1}},
         (400, "BadRequest", ('ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal '
          "number into Go struct field ConfigMap.data of type string"), None)),
        ("POST", CMS + "?fieldValidation=Strict", {"metadata": {"name": "b"}, "datum": 1, "dates": 2},
         (400, "BadRequest", ('ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
          'unknown field "datum", unknown field "dates"'), None)),
        ("POST", CMS + "?dryRun=Some", {"metadata": {"name": "b"}},
         (422, "Invalid", ('CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported '
          'values: "All"'), {**EXACT, "kind": "CreateOptions"})),
        ("POST", CMS, {"metadata": {"name": "b"}, "data": {"a b": ""}},
         (422, "Invalid", ('ConfigMap "b" is invalid: data[a b]: Invalid value: "a b": a valid config key must consist '
          "of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used "
          "for validation is '[-._a-zA-Z0-9]+')"), {"name": "b", "kind": "ConfigMap"})),
        ("PUT", CM_A, {"metadata": {"name": "a", "resourceVersion": "1"}},
         (409, "Conflict", ('Operation cannot be fulfilled on configmaps "a": the object has been modified; please '
          "apply your changes to the latest version and try again"), THE_A)),
        ("PUT", CM_A, {"metadata": {"name": "b"}},
         (400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)", None)),
        ("PUT", CMS + "/b", {"metadata": {"name": "b"}},
         (404, "NotFound", 'configmaps "b" not found', {**THE_A, "name": "b"})),
        ("DELETE", CM_A + "?propagationPolicy=Odd", None,
         (422, "Invalid", ('DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Odd": '
          'supported values: "Foreground", "Background", "Orphan", "nil"'), {**EXACT, "kind": "DeleteOptions"})),
        ("DELETE", "/api/v1/namespaces/default", None,
         (403, "Forbidden", 'namespaces "default" is forbidden: this namespace may not be deleted',
          {"name": "default", "kind": "namespaces"})),
        ("GET", CMS + "?fieldSelector=spec.colour=red", None,
         (400, "BadRequest", '"spec.colour" is not a known field selector: only "metadata.name", "metadata.namespace"',
          None)),
        ("GET", CMS + "?limit=x", None,
         (400, "BadRequest", 'strconv.ParseInt: parsing "x": invalid syntax', None)),
        ("POST", "/api/v1/namespaces", {"metadata": {"name": "a.b"}},
         (422, "Invalid", 'Namespace "a.b" is invalid: metadata.name: Invalid value: "a.b": must not contain dots',
          {"name": "a.b", "kind": "Namespace"})),
    ],
)  # fmt: skip
def test_refusals(backend: Backend, filled: str, method: str, path: str, body: Any, expected: Expected) -> None:
    assert refusal(backend, filled, method, path, body) == expected


@pytest.mark.parametrize(
    ("content", "query", "body", "expected"),
    [
        (MERGE, "", "{", (400, "BadRequest", "error decoding patch: unexpected end of JSON input", None)),
        (MERGE, "", [], (400, "BadRequest", ("error decoding patch: json: cannot unmarshal array into Go value of type "
                         "map[string]interface {}"), None)),
        ("text/plain", "", "x", (415, "UnsupportedMediaType", "415: Unsupported Media Type", {})),
        (JSON_PATCH, "", [{"op": "test", "path": "/data/a", "value": "2"}], PATCH_FAILED),
        (JSON_PATCH, "", [{"op": "remove", "path": "/data/z"}], PATCH_FAILED),
        (MERGE, "", {"metadata": {"resourceVersion": "1"}, "data": {"z": "1"}},
         (409, "Conflict", ('Operation cannot be fulfilled on configmaps "a": the object has been modified; please '
          "apply your changes to the latest version and try again"), THE_A)),
        (APPLY, "", {"apiVersion": "v1", "kind": "ConfigMap"},
         (422, "Invalid", ('PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for '
          "apply patch"), EXACT)),
        (APPLY, "?fieldManager=x", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}},
         (400, "BadRequest", "invalid object type: /v1, Kind=Secret", None)),
        (APPLY, "?fieldManager=x", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}},
         (400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)", None)),
        (APPLY, "?fieldManager=x",
         {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [{"manager": "x"}]}},
         (400, "BadRequest", "metadata.managedFields must be nil", None)),
        (APPLY, "?fieldManager=x", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "2"}},
         (409, "Conflict", 'Apply failed with 1 conflict: conflict with "fo" using v1: .data.a', {})),
        (APPLY, "?fieldManager=x", {"apiVersion": "v1", "kind": "ConfigMap", "datum": {"a": "2"}},
         (500, None,
          "failed to create typed patch object (/; /v1, Kind=ConfigMap): .datum: field not declared in schema", None)),
    ],
)  # fmt: skip
def test_refusals_of_patches(
    backend: Backend, filled: str, content: str, query: str, body: Any, expected: Expected
) -> None:
    assert refusal(backend, filled, "PATCH", CM_A + query, body, content) == expected


def test_a_patch_that_breaks_the_type_quotes_the_object(backend: Backend, filled: str) -> None:
    reply = backend.wire.call("PATCH", CM_A.format(space=filled), {"data": {"a": 7}}, content=MERGE)
    assert (reply.status, reply.json["reason"]) == (422, "Invalid")
    assert reply.message.startswith(' "" is invalid: patch: Invalid value: "{')
    assert reply.message.endswith("json: cannot unmarshal number into Go struct field ConfigMap.data of type string")
    reply = backend.wire.call(
        "PATCH", CM_A.format(space=filled) + "?fieldValidation=Strict", {"dates": {"a": "7"}}, content=STRATEGIC
    )
    assert reply.message == (
        ' "" is invalid: patch: Invalid value: "map[dates:map[a:7]]": strict decoding error: unknown field "dates"'
    )


def test_causes_name_the_fields(backend: Backend, space: str) -> None:
    wrong = deployment(space)
    wrong["spec"]["template"]["spec"]["containers"] = [{"name": "A_B"}]
    reply = backend.wire.call("POST", DEPLOYMENTS.format(space=space), wrong)
    details = reply.json["details"]
    causes = details.pop("causes")
    assert details == {"name": "web", "group": "apps", "kind": "Deployment"}
    place = "spec.template.spec.containers[0]"
    assert [(c["reason"], c["field"]) for c in causes] == [
        ("FieldValueInvalid", f"{place}.name"), ("FieldValueRequired", f"{place}.image"),
    ]  # fmt: skip


def test_unknown_fields_are_dropped_with_a_warning(backend: Backend, space: str) -> None:
    body = {"metadata": {"name": "a"}, "data": {"a": "1"}, "datum": 1}
    reply = backend.wire.call("POST", CMS.format(space=space), body)
    assert (reply.status, reply.headers["warning"]) == (201, '299 - "unknown field \\"datum\\""')
    assert "datum" not in reply.json
    ignored = backend.wire.call(
        "PATCH", CM_A.format(space=space) + "?fieldValidation=Ignore", {"dates": 1}, content=MERGE
    )
    assert (ignored.status, "warning" in ignored.headers) == (200, False)


def test_nobody_gets_in_without_credentials(backend: Backend) -> None:
    for path in ("/api/v1/nodes", "/readyz", "/version", "/nothing"):
        reply = backend.wire.call("GET", path, tls=backend.wire.bare)
        assert (reply.status, reply.json["reason"], reply.message) == (401, "Unauthorized", "Unauthorized")
    assert backend.wire.call("GET", "/readyz", tls=backend.wire.bare, token="wrong").status == 401
    assert backend.wire.call("GET", "/readyz", tls=backend.wire.bare, token=backend.token).body == b"ok"


def test_health_and_version(backend: Backend) -> None:
    for path in ("/readyz", "/livez", "/healthz", "/readyz/ping"):
        assert backend.wire.call("GET", path).body == b"ok"
    lines = backend.wire.call("GET", "/readyz?verbose").body.decode().splitlines()
    assert {"[+]ping ok", "[+]etcd ok", "[+]informer-sync ok"} <= set(lines)
    assert lines[-1] == "readyz check passed"
    version = backend.wire.call("GET", "/version").json
    assert (version["major"], version["minor"], version["gitVersion"]) == ("1", "36", "v1.36.3+k3s1")


def test_what_is_not_there_at_all(backend: Backend) -> None:
    for path in ("/nothing", "/apis/nowhere.example.org/v1", "/apis/nowhere.example.org/v1/things"):
        reply = backend.wire.call("GET", path)
        assert (reply.status, reply.body) == (404, b"404 page not found\n")


def test_dry_runs_change_nothing(backend: Backend, filled: str) -> None:
    dry = CMS.format(space=filled) + "?dryRun=All"
    made = backend.wire.call("POST", dry, {"metadata": {"name": "b"}})
    assert (made.status, "resourceVersion" in made.json["metadata"]) == (201, False)
    assert backend.wire.call("GET", CMS.format(space=filled) + "/b").status == 404
    one = CM_A.format(space=filled)
    before = backend.wire.call("GET", one).json
    changed = backend.wire.call("PATCH", one + "?dryRun=All", {"data": {"a": "2"}}, content=MERGE).json
    assert changed["data"] == {"a": "2"}
    gone = backend.wire.call("DELETE", one + "?dryRun=All").json
    assert (gone["status"], gone["details"]["name"]) == ("Success", "a")
    assert backend.wire.call("GET", one).json == before


def test_yaml_goes_in(backend: Backend, space: str) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: given}\ndata: {a: b}\n"
    reply = backend.wire.call("POST", CMS.format(space=space), text, content="application/yaml")
    assert (reply.status, reply.json["data"]) == (201, {"a": "b"})
    text = text.replace("a: b", "a: c")
    path = CMS.format(space=space) + "/given?fieldManager=x&force=1"
    assert backend.wire.call("PATCH", path, text, content=APPLY).json["data"] == {"a": "c"}


def test_managed_fields_say_who_set_what(backend: Backend, space: str) -> None:
    backend.wire.call("POST", DEPLOYMENTS.format(space=space), deployment(space, replicas=0), agent="maker/1.0")
    path = DEPLOYMENTS.format(space=space) + "/web"
    backend.wire.call("PATCH", path + "?fieldManager=marker", {"metadata": {"labels": {"a": "b"}}}, content=MERGE)
    bare = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": [
        {"name": "web", "env": [{"name": "A", "value": "1"}]}]}}}}  # fmt: skip
    backend.wire.call("PATCH", path + "?fieldManager=setter", bare, content=APPLY)
    managed = {m["manager"]: m for m in backend.wire.call("GET", path).json["metadata"]["managedFields"]}
    container = 'k:{"name":"web"}'
    made = managed["maker"]["fieldsV1"]["f:spec"]
    assert managed["maker"]["operation"] == "Update"
    assert made["f:selector"] == {}
    assert made["f:strategy"] == {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}}
    assert made["f:template"]["f:metadata"] == {"f:labels": {".": {}, "f:app": {}}}
    assert set(made["f:template"]["f:spec"]["f:containers"][container]) == {
        ".", "f:image", "f:imagePullPolicy", "f:name", "f:resources", "f:terminationMessagePath",
        "f:terminationMessagePolicy",
    }  # fmt: skip
    assert managed["marker"]["fieldsV1"] == {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}
    assert managed["setter"]["operation"] == "Apply"
    assert managed["setter"]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"] == {container: {
        ".": {}, "f:name": {}, "f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}}}}  # fmt: skip


def test_the_status_has_a_door_of_its_own(backend: Backend, space: str) -> None:
    backend.wire.call("POST", DEPLOYMENTS.format(space=space), deployment(space, replicas=0))
    path = DEPLOYMENTS.format(space=space) + "/web"
    changed = {"status": {"conditions": [{"type": "Odd", "status": "True"}]}, "spec": {"replicas": 5}}
    reply = backend.wire.call("PATCH", path + "/status", changed, content=STRATEGIC)
    assert reply.status == 200
    assert reply.json["spec"]["replicas"] == 0
    assert "Odd" in {c["type"] for c in reply.json["status"]["conditions"]}
    reply = backend.wire.call("PATCH", path, {"status": {"replicas": 77}}, content=MERGE)
    assert reply.json["status"].get("replicas", 0) != 77


def test_the_scale_has_too(backend: Backend, space: str) -> None:
    backend.wire.call("POST", DEPLOYMENTS.format(space=space), deployment(space, replicas=0))
    path = DEPLOYMENTS.format(space=space) + "/web/scale"
    found = backend.wire.call("GET", path).json
    assert (found["kind"], found["apiVersion"], found["spec"]) == ("Scale", "autoscaling/v1", {})
    assert found["status"] == {"replicas": 0, "selector": "app=web"}
    assert backend.wire.call("PATCH", path, {"spec": {"replicas": 2}}, content=MERGE).json["spec"] == {"replicas": 2}
    assert backend.wire.call("GET", path.removesuffix("/scale")).json["spec"]["replicas"] == 2


def test_deletion_answers_with_what_was_deleted(backend: Backend, filled: str) -> None:
    uid = backend.wire.call("GET", CM_A.format(space=filled)).json["metadata"]["uid"]
    wrong = backend.wire.call("DELETE", CM_A.format(space=filled), {"preconditions": {"uid": "other"}})
    assert (wrong.status, wrong.json["reason"]) == (409, "Conflict")
    assert wrong.message.startswith(
        'Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition (other) does not match the UID in'
    )
    reply = backend.wire.call("DELETE", CM_A.format(space=filled), {"preconditions": {"uid": uid}})
    assert (reply.status, reply.json["status"], reply.json["details"]) == (
        200, "Success", {"name": "a", "kind": "configmaps", "uid": uid}
    )  # fmt: skip
    for name in ("x", "y"):
        obj = config_map(filled, name)
        obj["metadata"]["labels"] = {"pick": name}
        backend.wire.call("POST", CMS.format(space=filled), obj)
    reply = backend.wire.call("DELETE", CMS.format(space=filled) + "?labelSelector=pick%3Dx")
    assert [o["metadata"]["name"] for o in reply.json["items"]] == ["x"]
    assert backend.wire.call("GET", CMS.format(space=filled) + "/y").status == 200


def test_protobuf_goes_in_and_json_comes_out(backend: Backend, space: str) -> None:
    """As kubectl create sends a ConfigMap: ``k8s\\0``, its type, itself."""

    def part(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    message = part(1, part(1, b"p")) + part(2, part(1, b"a") + part(2, b"b"))
    body = b"k8s\0" + part(1, part(1, b"v1") + part(2, b"ConfigMap")) + part(2, message)
    reply = backend.wire.call("POST", CMS.format(space=space), body, content="application/vnd.kubernetes.protobuf")
    assert (reply.status, reply.json["metadata"]["name"], reply.json["data"]) == (201, "p", {"a": "b"})
    broken = backend.wire.call(
        "POST", CMS.format(space=space), body[:-3], content="application/vnd.kubernetes.protobuf"
    )
    assert (broken.status, broken.json["reason"]) == (400, "BadRequest")


def test_what_go_writes_when_it_is_empty(backend: Backend, space: str) -> None:
    """Empty structs are there, empty lists and texts are not."""
    body = {"metadata": {"name": "s", "labels": {}, "annotations": {}}, "spec": {"ports": [{"port": 80}]}}
    made = backend.wire.call("POST", f"/api/v1/namespaces/{space}/services", body).json
    assert made["status"] == {"loadBalancer": {}}
    assert not {"labels", "annotations"} & made["metadata"].keys()
    assert made["spec"]["clusterIPs"] == [made["spec"]["clusterIP"]]
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    role = {"metadata": {"name": "r"}}
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space}/roles"
    assert json.loads(backend.wire.call("POST", base, role).body)["rules"] is None
