"""The lab's K3s against what was recorded from a real one: commands, files, endpoints, joins, failures."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_machines import AGENT_SECRET, SECRET, VERSION, Bench, Box, eventually

from funoffshore.lab import k3s

KUBE_VIP = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-vip, namespace: kube-system}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
        - name: kube-vip
          image: kube-vip
          env: [{name: cp_enable, value: "true"}, {name: address, value: "%s"}]
"""
MANIFEST = "/var/lib/rancher/k3s/server/manifests/vip.yaml"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def first(bench: Bench) -> Box:
    """A ready first server."""
    box = bench.box("lab-c1", 11)
    box.write(MANIFEST, KUBE_VIP % bench.vip)
    return bench.found(box)


def ask(address: str, path: str, *, user: str = "", admin: Box | None = None) -> tuple[int, str]:
    """Status and body of ``https://address:6443path``. ``user`` is ``name:password``."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if admin is not None:
        tls = admin.path("/var/lib/rancher/k3s/server/tls")
        context.load_cert_chain(tls / "client-admin.crt", tls / "client-admin.key")
    request = urllib.request.Request(f"https://{address}:6443{path}")  # loopback
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as why:
        return why.code, why.read().decode()


def node(bench: Bench, name: str) -> dict[str, Any]:
    found = bench.k3s.clusters()[0].get("v1/Node", "", name)
    assert found is not None
    return found


def condition(bench: Bench, name: str, kind: str = "Ready") -> str:
    return str(next(c["status"] for c in node(bench, name)["status"]["conditions"] if c["type"] == kind))


def exits(bench: Bench, box: Box, code: int, said: str, role: str = "server", *argv: str) -> None:
    bench.start(box, role, *argv)
    assert box.is_ended.wait(10), box.said()
    assert box.code == code
    assert said in box.said()


def test_the_binary_is_the_same_for_ever_and_knows_its_version(bench: Bench) -> None:
    assert k3s.binary(VERSION).startswith(b"#!funoffshore-lab k3s v1.36.4+k3s1\n")
    assert k3s.digest(VERSION) == hashlib.sha256(k3s.binary(VERSION)).hexdigest()
    code, out, _ = bench.run(bench.box("a", 11), "--version")
    assert (code, out.splitlines()[0].split(" (")[0]) == (0, f"k3s version {VERSION}")
    assert out.splitlines()[1].startswith("go version go")


BAD = [
    ("a: b: c\n", "yaml: line 1: mapping values are not allowed in this context"),
    ("cluster-cidr: nonsense\n", "invalid cluster-cidr nonsense: invalid CIDR address: nonsense"),
    ("disable-agent: maybe\n", 'invalid boolean value \\"maybe\\" for -disable-agent: parse error'),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_a_bad_config_is_one_fatal_line_and_exit_1(bench: Bench, text: str, said: str) -> None:
    box = bench.box("lab-c1", 11)
    box.write("/etc/rancher/k3s/config.yaml", text)
    exits(bench, box, 1, said)
    assert sum("level=fatal" in line for line in box.lines["k3s"]) == 1


def test_unknown_flags_and_keys(bench: Bench) -> None:
    box = bench.box("lab-c1", 11)
    exits(bench, box, 1, "flag provided but not defined: -nosuch", "server", "--nosuch")
    box.write("/etc/rancher/k3s/config.yaml", "cluster-init: true\n")
    exits(bench, box, 1, "flag provided but not defined: -cluster-init", "agent")
    box.configure(**{"cluster-init": True, "no-such-key": 1, "node-ip": box.address})
    bench.start(box)
    assert box.is_ready.wait(10)
    assert "Unknown flag --no-such-key found in config.yaml, skipping" in box.said()


def test_drop_ins_replace_and_append(bench: Bench) -> None:
    box = bench.box("lab-c1", 11)
    box.configure(**{"cluster-init": True, "node-ip": box.address, "node-label": ["a=1"], "disable": ["traefik"]})
    box.write("/etc/rancher/k3s/config.yaml.d/10.yaml", "node-label+: [b=2]\ndisable: [metrics-server]\n")
    bench.start(box)
    assert box.is_ready.wait(10)
    labels = node(bench, "lab-c1")["metadata"]["labels"]
    assert (labels["a"], labels["b"]) == ("1", "2")
    names = {d["metadata"]["name"] for d in bench.k3s.clusters()[0].list("apps/v1/Deployment")}
    assert names == {"coredns", "local-path-provisioner", "traefik"}


def test_files_and_modes_of_a_server(first: Box) -> None:
    def mode(path: str) -> int:
        return stat.S_IMODE(first.path(path).stat().st_mode)

    server = "/var/lib/rancher/k3s/server"
    for path in ("", "/cred", "/tls", "/db/etcd", "/db/snapshots", "/manifests"):
        assert mode(server + path) == 0o700, path
    for path in ("/token", "/agent-token", "/cred/passwd", "/tls/server-ca.key", "/tls/client-admin.key"):
        assert mode(server + path) == 0o600, path
    assert mode(server + "/tls/server-ca.crt") == 0o644
    assert mode("/etc/rancher/k3s/k3s.yaml") == mode("/etc/rancher/node/password") == 0o600
    assert len(first.read("/etc/rancher/node/password")) == 33
    assert first.path(server + "/node-token").is_symlink()
    real = hashlib.sha256(first.path(server + "/tls/server-ca.crt").read_bytes()).hexdigest()
    assert first.read(server + "/token").strip() == f"K10{real}::server:{SECRET}"
    assert first.read(server + "/agent-token").strip() == f"K10{real}::node:{AGENT_SECRET}"
    assert first.read(server + "/cred/passwd").splitlines() == [
        f"{AGENT_SECRET},node,node,k3s:agent",
        f"{SECRET},server,server,k3s:server",
    ]
    document = yaml.safe_load(first.read("/etc/rancher/k3s/k3s.yaml"))
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert document["current-context"] == "default"


TABLE = [
    ("/ping", (200, 200, 200, 200, 200)),
    ("/cacerts", (200, 200, 200, 200, 200)),
    ("/v1-k3s/readyz", (403, 200, 403, 401, 403)),
    ("/readyz", (401, 401, 401, 401, 200)),
    ("/livez", (401, 401, 401, 401, 200)),
    ("/version", (401, 401, 401, 401, 200)),
    ("/v1-k3s/config", (403, 200, 403, 401, 403)),
    ("/v1-k3s/apiservers", (403, 200, 403, 401, 403)),
    ("/v1-k3s/server-bootstrap", (403, 403, 200, 401, 403)),
    ("/nowhere", (401, 401, 401, 401, 404)),
]


@pytest.mark.parametrize(("path", "statuses"), TABLE)
def test_who_may_ask_what(first: Box, path: str, statuses: tuple[int, ...]) -> None:
    users = ("", f"node:{AGENT_SECRET}", f"server:{SECRET}", "node:wrong")
    seen = [ask(first.address, path, user=user)[0] for user in users]
    assert (*seen, ask(first.address, path, admin=first)[0]) == statuses


def test_bodies_of_the_supervisor(first: Box) -> None:
    assert ask(first.address, "/ping") == (200, "pong")
    real = hashlib.sha256(ask(first.address, "/cacerts")[1].encode()).hexdigest()
    assert first.read("/var/lib/rancher/k3s/server/token").startswith(f"K10{real}::")
    user = f"node:{AGENT_SECRET}"
    assert ask(first.address, "/v1-k3s/readyz", user=user)[1] == "ok"
    assert json.loads(ask(first.address, "/v1-k3s/apiservers", user=user)[1]) == [f"{first.address}:6443"]
    assert json.loads(ask(first.address, "/v1-k3s/config", user=user)[1])["FlannelBackend"] == "vxlan"


def test_the_serving_certificate_is_good_for_the_vip(bench: Bench, first: Box) -> None:
    eventually(lambda: bench.k3s.planes.doors.behind(bench.vip, 6443))
    context = ssl.create_default_context(cadata=first.read("/var/lib/rancher/k3s/server/tls/server-ca.crt"))
    with urllib.request.urlopen(f"https://{bench.vip}:6443/ping", timeout=5, context=context) as response:
        assert response.read() == b"pong"


def test_the_node_object(bench: Bench, first: Box) -> None:
    found = node(bench, "lab-c1")
    notes = found["metadata"]["annotations"]
    arguments = json.loads(notes["k3s.io/node-args"])
    assert arguments[:3] == ["server", "--cluster-init", "true"]
    assert arguments[arguments.index("--token") + 1] == "********"
    assert SECRET not in json.dumps(found)
    assert found["status"]["nodeInfo"]["kubeletVersion"] == VERSION
    assert found["status"]["nodeInfo"]["systemUUID"] == first.uuid
    assert found["metadata"]["labels"]["node-role.kubernetes.io/etcd"] == "true"
    assert condition(bench, "lab-c1", "EtcdIsVoter") == "True"
    classes = bench.k3s.clusters()[0].list("storage.k8s.io/v1/StorageClass")
    assert [c["metadata"]["name"] for c in classes] == ["local-path"]


def test_servers_and_an_agent_join(bench: Bench, first: Box) -> None:
    for number in (12, 13):
        box = bench.box(f"lab-c{number - 10}", number)
        bench.join(box, first)
        assert box.is_ready.wait(10), box.said()
        assert condition(bench, box.name, "EtcdIsVoter") == "True"
        assert bench.token(box) == bench.token(first)
        assert "Adding member lab-c" in box.said()
    worker = bench.box("lab-w1", 21)
    bench.join(worker, first, "agent")
    assert worker.is_ready.wait(10), worker.said()
    assert condition(bench, "lab-w1") == "True"
    assert "node-role.kubernetes.io/control-plane" not in node(bench, "lab-w1")["metadata"]["labels"]
    assert not worker.path("/var/lib/rancher/k3s/server").exists()
    balancer = json.loads(worker.read("/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json"))
    assert len(balancer["ServerAddresses"]) == 3


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"token": "K10" + "0" * 64 + "::server:" + SECRET},
        "token CA hash does not match the Cluster CA certificate hash",
    ),
    ({"token": "K10abc::server:" + SECRET}, "invalid token CA hash length"),
    ({"token": "wrong"}, "failed to bootstrap cluster data: not authorized"),
    ({"server": "http://127.0.0.1:6443"}, "only https:// URLs are supported, invalid scheme"),
    ({"server": "https://127.1.2.3:6443"}, "dial tcp 127.1.2.3:6443: connect: connection refused"),
    ({"cluster-cidr": "10.52.0.0/16"}, "critical configuration mismatched: ClusterIPRanges.slice[0].IP.slice[13]"),
    ({"secrets-encryption": True}, "critical configuration value mismatch between servers"),
]


@pytest.mark.parametrize(("wrong", "said"), REFUSED)
def test_a_server_that_may_not_join_exits_1(bench: Bench, first: Box, wrong: dict[str, Any], said: str) -> None:
    box = bench.box("lab-c2", 12)
    bench.join(box, first, **wrong)
    assert box.is_ended.wait(10)
    assert box.code == 1
    assert said in box.said()
    assert box.lines["k3s"][-1].split("msg=")[1].startswith('"Error: preparing server: failed to bootstrap')
    assert not box.path("/var/lib/rancher/k3s/server/db").exists()


def test_a_bare_secret_is_taken_with_a_warning(bench: Bench, first: Box) -> None:
    box = bench.box("lab-c2", 12)
    bench.join(box, first, token=SECRET)
    assert box.is_ready.wait(10)
    assert "the token does not include a CA hash" in box.said()


def test_a_member_s_name_is_taken_and_the_exit_is_0(bench: Bench, first: Box) -> None:
    box = bench.box("lab-c1", 12)
    bench.join(box, first)
    assert box.is_ended.wait(10)
    assert box.code == 0
    assert "duplicate node name found, please use a unique name for this node" in box.said()


def test_a_server_url_without_a_token_makes_a_second_cluster(bench: Bench, first: Box) -> None:
    box = bench.box("lab-c2", 12)
    box.configure(server=f"https://{first.address}:6443", **{"node-ip": box.address})
    bench.start(box)
    assert box.is_ready.wait(10)
    assert "Kine available at unix://kine.sock" in box.said()
    assert bench.token(box)[:67] != bench.token(first)[:67]


def test_an_agent_without_a_token_exits_and_with_a_wrong_one_waits_for_ever(bench: Bench, first: Box) -> None:
    box = bench.box("lab-w1", 21)
    box.configure(server=f"https://{first.address}:6443")
    exits(bench, box, 1, "--token is required", "agent")
    for token, said in (
        ("wrong", "failed to retrieve configuration from server: not authorized"),
        ("K10" + "0" * 64 + "::node:x", "token CA hash does not match"),
        (bench.token(first), "not authorized"),
    ):
        box.lines.clear()
        bench.join(box, first, "agent", token=token)
        eventually(lambda said=said: box.said().count(said) >= 2)  # type: ignore[misc]
        assert not box.is_ready.is_set()
        assert not box.is_ended.is_set()


def test_a_taken_agent_name_is_refused_until_its_node_is_deleted(bench: Bench, first: Box) -> None:
    box = bench.box("lab-w1", 21)
    bench.join(box, first, "agent")
    assert box.is_ready.wait(10)
    other = bench.box("lab-w1", 22)
    bench.join(other, first, "agent")
    eventually(lambda: "Node password rejected" in other.said())
    bench.k3s.stop(box)
    bench.k3s.clusters()[0].delete("v1/Node", "", "lab-w1")
    assert other.is_ready.wait(10), other.said()


def test_a_token_from_token_create_lets_an_agent_in(bench: Bench, first: Box) -> None:
    code, out, _ = bench.run(first, "token", "create", "--ttl", "1h", "--description", "demo")
    assert code == 0
    box = bench.box("lab-w1", 21)
    bench.join(box, first, "agent", token=out.strip())
    assert box.is_ready.wait(10), box.said()
    _, listed, _ = bench.run(first, "token", "list")
    assert listed.splitlines()[0].split() == ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA", "GROUPS"]
    assert " demo " in listed.splitlines()[1]


def test_commands(bench: Bench, first: Box) -> None:
    code, _, err = bench.run(first, "etcd-snapshot", "save", "--name", "hand")
    assert code == 0
    assert "Snapshot hand-lab-c1-" in err
    _, out, _ = bench.run(first, "etcd-snapshot", "ls", "-o", "json")
    assert json.loads(out)["items"][0]["status"]["readyToUse"] is True
    worker = bench.box("lab-w1", 21)
    code, _, err = bench.run(worker, "etcd-snapshot", "ls")
    assert (code, "server/token: no such file or directory" in err) == (1, True)
    assert "Disabled, no configuration file found" in bench.run(first, "secrets-encrypt", "status")[1]
    assert "is ok, expires at" in bench.run(first, "certificate", "check")[2]


def test_another_token_or_none_after_the_first_start(bench: Bench, first: Box) -> None:
    bench.k3s.stop(first)
    first.configure(**{"cluster-init": True, "token": "another", "node-ip": first.address})
    exits(bench, first, 1, "bootstrap data already found and encrypted with different token")
    first.path("/var/lib/rancher/k3s/server/token").unlink()
    first.configure(**{"cluster-init": True, "node-ip": first.address})
    bench.start(first)
    assert first.is_ready.wait(10), first.said()
    assert bench.token(first).endswith(SECRET)


def test_a_stopped_server_takes_the_vip_with_it_and_another_carries_on(bench: Bench, first: Box) -> None:
    boxes = [first]
    for number in (12, 13):
        box = bench.box(f"lab-c{number - 10}", number)
        bench.join(box, first)
        assert box.is_ready.wait(10)
        boxes.append(box)
    eventually(lambda: bench.k3s.planes.doors.behind(bench.vip, 6443))
    bench.k3s.stop(first)
    with pytest.raises(urllib.error.URLError):
        ask(first.address, "/ping")
    assert ask(bench.vip, "/readyz", admin=boxes[1])[0] == 200
    assert condition(bench, "lab-c1") == "Unknown"
    bench.k3s.stop(boxes[1])
    assert ask(boxes[2].address, "/ping")[0] == 200
    assert ask(boxes[2].address, "/v1-k3s/readyz", user=f"node:{AGENT_SECRET}") == (200, "ok")
    assert ask(boxes[2].address, "/readyz", admin=boxes[2])[0] == 500
    assert ask(boxes[2].address, "/api/v1/nodes", admin=boxes[2])[0] == 500
    bench.start(first)
    assert first.is_ready.wait(10)
    assert ask(bench.vip, "/readyz", admin=first)[0] == 200
    eventually(lambda: condition(bench, "lab-c1") == "True")


def test_all_servers_off_come_back_together(bench: Bench, first: Box) -> None:
    second = bench.box("lab-c2", 12)
    bench.join(second, first)
    assert second.is_ready.wait(10)
    for box in (first, second):
        bench.k3s.stop(box)
    bench.start(first)
    assert not first.is_ready.wait(0.3)
    bench.start(second)
    assert first.is_ready.wait(10)
    assert second.is_ready.wait(10)


def test_a_node_that_the_fault_keeps_out(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("node-no-join", node="lab-w1")
    worker = bench.box("lab-w1", 21)
    bench.join(worker, first, "agent")
    eventually(lambda: worker.said().count("i/o timeout") >= 2)
    bench.kit.faults.on("node-no-join", node="lab-c2")
    server = bench.box("lab-c2", 12)
    bench.join(server, first)
    assert server.is_ended.wait(10)
    assert "i/o timeout" in server.said()


def test_a_new_process_of_the_lab_finds_everything_running(tmp_path: Path) -> None:
    before = Bench(tmp_path)
    box = before.box("lab-c1", 11)
    box.write(MANIFEST, KUBE_VIP % before.vip)
    before.found(box)
    worker = before.box("lab-w1", 21)
    before.join(worker, box, "agent")
    assert worker.is_ready.wait(10)
    token = before.token(box)
    before.close()
    after = Bench(tmp_path, net=before.net)
    again, other = after.box("lab-c1", 11), after.box("lab-w1", 21)
    again.uuid, other.uuid = box.uuid, worker.uuid
    after.start(other, "agent")
    after.start(again)
    assert again.is_ready.wait(10), again.said()
    assert other.is_ready.wait(10), other.said()
    assert after.token(again) == token
    assert ask(after.vip, "/readyz", admin=again)[0] == 200
    assert {condition(after, name) for name in ("lab-c1", "lab-w1")} == {"True"}
    after.close()
