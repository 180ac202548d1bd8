"""What can go wrong between fo and Proxmox, one case for each defence: without it the case fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines_house import SECRET, House, Step, built
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.lab.base import Latencies
from funoffshore.plan import Action, Plan, Verb
from funoffshore.reading import Unreadable
from funoffshore.stages import machines
from funoffshore.stages.machines import shape
from funoffshore.world import proxmox, routes


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with built(tmp_path) as made:
        yield made


def bytes_of(house: House, vmid: int, node: str = "pve") -> Any:
    """Everything Proxmox stores of a VM."""
    return house.doors.proxmox.config(node, vmid)


# Numbers that are taken


def test_a_stranger_in_our_vmid_makes_the_machine_move_on(house: House) -> None:
    vmid = house.config.node("lab-w1").vmid
    house.api.add_stranger(vmid, "pbx")
    before = bytes_of(house, vmid)
    house.settle()
    assert house.vmid("lab-w1") != vmid
    assert bytes_of(house, vmid) == before
    house.destroy()
    assert bytes_of(house, vmid) == before
    assert [line for line in machines.left(house.config, house.look()[0]) if "pbx" in line]


def test_a_stranger_in_a_pinned_vmid_stops_everything(house: House) -> None:
    pinned = tuple(replace(node, vmid_pinned=True) for node in house.config.nodes)
    house.config = replace(house.config, nodes=pinned)
    house.api.add_stranger(house.config.node("lab-w1").vmid, "pbx")
    with pytest.raises(errors.ForeignError, match="pbx"):
        house.plan()
    assert house.calls() == []


def test_a_stranger_that_comes_between_plan_and_creation(house: House) -> None:
    plan = house.plan()
    vmid = house.config.node("lab-c1").vmid
    house.api.add_stranger(vmid, "pbx")
    before = bytes_of(house, vmid)
    house.run(plan)
    house.settle()
    assert house.vmid("lab-c1") != vmid
    assert bytes_of(house, vmid) == before


def test_a_stranger_that_takes_the_vmid_at_the_last_moment(house: House) -> None:
    house.kit.faults.on("vmid-race", times="2")
    house.run(house.plan())
    house.settle()
    mine = {house.vmid("lab-c1"), house.vmid("lab-w1")}
    others = {row.vmid for row in house.doors.proxmox.guests()} - mine
    assert len(others) == 2
    house.destroy()
    assert {row.vmid for row in house.doors.proxmox.guests()} == others


def test_a_recycled_vmid_is_not_ours(house: House) -> None:
    """Somebody deleted our machine, and a stranger got its number."""
    house.settle()
    facts = house.look()[0]
    vmid = house.config.node("lab-w1").vmid
    house.doors.proxmox.wait_task(house.doors.proxmox.stop("pve", vmid), Step(), "it to stop")
    house.doors.proxmox.wait_task(house.doors.proxmox.delete("pve", vmid), Step(), "it to go")
    house.api.add_stranger(vmid, "pbx")
    before = bytes_of(house, vmid)
    with pytest.raises(errors.ForeignError, match="not touched"):
        house.run(Plan.of([a for a in machines.destroy_plan(house.config, facts) if a.on == "lab-w1"]))
    values = {"hypervisor": "pve", "vmid": str(vmid)}
    for kind, verb in (("machine", Verb.DELETE), ("machine", Verb.CHANGE), ("power", Verb.CHANGE)):
        action = Action(verb, f"{kind}/lab-w1", "x", on="lab-w1", values=values)
        with pytest.raises(errors.ForeignError):
            machines.apply(house.world, house.config, action, Step())
    assert bytes_of(house, vmid) == before
    house.settle()
    assert house.vmid("lab-w1") != vmid
    assert bytes_of(house, vmid) == before


def test_a_copy_that_carries_our_identity_stops_everything(house: House) -> None:
    house.settle()
    node = house.config.node("lab-w1")
    upid = house.doors.proxmox.create_vm("pve", {"vmid": 9150, "name": "copy", "smbios1": f"uuid={node.identity}"})
    house.doors.proxmox.wait_task(upid, Step(), "the copy")
    before = house.calls()
    with pytest.raises(errors.PreflightError, match="9150"):
        house.plan()
    assert house.calls() == before


def test_a_stranger_with_the_name_of_our_machine(house: House) -> None:
    house.api.add_stranger(500, "lab-w1")
    with pytest.raises(errors.FoError, match="lab-w1"):
        house.plan()
    assert house.calls() == []


# Tasks


def test_a_failed_creation_shows_its_log_and_is_begun_again(house: House) -> None:
    house.kit.faults.on("task-fail", type="qmcreate", vmid=str(house.config.node("lab-c1").vmid), times="1")
    with pytest.raises(errors.TaskFailedError) as failed:
        house.run(house.plan())
    assert "lab-c1 to be created failed" in failed.value.message
    assert failed.value.evidence[0].startswith("UPID:pve:")
    assert "TASK ERROR" in failed.value.evidence[-1]
    house.settle()


def test_a_lost_creation_needs_root(house: House) -> None:
    house.kit.faults.on("task-lost", type="qmcreate", times="1")
    with pytest.raises(errors.TaskFailedError, match="its worker died"):
        house.run(house.plan())
    before = house.calls()
    with pytest.raises(errors.PreflightError, match="locked by a creation") as locked:
        house.plan()
    assert "qm unlock 9000" in locked.value.fix
    with pytest.raises(errors.PreflightError, match="locked by a creation"):
        machines.destroy_plan(house.config, house.look()[0])
    assert house.calls() == before


def test_locks_that_time_out_are_waited_for(house: House) -> None:
    house.kit.faults.on("lock-timeout", times="3")
    house.settle()
    assert len(house.creations()) >= 2


def test_a_daemon_without_workers_is_asked_again_after_a_look(house: House) -> None:
    house.kit.faults.on("no-worker", times="2")
    house.settle()
    assert len(house.doors.proxmox.guests()) == 2


def test_warnings_are_success_and_are_told(house: House) -> None:
    house.kit.faults.on("task-warnings", type="qmstart", times="1")
    steps = house.run(house.plan())
    assert [line for step in steps.values() for line in step.said if "warning" in line.lower()]
    house.settle()


def test_a_full_storage_is_named(house: House) -> None:
    house.kit.faults.on("storage-full", times="1")
    with pytest.raises(errors.TaskFailedError) as failed:
        house.run(house.plan())
    assert "No space left" in " ".join((failed.value.message, *failed.value.evidence))
    house.settle()


def test_an_image_of_the_wrong_checksum_is_refused(house: House) -> None:
    wrong = replace(house.config.image, sha256="b" * 64)
    house.config = replace(house.config, image=wrong)
    with pytest.raises(errors.TaskFailedError) as failed:
        house.run(house.plan())
    assert "checksum mismatch" in failed.value.message
    assert house.creations() == []


def test_an_image_that_is_there_and_is_another_is_an_error(house: House) -> None:
    house.prepare()
    house.api.volume_file("pve", shape.image_volume(house.config)).write_bytes(b"QFI\xfb" + b"x" * 600)
    plan = house.plan()
    assert "compare its digest" in plan.actions["image/local@pve"].reason
    with pytest.raises(errors.TaskFailedError, match="checksum mismatch"):
        house.run(plan)
    assert house.creations() == []


def test_an_image_that_is_there_and_right_is_reused(house: House) -> None:
    house.prepare()
    file = house.api.volume_file("pve", shape.image_volume(house.config))
    before = file.stat().st_mtime_ns
    house.settle()
    assert file.stat().st_mtime_ns == before


# Replies that are lost


@pytest.mark.parametrize("delay", [0.0, 20.0])
def test_a_lost_reply_is_looked_up_and_never_repeated(tmp_path: Path, delay: float) -> None:
    class Losing(proxmox.Proxmox):
        """The line is cut right after the request was carried out."""

        def create_vm(self, node: str, body: Mapping[str, Any]) -> str:
            super().create_vm(node, body)
            raise errors.UnreachableError("596 Connection timed out")

    with built(tmp_path, latencies=Latencies(create=delay)) as house:
        client = Losing(house.config.proxmox, routes.Routes(), house.kit.clock)
        house.doors = replace(house.doors, proxmox=client)
        house.settle()
        assert len(house.creations()) == 2


@pytest.mark.parametrize("fault", ["pve-596", "pve-cut"])
def test_every_write_may_lose_its_reply_once(house: House, fault: str) -> None:
    house.kit.faults.on(fault, times="1")
    for _ in range(12):
        try:
            house.settle()
            break
        except errors.UnreachableError:
            house.kit.faults.on(fault, times="1")
    else:
        pytest.fail("it never settled")
    house.kit.faults.off(fault)
    assert len(house.doors.proxmox.guests()) == 2
    assert len(house.creations()) == 2


def test_a_reply_that_was_lost_before_anything_happened(house: House) -> None:
    class Deaf(proxmox.Proxmox):
        def create_vm(self, node: str, body: Mapping[str, Any]) -> str:
            raise errors.UnreachableError("cut before it arrived")

    house.doors = replace(house.doors, proxmox=Deaf(house.config.proxmox, routes.Routes(), house.kit.clock))
    with pytest.raises(errors.UnreachableError, match="cut before it arrived"):
        house.run(house.plan())
    assert house.creations() == []


def test_a_recorded_task_that_is_forgotten_does_not_matter(house: House) -> None:
    plan = house.plan()
    gone = "UPID:pve:00000B88:0006E38A:6B05104E:qmcreate:9000:fo@pve!fo:"
    house.run(plan, {"machine/lab-c1": {"upid": gone}, "machine/lab-w1": {"upid": "nonsense"}})
    house.settle()


# Who is on the other side


@pytest.mark.parametrize("fault", ["pve-html", "pve-redirect"])
def test_what_is_not_proxmox_is_not_believed(house: House, fault: str) -> None:
    house.kit.faults.on(fault)
    with pytest.raises(errors.FoError):
        house.plan()
    house.kit.faults.off(fault)
    assert house.calls() == []


def test_a_wrong_pin_is_the_one_problem(house: House) -> None:
    (problem,) = machines.problems(house.config, house.seen_by(fingerprint="b" * 64))
    assert type(problem) is errors.TrustError


def test_a_wrong_secret_names_the_keys(house: House) -> None:
    (problem,) = machines.problems(house.config, house.seen_by(token_secret=SecretStr("no")))
    assert type(problem) is errors.PreflightError
    assert "PROXMOX_TOKEN_ID" in problem.fix
    assert "PROXMOX_TOKEN_SECRET" in problem.fix


def test_a_token_with_separated_privileges_and_none_given(house: House) -> None:
    house.api.add_token(house.config.proxmox.token_id, SECRET, {})
    found = machines.problems(house.config, house.look()[0])
    assert "pveum acl modify /vms" in found[0].fix
    assert house.calls() == []


def test_nobody_there(house: House) -> None:
    seen = house.seen_by(url=f"https://{house.config.network.subnet[9]}:8006")
    (problem,) = machines.problems(house.config, seen)
    assert type(problem) is errors.UnreachableError
    assert "Connection refused" in problem.message
    assert all(isinstance(reading, Unreadable) for reading in seen.machines.values())


def test_a_peer_that_is_down_is_not_an_absent_machine(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2", "pve3")) as house:
        house.settle()
        (gone,) = (row.node for row in house.doors.proxmox.guests() if row.name == "lab-w1")
        house.api.take_down(gone)
        before = house.calls()
        assert isinstance(house.look()[0].machine("lab-w1"), Unreadable)
        with pytest.raises(errors.FoError):
            house.plan()
        assert house.calls() == before
        house.api.bring_up(gone)
        assert not [key for key in house.plan().actions if key.startswith("machine/")]


def test_no_secret_is_in_any_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    house.run(house.plan())
    assert SECRET not in caplog.text
    assert "smbios1" not in caplog.text


def test_a_vm_that_somebody_else_is_making_in_our_range_is_a_strangers(tmp_path: Path) -> None:
    with built(tmp_path, latencies=Latencies(create=60.0)) as house:
        house.prepare()
        vmid = house.config.node("lab-w1").vmid
        house.api.add_token("other@pve!theirs", SECRET)
        other = house.another_client(token_id="other@pve!theirs")
        image = shape.image_volume(house.config)
        upid = other.create_vm("pve", {"vmid": vmid, "name": "theirs", "scsi0": f"local-lvm:0,import-from={image}"})
        seen = house.look()[0]
        assert seen.half_made == ()
        assert "somebody else is making it" in seen.guests[vmid].why
        assert machines.problems(house.config, seen) == []
        assert house.plan().actions["machine/lab-w1"].values["vmid"] != str(vmid)
        other.wait_task(upid, Step(), "theirs")


def test_an_ha_manager_that_cannot_be_asked_is_not_fine(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2", "pve3")) as house:
        house.config = replace(house.config, proxmox=replace(house.config.proxmox, high_availability=True))
        house.grant()
        house.settle()
        seen, hosts = house.look()
        blind = replace(seen, availability=Unreadable("nobody answers"))
        (action,) = machines.plan(house.config, blind, hosts)
        assert (action.key, action.verb) == ("ha/state", Verb.WAIT)
        assert "nobody answers" in action.reason
