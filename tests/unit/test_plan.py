"""A plan is a graph: one action per key, no cycle, predecessors first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.plan import Action, Plan, Verb


def act(key: str, *after: str, stage: str = "machines") -> Action:
    return Action(Verb.CREATE, key, "it is absent", frozenset(after), stage=stage)


def test_an_action_reads_as_a_sentence() -> None:
    assert str(act("machine/home-c1")) == "create machine/home-c1, because it is absent"


def test_two_actions_on_one_key_are_refused() -> None:
    with pytest.raises(ValueError, match="two actions for a"):
        Plan.of([act("a"), act("a")])


def test_a_cycle_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"wait for each other: \['a', 'b'\]"):
        Plan.of([act("a", "b"), act("b", "a"), act("c")])


def test_predecessors_outside_the_plan_need_nothing() -> None:
    assert [a.key for a in Plan.of([act("b", "not-planned")]).ready(frozenset())] == ["b"]


def test_until_cuts_behind_a_stage() -> None:
    whole = Plan.of([act("m"), act("k", "m", stage="k3s"), act("f", "k", stage="flux")])
    assert [set(whole.until(s).actions) for s in ("machines", "k3s", "flux")] == [{"m"}, {"m", "k"}, {"m", "k", "f"}]


@given(st.lists(st.frozensets(st.integers(0, 30)), min_size=1, max_size=31))
def test_every_acyclic_graph_runs_in_order(edges: list[frozenset[int]]) -> None:
    actions = [act(str(n), *(str(m) for m in before if m < n)) for n, before in enumerate(edges)]
    seen: set[str] = set()
    for action in Plan.of(actions).in_order():
        assert action.after <= seen
        seen.add(action.key)
    assert len(seen) == len(actions)


def test_an_empty_plan_is_false() -> None:
    assert not Plan()
    assert Plan.of([act("a")])
