"""Users who log in to the lab's Proxmox, as recorded from a real 8.4 API; who has which rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pve_bench
import pytest
from pve_bench import Answer, Bench

Q = "/nodes/pve/qemu"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        made.api.add_user("fo@pve", "secret123")
        made.api.add_user("root@pam", "toor")
        yield made


def login(bench: Bench, **how: str) -> dict[str, Any]:
    found: dict[str, Any] = bench.call("POST", "/access/ticket", "", **how).data
    return found


def shown(bench: Bench, method: str, path: str, headers: dict[str, str], **how: Any) -> Answer:
    return bench.raw(method, path, "", headers=headers, **how)


def test_a_ticket_is_as_recorded(bench: Bench) -> None:
    found = login(bench, username="fo@pve", password="secret123")
    assert (found["username"], found["ticket"][:11]) == ("fo@pve", "PVE:fo@pve:")
    assert "::" in found["ticket"]
    assert set(found["cap"]) == {"access", "dc", "storage", "vms", "nodes", "sdn", "mapping"}
    assert found["cap"]["nodes"] == {"Sys.Audit": 1, "Sys.AccessNetwork": 1}
    assert found["cap"]["vms"]["VM.Allocate"] == 1
    assert login(bench, username="fo", realm="pve", password="secret123")["username"] == "fo@pve"
    assert login(bench, username="fo@pve", password=found["ticket"])["ticket"]


@pytest.mark.parametrize(
    "how",
    [
        {"username": "fo@pve", "password": "wrong"},
        {"username": "fo@nope", "password": "secret123"},
        {"username": "nobody@pve", "password": "secret123"},
        {"username": "fo", "password": "secret123"},
        {"username": "fo@pve!t1", "password": pve_bench.SECRET},
    ],
)
def test_a_login_that_fails(bench: Bench, how: dict[str, str]) -> None:
    refused = bench.call("POST", "/access/ticket", "", **how)
    assert (refused.status, refused.reason) == (401, "authentication failure")
    assert refused.body == {"data": None, "message": "authentication failure\n"}


def test_a_ticket_is_good_for_reading_and_with_its_token_for_writing(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=115) == "OK"
    found = login(bench, username="fo@pve", password="secret123")
    raw, encoded = found["ticket"], quote(found["ticket"], safe="")
    for headers in (
        {"Cookie": f"PVEAuthCookie={raw}"},
        {"Cookie": f"a=b; PVEAuthCookie={encoded}"},
        {"Authorization": f"PVEAuthCookie={encoded}"},
    ):
        assert shown(bench, "GET", "/version", headers).data["release"] == "8.4"
    cookie = {"Cookie": f"PVEAuthCookie={encoded}"}
    for token in ({}, {"CSRFPreventionToken": "00000000:wrong"}):
        refused = shown(bench, "PUT", f"{Q}/115/config", {**cookie, **token}, data={"cores": 2})
        assert (refused.status, refused.reason) == (401, "Permission denied - invalid csrf token")
    written = {**cookie, "CSRFPreventionToken": found["CSRFPreventionToken"]}
    assert shown(bench, "PUT", f"{Q}/115/config", written, data={"cores": 2}).data is None
    bad = {
        "Cookie": "PVEAuthCookie=PVE:fo@pve:00000000::x",
        "Authorization": f"PVEAPIToken=fo@pve!t1={pve_bench.SECRET}",
    }
    refused = shown(bench, "GET", "/version", bad)
    assert (refused.status, refused.reason) == (401, "permission denied - invalid PVE ticket")
    assert shown(bench, "GET", "/version", {}).reason == "No ticket"


def test_only_root_in_person_repairs_a_machine_that_a_killed_task_left(bench: Bench) -> None:
    bench.kit.faults.on("task-lost", type="qmcreate", vmid="142", times="1")
    assert bench.wait(bench.call("POST", Q, vmid=142, scsi0="vmstore:1").data) == "unexpected status"
    path = f"{Q}/142"
    assert bench.call("DELETE", path, skiplock=1).errors == {"skiplock": "Only root may use this option."}
    assert bench.call("PUT", f"{path}/config", delete="lock").reason == "only root can set 'lock' config"
    found = login(bench, username="root@pam", password="toor")
    root = {"Cookie": f"PVEAuthCookie={quote(found['ticket'], safe='')}"}
    root["CSRFPreventionToken"] = found["CSRFPreventionToken"]
    assert shown(bench, "PUT", f"{path}/config", root, data={"delete": "lock"}).reason == "VM is locked (create)"
    upid = shown(bench, "DELETE", path, root, params={"skiplock": 1, "destroy-unreferenced-disks": 1}).data
    assert bench.wait(upid) == "OK"
    assert bench.call("GET", f"{path}/config").status == 500
    assert bench.call("GET", "/nodes/pve/storage/vmstore/content").data == []


def test_rights_and_roles_are_listed(bench: Bench) -> None:
    rows = bench.call("GET", "/access/acl").data
    mine = {row["path"]: row for row in rows if row["ugid"] == "fo@pve!t1"}
    assert (mine["/vms"]["type"], mine["/vms"]["propagate"]) == ("token", 1)
    roles = {row["roleid"]: row["privs"].split(",") for row in bench.call("GET", "/access/roles").data}
    assert "VM.Allocate" in roles[mine["/vms"]["roleid"]]
    assert "Sys.Modify" in roles["Administrator"]
    assert bench.call("GET", "/access/acl", "weak@pve!t1").data == []
