"""A lab Proxmox of several nodes: storages, guests that move, peers that are down, a quorum that is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pve_bench
import pytest
import requests
from pve_bench import ROOT, Bench, Guests, qcow2

from funoffshore.config import Backup, loader, new
from funoffshore.lab import lab
from funoffshore.lab.pve import lab_fingerprint

NODES = ("pve1", "pve2", "pve3")
NO_QUORUM = "cluster not ready - no quorum?"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path, nodes=NODES) as made:
        made.api.add_storage("shared", "nfs", ("images", "iso", "import"), shared=True, size=64 << 30)
        made.api.add_storage("edge", "dir", ("images",), nodes=("pve3",))
        yield made


def storages(bench: Bench, node: str) -> set[str]:
    return {row["storage"] for row in bench.call("GET", f"/nodes/{node}/storage").data}


def row(bench: Bench, path: str, ident: str, key: str = "id") -> dict[str, Any]:
    """The row of a list that has that ID."""
    return next(found for found in bench.call("GET", path).data if found[key] == ident)


def test_a_storage_is_known_where_it_is_configured(bench: Bench) -> None:
    assert storages(bench, "pve3") - storages(bench, "pve1") == {"edge"}
    assert row(bench, "/nodes/pve2/storage", "shared", "storage")["shared"] == 1
    assert row(bench, "/nodes/pve2/storage", "shared", "storage")["total"] == 64 << 30
    ids = {found["id"] for found in bench.call("GET", "/cluster/resources", type="storage").data}
    assert {"storage/pve3/edge", "storage/pve1/shared"} <= ids
    assert "storage/pve1/edge" not in ids
    refused = bench.call("GET", "/nodes/pve1/storage/edge/content")
    assert (refused.status, refused.reason) == (500, "storage 'edge' is not available on node 'pve1'")
    assert bench.call("GET", "/nodes/pve1/storage/edge/status").errors == {"storage": "No such storage."}
    ended = bench.done("POST", "/nodes/pve1/qemu", vmid=100, scsi0="edge:1")
    assert ended == "unable to create VM 100 - storage 'edge' is not available on node 'pve1'"
    assert bench.done("POST", "/nodes/pve3/qemu", vmid=100, scsi0="edge:1") == "OK"


def test_a_shared_storage_holds_one_set_of_volumes(bench: Bench) -> None:
    seed = {"filename": ("seed.iso", b"seed")}
    path = "/nodes/pve2/storage/{}/upload"
    assert bench.wait(bench.raw("POST", path.format("shared"), data={"content": "iso"}, files=seed).data) == "OK"
    assert bench.wait(bench.raw("POST", path.format("local"), data={"content": "iso"}, files=seed).data) == "OK"
    for node, local in (("pve1", False), ("pve2", True), ("pve3", False)):
        assert row(bench, f"/nodes/{node}/storage/shared/content", "shared:iso/seed.iso", "volid")["size"] == 4
        found = {one["volid"] for one in bench.call("GET", f"/nodes/{node}/storage/local/content").data}
        assert ("local:iso/seed.iso" in found) is local
    assert bench.done("POST", "/nodes/pve2/qemu", vmid=101, scsi0="shared:1", scsi1="vmstore:1") == "OK"
    for node, count in (("pve1", 1), ("pve2", 2)):
        volumes = [
            *bench.call("GET", f"/nodes/{node}/storage/shared/content", content="images").data,
            *bench.call("GET", f"/nodes/{node}/storage/vmstore/content", content="images").data,
        ]
        assert len(volumes) == count


def test_calls_for_another_node_reach_it(bench: Bench) -> None:
    upid = bench.call("POST", "/nodes/pve2/qemu", vmid=102, name="far").data
    assert upid.startswith("UPID:pve2:")
    assert bench.wait(upid) == "OK"
    assert bench.call("GET", "/nodes/pve2/qemu/102/config").data["name"] == "far"
    absent = bench.call("GET", "/nodes/pve1/qemu/102/config")
    assert absent.reason == "Configuration file 'nodes/pve1/qemu-server/102.conf' does not exist"
    taken = bench.call("POST", "/nodes/pve1/qemu", vmid=102)
    assert taken.reason == "unable to create VM 102 - VM 102 already exists on node 'pve2'"
    assert [task["upid"] for task in bench.call("GET", "/nodes/pve2/tasks").data] == [upid]
    assert bench.call("GET", "/nodes/pve1/tasks").data == []
    assert upid in {task["upid"] for task in bench.call("GET", "/cluster/tasks").data}
    assert bench.call("GET", "/cluster/tasks", "weak@pve!t1").data == []
    assert row(bench, "/cluster/resources", "qemu/102")["node"] == "pve2"


def test_a_machine_moves_with_its_disks(bench: Bench) -> None:
    bench.put_file("iso/seed.iso", b"seed")
    disks = {"scsi0": "vmstore:1", "scsi1": "shared:1", "ide2": "local:iso/seed.iso,media=cdrom"}
    assert bench.done("POST", "/nodes/pve1/qemu", vmid=103, **disks) == "OK"
    assert bench.done("POST", "/nodes/pve1/qemu/103/status/start") == "OK"
    bench.api.move(103, "pve2")
    assert bench.call("GET", "/nodes/pve1/qemu/103/config").status == 500
    config = bench.call("GET", "/nodes/pve2/qemu/103/config").data
    assert config["scsi0"] == "vmstore:103/vm-103-disk-0.raw,size=1G"
    assert config["ide2"] == "none,media=cdrom"
    assert row(bench, "/cluster/resources", "qemu/103")["status"] == "running"
    assert bench.call("GET", "/nodes/pve1/storage/vmstore/content").data == []
    assert bench.done("PUT", "/nodes/pve2/qemu/103/resize", disk="scsi0", size="2G") == "OK"
    assert bench.done("PUT", "/nodes/pve2/qemu/103/resize", disk="scsi1", size="2G") == "OK"
    with pytest.raises(ValueError, match="no node pve9"):
        bench.api.move(103, "pve9")


def test_a_template_is_cloned(bench: Bench) -> None:
    bench.api.add_template(9000, "debian", node="pve2", disk_gib=3, storage="shared")
    config = bench.call("GET", "/nodes/pve2/qemu/9000/config").data
    assert (config["template"], config["scsi0"]) == (1, "shared:9000/base-9000-disk-0.qcow2,size=3G")
    assert row(bench, "/cluster/resources", "qemu/9000")["template"] == 1
    ended = bench.done("POST", "/nodes/pve2/qemu/9000/status/start")
    assert ended == "you can't start a vm if it's a template"
    sent: dict[str, Any] = {"newid": 130, "name": "c1", "full": 1, "target": "pve1", "storage": "shared"}
    assert bench.done("POST", "/nodes/pve2/qemu/9000/clone", **sent) == "OK"
    copy = bench.call("GET", "/nodes/pve1/qemu/130/config").data
    assert "template" not in copy
    assert copy["scsi0"] == "shared:130/vm-130-disk-0.qcow2,size=3G"
    assert bench.done("POST", "/nodes/pve1/qemu/130/status/start") == "OK"
    assert bench.guests.on[130].image == "local:import/cloud.qcow2"
    assert bench.guests.on[130].disk_gib == 3.0


def test_a_peer_that_is_down(bench: Bench) -> None:
    bench.api.add_stranger(104, "lost", node="pve2")
    bench.api.edit(104, tags="a;b", onboot=1)
    assert bench.done("POST", "/nodes/pve2/qemu/104/status/start") == "OK"
    bench.api.take_down("pve2")
    assert 104 not in bench.guests.on
    answer = bench.call("GET", "/nodes/pve2/qemu/104/config")
    assert (answer.status, answer.reason, answer.body) == (595, "No route to host", "")
    assert answer.headers["Connection"] == "close"
    assert bench.call("POST", "/nodes/pve2/qemu/104/status/start").status == 595
    assert bench.call("GET", "/nodes/pve2/qemu/104/config", "weak@pve!t1").status == 403
    assert bench.call("GET", "/nodes/pve9/qemu/104/config").reason.startswith("hostname lookup 'pve9' failed")
    down = row(bench, "/nodes", "node/pve2")
    assert {key: down[key] for key in ("status", "node", "type")} == {
        "status": "offline", "node": "pve2", "type": "node",
    }  # fmt: skip
    assert "maxmem" not in down
    lost = {"id": "qemu/104", "vmid": 104, "node": "pve2", "type": "qemu", "status": "unknown", "tags": "a;b"}
    assert row(bench, "/cluster/resources", "qemu/104") == lost
    assert row(bench, "/cluster/resources", "storage/pve2/shared")["status"] == "unknown"
    status = bench.call("GET", "/cluster/status").data
    assert [found["online"] for found in status[1:]] == [1, 0, 1]
    assert (status[0]["quorate"], status[0]["nodes"]) == (1, 3)
    bench.api.bring_up("pve2")
    assert bench.call("GET", "/nodes/pve2/qemu/104/status/current").data["status"] == "running"
    with pytest.raises(ValueError, match="the node that answers"):
        bench.api.take_down("pve1")


def test_a_peer_whose_api_refuses(bench: Bench) -> None:
    bench.api.take_down("pve3", "Connection refused")
    answer = bench.call("GET", "/nodes/pve3/status")
    assert (answer.status, answer.reason) == (595, "Connection refused")


def test_without_a_quorum_nothing_is_written(bench: Bench) -> None:
    assert bench.done("POST", "/nodes/pve1/qemu", vmid=105) == "OK"
    assert bench.done("POST", "/nodes/pve1/qemu", vmid=106) == "OK"
    assert bench.done("POST", "/nodes/pve1/qemu/106/status/start") == "OK"
    bench.api.take_down("pve2")
    bench.api.take_down("pve3")
    assert bench.call("GET", "/cluster/status").data[0]["quorate"] == 0
    assert bench.call("GET", "/nodes/pve1/qemu/105/config").status == 200
    for method, path, sent in (
        ("POST", "/nodes/pve1/qemu", {"vmid": 107}),
        ("PUT", "/nodes/pve1/qemu/105/config", {"cores": 2}),
        ("DELETE", "/nodes/pve1/qemu/105", {}),
        ("POST", "/pools", {"poolid": "fo"}),
    ):
        answer = bench.call(method, path, **sent)
        assert (answer.status, answer.reason, answer.body["message"]) == (500, NO_QUORUM, f"{NO_QUORUM}\n")
    upid = bench.call("POST", "/nodes/pve1/qemu/105/status/start").data
    assert bench.log(upid) == [f"TASK ERROR: {NO_QUORUM}"]
    assert bench.done("POST", "/nodes/pve1/qemu/106/status/stop") == "OK"
    bench.api.bring_up("pve2")
    assert bench.call("PUT", "/nodes/pve1/qemu/105/config", cores=2).data is None


def test_memory_is_what_the_operator_says(bench: Bench) -> None:
    bench.api.set_memory("pve2", 64 << 30, 60 << 30)
    found = row(bench, "/nodes", "node/pve2")
    assert (found["maxmem"], found["mem"]) == (64 << 30, 60 << 30)
    memory = bench.call("GET", "/nodes/pve2/status").data["memory"]
    assert (memory["total"], memory["free"]) == (64 << 30, 4 << 30)
    bench.api.set_memory("pve2", 64 << 30)
    before = row(bench, "/nodes", "node/pve2")["mem"]
    assert bench.done("POST", "/nodes/pve2/qemu", vmid=108, memory=4096) == "OK"
    assert bench.done("POST", "/nodes/pve2/qemu/108/status/start") == "OK"
    assert before < row(bench, "/nodes", "node/pve2")["mem"] < 64 << 30


def test_task_lists_filter_as_the_real_ones(bench: Bench) -> None:
    made = bench.call("POST", "/nodes/pve1/qemu", vmid=110).data
    bench.wait(made)
    bench.kit.faults.on("task-fail", type="qmstart", times="1")
    failed = bench.call("POST", "/nodes/pve1/qemu/110/status/start").data
    bench.wait(failed)
    bench.kit.faults.on("task-hang", type="qmstart")
    running = bench.call("POST", "/nodes/pve1/qemu/110/status/start").data

    def listed(**asked: Any) -> list[str]:
        return [task["upid"] for task in bench.call("GET", "/nodes/pve1/tasks", **asked).data]

    assert listed() == [failed, made]
    assert listed(source="active") == [running]
    assert listed(source="all") == [running, failed, made]
    assert listed(source="all", limit=2) == [running, failed]
    assert listed(source="all", typefilter="qmstart") == [running, failed]
    assert listed(errors=1) == [failed]
    assert listed(vmid=110, typefilter="qmcreate") == [made]
    assert listed(vmid=111) == []
    assert listed(since=int(bench.kit.clock.now()) + 60) == []
    ended = bench.call("GET", "/nodes/pve1/tasks", errors=1).data[0]
    assert ended["status"] == "start failed: QEMU exited with code 1"
    assert ended["endtime"] >= ended["starttime"]
    active = bench.call("GET", "/nodes/pve1/tasks", source="active").data[0]
    assert (active["status"], active["user"]) == ("RUNNING", ROOT)
    told = {task["upid"]: task for task in bench.call("GET", "/cluster/tasks").data}
    assert "endtime" not in told[running]
    assert (told[made]["status"], told[made]["saved"]) == ("OK", "1")
    bench.kit.faults.off("task-hang")
    assert bench.wait(running) == "OK"


def test_a_cluster_outlives_its_process(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, nodes=NODES) as first:
        first.api.add_storage("shared", "nfs", ("images",), shared=True, nodes=("pve1", "pve2"), size=1 << 30)
        assert first.done("POST", "/nodes/pve2/qemu", vmid=120, scsi0="shared:1") == "OK"
        assert first.done("POST", "/nodes/pve2/qemu/120/status/start") == "OK"
        assert first.done("POST", "/nodes/pve1/qemu", vmid=121) == "OK"
        assert first.done("POST", "/nodes/pve1/qemu/121/status/start") == "OK"
        first.api.set_memory("pve2", 1 << 30)
        first.api.take_down("pve2")
        net = first.address.removesuffix(".2")
    again = Bench(pve_bench.kit(tmp_path), Guests(), net, "8.4", NODES)
    again.api.start()
    try:
        assert set(again.guests.on) == {121}
        assert again.call("GET", "/nodes/pve2/status").status == 595
        assert storages(again, "pve1") - storages(again, "pve3") == {"shared"}
        again.api.bring_up("pve2")
        assert again.call("GET", "/nodes/pve2/status").data["memory"]["total"] == 1 << 30
        volumes = again.call("GET", "/nodes/pve1/storage/shared/content").data
        assert [found["volid"] for found in volumes] == ["shared:120/vm-120-disk-0.raw"]
    finally:
        again.session.close()
        again.api.stop()
        again.kit.clock.stop()
        again.kit.store.close()


def test_sixteen_nodes(tmp_path: Path) -> None:
    names = tuple(f"pve{number}" for number in range(1, 17))
    with pve_bench.bench(tmp_path, nodes=names) as bench:
        bench.put_file("import/cloud.qcow2", qcow2(1 << 30))
        for number, node in enumerate(names):
            assert bench.done("POST", f"/nodes/{node}/qemu", vmid=200 + number, scsi0="vmstore:1") == "OK"
        for node in names[9:]:
            bench.api.take_down(node)
        status = bench.call("GET", "/cluster/status").data
        assert (status[0]["nodes"], status[0]["quorate"]) == (16, 1)
        bench.api.take_down(names[8])
        assert bench.call("GET", "/cluster/status").data[0]["quorate"] == 0
        rows = bench.call("GET", "/cluster/resources", type="vm").data
        assert [found["status"] for found in rows] == ["stopped"] * 8 + ["unknown"] * 8


def test_the_lab_of_a_cluster_has_its_nodes_and_storages(tmp_path: Path) -> None:
    pins = dict.fromkeys(("PROXMOX_FINGERPRINT", "K3S_SHA256", "FLUX_INSTALL_SHA256", "IMAGE_SHA256"), "a" * 64)
    answers = {**pins, "SUBNET": f"{pve_bench.subnet()}.0/24"}
    config = loader.parse(new.generate("lab", answers, lab=True), "lab", tmp_path)
    lent = replace(config.proxmox, nodes=NODES, high_availability=True, disk_storage="disks", image_storage="images")
    secret = lent.token_secret.get_secret_value()
    with lab.serving(replace(config, proxmox=lent, backup=Backup("vault"))), requests.Session() as session:
        session.trust_env = False
        session.verify = False
        session.mount("https://", pve_bench.Pinned(lab_fingerprint(secret, str(urlsplit(lent.url).hostname))))
        session.headers["Authorization"] = f"PVEAPIToken={lent.token_id}={secret}"
        found = session.get(f"{lent.url}/api2/json/nodes/pve3/storage", timeout=20).json()["data"]
    assert {row["storage"]: (row["content"], row["type"], row["shared"]) for row in found} == {
        "images": ("iso,import", "dir", 0),
        "disks": ("images,rootdir", "nfs", 1),
        "vault": ("backup", "nfs", 1),
        "local": ("iso,vztmpl,import,backup", "dir", 0),
        "local-lvm": ("images,rootdir", "lvmthin", 0),
    }
