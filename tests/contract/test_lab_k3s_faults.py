"""What is wrong with hosts and between them, as K3s shows it: each fault by the words that K3s, kubelet or etcd has."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from k3s_machines import KUBE_VIP, MANIFEST, Bench, Box, condition, eventually, node

from funoffshore.lab.base import Faults
from funoffshore.lab.hosts import circumstances

MINUTE = 60


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, speed=100.0)
    yield made
    made.close()


@pytest.fixture
def first(bench: Bench) -> Box:
    return bench.found(bench.box("lab-c1", 11))


def second(bench: Bench, first: Box) -> Box:
    """A server that is on its way in."""
    box = bench.box("lab-c2", 12)
    bench.join(box, first)
    return box


def test_a_learner_that_gets_no_further_is_removed_in_the_end(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("learner-stuck", node="lab-c2")
    box = second(bench, first)
    eventually(lambda: "has not yet been promoted from learner to voting member" in box.said())
    eventually(lambda: "stalled at RaftAppliedIndex" in first.said())
    third = bench.box("lab-c3", 13)
    bench.join(third, first)
    assert third.is_ended.wait(10)
    assert "too many learner members in cluster" in third.said()
    assert box.is_ended.wait(15), box.said()
    assert box.code == 0
    assert "Removed learner lab-c2-" in first.said()
    assert set(bench.k3s.planes.all()[0].members) == {"lab-c1"}


def test_a_learner_gets_on_once_the_fault_is_gone(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("learner-stuck", node="lab-c2")
    box = second(bench, first)
    eventually(lambda: "has not yet been promoted" in box.said())
    bench.kit.faults.off("learner-stuck")
    assert box.is_ready.wait(10), box.said()
    assert condition(bench, "lab-c2", "EtcdIsVoter") == "True"


BLOCKED = [
    ("6443", "dial tcp {first}:6443: i/o timeout", 1),
    ("2379", "etcd cluster join failed: context deadline exceeded", 0),
]


@pytest.mark.parametrize(("port", "said", "code"), BLOCKED)
def test_a_port_that_is_blocked_keeps_a_server_out(bench: Bench, first: Box, port: str, said: str, code: int) -> None:
    bench.kit.faults.on("port-blocked", **{"from": "lab-c2", "to": first.address, "port": port})
    box = second(bench, first)
    assert box.is_ended.wait(10)
    assert (box.code, said.format(first=first.address) in box.said()) == (code, True)


def test_blocked_peers_leave_a_learner_behind(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("port-blocked", **{"from": "lab-c1", "to": f"{bench.net}12", "port": "2380"})
    box = second(bench, first)
    eventually(lambda: "prober detected unhealthy status" in box.said())
    assert "has not yet been promoted" in box.said()
    assert not box.is_ready.is_set()
    bench.kit.faults.off("port-blocked")
    assert box.is_ready.wait(10), box.said()


def test_an_agent_whose_way_to_6443_is_blocked_waits_for_ever(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("port-blocked", **{"from": f"{bench.net}21", "port": "6443"})
    box = bench.box("lab-w1", 21)
    bench.join(box, first, "agent")
    eventually(lambda: "i/o timeout" in box.said())
    assert not box.is_ended.is_set()
    bench.kit.faults.off("port-blocked")
    assert box.is_ready.wait(10), box.said()


def test_a_join_that_is_never_answered_says_nothing_at_all(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("join-hang", node="lab-c2")
    box = second(bench, first)
    eventually(lambda: "Starting k3s" in box.said())
    assert not box.is_ready.wait(0.3)
    assert not box.is_ended.is_set()
    assert len(box.said().splitlines()) == 1
    bench.kit.faults.off("join-hang")
    assert box.is_ready.wait(10), box.said()


def test_a_clock_before_the_certificates_refuses_them(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("clock-off", node="lab-*2", minutes="-20")
    box = second(bench, first)
    assert box.is_ended.wait(10)
    assert box.code == 1
    assert "x509: certificate has expired or is not yet valid: current time" in box.said()
    assert circumstances.skew(box) == -20 * MINUTE
    assert circumstances.skew(first) == 0


def test_a_clock_that_is_ahead_is_told_by_etcd(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("clock-off", node="lab-c2", minutes="10")
    box = second(bench, first)
    assert box.is_ready.wait(10), box.said()
    eventually(lambda: "prober found high clock drift" in box.said())


def test_a_full_disk_before_and_after_the_first_start(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("disk-full", node="lab-*")
    box = second(bench, first)
    assert box.is_ended.wait(10)
    assert (box.code, "no space left on device" in box.said()) == (1, True)
    assert "extracting data" in box.said()
    code, _, err = bench.run(first, "etcd-snapshot", "save")
    assert (code, "no space left on device" in err) == (1, True)
    bench.k3s.stop(first)
    bench.start(first)
    assert first.is_ended.wait(10)
    assert (first.code, "member/wal/0.tmp: no space left on device" in first.said()) == (1, True)


def test_a_disk_that_is_read_only(bench: Bench) -> None:
    bench.kit.faults.on("disk-read-only", node="lab-c1")
    box = bench.box("lab-c1", 11)
    box.configure(**{"cluster-init": True, "node-ip": box.address})
    bench.start(box)
    assert box.is_ended.wait(10)
    assert (box.code, "read-only file system" in box.said()) == (1, True)
    with pytest.raises(OSError, match="Read-only") as caught:
        circumstances.check_write(box, "/etc/x")
    assert caught.value.errno == errno.EROFS
    circumstances.check_write(box, "/run/x")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"name": "image-pull", "image": "*kube-vip*"}, "403 Forbidden"),
        ({"name": "dns-broken", "node": "lab-c1"}, "Temporary failure in name resolution"),
    ],
)
def test_without_its_image_the_virtual_address_is_nowhere(bench: Bench, fault: dict[str, str], said: str) -> None:
    told = dict(fault)
    bench.kit.faults.on(told.pop("name"), **told)
    box = bench.box("lab-c1", 11)
    box.write(MANIFEST, KUBE_VIP % bench.vip)
    bench.found(box)
    eventually(lambda: "PullImage from image service failed" in box.said())
    assert said in box.said()
    assert bench.k3s.planes.doors.behind(bench.vip, 6443) is None
    cluster = bench.k3s.clusters()[0]

    def states() -> list[str]:
        pods = [p for p in cluster.list("v1/Pod", "kube-system") if "vip" in p["metadata"]["name"]]
        found = [c["state"] for p in pods for c in (p.get("status") or {}).get("containerStatuses", [])]
        return [state.get("waiting", {}).get("reason", "") for state in found]

    eventually(lambda: "ImagePullBackOff" in states())
    bench.kit.faults.off(fault["name"])
    eventually(lambda: bench.k3s.planes.doors.behind(bench.vip, 6443))


def test_certificates_grow_old_once_and_a_start_renews_them(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("certificates-old", node="lab-c1", days="20")
    code, _, err = bench.run(first, "certificate", "check")
    assert code == 0
    assert "client-admin.crt: certificate system:admin (ClientAuth) will expire within 120 days at" in err
    assert "server-ca.crt: certificate k3s-server-ca@" in err
    bench.k3s.stop(first)
    bench.start(first)
    assert first.is_ready.wait(10), first.said()
    assert "will expire" not in bench.run(first, "certificate", "check")[2]


def test_every_fault_says_what_it_cannot_take() -> None:
    assert Faults.problem("clock-off", {"node": "a", "minutes": "-10"}) == ""
    assert Faults.problem("clock-off", {"minutes": "ten"}) == "minutes is no whole number"
    assert Faults.problem("port-blocked", {"host": "a"}) == "port-blocked has no host"


def test_a_program_of_another_architecture_is_foreign(bench: Bench, first: Box) -> None:
    assert circumstances.foreign(first, ["k3s", "v1.36.4+k3s1", "arm64"])
    assert not circumstances.foreign(first, ["k3s", "v1.36.4+k3s1"])
    assert not circumstances.foreign(first, ["cat"])
    assert node(bench, "lab-c1")["metadata"]["labels"]["kubernetes.io/arch"] == "amd64"
