"""The machine stage, end to end, against the lab's Proxmox and its hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from machines_house import House, Step, built, spread

from funoffshore import errors
from funoffshore.lab.base import Latencies
from funoffshore.plan import Action, Permits, Plan, Verb
from funoffshore.reading import Absent, Present
from funoffshore.stages import machines


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with built(tmp_path) as made:
        yield made


@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_from_nothing_to_hosts_with_just_the_privileges_that_are_asked_for(tmp_path: Path, release: str) -> None:
    with built(tmp_path, release=release) as house:
        house.grant()
        plan = house.plan()
        assert len(plan.actions) == 10
        house.run(plan)
        before = house.calls()
        assert not house.plan()
        assert house.held() == []
        assert house.calls() == before
        volumes = house.doors.proxmox.content("pve", house.config.proxmox.image_storage)
        assert [v.content for v in volumes] == ["import"], "a seed was left behind"
        node = house.config.node("lab-w1")
        made = house.doors.proxmox.config("pve", node.vmid)
        assert made is not None
        assert (made.identity, made.cores, made.memory_mib, made.disk_gib(), made.cdrom) == (
            str(node.identity), node.cores, node.memory_mib, node.disk_gib, "",
        )  # fmt: skip
        house.destroy()
        assert machines.destroy_plan(house.config, house.look()[0]) == []
        assert house.doors.proxmox.guests() == []
        assert house.config.proxmox.pool not in house.doors.proxmox.pools()


def test_two_hypervisors_each_get_the_image(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2")) as house:
        plan = house.plan()
        assert [a.key for a in plan.actions.values() if a.key.startswith("image/")] == [
            "image/local@pve",
            "image/local@pve2",
        ]
        house.run(plan)
        assert not house.plan()
        assert {row.node for row in house.doors.proxmox.guests()} == {"pve", "pve2"}
        assert len(house.calls("download-url")) == 2
        house.destroy()
        assert house.doors.proxmox.guests() == []


def test_machines_are_placed_where_there_is_room(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2")) as house:
        gib = 2**30
        house.api.set_memory("pve", 16 * gib, 15 * gib)
        house.api.set_memory("pve2", 64 * gib, 4 * gib)
        free = tuple(replace(node, hypervisor="") for node in house.config.nodes)
        house.config = replace(house.config, nodes=free)
        plan = house.plan()
        assert {a.values["hypervisor"] for a in plan.actions.values() if a.key.startswith("machine/")} == {"pve2"}
        assert "GiB of memory stay free" in plan.actions["machine/lab-c1"].reason
        house.run(plan)
        assert not house.plan()


def test_a_machine_that_was_moved_to_another_hypervisor_is_still_ours(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2")) as house:
        house.run(house.plan())
        house.config = spread(house.config, ("pve2", "pve"))
        assert not house.plan()
        house.destroy()
        assert house.doors.proxmox.guests() == []


def test_our_machine_under_another_vmid_is_found(house: House) -> None:
    house.run(house.plan())
    renumbered = tuple(replace(node, vmid=node.vmid + 100) for node in house.config.nodes)
    house.config = replace(house.config, nodes=renumbered)
    assert not house.plan()
    house.destroy()
    assert house.doors.proxmox.guests() == []


def test_a_plan_changes_nothing(house: House) -> None:
    assert house.plan()
    assert house.calls() == []


def test_an_unchanged_cluster_is_not_read_anew(house: House) -> None:
    house.run(house.plan())
    assert not house.plan(thorough=False)
    before = house.doors.proxmox.calls
    assert not house.plan(thorough=False)
    assert house.doors.proxmox.calls - before <= 4


def test_a_change_by_somebody_else_is_seen_by_a_thorough_look_and_then_by_every_one(house: House) -> None:
    house.settle()
    assert not house.plan(thorough=False)
    vmid = house.config.node("lab-w1").vmid
    house.doors.proxmox.change_now("pve", vmid, {"onboot": 0})
    plan = house.plan()
    assert list(plan.actions) == ["machine/lab-w1"]
    assert list(house.plan(thorough=False).actions) == ["machine/lab-w1"]
    house.run(plan)
    assert not house.plan()


def test_sizes_change_with_a_restart_and_disks_at_once(house: House) -> None:
    house.settle()
    node = house.config.node("lab-w1")
    grown = replace(node, cores=node.cores + 1, memory_mib=node.memory_mib * 2, disk_gib=node.disk_gib + 8)
    house.config = replace(house.config, nodes=(house.config.node("lab-c1"), grown))
    plan = house.plan()
    assert list(plan.actions) == ["machine/lab-w1"]
    house.run(plan)
    assert {held.key for held in house.held()} == {"restart/lab-w1"}
    assert not [a for a in house.plan().actions if a.startswith(("machine/", "restart/"))]
    allowed = Permits(reboots=True)
    restart = house.plan(allowed)
    assert "restart/lab-w1" in restart.actions
    house.run(restart)
    assert not [key for key in house.plan(allowed).actions if not key.startswith("host/")]
    assert house.held() == []
    made = house.doors.proxmox.config("pve", node.vmid)
    assert made is not None
    assert (made.cores, made.memory_mib, made.disk_gib()) == (grown.cores, grown.memory_mib, grown.disk_gib)
    assert house.doors.proxmox.running("pve", node.vmid)
    assert all(now == then for now, then in house.doors.proxmox.pending("pve", node.vmid).values())


def test_a_disk_never_shrinks(house: House) -> None:
    house.settle()
    node = house.config.node("lab-w1")
    smaller = replace(node, disk_gib=node.disk_gib - 8)
    house.config = replace(house.config, nodes=(house.config.node("lab-c1"), smaller))
    with pytest.raises(errors.PreflightError, match="shrink"):
        house.plan()


def test_a_machine_is_made_anew_when_the_operator_says_so(house: House) -> None:
    house.settle()
    node = house.config.node("lab-w1")
    before = house.doors.proxmox.config("pve", node.vmid)
    house.settle(Permits(replace=frozenset({"lab-w1"})))
    after = house.doors.proxmox.config("pve", node.vmid)
    assert before is not None
    assert after is not None
    assert after.identity == before.identity
    assert after.options["vmgenid"] != before.options["vmgenid"]
    assert len(house.creations()) == 3


def test_a_worker_less_is_removed_by_name(house: House) -> None:
    house.settle()
    vmid = house.config.node("lab-w1").vmid
    house.config = replace(house.config, nodes=(house.config.node("lab-c1"),))
    assert not house.plan()
    assert [h.permit for h in house.held()] == ["--remove lab-w1"]
    house.run(house.plan(Permits(remove=frozenset({"lab-w1"}))))
    assert house.held() == []
    assert [row.vmid for row in house.doors.proxmox.guests()] == [house.config.node("lab-c1").vmid]
    assert len(house.calls(f"DELETE /nodes/pve/qemu/{vmid}")) == 1


def test_protection_is_honoured(house: House) -> None:
    house.run(house.plan())
    node = house.config.node("lab-c1")
    facts = house.look()[0]
    house.doors.proxmox.change_now("pve", node.vmid, {"protection": True})
    with pytest.raises(errors.PreflightError, match="protected"):
        machines.destroy_plan(house.config, house.look()[0])
    with pytest.raises(errors.PreflightError, match="protected"):
        house.run(Plan.of(machines.destroy_plan(house.config, facts)))
    assert house.calls("DELETE /nodes/pve/qemu/") == []


def test_disks_outlive_their_machines_when_asked(house: House) -> None:
    house.settle()
    house.run(Plan.of(machines.destroy_plan(house.config, house.look()[0], keep_disks=True)))
    (keeper,) = house.doors.proxmox.guests()
    assert keeper.name == "lab-kept-pve"
    kept = house.doors.proxmox.config("pve", keeper.vmid)
    assert kept is not None
    assert {"unused0", "unused1"} <= kept.options.keys()
    assert "scsi0 of lab-c1" in kept.options["description"]
    assert "scsi0 of lab-w1" in kept.options["description"]
    said = machines.left(house.config, house.look()[0])
    assert [line for line in said if "lab-kept-pve" in line]


def test_an_address_that_already_answers(house: House) -> None:
    address = str(house.config.node("lab-w1").address)
    listener = house.kit.routes.listen(address, house.config.ssh.port)
    with contextlib.closing(listener), pytest.raises(errors.PreflightError, match=address):
        house.plan()
    assert house.calls() == []


def test_pool_and_seed_are_seen(house: House) -> None:
    house.run(Plan({k: a for k, a in house.plan().actions.items() if k.startswith("pool/")}))
    seen = house.look()[0]
    assert seen.pool == Present("fo-lab")
    assert seen.seed("lab-c1") == Absent()


def test_machines_can_be_cloned_from_a_template(tmp_path: Path) -> None:
    with built(tmp_path, release="8.0") as house:
        house.api.add_template(8000, "debian-13", disk_gib=2)
        named = replace(house.config.image, template="debian-13")
        house.config = replace(house.config, image=named)
        plan = house.plan()
        assert not [key for key in plan.actions if key.startswith("image/")]
        house.run(plan)
        assert not house.plan()
        assert house.held() == []
        made = house.doors.proxmox.config("pve", house.config.node("lab-c1").vmid)
        assert made is not None
        assert made.identity == str(house.config.node("lab-c1").identity)
        house.destroy()
        assert [row.vmid for row in house.doors.proxmox.guests()] == [8000]


def test_a_guarded_machine_has_its_rules_and_none_is_written_twice(tmp_path: Path) -> None:
    with built(tmp_path) as house:
        house.config = replace(house.config, shape=replace(house.config.shape, firewall=True))
        house.settle()
        rules = house.doors.proxmox.firewall_rules("pve", house.config.node("lab-c1").vmid)
        assert len(rules) >= 5
        assert all(rule["comment"].startswith("fo: ") for rule in rules)
        before = house.calls()
        assert not house.plan()
        assert house.calls() == before


@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_high_availability_comes_and_goes(tmp_path: Path, release: str) -> None:
    with built(tmp_path, release=release, nodes=("pve", "pve2", "pve3")) as house:
        plain = house.config
        wanted = replace(plain.proxmox, high_availability=True)
        house.config = replace(plain, proxmox=wanted)
        house.grant()
        house.settle()
        vmids = {house.vmid("lab-c1"), house.vmid("lab-w1")}
        assert house.doors.proxmox.ha_resources() == vmids
        assert not house.plan()
        house.destroy()
        assert house.doors.proxmox.ha_resources() == frozenset()
        assert house.doors.proxmox.guests() == []


def test_a_creation_that_an_earlier_run_began_is_waited_for(tmp_path: Path) -> None:
    with built(tmp_path, latencies=Latencies(create=20.0)) as house:
        house.prepare()
        create = house.plan().actions["machine/lab-c1"]
        begin(house, create)
        plan = house.plan()
        assert plan.actions["machine/lab-c1"].verb is Verb.WAIT
        house.run(plan)
        house.settle()
        assert len([c for c in house.creations() if c.endswith(f" {house.config.node('lab-c1').vmid}")]) == 1


def begin(house: House, create: Action) -> str:
    """What a run that is killed right after its request has done so far."""
    from funoffshore.stages.machines import creation, shape
    from funoffshore.stages.machines.placing import Place

    node = house.config.node(create.on)
    place = Place(create.values["hypervisor"], int(create.values["vmid"]), "")
    creation._prepare(house.world, house.config, node, place, Step())
    body = shape.body(house.config, node, place, house.doors.proxmox.release())
    return house.doors.proxmox.create_vm(place.hypervisor, body)


def test_a_machine_whose_backup_still_names_its_seed_starts_again(house: House) -> None:
    house.settle()
    node = house.config.node("lab-w1")
    client = house.doors.proxmox
    client.wait_task(client.stop("pve", node.vmid), Step(), "it to stop")
    volume = machines.shape.seed_volume(house.config, node)
    house.api.edit(node.vmid, ide2=f"{volume},media=cdrom")
    house.settle()
    assert client.running("pve", node.vmid)
    made = client.config("pve", node.vmid)
    assert made is not None
    assert made.cdrom == ""
    assert [v.volid for v in client.content("pve", house.config.proxmox.image_storage) if v.content == "iso"] == []


def test_a_copy_of_the_template_that_an_earlier_run_began_is_finished(tmp_path: Path) -> None:
    """Killed while Proxmox copies, and killed again before the copy was given its identity."""
    from funoffshore.stages.machines import creation, shape
    from funoffshore.stages.machines.placing import Place

    with built(tmp_path, release="8.0", latencies=Latencies(create=20.0)) as house:
        house.api.add_template(8000, "debian-13", disk_gib=2)
        house.config = replace(house.config, image=replace(house.config.image, template="debian-13"))
        house.prepare()
        node = house.config.node("lab-c1")
        create = house.plan().actions["machine/lab-c1"]
        place = Place(create.values["hypervisor"], int(create.values["vmid"]), "")
        creation._prepare(house.world, house.config, node, place, Step())
        upid = house.doors.proxmox.clone("pve", 8000, shape.clone_body(house.config, node, place))
        plan = house.plan()
        assert plan.actions["machine/lab-c1"].verb is Verb.WAIT
        assert "power/lab-c1" not in plan.actions
        house.doors.proxmox.wait_task(upid, Step(), "the copy")
        assert house.plan().actions["machine/lab-c1"].verb is Verb.CREATE
        house.settle()
        assert len(house.calls("/clone")) == 2
        assert {row.name for row in house.doors.proxmox.guests()} == {"debian-13", "lab-c1", "lab-w1"}


@pytest.mark.parametrize("call", ["clone", "change"])
def test_a_lost_reply_while_copying_makes_no_second_copy(tmp_path: Path, call: str) -> None:
    with built(tmp_path, release="8.0") as house:
        house.api.add_template(8000, "debian-13", disk_gib=2)
        house.config = replace(house.config, image=replace(house.config.image, template="debian-13"))
        path = {"clone": "/nodes/*/qemu/*/clone", "change": "/nodes/*/qemu/*/config"}[call]
        house.kit.faults.on("pve-cut", path=path, times="1")
        with pytest.raises(errors.UnreachableError):
            house.run(house.plan())
        house.settle()
        assert {row.name for row in house.doors.proxmox.guests()} == {"debian-13", "lab-c1", "lab-w1"}
        assert len(house.calls("/clone")) == 2


def test_rules_that_somebody_changed_are_mended_by_the_next_run_once_they_were_seen(tmp_path: Path) -> None:
    with built(tmp_path) as house:
        house.config = replace(house.config, shape=replace(house.config.shape, firewall=True))
        house.settle()
        assert not house.plan(thorough=False)
        vmid = house.config.node("lab-c1").vmid
        house.doors.proxmox.delete_firewall_rule("pve", vmid, 0)
        assert list(house.plan().actions) == ["firewall/lab-c1"]
        plan = house.plan(thorough=False)
        assert list(plan.actions) == ["firewall/lab-c1"]
        house.run(plan)
        assert not house.plan()


def test_a_seed_that_somebody_put_back_is_deleted_once_it_was_seen(house: House) -> None:
    from funoffshore.stages.machines import creation

    house.settle()
    assert not house.plan(thorough=False)
    creation.upload(house.world, house.config, house.config.node("lab-c1"), "pve", Step())
    assert list(house.plan().actions) == ["seed/lab-c1"]
    house.run(house.plan(thorough=False))
    assert not house.plan()
