"""Which VMID each new machine gets."""

from __future__ import annotations

from typing import Any

import machines_samples as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import errors
from funoffshore.config import ClusterConfig
from funoffshore.reading import Unreadable
from funoffshore.stages.machines import numbers
from funoffshore.stages.machines.facts import Guest, MachineFacts

Chosen = dict[str, int | errors.FoError]


def vmids(config: ClusterConfig, *guests: int, pending: dict[str, int] | None = None, **changed: Any) -> Chosen:
    there = tuple(Guest(vmid, f"guest{vmid}", "pve2") for vmid in guests)
    return dict(numbers.vmids(config, kit.facts(config, {}, guests=there, **changed), pending or {}))


def test_the_first_choice_where_it_is_free() -> None:
    assert vmids(kit.config(2, 1), 100, 9500) == {"lab-c1": 9000, "lab-c2": 9001, "lab-w1": 9010}


def test_a_taken_one_moves_to_the_lowest_that_nobody_prefers() -> None:
    assert vmids(kit.config(2, 1), 9000, 9010, 9002) == {"lab-c1": 9003, "lab-c2": 9001, "lab-w1": 9004}


def test_a_moved_machine_of_ours_has_its_number() -> None:
    config = kit.config(2, 1)
    moved = kit.machine(config, config.node("lab-w1"), vmid=9000)
    facts = kit.facts(config, {}, {"lab-w1": moved})
    assert numbers.vmids(config, facts) == {"lab-c1": 9002, "lab-c2": 9001}


def test_former_half_made_and_double_machines_keep_theirs() -> None:
    config = kit.config(2, 1)
    former = {"lab-w9": kit.machine(config, config.node("lab-w1"), vmid=9002)}
    others: dict[str, Any] = {"half_made": (Guest(9003, "", "pve1"),), "doubles": (("lab-w1", 9004, 9005),)}
    assert vmids(config, 9000, former=former, **others)["lab-c1"] == 9006


def test_a_pinned_one_never_moves() -> None:
    config = kit.config(1, 1, nodes={"lab-c1": {"vmid": 500, "vmid_pinned": True}})
    assert vmids(config)["lab-c1"] == 500
    found = vmids(config, 500)
    assert isinstance(found["lab-c1"], errors.ForeignError)
    assert found["lab-c1"].message == (
        "VM 500, which the env file pins for lab-c1, is guest500 on pve2. It was not touched."
    )
    assert found["lab-w1"] == 9010


def test_no_number_left() -> None:
    config = kit.config(2, 0, proxmox={"vmid_first": 9000, "vmid_last": 9002})
    found = vmids(config, 9000, 9001)
    assert found["lab-c1"] == 9002
    assert isinstance(found["lab-c2"], errors.PreflightError)
    assert "9000 to 9002" in found["lab-c2"].message


def test_what_was_not_seen_gets_no_number() -> None:
    config = kit.config(2, 0)
    facts = kit.facts(config, {}, guests=(Guest(9001, "x", "pve1"),))
    unseen = MachineFacts(machines={**facts.machines, "lab-c1": Unreadable("the door is shut")}, guests=facts.guests)
    assert numbers.vmids(config, unseen) == {"lab-c2": 9002}


def test_an_interrupted_runs_choice_is_kept_unless_taken() -> None:
    config = kit.config(2, 0)
    assert vmids(config, 9000, pending={"lab-c1": 9050}) == {"lab-c1": 9050, "lab-c2": 9001}
    assert vmids(config, 9000, 9050, pending={"lab-c1": 9050}) == {"lab-c1": 9002, "lab-c2": 9001}
    assert vmids(config, 9050, pending={"lab-c1": 9050}) == {"lab-c1": 9000, "lab-c2": 9001}


def test_the_race() -> None:
    config = kit.config(2, 1, nodes={"lab-w1": {"vmid_pinned": True}})
    assert numbers.next_free(config, {9500}, config.node("lab-c1")) == 9000
    assert numbers.next_free(config, {9000, 9002}, config.node("lab-c1")) == 9003
    assert numbers.next_free(config, {9010}, config.node("lab-w1")) is None
    assert numbers.next_free(config, set(range(9000, 9200)), config.node("lab-c1")) is None


@given(
    st.integers(1, 7), st.integers(0, 20), st.sets(st.integers(8990, 9060)),
    st.dictionaries(st.sampled_from(["lab-c1", "lab-w1", "lab-w2", "lab-w3"]), st.integers(8990, 9060)),
    st.booleans(),
)  # fmt: skip
def test_numbers_are_free_and_given_once(
    controllers: int, workers: int, taken: set[int], pending: dict[str, int], pinned: bool
) -> None:
    config = kit.config(controllers, workers, nodes={"lab-w2": {"vmid_pinned": pinned}})
    found = vmids(config, *taken, pending=pending)
    given = [vmid for vmid in found.values() if isinstance(vmid, int)]
    assert found.keys() == {node.name for node in config.nodes}
    assert len(set(given)) == len(given)
    assert taken.isdisjoint(given)
    assert {k: str(v) for k, v in found.items()} == {
        k: str(v) for k, v in vmids(config, *taken, pending=pending).items()
    }
    for node in config.nodes:
        if node.vmid_pinned:
            assert found[node.name] == node.vmid or isinstance(found[node.name], errors.FoError)


@pytest.mark.parametrize("workers", [990])
def test_a_thousand(workers: int) -> None:
    config = kit.config(7, workers, proxmox={"vmid_last": 12000})
    found = vmids(config, *range(9000, 9500))
    assert len({vmid for vmid in found.values() if isinstance(vmid, int)}) == 997
