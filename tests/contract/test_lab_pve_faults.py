"""Each fault of the lab's Proxmox on the wire: the words of the real server, as often as told, for what is meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pve_bench
import pytest
import requests
from pve_bench import Bench, qcow2, sha256

from funoffshore import errors
from funoffshore.cli import lab as command
from funoffshore.lab.base import Faults, Latencies

Q = "/nodes/pve/qemu"
S = "/nodes/pve/storage"
IMPORT = "vmstore:0,import-from=local:import/deb.qcow2"
IMAGE = qcow2(300 << 20)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        yield made


def test_the_id_is_taken_a_moment_before(bench: Bench) -> None:
    bench.kit.faults.on("vmid-race", vmid="101", times="1")
    assert bench.done("POST", Q, vmid=100) == "OK"
    answer = bench.call("POST", Q, vmid=101, name="ours")
    assert (answer.status, answer.reason) == (500, "unable to create VM 101 - VM 101 already exists on node 'pve'")
    assert bench.config(101)["name"] == "stranger-101"
    assert bench.done("DELETE", f"{Q}/101") == "OK"
    assert bench.done("POST", Q, vmid=101, name="ours") == "OK"


def test_a_lock_file_is_not_to_be_had(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=100, scsi0="vmstore:1") == "OK"
    timeout = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"
    bench.kit.faults.on("lock-timeout", vmid="100", times="2")
    answer = bench.call("PUT", f"{Q}/100/config", cores=2)
    assert (answer.status, answer.reason, answer.body["message"]) == (500, timeout, f"{timeout}\n")
    upid = bench.call("PUT", f"{Q}/100/resize", disk="scsi0", size="2G").data
    assert bench.log(upid) == ["trying to acquire lock...", f"TASK ERROR: {timeout}"]
    assert bench.call("PUT", f"{Q}/100/config", cores=2).data is None


def test_a_storage_s_lock_is_not_to_be_had(bench: Bench) -> None:
    bench.kit.faults.on("lock-timeout", storage="vmstore", times="1")
    refused = "unable to create VM 100 - cfs-lock 'storage-vmstore' error: got lock request timeout"
    upid = bench.call("POST", Q, vmid=100, scsi0=IMPORT).data
    assert bench.wait(upid) == refused
    assert bench.log(upid)[-1] == f"TASK ERROR: {refused}"
    assert bench.call("GET", f"{Q}/100/config").status == 500
    assert bench.done("POST", Q, vmid=100, scsi0=IMPORT) == "OK"
    bench.kit.faults.on("lock-timeout", storage="vmstore", vmid="100", times="1")
    ended = bench.done("DELETE", f"{S}/vmstore/content/vmstore:100/vm-100-disk-0.qcow2")
    assert ended == "cfs-lock 'storage-vmstore' error: got lock request timeout"


def test_there_is_no_worker(bench: Bench) -> None:
    bench.kit.faults.on("no-worker", type="qmstart", times="1")
    assert bench.done("POST", Q, vmid=100) == "OK"
    answer = bench.call("POST", f"{Q}/100/status/start")
    assert (answer.status, answer.reason) == (500, "got no worker upid - start worker failed")
    assert bench.done("POST", f"{Q}/100/status/start") == "OK"
    bench.kit.faults.on("no-worker", type="qmcreate", times="1")
    assert bench.call("POST", Q, vmid=101).reason == "got no worker upid - start worker failed"
    assert bench.config(101)["lock"] == "create"
    assert bench.done("DELETE", f"{Q}/101") == "VM is locked (create)"


def test_the_reply_is_lost_behind_the_proxy(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=100) == "OK"
    bench.kit.faults.on("pve-596", times="1")
    assert bench.call("GET", f"{Q}/100/config").status == 200
    answer = bench.call("PUT", f"{Q}/100/config", cores=3)
    assert (answer.status, answer.reason, answer.body) == (596, "Connection timed out", "")
    assert answer.headers["Connection"] == "close"
    assert bench.config(100)["cores"] == 3
    bench.kit.faults.on("pve-596", method="POST", path="/nodes/*/qemu", times="1")
    assert bench.call("PUT", f"{Q}/100/config", cores=4).data is None
    assert bench.call("POST", Q, vmid=101).status == 596
    made = bench.call("GET", "/nodes/pve/tasks", source="all", vmid=101).data[0]
    assert bench.wait(made["upid"]) == "OK"


def test_the_lost_reply_takes_as_long_as_on_the_real_one(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, latencies=Latencies(api=0.001), speed=500) as bench:
        bench.kit.faults.on("pve-596", times="1")
        before = bench.kit.clock.monotonic()
        assert bench.call("POST", "/pools", poolid="fo").status == 596
        assert bench.kit.clock.monotonic() - before >= 30
        assert [pool["poolid"] for pool in bench.call("GET", "/pools").data] == ["fo"]


def test_the_connection_is_cut(bench: Bench) -> None:
    bench.kit.faults.on("pve-cut", path="/pools", times="1")
    with pytest.raises(requests.exceptions.ConnectionError):
        bench.call("POST", "/pools", poolid="fo")
    assert bench.call("GET", "/pools").data == [{"poolid": "fo"}]
    bench.kit.faults.on("pve-cut", method="GET", path="/version", times="1")
    with pytest.raises(requests.exceptions.ConnectionError):
        bench.call("GET", "/version")
    assert bench.call("GET", "/version").status == 200


def test_somebody_on_the_way_answers(bench: Bench) -> None:
    bench.kit.faults.on("pve-html", times="1")
    answer = bench.call("GET", "/version")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.body.startswith("<!DOCTYPE html>")
    bench.kit.faults.on("pve-redirect", method="POST", times="1")
    assert bench.call("GET", "/version").data["release"] == "8.4"
    moved = bench.raw("POST", "/pools", data={"poolid": "fo"}, allow_redirects=False)
    assert (moved.status, moved.headers["Location"]) == (302, f"http://{bench.address}:8006/api2/json/pools")
    assert bench.call("GET", "/pools").data == []


def test_a_storage_is_full(bench: Bench) -> None:
    command = "/usr/bin/qemu-img convert -p -n -f qcow2 -O qcow2 /var/lib/vz/import/deb.qcow2"
    target = "zeroinit:/srv/vmstore/images/100/vm-100-disk-0.qcow2"
    ended = (
        f"cannot import from 'local:import/deb.qcow2' - copy failed: command '{command} {target}' failed: exit code 1"
    )
    bench.kit.faults.on("storage-full", storage="vmstore", times="1")
    upid = bench.call("POST", Q, vmid=100, scsi0=IMPORT).data
    assert bench.wait(upid) == f"unable to create VM 100 - {ended}"
    assert "error while writing at byte" in bench.log(upid)[-2]
    assert bench.log(upid)[-2].endswith("No space left on device")
    assert bench.call("GET", f"{S}/vmstore/content", vmid=100).data == []
    assert bench.done("POST", Q, vmid=100, scsi0=IMPORT) == "OK"


def test_a_small_storage_is_full_without_any_fault(bench: Bench) -> None:
    bench.api.add_storage("tiny", "dir", ("images",), size=1024)
    ended = bench.done("POST", Q, vmid=100, scsi0=IMPORT.replace("vmstore", "tiny"))
    assert ended.endswith("failed: exit code 1")


def test_an_image_arrives_corrupt(bench: Bench) -> None:
    right, wrong = sha256(IMAGE), sha256(IMAGE[:-1] + b"\xff")
    mismatch = f"checksum mismatch: got '{wrong}' != expect '{right}'"
    checks = {"checksum": right, "checksum_algorithm": "sha256"}
    with pve_bench.web({"img.qcow2": IMAGE}) as url:
        where = {"content": "import", "url": f"{url}/img.qcow2", "filename": "dl.qcow2", **checks}
        bench.kit.faults.on("image-corrupt", filename="dl.*", times="1")
        upid = bench.call("POST", f"{S}/local/download-url", **where).data
        assert bench.wait(upid) == mismatch
        assert bench.log(upid)[-2:] == ["calculating checksum...", f"TASK ERROR: {mismatch}"]
        assert "local:import/dl.qcow2" not in {row["volid"] for row in bench.call("GET", f"{S}/local/content").data}
        assert bench.done("POST", f"{S}/local/download-url", **where) == "OK"
    bench.kit.faults.on("image-corrupt", storage="local", times="1")
    fields = {"content": "import", "checksum-algorithm": "sha256", "checksum": right}
    sent = bench.raw("POST", f"{S}/local/upload", data=fields, files={"filename": ("up.qcow2", IMAGE)})
    assert bench.wait(sent.data) == mismatch


def test_a_guest_agent_is_silent(bench: Bench) -> None:
    assert bench.done("POST", Q, vmid=100, agent=1) == "OK"
    assert bench.done("POST", f"{Q}/100/status/start") == "OK"
    bench.guests.talking.add(100)
    bench.kit.faults.on("agent-silent", vmid="100", command="network-get-interfaces", times="1")
    assert bench.call("POST", f"{Q}/100/agent/ping").data == {"result": {}}
    answer = bench.call("GET", f"{Q}/100/agent/network-get-interfaces")
    assert (answer.status, answer.reason) == (500, "QEMU guest agent is not running")
    assert bench.call("GET", f"{Q}/100/agent/network-get-interfaces").data == {"result": [{"name": "eth0"}]}


def test_a_task_warns(bench: Bench) -> None:
    bench.kit.faults.on("task-warnings", type="qmstart", times="1")
    upid = bench.call("POST", Q, vmid=100).data
    assert bench.wait(upid) == "OK"
    upid = bench.call("POST", f"{Q}/100/status/start").data
    assert bench.wait(upid) == "WARNINGS: 1"
    warning = "WARN: no efidisk configured! Using temporary efivars disk."
    assert bench.log(upid) == [warning, "TASK WARNINGS: 1"]
    assert [task["upid"] for task in bench.call("GET", "/nodes/pve/tasks", statusfilter="warning").data] == [upid]


def test_a_hanging_task_goes_on_when_the_fault_is_switched_off(bench: Bench) -> None:
    bench.kit.faults.on("task-hang", type="qmcreate")
    upid = bench.call("POST", Q, vmid=100, scsi0=IMPORT).data
    assert bench.config(100) == {"lock": "create", "digest": bench.config(100)["digest"]}
    bench.kit.faults.off("task-hang")
    assert bench.wait(upid) == "OK"
    assert bench.config(100)["scsi0"].endswith("size=300M")


def test_a_killed_worker_leaves_what_it_made(bench: Bench) -> None:
    bench.kit.faults.on("task-hang", type="qmcreate")
    upid = bench.call("POST", Q, vmid=100, scsi0=IMPORT).data
    bench.api.kill_worker(upid)
    assert bench.wait(upid) == "unexpected status"
    assert not any(line.startswith("TASK") for line in bench.log(upid))
    assert bench.config(100)["lock"] == "create"
    assert len(bench.call("GET", f"{S}/vmstore/content", vmid=100).data) == 1


@pytest.mark.parametrize("name", [name for name, known in Faults.KNOWN.items() if "times" in known])
def test_a_fault_that_is_used_up_strikes_no_more(bench: Bench, name: str) -> None:
    bench.kit.faults.on(name, times="1")
    assert [bench.kit.faults.hits(name) for _ in range(3)] == [True, False, False]
    bench.kit.faults.off(name)
    assert not bench.kit.faults.hits(name)


def test_the_guide_tells_of_every_fault() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "lab.md").read_text()
    for name, parameters in Faults.KNOWN.items():
        rows = [line for line in guide.split("\n") if line.startswith(f"| `{name}` |")]
        assert rows, name
        told = {part.strip("` ") for line in rows for part in line.split("|")[2].split(",")} - {""}
        assert told == set(parameters) - {"times"}, name


@pytest.mark.parametrize(
    ("name", "parameters", "problem"),
    [
        ("task-fail", {"type": "qmstart", "times": "2"}, ""),
        ("task-fial", {}, "task-fial is no fault"),
        ("task-fail", {"node": "pve"}, "task-fail has no node"),
        ("task-fail", {"times": "often"}, "times is no number"),
    ],
)
def test_a_misspelt_fault_is_told(name: str, parameters: dict[str, str], problem: str) -> None:
    assert Faults.problem(name, parameters) == problem


def test_the_command_says_what_a_fault_takes() -> None:
    assert command._spelt("pve-cut,method=POST,path=/nodes/*/qemu,times=1") == (
        "pve-cut",
        {"method": "POST", "path": "/nodes/*/qemu", "times": "1"},
    )
    for text, fix in (
        ("vmid-race,node=pve", "vmid-race takes: vmid, times"),
        ("git-unreachable,node=x", "git-unreachable takes: none"),
        ("nonsense", "known: task-fail, "),
        ("pve-html,GET", "known: task-fail, "),
    ):
        with pytest.raises(errors.ConfigError) as refused:
            command._spelt(text)
        assert str(refused.value.fix).startswith(fix)
