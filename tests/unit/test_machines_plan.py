"""The machines stage without a world: facts in, actions out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines_kit import config, facts, host, hypervisor, line, machine, options

from funoffshore import errors
from funoffshore.plan import NONE, Permits, Plan, Verb
from funoffshore.reading import Absent, Present
from funoffshore.stages import machines
from funoffshore.stages.machines import MachineFacts, shape
from funoffshore.stages.machines.facts import Availability, Firewall, Guest, Missing
from funoffshore.world.proxmox import VmConfig
from funoffshore.world.ssh import FileFact

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text())
NOTHING: dict[str, Any] = {"machines": {}}
ALL: dict[str, Any] = {"machines": {"lab-c1": {}, "lab-w1": {}}}
SETTLED = {"lab-c1": host("disabled"), "lab-w1": host("disabled")}


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_plan(case: dict[str, Any]) -> None:
    hosts = {name: host(word) for name, word in case.get("hosts", {}).items()}
    actions = machines.plan(config(), facts(case), hosts)
    assert [line(a) for a in actions] == case["plan"]
    assert all(a.reason and a.stage == "machines" for a in actions)
    Plan.of(actions)


def test_a_new_machine_is_told_where_it_goes_and_why() -> None:
    create = next(a for a in machines.plan(config(), facts(NOTHING), {}) if a.key == "machine/lab-c1")
    assert create.values == {"hypervisor": "pve", "vmid": "9000"}
    assert create.reason.startswith("it is absent; VM 9000 on pve: ")
    assert "GiB of memory stay free" in create.reason


def test_what_can_be_done_without_a_restart_is_done() -> None:
    node = config().node("lab-c1")
    disk = options(node)["scsi0"].replace("size=32G", "size=8G")
    case = {"machines": {"lab-c1": {"options": {"scsi0": disk, "onboot": "0"}}, "lab-w1": {}}}
    (action,) = machines.plan(config(), facts(case), SETTLED)
    assert (action.verb, action.key) == (Verb.CHANGE, "machine/lab-c1")
    assert "its disk has 8 GiB, not 32" in action.reason
    assert "it does not start with its Proxmox node" in action.reason


FEWER_CORES: dict[str, Any] = {"machines": {"lab-c1": {"options": {"cores": "1"}}, "lab-w1": {}}}


def test_a_restart_is_held_back_until_it_is_allowed() -> None:
    assert machines.plan(config(), facts(FEWER_CORES), SETTLED) == []
    (held,) = machines.held(config(), facts(FEWER_CORES), NONE)
    assert (held.key, held.permit) == ("restart/lab-c1", "--allow-reboots")
    assert held.reason == "it has 1 cores, not 2"
    allowed = Permits(reboots=True)
    (action,) = machines.plan(config(), facts(FEWER_CORES), SETTLED, allowed)
    assert line(action) == "change restart/lab-c1 after drain/lab-c1 grow/lab-c1 machine/lab-c1 [restart]"
    assert machines.held(config(), facts(FEWER_CORES), allowed) == []


def test_restarts_wait_for_one_another() -> None:
    both = {"machines": {"lab-c1": {"options": {"cores": "1"}}, "lab-w1": {"options": {"cores": "1"}}}}
    first, second = machines.plan(config(), facts(both), SETTLED, Permits(reboots=True))
    assert first.key == "restart/lab-c1"
    assert {"restart/lab-c1", "host/lab-c1", "uncordon/lab-c1"} <= second.after


def test_what_waits_for_a_restart_already_is_held_back_too() -> None:
    waiting = machine(config().node("lab-c1"), {"pending": {"cores": ("1", "2")}})
    seen = facts(ALL, machines={"lab-c1": Present(waiting), "lab-w1": Present(machine(config().node("lab-w1")))})
    (held,) = machines.held(config(), seen, NONE)
    assert held.reason == "it has 1 cores, not 2 (already set, waits for a restart)"


def test_a_machine_that_is_off_needs_no_permit() -> None:
    case = {"machines": {"lab-c1": {"running": False, "options": {"cores": "1"}}, "lab-w1": {}}}
    keys = [a.key for a in machines.plan(config(), facts(case), SETTLED)]
    assert keys == ["machine/lab-c1", "power/lab-c1"]
    assert machines.held(config(), facts(case), NONE) == []


OTHER_FIRMWARE: dict[str, Any] = {"machines": {"lab-c1": {}, "lab-w1": {"options": {"bios": "ovmf"}}}}


def test_a_machine_is_made_anew_only_by_name() -> None:
    assert machines.plan(config(), facts(OTHER_FIRMWARE), SETTLED) == []
    (held,) = machines.held(config(), facts(OTHER_FIRMWARE), Permits(reboots=True))
    assert held.permit == "--replace lab-w1"
    allowed = Permits(replace=frozenset({"lab-w1"}))
    (action,) = machines.plan(config(), facts(OTHER_FIRMWARE), SETTLED, allowed)
    assert line(action) == "delete machine/lab-w1 after drain/lab-w1 leave/lab-w1"
    assert machines.held(config(), facts(OTHER_FIRMWARE), allowed) == []


def test_a_machine_that_the_env_file_names_no_more_is_removed_only_by_name() -> None:
    former = {"lab-w2": replace(machine(config().node("lab-w1")), vmid=9011, name="lab-w2")}
    seen = facts(ALL, former=former)
    assert machines.plan(config(), seen, SETTLED) == []
    assert [h.permit for h in machines.held(config(), seen, NONE)] == ["--remove lab-w2"]
    (action,) = machines.plan(config(), seen, SETTLED, Permits(remove=frozenset({"lab-w2"})))
    assert line(action) == "delete machine/lab-w2 after drain/lab-w2 leave/lab-w2"
    assert action.values == {"hypervisor": "pve", "vmid": "9011"}


def test_a_locked_machine_is_left_alone() -> None:
    case = {"machines": {"lab-c1": {"lock": "backup", "options": {"onboot": "0"}}, "lab-w1": {}}}
    assert machines.plan(config(), facts(case), SETTLED, Permits(reboots=True)) == []
    (held,) = machines.held(config(), facts(case), Permits(reboots=True))
    assert (held.permit, "it is locked: backup" in held.reason) == ("", True)


def test_cloud_init_keys_are_never_a_difference() -> None:
    changed = {"ciuser": "x", "sshkeys": "y", "ipconfig0": "ip=dhcp", "nameserver": "9.9.9.9", "cipassword": "z"}
    case = {"machines": {"lab-c1": {"options": changed}, "lab-w1": {}}}
    assert machines.plan(config(), facts(case), SETTLED, Permits(reboots=True)) == []
    assert machines.held(config(), facts(case), NONE) == []


def test_a_marker_written_by_hand_settles_a_failed_cloud_init() -> None:
    failed = host("error")
    assert isinstance(failed, Present)
    hosts = {"lab-c1": failed, "lab-w1": host("disabled")}
    assert [a.key for a in machines.plan(config(), facts(ALL), hosts)] == ["host/lab-c1"]
    mended = replace(failed.value, files={"/etc/cloud/cloud-init.disabled": Present(FileFact("file", 0o644, "0:0", 0))})
    assert machines.plan(config(), facts(ALL), {**hosts, "lab-c1": Present(mended)}) == []


def test_one_image_for_each_storage() -> None:
    spread = replace(
        config(),
        proxmox=replace(config().proxmox, nodes=("pve", "pve2")),
        nodes=(replace(config().nodes[0], hypervisor="pve"), replace(config().nodes[1], hypervisor="pve2")),
    )
    own = {"pve": Present(hypervisor()), "pve2": Present(hypervisor())}
    seen = facts({**NOTHING, "image": "absent"}, hypervisors=own, images={"pve": Absent(), "pve2": Absent()})
    keys = [a.key for a in machines.plan(spread, seen, {}) if a.key.startswith("image/")]
    assert keys == ["image/local@pve", "image/local@pve2"]
    store = replace(hypervisor().storages["local"], shared=True)
    shared = hypervisor(storages={**hypervisor().storages, "local": store})
    seen = replace(seen, hypervisors={"pve": Present(shared), "pve2": Present(shared)})
    actions = machines.plan(spread, seen, {})
    assert [a.key for a in actions if a.key.startswith("image/")] == ["image/local"]
    assert all("image/local" in a.after for a in actions if a.key.startswith("machine/"))


def test_firewall_rules_come_once_the_machine_is_there() -> None:
    guarded = replace(config(), shape=replace(config().shape, firewall=True))
    net = {"net0": f"{options(config().nodes[0])['net0']},firewall=1"}
    case = {"machines": {"lab-c1": {"options": net}, "lab-w1": "absent"}}
    seen = facts(case, firewalls={"lab-c1": Present(Firewall({}, ()))})
    keys = [a.key for a in machines.plan(guarded, seen, SETTLED) if a.key.startswith("firewall/")]
    assert keys == ["firewall/lab-c1"]


def test_rules_are_not_narrowed_while_a_former_machine_needs_them() -> None:
    """Its etcd member would be cut off from the others."""
    guarded = replace(config(), shape=replace(config().shape, firewall=True))
    net = {"net0": f"{options(config().nodes[0])['net0']},firewall=1"}
    case = {"machines": {"lab-c1": {"options": net}, "lab-w1": "absent"}}
    former = {"lab-c2": replace(machine(config().node("lab-c1")), vmid=9001, name="lab-c2")}
    closed = {"lab-c1": Present(Firewall({"enable": "1", "policy_in": "DROP"}, ()))}
    seen = facts(case, firewalls=closed)
    assert [a.key for a in machines.plan(guarded, seen, SETTLED) if a.key.startswith("firewall/")]
    seen = replace(seen, former=former)
    assert not [a.key for a in machines.plan(guarded, seen, SETTLED) if a.key.startswith("firewall/")]


def test_high_availability_waits_until_every_machine_is_there() -> None:
    wanted = replace(config(), proxmox=replace(config().proxmox, high_availability=True, nodes=("pve", "pve2", "pve3")))
    seen = facts(ALL, availability=Present(Availability(frozenset(), {}, {})))
    keys = [a.key for a in machines.plan(wanted, seen, SETTLED) if a.key.startswith("ha/")]
    assert keys == ["ha/resource/9000", "ha/resource/9010"]
    half = facts({"machines": {"lab-c1": {}}}, availability=seen.availability)
    assert [a for a in machines.plan(wanted, half, SETTLED) if a.key.startswith("ha/")] == []


def test_destroying_takes_what_is_ours_and_nothing_else() -> None:
    case = {"machines": {"lab-c1": {}, "lab-w1": "absent"}, "seeds": {"lab-w1": "present"}}
    former = {"lab-w2": replace(machine(config().node("lab-w1")), vmid=9011, name="lab-w2")}
    stranger = {9010: Guest(9010, "pbx", "pve", "its SMBIOS UUID is not set")}
    seen = facts(case, former=former, guests=stranger)
    assert [line(a) for a in machines.destroy_plan(config(), seen)] == [
        "delete machine/lab-c1",
        "delete machine/lab-w2",
        "delete seed/lab-w1 after machine/lab-w1",
        "delete pool/fo-lab after machine/lab-c1 machine/lab-w2 seed/lab-w1",
    ]
    said = machines.left(config(), seen)
    assert [text for text in said if "pbx" in text and "not ours" in text]
    assert [text for text in said if shape.image_volume(config()) in text]


def test_a_pool_with_a_stranger_in_it_stays() -> None:
    seen = facts(ALL, guests={100: Guest(100, "pbx", "pve", "", "fo-lab")})
    assert [a for a in machines.destroy_plan(config(), seen) if a.key.startswith("pool/")] == []
    assert [text for text in machines.left(config(), seen) if "VM 100 is in it" in text]


def test_disks_can_outlive_their_machines() -> None:
    actions = machines.destroy_plan(config(), facts(ALL), keep_disks=True)
    assert [a.values.get("keep") for a in actions] == ["disks", "disks"]


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (facts(NOTHING, door=errors.UnreachableError("nobody")), errors.UnreachableError),
        (facts({"machines": {"lab-c1": "unreadable"}}), errors.UnreachableError),
        (facts({"machines": {"lab-c1": {"options": {"protection": "1"}}}}), errors.PreflightError),
        (facts(NOTHING, half_made=(Guest(9000, "", "pve"),)), errors.PreflightError),
        (facts({"machines": {"lab-c1": {"lock": "create", "creating": "UPID:pve:1"}}}), errors.PreflightError),
        (facts(ALL, doubles=(("lab-c1", 9000, 9005),)), errors.PreflightError),
        (facts(ALL, missing=(Missing("/vms", "VM.Audit", "see"),)), errors.PreflightError),
    ],
)
def test_destroying_refuses_what_it_cannot_finish(seen: MachineFacts, kind: type[errors.FoError]) -> None:
    with pytest.raises(kind):
        machines.destroy_plan(config(), seen)


def test_a_machine_without_options_is_no_bug() -> None:
    bare = replace(machine(config().node("lab-c1")), config=VmConfig({"smbios1": "uuid=x"}))
    seen = facts(ALL, machines={"lab-c1": Present(bare), "lab-w1": Absent()})
    machines.plan(config(), seen, SETTLED, Permits(reboots=True))
    assert machines.held(config(), seen, NONE)
