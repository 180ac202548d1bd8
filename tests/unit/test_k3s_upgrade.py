"""From release to release: what is refused, what is held back, and who comes after whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_k3s_plan import config, desired, file, host, node_fact

from funoffshore.config import ClusterConfig
from funoffshore.plan import NONE, Action, Permits, Plan, Verb
from funoffshore.reading import Present
from funoffshore.stages.k3s import K3sFacts, files, graph, upgrade

NOW = config().k3s.version
ALLOWED = Permits(upgrade=True)


def to(version: str, **changed: Any) -> ClusterConfig:
    return replace(config(), k3s=replace(config().k3s, version=version, sha256="9" * 64, **changed))


def facts(but: dict[str, str] | None = None, **changed: Any) -> K3sFacts:
    """Everybody runs ``NOW``, with its binary, but for those in ``but``."""
    versions = {node.name: (but or {}).get(node.name, NOW) for node in config().nodes}
    nodes = {node.name: node_fact(node, version=versions[node.name]) for node in config().nodes}
    hosts = {node.name: Present(replace(host(node), k3s_version=versions[node.name])) for node in config().nodes}
    return desired(nodes=Present(nodes), hosts=hosts, **changed)


def planned(wanted: ClusterConfig, seen: K3sFacts, permits: Permits = ALLOWED) -> dict[str, Action]:
    return dict(Plan.of(graph.plan(wanted, seen, permits)).actions)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("v1.36.5+k3s1", ""),
        ("v1.36.4+k3s2", ""),
        ("v1.37.1+k3s1", ""),
        ("v1.36.4+k3s1", ""),
        ("v1.38.0+k3s1", "would skip a minor release"),
        ("v2.0.0+k3s1", "would skip a minor release"),
        ("v1.36.3+k3s1", "cannot go back"),
        ("v1.35.9+k3s1", "cannot go back"),
        ("v1.36.4", "no release of K3s"),
    ],
)
def test_no_minor_release_is_skipped_and_none_goes_back(version: str, said: str) -> None:
    problem = upgrade.refusal(to(version), facts())
    assert (problem is None) if not said else (problem is not None and said in problem.message and problem.fix)


def test_one_node_that_lags_behind_counts() -> None:
    problem = upgrade.refusal(to("v1.37.0+k3s1"), facts({"lab-w2": "v1.35.2+k3s1"}))
    assert problem is not None
    assert "lab-w2 runs v1.35.2+k3s1" in problem.message
    odd = upgrade.refusal(to("v1.37.0+k3s1"), facts({"lab-w1": "v1.36.3+k3s-66a14f0e"}))
    assert odd is not None
    assert "cannot be told" in odd.message


def test_another_release_waits_for_a_word_and_everything_else_does_not() -> None:
    seen = facts()
    assert planned(to("v1.36.5+k3s1"), seen, NONE) == {}
    (held,) = graph.held(to("v1.36.5+k3s1"), seen)
    assert held.permit == "fo k3s upgrade"
    assert "lab-c1, lab-c2, lab-c3, lab-w1 and 1 more have v1.36.4+k3s1" in held.reason
    (back,) = graph.held(to("v1.36.1+k3s1"), seen)
    assert back.permit == ""
    assert "cannot go back" in back.reason
    changed = planned(to("v1.36.5+k3s1", disable=()), seen, NONE)
    assert {action.verb for action in changed.values()} == {Verb.CHANGE}
    assert "not the pinned" not in changed["k3s/lab-c1"].reason
    assert graph.held(config(), seen) == []


def test_servers_one_by_one_and_then_agents_each_drained_and_given_back() -> None:
    actions = planned(to("v1.36.5+k3s1"), facts())
    name = "snapshot/before-v1.36.5-k3s1"
    assert [key for key in actions if key.startswith("snapshot/")] == [name]
    for node in config().nodes:
        assert actions[f"drain/{node.name}"].after >= {name}
        assert f"drain/{node.name}" in actions[f"k3s/{node.name}"].after
        assert actions[f"uncordon/{node.name}"].after == {f"k3s/{node.name}"}
    assert "uncordon/lab-c1" in actions["drain/lab-c2"].after
    assert "uncordon/lab-c2" in actions["drain/lab-c3"].after
    assert actions["drain/lab-w1"].after >= {"uncordon/lab-c1", "uncordon/lab-c2", "uncordon/lab-c3"}
    assert "uncordon/lab-w1" in actions["drain/lab-w2"].after


def test_agents_go_in_batches() -> None:
    actions = planned(to("v1.36.5+k3s1", upgrade_batch=2), facts())
    assert actions["drain/lab-w1"].after == actions["drain/lab-w2"].after


def test_an_upgrade_goes_on_where_it_stopped() -> None:
    done = {"lab-c1": "v1.36.5+k3s1", "lab-c2": "v1.36.5+k3s1"}
    seen = facts(done, off_box=("before-v1.36.5-k3s1-lab-c1-1700000000",))
    wanted = to("v1.36.5+k3s1")
    hosts = dict(seen.hosts)
    for name in done:
        reading = hosts[name]
        assert isinstance(reading, Present)
        binary = file(mode=0o755, sha256=wanted.k3s.sha256)
        hosts[name] = Present(replace(reading.value, files={**reading.value.files, files.BINARY: binary}))
    actions = planned(wanted, replace(seen, hosts=hosts))
    assert [key for key in actions if key.startswith(("snapshot/", "k3s/"))] == [
        "k3s/lab-c3", "k3s/lab-w1", "k3s/lab-w2",
    ]  # fmt: skip
    assert actions["drain/lab-c3"].after == frozenset()


def test_a_node_that_a_stopped_upgrade_left_drained_is_given_back_without_one() -> None:
    nodes = {node.name: node_fact(node, drained=node.name == "lab-w1") for node in config().nodes}
    seen = replace(facts(), nodes=Present(nodes))
    assert list(planned(config(), seen, NONE)) == ["uncordon/lab-w1"]
    whole = planned(to("v1.36.5+k3s1"), seen)
    assert whole["uncordon/lab-w1"].after == {"k3s/lab-w1"}


def test_the_only_node_is_not_drained() -> None:
    alone = replace(to("v1.36.5+k3s1"), nodes=config().controllers[:1])
    first = config().controllers[0]
    seen = replace(facts(), nodes=Present({first.name: node_fact(first)}))
    actions = planned(alone, seen)
    assert set(actions) == {"snapshot/before-v1.36.5-k3s1", "k3s/lab-c1"}
    assert "snapshot/before-v1.36.5-k3s1" in actions["k3s/lab-c1"].after


def test_nobody_joins_with_a_newer_release_than_the_servers() -> None:
    seen = facts()
    joining = replace(seen, hosts={**seen.hosts, "lab-w2": Present(host(config().node("lab-w2"), data=False))})
    (problem,) = graph.problems(to("v1.36.5+k3s1"), joining)
    assert "lab-w2 cannot join" in problem.message
    assert graph.problems(config(), joining) == []
    assert graph.problems(to("v1.36.5+k3s1"), joining, ALLOWED) == []
    actions = planned(to("v1.36.5+k3s1"), joining)
    assert actions["k3s/lab-w2"].after >= {"uncordon/lab-c1", "uncordon/lab-c2", "uncordon/lab-c3"}


def test_a_binary_that_does_not_run_is_repaired_without_a_word() -> None:
    seen = facts()
    node = config().node("lab-w1")
    broken = replace(host(node, files={files.BINARY: file(mode=0o755, sha256="0" * 64)}), k3s_version=None)
    actions = planned(config(), replace(seen, hosts={**seen.hosts, "lab-w1": Present(broken)}), NONE)
    assert list(actions) == ["k3s/lab-w1"]
    assert "of no known version" in actions["k3s/lab-w1"].reason
