"""The whole road on the bench: real machines, Kubernetes and Flux behind Proxmox. The cases follow one another."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from real_home import RealOperator, eventually, proxmox, task_ended

pytestmark = pytest.mark.real
MINUTES = 60
DATA_DISK = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_fo-data"


def ready(operator: RealOperator) -> set[str]:
    """Names of the nodes that are Ready."""
    return {
        node["metadata"]["name"]
        for node in operator.get("nodes")["items"]
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
    }


def versions(operator: RealOperator) -> dict[str, Any]:
    """resourceVersion or generation of all that fo writes: what a rerun must leave alone."""
    found: dict[str, Any] = {}
    for kind in ("configmap/cluster-settings", "secret/sops-age"):
        found[kind] = operator.get("-n", "flux-system", kind)["metadata"]["resourceVersion"]
    for kind in ("deployments", "gitrepositories", "kustomizations"):
        for item in operator.get("-n", "flux-system", kind)["items"]:
            found[f"{kind}/{item['metadata']['name']}"] = item["metadata"]["generation"]
    for node in operator.get("nodes")["items"]:
        found[f"node/{node['metadata']['name']}"] = node["metadata"]["annotations"]["k3s.io/node-config-hash"]
    return found


def test_from_nothing_to_a_proven_stage_1(operator: RealOperator) -> None:
    ended = operator.fo("bootstrap", timeout=30 * MINUTES)
    assert ended.code == 0, ended.err[-6000:]
    assert ready(operator) == {"bench-c1", "bench-c2", "bench-c3", "bench-w1", "bench-w2"}
    seen = operator.status()
    assert seen["stage_1_complete"] is True
    assert seen["statement"]["commit"] == operator.git("rev-parse", "HEAD")


def test_the_servers_are_three_voters_of_one_etcd(operator: RealOperator) -> None:
    servers = operator.get("nodes", "-l", "node-role.kubernetes.io/etcd=true")["items"]
    votes = [c for node in servers for c in node["status"]["conditions"] if c["type"] == "EtcdIsVoter"]
    assert [c["status"] for c in votes] == ["True"] * 3
    for number in (11, 12, 13):
        told = operator.ssh(f"10.77.0.{number}", "sudo ls -A /var/lib/rancher/k3s/server/db/etcd/member")
        assert told.out.split() == ["snap", "wal"], told.err


def test_a_second_run_writes_nothing_anywhere(operator: RealOperator) -> None:
    writes, before = operator.proxmox_writes(), versions(operator)
    again = operator.fo("bootstrap", timeout=10 * MINUTES)
    assert again.code == 0, again.err[-4000:]
    assert "nothing to do" in again.err
    assert operator.proxmox_writes() == writes
    assert versions(operator) == before
    assert operator.fo("plan", "--json").json == {"actions": [], "held": []}


def test_postcheck_proves_it_and_the_gate_lacks_only_the_human(operator: RealOperator, tmp_path: Path) -> None:
    ended = operator.fo("postcheck", "--junit", str(tmp_path / "out.xml"), timeout=5 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]
    suite = ET.parse(tmp_path / "out.xml").getroot()  # noqa: S314 - written by us a moment ago
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0"
    assert int(suite.attrib["tests"]) > 20
    gate = operator.fo("gate", "show", "--json").json
    assert [reason["code"] for reason in gate["reasons"]] == ["stage-2-locked"]


def test_the_real_kubectl_works_with_the_operators_kubeconfig(operator: RealOperator) -> None:
    assert operator.kubectl("get", "nodes").code == 0
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}, "data": {"a": "1"}}
    file = operator.folder / "made.json"
    file.write_text(json.dumps(body))
    assert operator.kubectl("apply", "--server-side", "-f", str(file)).code == 0
    assert operator.get("configmap", "made")["data"] == {"a": "1"}
    logs = operator.kubectl("-n", "flux-system", "logs", "deploy/source-controller", "--tail=1")
    assert logs.code == 0, logs.err
    assert operator.kubectl("delete", "-f", str(file), "--wait").code == 0
    assert operator.kubectl("get", "configmap", "made").code == 1
    file.unlink()


def test_a_commit_reaches_the_cluster(operator: RealOperator) -> None:
    route = operator.folder / "infra" / "k8s" / "cloudflared" / "config.yaml"
    route.write_text(route.read_text() + "# one more line\n")
    operator.commit("A route")
    commit = operator.push()
    assert "other-commit" in [r["code"] for r in operator.fo("gate", "show", "--json").json["reasons"]]
    ended = operator.fo("bootstrap", timeout=15 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]
    assert operator.status()["statement"]["commit"] == commit
    root = operator.get("-n", "flux-system", "kustomization", "cluster")
    assert commit in root["status"]["lastAppliedRevision"]


def test_a_broken_commit_fails_with_its_cause_and_the_next_one_mends_it(operator: RealOperator) -> None:
    bad = operator.folder / "infra" / "k8s" / "cloudflared" / "kustomization.yaml"
    good = bad.read_text()
    bad.write_text(good.replace("resources:", "resources:\n  - no-such-file.yaml"))
    operator.commit("A mistake")
    operator.push()
    ended = operator.fo("postcheck", timeout=5 * MINUTES)
    assert ended.code != 0
    bad.write_text(good)
    operator.commit("Mended")
    operator.push()
    ended = operator.fo("bootstrap", timeout=15 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]


def test_a_machine_whose_plug_was_pulled_comes_back(operator: RealOperator) -> None:
    before = next(n for n in operator.get("nodes")["items"] if n["metadata"]["name"] == "bench-c2")
    operator.power_cycle(9001)

    def back() -> bool:
        ended = operator.kubectl("get", "node", "bench-c2", "-o", "json")
        node = json.loads(ended.out) if ended.code == 0 else before
        rebooted = node["status"]["nodeInfo"]["bootID"] != before["status"]["nodeInfo"]["bootID"]
        return rebooted and "bench-c2" in ready(operator)

    eventually("bench-c2 to be Ready after its restart", back, 5 * MINUTES)
    ended = operator.fo("bootstrap", timeout=10 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]


def test_a_restart_waits_for_the_permit_and_then_drains_one_node_after_another(operator: RealOperator) -> None:
    vmids = {"bench-c1": 9000, "bench-w1": 9010, "bench-w2": 9011}
    before = {name: operator.get("node", name)["status"]["nodeInfo"]["bootID"] for name in vmids}
    operator.set("NODE_C1_CORES", "3")
    operator.set("WORKER_CORES", "3")
    planned = operator.fo("plan", "--json").json
    assert planned["actions"] == []
    assert {(h["key"], h["permit"]) for h in planned["held"]} == {(f"restart/{n}", "--allow-reboots") for n in vmids}
    # what was moved settles while the next cases go on; the last of them proves all of it again
    ended = operator.fo("bootstrap", "--allow-reboots", "--until", "k3s", timeout=10 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]
    with proxmox() as vms:
        assert [vms.qemu(vmid).config.get()["cores"] for vmid in vmids.values()] == [3, 3, 3]
    for name in vmids:
        node = operator.get("node", name)
        assert node["status"]["nodeInfo"]["bootID"] != before[name]
        assert "unschedulable" not in node["spec"]
    assert ready(operator) >= vmids.keys()
    assert operator.fo("plan", "--json").json["held"] == []


def test_k3s_keeps_its_data_on_the_data_disk(operator: RealOperator) -> None:
    told = operator.ssh("10.77.0.22", "findmnt --noheadings --output SOURCE /var/lib/rancher; readlink -f " + DATA_DISK)
    mounted, disk = told.out.split()
    assert mounted == disk
    assert operator.ssh("10.77.0.22", "sudo ls /var/lib/rancher/k3s/agent").out.split()


def test_one_more_worker(operator: RealOperator) -> None:
    operator.set("WORKERS", "3")
    ended = operator.fo("bootstrap", timeout=10 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]
    assert "bench-w3" in ready(operator)
    assert len(operator.get("nodes")["items"]) == 6


def test_a_worker_that_the_env_file_names_no_more_goes_when_it_is_told_to(operator: RealOperator) -> None:
    operator.set("WORKERS", "2")
    planned = operator.fo("plan", "--json").json
    assert planned["actions"] == []
    assert [(h["key"], h["permit"]) for h in planned["held"]] == [("machine/bench-w3", "--remove bench-w3")]
    ended = operator.fo("bootstrap", "--remove", "bench-w3", timeout=10 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]
    assert ready(operator) == {"bench-c1", "bench-c2", "bench-c3", "bench-w1", "bench-w2"}
    assert len(operator.get("nodes")["items"]) == 5
    with proxmox() as node:
        assert "bench-w3" not in [vm["name"] for vm in node.qemu.get()]


def test_destroy_leaves_nothing_but_a_strangers_machine(operator: RealOperator) -> None:
    with proxmox() as node:
        task_ended(node, node.qemu.post(vmid=9150, name="bench-w9", tags="fo-bench", pool="fo-bench", memory=512))
    ended = operator.fo("destroy", "--confirm", operator.name, timeout=5 * MINUTES)
    assert ended.code == 0, ended.err[-4000:]
    assert "left: VM 9150 (bench-w9) on pve: it is not ours" in ended.err
    with proxmox() as node:
        assert [(vm["vmid"], vm["name"]) for vm in node.qemu.get()] == [(9150, "bench-w9")]
    for name in ("c1", "c2", "c3", "w1", "w2"):
        assert f"machine/bench-{name}" in operator.fo("plan").out
