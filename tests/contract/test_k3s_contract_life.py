"""A cluster's life on the embedded lab's K3s and on the bench's stand-in with real servers and kubelets: members come
and go, machines change, tokens are lost. The cases of this module are one story and follow each other."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from k3s_backends import (
    AGENT_SECRET,
    DATA,
    KUBECONFIG,
    SECRET,
    SERVER,
    Machine,
    Place,
    ask,
    await_end,
    await_ready,
    cause_of,
    condition,
    place,
    read,
    settings,
    tail,
    thing,
    token,
    until,
)

from funoffshore import kubeconfig

NODE = f"node:{AGENT_SECRET}"
BALANCER = f"{DATA}/agent/etc/k3s-agent-load-balancer.json"


@dataclass
class Scene:
    """Two servers and an agent, and a machine that took the agent's name."""

    place: Place
    first: Machine
    second: Machine
    worker: Machine
    twin: Machine

    def join(self, machine: Machine, role: str = "server", **more: object) -> None:
        told = settings(machine) if role == "server" else {"node-name": machine.name, "node-ip": machine.address}
        name = "token" if role == "server" else "agent-token"
        told |= {"server": f"https://{self.first.address}:6443", "token": token(self.first, name)}
        machine.configure(**{**told, **more})
        machine.start(role)


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with place(request.param, tmp_path_factory.mktemp(f"k3s-{request.param}")) as made:
        machines = [made.machine(*m) for m in (("lab-c1", 11), ("lab-c2", 12), ("lab-w1", 21), ("lab-w1", 22))]
        scene = Scene(made, *machines)
        first = scene.first
        first.configure(**settings(first, token=SECRET, **{"cluster-init": True}))
        first.start()
        await_ready(first)
        yield scene


def is_ready(scene: Scene, name: str, admin: Machine | None = None) -> Callable[[], bool]:
    return lambda: condition(admin or scene.first, name).get("status") == "True"


def said(machine: Machine) -> Callable[[], str]:
    return lambda: tail(machine)


def password_secret(scene: Scene, name: str) -> dict[str, object] | None:
    return thing(scene.first, f"namespaces/kube-system/secrets/{name}.node-password.k3s")


def delete_node(scene: Scene, name: str) -> None:
    answer = ask(scene.first.address, f"/api/v1/nodes/{name}", admin=scene.first, method="DELETE")
    assert answer.status == 200, answer


def is_forgotten(scene: Scene, name: str) -> Callable[[], bool]:
    return lambda: thing(scene.first, f"nodes/{name}") is None and password_secret(scene, name) is None


def left(scene: Scene, name: str) -> Callable[[], object]:
    """What is still there of a Node, for a failure's text."""
    return lambda: (thing(scene.first, f"nodes/{name}"), password_secret(scene, name), tail(scene.first))


def test_a_second_server_joins_learns_and_votes(scene: Scene) -> None:
    first, second = scene.first, scene.second
    scene.join(second)
    scene.join(scene.worker, "agent", token=first.run("token", "create", "--ttl", "1h").out.strip())
    await_ready(second)
    assert re.search(rf"Adding member lab-c2-[0-9a-f]{{8}}=https://{second.address}:2380 to etcd cluster \[",
                     "\n".join(second.lines()))  # fmt: skip
    assert "k3s is up and running" in "\n".join(second.lines())
    until(lambda: condition(first, "lab-c2", "EtcdIsVoter").get("status") == "True", said=said(second))
    assert condition(first, "lab-c2", "EtcdIsVoter")["reason"] == "MemberNotLearner"
    until(is_ready(scene, "lab-c2"), said=said(second))
    assert token(second) == token(first)
    assert token(second, "agent-token") == token(first, "agent-token")
    for path in ("tls/server-ca.crt", "tls/server-ca.key", "tls/client-ca.key", "tls/etcd/peer-ca.key", "cred/passwd"):
        assert read(second, f"{SERVER}/{path}") == read(first, f"{SERVER}/{path}"), path
    found = kubeconfig.parse(read(second, KUBECONFIG))
    known = hashlib.sha256(first.path(f"{SERVER}/tls/server-ca.crt").read_bytes()).hexdigest()
    assert (found.name, found.server, found.ca_hash) == ("default", "https://127.0.0.1:6443", known)
    both = [f"{first.address}:6443", f"{second.address}:6443"]
    until(lambda: json.loads(ask(first.address, "/v1-k3s/apiservers", user=NODE).body) == both)
    assert ask(second.address, "/readyz", admin=first).status == 200
    assert "lab-c1" not in second.run("etcd-snapshot", "ls").out


def test_an_agent_is_in_with_a_token_of_token_create(scene: Scene) -> None:
    worker = scene.worker
    await_ready(worker)
    until(is_ready(scene, "lab-w1"), said=said(worker))
    node = thing(scene.first, "nodes/lab-w1") or {}
    until(lambda: "k3s.io/node-args" in (thing(scene.first, "nodes/lab-w1") or {})["metadata"]["annotations"])
    node = thing(scene.first, "nodes/lab-w1") or {}
    arguments = json.loads(node["metadata"]["annotations"]["k3s.io/node-args"])
    assert arguments[0] == "agent"
    assert arguments[arguments.index("--token") + 1] == "********"
    assert not [label for label in node["metadata"]["labels"] if label.startswith("node-role.kubernetes.io/")]
    assert "etcd.k3s.cattle.io/node-name" not in node["metadata"]["annotations"]
    assert node["metadata"]["finalizers"] == ["wrangler.cattle.io/node"]
    assert condition(scene.first, "lab-w1", "EtcdIsVoter") == {}
    assert not worker.path(SERVER).exists()
    assert not worker.path(KUBECONFIG).exists()
    for path in ("client-kubelet.key", "server-ca.crt", "kubelet.kubeconfig", "etc/k3s-agent-load-balancer.json"):
        assert stat.S_IMODE(worker.path(f"{DATA}/agent/{path}").stat().st_mode) == 0o600, path
    assert "k3s agent is up and running" in "\n".join(worker.lines())


def test_an_agent_s_balancer_knows_all_servers(scene: Scene) -> None:
    both = [f"{scene.first.address}:6443", f"{scene.second.address}:6443"]
    wanted = {"ServerURL": f"https://{scene.first.address}:6443", "ServerAddresses": both}
    until(lambda: json.loads(read(scene.worker, BALANCER)) == wanted, said=lambda: read(scene.worker, BALANCER))


def test_another_machine_under_the_agent_s_name_is_refused(scene: Scene) -> None:
    secret = password_secret(scene, "lab-w1")
    assert secret is not None
    assert (secret["type"], secret["immutable"]) == ("k3s.cattle.io/node-password", True)
    scene.join(scene.twin, "agent")
    until(lambda: "Node password rejected" in tail(scene.twin), said=said(scene.twin))
    [line, *_] = [line for line in scene.twin.lines() if "Node password rejected" in line]
    assert "serving-kubelet.crt: Node password rejected, duplicate hostname or contents of" in line
    assert "try enabling a unique node name with the --with-node-id flag" in line
    cause = cause_of(scene.twin)
    assert cause is not None
    assert (cause.says, cause.hopeless) == ("its name is taken: another machine joined under it", True)
    assert scene.twin.code() is None


def test_deleting_the_node_frees_its_name(scene: Scene) -> None:
    scene.worker.stop()
    delete_node(scene, "lab-w1")
    await_ready(scene.twin)
    until(is_ready(scene, "lab-w1"), said=said(scene.twin))
    node = thing(scene.first, "nodes/lab-w1") or {}
    [address] = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
    assert address == scene.twin.address


def test_an_agent_with_certificates_of_a_deleted_node_loops_for_ever(scene: Scene) -> None:
    twin = scene.twin
    twin.stop()
    delete_node(scene, "lab-w1")
    until(is_forgotten(scene, "lab-w1"), said=left(scene, "lab-w1"))
    twin.start("agent")
    line = "Node authorization rejected, retrying without client certificate authentication"
    until(lambda: line in tail(twin), said=said(twin))
    until(lambda: "http: ContentLength=188 with Body length 0" in tail(twin), said=said(twin))
    cause = cause_of(twin)
    assert cause is not None
    assert cause.hopeless
    assert cause.says == "its Node was deleted while its old certificates are still on its disk"
    assert twin.code() is None
    twin.stop()
    for name in ("client-kubelet.crt", "client-kubelet.key"):
        twin.path(f"{DATA}/agent/{name}").unlink()
    twin.start("agent")
    await_ready(twin)
    until(is_ready(scene, "lab-w1"), said=said(twin))
    twin.stop()


def test_without_a_quorum_the_supervisor_says_ok_and_the_api_does_not(scene: Scene) -> None:
    scene.first.stop()
    assert ask(scene.first.address, "/ping").status == 0

    def silent() -> bool:
        try:
            return ask(scene.second.address, "/readyz", admin=scene.second, timeout=3).status != 200
        except TimeoutError:
            return True

    until(silent)
    assert ask(scene.second.address, "/ping").body == "pong"
    assert ask(scene.second.address, "/v1-k3s/readyz", user=NODE).body == "ok"
    assert scene.second.code() is None


def test_a_server_with_another_token_does_not_come_back(scene: Scene) -> None:
    first = scene.first
    first.configure(**settings(first, token="another", **{"cluster-init": True}))
    first.start()
    assert await_end(first) == 1
    [line] = [line for line in first.lines() if "level=fatal" in line]
    assert line.endswith(
        'msg="Error: preparing server: failed to bootstrap cluster data: failed to reconcile with local datastore: '
        'bootstrap data already found and encrypted with different token"'
    )
    cause = cause_of(first)
    assert cause is not None
    assert (cause.says, cause.hopeless) == ("its datastore was made with another token", True)
    assert token(first).endswith(f"::server:{SECRET}")


def test_a_lost_token_file_is_written_anew_and_the_quorum_is_back(scene: Scene) -> None:
    first = scene.first
    before = token(first)
    first.path(f"{SERVER}/token").unlink()
    first.configure(**settings(first, **{"cluster-init": True}))
    first.start()
    await_ready(first)
    assert token(first) == before
    until(lambda: ask(first.address, "/readyz", admin=first).body == "ok", said=said(first))
    until(lambda: ask(scene.second.address, "/readyz", admin=first).body == "ok", said=said(scene.second))


def test_a_new_label_is_there_after_a_restart(scene: Scene) -> None:
    first = scene.first
    before = (thing(first, "nodes/lab-c1") or {})["metadata"]["annotations"]["k3s.io/node-config-hash"]
    first.stop()
    label = {"node-label": ["funoffshore.io/k3s-config=0123456789abcdef"]}
    first.configure(**settings(first, token=SECRET, **{"cluster-init": True}, **label))
    first.start()
    await_ready(first)
    until(lambda: (thing(first, "nodes/lab-c1") or {})["metadata"]["labels"].get("funoffshore.io/k3s-config"))
    node = thing(first, "nodes/lab-c1") or {}
    assert node["metadata"]["annotations"]["k3s.io/node-config-hash"] != before


def test_a_deleted_server_loses_its_vote_and_ends(scene: Scene) -> None:
    second = scene.second
    assert password_secret(scene, "lab-c2") is not None
    delete_node(scene, "lab-c2")
    until(is_forgotten(scene, "lab-c2"), said=left(scene, "lab-c2"))
    assert await_end(second) == 0
    cause = cause_of(second)
    assert cause is not None
    assert cause.hopeless
    assert cause.says == "it was removed from the cluster while its old data is still on its disk"
    until(lambda: ask(scene.first.address, "/readyz", admin=scene.first).status == 200, said=said(scene.first))
    second.start()
    await_end(second)
    again = cause_of(second)
    assert again is not None, tail(second)
    assert again.says == cause.says


def test_with_its_data_gone_it_joins_again_at_once(scene: Scene) -> None:
    second = scene.second
    for path in (DATA, "/etc/rancher/node", KUBECONFIG):
        left_over = second.path(path)
        shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink(missing_ok=True)
    scene.join(second)
    await_ready(second)
    until(lambda: condition(scene.first, "lab-c2", "EtcdIsVoter").get("status") == "True", said=said(second))
    until(is_ready(scene, "lab-c2"), said=said(second))
