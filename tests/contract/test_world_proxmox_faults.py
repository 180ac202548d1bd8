"""What can go wrong with a Proxmox, played by the lab: what the door makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import door_bench
import pve_bench
import pytest
from door_bench import House, Step

from funoffshore import errors
from funoffshore.lab.base import Latencies
from funoffshore.world import proxmox

DISK = "vmstore:0,import-from=local:import/deb.qcow2,discard=on"


@pytest.fixture(params=["8.4", "9.1"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with door_bench.house(tmp_path, release=request.param) as made:
        yield made


@pytest.fixture
def newest(tmp_path: Path) -> Iterator[House]:
    with door_bench.house(tmp_path) as made:
        yield made


@pytest.fixture
def root(newest: House) -> proxmox.Proxmox:
    """A client that may do everything."""
    return newest.another(token_id=pve_bench.ROOT)


def done(house: House, upid: str) -> None:
    assert upid.startswith("UPID:pve:")
    house.client.wait_task(upid, Step(), "it")


def test_a_lock_that_is_taken_for_a_while(newest: House) -> None:
    newest.make(900)
    newest.bench.kit.faults.on("lock-timeout", vmid="900", times="2")
    newest.client.change_now("pve", 900, {"description": "x"})
    assert newest.client.pending("pve", 900)["description"] == ("x", "x")


def test_no_worker_is_the_callers_business(newest: House) -> None:
    newest.make(900)
    newest.bench.kit.faults.on("no-worker", times="1")
    with pytest.raises(errors.RefusedError) as refusal:
        newest.client.start("pve", 900)
    assert proxmox.is_busy(refusal.value)
    assert newest.counted("POST /nodes/pve/qemu/900/status/start") == 1
    done(newest, newest.client.start("pve", 900))


@pytest.mark.parametrize("fault", ["pve-596", "pve-cut"])
def test_an_answer_that_is_lost(newest: House, fault: str) -> None:
    newest.bench.kit.faults.on(fault, method="POST", times="1")
    with pytest.raises(errors.UnreachableError):
        newest.client.create_vm("pve", {"vmid": 900})
    assert newest.client.config("pve", 900) is not None, "and yet it was done"
    assert newest.counted("POST /nodes/pve/qemu") == 1


@pytest.mark.parametrize(
    ("fault", "error"), [("pve-html", errors.RefusedError), ("pve-redirect", errors.UnreachableError)]
)
def test_somebody_in_between(newest: House, fault: str, error: type[errors.FoError]) -> None:
    newest.bench.kit.faults.on(fault)
    with pytest.raises(error):
        newest.client.resources()
    with pytest.raises(error):
        newest.client.create_pool("fo")
    newest.bench.kit.faults.off(fault)
    assert newest.client.pools() == frozenset()


def test_warnings_of_a_task(newest: House) -> None:
    newest.make(900)
    newest.bench.kit.faults.on("task-warnings", type="qmstart")
    step = Step()
    newest.client.wait_task(newest.client.start("pve", 900), step, "it")
    assert any(said.startswith("warning: WARN") for said in step.said)


def test_a_vmid_that_somebody_else_took_a_moment_before(newest: House) -> None:
    newest.bench.kit.faults.on("vmid-race", vmid="900", times="1")
    with pytest.raises(errors.RefusedError) as refusal:
        newest.client.create_vm("pve", {"vmid": 900, "name": "web"})
    assert proxmox.already_exists(refusal.value)
    found = newest.client.config("pve", 900)
    assert found is not None
    assert found.name != "web"


def test_a_peer_without_power(tmp_path: Path) -> None:
    with door_bench.house(tmp_path, nodes=("pve", "pve2", "pve3")) as house:
        house.bench.api.take_down("pve2")
        status = house.client.cluster_status()
        assert (status.quorate, status.nodes) == (True, {"pve": True, "pve2": False, "pve3": True})
        assert {node.name: node.online for node in house.client.resources().nodes} == status.nodes
        with pytest.raises(errors.UnreachableError) as silence:
            house.client.create_vm("pve2", {"vmid": 900})
        assert "Proxmox node pve2 did not answer" in silence.value.message
        assert "is up, but cannot reach that node" in silence.value.message
        assert house.client.version().release == (9, 1), "Proxmox as a whole goes on"
        found = house.client.gather({name: partial(house.client.vms, name) for name in status.nodes})
        assert [name for name, answer in found.items() if isinstance(answer, errors.FoError)] == ["pve2"]


def test_a_cluster_without_quorum(tmp_path: Path) -> None:
    with door_bench.house(tmp_path, nodes=("pve", "pve2", "pve3")) as house:
        house.bench.api.take_down("pve2")
        house.bench.api.take_down("pve3")
        assert not house.client.cluster_status().quorate
        with pytest.raises(errors.RefusedError, match="quorum") as refusal:
            house.client.create_vm("pve", {"vmid": 900})
        assert not proxmox.is_busy(refusal.value)
        assert house.counted("POST /nodes/pve/qemu") == 1


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    with door_bench.house(tmp_path, latencies=Latencies(create=60.0)) as house:
        upid = house.client.create_vm("pve", {"vmid": 900, "scsi0": DISK})
        house.bench.api.kill_worker(upid)
        with pytest.raises(errors.TaskFailedError, match="its worker died") as failed:
            house.client.wait_task(upid, Step(), "web to be created")
        assert not proxmox.is_busy(failed.value)
        left = house.client.config("pve", 900)
        assert left is not None
        assert (left.lock, left.identity) == ("create", "")


def test_a_task_that_waits_for_a_lock_in_vain(newest: House) -> None:
    newest.make(900)
    newest.bench.api.hold_lock(900, 1000.0)
    with pytest.raises(errors.TaskFailedError) as failed:
        newest.client.wait_task(newest.client.start("pve", 900), Step(), "it")
    assert proxmox.is_busy(failed.value)
