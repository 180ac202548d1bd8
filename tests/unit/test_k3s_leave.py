"""Nodes that go for a moment or for good: who must hold meanwhile, and which pods are waited for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_k3s_plan import config, desired, host, node_fact

from funoffshore import errors
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import K3sFacts, drain, leave
from funoffshore.world.ssh import HostFacts

BOOT, EARLIER = "0a-now", "0b-before"


def facts(**hosts: Reading[HostFacts]) -> K3sFacts:
    """Every kubelet has reported since its host booted, but for the ``hosts`` given."""
    seen = {node.name: Present(replace(host(node), boot_id=BOOT)) for node in config().nodes}
    nodes = {node.name: node_fact(node, boot_id=BOOT) for node in config().nodes}
    return desired(nodes=Present(nodes), hosts=seen | {f"lab-{name}": reading for name, reading in hosts.items()})


def problems(seen: K3sFacts, restarting: list[str], leaving: list[str] | None = None) -> list[errors.FoError]:
    return list(leave.problems(config(), seen, restarting, leaving or []))


def test_a_controller_may_go_while_the_others_hold() -> None:
    assert problems(facts(), ["lab-c1"]) == []
    assert problems(facts(), ["lab-c1", "lab-c2", "lab-c3"]) == []
    assert problems(facts(), [], ["lab-c3"]) == []


@pytest.mark.parametrize(
    "other",
    [
        Present(replace(host(config().node("lab-c2")), boot_id=EARLIER)),
        Present(replace(host(config().node("lab-c2")), boot_id="")),
        Unreadable("its machine is off"),
        Absent(),
    ],
)
def test_a_controller_that_has_just_lost_its_power_does_not_hold_though_its_node_is_still_called_ready(
    other: Reading[HostFacts],
) -> None:
    [found] = problems(facts(c2=other), ["lab-c1"])
    assert "lab-c1 must stay: lab-c2 is no Ready member of etcd" in found.message
    assert problems(facts(c2=other), ["lab-w1"]) == []


@pytest.mark.parametrize("changed", [{"ready": False}, {"voter": False}, {"boot_id": ""}])
def test_a_controller_that_is_not_ready_or_does_not_vote_does_not_hold(changed: dict[str, Any]) -> None:
    seen = facts()
    assert isinstance(seen.nodes, Present)
    nodes = {**seen.nodes.value, "lab-c2": replace(seen.nodes.value["lab-c2"], **changed)}
    assert len(problems(replace(seen, nodes=Present(nodes)), ["lab-c1"])) == 1


@pytest.mark.parametrize(
    ("tolerations", "comes_back"),
    [
        (None, False),
        ([], False),
        ([{"operator": "Exists"}], True),
        ([{"operator": "Exists", "effect": "NoSchedule"}], True),
        ([{"operator": "Exists", "effect": "NoExecute"}], False),
        ([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}], True),
        ([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}], True),
        ([{"key": "node.kubernetes.io/unschedulable", "value": "yes"}], False),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}], False),
        ([{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}], False),
    ],
)
def test_a_pod_that_tolerates_the_cordon_is_known(tolerations: list[dict[str, str]] | None, comes_back: bool) -> None:
    assert drain._tolerates_cordon({"spec": {"tolerations": tolerations}}) is comes_back


def test_nobody_goes_while_a_server_restarts_for_its_settings() -> None:
    """Both at once would take two votes of three."""
    servers = {f"k3s/{node.name}" for node in config().controllers}
    actions = {action.key: action for action in leave.plan(config(), facts(), ["lab-c1", "lab-w1"], [])}
    assert actions["drain/lab-c1"].after == servers
    assert actions["drain/lab-w1"].after == {"uncordon/lab-c1"}
    gone = {action.key: action for action in leave.plan(config(), facts(), [], ["lab-c2", "lab-c3"])}
    assert gone["drain/lab-c2"].after == {"k3s/lab-c1"}
    assert gone["leave/lab-c2"].after == {"drain/lab-c2"}
    assert gone["drain/lab-c3"].after == {"leave/lab-c2", "machine/lab-c2", "wipe/lab-c2"}
