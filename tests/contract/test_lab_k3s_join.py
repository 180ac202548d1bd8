"""Joining the lab's K3s, being refused, and life after it: stops, quorum, a lab that comes back."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from k3s_machines import (
    AGENT_SECRET,
    KUBE_VIP,
    MANIFEST,
    SECRET,
    Bench,
    Box,
    ask,
    condition,
    eventually,
    exits,
    node,
)

from funoffshore.lab.base import Latencies


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def first(bench: Bench) -> Box:
    """A ready first server."""
    box = bench.box("lab-c1", 11)
    box.write(MANIFEST, KUBE_VIP % bench.vip)
    return bench.found(box)


def test_servers_and_an_agent_join(bench: Bench, first: Box) -> None:
    for number in (12, 13):
        box = bench.box(f"lab-c{number - 10}", number)
        bench.join(box, first)
        assert box.is_ready.wait(10), box.said()
        assert condition(bench, box.name, "EtcdIsVoter") == "True"
        assert bench.token(box) == bench.token(first)
        assert "Adding member lab-c" in box.said()
    worker = bench.box("lab-w1", 21)
    bench.join(worker, first, "agent")
    assert worker.is_ready.wait(10), worker.said()
    assert condition(bench, "lab-w1") == "True"
    assert "node-role.kubernetes.io/control-plane" not in node(bench, "lab-w1")["metadata"]["labels"]
    assert not worker.path("/var/lib/rancher/k3s/server").exists()
    balancer = json.loads(worker.read("/var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json"))
    assert len(balancer["ServerAddresses"]) == 3


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"token": "K10" + "0" * 64 + "::server:" + SECRET},
        "token CA hash does not match the Cluster CA certificate hash",
    ),
    ({"token": "K10abc::server:" + SECRET}, "invalid token CA hash length"),
    ({"token": "wrong"}, "failed to bootstrap cluster data: not authorized"),
    ({"server": "http://127.0.0.1:6443"}, "only https:// URLs are supported, invalid scheme"),
    ({"server": "https://127.1.2.3:6443"}, "dial tcp 127.1.2.3:6443: connect: connection refused"),
    ({"cluster-cidr": "10.52.0.0/16"}, "critical configuration mismatched: ClusterIPRanges.slice[0].IP.slice[13]"),
    ({"secrets-encryption": True}, "critical configuration value mismatch between servers"),
]


@pytest.mark.parametrize(("wrong", "said"), REFUSED)
def test_a_server_that_may_not_join_exits_1(bench: Bench, first: Box, wrong: dict[str, Any], said: str) -> None:
    box = bench.box("lab-c2", 12)
    bench.join(box, first, **wrong)
    assert box.is_ended.wait(10)
    assert box.code == 1
    assert said in box.said()
    assert box.lines["k3s"][-1].split("msg=")[1].startswith('"Error: preparing server: failed to bootstrap')
    assert not box.path("/var/lib/rancher/k3s/server/db").exists()


def test_a_bare_secret_is_taken_with_a_warning(bench: Bench, first: Box) -> None:
    box = bench.box("lab-c2", 12)
    bench.join(box, first, token=SECRET)
    assert box.is_ready.wait(10)
    assert "the token does not include a CA hash" in box.said()


def test_a_member_s_name_is_taken_and_the_exit_is_0(bench: Bench, first: Box) -> None:
    box = bench.box("lab-c1", 12)
    bench.join(box, first)
    assert box.is_ended.wait(10)
    assert box.code == 0
    assert "duplicate node name found, please use a unique name for this node" in box.said()


def test_a_server_url_without_a_token_makes_a_second_cluster(bench: Bench, first: Box) -> None:
    box = bench.box("lab-c2", 12)
    box.configure(server=f"https://{first.address}:6443", **{"node-ip": box.address})
    bench.start(box)
    assert box.is_ready.wait(10)
    assert "Kine available at unix://kine.sock" in box.said()
    assert bench.token(box)[:67] != bench.token(first)[:67]


def test_an_agent_without_a_token_exits_and_with_a_wrong_one_waits_for_ever(bench: Bench, first: Box) -> None:
    box = bench.box("lab-w1", 21)
    box.configure(server=f"https://{first.address}:6443")
    exits(bench, box, 1, "--token is required", "agent")
    for token, said in (
        ("wrong", "failed to retrieve configuration from server: not authorized"),
        ("K10" + "0" * 64 + "::node:x", "token CA hash does not match"),
        (bench.token(first), "not authorized"),
    ):
        box.lines.clear()
        bench.join(box, first, "agent", token=token)
        eventually(lambda said=said: box.said().count(said) >= 2)  # type: ignore[misc]
        assert not box.is_ready.is_set()
        assert not box.is_ended.is_set()


def test_a_taken_agent_name_is_refused_until_its_node_is_deleted(bench: Bench, first: Box) -> None:
    box = bench.box("lab-w1", 21)
    bench.join(box, first, "agent")
    assert box.is_ready.wait(10)
    other = bench.box("lab-w1", 22)
    bench.join(other, first, "agent")
    eventually(lambda: "Node password rejected" in other.said())
    bench.k3s.stop(box)
    bench.k3s.clusters()[0].delete("v1/Node", "", "lab-w1")
    assert other.is_ready.wait(10), other.said()


def test_a_token_from_token_create_lets_an_agent_in(bench: Bench, first: Box) -> None:
    code, out, _ = bench.run(first, "token", "create", "--ttl", "1h", "--description", "demo")
    assert code == 0
    box = bench.box("lab-w1", 21)
    bench.join(box, first, "agent", token=out.strip())
    assert box.is_ready.wait(10), box.said()
    _, listed, _ = bench.run(first, "token", "list")
    assert listed.splitlines()[0].split() == ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA", "GROUPS"]
    assert " demo " in listed.splitlines()[1]


def test_another_token_or_none_after_the_first_start(bench: Bench, first: Box) -> None:
    bench.k3s.stop(first)
    first.configure(**{"cluster-init": True, "token": "another", "node-ip": first.address})
    exits(bench, first, 1, "bootstrap data already found and encrypted with different token")
    first.path("/var/lib/rancher/k3s/server/token").unlink()
    first.configure(**{"cluster-init": True, "node-ip": first.address})
    bench.start(first)
    assert first.is_ready.wait(10), first.said()
    assert bench.token(first).endswith(SECRET)


def test_a_stopped_server_takes_the_vip_with_it_and_another_carries_on(bench: Bench, first: Box) -> None:
    boxes = [first]
    for number in (12, 13):
        box = bench.box(f"lab-c{number - 10}", number)
        bench.join(box, first)
        assert box.is_ready.wait(10)
        boxes.append(box)
    eventually(lambda: bench.k3s.planes.doors.behind(bench.vip, 6443))
    bench.k3s.stop(first)
    with pytest.raises(urllib.error.URLError):
        ask(first.address, "/ping")
    assert ask(bench.vip, "/readyz", admin=boxes[1])[0] == 200
    assert condition(bench, "lab-c1") == "Unknown"
    bench.k3s.stop(boxes[1])
    assert ask(boxes[2].address, "/ping")[0] == 200
    assert ask(boxes[2].address, "/v1-k3s/readyz", user=f"node:{AGENT_SECRET}") == (200, "ok")
    assert ask(boxes[2].address, "/readyz", admin=boxes[2])[0] == 500
    assert ask(boxes[2].address, "/api/v1/nodes", admin=boxes[2])[0] == 500
    bench.start(first)
    assert first.is_ready.wait(10)
    assert ask(bench.vip, "/readyz", admin=first)[0] == 200
    eventually(lambda: condition(bench, "lab-c1") == "True")


def test_all_servers_off_come_back_together(bench: Bench, first: Box) -> None:
    second = bench.box("lab-c2", 12)
    bench.join(second, first)
    assert second.is_ready.wait(10)
    for box in (first, second):
        bench.k3s.stop(box)
    bench.start(first)
    assert not first.is_ready.wait(0.3)
    bench.start(second)
    assert first.is_ready.wait(10)
    assert second.is_ready.wait(10)


def test_a_node_that_the_fault_keeps_out(bench: Bench, first: Box) -> None:
    bench.kit.faults.on("node-no-join", node="lab-w1")
    worker = bench.box("lab-w1", 21)
    bench.join(worker, first, "agent")
    eventually(lambda: worker.said().count("i/o timeout") >= 2)
    bench.kit.faults.on("node-no-join", node="lab-c2")
    server = bench.box("lab-c2", 12)
    bench.join(server, first)
    assert server.is_ended.wait(10)
    assert "i/o timeout" in server.said()


def test_a_new_process_of_the_lab_finds_everything_running(tmp_path: Path) -> None:
    before = Bench(tmp_path)
    box = before.box("lab-c1", 11)
    box.write(MANIFEST, KUBE_VIP % before.vip)
    before.found(box)
    worker = before.box("lab-w1", 21)
    before.join(worker, box, "agent")
    assert worker.is_ready.wait(10)
    token = before.token(box)
    before.close()
    after = Bench(tmp_path, net=before.net)
    again, other = after.box("lab-c1", 11), after.box("lab-w1", 21)
    again.uuid, other.uuid = box.uuid, worker.uuid
    after.start(other, "agent")
    after.start(again)
    assert again.is_ready.wait(10), again.said()
    assert other.is_ready.wait(10), other.said()
    assert after.token(again) == token
    assert ask(after.vip, "/readyz", admin=again)[0] == 200
    assert {condition(after, name) for name in ("lab-c1", "lab-w1")} == {"True"}
    after.close()


def test_a_start_goes_through_refused_starting_ping_and_ready(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Latencies(k3s_first=24))
    box = bench.box("lab-c1", 11)
    box.configure(**{"cluster-init": True, "token": SECRET, "node-ip": box.address})
    bench.start(box)
    seen: list[tuple[int, str]] = []

    def look() -> bool:
        try:
            answers = [(code, text[:4]) for code, text in (ask(box.address, "/ping"), ask(box.address, "/readyz"))]
        except urllib.error.URLError:
            answers = [(0, ""), (0, "")]
        state = (answers[0][0], str(answers[1][0]))
        if not seen or seen[-1] != state:
            seen.append(state)
        return box.is_ready.is_set()

    eventually(look, 20)
    order = [(0, "0"), (503, "503"), (200, "503"), (200, "401")]
    ranks = [order.index(state) for state in seen]
    assert ranks == sorted(ranks)  # how many of them are caught depends on how busy the machine is
    assert seen[-1] == order[-1]
    assert len(seen) >= 2
    bench.close()


def test_a_silent_kubelet_is_noticed_after_the_grace(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Latencies(k3s_first=1, k3s_agent=1), speed=60)
    first = bench.found(bench.box("lab-c1", 11))
    worker = bench.box("lab-w1", 21)
    bench.join(worker, first, "agent")
    assert worker.is_ready.wait(10), worker.said()
    stopped = bench.kit.clock.now()
    bench.k3s.stop(worker)
    assert condition(bench, "lab-w1") == "True"
    eventually(lambda: condition(bench, "lab-w1") == "Unknown")
    assert bench.kit.clock.now() - stopped >= 39
    bench.close()


def test_a_join_that_the_lab_s_end_cut_short_is_taken_up_again(bench: Bench, first: Box) -> None:
    box = bench.box("lab-c2", 12)
    plane = bench.k3s.planes.all()[0]
    plane.set_member("lab-c2", etcd_name="lab-c2-00000000", address=box.address, voter=False, vmid=box.vmid)
    bench.join(box, first)
    assert box.is_ready.wait(10), box.said()
    assert plane.members["lab-c2"]["voter"] is True
