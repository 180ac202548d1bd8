"""What a node gets to read: settings that servers share by construction, and what stands beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from test_k3s_plan import config, desired, entry, file, host, node_fact, planned

from funoffshore.config import ClusterConfig
from funoffshore.config.model import S3, Role, Snapshots
from funoffshore.lab.k3s import flags
from funoffshore.plan import Verb
from funoffshore.reading import Present
from funoffshore.stages.k3s import classes, copies, differences, facts, files, graph, hardening, look, registries

FIRST, WORKER = config().controllers[0], config().workers[0]


def changed(**k3s: Any) -> ClusterConfig:
    return replace(config(), k3s=replace(config().k3s, **k3s))


def test_every_key_is_one_that_k3s_knows_in_its_role() -> None:
    whole = changed(
        cis=True, audit=True, embedded_registry=True, cluster_cidr_v6=IPv6Network("fd42::/56"),
        service_cidr_v6=IPv6Network("fd43::/112"), mirrors=(("docker.io", "https://mirror.lan"),),
        snapshots=Snapshots(s3=S3("s3.lan:9000", "eu", "etcd", "home", SecretStr("key"), SecretStr("secret"))),
    )  # fmt: skip
    for node in config().nodes:
        own = replace(node, labels=(("disk", "fast"),), taints=("gpu=true:NoSchedule",))
        role = "server" if node.role is Role.CONTROLLER else "agent"
        assert set(files.settings(whole, own)) <= set(flags.KINDS[role])


def test_servers_differ_in_name_and_addresses_only() -> None:
    whole = changed(cis=True, embedded_registry=True)
    own = {"node-name", "node-ip", "node-label", "node-taint"}
    tables = [files.settings(whole, node) for node in whole.controllers]
    shared = [{key: value for key, value in table.items() if key not in own} for table in tables]
    assert shared[0] == shared[1] == shared[2]


def test_dual_stack() -> None:
    whole = changed(cluster_cidr_v6=IPv6Network("fd42::/56"), service_cidr_v6=IPv6Network("fd43::/112"))
    table = files.settings(whole, replace(FIRST, address_v6=IPv6Address("fd00::11")))
    assert table["cluster-cidr"] == f"{config().k3s.cluster_cidr},fd42::/56"
    assert table["service-cidr"] == f"{config().k3s.service_cidr},fd43::/112"
    assert table["node-ip"] == f"{FIRST.address},fd00::11"
    assert table["flannel-ipv6-masq"] is True
    assert "flannel-ipv6-masq" not in files.settings(config(), FIRST)


def test_arguments_of_the_operator_come_behind_those_of_the_profile() -> None:
    whole = changed(cis=True, extra_config={"kubelet-arg": "max-pods=150", "v": "2"})
    for node in (FIRST, WORKER):
        told = files.settings(whole, node)["kubelet-arg"]
        assert told[0] == "streaming-connection-idle-timeout=5m"
        assert told[-1] == "max-pods=150"
    assert "v" not in files.settings(whole, WORKER)
    assert files.settings(changed(extra_config={"kubelet-arg": "a=b"}), FIRST)["kubelet-arg"] == "a=b"


def test_the_profile_brings_its_files_and_only_servers_get_those_of_the_api() -> None:
    paths = {one.path: one for one in files.beside(changed(cis=True), FIRST)}
    assert {hardening.SYSCTL, hardening.AUDIT_POLICY, hardening.POD_SECURITY, files.MANIFEST} <= set(paths)
    assert {one.path for one in files.beside(changed(cis=True), WORKER)} == {files.unit_path(WORKER), hardening.SYSCTL}
    arguments = files.settings(changed(cis=True), FIRST)["kube-apiserver-arg"]
    assert f"audit-policy-file={hardening.AUDIT_POLICY}" in arguments
    assert f"admission-control-config-file={hardening.POD_SECURITY}" in arguments
    assert "kube-apiserver-arg" not in files.settings(config(), FIRST)
    audited = {one.path for one in files.beside(changed(audit=True), FIRST)}
    assert hardening.AUDIT_POLICY in audited
    assert hardening.POD_SECURITY not in audited


def test_the_audit_log_never_holds_the_body_of_a_secret() -> None:
    policy = yaml.safe_load(hardening.audit_policy())
    (rule,) = [r for r in policy["rules"] if any("secrets" in g["resources"] for g in r.get("resources", []))]
    assert rule["level"] == "Metadata"
    bodies = [i for i, r in enumerate(policy["rules"]) if r["level"] in ("Request", "RequestResponse")]
    assert policy["rules"].index(rule) < min(bodies)


def test_mirrors_and_the_embedded_registry() -> None:
    assert registries.wanted(config()) == ""
    mirrors = (("docker.io", "https://a.lan"), ("docker.io", "https://b.lan"), ("ghcr.io", "https://a.lan"))
    table = yaml.safe_load(registries.wanted(changed(mirrors=mirrors, embedded_registry=True)))["mirrors"]
    assert table["docker.io"]["endpoint"] == ["https://a.lan", "https://b.lan"]
    assert set(table) == {"docker.io", "ghcr.io", "*"}
    (one,) = [f for f in files.beside(changed(mirrors=mirrors), WORKER) if f.path == registries.PATH]
    assert (one.mode, one.restart) == (0o600, True)


def test_secrets_of_object_storage_are_in_no_fingerprint() -> None:
    def told(secret: str, bucket: str = "etcd") -> str:
        s3 = S3("s3.lan", "", bucket, "", SecretStr("key"), SecretStr(secret))
        return files.fingerprint(changed(snapshots=Snapshots(s3=s3)), FIRST)

    assert told("one") == told("two") != told("one", "other")
    table = files.settings(changed(snapshots=Snapshots(s3=S3("h", "", "b", "", SecretStr("k"), SecretStr("s")))), FIRST)
    assert "etcd-s3-folder" not in table
    assert table["etcd-s3"] is True


def test_snapshots_are_copied_to_nfs_by_a_timer_that_k3s_never_waits_for() -> None:
    whole = changed(snapshots=Snapshots(nfs="nas.lan:/export/k3s", keep=5))
    units = copies.units(whole)
    assert set(units) == {f"/etc/systemd/system/{name}" for name in (copies.MOUNT_UNIT, copies.SERVICE, copies.TIMER)}
    assert "What=nas.lan:/export/k3s\n" in units[f"/etc/systemd/system/{copies.MOUNT_UNIT}"]
    assert "soft" in units[f"/etc/systemd/system/{copies.MOUNT_UNIT}"]
    assert "etcd-snapshot-dir" not in files.settings(whole, FIRST)
    assert files.fingerprint(whole, FIRST) == files.fingerprint(changed(snapshots=Snapshots(keep=5)), FIRST)
    assert not [one for one in files.beside(whole, WORKER) if one.path.endswith((".timer", ".mount"))]


def test_without_a_virtual_address_there_is_no_kube_vip() -> None:
    alone = replace(config(), nodes=(FIRST,), network=replace(config().network, vip=FIRST.address))
    assert not alone.virtual
    assert files.MANIFEST not in {one.path for one in files.beside(alone, FIRST)}
    assert files.settings(alone, FIRST)["tls-san"] == [str(FIRST.address)]


LABELLED = replace(WORKER, labels=(("disk", "fast"),), taints=("gpu=true:NoSchedule", "night:NoExecute"))


def labelled() -> ClusterConfig:
    return replace(config(), nodes=(*config().controllers, LABELLED, config().workers[1]))


def test_labels_and_taints_come_into_force_without_a_restart() -> None:
    (action,) = graph.plan(labelled(), desired())
    assert (action.key, action.verb, action.lane) == ("k3s/lab-w1", Verb.CHANGE, "agents")
    assert "its labels differ; its taints differ" in action.reason
    need = graph.need_of(labelled(), desired(), LABELLED)
    assert need is not None
    assert need.kind is graph.Kind.LIVE


def test_labels_of_others_stay_and_those_that_left_the_env_file_go() -> None:
    def differs(**seen: Any) -> set[str]:
        found = desired(nodes=Present({n.name: node_fact(n, **(seen if n is WORKER else {})) for n in config().nodes}))
        reading = found.host(WORKER.name)
        assert isinstance(reading, Present)
        return {one.sentence for one in differences.of(config(), found, WORKER, reading.value)}

    assert differs(labels={"beta.kubernetes.io/os": "linux"}, taints=("node.kubernetes.io/x:NoSchedule",)) == set()
    assert differs(own_labels=frozenset({"disk"})) == {"its labels differ"}
    assert differs(own_taints=frozenset({"gpu=true:NoSchedule"})) == {"its taints differ"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [("node-label", "live"), ("node-taint", "live"), ("disable", "restart"), ("tls-san", "restart"),
     ("cluster-cidr", "immutable"), ("secrets-encryption", "immutable"), ("anything", "restart")],
)  # fmt: skip
def test_each_key_has_its_class(key: str, expected: str) -> None:
    assert classes.class_of(key) == expected


def annotation(settings: dict[str, Any]) -> str:
    words = ["server"]
    for key, values in classes.arguments(settings).items():
        for value in values:
            words += [f"--{key}", "********" if key in classes.SECRETS else value]
    return json.dumps(words)


def test_what_k3s_was_started_with_is_compared_with_what_fo_wrote() -> None:
    wanted = files.settings(config(), FIRST)
    node = {"metadata": {"name": "x", "annotations": {"k3s.io/node-args": annotation(wanted)}}}
    assert classes.differing(wanted, look.node_fact(node).arguments) == []
    other = annotation({**wanted, "disable": [], "flannel-backend": "host-gw"})
    seen = look.node_fact({"metadata": {"name": "x", "annotations": {"k3s.io/node-args": other}}}).arguments
    assert classes.differing(wanted, seen) == ["disable", "flannel-backend"]


def test_a_drop_in_of_somebody_else_is_named_and_never_restarted_against() -> None:
    other = look.node_fact(
        {"metadata": {"name": "x", "annotations": {
            "k3s.io/node-args": annotation({**files.settings(config(), FIRST), "flannel-backend": "host-gw"})}}}
    ).arguments  # fmt: skip
    nodes = {n.name: node_fact(n, **({"arguments": other} if n is FIRST else {})) for n in config().nodes}
    seen = desired(nodes=Present(nodes))
    (problem,) = graph.problems(config(), seen)
    assert "other values of flannel-backend than fo wrote" in problem.message
    assert planned(seen)["k3s/lab-c1"].verb is Verb.WAIT


@given(st.text(max_size=200))
def test_an_annotation_may_hold_anything(text: str) -> None:
    node = {"metadata": {"name": "x", "annotations": {"k3s.io/node-args": text}}}
    assert isinstance(look.node_fact(node).arguments, dict)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
                    max_leaves=20))  # fmt: skip
def test_an_annotation_may_hold_any_json(value: Any) -> None:
    node = {"metadata": {"name": "x", "annotations": {"k3s.io/node-args": json.dumps(value)}}}
    assert isinstance(look.node_fact(node).arguments, dict)


def test_a_file_beside_that_k3s_reads_at_any_time_restarts_nothing() -> None:
    first = host(FIRST, files={files.MANIFEST: file("old", 0o600, "0" * 64)})
    seen = desired(hosts={**desired().hosts, FIRST.name: Present(first)})
    need = graph.need_of(config(), seen, FIRST)
    assert need is not None
    assert need.kind is graph.Kind.LIVE
    policy = changed(audit=True)
    restart = graph.need_of(policy, desired(), FIRST)
    assert restart is not None
    assert restart.kind is graph.Kind.RESTART


def test_the_look_asks_for_every_file_that_is_compared() -> None:
    whole = changed(cis=True, snapshots=Snapshots(nfs="nas:/x"), mirrors=(("docker.io", "https://m.lan"),))
    asked = {one.path for one in look.look_of(whole).files}
    assert {one.path for node in whole.nodes for one in files.beside(whole, node)} <= asked
    assert facts.TOKEN in asked


def test_config_yaml_keeps_fo_s_label_beside_the_operators() -> None:
    table = yaml.safe_load(files.config_yaml(labelled(), LABELLED, entry(LABELLED, founder=False)))
    assert table["node-label"][0] == "disk=fast"
    assert table["node-label"][1].startswith("funoffshore.io/k3s-config=")
    assert table["node-taint"] == ["gpu=true:NoSchedule", "night:NoExecute"]


def test_an_airgap_folder_brings_only_what_its_release_names(tmp_path: Path) -> None:
    from funoffshore import errors
    from funoffshore.stages.k3s import sources

    (tmp_path / "k3s-airgap-images-amd64.tar.zst").write_bytes(b"images")
    with pytest.raises(errors.ConfigError, match="does not name it"):
        sources.images(tmp_path, "amd64")
    (tmp_path / "sha256sum-amd64.txt").write_text("ab" * 32 + "  k3s-airgap-images-amd64.tar.zst\nx\n")
    assert [digest for _, digest in sources.images(tmp_path, "amd64")] == ["ab" * 32]
    assert sources.images(tmp_path, "arm64") == []
