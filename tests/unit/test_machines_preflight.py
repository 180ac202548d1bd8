"""What stands in the way of the machines: a table of situations, each with all that is to be said about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_kit import (
    BASE,
    C1,
    FOREIGN,
    LVM,
    NAMES,
    PREFLIGHT,
    UNREACHABLE,
    W1,
    all_there,
    config,
    everywhere,
    expect,
    facts,
    house,
    lent,
    machine,
    part,
    with_node,
)

from funoffshore import errors
from funoffshore.config import ClusterConfig
from funoffshore.plan import Permits
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import preflight, preflight_advice
from funoffshore.stages.machines.facts import Guest, Machine, MachineFacts, Missing
from funoffshore.world.proxmox import VmConfig

# Nothing wrong


@pytest.mark.parametrize("seen", [facts(), all_there(), all_there(hypervisors={}, quorate=Unreadable("not asked"))])
def test_nothing_stands_in_the_way(seen: MachineFacts) -> None:
    assert preflight.problems(BASE, seen) == []
    assert preflight_advice.advice(BASE, seen) == []


# The whole of Proxmox

SHUT = errors.TrustError("the certificate differs")
MORE = "pveum acl modify /storage/local…--tokens 'fo@pve!fo'…is needed to start machines…its user"
LACKING = (Missing("/vms", "VM.PowerMgmt", "start machines"), Missing("/storage/local", "Datastore.Allocate", "delete"))
WHOLE: dict[str, tuple[MachineFacts, list[tuple[type[errors.FoError], str]]]] = {
    "a shut door": (
        facts(door=SHUT, missing=LACKING, quorate=Present(False)),
        [(errors.TrustError, "the certificate differs")],
    ),
    "an old release": (facts(release=Present((8, 3))), [(PREFLIGHT, "8.3 cannot import…8.4 or later…IMAGE_TEMPLATE")]),
    "the newest release": (facts(release=Present((11, 0))), []),
    "no quorum": (all_there(quorate=Present(False)), [(PREFLIGHT, "lost its quorum…read-only…pvecm status")]),
    "quorum not shown": (facts(quorate=Unreadable("500 no")), [(UNREACHABLE, "has its quorum: 500 no")]),
    "quorum not shown, nothing to make": (all_there(quorate=Unreadable("500 no")), []),
    "a clock ahead": (
        facts(houses={"pve2": Present(house(clock_skew=Present(31.0)))}),
        [(PREFLIGHT, "the clock of pve2 is 31 s ahead of…NTP")],
    ),
    "a clock behind": (
        all_there(houses={"pve2": Present(house(clock_skew=Present(-99.0)))}),
        [(PREFLIGHT, "the clock of pve2 is 99 s behind")],
    ),
    "a clock nearly right": (facts(houses={"pve2": Present(house(clock_skew=Present(29.0)))}), []),
    "missing privileges": (
        facts(missing=LACKING),
        [(PREFLIGHT, "lacks VM.PowerMgmt on /vms, Datastore.Allocate on /storage/local…pveum acl modify /vms…" + MORE)],
    ),
    "an address in use": (
        facts(answering=("home-w1", "VIP")),
        [(PREFLIGHT, f"{W1.address} already answers…home-w1"), (PREFLIGHT, f"{BASE.network.vip}…the cluster's VIP")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_proxmox_as_a_whole(name: str) -> None:
    seen, wanted = WHOLE[name]
    expect(preflight.problems(BASE, seen), *wanted)


def test_a_template_makes_up_for_an_old_release() -> None:
    guests = {100: Guest(100, "debian", "pve1", template=True)}
    template = part("image", template="debian")
    assert preflight.problems(template, facts(release=Present((8, 0)), guests=guests)) == []


# Guests

MADE_ANEW = Permits(replace=frozenset({"home-c1"}))
REMOVED = Permits(remove=frozenset({"home-c4"}))
LARGER = f"at least {W1.disk_gib + 1} GiB…NODE_W1_DISK_GIB…--replace home-w1"
FORMER = {"home-c4": machine(replace(C1, name="home-c4", vmid=9003))}
GUESTS: dict[str, tuple[ClusterConfig, MachineFacts, Permits, list[tuple[type[errors.FoError], str]]]] = {
    "a stranger on a pinned VMID": (
        with_node("home-c1", vmid_pinned=True),
        facts(guests={C1.vmid: Guest(C1.vmid, "pbx", "pve2")}),
        Permits(),
        [(FOREIGN, f"VM {C1.vmid}…home-c1…pbx on pve2…not touched")],
    ),
    "a stranger on a VMID that can move": (BASE, facts(guests={C1.vmid: Guest(C1.vmid, "pbx", "pve2")}), Permits(), []),
    "a stranger with a name of ours": (
        BASE,
        facts(guests={100: Guest(100, "home-w1", "pve3", "its SMBIOS UUID is 1, not 2")}),
        Permits(),
        [(FOREIGN, "VM 100 on pve3 is called home-w1…SMBIOS UUID is 1…not touched…CLUSTER_NAME")],
    ),
    "a copy beside a machine that is there": (
        BASE, all_there(guests={100: Guest(100, "home-w1", "pve3")}), Permits(), [],
    ),
    "two of one identity": (
        BASE, all_there(doubles=(("home-c1", 9000, 9077),)), Permits(),
        [(PREFLIGHT, "VM 9000 and VM 9077 both carry the identity of home-c1…restored backup…qm set")],
    ),
    "half made": (
        BASE, facts(half_made=(Guest(9001, "VM 9001", "pve2"),)), Permits(),
        [(PREFLIGHT, "VM 9001 on pve2 is locked by a creation…run as root on pve2: qm unlock 9001 && qm destroy 9001")],
    ),
    "half made, but nothing is to be made": (BASE, all_there(half_made=(Guest(9001, "", "pve2"),)), Permits(), []),
    "unreadable machines": (
        BASE,
        facts({name: Unreadable("pve2 is off") for name in ("home-c1", "home-c2", "home-c3", "home-w1")}
              | {"home-w2": Unreadable("403")}),
        Permits(),
        [(UNREACHABLE, "machine home-c1, machine home-c2, machine home-c3 and machine home-w1 exist: pve2 is off"),
         (UNREACHABLE, "whether machine home-w2 exists: 403")],
    ),
    "a disk that would shrink": (
        BASE, all_there(but={"home-w1": {"disk": f"{W1.disk_gib + 1}G"}}), Permits(),
        [(PREFLIGHT, f"scsi0 of home-w1 has {W1.disk_gib + 1} GiB and…have {W1.disk_gib}…never shrinks…" + LARGER)],
    ),
    "a disk that is smaller": (BASE, all_there(but={"home-w1": {"disk": "2G"}}), Permits(), []),
    "a backup on a running machine": (BASE, all_there(but={"home-w1": {"lock": "backup"}}), Permits(), []),
    "a backup on a machine that is off": (
        BASE, all_there(but={"home-w1": {"lock": "backup", "running": False}}), Permits(),
        [(PREFLIGHT, "(home-w1)…locked by a backup, and it is off…Wait until…qm unlock")],
    ),
    "a migration of a machine that is to be made anew": (
        BASE, all_there(but={"home-c1": {"lock": "migrate"}}), MADE_ANEW,
        [(PREFLIGHT, "locked by a migration, and it is to be made anew")],
    ),
    "a snapshot of a machine that is to be restarted": (
        BASE,
        all_there(seen={"home-w1": Present(replace(machine(W1, lock="snapshot"), config=VmConfig(
            {**machine(W1, lock="snapshot").config.options, "cores": "1"})))}),
        Permits(reboots=True),
        [(PREFLIGHT, "locked by a snapshot, and it has 1 cores")],
    ),
    "suspended to disk": (
        BASE, all_there(but={"home-w1": {"lock": "suspended", "running": False}}), Permits(),
        [(PREFLIGHT, "suspended to disk…qm resume")],
    ),
    "a controller is made anew while another is off": (
        BASE, all_there(but={"home-c2": {"running": False}}), MADE_ANEW,
        [(PREFLIGHT, "home-c1 cannot go while home-c2 is not running…quorum")],
    ),
    "a controller is made anew while another is not there": (
        BASE, all_there(seen={"home-c3": Absent()}), MADE_ANEW,
        [(PREFLIGHT, "home-c1 cannot go while home-c3 is not running")],
    ),
    "a former controller goes while another is off": (
        BASE, all_there(but={"home-c2": {"running": False}}, former=FORMER), REMOVED,
        [(PREFLIGHT, "home-c4 cannot go while home-c2 is not running")],
    ),
    "a former controller goes": (BASE, all_there(former=FORMER), REMOVED, []),
    "a former controller that is locked": (
        BASE, all_there(former={"home-c4": machine(replace(C1, name="home-c4"), lock="backup")}), REMOVED,
        [(PREFLIGHT, "(home-c4)…a backup, and it is to be removed")],
    ),
    "a controller goes while all others run": (BASE, all_there(), MADE_ANEW, []),
    "one that is made anew has gone already": (BASE, all_there(seen={"home-c1": Absent()}), MADE_ANEW, []),
    "the only controller": (
        config(nodes=(C1, W1)), all_there(), MADE_ANEW, [(PREFLIGHT, "home-c1 cannot go: no controller would be left")],
    ),
    "a worker is made anew": (
        BASE, all_there(but={"home-c2": {"running": False}}), Permits(replace=frozenset({"home-w1"})), [],
    ),
    "a creation of ours": (
        BASE,
        facts({"home-c1": Present(Machine("pve1", 9000, "", VmConfig({"lock": "create"}), creating="UPID:pve1:1"))}),
        Permits(), [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GUESTS)
def test_guests(name: str) -> None:
    cluster, seen, permits, wanted = GUESTS[name]
    expect(preflight.problems(cluster, seen, permits), *wanted)


# Several things at once


def test_all_is_said_in_one_go_the_gravest_first() -> None:
    seen = facts(
        missing=(Missing("/pool/fo-home", "Pool.Allocate", "create the pool"),),
        quorate=Present(False),
        doubles=(("home-c1", 9000, 9077),),
        answering=("VIP",),
        houses=everywhere(clock_skew=Present(99.0), bridges=frozenset()),
    )
    expect(
        preflight.problems(BASE, seen),
        (PREFLIGHT, "Pool.Allocate"),
        (PREFLIGHT, "quorum"),
        (PREFLIGHT, "identity of home-c1"),
        (PREFLIGHT, "VIP"),
        *((PREFLIGHT, f"clock of {name}") for name in NAMES),
        *((PREFLIGHT, f"no bridge vmbr0 on {name}") for name in NAMES),
    )


HIDDEN = [
    (Missing("/vms", "VM.Audit", "see"), {"seen": {n.name: Unreadable("no VM.Audit") for n in BASE.nodes}}),
    (Missing("/nodes", "Sys.Audit", "see"), {"houses": everywhere(memory_total=0, memory_free=0)}),
    (Missing("/storage/local", "Datastore.Audit", "see"), {"houses": everywhere(**lent(LVM))}),
    (Missing("/sdn/zones/localnetwork/vmbr0", "SDN.Use", "attach"), {"houses": everywhere(bridges=frozenset())}),
    (Missing("/", "Sys.Audit", "see"), {"quorate": Unreadable("403")}),
]


@pytest.mark.parametrize(("lack", "changed"), HIDDEN, ids=lambda one: getattr(one, "privilege", ""))
def test_what_a_missing_privilege_hides_is_not_said_as_well(lack: Missing, changed: dict[str, Any]) -> None:
    changed = dict(changed)
    seen = facts(changed.pop("seen", {}), missing=(lack,), **changed)
    expect(preflight.problems(BASE, seen), (PREFLIGHT, lack.privilege))


def test_nothing_is_removed_while_seeds_are_not_seen() -> None:
    seeds = {node.name: Unreadable("the storage is offline") for node in BASE.nodes}
    (why,) = preflight.unseen(BASE, all_there(seeds=seeds))
    expect([why], (UNREACHABLE, f"the seed of home-c1…and {len(BASE.nodes) - 3} more exist: the storage is offline"))
    assert preflight.problems(BASE, all_there(seeds=seeds)) == []


# Names that others chose

_HOSTILE = st.text(max_size=30)
_GUEST = st.builds(
    Guest, st.integers(100, 999_999), _HOSTILE, st.sampled_from(NAMES), _HOSTILE, _HOSTILE, st.booleans()
)


@given(st.lists(_GUEST, max_size=6), st.lists(_GUEST, max_size=2), _HOSTILE)
def test_strange_names_break_nothing(guests: list[Guest], half: list[Guest], why: str) -> None:
    """Whatever other people's guests are called, the plan of ours is told no and never crashes."""
    seen = facts({"home-w1": Unreadable(why)}, guests={guest.vmid: guest for guest in guests}, half_made=tuple(half))
    found = preflight.problems(part("image", template="debian"), seen)
    assert any(isinstance(one, UNREACHABLE) and "home-w1" in one.message for one in found)
    assert all(one.fix for one in found)
    preflight_advice.advice(BASE, seen)
