"""The K3s stage through its real doors, SSH and the Kubernetes API, on lab hosts."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from k3s_homelab import Homelab
from pydantic import SecretStr
from ssh_machines import until

from funoffshore import errors, kubeconfig
from funoffshore.plan import Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages import k3s
from funoffshore.stages.k3s import files, graph


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Homelab]:
    """One controller, one worker, both booted."""
    lab = Homelab(tmp_path, 1, 1)
    lab.boot()
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homelab]:
    """The same for tests that only look."""
    lab = Homelab(tmp_path_factory.mktemp("lab"), 3, 1)
    lab.boot()
    lab.converge()
    yield lab
    lab.close()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Homelab]:
    """Three controllers and a worker with K3s on them."""
    lab = Homelab(tmp_path, 3, 1)
    lab.boot()
    lab.converge()
    yield lab
    lab.close()


def ready_nodes(lab: Homelab) -> set[str]:
    nodes = lab.facts().nodes
    assert isinstance(nodes, Present)
    return {name for name, node in nodes.value.items() if node.ready}


def test_from_empty_hosts_to_a_cluster_and_then_nothing(ready: Homelab) -> None:
    assert ready_nodes(ready) == {"lab-c1", "lab-c2", "lab-c3", "lab-w1"}
    kept = kubeconfig.read(ready.config.kubeconfig)
    assert isinstance(kept, Present)
    assert (kept.value.name, kept.value.server) == ("lab", f"https://{ready.config.network.vip}:6443")
    assert stat.S_IMODE(ready.config.kubeconfig.stat().st_mode) == 0o600
    assert isinstance(ready.world.kube.readyz(), Present)
    before = ready.kit.ledger.count()
    assert not ready.plan()
    assert ready.kit.ledger.count() == before


def test_joiners_name_the_authority_they_expect(ready: Homelab) -> None:
    kept = kubeconfig.read(ready.config.kubeconfig)
    assert isinstance(kept, Present)
    second = ready.host("lab-c2").path(files.CONFIG).read_text()
    assert f"token: K10{kept.value.ca_hash}::server:" in second
    assert f"K10{kept.value.ca_hash}::node:" in ready.host("lab-w1").path(files.CONFIG).read_text()
    first = ready.host("lab-c1").path(files.CONFIG)
    assert "cluster-init" not in first.read_text()  # with an empty disk it would begin a second cluster
    assert f"token: K10{kept.value.ca_hash}::server:" in first.read_text()
    assert stat.S_IMODE(first.stat().st_mode) == 0o600


def test_no_secret_is_said(ready: Homelab) -> None:
    told = "\n".join(ready.voice.sentences)
    assert ready.config.k3s.token.get_secret_value() not in told
    assert "K10" not in told
    assert any("waiting for lab-c1" in sentence for sentence in ready.voice.sentences)


def test_a_changed_setting_rolls_through_one_server_at_a_time(three: Homelab) -> None:
    config = replace(three.config, k3s=replace(three.config.k3s, extra_config={"kubelet-arg": "max-pods=150"}))
    plan = three.converge(config)
    assert {action.verb for action in plan.actions.values()} == {Verb.CHANGE}
    assert "k3s/lab-c2" in plan.actions["k3s/lab-c3"].after
    assert three.host("lab-c3").units.unit("k3s").active == "active"


def test_a_stopped_unit_is_started_and_a_lost_quorum_comes_back(three: Homelab) -> None:
    for name in ("lab-c1", "lab-c2"):
        three.host(name).units.stop("k3s")
    plan = three.converge()
    assert {"k3s/lab-c1", "k3s/lab-c2"} <= set(plan.actions)
    assert ready_nodes(three) == {"lab-c1", "lab-c2", "lab-c3", "lab-w1"}


@pytest.mark.parametrize("name", ["lab-c1", "lab-w1"])
def test_a_rebuilt_machine_joins_under_its_old_name(three: Homelab, name: str) -> None:
    node = three.config.node(name)
    before = kubeconfig.read(three.config.kubeconfig)
    three.machines.destroy(node.vmid)
    three.boot(node)
    until(lambda: name not in ready_nodes(three))
    plan = three.converge()
    assert plan.actions[f"k3s/{name}"].verb is Verb.CREATE
    assert "still remembers" in plan.actions[f"k3s/{name}"].reason
    assert ready_nodes(three) == {"lab-c1", "lab-c2", "lab-c3", "lab-w1"}
    assert kubeconfig.read(three.config.kubeconfig) == before


def test_a_worker_that_the_cluster_forgot_joins_again(pair: Homelab) -> None:
    pair.converge()
    pair.world.kube.delete("v1/Node", "", "lab-w1")
    until(lambda: "lab-w1" not in ready_nodes(pair))
    assert "joins again" in pair.converge().actions["k3s/lab-w1"].reason


def test_an_unreadable_controller_is_never_overtaken(tmp_path: Path) -> None:
    lab = Homelab(tmp_path, 3)
    lab.boot(lab.config.node("lab-c1"), lab.config.node("lab-c2"))
    try:
        plan = lab.plan()
        assert all(plan.actions[f"k3s/lab-c{n}"].verb is Verb.WAIT for n in (1, 2, 3))
        assert all(action.reason != graph.FOUNDS for action in plan.actions.values())
        lab.boot(lab.config.node("lab-c3"))
        lab.carry_out(plan)
        assert ready_nodes(lab) == {"lab-c1", "lab-c2", "lab-c3"}
        assert not lab.plan()
    finally:
        lab.close()


def test_a_founder_finds_a_cluster_at_the_last_moment(three: Homelab) -> None:
    first = three.config.node("lab-c1")
    nowhere = k3s.K3sFacts({node.name: Absent() for node in three.config.nodes})
    action = k3s.plan(three.config, nowhere)[0]
    assert action.reason == graph.FOUNDS
    three.machines.destroy(first.vmid)
    three.boot(first)
    with pytest.raises(errors.PreflightError, match="must not found another"):
        k3s.apply(three.world, three.config, action, three.voice)


def test_another_token_in_the_env_file_is_refused_and_changes_nothing(pair: Homelab) -> None:
    pair.converge()
    before = pair.kit.ledger.count()
    config = replace(pair.config, k3s=replace(pair.config.k3s, token=SecretStr("another-secret")))
    plan = pair.plan(config)
    assert plan.actions["k3s/lab-c1"].verb is Verb.WAIT
    with pytest.raises(errors.PreflightError) as caught:
        pair.carry_out(plan, config)
    assert "another token" in caught.value.message
    assert "another-secret" not in str(caught.value)
    assert pair.kit.ledger.count() == before


def test_a_node_that_cannot_join_says_why(pair: Homelab) -> None:
    pair.kit.faults.on("node-no-join", node="lab-w1")
    plan = pair.plan()
    pair.carry_out(replace(plan, actions={k: a for k, a in plan.actions.items() if k != "k3s/lab-w1"}))
    short = pytest.MonkeyPatch()
    short.setattr("funoffshore.stages.k3s.ladder.DEADLINE", 15.0)
    try:
        with pytest.raises(errors.DeadlineError) as caught:
            pair.carry_out(pair.plan())
    finally:
        short.undo()
    assert "lab-w1: its Node to be Ready" in caught.value.message
    assert caught.value.evidence[0] == "cause: no packet comes back from the server"
    assert any("i/o timeout" in line for line in caught.value.evidence)
    pair.kit.faults.off("node-no-join")
    pair.host("lab-w1").units.stop("k3s-agent")
    pair.converge()


def test_a_hopeless_cause_ends_the_wait_at_once(pair: Homelab) -> None:
    broken = replace(pair.config, k3s=replace(pair.config.k3s, extra_config={"disable-agent": "maybe"}))
    with pytest.raises(errors.TaskFailedError) as caught:
        pair.carry_out(pair.plan(broken), broken)
    assert "not understood" in caught.value.message
    assert any("invalid boolean value" in line for line in caught.value.evidence)
    assert "K3S_EXTRA_CONFIG" in caught.value.fix
    pair.converge()


def test_a_binary_that_is_not_the_pinned_one_is_not_run(pair: Homelab) -> None:
    config = replace(pair.config, k3s=replace(pair.config.k3s, sha256="0" * 64))
    with pytest.raises(errors.DigestError):
        pair.carry_out(pair.plan(config), config)
    assert pair.host("lab-c1").units.unit("k3s").active == "inactive"


def test_a_foreign_machine_on_our_address_is_left_alone(pair: Homelab) -> None:
    other = tuple(replace(node, identity=pair.config.nodes[1].identity) for node in pair.config.nodes)
    config = replace(pair.config, nodes=other)
    with pytest.raises(errors.ForeignError):
        pair.carry_out(pair.plan(config), config)


def test_a_killed_lab_comes_back_with_nothing_to_do(tmp_path: Path) -> None:
    lab = Homelab(tmp_path, 1, 1)
    lab.boot()
    lab.converge()
    lab.close()
    again = Homelab(tmp_path, config=lab.config)
    again.boot()
    try:
        until(lambda: not isinstance(again.facts().nodes, Unreadable))
        until(lambda: not again.plan())
        assert ready_nodes(again) == {"lab-c1", "lab-w1"}
    finally:
        again.close()
