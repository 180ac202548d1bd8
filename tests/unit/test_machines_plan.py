"""The machines stage without a world: facts in, actions or problems out."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from funoffshore import errors, seed
from funoffshore.config import ClusterConfig, Node, loader, new
from funoffshore.plan import Action, Plan
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages import machines
from funoffshore.stages.machines import Hypervisor, Machine, MachineFacts, Missing, hardware
from funoffshore.world.proxmox import Storage
from funoffshore.world.ssh import FileFact, HostFacts

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text())
DIGEST = "a" * 64
PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), DIGEST)
GIB = 2**30
UNSEEN = Unreadable("the door is shut")


@cache
def config() -> ClusterConfig:
    """One controller, one worker."""
    whole = loader.parse(new.generate("lab", PINS, lab=True), "lab", Path("/nowhere"))
    return replace(whole, nodes=(whole.node("lab-c1"), whole.node("lab-w1")))


def machine(node: Node, **changed: Any) -> Machine:
    if changed.get("cdrom") == "seed":
        changed["cdrom"] = hardware.seed_volume(config(), node)
    ours = Machine(
        hypervisor="pve", vmid=node.vmid, name=node.name, identity=str(node.identity), running=True,
        cores=node.cores, memory_mib=node.memory_mib, disk_gib=node.disk_gib,
    )  # fmt: skip
    return replace(ours, **changed)


def reading(word: str, value: str) -> Reading[str]:
    if word == "absent":
        return Absent()
    return UNSEEN if word == "unreadable" else Present(value)


def host(word: str) -> Reading[HostFacts]:
    if word in {"absent", "unreadable"}:
        return Absent() if word == "absent" else UNSEEN
    settled = word == "disabled"
    marker: Reading[FileFact] = Present(FileFact("file", 0o644, "0:0", 1)) if settled else Absent()
    return Present(
        HostFacts(
            hostname="", uuid="", boot_id="", arch="x86_64", os="debian 13", kernel="", clock_skew=0.0,
            clock_synced=True, cloud_init=word, memory_mib=1, swap_mib=0, cpus=1, cgroup2=True, default_route="",  # type: ignore[arg-type]
            listening=frozenset(), files={"/etc/cloud/cloud-init.disabled": marker},
        )
    )  # fmt: skip


def hypervisor(**changed: Any) -> Hypervisor:
    storages = {
        "local-lvm": Storage("local-lvm", frozenset({"images"}), 500 * GIB, True, False),
        "local": Storage("local", frozenset({"import", "iso"}), 50 * GIB, True, False),
    }
    return replace(Hypervisor(True, 64 * GIB, storages, frozenset({"vmbr0"})), **changed)


def facts(case: dict[str, Any], **changed: Any) -> MachineFacts:
    seen: dict[str, Reading[Machine]] = {}
    for node in config().nodes:
        said = case["machines"].get(node.name, "absent")
        seen[node.name] = (
            Present(machine(node, **said)) if isinstance(said, dict) else Absent() if said == "absent" else UNSEEN
        )
    seeds = {
        node.name: reading(case.get("seeds", {}).get(node.name, "absent"), hardware.seed_volume(config(), node))
        for node in config().nodes
    }
    whole = MachineFacts(
        release=Present((9, 1)),
        machines=seen,
        pool=reading(case.get("pool", "present"), "fo-lab"),
        images={"pve": reading(case.get("image", "present"), "x")},
        seeds=seeds,
        hypervisors={"pve": Present(hypervisor())},
    )
    return replace(whole, **changed)


def line(action: Action) -> str:
    after = f" after {' '.join(sorted(action.after))}" if action.after else ""
    return f"{action.verb} {action.key}{after}{f' [{action.lane}]' if action.lane else ''}"


NOTHING: dict[str, Any] = {"machines": {}}
ALL: dict[str, Any] = {"machines": {"lab-c1": {}, "lab-w1": {}}}


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_plan(case: dict[str, Any]) -> None:
    hosts = {name: host(word) for name, word in case.get("hosts", {}).items()}
    actions = machines.plan(config(), facts(case), hosts)
    assert [line(a) for a in actions] == case["plan"]
    assert all(a.reason and a.stage == "machines" for a in actions)
    Plan.of(actions)


def test_reasons_name_the_difference() -> None:
    case = {"machines": {"lab-c1": {"cores": 1, "memory_mib": 1024, "disk_gib": 8.0}, "lab-w1": {}}}
    action = machines.plan(config(), facts(case), {"lab-w1": host("disabled")})[0]
    assert action.reason == (
        "it has 1 cores, not 2, it has 1024 MiB of memory, not 4096, its disk has 8 GiB, not 32"
        " (the guest sees it after its next restart)"
    )


def test_a_marker_written_by_hand_settles_a_failed_cloud_init() -> None:
    failed = host("error")
    assert isinstance(failed, Present)
    assert [a.key for a in machines.plan(config(), facts(ALL), {"lab-c1": failed, "lab-w1": host("disabled")})] == [
        "host/lab-c1"
    ]
    mended = replace(failed.value, files={"/etc/cloud/cloud-init.disabled": Present(FileFact("file", 0o644, "0:0", 0))})
    assert machines.plan(config(), facts(ALL), {"lab-c1": Present(mended), "lab-w1": host("disabled")}) == []


def first(problem_facts: MachineFacts, kind: type[errors.FoError], *words: str) -> errors.FoError:
    """The first problem, which must be of that class and say these words."""
    found = machines.problems(config(), problem_facts)
    assert found, "no problem was found"
    assert type(found[0]) is kind
    text = f"{found[0].message} | {found[0].fix} | {found[0].evidence}"
    assert [w for w in words if w not in text] == []
    return found[0]


def test_no_problem() -> None:
    assert machines.problems(config(), facts(NOTHING)) == []
    assert machines.problems(config(), facts(ALL)) == []


def test_a_door_that_is_shut_is_the_only_problem() -> None:
    shut = errors.TrustError("not the pinned one")
    assert machines.problems(config(), facts(NOTHING, door=shut)) == [shut]


def test_missing_privileges_are_all_named_with_their_remedy() -> None:
    lacking = (
        Missing("/vms", "VM.PowerMgmt", "start machines"),
        Missing("/storage/local", "Datastore.Allocate", "delete the seeds"),
    )
    first(
        facts(NOTHING, missing=lacking), errors.PreflightError,
        "VM.PowerMgmt on /vms", "Datastore.Allocate on /storage/local", "pveum acl modify /vms",
        "pveum acl modify /storage/local", "--tokens 'fo@pve!fo'",
    )  # fmt: skip


def test_a_stranger_in_our_vmid() -> None:
    case = {"machines": {"lab-c1": {"identity": "", "name": "pbx"}, "lab-w1": {}}}
    first(facts(case), errors.ForeignError, "VM 9000 on pve (pbx) is not lab-c1", "not touched")


def test_a_lock_that_nobody_holds() -> None:
    case = {"machines": {"lab-c1": {"lock": "create", "identity": ""}, "lab-w1": {}}}
    first(facts(case), errors.PreflightError, "qm unlock 9000", "qm destroy 9000")


def test_a_creation_of_ours_is_no_problem() -> None:
    case = {"machines": {"lab-c1": {"lock": "create", "identity": "", "creating": "UPID:pve:1"}, "lab-w1": {}}}
    assert machines.problems(config(), facts(case)) == []


def test_a_disk_never_shrinks() -> None:
    case = {"machines": {"lab-c1": {"disk_gib": 40.0}, "lab-w1": {}}}
    first(facts(case), errors.PreflightError, "has 40 GiB and shall have 32", "never shrinks")


def test_an_address_that_answers() -> None:
    first(facts(NOTHING, answering=("lab-w1",)), errors.PreflightError, str(config().node("lab-w1").address), "lab-w1")
    first(facts(NOTHING, answering=("VIP",)), errors.PreflightError, str(config().network.vip), "VIP")


def test_what_was_not_seen_stops_the_run() -> None:
    case = {"machines": {"lab-c1": "unreadable", "lab-w1": {}}}
    first(facts(case), errors.UnreachableError, "machine lab-c1", "the door is shut")


def test_our_machine_under_another_vmid() -> None:
    stray = machine(config().node("lab-c1"), vmid=777)
    first(facts(NOTHING, strays={"lab-c1": stray}), errors.PreflightError, "lab-c1 exists as VM 777")


def test_an_old_release() -> None:
    first(facts(NOTHING, release=Present((8, 3))), errors.PreflightError, "8.3", "8.4 or later")


def lent(storage: Storage) -> dict[str, Any]:
    return {"storages": {**hypervisor().storages, storage.name: storage}}


LENT = [
    ({"storages": {}}, ["local-lvm is not there"]),
    ({"bridges": frozenset({"vmbr9"})}, ["no bridge vmbr0", "vmbr9"]),
    ({"memory_free": 1 * GIB}, ["1024 MiB of memory free", "12288 MiB"]),
    (
        lent(Storage("local", frozenset({"iso"}), GIB, True, False)),
        ["local on pve does not allow content import", "pvesm set local --content import,iso"],
    ),
    (
        lent(Storage("local-lvm", frozenset({"images"}), 40 * GIB, True, False)),
        ["40 GiB free", "96 GiB"],
    ),
    (
        lent(Storage("local-lvm", frozenset({"images"}), 40 * GIB, True, True)),
        ["local-lvm has 40 GiB free", "96 GiB"],
    ),
]


@pytest.mark.parametrize(("changed", "words"), LENT)
def test_what_the_hypervisor_lends(changed: dict[str, Any], words: list[str]) -> None:
    short = {"pve": Present(hypervisor(**changed))}
    first(facts(NOTHING, hypervisors=short), errors.PreflightError, *words)
    assert machines.problems(config(), facts(ALL, hypervisors=short)) == []


def test_a_hypervisor_that_does_not_exist() -> None:
    first(facts(NOTHING, hypervisors={"pve": Absent()}), errors.PreflightError, "no Proxmox node pve")


def test_destroying_takes_what_is_ours_and_nothing_else() -> None:
    case = {
        "machines": {"lab-c1": {}, "lab-w1": {"identity": "11111111-2222-3333-4444-555555555555"}},
        "seeds": {"lab-w1": "present"},
    }
    assert [line(a) for a in machines.destroy_plan(config(), facts(case))] == [
        "delete machine/lab-c1",
        "delete seed/lab-w1 after machine/lab-w1",
    ]


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (facts(NOTHING, door=errors.UnreachableError("nobody")), errors.UnreachableError),
        (facts({"machines": {"lab-c1": "unreadable"}}), errors.UnreachableError),
        (facts({"machines": {"lab-c1": {"protected": True}}}), errors.PreflightError),
        (facts({"machines": {"lab-c1": {"lock": "create", "identity": ""}}}), errors.PreflightError),
        (facts(ALL, missing=(Missing("/vms", "VM.Audit", "see"),)), errors.PreflightError),
    ],
)
def test_destroying_refuses_what_it_cannot_finish(seen: MachineFacts, kind: type[errors.FoError]) -> None:
    with pytest.raises(kind):
        machines.destroy_plan(config(), seen)


def test_the_creating_request_is_complete() -> None:
    node = config().node("lab-c1")
    body = hardware.body(config(), node)
    assert body["smbios1"] == f"uuid={node.identity}"
    assert str(node.identity) in body["description"]
    assert body["tags"] == "fo;fo-lab"
    assert body["scsi0"].startswith(
        "local-lvm:0,import-from=local:import/debian-13-genericcloud-amd64-aaaaaaaaaaaa.qcow2"
    )
    assert body["net0"] == f"virtio={seed.mac(node.identity)},bridge=vmbr0"
    tagged = replace(config(), proxmox=replace(config().proxmox, vlan=10, pool=""))
    assert hardware.body(tagged, node)["net0"].endswith(",bridge=vmbr0,tag=10")
    assert "pool" not in hardware.body(tagged, node)
