"""The lab's K3s against what was recorded from a real one: commands, files, endpoints, the first server."""

from __future__ import annotations

import hashlib
import json
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from k3s_machines import (
    AGENT_SECRET,
    KUBE_VIP,
    MANIFEST,
    SECRET,
    VERSION,
    Bench,
    Box,
    ask,
    condition,
    eventually,
    exits,
    node,
)

from funoffshore.lab import k3s


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


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A ready first server for tests that only look."""
    bench = Bench(tmp_path_factory.mktemp("k3s"))
    yield bench.found(bench.box("lab-c1", 11))
    bench.close()


def test_the_binary_is_the_same_for_ever_and_knows_its_version(bench: Bench) -> None:
    assert k3s.binary(VERSION).startswith(b"#!funoffshore-lab k3s v1.36.4+k3s1\n")
    assert k3s.digest(VERSION) == hashlib.sha256(k3s.binary(VERSION)).hexdigest()
    code, out, _ = bench.run(bench.box("a", 11), "--version")
    assert (code, out.splitlines()[0].split(" (")[0]) == (0, f"k3s version {VERSION}")
    assert out.splitlines()[1].startswith("go version go")


BAD = [
    ("a: b: c\n", "yaml: mapping values are not allowed in this context"),
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


def test_files_and_modes_of_a_server(shared: Box) -> None:
    def mode(path: str) -> int:
        return stat.S_IMODE(shared.path(path).stat().st_mode)

    server = "/var/lib/rancher/k3s/server"
    for path in ("", "/cred", "/tls", "/db/etcd", "/db/snapshots", "/manifests"):
        assert mode(server + path) == 0o700, path
    for path in ("/token", "/agent-token", "/cred/passwd", "/tls/server-ca.key", "/tls/client-admin.key"):
        assert mode(server + path) == 0o600, path
    assert mode(server + "/tls/server-ca.crt") == 0o644
    assert mode("/etc/rancher/k3s/k3s.yaml") == mode("/etc/rancher/node/password") == 0o600
    assert len(shared.read("/etc/rancher/node/password")) == 33
    assert shared.path(server + "/node-token").is_symlink()
    real = hashlib.sha256(shared.path(server + "/tls/server-ca.crt").read_bytes()).hexdigest()
    assert shared.read(server + "/token").strip() == f"K10{real}::server:{SECRET}"
    assert shared.read(server + "/agent-token").strip() == f"K10{real}::node:{AGENT_SECRET}"
    assert shared.read(server + "/cred/passwd").splitlines() == [
        f"{AGENT_SECRET},node,node,k3s:agent",
        f"{SECRET},server,server,k3s:server",
    ]
    document = yaml.safe_load(shared.read("/etc/rancher/k3s/k3s.yaml"))
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
def test_who_may_ask_what(shared: Box, path: str, statuses: tuple[int, ...]) -> None:
    users = ("", f"node:{AGENT_SECRET}", f"server:{SECRET}", "node:wrong")
    seen = [ask(shared.address, path, user=user)[0] for user in users]
    assert (*seen, ask(shared.address, path, admin=shared)[0]) == statuses


def test_bodies_of_the_supervisor(shared: Box) -> None:
    assert ask(shared.address, "/ping") == (200, "pong")
    real = hashlib.sha256(ask(shared.address, "/cacerts")[1].encode()).hexdigest()
    assert shared.read("/var/lib/rancher/k3s/server/token").startswith(f"K10{real}::")
    user = f"node:{AGENT_SECRET}"
    assert ask(shared.address, "/v1-k3s/readyz", user=user)[1] == "ok"
    assert json.loads(ask(shared.address, "/v1-k3s/apiservers", user=user)[1]) == [f"{shared.address}:6443"]
    assert json.loads(ask(shared.address, "/v1-k3s/config", user=user)[1])["FlannelBackend"] == "vxlan"


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
