"""Getting into a cluster, or being refused, on the embedded lab's K3s and on the bench's stand-in with real servers:
exit codes, log lines, and what fo makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    place,
    read,
    settings,
    tail,
    token,
    until,
    write,
)

WRONG = "K10" + "0" * 64
FAILED = "Error: preparing server: failed to bootstrap cluster data: "
CHECKING = FAILED + "failed to check if bootstrap data has been initialized: failed to validate token: "


@dataclass
class Scene:
    """A first server without a kubelet, and machines that want in."""

    place: Place
    first: Machine
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(20, 100)))

    def machine(self, name: str = "lab-c2") -> Machine:
        return self.place.machine(name, next(self.numbers))

    def join(self, machine: Machine, role: str = "server", /, **more: object) -> None:
        """``machine`` wants into the cluster of the first one; ``more`` replaces or adds settings."""
        told: dict[str, object] = {"node-name": machine.name, "node-ip": machine.address}
        if role == "server":
            told = settings(machine, **{"disable-agent": True})
        told |= {"server": f"https://{self.first.address}:6443"}
        told |= {"token": token(self.first, "token" if role == "server" else "agent-token")}
        machine.configure(**{key: value for key, value in {**told, **more}.items() if value is not None})
        machine.start(role)


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with place(request.param, tmp_path_factory.mktemp(f"k3s-{request.param}")) as made:
        first = made.machine("lab-c1", 11)
        first.configure(**settings(first, token=SECRET, **{"cluster-init": True, "disable-agent": True}))
        first.start()
        await_ready(first)
        yield Scene(made, first)


def fatal(machine: Machine) -> str:
    """The message of the last line, which is the only fatal one."""
    lines = [line for line in machine.lines() if "level=fatal" in line]
    assert lines == machine.lines()[-1:], tail(machine)
    return lines[0].partition(" msg=")[2].strip('"').replace('\\"', '"')


ANOTHER = "the server it reached has another authority than its token names"
REFUSED = [
    pytest.param({"token": f"{WRONG}::server:{SECRET}"},
                 CHECKING + "token CA hash does not match the Cluster CA certificate hash: " + "0" * 64 + " != {hash}",
                 (ANOTHER, True), id="another authority"),
    pytest.param({"token": f"K10abc::server:{SECRET}"}, CHECKING + "invalid token CA hash length",
                 ("its token is malformed", True), id="short hash"),
    pytest.param({"token": "{known}::server:wrong", "agent-token": None}, FAILED + "not authorized",
                 ("the server does not accept its token", True), id="wrong password"),
    pytest.param({"token": "wrong"}, FAILED + "not authorized", ("the server does not accept its token", True),
                 id="wrong bare secret"),
    pytest.param({"server": "http://{first}:6443"},
                 CHECKING + "only https:// URLs are supported, invalid scheme: http://{first}:6443",
                 ("its config.yaml is not understood", True), id="http"),
    pytest.param({"cluster-cidr": "10.52.0.0/16"},
                 FAILED + "failed to validate server configuration: critical configuration value mismatch "
                 "between servers", ("a setting that all servers must share differs", True), id="cluster-cidr"),
    pytest.param({"secrets-encryption": True, "flannel-backend": "host-gw"},
                 FAILED + "failed to validate server configuration: critical configuration value mismatch "
                 "between servers", ("a setting that all servers must share differs", True), id="several settings"),
]  # fmt: skip
MENTIONED = {
    "cluster-cidr": ["ClusterIPRanges.slice[0].IP.slice[13]"],
    "several settings": ["secrets-encryption", "flannel-backend"],
}


@pytest.mark.parametrize(("wrong", "said", "cause"), REFUSED)
def test_a_server_that_may_not_join_exits_1(
    scene: Scene, request: pytest.FixtureRequest, wrong: dict[str, object], said: str, cause: tuple[str, bool]
) -> None:
    known = token(scene.first)[:67]
    names = {"first": scene.first.address, "known": known, "hash": known[3:]}
    machine = scene.machine()
    scene.join(machine, **{key: value.format(**names) if isinstance(value, str) else value
                           for key, value in wrong.items()})  # fmt: skip
    assert await_end(machine) == 1
    assert fatal(machine) == said.format(**names)
    found = cause_of(machine)
    assert found is not None
    assert (found.says, found.hopeless) == cause
    warned = [line for line in machine.lines() if "level=warning" in line]
    for setting in next((v for k, v in MENTIONED.items() if k in request.node.name), []):
        assert any(f"critical configuration mismatched: {setting}" in line for line in warned)
    skipped = any("Skipping cluster configuration validation: not authorized" in line for line in warned)
    assert skipped == ("agent-token" in wrong), "settings are compared as a node, with the agent token if there is one"
    assert any("the token does not include a CA hash" in line for line in warned) == (wrong.get("token") == "wrong")
    assert not machine.path(f"{SERVER}/db/etcd/member").exists()
    assert not machine.path(KUBECONFIG).exists()


def test_a_server_whose_first_server_is_down_exits_1_and_there_is_hope(scene: Scene) -> None:
    nobody, machine = scene.machine("lab-c9"), scene.machine()
    scene.join(machine, server=f"https://{nobody.address}:6443", **{"no-such-key": 1})
    assert await_end(machine) == 1
    address = f"{nobody.address}:6443"
    refused = (
        f'failed to get CA certs: Get "https://{address}/cacerts": dial tcp {address}: connect: connection refused'
    )
    assert fatal(machine) == CHECKING + refused
    assert 'level=warning msg="Unknown flag --no-such-key found in config.yaml, skipping"' in tail(machine)
    cause = cause_of(machine)
    assert cause is not None
    assert (cause.says, cause.hopeless) == ("the server it wants to join does not answer", False)


def test_a_member_s_name_is_taken_and_the_exit_is_0(scene: Scene) -> None:
    machine = scene.machine("lab-c1")
    scene.join(machine)
    assert await_end(machine) == 0
    why = "etcd cluster join failed: duplicate node name found, please use a unique name for this node"
    assert f'level=error msg="Shutdown request received: \\"{why}\\""' in machine.lines()[-1]
    assert machine.path(KUBECONFIG).is_file()
    cause = cause_of(machine)
    assert cause is not None
    assert (cause.says, cause.hopeless) == ("etcd already has a member of that name", True)


def test_a_server_without_a_token_founds_a_cluster_of_its_own(scene: Scene) -> None:
    """What fo must never let happen: it always writes a token. The real K3s does so on SQLite, the stand-in on etcd."""
    machine = scene.machine("lab-c3")
    scene.join(machine, token=None)
    await_ready(machine)
    assert token(machine)[:67] != token(scene.first)[:67]
    password = token(machine).rpartition(":")[2]
    assert re.fullmatch("[0-9a-f]{32}", password)
    assert "Encryption Status: Disabled, no configuration file found" in machine.run("secrets-encrypt", "status").out
    machine.stop()
    assert ask(machine.address, "/ping").status == 0


LOOPS = [
    pytest.param({"token": "{known}::node:wrong"}, "info",
                 "Waiting to retrieve agent configuration; server is not ready: failed to retrieve configuration "
                 "from server: not authorized", ("the server does not accept its token", True), id="wrong password"),
    pytest.param({"token": "{known}::server:" + SECRET}, "info",
                 "Waiting to retrieve agent configuration; server is not ready: failed to retrieve configuration "
                 "from server: not authorized", ("the server does not accept its token", True), id="server's token"),
    pytest.param({"token": f"{WRONG}::node:{AGENT_SECRET}"}, "error",
                 "Failed to validate connection to cluster at https://{first}:6443: token CA hash does not match the "
                 "Cluster CA certificate hash: " + "0" * 64 + " != {hash}", (ANOTHER, True), id="another authority"),
    pytest.param({"token": f"K10abc::node:{AGENT_SECRET}"}, "error",
                 "Failed to validate connection to cluster at https://{first}:6443: invalid token CA hash length",
                 ("its token is malformed", True), id="short hash"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "level", "said", "cause"), LOOPS)
def test_an_agent_that_is_refused_never_exits(
    scene: Scene, wrong: dict[str, str], level: str, said: str, cause: tuple[str, bool]
) -> None:
    known = token(scene.first)[:67]
    names = {"first": scene.first.address, "known": known, "hash": known[3:]}
    machine = scene.machine("lab-w1")
    scene.join(machine, "agent", **{key: value.format(**names) for key, value in wrong.items()})
    line = f'level={level} msg="{said.format(**names)}"'
    until(lambda: "\n".join(machine.lines()).count(line) >= (2 if level == "error" else 1), said=lambda: tail(machine))
    found = cause_of(machine)
    assert found is not None
    assert (found.says, found.hopeless) == cause
    assert machine.code() is None
    assert not machine.is_ready()
    machine.stop()
    assert not machine.path(SERVER).exists()
    assert not machine.path(f"{DATA}/agent/client-kubelet.crt").exists()
    assert not machine.path(KUBECONFIG).exists()


def test_an_agent_blames_its_own_balancer_when_no_server_answers(scene: Scene) -> None:
    nobody, machine = scene.machine("lab-c9"), scene.machine("lab-w1")
    scene.join(machine, "agent", server=f"https://{nobody.address}:6443")
    start = f"Failed to validate connection to cluster at https://{nobody.address}:6443: failed to get CA certs: "
    until(lambda: start in tail(machine), said=lambda: tail(machine))
    [line, *_] = [line for line in machine.lines() if start in line]
    assert 'Get \\"https://127.0.0.1:6444/cacerts\\": read tcp 127.0.0.1:' in line
    assert "connection reset by peer" in line
    cause = cause_of(machine)
    assert cause is not None
    assert (cause.says, cause.hopeless) == ("the server it wants to join does not answer", False)
    assert machine.code() is None
    machine.stop()


def test_a_token_file_is_as_good_as_a_token(scene: Scene) -> None:
    """Read from the host's disk; a file that is not there is a start-up error."""
    machine = scene.machine()
    there = "/etc/rancher/k3s/a-token"
    write(machine, there, f"{WRONG}::server:x\n")
    file = str(machine.path(there)) if scene.place.kind == "real" else there
    scene.join(machine, token=None, **{"token-file": file})
    assert await_end(machine) == 1
    assert "token CA hash does not match" in fatal(machine)
    scene.join(machine, token=None, **{"token-file": file + "-gone"})
    assert await_end(machine) == 1
    assert "no such file or directory" in fatal(machine)


def test_nothing_of_all_that_has_touched_the_first_server(scene: Scene) -> None:
    answer = ask(scene.first.address, "/v1-k3s/apiservers", user=f"node:{AGENT_SECRET}")
    assert json.loads(answer.body) == [f"{scene.first.address}:6443"]
    assert ask(scene.first.address, "/readyz", admin=scene.first).status == 200
    listed = ask(scene.first.address, "/api/v1/nodes", admin=scene.first)
    assert json.loads(listed.body)["items"] == []
    assert read(scene.first, f"{SERVER}/token").startswith("K10")
