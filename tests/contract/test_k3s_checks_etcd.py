"""What postcheck says of etcd and its snapshots on lab hosts: a healthy cluster, and one thing wrong at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from k3s_findings import DAY, FAIL, PASS, UNKNOWN, WARN, k3s_with, node_with, told
from k3s_homelab import Homelab
from pydantic import SecretStr

from funoffshore.checks import k3s_etcd, k3s_files
from funoffshore.checks.base import ETCD_SNAPSHOT
from funoffshore.config import S3, ClusterConfig
from funoffshore.reading import Present
from funoffshore.stages.k3s import copies, offbox


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homelab]:
    """Three servers and an agent that are well. Whoever changes something puts it back."""
    made = Homelab(tmp_path_factory.mktemp("lab"), 3, 1)
    made.boot()
    made.converge()
    yield made
    made.close()


# etcd


def test_a_member_that_is_no_controller_of_the_env_file(lab: Homelab) -> None:
    fewer = replace(lab.config, nodes=tuple(node for node in lab.config.nodes if node.name != "lab-c3"))
    outcome, said = told(lab, "FO-ETCD-002", fewer)
    assert outcome is FAIL
    assert "of lab-c3, which is no controller of the env file" in said
    moved = node_with(lab, "lab-c2", address=IPv4Address("127.1.2.3"))
    assert told(lab, "FO-ETCD-002", moved)[0] is FAIL


def test_a_member_that_was_taken_out_while_its_node_stays(lab: Homelab) -> None:
    def annotate(member: str | None) -> None:
        lab.world.kube.patch("v1/Node", "", "lab-c2", {"metadata": {"annotations": {k3s_etcd.REMOVED: member}}})

    reading = lab.world.kube.get("v1/Node", "", "lab-c2")
    assert isinstance(reading, Present)
    member = reading.value["metadata"]["annotations"][k3s_etcd.MEMBER]
    annotate(member)
    try:
        outcome, said = told(lab, "FO-ETCD-002")
        assert outcome is FAIL
        assert f"{member} of lab-c2 was taken out of etcd, and its Node is still there" in said
        annotate("lab-c2-of-before")
        assert told(lab, "FO-ETCD-002")[0] is PASS
    finally:
        annotate(None)


def save(lab: Homelab, host: str) -> str:
    """A snapshot by hand; its name."""
    done = lab.host(host).run(["/usr/local/bin/k3s", "etcd-snapshot", "save", "--name", "hand"])
    assert done.code == 0, done.err
    return str(done.err).partition("Snapshot ")[2].partition(" saved")[0]


def test_snapshots_grow_old(tmp_path: Path) -> None:
    lab = Homelab(tmp_path, 1)
    lab.boot()
    lab.converge()
    try:
        assert told(lab, "FO-ETCD-003")[0] is WARN
        outcome, said = told(lab, "FO-ETCD-003", later=13 * 3600)
        assert outcome is FAIL
        assert "there is no etcd snapshot" in said
        name = save(lab, "lab-c1")
        outcome, said = told(lab, "FO-ETCD-003")
        assert outcome is PASS
        assert name in said
        outcome, said = told(lab, "FO-ETCD-003", later=13 * 3600)
        assert outcome is FAIL
        assert "older than 12 h" in said
        assert told(lab, "FO-ETCD-003", replace_schedule(lab, "@daily"), later=13 * 3600)[0] is PASS
        assert told(lab, "FO-ETCD-003", replace_schedule(lab, "now and then"))[0] is UNKNOWN
        lab.world.kube.delete("apiextensions.k8s.io/v1/CustomResourceDefinition", "", "etcdsnapshotfiles.k3s.cattle.io")
        assert told(lab, "FO-ETCD-003")[0] is FAIL
        lab.host("lab-c1").units.stop("k3s")
        assert told(lab, "FO-ETCD-003")[0] is UNKNOWN
    finally:
        lab.close()


def replace_schedule(lab: Homelab, schedule: str) -> ClusterConfig:
    return k3s_with(lab, snapshots=replace(lab.config.k3s.snapshots, schedule=schedule))


def test_copies_on_this_computer_count_while_they_are_fresh(lab: Homelab) -> None:
    outcome, said = told(lab, "FO-ETCD-004")
    assert outcome is WARN
    assert "ETCD_SNAPSHOT_NFS" in said
    copy = offbox.folder(lab.config) / f"hand-lab-c1-{int(lab.kit.clock.now())}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(b"snapshot")
    try:
        assert told(lab, "FO-ETCD-004")[0] is PASS
        assert told(lab, "FO-ETCD-004", later=2 * DAY)[0] is WARN
    finally:
        copy.unlink()


def test_snapshots_in_a_bucket(lab: Homelab) -> None:
    s3 = S3("s3.example.org", "eu", "fo", "", SecretStr("key"), SecretStr("secret"))
    config = k3s_with(lab, snapshots=replace(lab.config.k3s.snapshots, s3=s3))
    assert told(lab, "FO-ETCD-004", config)[0] is WARN
    assert told(lab, "FO-ETCD-004", config, later=DAY)[0] is FAIL
    spec = {"snapshotName": "x", "nodeName": "s3", "location": "s3://fo/x", "s3": {"bucket": "fo"}}
    made = {"apiVersion": "k3s.cattle.io/v1", "kind": "ETCDSnapshotFile", "metadata": {"name": "s3-x"}, "spec": spec}
    lab.world.kube.apply([made], "k3s")

    def status(at: float, **more: Any) -> None:
        stamp = datetime.fromtimestamp(at, UTC).isoformat()
        whole = {"readyToUse": True, "size": "1", "creationTime": stamp, **more}
        lab.k3s.clusters()[0].change_status(ETCD_SNAPSHOT, "", "s3-x", lambda before: whole)

    try:
        status(lab.kit.clock.now())
        assert told(lab, "FO-ETCD-004", config)[0] is PASS
        status(lab.kit.clock.now() + DAY)
        outcome, said = told(lab, "FO-ETCD-004", config)
        assert outcome is FAIL
        assert "dated in the future" in said
        status(lab.kit.clock.now(), readyToUse=False, error={"message": "access denied"})
        outcome, said = told(lab, "FO-ETCD-004", config)
        assert outcome is FAIL
        assert "x: access denied" in said
    finally:
        lab.world.kube.delete(ETCD_SNAPSHOT, "", "s3-x")


def test_copies_on_nfs(lab: Homelab) -> None:
    config = k3s_with(lab, snapshots=replace(lab.config.k3s.snapshots, nfs="nas.lan:/export"))
    outcome, said = told(lab, "FO-ETCD-004", config)
    assert outcome is FAIL
    assert f"lab-c1: {copies.TIMER} is absent" in said
    assert k3s_files.copies_of(config) == f"{copies.MOUNT}/lab/*"
