"""What people do with kubectl, done with the real one to the lab and to a real control plane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kube_backends import Backend, config_map, crd, deployment
from kubectl_runs import Kubectl, rows, runs

pytest_plugins = ("kube_fixtures",)

SERVER = ("--server-side",)


@pytest.fixture(scope="module", params=["installed", pytest.param("bench", marks=pytest.mark.real)])
def kubectl(
    backend: Backend, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    yield from runs(backend, request.param, tmp_path_factory.mktemp("kubectl"))


@pytest.fixture
def k(kubectl: Kubectl, space: str) -> Kubectl:
    """kubectl in a namespace of the test's own."""
    mine = Kubectl([*kubectl._argv, "-n", space], kubectl.backend, kubectl.backend.kubeconfig.parent)
    mine.environment = kubectl.environment
    return mine


# Applying


def test_applying_on_the_server(k: Kubectl, space: str) -> None:
    first = config_map(space, a="1", b="1")
    assert k.apply(first, words=SERVER) == "configmap/a serverside-applied"
    assert k.apply(first, words=SERVER) == "configmap/a serverside-applied"
    changed = config_map(space, a="2")
    said = k.apply(changed, words=(*SERVER, "--field-manager=other"), code=1)
    assert said.startswith('error: Apply failed with 1 conflict: conflict with "kubectl": .data.a')
    k.apply(changed, words=(*SERVER, "--field-manager=other", "--force-conflicts"))
    assert k("get", "cm", "a", "-o", "jsonpath={.data}") == '{"a":"2","b":"1"}'
    assert k.apply(config_map(space, a="3", b="1"), words=(*SERVER, "--dry-run=server"), code=1).startswith(
        "error: Apply"
    )
    managers = [m["manager"] for m in k.json("cm", "a", "--show-managed-fields")["metadata"]["managedFields"]]
    assert sorted(managers) == ["kubectl", "other"]


def test_applying_on_the_clients_side_then_on_the_servers(k: Kubectl, space: str) -> None:
    assert k.apply(config_map(space, a="1", b="1")) == "configmap/a created"
    assert k.apply(config_map(space, a="1", b="1")) == "configmap/a unchanged"
    assert k.apply(config_map(space, a="1", c="1")) == "configmap/a configured"
    assert k("get", "cm", "a", "-o", "jsonpath={.data}") == '{"a":"1","c":"1"}'
    assert k.apply(config_map(space, a="2"), words=SERVER) == "configmap/a serverside-applied"
    assert k("get", "cm", "a", "-o", "jsonpath={.data}") == '{"a":"2"}'


def test_a_deployment_applied_twice_is_unchanged(k: Kubectl, space: str) -> None:
    whole = deployment(space)
    assert k.apply(whole) == "deployment.apps/web created"
    k("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    assert k.apply(whole) == "deployment.apps/web unchanged"
    assert k.apply(whole, words=SERVER) == "deployment.apps/web serverside-applied"


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        ((), {"datum": {}}, 'strict decoding error: unknown field "datum"'),
        (SERVER, {"datum": {}},
         "failed to create typed patch object ({space}/a; /v1, Kind=ConfigMap): .datum: field not declared in schema"),
        ((), {"kind": "Nope", "apiVersion": "nope/v1"}, 'no matches for kind "Nope" in version "nope/v1"'),
        (SERVER, {"metadata": {"name": "A_B"}}, 'The ConfigMap "A_B" is invalid: metadata.name: Invalid value: "A_B"'),
    ],
)  # fmt: skip
def test_what_cannot_be_applied(k: Kubectl, space: str, words: Any, change: Any, said: str) -> None:
    assert said.format(space=space) in k.apply({**config_map(space), **change}, words=words, code=1)


def test_a_diff_shows_what_applying_would_change(k: Kubectl, space: str) -> None:
    k.apply(config_map(space, a="1"), words=SERVER)
    text = k("diff", "--server-side", "-f", "-", stdin=json.dumps(config_map(space, a="2")), code=1)
    assert {'-  a: "1"', '+  a: "2"'} <= set(text.splitlines())
    assert k("diff", "--server-side", "-f", "-", stdin=json.dumps(config_map(space, a="1"))) == ""


# Creating (typed clients send protobuf)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("configmap a --from-literal=a=b", "configmap/a created"),
        ("secret generic s --from-literal=a=b", "secret/s created"),
        ("deployment web --image=x:1 --replicas=2 --port=80", "deployment.apps/web created"),
        ("service clusterip web --tcp=80:http", "service/web created"),
        ("job j --image=x:1", "job.batch/j created"),
        ("cronjob c --image=x:1 --schedule=@daily", "cronjob.batch/c created"),
        ("serviceaccount s", "serviceaccount/s created"),
        ("role r --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/r created"),
        ("rolebinding r --role=r --serviceaccount=x:y", "rolebinding.rbac.authorization.k8s.io/r created"),
        ("quota q --hard=pods=2", "resourcequota/q created"),
        ("ingress i --rule=a.example.org/=web:80", "ingress.networking.k8s.io/i created"),
        ("poddisruptionbudget p --selector=a=b --min-available=50%", "poddisruptionbudget.policy/p created"),
    ],
)
def test_creating(k: Kubectl, words: str, said: str) -> None:
    assert k("create", *words.split()) == said
    kind, name = said.split()[0].split("/")
    made = k.json(kind, name)
    expected = json.loads(k("create", *words.split(), "--dry-run=client", "-o", "json"))
    assert made["kind"] == expected["kind"]
    assert _within(expected, made) == []


def _within(part: Any, whole: Any, path: str = "") -> list[str]:
    """Where ``whole`` has something else than ``part``; what the server adds is no difference, nor empty things."""
    if isinstance(part, dict):
        if not isinstance(whole, dict):
            return [] if not part else [path]
        return [
            d for k, v in part.items() if v not in (None, {}, "", []) for d in _within(v, whole.get(k), f"{path}.{k}")
        ]
    if isinstance(part, list):
        pairs = zip(part, whole if isinstance(whole, list) else [], strict=False)
        return [path] * (len(part) != len(whole or [])) + [d for a, b in pairs for d in _within(a, b, path)]
    return [] if part == whole or path.endswith("creationTimestamp") else [f"{path}: {part!r}, {whole!r}"]


def test_creating_again_and_for_show(k: Kubectl, space: str) -> None:
    k("create", "configmap", "a", "--from-literal=a=b")
    assert k("create", "configmap", "a", code=1) == 'error: failed to create configmap: configmaps "a" already exists'
    assert "(server dry run)" in k("create", "configmap", "b", "--dry-run=server")
    assert k("get", "cm", "b", code=1) == 'Error from server (NotFound): configmaps "b" not found'
    other = f"{space}-made"
    assert k("create", "namespace", other) == f"namespace/{other} created"
    assert k("delete", "namespace", other, "--timeout=60s").startswith(f'namespace "{other}" deleted')


# Getting


def test_getting(k: Kubectl, space: str) -> None:
    k.apply(deployment(space), config_map(space, "c", a="1"), words=SERVER)
    k("rollout", "status", "deploy/web", "--timeout=60s")
    table = rows(k("get", "deploy"))
    assert table[0] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert table[1][:4] == ["web", "1/1", "1", "1"]
    wide = rows(k("get", "deploy", "-o", "wide"))
    assert wide[0][5:] == ["CONTAINERS", "IMAGES", "SELECTOR"]
    assert wide[1][5:] == ["web", "example.org/web:1", "app=web"]
    everywhere = rows(k("get", "deploy", "-A"))
    assert everywhere[0][0] == "NAMESPACE"
    assert [space, "web"] in [row[:2] for row in everywhere]
    assert k("get", "deploy", "-o", "name") == "deployment.apps/web"
    assert k("get", "deploy,cm/c", "-o", "name", code=1)  # a list and a name do not go together
    pods = rows(k("get", "pods", "-l", "app=web", "-o", "wide"))
    assert pods[0][:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert (pods[1][1:3], pods[1][6]) == (["1/1", "Running"], "n1")
    assert k("get", "pods", "-l", "app=none") == f"No resources found in {space} namespace."
    found = k("get", "deploy", "web", "-o", "yaml")
    assert found.startswith("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n")
    assert "managedFields" not in found
    listed = k.json("cm", "-l", "!x")
    assert (listed["kind"], {i["kind"] for i in listed["items"]}) == ("List", {"ConfigMap"})
    shown = k("get", "deploy", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas", "--sort-by=.metadata.name")
    assert rows(shown) == [["N", "R"], ["web", "1"]]


def test_getting_what_is_not_there(k: Kubectl, space: str) -> None:
    assert k("get", "deploy", "none", code=1) == 'Error from server (NotFound): deployments.apps "none" not found'
    assert k("get", "widgets", code=1) == 'error: the server doesn\'t have a resource type "widgets"'
    assert k("get", "ns", f"{space}x", code=1) == f'Error from server (NotFound): namespaces "{space}x" not found'


def test_watching(k: Kubectl, space: str) -> None:
    watching = k.start("get", "cm", "-l", "mark=yes", "-w", "--no-headers")
    try:
        marked = config_map(space, "w")
        marked["metadata"]["labels"] = {"mark": "yes"}
        k.backend.until(lambda: k.apply(marked, words=SERVER))
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[:2] == ["w", "0"]
        k("patch", "cm", "w", "--type=merge", "-p", '{"data":{"a":"b"}}')
        assert watching.stdout.readline().split()[:2] == ["w", "1"]
    finally:
        watching.kill()
        watching.wait()


# Waiting


def test_waiting(k: Kubectl, space: str) -> None:
    k.apply(deployment(space), words=SERVER)
    assert k("wait", "--for=condition=Available", "deploy/web", "--timeout=60s") == "deployment.apps/web condition met"
    assert k("wait", "--for=jsonpath={.status.readyReplicas}=1", "deploy/web", "--timeout=60s").endswith(
        "condition met"
    )
    said = k("wait", "--for=condition=Odd", "deploy/web", "--timeout=1s", code=1)
    assert said == "error: timed out waiting for the condition on deployments/web"
    waiting = k.start("wait", "--for=delete", "deploy/web", "--timeout=60s")
    assert k("delete", "deploy", "web", "--wait=false").startswith('deployment.apps "web" deleted')
    assert waiting.wait(60) == 0
    assert waiting.stdout is not None
    assert waiting.stdout.read().strip() in ("deployment.apps/web condition met", "")  # gone before it looked
    assert "not found" in k("wait", "--for=condition=Available", "deploy/web", "--timeout=1s", code=1)


def test_waiting_for_a_kind(k: Kubectl, space: str) -> None:
    kind = f"Waited{space.title()}"
    name = f"{kind.lower()}s.contract.example.org"
    assert k.apply(crd(kind), words=SERVER).endswith(f"/{name} serverside-applied")
    assert "condition met" in k("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")
    assert rows(k("get", "crd", name))[0] == ["NAME", "CREATED", "AT"]
    assert f'"{name}" deleted' in k("delete", "crd", name, "--timeout=60s")


# Changing


def test_patching_labelling_annotating(k: Kubectl, space: str) -> None:
    k.apply(deployment(space, replicas=0), words=SERVER)
    env = '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"b"}]}]}}}}'
    assert k("patch", "deploy", "web", "-p", env) == "deployment.apps/web patched"
    [container] = k.json("deploy", "web")["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["env"]) == ("example.org/web:1", [{"name": "A", "value": "b"}])
    assert k("patch", "deploy", "web", "-p", env) == "deployment.apps/web patched (no change)"
    k("patch", "deploy", "web", "--type=json", "-p", '[{"op":"remove","path":"/spec/paused"}]', code=1)
    k("patch", "deploy", "web", "--type=json", "-p", '[{"op":"replace","path":"/spec/paused","value":true}]')
    k("patch", "deploy", "web", "--type=merge", "-p", '{"spec":{"paused":null}}')
    assert "paused" not in k.json("deploy", "web")["spec"]
    assert k("label", "deploy", "web", "x=y") == "deployment.apps/web labeled"
    assert k("label", "deploy", "web", "x=z", code=1).endswith("'x' already has a value (y), and --overwrite is false")
    assert k("label", "--overwrite", "deploy", "web", "x=z") == "deployment.apps/web labeled"
    assert k("label", "deploy", "web", "x-") == "deployment.apps/web unlabeled"
    assert k("annotate", "deploy", "web", "x=y") == "deployment.apps/web annotated"
    assert k.json("deploy", "web")["metadata"]["annotations"]["x"] == "y"


def test_rolling_out(k: Kubectl, space: str) -> None:
    k.apply(deployment(space, replicas=2), words=SERVER)
    done = 'deployment "web" successfully rolled out'
    assert k("rollout", "status", "deploy/web", "--timeout=60s").endswith(done)
    assert k("set", "image", "deploy/web", "web=example.org/web:2") == "deployment.apps/web image updated"
    assert k("rollout", "status", "deploy/web", "--timeout=60s").endswith(done)
    history = rows(k("rollout", "history", "deploy/web"))
    assert history[1:] == [["REVISION", "CHANGE-CAUSE"], ["1", "<none>"], ["2", "<none>"]]
    assert k("rollout", "undo", "deploy/web") == "deployment.apps/web rolled back"
    k("rollout", "status", "deploy/web", "--timeout=60s")
    assert k("get", "deploy", "web", "-o", "jsonpath={..image}") == "example.org/web:1"
    assert k("rollout", "restart", "deploy/web") == "deployment.apps/web restarted"
    k("rollout", "status", "deploy/web", "--timeout=60s")
    assert k("scale", "deploy/web", "--replicas=3") == "deployment.apps/web scaled"
    k("wait", "--for=jsonpath={.status.readyReplicas}=3", "deploy/web", "--timeout=60s")
    conflict = k.apply(deployment(space), words=SERVER, code=1)
    assert "conflict with" in conflict
    k.apply(deployment(space), words=(*SERVER, "--force-conflicts"))


def test_other_rollouts(k: Kubectl, space: str) -> None:
    for kind, more in (("StatefulSet", {"serviceName": "web"}), ("DaemonSet", {})):
        made = deployment(space)
        made["kind"], made["spec"] = kind, {p: made["spec"][p] for p in ("selector", "template")} | more
        k.apply(made, words=SERVER)
        said = k("rollout", "status", f"{kind}/web", "--timeout=60s")
        assert "roll" in said.splitlines()[-1]
    k("create", "job", "once", "--image=x:1")
    assert k("wait", "--for=condition=Complete", "job/once", "--timeout=60s") == "job.batch/once condition met"
    assert rows(k("get", "job"))[1][:3] == ["once", "Complete", "1/1"]


# Deleting


def test_deleting(k: Kubectl, space: str) -> None:
    marked = config_map(space, "m")
    marked["metadata"]["labels"] = {"mark": "yes"}
    k.apply(marked, config_map(space, "f"), deployment(space), words=SERVER)
    assert k("delete", "cm", "-l", "mark=yes").startswith('configmap "m" deleted')
    by_file = k("delete", "-f", "-", stdin=json.dumps(config_map(space, "f")))
    assert by_file.startswith('configmap "f" deleted')
    assert k("delete", "cm", "f", code=1) == 'Error from server (NotFound): configmaps "f" not found'
    assert k("delete", "cm", "f", "--ignore-not-found") == ""
    k("rollout", "status", "deploy/web", "--timeout=60s")
    k("delete", "deploy", "web", "--cascade=orphan")
    [left] = k.json("rs")["items"]
    assert "ownerReferences" not in left["metadata"]
    k("delete", "rs", "--all", "--cascade=foreground", "--timeout=60s")
    assert k.json("pods")["items"] == []


# Asking


def test_explaining(k: Kubectl) -> None:
    for path, fields in (
        ("deployment.spec", {"replicas", "selector", "strategy", "template"}),
        ("pods.spec.containers", {"name", "image", "env", "ports", "volumeMounts"}),
        ("ingress.spec", {"rules", "tls", "ingressClassName", "defaultBackend"}),
        ("persistentvolumeclaim.spec", {"accessModes", "resources", "storageClassName"}),
        ("cronjob.spec", {"schedule", "jobTemplate", "suspend"}),
    ):
        lines = k("explain", path).splitlines()
        assert lines[0].split()[0] in ("GROUP:", "KIND:")
        listed = lines[next(n for n, line in enumerate(lines) if line.startswith("FIELDS:")) :]
        shown = {line.split()[0] for line in listed if line.startswith("  ") and "\t<" in line}
        assert fields <= shown
    assert 'field "nothing" does not exist' in k("explain", "pods.nothing", code=1)


def test_resources(k: Kubectl) -> None:
    listed = {(r[0], r[-1]): r[1:-1] for r in rows(k("api-resources", "--no-headers"))}
    assert listed["deployments", "Deployment"] == ["deploy", "apps/v1", "true"]
    assert listed["ingresses", "Ingress"] == ["ing", "networking.k8s.io/v1", "true"]
    assert listed["customresourcedefinitions", "CustomResourceDefinition"] == [
        "crd,crds",
        "apiextensions.k8s.io/v1",
        "false",
    ]
    assert listed["storageclasses", "StorageClass"] == ["sc", "storage.k8s.io/v1", "false"]
    assert {"v1", "apps/v1", "batch/v1", "policy/v1"} <= set(k("api-versions").splitlines())
    assert "Server Version: v1.36.3+k3s1" in k("version")
    assert k("auth", "can-i", "delete", "pods") == "yes"
    assert ["Username", "system:admin"] in rows(k("auth", "whoami"))


def test_describing_and_events(k: Kubectl, space: str) -> None:
    waiting = deployment(space, nodeSelector={"disk": "none"})
    k.apply(waiting, words=SERVER)
    k.backend.until(lambda: "FailedScheduling" in k("get", "events"))
    [line] = [r for r in rows(k("get", "events")) if r[2] == "FailedScheduling"]
    assert line[1] == "Warning"
    assert line[3].startswith("pod/web-")
    text = k("describe", "pods", "-l", "app=web")
    assert "Status:           Pending" in text
    assert "FailedScheduling" in text.partition("Events:")[2]
    assert "Replicas:               1 desired | 1 updated | 1 total | 0 available | 1 unavailable" in k(
        "describe", "deploy"
    )


def test_a_node_is_set_aside_and_taken_back(k: Kubectl, space: str) -> None:
    try:
        assert k("cordon", "n1") == "node/n1 cordoned"
        assert rows(k("get", "nodes"))[1][1] == "Ready,SchedulingDisabled"
    finally:
        assert k("uncordon", "n1") == "node/n1 uncordoned"
    k("taint", "node", "n1", "a=b:PreferNoSchedule")
    assert k("taint", "node", "n1", "a-") == "node/n1 untainted"


def test_a_node_is_drained(k: Kubectl, space: str) -> None:
    daemon = deployment(space, "everywhere")
    daemon["kind"], daemon["spec"] = "DaemonSet", {p: daemon["spec"][p] for p in ("selector", "template")}
    k.apply(deployment(space), daemon, words=SERVER)
    k("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    k("rollout", "status", "ds/everywhere", "--timeout=60s")
    try:
        said = k("drain", "n1", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
        assert "node/n1 drained" in said.splitlines()
        [left] = [r for r in rows(k("get", "pods", "--no-headers")) if r[2] == "Running"]
        assert left[0].startswith("everywhere-")
    finally:
        k("uncordon", "n1")
    k("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
