"""Where new machines go: a table of cases, and what holds for every placement."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import machines_samples as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import errors
from funoffshore.config import ClusterConfig, Role
from funoffshore.reading import Present, Reading, Unreadable
from funoffshore.stages.machines import placing, room
from funoffshore.stages.machines.facts import Guest, Hypervisor, MachineFacts
from funoffshore.stages.machines.placing import Place
from funoffshore.world.proxmox import Storage

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text())
MIB, GIB = 2**20, 2**30


def case_config(case: dict[str, Any]) -> ClusterConfig:
    names = sorted({*case.get("memory", {}), *case.get("pins", {}), *case.get("devices", {})})
    nodes: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        if name in case.get("memory", {}):
            nodes[name]["memory_mib"] = case["memory"][name]
        nodes[name]["hypervisor"] = case.get("pins", {}).get(name, "")
        nodes[name]["pci"] = tuple(case.get("devices", {}).get(name, ()))
    hypervisors = tuple(case.get("hypervisors", ("pve1", "pve2", "pve3")))
    return kit.config(case.get("controllers", 3), 2, hypervisors, nodes=nodes)


def case_facts(case: dict[str, Any], config: ClusterConfig) -> MachineFacts:
    houses: dict[str, Hypervisor | Reading[Hypervisor]] = {}
    for name, changed in case["houses"].items():
        if changed == "unreadable":
            houses[name] = Unreadable("the door is shut")
        else:
            bridges = {"bridges": frozenset(changed["bridges"])} if "bridges" in changed else {}
            houses[name] = kit.hypervisor(**{**changed, **bridges})
    made = {n: kit.machine(config, config.node(n), **changed) for n, changed in case.get("made", {}).items()}
    return kit.facts(config, houses, made)


def told(found: Place | errors.FoError) -> str:
    if isinstance(found, errors.FoError):
        return f"! {found.message}"
    return f"{found.hypervisor} {found.vmid}: {found.reason}"


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_places(case: dict[str, Any]) -> None:
    config = case_config(case)
    facts = case_facts(case, config)
    mappings = {k: frozenset(v) for k, v in case["mappings"].items()} if "mappings" in case else None
    found = placing.place(config, facts, mappings)
    assert {name: told(found[name])[: len(text)] for name, text in case["places"].items()} == case["places"]
    assert not found.keys() & case.get("made", {}).keys()
    warned = {name: place.warning for name, place in found.items() if isinstance(place, Place) and place.warning}
    assert warned == case.get("warnings", {})
    left_out = [text.replace(config.proxmox.bridge, "BRIDGE") for text in placing.left_out(config, facts)]
    assert "left_out" not in case or left_out == case["left_out"]
    for name, text in case.get("evidence", {}).items():
        error = found[name]
        assert isinstance(error, errors.FoError)
        assert "\n".join(error.evidence).startswith(text)


def test_a_taken_vmid_moves_and_a_pinned_one_stops() -> None:
    config = kit.config(2, 0, nodes={"lab-c2": {"vmid_pinned": True}})
    guests = (Guest(9000, "a", "pve1"), Guest(9001, "b", "pve2"))
    found = placing.place(
        config, kit.facts(config, {"pve1": kit.hypervisor(), "pve2": kit.hypervisor()}, guests=guests)
    )
    assert isinstance(found["lab-c1"], Place)
    assert found["lab-c1"].vmid == 9002
    assert isinstance(found["lab-c2"], errors.ForeignError)


def test_what_was_not_seen_is_not_placed() -> None:
    config = kit.config(1, 1)
    facts = kit.facts(config, {"pve1": kit.hypervisor()})
    unseen = MachineFacts(machines={**facts.machines, "lab-c1": Unreadable("x")}, hypervisors=facts.hypervisors)
    assert placing.place(config, unseen).keys() == {"lab-w1"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"content": frozenset({"iso"})}, "its storage STORE does not allow content images"),
        ({"active": False}, "its storage STORE is not active"),
    ],
)
def test_the_disk_storage(changed: dict[str, Any], why: str) -> None:
    config = kit.config(1, 0, ("pve1",))
    name = config.proxmox.disk_storage
    said = {"content": frozenset({"images"}), "available": 500 * GIB, "active": True, "shared": False, **changed}
    bad = kit.hypervisor(storages=kit.storages(500, False, Storage(name, **said)))
    [text] = placing.left_out(config, kit.facts(config, {"pve1": bad}))
    assert text.endswith(why.replace("STORE", name))


def test_the_image_storage_needs_what_is_put_there() -> None:
    image = kit.config().proxmox.image_storage
    poor = kit.hypervisor(storages=kit.storages(500, False, Storage(image, frozenset(), 50 * GIB, True, False)))
    for changed, lacking in (
        ({}, "content import, iso"),
        ({"image": {"template": "debian"}}, "content iso"),
        ({"proxmox": {"seed": "drive"}}, "content import"),
        ({"image": {"template": "debian"}, "proxmox": {"seed": "drive"}}, ""),
    ):
        config = kit.config(1, 0, ("pve1",), **changed)
        left_out = placing.left_out(config, kit.facts(config, {"pve1": poor}))
        assert [text.endswith(lacking) for text in left_out] == ([True] if lacking else [])


def test_a_cpu_type_that_a_proxmox_node_does_not_know() -> None:
    seen = Present(frozenset({"host", "kvm64"}))
    for cpu, fits in (("kvm64,flags=+aes", True), ("cputype=host", True), ("x86-64-v4", False)):
        config = kit.config(1, 0, ("pve1",), shape={"cpu": cpu})
        assert (not placing.left_out(config, kit.facts(config, {"pve1": kit.hypervisor(cpu_models=seen)}))) is fits


def test_a_copy_of_a_template_stays_with_it_unless_the_storage_is_shared() -> None:
    config = kit.config(1, 1, ("pve1", "pve2"), image={"template": "debian-13"})
    template = Guest(8000, "debian-13", "pve2", template=True)
    for shared, left_out in ((False, ["pve1"]), (True, [])):
        house = kit.hypervisor(storages=kit.storages(500, shared))
        facts = kit.facts(config, {"pve1": house, "pve2": house}, guests=(template,))
        assert [text.split()[0] for text in placing.left_out(config, facts)] == left_out


def test_a_shared_storage_counts_once() -> None:
    config = kit.config(1, 3, ("pve1", "pve2"))
    shared = kit.hypervisor(storages=kit.storages(100, shared=True))
    found = placing.place(config, kit.facts(config, {"pve1": shared, "pve2": shared}))
    assert Counter(isinstance(place, Place) for place in found.values()) == {True: 3, False: 1}


HOUSES = st.lists(
    st.builds(
        kit.hypervisor,
        memory_gib=st.sampled_from([4, 8, 16, 64]),
        used_gib=st.integers(0, 4),
        promised_gib=st.integers(0, 20),
        cpus=st.sampled_from([1, 4, 16]),
        online=st.sampled_from([True, True, True, False]),
        storages=st.sampled_from([kit.storages(), kit.storages(70), kit.storages(200, shared=True)]),
    ),
    min_size=1,
    max_size=5,
)
NODES = st.lists(
    st.fixed_dictionaries(
        {
            "memory_mib": st.sampled_from([1024, 4096, 8192]),
            "cores": st.integers(1, 5),
            "hypervisor": st.sampled_from(["", "", "", "pve1", "pve2"]),
            "pci": st.sampled_from([(), (), ("gpu",)]),
        }
    ),
    min_size=1,
    max_size=7,
)


@given(HOUSES, NODES, st.integers(1, 4), st.sets(st.sampled_from(["pve1", "pve2", "pve3"])), st.data())
def test_no_placement_exceeds_the_room(
    houses: list[Hypervisor], nodes: list[dict[str, Any]], controllers: int, gpus: set[str], data: st.DataObject
) -> None:
    names = tuple(f"pve{at + 1}" for at in range(len(houses)))
    controllers = min(controllers, len(nodes))
    config = kit.config(controllers, len(nodes) - controllers, names)
    config = kit.config(
        controllers,
        len(nodes) - controllers,
        names,
        nodes=dict(zip((n.name for n in config.nodes), nodes, strict=True)),
    )
    made = {
        node.name: kit.machine(
            config, node, hypervisor=data.draw(st.sampled_from(names)), running=data.draw(st.booleans())
        )
        for node in config.nodes
        if data.draw(st.booleans())
    }
    facts = kit.facts(config, dict(zip(names, houses, strict=True)), made)
    found = placing.place(config, facts, {"gpu": frozenset(gpus)})
    again = placing.place(config, facts, {"gpu": frozenset(gpus)})
    assert [told(place) for place in found.values()] == [told(place) for place in again.values()]
    assert found.keys() == {node.name for node in config.nodes} - made.keys()
    memory: dict[str, int] = defaultdict(int)
    disks: dict[str, int] = defaultdict(int)
    for name, place in found.items():
        if not isinstance(place, Place):
            continue
        node, house = config.node(name), houses[names.index(place.hypervisor)]
        assert house.online
        assert node.cores <= house.cpus
        assert not node.pci or place.hypervisor in gpus
        assert node.hypervisor in {"", place.hypervisor}
        memory[place.hypervisor] += node.memory_mib * MIB
        disks["shared" if house.storages[config.proxmox.disk_storage].shared else place.hypervisor] += (
            node.disk_gib * GIB
        )
    for name, used in memory.items():
        house = houses[names.index(name)]
        off = sum(m.config.memory_mib * MIB for m in made.values() if m.hypervisor == name and not m.running)
        assert (
            used + off + max(house.promised, house.memory_total - house.memory_free) <= house.memory_total - 512 * MIB
        )
    for name, used in disks.items():
        stores = [h.storages[config.proxmox.disk_storage] for h in houses]
        assert used <= (200 * GIB if name == "shared" else stores[names.index(name)].available)


@given(HOUSES, st.lists(st.sampled_from([1024, 4096, 8192, 16384]), min_size=1, max_size=5), st.data())
def test_controllers_are_together_only_where_it_cannot_be_helped(
    houses: list[Hypervisor], memory: list[int], data: st.DataObject
) -> None:
    """Against every way there is to place them."""
    houses = [kit.hypervisor(h.memory_total / GIB, 0, h.cpus, h.promised / GIB, online=h.online) for h in houses]
    names = tuple(f"pve{at + 1}" for at in range(len(houses)))
    own = {
        f"lab-c{at + 1}": {"memory_mib": mib, "pci": data.draw(st.sampled_from([(), ("gpu",)]))}
        for at, mib in enumerate(memory)
    }
    config = kit.config(len(memory), 3, names, nodes=own)
    mappings = {"gpu": frozenset(data.draw(st.sets(st.sampled_from(names))))}
    facts = kit.facts(config, dict(zip(names, houses, strict=True)))
    house = room.house(config, facts, mappings)
    options = [house.fitting(node) for node in config.controllers]
    found = [placing.place(config, facts, mappings)[node.name] for node in config.controllers]
    places = [place.hypervisor for place in found if isinstance(place, Place)]
    best = max(len(set(way) - {""}) for way in product(*([*fits, ""] for fits in options)))
    assert len(set(places)) == best
    for place in found:
        if isinstance(place, Place):
            assert bool(place.warning) is (places.count(place.hypervisor) > 1)


def test_a_thousand_over_sixteen() -> None:
    names = tuple(f"pve{at}" for at in range(16))
    config = kit.config(7, 993, names, proxmox={"vmid_last": 12000})
    big = kit.hypervisor(1024, 4, 128, storages=kit.storages(100_000))
    found = placing.place(config, kit.facts(config, dict.fromkeys(names, big)))
    counts = Counter(place.hypervisor for place in found.values() if isinstance(place, Place))
    assert sum(counts.values()) == 1000
    assert max(counts.values()) - min(counts.values()) <= 10
    controllers = [found[node.name] for node in config.nodes if node.role is Role.CONTROLLER]
    assert len({place.hypervisor for place in controllers if isinstance(place, Place)}) == 7
