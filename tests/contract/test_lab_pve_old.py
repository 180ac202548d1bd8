"""The lab's Proxmox as an 8.0: it cannot import images, and a template is cloned instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pve_bench
import pytest
from pve_bench import FO, Bench

Q = "/nodes/pve/qemu"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path, release="8.0") as made:
        yield made


def test_it_says_which_release_it_is(bench: Bench) -> None:
    assert bench.call("GET", "/version").data["release"] == "8.0"
    refused = bench.call("PUT", f"{Q}/900/config", cores=1)
    assert refused.reason == "Configuration file 'nodes/pve/qemu-server/900.conf' does not exist"
    assert refused.body == {"data": None}
    assert bench.call("POST", Q, vmid=120, bogus=1).body.keys() == {"data", "errors"}


def test_images_cannot_be_imported(bench: Bench) -> None:
    storages = {row["storage"]: row["content"] for row in bench.call("GET", "/nodes/pve/storage").data}
    assert "import" not in storages["local"].split(",")
    refused = bench.call("POST", Q, vmid=120, scsi0="vmstore:0,import-from=local:import/deb.qcow2")
    assert refused.reason == "unable to parse directory volume name 'import/deb.qcow2'"
    fetch = {"content": "import", "url": "http://x/i.qcow2", "filename": "i.qcow2"}
    refused = bench.raw("POST", "/nodes/pve/storage/local/download-url", data=fetch)
    assert refused.errors == {"content": "value 'import' does not have a value in the enumeration 'iso, vztmpl'"}


def test_a_template_is_cloned_and_changed(bench: Bench) -> None:
    bench.call("POST", "/pools", poolid="fo")
    assert bench.done("POST", Q, vmid=900, name="tpl", memory=512, scsi0="vmstore:3") == "OK"
    assert bench.done("POST", f"{Q}/900/template") == "OK"
    assert bench.done("POST", f"{Q}/900/clone", FO, newid=120, name="node-1", full=1, pool="fo") == "OK"
    changes = {"memory": 2048, "cores": 2, "net0": "virtio,bridge=vmbr0", "machine": "q35", "agent": "1"}
    upid = bench.raw("POST", f"{Q}/120/config", FO, data=changes).data
    assert bench.wait(upid) == "OK"
    config = bench.config(120)
    assert (config["memory"], config["cores"], config["machine"]) == (2048, 2, "q35")
    assert "property is not defined" in bench.call("POST", Q, vmid=121, ha_managed=1).errors["ha-managed"]
    assert bench.call("POST", Q, vmid=121, memory="current=512").errors["memory"].startswith("type check ('integer')")
    assert bench.done("POST", f"{Q}/120/status/start", FO) == "OK"
    assert bench.guests.on[120].memory_mib == 2048
    members = bench.call("GET", "/pools/fo").data["members"]
    assert [row["vmid"] for row in members] == [120]
    assert bench.call("PUT", "/pools", poolid="fo", comment="x").status == 501
    assert bench.call("PUT", "/pools/fo", comment="x").data is None
    assert bench.call("GET", "/pools/fo").data["comment"] == "x"
