"""What fo does not ask for, but other people's tools do: users and rights, storages, moves to other nodes, indexes.

Requests and answers are held against the official description where that is at hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pve_bench
import pytest
from pve_bench import ROOT, Bench
from test_pve_answers_official import OFFICIAL, Checked

MACHINE = "/nodes/pve2/qemu/150"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path, nodes=("pve", "pve2", "pve3")) as made:
        made.api.add_storage("shared", "nfs", ("images",), shared=True)
        made.api.add_storage("only2", "dir", ("images",), nodes=("pve2",))
        yield made


@pytest.fixture(params=sorted(OFFICIAL))
def checked(request: pytest.FixtureRequest, tmp_path: Path, shared: Path) -> Iterator[Checked]:
    description = json.loads((shared / "pve-api" / OFFICIAL[request.param]).read_text())
    with pve_bench.bench(tmp_path, release=request.param, nodes=("pve", "pve2")) as made:
        yield Checked(made, description["paths"])


def test_users_and_rights_are_as_described(checked: Checked) -> None:
    def root(method: str, path: str, /, **parameters: Any) -> None:
        checked(method, path, token=ROOT, **parameters)

    root("POST", "/access/groups", groupid="team", comment="all")
    root("POST", "/access/users", userid="ann@pve", email="ann@example.org", groups="team", password="secret-123")
    root("PUT", "/access/users/ann@pve", lastname="Ops", expire=4102444800)
    root("POST", "/access/users/ann@pve/token/one", comment="hers", expire=4102444800)
    root("POST", "/access/roles", roleid="Look", privs="VM.Audit")
    root("PUT", "/access/roles/Look", privs="Pool.Audit", append=1)
    root("PUT", "/access/acl", path="/vms", roles="Look", groups="team", propagate=0)
    for path in ("users", "users/ann@pve", "users/ann@pve/token", "users/ann@pve/token/one", "groups", "groups/team"):
        root("GET", f"/access/{path}")
    for path in ("roles", "roles/Look", "acl", "domains", "domains/pve"):
        root("GET", f"/access/{path}")
    root("GET", "/access/users", full=1, enabled=1)
    root("PUT", "/access/groups/team", comment="few")
    root("PUT", "/access/acl", path="/vms", roles="Look", groups="team", delete=1)
    for path in ("users/ann@pve/token/one", "users/ann@pve", "groups/team", "roles/Look"):
        root("DELETE", f"/access/{path}")
    assert checked.found == []


def test_the_rest_is_as_described(checked: Checked) -> None:
    checked.task("POST", "/nodes/pve/qemu", vmid=150, scsi0="vmstore:1")
    checked("PUT", "/nodes/pve/qemu/150/unlink", idlist="scsi0")
    checked("GET", "/nodes/pve/qemu/150/migrate", token=ROOT, target="pve2")
    upid = checked("POST", "/nodes/pve/qemu/150/migrate", token=ROOT, target="pve2").data
    assert checked._bench.wait(upid) == "OK"
    checked("POST", "/storage", token=ROOT, storage="nas", type="nfs", server="192.0.2.9", export="/x", nodes="pve")
    for path in ("/storage", "/nodes/pve/lxc", "/nodes/pve/version", "/nodes/pve/subscription"):
        checked("GET", path)
    for path in ("/cluster/config/qdevice", "/cluster/backup-info/not-backed-up", "/nodes/pve/replication"):
        checked("GET", path)
    checked("GET", "/storage/nas")
    checked("DELETE", "/storage/nas", token=ROOT)
    for what in ("groups", "aliases", "ipset", "rules"):
        checked("GET", f"/cluster/firewall/{what}")
    for what in ("aliases", "ipset"):
        checked("GET", f"/nodes/pve2/qemu/150/firewall/{what}")
    assert checked.found == []


def test_groups_give_rights_and_a_nearer_entry_replaces_them(bench: Bench) -> None:
    def held(path: str) -> dict[str, int]:
        rows: dict[str, dict[str, int]] = bench.call("GET", "/access/permissions", userid="ann@pve", path=path).data
        return rows[path]

    bench.call("POST", "/access/groups", groupid="team")
    bench.call("POST", "/access/users", userid="ann@pve", groups="team")
    give = {"roles": "PVETemplateUser", "groups": "team"}
    assert bench.call("PUT", "/access/acl", path="/vms", **give).data is None
    assert held("/vms/100") == {"VM.Clone": 1, "VM.Audit": 1}
    assert bench.call("PUT", "/access/acl", path="/vms/", roles="NoAccess", users="ann@pve").data is None
    assert held("/vms/100") == {}
    assert bench.call("PUT", "/access/acl", path="/vms/7", propagate=0, **give).data is None
    assert (held("/vms/7"), held("/vms/7/x")) == ({"VM.Clone": 0, "VM.Audit": 0}, {})
    assert bench.call("DELETE", "/access/groups/team").data is None
    assert held("/vms/7") == {}


def test_what_users_are_refused(bench: Bench) -> None:
    add = "/access/users"
    assert bench.call("POST", add, userid="ann@nope").reason == "create user failed: domain 'nope' does not exist"
    assert bench.call("POST", add, userid="ann@pve", password="short").errors == {
        "password": "value must be at least 8 characters long"
    }
    assert bench.call("POST", add, userid="ann@pve").data is None
    assert bench.call("POST", add, userid="ann@pve").reason == "create user failed: user 'ann@pve' already exists"
    assert bench.call("POST", add, "weak@pve!t1", userid="b@pve").reason == (
        "Permission check failed (/access/realm/pve, Realm.AllocateUser)"
    )
    assert [row["userid"] for row in bench.call("GET", add, "weak@pve!t1").data] == ["weak@pve"]
    refused = bench.call("PUT", "/access/acl", path="/vms", roles="Nope", users="ann@pve")
    assert refused.reason == "ACL update failed: role 'Nope' does not exist"
    refused = bench.call("PUT", "/access/acl", "weak@pve!t1", path="/vms", roles="NoAccess", users="ann@pve")
    assert refused.reason == "Permission check failed (/vms, VM.Allocate|Permissions.Modify)"
    refused = bench.call("PUT", "/access/password", userid="ann@pve", password="long-enough")
    assert refused.reason.endswith("(URI '/access/password' not available with API token, need proper ticket.")
    given = bench.call("POST", "/access/users/ann@pve/token/one").data
    token = {"Authorization": f"PVEAPIToken=ann@pve!one={given['value']}"}
    assert bench.raw("GET", "/version", "", headers=token).status == 200
    assert bench.call("PUT", "/access/users/ann@pve", enable=0).data is None
    assert bench.raw("GET", "/version", "", headers=token).reason == "user 'ann@pve' is disabled"
    assert bench.call("GET", "/access/domains", "").data[0]["realm"] == "pam"


def test_rights_outlive_the_lab(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path) as first:
        first.call("POST", "/access/roles", roleid="Look", privs="VM.Audit")
        first.call("POST", "/access/users", userid="ann@pve")
        first.call("PUT", "/access/acl", path="/vms", roles="Look", users="ann@pve")
        before = first.call("GET", "/access/acl").data
    with pve_bench.bench(tmp_path) as again:
        assert again.call("GET", "/access/acl").data == before
        assert again.call("GET", "/access/permissions", userid="ann@pve", path="/vms").data == {"/vms": {"VM.Audit": 1}}


def test_a_machine_moves_with_its_disks_or_says_why_not(bench: Bench) -> None:
    assert bench.done("POST", "/nodes/pve2/qemu", vmid=150, scsi0="shared:1", scsi1="vmstore:1") == "OK"
    assert bench.call("POST", f"{MACHINE}/migrate", target="pve2").errors == {"target": "target is local node."}
    assert bench.call("POST", f"{MACHINE}/migrate", target="x9").reason == "no such cluster node 'x9'"
    assert bench.call("GET", f"{MACHINE}/migrate").data["allowed_nodes"] == ["pve", "pve3"]
    assert bench.done("POST", f"{MACHINE}/status/start") == "OK"
    refused = bench.call("POST", f"{MACHINE}/migrate", target="pve3")
    assert refused.reason == "can't migrate running VM without --online"
    assert bench.done("POST", f"{MACHINE}/migrate", target="pve3", online=1) == "migration aborted"
    assert bench.done("POST", f"{MACHINE}/migrate", target="pve3", online=1, with_local_disks=1) == "OK"
    row = bench.call("GET", "/nodes/pve3/qemu").data[0]
    assert (row["vmid"], row["status"]) == (150, "running")
    assert bench.done("POST", "/nodes/pve3/qemu/150/status/stop") == "OK"
    assert bench.done("POST", "/nodes/pve2/qemu", vmid=151, scsi0="only2:1") == "OK"
    path = "/nodes/pve2/qemu/151/migrate"
    assert bench.call("GET", path).data["not_allowed_nodes"]["pve"] == {"unavailable_storages": ["only2"]}
    assert bench.call("POST", path, target="pve").reason == "storage 'only2' is not available on node 'pve'"


def test_unlink_leaves_a_disk_or_destroys_it(bench: Bench) -> None:
    path = "/nodes/pve/qemu/152"
    assert bench.done("POST", "/nodes/pve/qemu", vmid=152, scsi0="vmstore:1", scsi1="vmstore:1") == "OK"
    assert bench.call("PUT", f"{path}/unlink", idlist="scsi0").data is None
    assert bench.config(152)["unused0"].startswith("vmstore:152/vm-152-disk-0")
    assert bench.call("PUT", f"{path}/unlink", idlist="scsi1", force=1).data is None
    assert "unused1" not in bench.config(152)
    assert [row["volid"] for row in bench.call("GET", "/nodes/pve/storage/vmstore/content").data] == [
        bench.config(152)["unused0"]
    ]


def test_storages_are_made_and_taken_away(bench: Bench) -> None:
    server = {"type": "pbs", "server": "192.0.2.9", "datastore": "all", "username": "fo@pbs", "password": "hidden"}
    assert bench.call("POST", "/storage", storage="safe", **server).data == {"storage": "safe", "type": "pbs"}
    found = bench.call("GET", "/storage/safe").data
    assert (found["content"], found["datastore"], "password" in found) == ("backup", "all", False)
    refused = bench.call("POST", "/storage", storage="safe", **server)
    assert refused.reason == "create storage failed: storage ID 'safe' already defined"
    assert bench.call("POST", "/storage", storage="nas", type="nfs", server="192.0.2.9").errors == {
        "export": "property is missing and it is not optional"
    }
    refused = bench.call("POST", "/storage", storage="zfs", type="zfspool")
    assert refused.reason.startswith("create storage failed: the lab has no storage of type 'zfspool'")
    assert bench.call("DELETE", "/storage/safe").data is None
    assert bench.call("DELETE", "/storage/safe").reason == "delete storage failed: storage 'safe' does not exist"
    assert [row["storage"] for row in bench.call("GET", "/storage", type="pbs").data] == []


def test_pools_hold_storages(bench: Bench) -> None:
    bench.call("POST", "/pools", poolid="web")
    assert bench.call("PUT", "/pools/web", storage="shared").data is None
    refused = bench.call("PUT", "/pools/web", storage="shared")
    assert refused.reason == "update pools failed: Storage 'shared' is already a pool member"
    members = bench.call("GET", "/pools/web").data["members"]
    assert {(row["storage"], row["node"]) for row in members} == {("shared", n) for n in ("pve", "pve2", "pve3")}
    refused = bench.call("DELETE", "/pools/web")
    assert refused.reason == "delete pool failed: pool 'web' is not empty (contains storage shared)"
    assert bench.call("PUT", "/pools/web", storage="shared", delete=1).data is None
    assert bench.call("DELETE", "/pools/web").data is None


def test_paths_that_are_no_operation_say_what_is_below(bench: Bench) -> None:
    names = {row["subdir"] for row in bench.call("GET", "/").data}
    assert names == {"access", "cluster", "nodes", "pools", "storage", "version"}
    assert {"name": "resources"} in bench.call("GET", "/cluster").data
    assert {"subdir": "start"} in bench.call("GET", "/nodes/pve/qemu/100/status").data
    assert bench.call("GET", "/nodes/pve/nothing").status == 501
    assert bench.call("POST", "/cluster").status == 501
