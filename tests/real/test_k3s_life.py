"""The life of K3s on real machines: an operator upgrades it, replaces controllers, restores a snapshot, renews what is
secret, and scales. The cases follow one another; K3s is the bench's stand-in, with real etcd and Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from operator_home import Ended
from real_home import RealOperator, eventually

from bench import home
from bench.hosts import names

pytestmark = pytest.mark.real
MINUTES = 60
SERVERS = ("bench-c1", "bench-c2", "bench-c3")
WORKERS = ("bench-w1", "bench-w2")


def nodes(operator: RealOperator) -> dict[str, dict[str, Any]]:
    return {node["metadata"]["name"]: node for node in operator.get("nodes")["items"]}


def holds(node: dict[str, Any], kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in node["status"]["conditions"])


def are_ready(operator: RealOperator, *wanted: str) -> bool:
    """Whether exactly these are nodes, all of them Ready, and all servers among them vote."""
    found = nodes(operator)
    return found.keys() == set(wanted) and all(
        holds(node, "Ready") and (name not in SERVERS or holds(node, "EtcdIsVoter")) for name, node in found.items()
    )


def versions(operator: RealOperator) -> dict[str, str]:
    """What the kubelets say they are."""
    return {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in nodes(operator).items()}


def boots(operator: RealOperator) -> dict[str, str]:
    return {name: node["status"]["nodeInfo"]["bootID"] for name, node in nodes(operator).items()}


def address(name: str) -> str:
    number = int(name[-1]) + (10 if "-c" in name else 20)
    return names.SUBNET.rpartition(".")[0] + f".{number}"


def authority(operator: RealOperator, name: str) -> str:
    """The hash in a server's own token: which cluster it belongs to."""
    told: Ended = operator.ssh(address(name), "sudo head -c 67 /var/lib/rancher/k3s/server/token")
    assert told.code == 0, told.err
    return told.out.removeprefix("K10")


def settled(operator: RealOperator, *wanted: str) -> None:
    """Nothing is left to do, and the cluster is whole."""
    eventually(f"{', '.join(wanted)} to be Ready", lambda: are_ready(operator, *wanted), 3 * MINUTES)
    again = operator.fo("bootstrap", "--until", "k3s", timeout=5 * MINUTES)
    assert again.code == 0, again.err[-4000:]
    assert "nothing to do" in again.err
    assert len({authority(operator, name) for name in wanted if name in SERVERS}) == 1


def did(operator: RealOperator, *argv: str, minutes: float = 15) -> str:
    """``fo`` to its good end; what it printed."""
    ended: Ended = operator.fo(*argv, timeout=minutes * MINUTES)
    assert ended.code == 0, ended.err[-6000:]
    return ended.out


def note(operator: RealOperator, name: str) -> None:
    file = operator.folder / "note.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}))
    ended = operator.kubectl("apply", "--server-side", "-f", str(file))
    assert ended.code == 0, ended.err


@pytest.fixture(scope="module")
def founded(operator: RealOperator) -> RealOperator:
    did(operator, "bootstrap", "--until", "k3s")
    settled(operator, *SERVERS, *WORKERS)
    return operator


def test_a_snapshot_is_taken_and_lies_off_the_servers_as_well(founded: RealOperator) -> None:
    note(founded, "before")
    did(founded, "k3s", "snapshot", "save", "--name", "kept")
    listed = founded.fo("k3s", "snapshot", "list", "--json").json
    assert "kept-bench-c" in json.dumps(listed)
    note(founded, "after")


def test_an_upgrade_brings_every_node_to_the_next_release(founded: RealOperator, tmp_path: Path) -> None:
    before = boots(founded)
    assert set(versions(founded).values()) == {home.K3S_VERSION}
    planned = did(founded, "k3s", "upgrade", home.K3S_NEXT, "--dry-run")
    assert [name for name in (*SERVERS, *WORKERS) if name not in planned] == []
    assert founded.value("K3S_VERSION") == home.K3S_VERSION
    said = did(founded, "k3s", "upgrade", home.K3S_NEXT, minutes=25)
    assert said.count(home.K3S_NEXT) == len(before)
    assert versions(founded) == dict.fromkeys(before, home.K3S_NEXT)
    assert founded.value("K3S_VERSION") == home.K3S_NEXT
    assert boots(founded) == before, "an upgrade restarts K3s, not machines"
    assert not [name for name, node in nodes(founded).items() if node["spec"].get("unschedulable")]
    settled(founded, *SERVERS, *WORKERS)


def test_there_is_no_way_back_to_an_older_release(founded: RealOperator) -> None:
    ended = founded.fo("k3s", "upgrade", home.K3S_VERSION)
    assert ended.code != 0
    assert home.K3S_VERSION in ended.err
    assert founded.value("K3S_VERSION") == home.K3S_NEXT
    assert set(versions(founded).values()) == {home.K3S_NEXT}


def test_a_controller_is_replaced(founded: RealOperator) -> None:
    before, hash_ = nodes(founded)["bench-c2"], authority(founded, "bench-c1")
    did(founded, "k3s", "replace", "bench-c2", "--yes", minutes=20)
    settled(founded, *SERVERS, *WORKERS)
    after = nodes(founded)["bench-c2"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["nodeInfo"]["kubeletVersion"] == home.K3S_NEXT
    member = "etcd.k3s.cattle.io/node-name"
    assert after["metadata"]["annotations"][member] != before["metadata"]["annotations"][member]
    assert authority(founded, "bench-c2") == hash_


def test_a_lost_controller_comes_back_with_one_command(founded: RealOperator) -> None:
    told = founded.ssh(address("bench-c3"), "sudo systemctl stop k3s && sudo rm -rf /var/lib/rancher/k3s/server/db")
    assert told.code == 0, told.err
    did(founded, "k3s", "replace", "bench-c3", "--yes", minutes=20)
    settled(founded, *SERVERS, *WORKERS)


def test_certificates_are_shown_and_renewed(founded: RealOperator) -> None:
    def shown() -> str:
        return did(founded, "k3s", "certificates", "--json")

    before, config = shown(), (founded.folder / "config" / "kube" / "bench.kubeconfig").read_text()
    assert "client-admin.crt" in before
    did(founded, "k3s", "rotate-certificates", minutes=20)
    assert shown() != before
    assert (founded.folder / "config" / "kube" / "bench.kubeconfig").read_text() != config
    settled(founded, *SERVERS, *WORKERS)


def test_tokens_are_renewed(founded: RealOperator) -> None:
    before, hash_ = founded.value("K3S_TOKEN"), authority(founded, "bench-c1")
    did(founded, "k3s", "rotate-token", minutes=25)
    fresh = founded.value("K3S_TOKEN")
    assert fresh != before
    for name in SERVERS:
        told = founded.ssh(address(name), "sudo cat /var/lib/rancher/k3s/server/token").out
        assert told.strip() == f"K10{hash_}::server:{fresh}"
    settled(founded, *SERVERS, *WORKERS)


def test_a_snapshot_of_the_new_days_is_restored(founded: RealOperator) -> None:
    hash_ = authority(founded, "bench-c1")
    did(founded, "k3s", "snapshot", "save", "--name", "again")
    listed = json.dumps(founded.fo("k3s", "snapshot", "list", "--json").json)
    name = next(word for word in listed.split('"') if word.startswith("again-bench-c"))
    note(founded, "lost")
    did(founded, "k3s", "restore", name, "--yes", minutes=25)
    eventually("the API to be back", lambda: founded.kubectl("get", "nodes").code == 0, 2 * MINUTES)
    assert founded.kubectl("get", "configmap", "before").code == 0
    assert founded.kubectl("get", "configmap", "after").code == 0
    assert "NotFound" in founded.kubectl("get", "configmap", "lost").err
    assert authority(founded, "bench-c1") == hash_
    settled(founded, *SERVERS, *WORKERS)


def test_two_workers_become_four_and_then_one(founded: RealOperator) -> None:
    founded.set("WORKERS", "4")
    did(founded, "bootstrap", "--until", "k3s")
    four = tuple(f"bench-w{n}" for n in (1, 2, 3, 4))
    settled(founded, *SERVERS, *four)
    assert set(versions(founded).values()) == {home.K3S_NEXT}
    founded.set("WORKERS", "1")
    founded.drop("NODE_W2_DATA_DISK_GIB")
    planned = founded.fo("plan", "--json")
    assert planned.code == 0, planned.err[-3000:]
    held = planned.json["held"]
    assert {h["permit"] for h in held} == {f"--remove bench-w{n}" for n in (2, 3, 4)}
    removals = [word for name in four[1:] for word in ("--remove", name)]
    did(founded, "bootstrap", "--until", "k3s", *removals)
    settled(founded, *SERVERS, "bench-w1")
