"""The lab's K3s after its first day: what a restore does to those who stay, versions, architectures, schedules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from k3s_machines import AGENT_SECRET, SECRET, Bench, Box, ask, condition, eventually, node

from funoffshore.lab import k3s
from funoffshore.lab.k3s import cron
from funoffshore.lab.web import offers

SNAPSHOTS = "/var/lib/rancher/k3s/server/db/snapshots"
NEWER = "v1.37.1+k3s1"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def first(bench: Bench) -> Box:
    return bench.found(bench.box("lab-c1", 11))


def agent(bench: Bench, first: Box, name: str = "lab-w1", number: int = 21) -> Box:
    box = bench.box(name, number)
    bench.join(box, first, "agent")
    assert box.is_ready.wait(10), box.said()
    return box


def save(bench: Bench, box: Box) -> str:
    """Path of a new snapshot."""
    code, _, err = bench.run(box, "etcd-snapshot", "save", "--name", "hand")
    assert code == 0, err
    return f"{SNAPSHOTS}/{err.rpartition('Snapshot ')[2].split()[0]}"


def restore(bench: Bench, box: Box, path: str) -> None:
    bench.k3s.stop(box)
    code, _, err = bench.run(box, "server", "--cluster-reset", f"--cluster-reset-restore-path={path}")
    assert code == 0, err
    bench.start(box)
    assert box.is_ready.wait(10), box.said()


def test_an_agent_that_the_snapshot_knows_stays_without_a_restart(bench: Bench, first: Box) -> None:
    worker = agent(bench, first)
    before = node(bench, "lab-w1")["metadata"]["uid"]
    restore(bench, first, save(bench, first))
    assert len(bench.k3s.clusters()) == 1
    eventually(lambda: condition(bench, "lab-w1") == "True")
    assert node(bench, "lab-w1")["metadata"]["uid"] == before
    assert not worker.is_ended.is_set()


def test_an_agent_that_came_later_is_forgotten_until_its_old_certificates_go(bench: Bench, first: Box) -> None:
    path = save(bench, first)
    worker = agent(bench, first)
    restore(bench, first, path)
    eventually(lambda: "not found" in worker.said())
    assert bench.k3s.clusters()[0].get("v1/Node", "", "lab-w1") is None
    bench.k3s.stop(worker)
    bench.start(worker, "agent")
    eventually(lambda: "Node authorization rejected" in worker.said())
    bench.k3s.stop(worker)
    for name in ("crt", "key"):
        worker.path(f"/var/lib/rancher/k3s/agent/client-kubelet.{name}").unlink()
    bench.start(worker, "agent")
    assert worker.is_ready.wait(10), worker.said()


def test_a_restored_cluster_is_the_one_that_the_lab_comes_back_with(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.found(bench.box("lab-c1", 11))
    token = bench.token(first)
    path = save(bench, first)
    bench.k3s.clusters()[0].create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"}}, "test"
    )
    restore(bench, first, path)
    bench.close()
    again = Bench(tmp_path, net=bench.net)
    box = again.box("lab-c1", 11)
    again.start(box)
    assert box.is_ready.wait(10), box.said()
    assert again.token(box) == token
    assert again.k3s.clusters()[0].get("v1/ConfigMap", "default", "late") is None
    again.close()


def test_one_old_peer_alone_never_gets_a_quorum_and_says_why(bench: Bench, first: Box) -> None:
    peers = []
    for number in (12, 13):
        box = bench.box(f"lab-c{number - 10}", number)
        bench.join(box, first)
        assert box.is_ready.wait(10), box.said()
        peers.append(box)
    path = save(bench, first)
    for box in peers:
        bench.k3s.stop(box)
    restore(bench, first, path)
    peers[0].lines.clear()
    bench.start(peers[0])
    eventually(lambda: "cluster ID mismatch" in peers[0].said())
    assert "Failed to test etcd connection" in peers[0].said()
    assert not peers[0].is_ready.is_set()
    assert ask(first.address, "/readyz", admin=first)[0] == 200


def test_a_reset_is_refused_while_k3s_runs_and_with_a_server_to_join(bench: Bench, first: Box) -> None:
    code, _, err = bench.run(first, "server", "--cluster-reset")
    assert (code, "listen tcp :6443: bind: address already in use" in err) == (1, True)
    assert ask(first.address, "/readyz", admin=first)[0] == 200
    bench.k3s.stop(first)
    told = yaml.safe_load(first.read("/etc/rancher/k3s/config.yaml"))
    first.configure(**told, server="https://127.0.0.1:6443")
    code, _, err = bench.run(first, "server", "--cluster-reset")
    assert (code, "cannot perform cluster-reset while server URL is set" in err) == (1, True)
    assert not first.path("/var/lib/rancher/k3s/server/db/reset-flag").exists()


def test_a_snapshot_that_was_cut_short_is_no_snapshot(bench: Bench, first: Box) -> None:
    path = save(bench, first)
    whole = first.path(path).read_bytes()
    first.path(path).write_bytes(whole[: len(whole) // 2])
    bench.k3s.stop(first)
    code, _, err = bench.run(first, "server", "--cluster-reset", f"--cluster-reset-restore-path={path}")
    assert (code, "integrity check failed" in err) == (1, True)
    bench.start(first)
    assert first.is_ready.wait(10), first.said()


def test_a_compressed_snapshot_restores_as_well(bench: Bench, first: Box) -> None:
    bench.k3s.stop(first)
    told = yaml.safe_load(first.read("/etc/rancher/k3s/config.yaml"))
    first.configure(**told, **{"etcd-snapshot-compress": True})
    bench.start(first)
    assert first.is_ready.wait(10), first.said()
    path = save(bench, first)
    assert path.endswith(".zip")
    assert first.path(path).read_bytes().startswith(b"PK")
    uid = node(bench, "lab-c1")["metadata"]["uid"]
    restore(bench, first, path)
    assert node(bench, "lab-c1")["metadata"]["uid"] == uid


def test_a_copy_to_s3_is_refused_in_k3s_own_words(bench: Bench, first: Box) -> None:
    bench.k3s.stop(first)
    told = yaml.safe_load(first.read("/etc/rancher/k3s/config.yaml"))
    s3 = {"etcd-s3": True, "etcd-s3-endpoint": "s3.lan", "etcd-s3-bucket": "fo", "etcd-s3-access-key": "a",
          "etcd-s3-secret-key": "b", "etcd-snapshot-schedule-cron": "@every 30s"}  # fmt: skip
    first.configure(**told, **s3)
    bench.start(first)
    assert first.is_ready.wait(10), first.said()
    code, _, err = bench.run(first, "etcd-snapshot", "save")
    assert (code, "failed to initialize S3 client: failed to test for existence of bucket fo" in err) == (1, True)

    def copies() -> list[dict[str, object]]:
        found = bench.k3s.clusters()[0].list("k3s.cattle.io/v1/ETCDSnapshotFile")
        return [item for item in found if "s3" in item["spec"]]

    eventually(copies)
    assert copies()[0]["status"]["readyToUse"] is False  # type: ignore[index]
    assert "secret" not in str(copies()).lower()


def test_no_key_and_no_token_lies_open_in_a_snapshot(bench: Bench, first: Box) -> None:
    content = first.path(save(bench, first)).read_bytes()
    assert SECRET.encode() not in content
    assert AGENT_SECRET.encode() not in content
    assert b"PRIVATE KEY" not in content
    assert b"lab-c1.node-password.k3s" in content


def test_a_newer_binary_is_what_node_and_api_tell_after_the_restart(bench: Bench, first: Box) -> None:
    worker = agent(bench, first)
    first.path("/usr/local/bin/k3s").write_bytes(k3s.binary(NEWER))
    bench.k3s.stop(first)
    bench.start(first)
    assert first.is_ready.wait(10), first.said()
    assert node(bench, "lab-c1")["status"]["nodeInfo"]["kubeletVersion"] == NEWER
    assert json.loads(ask(first.address, "/version", admin=first)[1])["gitVersion"] == NEWER
    assert node(bench, "lab-w1")["status"]["nodeInfo"]["kubeletVersion"] != NEWER
    assert not worker.is_ended.is_set()


def test_taints_count_when_a_node_registers_and_never_again(bench: Bench, first: Box) -> None:
    box = bench.box("lab-w1", 21)
    bench.join(box, first, "agent", **{"node-taint": ["gpu=true:NoSchedule"], "node-label": ["disk=ssd"]})
    assert box.is_ready.wait(10), box.said()
    assert node(bench, "lab-w1")["spec"]["taints"] == [{"key": "gpu", "value": "true", "effect": "NoSchedule"}]
    bench.k3s.stop(box)
    bench.join(box, first, "agent", **{"node-taint": ["other=1:NoExecute"], "node-label": ["disk=hdd"]})
    assert box.is_ready.wait(10), box.said()
    assert [taint["key"] for taint in node(bench, "lab-w1")["spec"]["taints"]] == ["gpu"]
    assert node(bench, "lab-w1")["metadata"]["labels"]["disk"] == "hdd"


def test_a_label_of_kubernetes_itself_ends_the_kubelet(bench: Bench, first: Box) -> None:
    box = bench.box("lab-w1", 21)
    bench.join(box, first, "agent", **{"node-label": ["node-role.kubernetes.io/worker=true"]})
    assert box.is_ended.wait(10)
    assert box.code == 0
    assert "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [node-role" in box.said()


def test_dual_stack_gives_every_node_a_range_of_both_families(bench: Bench) -> None:
    box = bench.box("lab-c1", 11)
    both = {"cluster-cidr": "10.42.0.0/16,fd00:42::/56", "service-cidr": "10.43.0.0/16,fd00:43::/112"}
    bench.found(box, **{**both, "node-ip": f"{box.address},fd00::11"})
    spec, status = node(bench, "lab-c1")["spec"], node(bench, "lab-c1")["status"]
    assert spec["podCIDRs"] == ["10.42.0.0/24", "fd00:42::/64"]
    found = [a["address"] for a in status["addresses"] if a["type"] == "InternalIP"]
    assert found == [box.address, "fd00::11"]
    told = json.loads(ask(box.address, "/v1-k3s/config", user=f"node:{AGENT_SECRET}")[1])
    assert [entry["IP"] for entry in told["ClusterIPRanges"]] == ["10.42.0.0", "fd00:42::"]


DUE = [
    ("0 */6 * * *", "2026-11-24T05:59:30+00:00", 60, True),
    ("0 */6 * * *", "2026-11-24T06:00:30+00:00", 60, False),
    ("30 2 * * sun", "2026-11-22T02:29:59+00:00", 1, True),
    ("30 2 * * sun", "2026-11-24T02:29:59+00:00", 1, False),
    ("0 0 13 * 5", "2026-11-13T00:00:00+00:00", -1, False),
    ("@hourly", "2026-11-24T05:59:59+00:00", 2, True),
    ("@every 90s", "2026-11-24T00:00:00+00:00", 91, True),
    ("*/15 8-9,20 * jan-nov 1-5", "2026-11-24T20:44:59+00:00", 5, True),
]


@pytest.mark.parametrize(("schedule", "since", "seconds", "due"), DUE)
def test_schedules(schedule: str, since: str, seconds: float, due: bool) -> None:
    import datetime

    begin = datetime.datetime.fromisoformat(since).timestamp()
    assert cron.is_due(schedule, begin, begin + seconds) is due


@pytest.mark.parametrize("schedule", ["* * * *", "61 * * * *", "a * * * *", "@every soon", "*/0 * * * *"])
def test_what_is_no_schedule(schedule: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any reason will do
        cron.is_due(schedule, 0, 120)


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_a_release_s_list_of_digests_fits_its_assets(arch: str) -> None:
    text = offers.k3s_asset(NEWER, f"sha256sum-{arch}.txt")
    assert text is not None
    listed = {line.split()[1]: line.split()[0] for line in text.decode().splitlines()}
    assert set(listed) == {"k3s" if arch == "amd64" else "k3s-arm64", f"k3s-airgap-images-{arch}.tar.zst"}
    for name, digest in listed.items():
        body = offers.k3s_asset(NEWER, name)
        assert body is not None
        assert hashlib.sha256(body).hexdigest() == digest
    assert offers.k3s_asset(NEWER, "k3s-s390x") is None
