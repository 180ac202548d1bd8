"""The life of machines as an operator sees it: strangers, more and fewer, restarts, replacement, the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from operator_home import Operator
from road_kit import proxmox_of, served

from funoffshore import clock, config
from funoffshore.reading import Present
from funoffshore.stages.k3s.look import node_fact
from funoffshore.world.kube import Kube
from funoffshore.world.proxmox import Proxmox
from funoffshore.world.routes import Routes
from funoffshore.world.ssh import Hosts as Ssh


@pytest.fixture
def fresh(tmp_path: Path) -> Operator:
    """An operator with an empty Proxmox and a small cluster."""
    return Operator(tmp_path / "home", CONTROLLERS=1, WORKERS=1)


def test_a_stranger_in_our_place_is_left_alone(fresh: Operator) -> None:
    fresh.fo("plan")
    first = fresh.value("VMID_FIRST")
    with proxmox_of(fresh) as proxmox:
        proxmox.add_stranger(int(first), "nas")
    plan = fresh.fo("plan", "--json").json["actions"]
    assert first not in {a["values"].get("vmid") for a in plan}
    ended = fresh.fo("bootstrap", "--until", "machines")
    assert ended.code == 0, ended.err
    destroyed = fresh.fo("destroy", "--confirm", "lab")
    assert destroyed.code == 0, destroyed.err
    assert f"left: VM {first} (nas)" in destroyed.err
    assert [e for e in fresh.ledger() if f"/qemu/{first}" in e or e.endswith(f"/qemu {first}")] == []


def test_a_stranger_in_a_pinned_place_is_named(fresh: Operator) -> None:
    fresh.fo("plan")
    fresh.set("NODE_C1_VMID", fresh.value("VMID_FIRST"))
    with proxmox_of(fresh) as proxmox:
        proxmox.add_stranger(int(fresh.value("VMID_FIRST")), "nas")
    ended = fresh.fo("bootstrap")
    assert ended.code == 10, ended.err
    assert "nas" in ended.err
    assert fresh.mutations() == 0


def test_a_worker_more_and_a_worker_less(fresh: Operator) -> None:
    assert fresh.fo("bootstrap").code == 0
    fresh.set("WORKERS", "2")
    grown = fresh.fo("bootstrap")
    assert grown.code == 0, grown.err
    fresh.set("WORKERS", "1")
    kept = fresh.fo("bootstrap")
    assert kept.code == 0, kept.err
    assert "machine/lab-w2" in kept.out
    assert "--remove lab-w2" in kept.out
    before = len(fresh.ledger())
    gone = fresh.fo("bootstrap", "--remove", "lab-w2")
    assert gone.code == 0, gone.err
    done = fresh.ledger()[before:]
    again = fresh.fo("bootstrap", "--until", "machines", "--remove", "lab-w2")
    assert again.code == 0, again.err
    assert "there is no machine lab-w2 left to remove" in again.err
    assert "kube DELETE v1/Node lab-w2" in done
    assert "pve DELETE /nodes/pve/qemu/9011" in done
    assert fresh.fo("plan", "--json").json == {"actions": [], "held": []}


def test_restarts_are_drained_and_done_one_at_a_time(fresh: Operator) -> None:
    assert fresh.fo("bootstrap").code == 0
    fresh.set("WORKER_CORES", "3")
    fresh.set("CONTROLLER_CORES", "3")
    plan = fresh.fo("plan", "--json").json
    assert plan["actions"] == []
    assert {h["permit"] for h in plan["held"]} == {"--allow-reboots"}
    done = fresh.fo("bootstrap", "--allow-reboots")
    assert done.code == 0, done.err
    order = [line.split("] ")[1].split(":")[0] for line in done.err.splitlines() if ": done in" in line]
    ours = [key for key in order if key.split("/")[0] in ("drain", "restart", "uncordon")]
    assert ours == [f"{kind}/{name}" for name in ("lab-c1", "lab-w1") for kind in ("drain", "restart", "uncordon")]
    assert fresh.fo("plan", "--json").json == {"actions": [], "held": []}
    assert fresh.fo("postcheck").code == 0


def test_a_worker_is_made_anew(fresh: Operator) -> None:
    assert fresh.fo("bootstrap").code == 0
    unknown = fresh.fo("bootstrap", "--replace", "lab-w9")
    assert unknown.code == 2
    done = fresh.fo("bootstrap", "--replace", "lab-w1")
    assert done.code == 0, done.err
    creations = [e for e in fresh.ledger() if e.startswith("pve POST /nodes/pve/qemu ")]
    assert len(creations) == 3
    assert fresh.fo("plan", "--json").json == {"actions": [], "held": []}


def test_a_dead_controller_goes_before_a_living_one(tmp_path: Path) -> None:
    """Of three members one is dead: taking away a living one would leave one of two, which is no quorum."""
    home = Operator(tmp_path / "home", CONTROLLERS=3, WORKERS=0)
    assert home.fo("bootstrap", "--until", "k3s").code == 0
    three = config.load(home.env_file, home.folder)
    home.set("CONTROLLERS", "1")
    with served(home):
        hosts = Ssh(three, Routes(home.lab / "routes.json"), clock.WallClock())
        hosts.change(three.node("lab-c3"), {"units": [{"name": "k3s.service", "action": "stop"}]})
        hosts.close()
        clock.wait(clock.WallClock(), "lab-c3 to be missed", lambda: missed(home, "lab-c3"), deadline=120, interval=0.2)
        refused = home.fo("bootstrap", "--until", "k3s", "--remove", "lab-c2")
        assert refused.code != 0
        assert "Remove that one first: --remove lab-c3" in refused.err
        proxmox_client(home).stop("pve", three.node("lab-c3").vmid)
        clock.wait(clock.WallClock(), "lab-c3 to be off", lambda: off(home, "lab-c3"), deadline=60, interval=0.2)
        refused = home.fo("bootstrap", "--until", "k3s", "--remove", "lab-c2")
        assert refused.code != 0
        assert "lab-c2 cannot go while lab-c3 is not running" in refused.err
        done = home.fo("bootstrap", "--until", "k3s", "--remove", "lab-c2", "--remove", "lab-c3")
        assert done.code == 0, done.err
        assert done.err.index("delete leave/lab-c3") < done.err.index("delete leave/lab-c2")
        assert nodes_of(home) == {"lab-c1": True}


def proxmox_client(home: Operator) -> Proxmox:
    """The hypervisor's API with the operator's own token, while the lab is served."""
    return Proxmox(config.load(home.env_file, home.folder).proxmox, Routes(home.lab / "routes.json"), clock.WallClock())


def nodes_of(home: Operator) -> dict[str, bool]:
    """Every Node by name, and whether it is Ready."""
    reading = Kube(home.lab / "lab.kubeconfig", Routes(home.lab / "routes.json"), clock.WallClock()).list("v1/Node")
    assert isinstance(reading, Present), reading
    return {node["metadata"]["name"]: node_fact(node).ready for node in reading.value}


def off(home: Operator, name: str) -> clock.Done[None] | clock.Pending:
    powered = {row.name: row.running for row in proxmox_client(home).vms("pve")}
    return clock.Pending("it is still on") if powered[name] else clock.Done(None)


def missed(home: Operator, name: str) -> clock.Done[None] | clock.Pending:
    return clock.Pending("it is still called Ready") if nodes_of(home)[name] else clock.Done(None)


def test_disks_of_machines_that_go_side_by_side_are_kept(fresh: Operator) -> None:
    assert fresh.fo("bootstrap", "--until", "machines").code == 0
    ended = fresh.fo("destroy", "--confirm", "lab", "--keep-disks")
    assert ended.code == 0, ended.err
    assert ended.err.count("left: VM") == 1
    assert "lab-kept-pve" in ended.err
    assert len([entry for entry in fresh.ledger() if entry.endswith("/move_disk")]) == 2


def test_destroy_takes_ours_and_nothing_else(fresh: Operator) -> None:
    assert fresh.fo("bootstrap", "--until", "machines").code == 0
    refused = fresh.fo("destroy", "--confirm", "wrong")
    assert refused.code == 2
    ended = fresh.fo("destroy", "--confirm", "lab")
    assert ended.code == 0, ended.err
    keys = {a["key"] for a in fresh.fo("plan", "--json").json["actions"]}
    assert {"machine/lab-c1", "machine/lab-w1"} <= keys
