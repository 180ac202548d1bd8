"""Tasks, files, faults and restarts of the lab's Proxmox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pve_bench
import pytest
from pve_bench import FO, ROOT, Bench, qcow2, sha256

from funoffshore.lab.base import Latencies
from funoffshore.lab.pve import lab_fingerprint

Q = "/nodes/pve/qemu"
S = "/nodes/pve/storage/local"
IMAGE = qcow2(2252 << 20)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pve_bench.web({"img.qcow2": IMAGE, "page.qcow2": b"hello", "img.img": IMAGE}) as found:
        yield found


def test_status_has_the_recorded_keys(bench: Bench) -> None:
    status = bench.status(bench.call("POST", Q, token=FO, vmid=100).data)
    keys = "upid node pid pstart starttime type id user tokenid status exitstatus"
    assert set(status) == set(keys.split())
    assert (status["user"], status["tokenid"], status["exitstatus"]) == ("fo@pve", "t1", "OK")
    assert bench.call("GET", f"/nodes/pve/tasks/{status['upid']}/status", token="weak@pve!t1").reason == (
        "Permission check failed (/nodes/pve, Sys.Audit)"
    )
    row = bench.call("GET", "/nodes/pve/tasks", vmid=100).data[0]
    assert set(row) == {"endtime", *keys.split()} - {"exitstatus"}
    assert bench.call("GET", "/nodes/pve/tasks", vmid=999).body == {"data": []}


def test_log_comes_in_pages_of_fifty(bench: Bench, url: str) -> None:
    bench.kit.faults.on("task-hang", type="qmstart")
    bench.done("POST", Q, vmid=100)
    running = bench.call("POST", f"{Q}/100/status/start").data
    answer = bench.call("GET", f"/nodes/pve/tasks/{running}/log")
    assert answer.body == {"data": [{"n": 1, "t": "no content"}], "total": 1}
    bench.call("DELETE", f"/nodes/pve/tasks/{running}")
    assert bench.log(running) == ["TASK ERROR: received interrupt"]
    drives = {f"scsi{n}": "vmstore:1" for n in range(30)}
    upid = bench.call("POST", Q, vmid=101, **drives).data
    bench.status(upid)
    path = f"/nodes/pve/tasks/{upid}/log"
    assert (len(bench.call("GET", path).data), bench.call("GET", path).body["total"]) == (50, 61)
    assert bench.call("GET", path, start=60, limit=5).data == [{"n": 61, "t": "TASK OK"}]
    assert bench.call("GET", path, start=500).data == []
    assert len(bench.call("GET", path, limit=0).data) == 61


def test_download_fetches_and_verifies(bench: Bench, url: str) -> None:
    def fetch(name: str, source: str, digest: str = "", kind: str = "import") -> tuple[str, list[str]]:
        checks = {"checksum": digest, "checksum_algorithm": "sha256"} if digest else {}
        upid = bench.call("POST", f"{S}/download-url", FO, content=kind, url=source, filename=name, **checks).data
        return bench.wait(upid), bench.log(upid)

    right, wrong = sha256(IMAGE), sha256(b"")
    assert fetch("dl.qcow2", f"{url}/img.qcow2", right)[0] == "OK"
    row = bench.call("GET", f"{S}/content", content="import").data[2]
    assert (row["volid"], row["size"], row["format"]) == ("local:import/dl.qcow2", len(IMAGE), "qcow2")
    refused = "refusing to override existing file '/var/lib/vz/import/dl.qcow2'"
    assert fetch("dl.qcow2", f"{url}/img.qcow2")[0] == refused
    ended, log = fetch("dl.qcow2", f"{url}/img.qcow2", right)
    assert ended == "OK"
    assert "calculating checksum of existing file...OK, got correct file already, no need to download" in log
    mismatch = f"checksum mismatch: got '{right}' != expect '{wrong}'"
    assert fetch("dl.qcow2", f"{url}/img.qcow2", wrong)[0] == f"{mismatch}, aborting"
    assert fetch("dl2.qcow2", f"{url}/img.qcow2", wrong)[0] == mismatch
    assert fetch("dl3.qcow2", f"{url}/none.qcow2")[0] == "download failed: exit code 8"
    assert fetch("dl3.qcow2", f"{url}/page.qcow2")[0].startswith("failed to verify file: qemu-img: Could not open")
    assert fetch("dl3.qcow2", "http://127.0.0.1:9/x.qcow2")[0] == (
        "download failed: Connecting to 127.0.0.1:9... failed: Connection refused."
    )
    assert fetch("dl3.qcow2", f"https://{bench.address}:8006/x.qcow2")[0] == (
        f"download failed: ERROR: The certificate of '{bench.address}' doesn't have a known issuer."
    )
    assert fetch("od d(1).iso", f"{url}/img.img", kind="iso")[0] == "OK"
    names = {row["volid"] for row in bench.call("GET", f"{S}/content").data}
    assert "local:iso/od_d_1_.iso" in names
    assert not names & {"local:import/dl2.qcow2", "local:import/dl3.qcow2"}


def test_upload_keeps_the_recorded_rules(bench: Bench) -> None:
    def send(fields: dict[str, str], name: str = "seed.iso", part: str = "filename") -> pve_bench.Answer:
        return bench.raw("POST", f"{S}/upload", data=fields, files={part: (name, b"seed" * 1000)})

    upid = send({"content": "iso"}).data
    assert upid.endswith(":imgcopy::root@pam!full:")
    log = bench.log(upid)
    assert {"target file: /var/lib/vz/template/iso/seed.iso", "file size is: 4000"} <= set(log)
    assert bench.wait(send({"content": "iso"}).data) == "OK"
    right = sha256(b"seed" * 1000)
    ordered = {"content": "iso", "checksum-algorithm": "sha256", "checksum": right}
    assert bench.wait(send(ordered).data) == "OK"
    wrong = {**ordered, "checksum": "00"}
    assert bench.wait(send(wrong).data) == f"checksum mismatch: got '{right}' != expect '00'"
    answer = send({"content": "iso", "checksum": right, "checksum-algorithm": "sha256"})
    assert (answer.status, answer.reason, answer.body) == (400, "Bad Request", "")
    assert send({"content": "iso", "checksum": right}).errors == {
        "checksum-algorithm": "missing property - 'checksum' requires this property"
    }
    assert send({}).errors == {"content": "property is missing and it is not optional"}
    assert send({"content": "iso"}, part="file").reason.startswith("wrong field name 'file' for file upload")
    assert send({"content": "iso"}, name="seed.txt").errors == {"filename": "wrong file extension"}
    assert send({"content": "import"}, name="a.img").errors == {"filename": "invalid filename or wrong extension"}
    enum = "value 'snippets' does not have a value in the enumeration 'iso, vztmpl, import'"
    assert send({"content": "snippets"}).errors == {"content": enum}
    assert bench.wait(send({"content": "import"}, name="a.qcow2").data).endswith("Image is not in qcow2 format")
    assert bench.wait(send({"content": "iso"}, name="../../se ed(1).iso").data) == "OK"
    assert bench.call("GET", f"{S}/content/local:iso/se_ed_1_.iso").data["size"] == 4000
    other = bench.raw(
        "POST", "/nodes/pve/storage/vmstore/upload", data={"content": "iso"}, files={"filename": ("a.iso", b"")}
    )
    assert other.reason == "storage 'vmstore' does not support 'iso' content"
    weak = bench.raw("POST", f"{S}/upload", "weak@pve!t1", data={"content": "iso"}, files={"filename": ("a.iso", b"")})
    assert (weak.reason, weak.body) == ("Permission check failed (/storage/local, Datastore.AllocateTemplate)", "")


def test_volumes_go_even_where_there_are_none(bench: Bench) -> None:
    upid = bench.call("DELETE", f"{S}/content/local:iso/a.iso", FO).data
    assert ":imgdel:local:" in upid
    assert bench.log(upid) == ["Removed volume 'local:iso/a.iso'", "TASK OK"]
    upid = bench.call("DELETE", f"{S}/content/local:iso/a.iso").data
    assert bench.log(upid)[0] == "disk image '/var/lib/vz/template/iso/a.iso' does not exist"
    assert bench.call("DELETE", f"{S}/content/local:iso/a.iso", delay=5).data is None
    path = "/nodes/pve/storage/vmstore/content"
    disk: dict[str, Any] = {"vmid": 777, "filename": "vm-777-disk-0.qcow2", "size": "1G"}
    assert bench.call("POST", path, **disk, format="qcow2").data == "vmstore:777/vm-777-disk-0.qcow2"
    again = bench.call("POST", path, **disk, format="qcow2")
    assert again.reason == "disk image '/srv/vmstore/images/777/vm-777-disk-0.qcow2' already exists"
    assert ":imgdel:777@vmstore:" in bench.call("DELETE", f"{path}/vmstore:777/vm-777-disk-0.qcow2").data


def test_rights_are_inherited_and_can_be_taken(bench: Bench) -> None:
    assert bench.done("POST", Q, token=FO, vmid=100, scsi0="local-lvm:1") == "OK"
    assert bench.config(100)["scsi0"] == "local-lvm:vm-100-disk-0,size=1G"
    bench.api.remove_privilege(FO, "VM.PowerMgmt")
    assert bench.call("POST", f"{Q}/100/status/start", FO).reason == "Permission check failed (/vms/100, VM.PowerMgmt)"
    bench.api.ensure_token(FO, pve_bench.SECRET)
    assert bench.call("POST", f"{Q}/100/status/start", FO).status == 403
    bench.api.set_privileges(FO, "/vms/100", ["VM.PowerMgmt"])
    assert bench.call("GET", f"{Q}/100/config", FO).status == 403
    assert bench.done("POST", f"{Q}/100/status/start", token=FO) == "OK"
    held = bench.call("GET", "/access/permissions", FO, path="/vms/100").data
    assert held == {"/vms/100": {"VM.PowerMgmt": 1}}
    bench.api.add_token("pool@pve!t1", pve_bench.SECRET, {"/pool/fo": ["VM.Audit"]})
    bench.call("POST", "/pools", poolid="fo")
    bench.call("PUT", "/pools", poolid="fo", vms="100")
    assert bench.call("GET", "/access/permissions", "pool@pve!t1").data == {
        "/pool/fo": {"VM.Audit": 1},
        "/vms/100": {"VM.Audit": 0},
    }
    assert [row["vmid"] for row in bench.call("GET", Q, "pool@pve!t1").data] == [100]


def test_faults_strike_as_often_as_told(bench: Bench) -> None:
    bench.kit.faults.on("task-fail", type="qmcreate", times="1")
    import_from = "vmstore:0,import-from=local:import/deb.qcow2"
    upid = bench.call("POST", Q, vmid=100, scsi0=import_from).data
    assert bench.wait(upid).startswith(
        "unable to create VM 100 - cannot import from 'local:import/deb.qcow2' - copy failed:"
    )
    assert "No space left on device" in bench.log(upid)[-2]
    assert bench.done("POST", Q, vmid=100, scsi0=import_from) == "OK"
    bench.kit.faults.on("task-fail", type="qmstart", vmid="100")
    assert bench.done("POST", f"{Q}/100/status/start") == "start failed: QEMU exited with code 1"
    bench.kit.faults.off("task-fail")
    bench.guests.broken.add(100)
    upid = bench.call("POST", f"{Q}/100/status/start").data
    assert bench.log(upid) == ["kvm: no such firmware", "TASK ERROR: start failed: QEMU exited with code 1"]


def test_every_accepted_write_is_in_the_ledger(bench: Bench, url: str) -> None:
    bench.call("POST", Q, vmid=100, bogus=1)
    bench.call("GET", Q)
    bench.done("POST", Q, vmid=100)
    bench.call("PUT", f"{Q}/100/config", cores=2)
    bench.call("POST", "/pools", poolid="fo")
    bench.call("POST", f"{S}/download-url", content="iso", url=f"{url}/img.img", filename="x.iso")
    assert [entry["what"] for entry in bench.kit.ledger.entries()] == [
        "POST /nodes/pve/qemu 100",
        "PUT /nodes/pve/qemu/100/config",
        "POST /pools fo",
        "POST /nodes/pve/storage/local/download-url x.iso",
    ]


def test_certificate_is_the_same_for_ever(bench: Bench) -> None:
    assert bench.api.fingerprint == lab_fingerprint(pve_bench.SECRET, bench.address)
    assert lab_fingerprint("s", "127.77.0.2") == "29b6405e56bd2b261d9e38dd0312d0fa444e489c52215dd3a3011ce1b6486bb0"
    assert (
        lab_fingerprint("s", "127.77.0.3") != lab_fingerprint("s", "127.77.0.2") != lab_fingerprint("t", "127.77.0.2")
    )
    shown = bench.call("GET", "/nodes").data[0]["ssl_fingerprint"]
    assert shown.replace(":", "").lower() == bench.api.fingerprint


KILLED = """
import os, sys
sys.path.insert(0, {here!r})
from pathlib import Path
import pve_bench
made = pve_bench.Bench(pve_bench.kit(Path({directory!r})), pve_bench.Guests(), {net!r}, "8.4")
pve_bench.prepare(made)
made.api.start()
made.call("POST", "/pools", poolid="fo")
assert made.done("POST", "/nodes/pve/qemu", vmid=100, name="survivor", pool="fo") == "OK"
assert made.done("POST", "/nodes/pve/qemu/100/status/start") == "OK"
assert made.done("POST", "/nodes/pve/qemu", vmid=101) == "OK"
made.kit.faults.on("task-hang", type="qmcreate")
print(made.call("POST", "/nodes/pve/qemu", vmid=102).data, flush=True)
os.kill(os.getpid(), 9)
"""


def test_after_a_kill_everything_is_as_it_was(tmp_path: Path) -> None:
    net = pve_bench.subnet()
    script = KILLED.format(here=str(Path(__file__).parent), directory=str(tmp_path), net=net)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == -9, ran.stderr
    upid = ran.stdout.strip()
    again = Bench(pve_bench.kit(tmp_path), pve_bench.Guests(), net, "8.4")
    again.api.start()
    try:
        assert set(again.guests.on) == {100}
        assert again.call("GET", f"{Q}/100/status/current", token=ROOT).data["status"] == "running"
        assert again.call("GET", f"{Q}/101/status/current").data["status"] == "stopped"
        assert again.call("GET", "/pools", poolid="fo").data[0]["members"][0]["name"] == "survivor"
        assert again.wait(upid) == "unexpected status"
        assert again.config(102)["lock"] == "create"
        assert again.done("DELETE", f"{Q}/102") == "VM is locked (create)"
    finally:
        again.session.close()
        again.api.stop()
        again.kit.clock.stop()
        again.kit.store.close()


def test_stopping_brings_running_tasks_to_their_end(tmp_path: Path) -> None:
    with pve_bench.bench(tmp_path, latencies=Latencies(create=3600)) as bench:
        upid = bench.call("POST", Q, vmid=100, scsi0="vmstore:0,import-from=local:import/deb.qcow2").data
        net = bench.address.removesuffix(".2")
    again = Bench(pve_bench.kit(tmp_path), pve_bench.Guests(), net, "8.4")
    again.api.start()
    try:
        assert again.wait(upid) == "OK"
        assert again.config(100)["scsi0"].endswith("size=300M")
    finally:
        again.session.close()
        again.api.stop()
        again.kit.store.close()
