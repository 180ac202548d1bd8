"""Hosts that belonged to somebody else's cluster, tokens of another one, settings that do not fit: named, and never a
second cluster beside the first."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from k3s_homelab import Homelab
from k3s_trouble import (
    clusters,
    fails,
    members,
    only,
    ready_nodes,
    settle,
    short,
    somebody_elses,
    told,
    unharmed,
    untouched,
    with_k3s,
    without,
)
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.plan import Verb
from funoffshore.stages import k3s
from funoffshore.stages.k3s import facts, files, graph

THREE = {"lab-c1", "lab-c2", "lab-c3"}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Homelab]:
    """Three controllers and a worker, booted and without K3s."""
    lab = Homelab(tmp_path, 3, 1)
    lab.boot()
    yield lab
    lab.close()


@pytest.fixture
def founded(empty: Homelab) -> Homelab:
    """The first controller is up, with its kubeconfig."""
    empty.carry_out(without(empty.plan(), "k3s/lab-c2", "k3s/lab-c3", "k3s/lab-w1"))
    return empty


@pytest.mark.parametrize("running", [True, False])
def test_a_controller_of_another_cluster_stops_the_founding(empty: Homelab, tmp_path: Path, running: bool) -> None:
    """Somebody's data on the second controller: nothing is founded beside it, and it is not touched."""
    somebody_elses(empty, empty.config.node("lab-c2"), tmp_path / "other")
    if not running:
        empty.host("lab-c2").units.stop("k3s")
    with untouched(empty):
        plan = empty.plan()
        assert not [a for a in plan.actions.values() if a.reason == graph.FOUNDS]
        (problem,) = k3s.problems(empty.config, empty.facts())
        assert "lab-c2 is left alone: the cluster was founded with another token" in problem.message
        assert "another token" in told(fails(empty, plan))
    assert len(clusters(empty)) == 1


@pytest.mark.parametrize("token", ["another", "the same"])
@pytest.mark.parametrize("settings", ["its own", "none"])
def test_a_controller_of_another_cluster_does_not_come_in(
    founded: Homelab, tmp_path: Path, token: str, settings: str
) -> None:
    """Its token may be the same: the env file was copied. Its settings may be gone: somebody cleaned up by half."""
    secret = founded.config.k3s.token.get_secret_value() if token == "the same" else "f" * 32
    somebody_elses(founded, founded.config.node("lab-c2"), tmp_path / "other", secret)
    host = founded.host("lab-c2")
    host.units.stop("k3s")
    if settings == "none":
        host.path(files.CONFIG).unlink()
    assert len(clusters(founded)) == 2
    with untouched(founded):
        why = fails(founded, only(founded.plan(), "k3s/lab-c2"))
    assert "lab-c2" in told(why)
    assert "another token" in told(why) or "another cluster" in told(why)
    assert host.units.unit("k3s").active == "inactive"


def test_a_running_controller_of_another_cluster_with_the_same_token_is_no_member(
    founded: Homelab, tmp_path: Path
) -> None:
    somebody_elses(
        founded, founded.config.node("lab-c2"), tmp_path / "other", founded.config.k3s.token.get_secret_value()
    )
    with untouched(founded):
        why = fails(founded, only(founded.plan(), "k3s/lab-c2"))
    assert "another cluster" in told(why)


def test_a_worker_with_certificates_of_another_cluster_joins_without_them(founded: Homelab) -> None:
    """They would keep it out for ever; its unit and its settings are gone, its certificates are not."""
    host = founded.host("lab-w1")
    certificate = host.path("/var/lib/rancher/k3s/agent/client-kubelet.crt")
    certificate.parent.mkdir(parents=True)
    certificate.write_text("of another cluster\n")
    host.path(facts.AGENT).write_text("of another cluster\n")
    with unharmed(founded):
        founded.carry_out(only(founded.plan(), "k3s/lab-w1"))
    assert certificate.read_text() != "of another cluster\n"
    assert ready_nodes(founded) >= {"lab-w1"}


def test_a_token_file_of_another_cluster_lets_nobody_in(founded: Homelab) -> None:
    """The file on the first server's disk names another authority than that server's own; joiners believe nobody."""
    path = founded.host("lab-c1").path(facts.TOKEN)
    right = path.read_text()
    path.write_text(f"K10{'0' * 64}::server:{founded.config.k3s.token.get_secret_value()}\n")
    with unharmed(founded), short():
        for name in ("lab-c2", "lab-w1"):
            why = fails(founded, only(founded.plan(), f"k3s/{name}"))
            assert "authority" in told(why), told(why)
    path.write_text(right)
    settle(founded)
    assert list(members(founded).values()) == [THREE]


def test_a_token_file_with_another_secret_is_told(founded: Homelab) -> None:
    path = founded.host("lab-c1").path(facts.TOKEN)
    path.write_text(f"K10{'0' * 64}::server:{secrets.token_hex(16)}\n")
    with untouched(founded):
        assert "another token than the env file" in told(fails(founded, only(founded.plan(), "k3s/lab-c2")))


def test_a_wrong_token_of_a_worker_is_named(founded: Homelab) -> None:
    config = with_k3s(founded.config, agent_token=SecretStr("0" * 32))
    with unharmed(founded), short():
        why = fails(founded, only(founded.plan(config), "k3s/lab-w1"), config)
    assert isinstance(why, errors.TaskFailedError)
    assert "the server does not accept its token" in why.message
    settle(founded)


def test_a_node_password_of_another_machine_is_named(founded: Homelab) -> None:
    """The secret of a machine whose Node somebody deleted while its controller manager was down."""
    body = {
        "apiVersion": "v1", "kind": "Secret", "type": "k3s.cattle.io/node-password",
        "metadata": {"name": "lab-w1.node-password.k3s", "namespace": "kube-system"},
        "stringData": {"hash": "$1:0:0:0"},
    }  # fmt: skip
    founded.world.kube.apply([body], "test")
    with unharmed(founded), short():
        why = fails(founded, only(founded.plan(), "k3s/lab-w1"))
    assert "its name is taken: another machine joined under it" in told(why)
    founded.world.kube.delete("v1/Secret", "kube-system", "lab-w1.node-password.k3s")
    settle(founded)


@pytest.mark.parametrize("extra", [{"flannel-backend": "host-gw"}, {"disable-network-policy": "true"}])
def test_a_flag_that_differs_between_servers_is_named(founded: Homelab, extra: dict[str, str]) -> None:
    config = with_k3s(founded.config, extra_config=extra)
    with unharmed(founded), short():
        why = fails(founded, only(founded.plan(config), "k3s/lab-c2"), config)
    assert isinstance(why, errors.TaskFailedError)
    assert "a setting that all servers must share differs" in why.message
    assert any(next(iter(extra)) in line for line in why.evidence), why.evidence
    settle(founded)
    assert list(members(founded).values()) == [THREE]


def test_changed_cidrs_join_nobody(founded: Homelab) -> None:
    config = with_k3s(founded.config, cluster_cidr=founded.config.k3s.service_cidr.supernet(new_prefix=15))
    with untouched(founded):
        plan = founded.plan(config)
        assert plan.actions["k3s/lab-c1"].verb is Verb.WAIT
        problems = [problem.message for problem in k3s.problems(config, founded.facts(config))]
        assert any("cluster-cidr cannot be changed" in message for message in problems)


def test_the_evidence_is_json_that_a_report_can_show(founded: Homelab) -> None:
    """Whatever a journal holds goes into the run's journal as it is."""
    config = with_k3s(founded.config, agent_token=SecretStr("0" * 32))
    with short():
        why = fails(founded, only(founded.plan(config), "k3s/lab-w1"), config)
    assert json.loads(json.dumps(why.evidence)) == list(why.evidence)


def test_a_name_that_another_member_of_etcd_has_is_freed_first(founded: Homelab) -> None:
    """A rebuilt controller has the name of a member: the old one goes before it joins, or K3s would exit 0 over it."""
    settle(founded)
    node = founded.config.node("lab-c3")
    founded.machines.destroy(node.vmid)
    founded.boot(node)
    with unharmed(founded):
        plan = founded.converge()
    assert "still remembers an earlier machine" in plan.actions["k3s/lab-c3"].reason
    assert "duplicate node name" not in "\n".join(founded.host("lab-c3").journal_lines("k3s", 500))
