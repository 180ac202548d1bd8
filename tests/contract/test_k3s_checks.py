"""What postcheck says of K3s on lab hosts: a healthy cluster, and one thing wrong at a time."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from k3s_findings import DAY, FAIL, PASS, SERVER, UNKNOWN, WARN, changed, findings, k3s_with, node_with, told
from k3s_homelab import VERSION, Homelab

from funoffshore import kubeconfig
from funoffshore.checks import k3s
from funoffshore.stages.k3s import hardening


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homelab]:
    """Three servers and an agent that are well. Whoever changes something puts it back."""
    made = Homelab(tmp_path_factory.mktemp("lab"), 3, 1)
    made.boot()
    made.converge()
    yield made
    made.close()


def test_a_healthy_cluster_is_told_so_in_one_round_trip_to_each_host(lab: Homelab) -> None:
    before = lab.world.hosts.round_trips
    found = findings(lab)
    assert lab.world.hosts.round_trips - before == len(lab.config.nodes)
    # K3s takes its first snapshot when its schedule says so, and nobody was told to copy any.
    young = {"FO-ETCD-003", "FO-ETCD-004"}
    assert {id_: f.said for id_, f in found.items() if f.outcome is not PASS and id_ not in young} == {}
    assert found["FO-K3S-001"].said == "all 4 do"
    assert found["FO-ETCD-002"].said == "3 members, none of them stale"


def test_a_host_that_cannot_be_looked_at_leaves_everything_about_it_open(lab: Homelab) -> None:
    ghost = replace(lab.config.node("lab-w1"), name="lab-w9", address=IPv4Address(int(lab.config.network.vip) + 90))
    found = findings(lab, replace(lab.config, nodes=(*lab.config.nodes, ghost)))
    dark = {id_ for id_, finding in found.items() if finding.outcome is UNKNOWN}
    assert {"FO-K3S-001", "FO-K3S-003", "FO-K3S-004", "FO-K3S-006", "FO-K3S-009"} <= dark
    assert all(any("lab-w9" in line for line in found[id_].evidence) for id_ in dark)


# Versions


def test_a_kubelet_of_another_version_is_told_with_the_way_to_upgrade(lab: Homelab) -> None:
    outcome, said = told(lab, "FO-NODE-003", k3s_with(lab, version="v1.36.5+k3s1"))
    assert outcome is FAIL
    assert f"lab-w1: {VERSION}" in said
    assert "fo k3s upgrade" in said


def test_a_binary_that_is_not_the_pinned_one(lab: Homelab) -> None:
    with changed(lab, "lab-w1", "/usr/local/bin/k3s", b"#!funoffshore-lab k3s v1.36.4+k3s1\nand something more\n"):
        outcome, said = told(lab, "FO-K3S-001")
    assert outcome is FAIL
    assert "lab-w1: SHA-256 " in said
    with changed(lab, "lab-c2", "/usr/local/bin/k3s", mode=0o777):
        assert told(lab, "FO-K3S-001")[0] is FAIL
    assert told(lab, "FO-K3S-001")[0] is PASS


def test_an_existing_machine_is_the_one_that_answers_at_its_address(lab: Homelab) -> None:
    config = node_with(lab, "lab-w1", made=False, identity=uuid.UUID(int=0))
    assert told(lab, "FO-NODE-004", config)[0] is PASS
    with changed(lab, "lab-w1", "/sys/class/dmi/id/product_uuid", b"11111111-2222-3333-4444-555555555555\n"):
        outcome, said = told(lab, "FO-NODE-004", config)
    assert outcome is FAIL
    assert f"lab-w1: {lab.config.node('lab-w1').identity} instead of 11111111" in said


# Secrets


def test_secrets_that_are_not_encrypted(lab: Homelab) -> None:
    with changed(lab, "lab-c2", f"{SERVER}/cred/encryption-config.json"):
        outcome, said = told(lab, "FO-K3S-002")
    assert outcome is FAIL
    assert "lab-c2: Disabled, no configuration file found" in said
    assert "FO-K3S-002" not in findings(lab, k3s_with(lab, secrets_encryption=False))


def test_a_server_that_does_not_answer_for_its_encryption(lab: Homelab) -> None:
    with changed(lab, "lab-c3", f"{SERVER}/token"):
        outcome, said = told(lab, "FO-K3S-002")
    assert outcome is UNKNOWN
    assert "lab-c3" in said


# Certificates


def test_certificates_that_come_to_their_end(lab: Homelab) -> None:
    assert told(lab, "FO-K3S-003", later=270 * DAY)[0] is PASS
    outcome, said = told(lab, "FO-K3S-003", later=300 * DAY)
    assert outcome is WARN
    assert "client-admin.crt ends in 6" in said
    outcome, said = told(lab, "FO-K3S-003", later=360 * DAY)
    assert outcome is FAIL
    outcome, said = told(lab, "FO-K3S-003", later=400 * DAY)
    assert outcome is FAIL
    assert "has ended" in said


# Files


@pytest.mark.parametrize(
    ("host", "path", "mode"),
    [
        ("lab-c1", "/etc/rancher/k3s/config.yaml", 0o644),
        ("lab-c2", "/etc/rancher/k3s/k3s.yaml", 0o644),
        ("lab-w1", "/etc/rancher/k3s/config.yaml", 0o640),
        ("lab-w1", "/etc/rancher/node/password", 0o604),
        ("lab-c1", f"{SERVER}/token", 0o644),
        ("lab-c3", f"{SERVER}/tls/server-ca.key", 0o640),
        ("lab-c1", f"{SERVER}/cred/passwd", 0o660),
        ("lab-c1", f"{SERVER}/db/etcd", 0o755),
        ("lab-w1", "/var/lib/rancher/k3s/agent/kubelet.kubeconfig", 0o644),
    ],
)
def test_a_file_that_is_open_to_others(lab: Homelab, host: str, path: str, mode: int) -> None:
    with changed(lab, host, path, mode=mode):
        outcome, said = told(lab, "FO-K3S-004")
    assert outcome is FAIL
    assert f"{host}: {path} has mode {mode:04o}" in said


# Flags


@contextlib.contextmanager
def arguments(lab: Homelab, name: str, change: Callable[[list[str]], list[str]]) -> Iterator[None]:
    """The Node tells that its K3s was started otherwise."""
    node = next(n for n in lab.world.kube.list("v1/Node").value if n["metadata"]["name"] == name)  # type: ignore[union-attr]
    before = node["metadata"]["annotations"][k3s.ARGUMENTS]

    def tell(words: str) -> None:
        lab.world.kube.patch("v1/Node", "", name, {"metadata": {"annotations": {k3s.ARGUMENTS: words}}})

    tell(json.dumps(change(json.loads(before))))
    try:
        yield
    finally:
        tell(before)


def test_servers_that_differ_in_a_critical_flag(lab: Homelab) -> None:
    with arguments(lab, "lab-c2", lambda words: [*words, "--flannel-backend", "host-gw"]):
        outcome, said = told(lab, "FO-K3S-005")
    assert outcome is FAIL
    assert "flannel-backend: unset on lab-c1, host-gw on lab-c2" in said
    cidr = str(lab.config.k3s.cluster_cidr)
    with arguments(lab, "lab-c3", lambda words: ["10.52.0.0/16" if word == cidr else word for word in words]):
        outcome, said = told(lab, "FO-K3S-005")
    assert outcome is FAIL
    assert f"lab-c3: cluster-cidr is 10.52.0.0/16, not {cidr}" in said


def test_servers_that_differ_in_another_flag(lab: Homelab) -> None:
    with arguments(lab, "lab-c2", lambda words: [*words, "--kubelet-arg", "max-pods=99"]):
        outcome, said = told(lab, "FO-K3S-005")
    assert outcome is WARN
    assert "kubelet-arg differs between lab-c1 and lab-c2" in said


def test_a_server_that_does_not_tell_its_flags(lab: Homelab) -> None:
    with arguments(lab, "lab-c1", lambda words: []):
        assert told(lab, "FO-K3S-005")[0] is UNKNOWN


def test_no_secret_is_told(lab: Homelab) -> None:
    with arguments(lab, "lab-c2", lambda words: [*words, "--token", "tell-nobody", "--etcd-s3-secret-key", "nor-this"]):
        whole = str(findings(lab))
    secrets = (lab.config.k3s.token, lab.config.k3s.agent_token)
    assert not any(word in whole for word in ("tell-nobody", "nor-this", *(s.get_secret_value() for s in secrets)))


# Hardening


def test_a_kernel_that_somebody_changed(lab: Homelab) -> None:
    with changed(lab, "lab-w1", "/proc/sys/vm/overcommit_memory", b"0\n"):
        outcome, said = told(lab, "FO-K3S-006")
    assert outcome is FAIL
    assert "lab-w1: vm.overcommit_memory is 0, not 1" in said
    with changed(lab, "lab-w1", "/proc/sys/kernel/panic", b""):
        assert told(lab, "FO-K3S-006")[0] is UNKNOWN
    assert "FO-K3S-006" not in findings(lab, k3s_with(lab, protect_kernel=False))


def test_a_cis_profile_that_is_not_in_force(lab: Homelab) -> None:
    assert "FO-K3S-007" not in findings(lab)
    outcome, said = told(lab, "FO-K3S-007", k3s_with(lab, cis=True))
    assert outcome is FAIL
    assert "lab-c1: kube-apiserver-arg lacks audit-log-maxage=30" in said
    assert f"lab-c2: {hardening.POD_SECURITY} is not there" in said
    assert "lab-w1: kubelet-arg lacks streaming-connection-idle-timeout=5m" in said


def test_a_cis_profile_in_force(tmp_path: Path) -> None:
    hard = Homelab(tmp_path, 1, 1)
    hard.boot()
    config = k3s_with(hard, cis=True)
    try:
        hard.converge(config)
        found = findings(hard, config)
        assert (found["FO-K3S-007"].outcome, found["FO-K3S-007"].evidence) == (PASS, ())
        assert found["FO-K3S-004"].outcome is PASS
        with changed(hard, "lab-c1", hardening.AUDIT_POLICY):
            assert told(hard, "FO-K3S-007", config)[0] is FAIL
    finally:
        hard.close()


def test_labels_and_taints_that_a_node_lacks(lab: Homelab) -> None:
    config = node_with(lab, "lab-w1", labels=(("zone", "cellar"),), taints=("gpu=true:NoSchedule", "slow:NoExecute"))
    outcome, said = told(lab, "FO-K3S-008", config)
    assert outcome is FAIL
    for line in ("the label zone=cellar", "the taint gpu=true:NoSchedule", "the taint slow:NoExecute"):
        assert f"lab-w1: lacks {line}" in said
    taints = [{"key": "gpu", "value": "true", "effect": "NoSchedule"}, {"key": "slow", "effect": "NoExecute"}]
    lab.world.kube.patch(
        "v1/Node", "", "lab-w1", {"metadata": {"labels": {"zone": "cellar"}}, "spec": {"taints": taints}}
    )
    try:
        assert told(lab, "FO-K3S-008", config)[0] is PASS
    finally:
        lab.world.kube.patch(
            "v1/Node", "", "lab-w1", {"metadata": {"labels": {"zone": None}}, "spec": {"taints": None}}
        )


# Authority


def test_an_api_of_another_authority(lab: Homelab, tmp_path: Path) -> None:
    path = "/var/lib/rancher/k3s/agent/server-ca.crt"
    other_text = lab.host("lab-w1").files.read(path).encode() + b"\n"
    with changed(lab, "lab-w1", path, other_text):
        outcome, said = told(lab, "FO-K3S-009")
    assert outcome is FAIL
    assert "lab-w1: its K3s is of another authority" in said
    other = replace(lab.config, lab=replace(lab.config.lab, directory=tmp_path))  # type: ignore[type-var]
    (tmp_path / "routes.json").write_text("{}")
    text = lab.host("lab-c1").files.read("/etc/rancher/k3s/k3s.yaml")
    document = text.replace("certificate-authority-data: ", "certificate-authority-data: QUJD", 1)
    kubeconfig.write(other.kubeconfig, kubeconfig.rewritten(document, name="lab", server="https://127.0.0.1:6443"))
    outcome, said = told(lab, "FO-K3S-009", other)
    assert outcome is FAIL
    assert f"{lab.config.api} serves " in said
    other.kubeconfig.unlink()
    assert told(lab, "FO-K3S-009", other)[0] is FAIL
