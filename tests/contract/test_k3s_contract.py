"""What fo relies on in a K3s server, as cases that run on the embedded lab's and on the bench's stand-in with a real
etcd, kube-apiserver and kubelet behind it: endpoints, files, tokens, the Node, commands.

Recorded facts of a real K3s decide where the two differ.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from cryptography import x509
from k3s_backends import (
    AGENT_SECRET,
    KUBECONFIG,
    PARTS,
    SECRET,
    SERVER,
    Answer,
    Disk,
    Looker,
    Machine,
    Place,
    ask,
    condition,
    place,
    read,
    tail,
    thing,
    token,
    until,
)
from pydantic import SecretStr
from ssh_machines import config_of

from funoffshore import kubeconfig
from funoffshore.clock import WallClock
from funoffshore.config import ClusterConfig
from funoffshore.reading import Present
from funoffshore.stages.k3s import files, look
from funoffshore.stages.k3s.facts import LABEL, Role
from funoffshore.world import kube, supervisor
from funoffshore.world.routes import Routes
from funoffshore.world.world import World


@dataclass
class Scene:
    """One server that fo's own config.yaml has founded, and how it came up."""

    place: Place
    first: Machine
    config: ClusterConfig
    life: list[tuple[Answer, Answer, Answer]]
    """Each change of /ping, /readyz (nobody asks) and /v1-k3s/readyz (a node asks)."""
    tmp: Path


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(request.param, tmp_path_factory.mktemp(f"k3s-{request.param}")) as made:
        yield made


@pytest.fixture(scope="module")
def scene(where: Place, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    tmp = tmp_path_factory.mktemp("operator")
    first = where.machine("lab-c1", 11)
    base = config_of(tmp, IPv4Network(where.net + "0/24"))
    k3s = replace(
        base.k3s, version=first.version, token=SecretStr(SECRET), agent_token=SecretStr(AGENT_SECRET),
        disable=tuple(PARTS),
    )  # fmt: skip
    config = replace(base, k3s=k3s, lab=None)
    entry = files.entry_keys(config, files.Entry(Role.FOUND))
    first.configure(**yaml.safe_load(files.config_yaml(config, config.nodes[0], entry)))
    scene = Scene(where, first, config, [], tmp)
    first.start()
    until(lambda: _watch(scene) or first.code() is not None, said=first.lines)
    assert first.is_ready(), tail(first)
    until(lambda: condition(first, "lab-c1").get("status") == "True", said=lambda: tail(first))
    until(lambda: condition(first, "lab-c1", "EtcdIsVoter").get("status") == "True", said=lambda: tail(first))
    return scene


def _watch(scene: Scene) -> bool:
    """Writes down what port 6443 says now, if it is something else than before."""
    address, node = scene.first.address, f"node:{AGENT_SECRET}"
    now = (ask(address, "/ping"), ask(address, "/readyz"), ask(address, "/v1-k3s/readyz", user=node))
    if not scene.life or scene.life[-1] != now:
        scene.life.append(now)
    return scene.first.is_ready()


def test_port_6443_opens_in_the_recorded_order(scene: Scene) -> None:
    states = [(ping.status, ready.status) for ping, ready, _ in scene.life]
    order = [(0, 0), (0, 503), (503, 503), (200, 503), (200, 401)]
    ranks = [order.index(state) for state in states]
    assert ranks == sorted(ranks)
    assert states[0][0] in (0, 503)
    assert states[-1] == (200, 401)  # how many of those before are caught depends on how busy the machine is
    for ping, ready, node in scene.life:
        if ping.status == 503:
            assert ping.message == "starting"
        if (ping.status, ready.status) == (200, 503):
            assert ready.message == "apiserver not ready"
        if node.status == 503 and ping.status == 200:
            assert node.message == "runtime core not ready"
    assert scene.life[-1][2].status in (200, 503)


def test_a_server_that_is_up_has_not_warned_of_fo_s_own_settings(scene: Scene) -> None:
    said = "\n".join(scene.first.lines())
    assert "Unknown flag" not in said
    assert "k3s is up and running" in said
    assert SECRET not in said
    assert AGENT_SECRET not in said


WHO = ("nobody", "node", "server", "wrong password", "admin")
TABLE = [
    ("/ping", (200, 200, 200, 200, 200)),
    ("/cacerts", (200, 200, 200, 200, 200)),
    ("/v1-k3s/readyz", (403, 200, 403, 401, 403)),
    ("/readyz", (401, 401, 401, 401, 200)),
    ("/livez", (401, 401, 401, 401, 200)),
    ("/healthz", (401, 401, 401, 401, 200)),
    ("/version", (401, 401, 401, 401, 200)),
    ("/v1-k3s/config", (403, 200, 403, 401, 403)),
    ("/v1-k3s/apiservers", (403, 200, 403, 401, 403)),
    ("/v1-k3s/server-ca.crt", (403, 200, 403, 401, 403)),
    ("/v1-k3s/server-bootstrap", (403, 403, 200, 401, 403)),
    ("/static/", (200, 200, 200, 200, 200)),
    ("/nowhere", (401, 401, 401, 401, 404)),
]


def _everybody(scene: Scene, path: str) -> dict[str, Answer]:
    users = ("", f"node:{AGENT_SECRET}", f"server:{SECRET}", "node:wrong")
    answers = [ask(scene.first.address, path, user=user) for user in users]
    return dict(zip(WHO, [*answers, ask(scene.first.address, path, admin=scene.first)], strict=True))


@pytest.mark.parametrize(("path", "statuses"), TABLE)
def test_who_may_ask_what(scene: Scene, path: str, statuses: tuple[int, ...]) -> None:
    seen = _everybody(scene, path)
    assert tuple(answer.status for answer in seen.values()) == statuses
    said = {401: "not authorized" if path.startswith("/v1-k3s/") else "Unauthorized", 403: "forbidden"}
    for answer in seen.values():
        if answer.status in said:
            assert answer.message == said[answer.status]
            assert answer.kind.startswith("application/json")


def test_what_the_supervisor_tells(scene: Scene) -> None:
    address, node = scene.first.address, f"node:{AGENT_SECRET}"
    assert ask(address, "/ping") == Answer(200, "pong", "text/plain")
    authority = ask(address, "/cacerts")
    assert authority.kind == "text/plain"
    assert authority.body == read(scene.first, f"{SERVER}/tls/server-ca.crt")
    assert ask(address, "/v1-k3s/server-ca.crt", user=node).body == authority.body
    assert ask(address, "/v1-k3s/readyz", user=node).body == "ok"
    assert ask(address, "/readyz", admin=scene.first).body == "ok"
    assert json.loads(ask(address, "/v1-k3s/apiservers", user=node).body) == [f"{address}:6443"]
    told = json.loads(ask(address, "/v1-k3s/config", user=node).body)
    assert told["ClusterIPRange"] == {"IP": "10.42.0.0", "Mask": "//8AAA=="}
    assert told["ServiceIPRange"] == {"IP": "10.43.0.0", "Mask": "//8AAA=="}
    assert (told["ClusterDNS"], told["ClusterDomain"]) == ("10.43.0.10", "cluster.local")
    assert (told["FlannelBackend"], told["EncryptSecrets"], told["DisableServiceLB"]) == ("vxlan", True, True)
    keys = json.loads(ask(address, "/v1-k3s/server-bootstrap", user=f"server:{SECRET}").body)
    assert {"ServerCA", "ServerCAKey", "ClientCA", "ClientCAKey", "ETCDServerCAKey", "PasswdFile"} <= set(keys)
    assert json.loads(ask(address, "/version", admin=scene.first).body)["gitVersion"].startswith("v1.3")


MODES = [
    ("/etc/rancher", 0o755), ("/etc/rancher/k3s", 0o755), (KUBECONFIG, 0o600), ("/etc/rancher/node/password", 0o600),
    ("/var/lib/rancher/k3s/agent", 0o700), ("/var/lib/rancher/k3s/data", 0o755), (SERVER, 0o700),
    (f"{SERVER}/token", 0o600), (f"{SERVER}/agent-token", 0o600), (f"{SERVER}/cred", 0o700),
    (f"{SERVER}/cred/passwd", 0o600), (f"{SERVER}/cred/encryption-config.json", 0o600), (f"{SERVER}/tls", 0o700),
    (f"{SERVER}/tls/etcd", 0o755), (f"{SERVER}/tls/server-ca.crt", 0o644), (f"{SERVER}/tls/server-ca.key", 0o600),
    (f"{SERVER}/tls/client-ca.key", 0o600), (f"{SERVER}/tls/etcd/server-ca.crt", 0o644),
    (f"{SERVER}/tls/client-admin.crt", 0o644), (f"{SERVER}/tls/client-admin.key", 0o600),
    (f"{SERVER}/db/etcd", 0o700), (f"{SERVER}/db/etcd/member", 0o700), (f"{SERVER}/db/snapshots", 0o700),
    (f"{SERVER}/db/etcd/name", 0o600), (f"{SERVER}/db/etcd/config", 0o600), (f"{SERVER}/manifests", 0o700),
    (f"{SERVER}/etc", 0o755), (f"{SERVER}/static", 0o755), ("/var/lib/rancher/k3s/agent/client-kubelet.key", 0o600),
    ("/var/lib/rancher/k3s/agent/client-kubelet.crt", 0o600), ("/var/lib/rancher/k3s/agent/kubelet.kubeconfig", 0o600),
    ("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", 0o644),
    ("/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/00-k3s-defaults.conf", 0o600),
    ("/var/lib/rancher/k3s/agent/etc/cni/net.d/10-flannel.conflist", 0o644),
    ("/var/lib/rancher/k3s/agent/pod-manifests", 0o750),
]  # fmt: skip


def test_files_and_modes_of_a_server(scene: Scene) -> None:
    conflist = scene.first.path("/var/lib/rancher/k3s/agent/etc/cni/net.d/10-flannel.conflist")
    until(conflist.exists, said=lambda: tail(scene.first))
    seen = {path: stat.S_IMODE(scene.first.path(path).stat().st_mode) for path, _ in MODES}
    assert {path: oct(mode) for path, mode in seen.items()} == {path: oct(mode) for path, mode in MODES}
    for made in scene.first.path(f"{SERVER}/manifests").glob("*.yaml"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
    data = scene.first.path("/var/lib/rancher/k3s/data")
    assert re.fullmatch("[0-9a-f]{64}", str((data / "current").readlink()))
    assert (data / ".lock").exists()
    assert re.fullmatch(r"[0-9a-f]{32}\n", read(scene.first, "/etc/rancher/node/password"))
    assert re.fullmatch(r"lab-c1-[0-9a-f]{8}", read(scene.first, f"{SERVER}/db/etcd/name"))
    balancer = scene.first.path("/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json")
    assert not balancer.exists()


def test_tokens_name_the_authority_and_its_hash(scene: Scene) -> None:
    first = scene.first
    known = hashlib.sha256(first.path(f"{SERVER}/tls/server-ca.crt").read_bytes()).hexdigest()
    assert read(first, f"{SERVER}/token") == f"K10{known}::server:{SECRET}\n"
    assert len(read(first, f"{SERVER}/token")) == 109
    assert str(first.path(f"{SERVER}/node-token").readlink()) == "token"
    assert not first.path(f"{SERVER}/agent-token").is_symlink()
    assert token(first, "agent-token") == f"K10{known}::node:{AGENT_SECRET}"
    passwords = [f"{AGENT_SECRET},node,node,k3s:agent", f"{SECRET},server,server,k3s:server"]
    assert read(first, f"{SERVER}/cred/passwd").splitlines() == passwords
    world = cast(World, Looker(Disk(first)))
    assert look.token_hash(world, scene.config, scene.config.nodes[0]) == Present(known)
    door = supervisor.Supervisor(scene.config)
    assert door.ca_hash(first.address) == Present(known)
    assert door.ping(first.address) == Present("pong")


def test_k3s_yaml_is_what_fo_turns_into_the_operator_s_kubeconfig(scene: Scene) -> None:
    text = read(scene.first, KUBECONFIG)
    found = kubeconfig.parse(text)
    known = hashlib.sha256(scene.first.path(f"{SERVER}/tls/server-ca.crt").read_bytes()).hexdigest()
    assert (found.name, found.server, found.ca_hash) == ("default", "https://127.0.0.1:6443", known)
    file = scene.tmp / "kubeconfig"
    kubeconfig.write(file, kubeconfig.rewritten(text, name="lab", server=f"https://{scene.first.address}:6443"))
    api = kube.Kube(file, Routes(None), WallClock())
    assert isinstance(ready := api.readyz(), Present)
    assert "readyz check passed" in ready.value
    node = api.get("v1/Node", "", "lab-c1")
    assert isinstance(node, Present)
    fact = look.node_fact(node.value)
    assert (fact.ready, fact.voter, fact.version) == (True, True, scene.first.version)
    assert fact.fingerprint == files.fingerprint(scene.config, scene.config.nodes[0])


def test_the_serving_certificate_is_good_for_all_names_and_one_year(scene: Scene) -> None:
    first = scene.first
    plain = ssl.get_server_certificate((first.address, 6443))
    found = x509.load_pem_x509_certificate(plain.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = {str(name.value) for name in names}
    vip = str(scene.config.network.vip)
    assert {"lab-c1", first.address, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local", "10.43.0.1", "localhost", "127.0.0.1", vip} <= known  # fmt: skip
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days in (364, 365, 366)
    assert found.subject.rfc4514_string().split(",")[0] == "CN=k3s"


def test_the_node_shows_its_settings_without_secrets(scene: Scene) -> None:
    node = thing(scene.first, "nodes/lab-c1")
    assert node is not None
    notes, labels = node["metadata"]["annotations"], node["metadata"]["labels"]
    arguments = json.loads(notes["k3s.io/node-args"])
    assert arguments[:3] == ["server", "--cluster-init", "true"]
    told = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert (told["--token"], told["--agent-token"]) == ("********", "********")
    assert [v for k, v in zip(arguments[1::2], arguments[2::2], strict=True) if k == "--disable"] == PARTS
    assert SECRET not in json.dumps(node)
    assert AGENT_SECRET not in json.dumps(node)
    assert notes["k3s.io/node-env"] == "{}"
    assert re.fullmatch("[A-Z2-7]{52}====", notes["k3s.io/node-config-hash"])
    assert (notes["k3s.io/hostname"], notes["k3s.io/internal-ip"]) == ("lab-c1", scene.first.address)
    assert notes["etcd.k3s.cattle.io/node-name"] == read(scene.first, f"{SERVER}/db/etcd/name").strip()
    assert notes["etcd.k3s.cattle.io/node-address"] == scene.first.address
    assert re.fullmatch("start-[0-9a-f]{64}", notes["k3s.io/encryption-config-hash"])
    roles = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/etcd")
    assert [labels.get(role) for role in roles] == ["true", "true"]
    assert labels["node.kubernetes.io/instance-type"] == "k3s"
    assert labels[LABEL] == files.fingerprint(scene.config, scene.config.nodes[0])
    assert (node["spec"]["providerID"], node["spec"]["podCIDR"]) == ("k3s://lab-c1", "10.42.0.0/24")
    finalizers = ["wrangler.cattle.io/managed-etcd-controller", "wrangler.cattle.io/node"]
    assert sorted(node["metadata"]["finalizers"]) == finalizers


def test_the_node_votes_and_its_password_is_a_secret_of_its_own(scene: Scene) -> None:
    vote = condition(scene.first, "lab-c1", "EtcdIsVoter")
    assert (vote["reason"], vote["message"]) == ("MemberNotLearner", "Node is a voting member of the etcd cluster")
    node = thing(scene.first, "nodes/lab-c1") or {}
    path = "namespaces/kube-system/secrets/lab-c1.node-password.k3s"

    def owners() -> list[dict[str, Any]]:
        secret = thing(scene.first, path) or {}
        assert (secret["type"], secret["immutable"]) == ("k3s.cattle.io/node-password", True)
        found: list[dict[str, Any]] = secret["metadata"].get("ownerReferences", [])
        return found

    until(lambda: [(o["kind"], o["name"], o["uid"]) for o in owners()] == [("Node", "lab-c1", node["metadata"]["uid"])])


def test_secrets_are_encrypted_and_the_command_says_so(scene: Scene) -> None:
    ran = scene.first.run("secrets-encrypt", "status")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[:3] == [
        "Encryption Status: Enabled",
        "Current Rotation Stage: start",
        "Server Encryption Hashes: All hashes match",
    ]
    assert re.match(r"Active +Key Type +Name$", lines[4])
    assert re.match(r" \* +AES-CBC +aescbckey$", lines[-1])


def test_snapshots_are_saved_and_listed(scene: Scene) -> None:
    first = scene.first
    saved = first.run("etcd-snapshot", "save", "--name", "hand")
    assert saved.code == 0, saved.err
    found = re.search(r'level=info msg="Snapshot (hand-lab-c1-\d{10}) saved\."', saved.err)
    assert found
    assert "Unknown flag --cluster-init found in config.yaml, skipping" in saved.err
    name, folder = found[1], f"{SERVER}/db/snapshots"
    assert stat.S_IMODE(first.path(f"{folder}/{name}").stat().st_mode) == 0o600
    head, *rows = [line.split() for line in first.run("etcd-snapshot", "ls").out.splitlines()]
    assert head == ["Name", "Location", "Size", "Created"]
    assert rows[0][:2] == [name, f"file://{first.data}/server/db/snapshots/{name}"]
    assert int(rows[0][2]) == first.path(f"{folder}/{name}").stat().st_size
    listed = json.loads(first.run("etcd-snapshot", "ls", "-o", "json").out)
    assert (listed["kind"], len(listed["items"])) == ("List", 1)
    [item] = listed["items"]
    assert (item["apiVersion"], item["kind"]) == ("k3s.cattle.io/v1", "ETCDSnapshotFile")
    assert (item["spec"]["snapshotName"], item["spec"]["nodeName"]) == (name, "lab-c1")
    assert item["status"]["readyToUse"] is True
    assert re.search(r"Snapshot on-demand-lab-c1-\d{10} saved", first.run("etcd-snapshot").err)


def test_tokens_for_agents_are_made_and_listed(scene: Scene) -> None:
    head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA", "GROUPS"]
    assert scene.first.run("token", "list").out.split() == head
    made = scene.first.run("token", "create", "--ttl", "1h", "--description", "demo")
    assert made.code == 0, made.err
    known = token(scene.first)[:67]
    found = re.fullmatch(rf"{known}::([a-z0-9]{{6}})\.[a-z0-9]{{16}}\n", made.out)
    assert found
    [_, row] = scene.first.run("token", "list").out.splitlines()
    group = "system:bootstrappers:k3s:default-node-token"
    assert re.fullmatch(rf"{found[1]} +(59m|1h) +\S+Z +authentication,signing +demo +{group} *", row)
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}\n", scene.first.run("token", "generate").out)


def test_certificates_are_checked(scene: Scene) -> None:
    ran = scene.first.run("certificate", "check")
    assert ran.code == 0
    said = r"client-admin\.crt: certificate system:admin \(ClientAuth\) is ok, expires at \d{4}-\d\d-\d\dT[\d:]{8}Z"
    assert re.search(rf'level=info msg="{said}"', ran.err)
    table = scene.first.run("certificate", "check", "--output", "table").out.splitlines()
    [head] = [line for line in table if "FILENAME" in line]
    assert head.split() == ["FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL", "TIME", "STATUS"]
    row, *_ = [line for line in table if line.startswith("client-admin.crt")]  # the file holds its authority as well
    assert row.split()[-1] == "OK"
