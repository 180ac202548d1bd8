"""High availability on the lab's Proxmox: configuration as recorded from a real 8.4 API, rules as 9.1 has them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pve_bench
import pytest
from pve_bench import Bench

from funoffshore.lab.base import Latencies

Q = "/nodes/pve/qemu"
R = "/cluster/ha/resources"
SLOW = Latencies(api=1e-9)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        assert made.done("POST", Q, vmid=115) == "OK"
        yield made


@pytest.fixture
def newer(tmp_path: Path) -> Iterator[Bench]:
    """A 9.1 whose managers never get to look, so slow is its clock."""
    with pve_bench.bench(tmp_path, release="9.1", latencies=SLOW, speed=1e-4) as made:
        for vmid in (115, 116):
            assert made.done("POST", Q, vmid=vmid) == "OK"
        yield made


def until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(4000):
        if true():
            return
        pause.wait(0.002)
    raise AssertionError("it does not come to pass")


def state(bench: Bench) -> str | None:
    found: str | None = bench.call("GET", f"{Q}/115/status/current").data["ha"].get("state")
    return found


def test_a_resource_is_kept_as_recorded(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, latencies=SLOW, speed=1e-4) as bench:
        assert bench.done("POST", Q, vmid=115) == "OK"
        assert bench.call("GET", R).data == []
        quorum = {"id": "quorum", "type": "quorum", "quorate": 1, "status": "OK", "node": "pve"}
        assert bench.call("GET", "/cluster/ha/status/current").data == [quorum]
        assert bench.call("POST", R, sid="vm:115", state="started").data is None
        again = bench.call("POST", R, sid="vm:115", state="started")
        assert (again.status, again.reason) == (500, "create resource failed: resource ID 'vm:115' already defined")
        assert bench.call("POST", R, sid="vm:4711").reason == "resource 'vm:4711' does not exist in cluster"
        (row,) = bench.call("GET", R).data
        assert (len(row.pop("digest")), row) == (40, {"sid": "vm:115", "state": "started", "type": "vm"})
        service = {
            "node": "pve", "sid": "vm:115", "type": "service", "max_relocate": 1, "id": "service:vm:115",
            "status": "vm:115 (pve, queued)", "state": "queued", "max_restart": 1, "request_state": "started",
        }  # fmt: skip
        assert bench.call("GET", "/cluster/ha/status/current").data == [quorum, service]
        shown = bench.call("GET", f"{Q}/115/status/current").data["ha"]
        assert shown == {"managed": 1, "state": None, "group": None}


def test_a_start_ends_before_the_machine_has_power(newer: Bench) -> None:
    newer.call("POST", R, sid="115", state="stopped")
    upid = newer.call("POST", f"{Q}/115/status/start").data
    assert ":hastart:115:" in upid
    assert newer.log(upid) == ["Requesting HA start for VM 115", "TASK OK"]
    assert newer.call("GET", f"{Q}/115/status/current").data["status"] == "stopped"
    assert newer.call("GET", f"{R}/vm:115").data["state"] == "started"
    for way in ("stop", "shutdown"):
        upid = newer.call("POST", f"{Q}/115/status/{way}").data
        assert f":ha{way}:115:" in upid
        assert newer.log(upid) == ["Requesting HA stop for VM 115", "TASK OK"]
    assert newer.call("PUT", f"{R}/vm:115", state="ignored").data is None
    assert ":qmstart:115:" in newer.call("POST", f"{Q}/115/status/start").data


def test_the_manager_does_what_was_asked_for(bench: Bench) -> None:
    bench.call("POST", R, sid="vm:115", state="started")
    until(lambda: state(bench) == "started")
    assert 115 in bench.guests.on
    starts = bench.call("GET", "/nodes/pve/tasks", typefilter="qmstart").data
    assert [row["user"] for row in starts] == ["root@pam"]
    (row,) = bench.call("GET", "/cluster/resources", type="vm").data
    assert row["hastate"] == "started"
    assert bench.done("POST", f"{Q}/115/status/stop") == "OK"
    until(lambda: state(bench) == "stopped")
    assert 115 not in bench.guests.on
    assert bench.done("POST", f"{Q}/115/status/start") == "OK"
    until(lambda: state(bench) == "started")
    rows = {row["id"] for row in bench.call("GET", "/cluster/ha/status/current").data}
    assert rows == {"quorum", "master", "lrm:pve", "service:vm:115"}


def test_a_machine_that_does_not_start_is_given_up(bench: Bench) -> None:
    bench.guests.broken.add(115)
    assert bench.raw("POST", R, data={"sid": "vm:115", "state": "started", "max_restart": 2}).data is None
    until(lambda: state(bench) == "error")
    assert len(bench.call("GET", "/nodes/pve/tasks", typefilter="qmstart", errors=1).data) == 3
    trouble = "service 'vm:115' in error state, must be disabled and fixed first"
    assert bench.call("PUT", f"{R}/vm:115", state="started").reason == trouble
    upid = bench.call("POST", f"{Q}/115/status/start").data
    assert bench.wait(upid) == "command 'ha-manager set vm:115 --state started' failed: exit code 255"
    assert trouble in bench.log(upid)
    bench.guests.broken.clear()
    assert bench.call("PUT", f"{R}/vm:115", state="disabled").data is None
    until(lambda: state(bench) == "stopped")
    assert bench.done("POST", f"{Q}/115/status/start") == "OK"
    until(lambda: state(bench) == "started")


def test_a_managed_machine_is_destroyed_only_with_purge(newer: Bench) -> None:
    for vmid in (115, 116):
        newer.call("POST", R, sid=f"vm:{vmid}")
    pinned = {"rule": "pinned", "type": "node-affinity", "nodes": "pve"}
    assert newer.call("POST", "/cluster/ha/rules", **pinned, resources="vm:115,vm:116").data is None
    refused = newer.call("DELETE", f"{Q}/115")
    assert refused.reason == "unable to remove VM 115 - used in HA resources and purge parameter not set."
    log = newer.log(newer.call("DELETE", f"{Q}/115", purge=1).data)
    assert log == [
        "purging VM 115 from related configurations..",
        "NOTE: removed VM 115 from HA resource configuration.",
        "TASK OK",
    ]
    assert [row["sid"] for row in newer.call("GET", R).data] == ["vm:116"]
    assert newer.call("GET", "/cluster/ha/rules/pinned").data["resources"] == "vm:116"
    assert newer.call("DELETE", f"{R}/vm:116").data is None
    assert newer.call("GET", "/cluster/ha/rules").data == []
    assert newer.call("DELETE", f"{R}/vm:116").reason == "cannot delete service 'vm:116', not HA managed!"


def test_rules_are_checked(newer: Bench) -> None:
    rules = "/cluster/ha/rules"
    newer.call("POST", R, sid="vm:115")
    apart = {"rule": "apart", "type": "resource-affinity"}
    missing = newer.call("POST", rules, **apart, resources="vm:115,vm:116").errors
    assert missing == {"affinity": "property is missing and it is not optional"}
    stranger = newer.call("POST", rules, **apart, affinity="negative", resources="vm:115,vm:116")
    assert stranger.reason == "create ha rule failed: cannot use unmanaged resource(s) vm:116."
    newer.call("POST", R, sid="vm:116")
    crowded = newer.call("POST", rules, **apart, affinity="negative", resources="vm:115,vm:116")
    assert crowded.reason == "create ha rule failed: 400 Rule 'apart' is invalid."
    assert "resources: rule defines more resources than available nodes" in crowded.body["message"]
    nowhere = newer.call("POST", rules, rule="there", type="node-affinity", nodes="pve9", resources="vm:115")
    assert nowhere.reason == "create ha rule failed: cannot use non-existant node(s) pve9."
    assert newer.call("POST", rules, **apart, affinity="positive", resources="vm:115,vm:116").data is None
    assert newer.call("PUT", f"{rules}/apart", type="resource-affinity", comment="hi", disable=1).data is None
    (row,) = newer.call("GET", rules, type="resource-affinity").data
    row.pop("digest")
    assert row == {
        "rule": "apart", "type": "resource-affinity", "affinity": "positive", "resources": "vm:115,vm:116",
        "comment": "hi", "disable": 1, "order": 1,
    }  # fmt: skip
    assert newer.call("DELETE", f"{rules}/apart").data is None
    assert newer.call("GET", f"{rules}/apart").status == 500


def test_groups_are_of_releases_before_rules(bench: Bench) -> None:
    groups = "/cluster/ha/groups"
    assert bench.call("POST", groups, group="fo-lab", nodes="pve:2", restricted=1).data is None
    assert bench.call("POST", groups, group="fo-lab", nodes="pve").status == 500
    assert bench.call("POST", R, sid="vm:115", group="nope", state="stopped").data is None
    assert bench.call("GET", R).data[0]["errors"] == {"group": "group 'nope' does not exist"}
    assert bench.call("PUT", f"{R}/vm:115", group="none").reason == "HA group 'none' does not exist"
    assert bench.call("PUT", f"{R}/vm:115", group="fo-lab").data is None
    assert bench.call("PUT", f"{groups}/fo-lab", nodes="pve").data is None
    found = bench.call("GET", f"{groups}/fo-lab").data
    assert (found["nodes"], found["restricted"], found["group"]) == ("pve", 1, "fo-lab")
    assert bench.call("DELETE", f"{groups}/fo-lab").status == 500
    assert bench.call("PUT", f"{R}/vm:115", delete="group").data is None
    assert bench.call("DELETE", f"{groups}/fo-lab").data is None
    assert bench.call("GET", "/cluster/ha/rules").status == 501


def test_groups_are_gone_in_newer_releases(newer: Bench) -> None:
    refused = newer.call("POST", "/cluster/ha/groups", group="fo", nodes="pve")
    assert refused.reason == "cannot create group: ha groups have been migrated to rules"
    weak = newer.call("POST", R, "weak@pve!t1", sid="vm:115")
    assert weak.reason == "Permission check failed (/, Sys.Console)"


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Bench]:
    """Three nodes with a shared storage, and a managed machine on each."""
    with pve_bench.bench(tmp_path, release="9.1", nodes=("pve", "pve2", "pve3")) as made:
        made.api.add_storage("shared", "dir", ("images",), shared=True)
        for vmid, node in ((115, "pve"), (116, "pve2"), (117, "pve3")):
            assert made.done("POST", f"/nodes/{node}/qemu", vmid=vmid, scsi0="shared:1") == "OK"
            made.call("POST", R, sid=f"vm:{vmid}", state="started")
        until(lambda: len(made.guests.on) == 3)
        yield made


def where(bench: Bench, vmid: int) -> tuple[str, str | None]:
    rows = {row["vmid"]: row for row in bench.call("GET", "/cluster/resources", type="vm").data}
    return rows[vmid]["node"], rows[vmid].get("hastate")


def test_a_lost_nodes_machine_is_recovered_elsewhere(three: Bench) -> None:
    apart = {"rule": "apart", "type": "resource-affinity", "affinity": "negative"}
    assert three.call("POST", "/cluster/ha/rules", **apart, resources="vm:115,vm:116").data is None
    three.api.take_down("pve2")
    until(lambda: where(three, 116) == ("pve3", "started"))
    assert 116 in three.guests.on


def test_recovery_waits_for_a_node_that_the_rules_allow(three: Bench) -> None:
    apart = {"rule": "apart", "type": "resource-affinity", "affinity": "negative"}
    assert three.call("POST", "/cluster/ha/rules", **apart, resources="vm:115,vm:116,vm:117").data is None
    three.api.take_down("pve2")
    until(lambda: where(three, 116) == ("pve2", "recovery"))
    assert three.call("PUT", "/cluster/ha/rules/apart", type="resource-affinity", disable=1).data is None
    until(lambda: where(three, 116)[1] == "started")
    assert where(three, 116)[0] != "pve2"
