"""The firewall's options and rules on the lab's Proxmox, as recorded from a real 8.4 API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pve_bench
import pytest
from pve_bench import Bench

F = "/nodes/pve/qemu/120/firewall"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        assert made.done("POST", "/nodes/pve/qemu", vmid=120) == "OK"
        yield made


def test_options_and_rules_are_the_recorded_ones(bench: Bench) -> None:
    nothing = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
    assert bench.call("GET", "/cluster/firewall/options").data == {"digest": nothing}
    assert bench.call("PUT", f"{F}/options", enable=1).data is None
    shown = bench.call("GET", f"{F}/options").data
    assert shown == {"enable": 1, "digest": "bb9ed91416c7ca9fe0bdb701360217e37ab4497f"}
    rule = {"action": "ACCEPT", "type": "in", "enable": 0}
    assert bench.call("POST", f"{F}/rules", type="in", action="ACCEPT").data is None
    digest = "917e6978163e530cb88e6beab20870e49daec378"
    assert bench.call("GET", f"{F}/rules").data == [{**rule, "pos": 0, "digest": digest}]
    assert bench.call("POST", f"{F}/rules", type="in", action="ACCEPT", proto="tcp", dport=6443, enable=1).data is None
    digest = "f87ef45ede8871052e5e1f0538804fbc3b8b7094"
    fresh = {**rule, "proto": "tcp", "dport": "6443", "enable": 1}
    assert bench.call("GET", f"{F}/rules").data == [
        {**fresh, "pos": 0, "digest": digest},
        {**rule, "pos": 1, "digest": digest},
    ]
    assert bench.call("GET", f"{F}/rules/1").data == {**rule, "pos": 1, "digest": digest}
    assert bench.call("POST", f"{F}/rules", type="in", action="NOPE").errors == {"action": "unknown action 'NOPE'"}


def test_rules_can_be_changed_moved_and_deleted(bench: Bench) -> None:
    for port in (1, 2, 3):
        bench.call("POST", f"{F}/rules", type="in", action="ACCEPT", proto="tcp", dport=port, enable=1)
    assert bench.call("PUT", f"{F}/rules/0", moveto=3).data is None
    assert [row["dport"] for row in bench.call("GET", f"{F}/rules").data] == ["2", "1", "3"]
    assert bench.call("PUT", f"{F}/rules/1", dport="80:90", comment="web", delete="enable").data is None
    changed = bench.call("GET", f"{F}/rules/1").data
    assert (changed["dport"], changed["comment"], "enable" in changed) == ("80:90", "web", False)
    assert bench.call("DELETE", f"{F}/rules/0").data is None
    assert [row["dport"] for row in bench.call("GET", f"{F}/rules").data] == ["80:90", "3"]
    assert "pos" in bench.call("GET", f"{F}/rules/9").errors
    stale = bench.call("DELETE", f"{F}/rules/0", digest="00")
    assert (stale.status, stale.reason[:30]) == (500, "detected modified configuration"[:30])


def test_rules_that_make_no_sense_are_refused(bench: Bench) -> None:
    rule = {"type": "in", "action": "DROP"}
    missing = bench.call("POST", f"{F}/rules", **rule, dport=80).errors
    assert missing == {"proto": "missing property - 'dport' requires this property"}
    assert "invalid port '70000'" in bench.call("POST", f"{F}/rules", **rule, proto="tcp", dport=70000).errors["dport"]
    assert "source" in bench.call("POST", f"{F}/rules", **rule, source="10.0.0.300").errors
    assert bench.call("POST", f"{F}/rules", **rule, source="10.0.0.0/24,10.1.0.1-10.1.0.9,+dc/admins").data is None
    assert "iface" in bench.call("POST", f"{F}/rules", **rule, iface="eth0").errors


def test_who_may_what(bench: Bench) -> None:
    weak = "weak@pve!t1"
    assert bench.call("GET", "/cluster/firewall/options", weak).reason == "Permission check failed (/, Sys.Audit)"
    assert bench.call("PUT", f"{F}/options", weak, enable=1).status == 403
    bench.api.set_privileges(weak, "/vms", ["VM.Config.Network"])
    assert bench.call("PUT", f"{F}/options", weak, enable=1, policy_in="DROP").errors
    assert bench.raw("PUT", f"{F}/options", weak, data={"enable": 1, "policy_in": "DROP"}).data is None
    assert bench.call("PUT", "/cluster/firewall/options", weak, enable=1).status == 403
    assert bench.call("PUT", "/cluster/firewall/options", enable=1).data is None
    assert bench.call("GET", "/cluster/firewall/options").data["enable"] == 1


def test_a_destroyed_machine_leaves_no_rules(bench: Bench) -> None:
    bench.call("POST", f"{F}/rules", type="in", action="DROP")
    assert bench.done("DELETE", "/nodes/pve/qemu/120") == "OK"
    assert bench.done("POST", "/nodes/pve/qemu", vmid=120) == "OK"
    assert bench.call("GET", f"{F}/rules").data == []
