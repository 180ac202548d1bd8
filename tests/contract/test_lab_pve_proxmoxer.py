"""proxmoxer, as fo uses it, against the lab's Proxmox: what the client makes of answers and refusals."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import proxmoxer
import pve_bench
import pytest
from pve_bench import FO, Bench, Pinned, qcow2

MACHINES = 55
WORKERS = 16


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path_factory.mktemp("pve"), release="9.1") as made:
        made.put_file("import/cloud.qcow2", qcow2(2252 << 20))
        yield made


def client(bench: Bench) -> Any:
    """A client that pins the certificate."""
    user, _, name = FO.partition("!")
    made = proxmoxer.ProxmoxAPI(
        bench.address, user=user, token_name=name, token_value=pve_bench.SECRET, verify_ssl=False, timeout=20
    )
    made._store["session"].mount("https://", Pinned(bench.api.fingerprint))
    made._store["session"].trust_env = False
    return made


def wait(node: Any, upid: str) -> str:
    pause = threading.Event()
    for _ in range(4000):
        status = node.tasks(upid).status.get()
        if status["status"] == "stopped":
            return str(status["exitstatus"])
        pause.wait(0.002)
    raise AssertionError(upid)


def make(bench: Bench, vmid: int) -> None:
    """What fo does for one machine: seed, machine, disk, power."""
    node = client(bench).nodes("pve")
    seed = io.BytesIO(b"seed" * 500)
    seed.name = f"seed-{vmid}.iso"
    assert wait(node, node.storage("local").upload.post(content="iso", filename=seed)) == "OK"
    created = node.qemu.post(
        vmid=vmid,
        name=f"lab-{vmid}",
        memory=2048,
        cores=2,
        scsi0="local-lvm:0,import-from=local:import/cloud.qcow2,discard=on,ssd=1,iothread=1",
        ide2=f"local:iso/{seed.name},media=cdrom",
        boot="order=scsi0",
        net0="virtio=BC:24:11:00:00:01,bridge=vmbr0",
        tags="fo;fo-lab",
    )
    assert wait(node, created) == "OK"
    assert wait(node, node.qemu(vmid).resize.put(disk="scsi0", size="40G")) == "OK"
    assert wait(node, node.qemu(vmid).status.start.post()) == "OK"


def test_fifty_five_machines_at_once(bench: Bench) -> None:
    numbers = range(901, 901 + MACHINES)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda vmid: make(bench, vmid), numbers))
    found = client(bench).cluster.resources.get(type="vm")
    assert [row["vmid"] for row in found] == list(numbers)
    assert {row["status"] for row in found} == {"running"}
    assert {hardware.disk_gib for hardware in bench.guests.on.values()} == {40.0}
    writes = [entry["what"] for entry in bench.kit.ledger.entries()]
    assert len(writes) == len(set(writes)) == 4 * MACHINES


def test_refusals_reach_the_client(bench: Bench) -> None:
    node = client(bench).nodes("pve")
    with pytest.raises(proxmoxer.ResourceException) as caught:
        node.qemu.post(vmid=99, onboot=True)
    assert caught.value.status_code == 400
    assert caught.value.errors == {
        "vmid": "invalid format - value does not look like a valid VM ID\n",
        "onboot": "type check ('boolean') failed - got 'True'",
    }
    with pytest.raises(proxmoxer.ResourceException) as caught:
        node.qemu(4711).config.get()
    assert caught.value.content == "Configuration file 'nodes/pve/qemu-server/4711.conf' does not exist"
    with pytest.raises(proxmoxer.ResourceException) as caught:
        node.qemu(4711).config.put(description=None)
    assert caught.value.content == "no options specified"


def test_odd_values_survive_the_way(bench: Bench) -> None:
    api = client(bench)
    node = api.nodes("pve")
    text = "ü;a=b&c=d,e\r\n# %41 \t 🙂"
    assert wait(node, node.qemu.post(vmid=800, description=text, tags="a;b")) == "OK"
    assert node.qemu(800).config.get()["description"] == text
    assert node.qemu(800).config.put(delete=["description", "tags"]) is None
    assert "description" not in node.qemu(800).config.get()
    assert wait(node, node.qemu(800).delete(purge=1)) == "OK"
    assert api.version.get()["release"] == "9.1"
    assert api.pools.post(poolid="fo", comment="hi") is None
    assert api.pools.get(poolid="fo")[0]["comment"] == "hi"
    assert api.pools.delete(poolid="fo") is None
