"""What the Proxmox nodes do not lend, and what only deserves a remark: tables of situations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from preflight_kit import (
    BASE,
    C1,
    GIB,
    LOCAL,
    LVM,
    NAMES,
    PREFLIGHT,
    UNREACHABLE,
    all_there,
    config,
    everywhere,
    expect,
    facts,
    house,
    lent,
    machine,
    part,
    storage,
    with_node,
)

from funoffshore import errors
from funoffshore.config import Backup, ClusterConfig
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import preflight, preflight_advice
from funoffshore.stages.machines.facts import Guest, MachineFacts
from funoffshore.stages.machines.preflight_subjects import Subject

TEMPLATE = {100: Guest(100, "debian", "pve1", template=True)}
FULL = Present(house(promised=127 * GIB))
BIG = with_node("home-w1", memory_mib=256 * 1024)
ROOM: dict[str, tuple[ClusterConfig, MachineFacts, list[tuple[type[errors.FoError], str]]]] = {
    "no storage": (
        BASE, facts(houses=everywhere(**lent(LOCAL))),
        [(PREFLIGHT, f"no storage local-lvm on {name} (STORAGE_DISK)") for name in NAMES],
    ),
    "a storage that is not active": (
        BASE, facts(houses=everywhere(**lent(LVM, replace(LOCAL, active=False)))),
        [(PREFLIGHT, f"local is not active on {name} (STORAGE_IMAGE)…pvesm status") for name in NAMES],
    ),
    "contents that a storage does not allow": (
        BASE, facts(houses=everywhere(**lent(LVM, storage("local", "vztmpl")))),
        [(PREFLIGHT, f"local on {name} does not allow content import, iso…pvesm set local --content import,iso,vztmpl")
         for name in NAMES],
    ),
    "no import needed with a template": (
        part("image", template="debian"),
        facts(houses=everywhere(**lent(LVM, storage("local", "iso"))), guests=TEMPLATE),
        [],
    ),
    "no iso needed with Proxmox' own drive": (
        part("proxmox", seed="drive"), facts(houses=everywhere(**lent(LVM, storage("local", "import")))), [],
    ),
    "no bridge": (
        BASE, facts(houses=everywhere(bridges=frozenset({"vmbr9"}))),
        [(PREFLIGHT, f"no bridge vmbr0 on {name}…it may use vmbr9") for name in NAMES],
    ),
    "an unknown CPU type": (
        part("shape", cpu="EPYC"), facts(),
        [(PREFLIGHT, f"{name} does not know the CPU type EPYC…CPU_TYPE") for name in NAMES],
    ),
    "one node without a bridge is left out": (BASE, facts(houses={"pve2": Present(house(bridges=frozenset()))}), []),
    "one node offline is left out": (BASE, facts(houses={"pve2": Present(house(online=False))}), []),
    "a node that nobody knows": (
        BASE, facts(houses={"pve2": Absent()}),
        [(PREFLIGHT, "no Proxmox node pve2 (there is pve1, pve3)…PROXMOX_NODES")],
    ),
    "a node that nobody knows, and all is made": (
        BASE, all_there(houses={"pve2": Absent()}), [(PREFLIGHT, "no Proxmox node pve2")],
    ),
    "nothing is to be made": (BASE, all_there(houses=everywhere(**lent())), []),
    "no memory for one": (BIG, facts(), [(PREFLIGHT, "no Proxmox node can take home-w1…pve1: only…pve3: only")]),
    "no memory for anybody": (
        BASE, facts(houses=everywhere(memory_total=GIB, memory_free=GIB)),
        [(PREFLIGHT, "no Proxmox node can take home-c1…nor 2 others like it"),
         (PREFLIGHT, "no Proxmox node can take home-w1…nor 1 other like it")],
    ),
    "no disk": (
        BASE, facts(houses=everywhere(**lent(replace(LVM, available=GIB), LOCAL))),
        [(PREFLIGHT, f"can take {name}…1 GiB are left on local-lvm") for name in ("home-c1", "home-w1")],
    ),
    "pinned to a node that is off": (
        with_node("home-w1", hypervisor="pve2"), facts(houses={"pve2": Present(house(online=False))}),
        [(UNREACHABLE, "NODE_W1_PROXMOX_NODE puts home-w1 on pve2: it is offline")],
    ),
    "every node unreadable": (
        BASE, facts(houses=dict.fromkeys(NAMES, Unreadable("595"))),
        [*((UNREACHABLE, f"what {name} has to give: 595") for name in NAMES), (PREFLIGHT, "can take home-c1…595")],
    ),
    "no room for the image": (
        BASE, facts(houses=everywhere(**lent(LVM, replace(LOCAL, available=GIB // 2)))),
        [(PREFLIGHT, f"local on {name} has 0.5 GiB free, and the image") for name in NAMES],
    ),
    "no room for the image on shared storage": (
        BASE, facts(houses=everywhere(**lent(LVM, replace(LOCAL, available=GIB // 2, shared=True)))),
        [(PREFLIGHT, "the storage local has 0.5 GiB free, and the image")],
    ),
    "no room needed for an image that is there": (
        BASE,
        facts(houses=everywhere(**lent(LVM, replace(LOCAL, available=0))), images=dict.fromkeys(NAMES, Present("x"))),
        [],
    ),
    "no template": (part("image", template="debian"), facts(), [(PREFLIGHT, "no VM template debian…IMAGE_TEMPLATE")]),
    "no template needed": (part("image", template="debian"), all_there(), []),
    "a VM that is no template": (
        part("image", template="debian"), facts(guests={100: Guest(100, "debian", "pve1")}),
        [(PREFLIGHT, "VM 100 on pve1 is called debian and is no template…qm template 100")],
    ),
    "two templates": (
        part("image", template="debian"),
        facts(guests={n: Guest(n, "debian", "pve1", template=True) for n in (100, 101)}),
        [(PREFLIGHT, "VM 100 on pve1 and VM 101 on pve1 are all templates called debian")],
    ),
    "no such device": (
        with_node("home-w1", pci=("gpu",)), facts(mappings=Present({"zigbee": frozenset({"pve1"})})),
        [(PREFLIGHT, "no resource mapping gpu, which home-w1 shall have"), (PREFLIGHT, "can take home-w1…gpu")],
    ),
    "a device": (with_node("home-w1", usb=("zigbee",)), facts(mappings=Present({"zigbee": frozenset({"pve1"})})), []),
    "devices not shown": (
        with_node("home-w1", pci=("gpu",)), facts(mappings=Unreadable("500")),
        [(UNREACHABLE, "which mapped devices there are: 500")],
    ),
    "machines that are off and find no memory": (
        BASE,
        all_there(but={"home-w1": {"running": False, "on": "pve1"}}, houses={"pve1": FULL}),
        [(PREFLIGHT, "pve1 lacks…GiB of memory to start home-w1")],
    ),
    "no backup storage": (
        config(backup=Backup("pbs")), all_there(),
        [(PREFLIGHT, f"no storage pbs on {name} (VM_BACKUP_STORAGE)") for name in NAMES],
    ),
    "a storage that takes no backups": (
        config(backup=Backup("nas")), all_there(houses=everywhere(also=[storage("nas", "iso")])),
        [(PREFLIGHT, f"nas on {name} does not allow content backup…--content backup,iso") for name in NAMES],
    ),
    "a backup storage": (
        config(backup=Backup("pbs")), all_there(houses=everywhere(also=[storage("pbs", "backup")])), [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROOM)
def test_what_the_proxmox_nodes_lend(name: str) -> None:
    cluster, seen, wanted = ROOM[name]
    expect(preflight.problems(cluster, seen), *wanted)


# Advice

HA = part("proxmox", high_availability=True)
SHARED = everywhere(**lent(replace(LVM, shared=True), LOCAL))
FORMER = {"home-c4": machine(replace(C1, name="home-c4"))}
ADVICE: dict[str, tuple[ClusterConfig, MachineFacts, list[tuple[Subject, str]]]] = {
    "an unknown release": (BASE, facts(release=Present((10, 0))), [(Subject.RELEASE, "Proxmox VE 10.0 is newer")]),
    "a minor release": (BASE, facts(release=Present((9, 7))), []),
    "a clock": (
        BASE, facts(houses={"pve2": Present(house(clock_skew=Present(-6.0)))}), [(Subject.CLOCKS, "pve2 differs")],
    ),
    "an offline node": (
        BASE, facts(houses={"pve3": Present(house(online=False))}),
        [(Subject.NODES, "pve3 gets no new machine: it is offline"), (Subject.ROOM, "shares pve1 with home-c3")],
    ),
    "a node without the bridge": (
        BASE, all_there(houses={"pve3": Present(house(bridges=frozenset()))}),
        [(Subject.BRIDGE, "no bridge vmbr0 on pve3")],
    ),
    "a lock": (BASE, all_there(but={"home-w1": {"lock": "backup"}}), [(Subject.GUESTS, "locked (backup)")]),
    "a former machine": (BASE, all_there(former=FORMER), [(Subject.GUESTS, "--remove home-c4")]),
    "half made": (BASE, all_there(half_made=(Guest(9001, "", "pve2"),)), [(Subject.GUESTS, "VM 9001 on pve2")]),
    "high availability": (HA, all_there(houses=SHARED), []),
    "high availability on local disks": (HA, all_there(), [(Subject.AVAILABILITY, "local-lvm is not shared")]),
    "high availability on two nodes": (
        HA, all_there(houses={**SHARED, "pve3": Present(house(online=False, storages={}))}),
        [(Subject.NODES, "pve3"), (Subject.AVAILABILITY, "2 are online")],
    ),
    "a shut door": (BASE, facts(door=errors.TrustError("no")), []),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVICE)
def test_advice(name: str) -> None:
    cluster, seen, wanted = ADVICE[name]
    found = preflight_advice.advice(cluster, seen)
    assert [subject for subject, _ in found] == [subject for subject, _ in wanted], found
    assert all(words in sentence for (_, sentence), (_, words) in zip(found, wanted, strict=True)), found
