"""Every kind of call that surrounds a machine, requests and answers held against the official description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pve_bench
import pytest
from test_lab_pve_machines import NODE
from test_pve_answers_official import OFFICIAL, Checked

RULE: dict[str, Any] = {"type": "in", "action": "ACCEPT", "proto": "tcp", "dport": "6443", "enable": 1}
JOB = {"id": "fo-lab", "schedule": "02:30", "storage": "local", "pool": "fo", "mode": "snapshot", "compress": "zstd"}


@pytest.fixture(params=sorted(OFFICIAL))
def checked(request: pytest.FixtureRequest, tmp_path: Path, shared: Path) -> Iterator[Checked]:
    description = json.loads((shared / "pve-api" / OFFICIAL[request.param]).read_text())
    with pve_bench.bench(tmp_path, release=request.param) as made:
        made.call("POST", "/pools", poolid="fo")
        assert made.done("POST", "/nodes/pve/qemu", vmid=120, pool="fo", **NODE) == "OK"
        yield Checked(made, description["paths"])


def test_firewall_and_devices(checked: Checked) -> None:
    firewall = "/nodes/pve/qemu/120/firewall"
    checked("GET", "/cluster/firewall/options")
    checked("PUT", "/cluster/firewall/options", token=pve_bench.ROOT, enable=1)
    checked("PUT", f"{firewall}/options", enable=1)
    checked("GET", f"{firewall}/options")
    checked("POST", f"{firewall}/rules", **RULE)
    checked("GET", f"{firewall}/rules")
    checked("PUT", f"{firewall}/rules/0", comment="api")
    checked("GET", f"{firewall}/rules/0")
    checked("DELETE", f"{firewall}/rules/0")
    checked("POST", "/cluster/mapping/usb", token=pve_bench.ROOT, id="stick", map="node=pve,id=0658:0200")
    checked("GET", "/cluster/mapping/usb", **{"check-node": "pve"})
    checked("GET", "/cluster/mapping/pci")
    checked("GET", "/nodes/pve/capabilities/qemu/cpu")
    checked("GET", "/nodes/pve/time")
    checked("GET", "/access/acl", token=pve_bench.ROOT)
    checked("GET", "/access/roles", token=pve_bench.ROOT)
    assert checked.found == []


def test_high_availability(checked: Checked) -> None:
    resources = "/cluster/ha/resources"
    checked("POST", resources, sid="vm:120", state="stopped")
    checked("GET", resources)
    checked("GET", f"{resources}/vm:120")
    checked("PUT", f"{resources}/vm:120", comment="mine")
    checked("GET", "/cluster/ha/status/current")
    checked("GET", "/cluster/resources")
    checked("GET", "/nodes/pve/qemu/120/status/current")
    if checked._bench.release >= "9":
        affine = {"rule": "here", "type": "node-affinity", "nodes": "pve", "resources": "vm:120"}
        checked("POST", "/cluster/ha/rules", **affine)
        checked("GET", "/cluster/ha/rules")
        checked("GET", "/cluster/ha/rules/here")
        checked("PUT", "/cluster/ha/rules/here", type="node-affinity", strict=1)
        checked("DELETE", "/cluster/ha/rules/here")
    else:
        checked("POST", "/cluster/ha/groups", group="here", nodes="pve")
        checked("GET", "/cluster/ha/groups")
        checked("PUT", "/cluster/ha/groups/here", restricted=1)
        checked("DELETE", "/cluster/ha/groups/here")
    checked("DELETE", f"{resources}/vm:120")
    assert checked.found == []


def test_backups_snapshots_and_copies(checked: Checked) -> None:
    vm = "/nodes/pve/qemu/120"
    checked("POST", "/cluster/backup", **JOB, **{"prune-backups": "keep-last=2", "notes-template": "{{guestname}}"})
    checked("GET", "/cluster/backup")
    checked("GET", "/cluster/backup/fo-lab")
    checked("PUT", "/cluster/backup/fo-lab", enabled=0)
    checked("DELETE", "/cluster/backup/fo-lab")
    checked.task("POST", "/nodes/pve/vzdump", pool="fo", storage="local", **{"notes-template": "{{guestname}}"})
    (row,) = checked("GET", "/nodes/pve/storage/local/content", content="backup").data
    checked("PUT", f"/nodes/pve/storage/local/content/{row['volid']}", notes="mine", protected=1)
    checked.task("POST", "/nodes/pve/qemu", vmid=121, archive=row["volid"], unique=1, storage="vmstore")
    for path in ("cloudinit", "cloudinit/dump?type=user"):
        checked("GET", f"{vm}/{path.partition('?')[0]}", **({"type": "user"} if "?" in path else {}))
    checked("PUT", f"{vm}/cloudinit")
    checked.task("POST", f"{vm}/snapshot", snapname="s1")
    checked("GET", f"{vm}/snapshot")
    checked.task("POST", f"{vm}/snapshot/s1/rollback")
    checked.task("DELETE", f"{vm}/snapshot/s1")
    checked.task("POST", f"{vm}/template")
    checked.task("POST", f"{vm}/clone", newid=122)
    checked("GET", "/pools/fo")
    assert checked.found == []
