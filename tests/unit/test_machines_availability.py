"""High availability and the firewall of the machines: what is asked for, and what differs."""

from __future__ import annotations

import json
import random
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import machines_samples as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.config import ClusterConfig
from funoffshore.stages.machines import availability, firewall
from funoffshore.stages.machines.facts import Machine

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text())
WHERE = {"lab-c1": "pve1", "lab-c2": "pve2", "lab-c3": "pve3"}


def case_config(case: dict[str, Any]) -> ClusterConfig:
    on = {"high_availability": case.get("on", True)}
    return kit.config(3, 1, tuple(case.get("hypervisors", ("pve1", "pve2", "pve3"))), proxmox=on)


def machines(config: ClusterConfig, where: dict[str, str]) -> dict[str, Machine]:
    return {n.name: kit.machine(config, n, hypervisor={**WHERE, **where}.get(n.name, "pve1")) for n in config.nodes}


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_high_availability(case: dict[str, Any]) -> None:
    config = case_config(case)
    release = tuple(case.get("release", kit.NEW))
    steps = availability.differences(
        config, machines(config, case.get("where", {})), release, frozenset(case.get("resources", ())),
        case.get("groups", {}), case.get("rules", {}),
    )  # fmt: skip
    told = []
    for step in steps:
        body = " ".join(f"{key}={step.body[key]}" for key in sorted(step.body))
        told.append(f"{step.verb} {step.kind} {step.id} {{{body}}}: {step.sentence}")
    assert len(told) == len(case["steps"]), told
    assert [text[: len(want)] for text, want in zip(told, case["steps"], strict=True)] == case["steps"]


@pytest.mark.parametrize("release", [kit.OLD, kit.NEW])
def test_one_round_is_enough(release: tuple[int, int]) -> None:
    config = case_config({})
    made = machines(config, {})
    want = availability.wanted(config, made, release)
    assert bool(want.groups) is (release == kit.OLD)
    assert bool(want.rules) is (release == kit.NEW)
    assert availability.differences(config, made, release, want.resources, want.groups, want.rules) == []
    off = kit.config(3, 1, proxmox={"high_availability": False})
    gone = availability.differences(off, made, release, want.resources, want.groups, want.rules)
    assert [step.verb for step in gone] == ["delete"] * len(gone)
    assert {step.id for step in gone} >= {*want.groups, *want.rules, "9000", "9001", "9002"}


@pytest.mark.parametrize(
    ("controllers", "hypervisors", "release", "words"),
    [
        (3, 3, kit.NEW, ["no other is free of controllers", "stalls until the node is back"]),
        (3, 4, kit.NEW, ["once fewer than 3 Proxmox nodes are left"]),
        (5, 3, kit.NEW, ["so it was left out: 5 controllers have 3 Proxmox nodes"]),
        (3, 2, kit.NEW, ["needs three Proxmox nodes for a quorum, and the env file names 2"]),
        (3, 3, kit.OLD, []),
        (1, 3, kit.NEW, []),
    ],
)
def test_the_warning(controllers: int, hypervisors: int, release: tuple[int, int], words: list[str]) -> None:
    names = tuple(f"pve{at}" for at in range(hypervisors))
    config = kit.config(controllers, 0, names, proxmox={"high_availability": True})
    told = " ".join(availability.warnings(config, release))
    assert bool(told) is bool(words)
    assert [word for word in words if word not in told] == []
    assert availability.warnings(kit.config(controllers, 0, names), release) == ()


def opened(config: ClusterConfig, name: str) -> dict[str, str]:
    """Source, protocol and ports by what they are for."""
    rules = firewall.wanted(config, config.node(name))
    assert all((rule["type"], rule["action"], rule["enable"]) == ("in", "ACCEPT", "1") for rule in rules)
    return {
        rule["comment"].removeprefix("fo: "): " ".join(
            [rule["source"], rule.get("proto", "all"), rule.get("dport", "")]
        )
        for rule in rules
    }


def test_what_a_controller_and_a_worker_are_open_for() -> None:
    config = kit.config(ssh={"port": 2222}, switches={"SYNCTHING_ENABLED": False})
    lan, nodes = str(config.network.subnet), "10.0.0.11,10.0.0.12/31,10.0.1.21,10.0.1.22"
    everywhere = {
        "services over UDP from the LAN": f"{lan} udp 443,30000:32767",
        "ping from the LAN": f"{lan} icmp ",
        "kubelet, metrics and registry among the machines": f"{nodes} tcp 5001,9100,10250",
        "pods among the machines (VXLAN)": f"{nodes} udp 8472",
    }
    what = "SSH, Kubernetes and its services from the LAN"
    assert opened(config, "lab-c1") == {
        **everywhere,
        what: f"{lan} tcp 2222,6443,80,443,30000:32767",
        "etcd among the controllers": "10.0.0.11,10.0.0.12/31 tcp 2379:2380",
    }
    assert opened(config, "lab-w1") == {**everywhere, what: f"{lan} tcp 2222,80,443,30000:32767"}


@pytest.mark.parametrize(
    ("backend", "opening"),
    [
        ("wireguard-native", "NODES udp 51820:51821"),
        ("host-gw", "PODS all "),
        ("none", "NODES all "),
        ("vxlan", "NODES udp 8472"),
    ],
)
def test_each_way_between_pods(backend: str, opening: str) -> None:
    config = kit.config(k3s={"extra_config": {"flannel-backend": backend}}, switches={"SYNCTHING_ENABLED": True})
    found = opened(config, "lab-w1")
    names = {"NODES": "10.0.0.11,10.0.0.12/31,10.0.1.21,10.0.1.22", "PODS": str(config.k3s.cluster_cidr)}
    for word, text in names.items():
        opening = opening.replace(word, text)
    assert opening in found.values()
    assert found["Syncthing from the LAN"].endswith("tcp 22000")


@given(st.randoms(use_true_random=False))
def test_the_same_rules_in_another_order_are_no_difference(draw: random.Random) -> None:
    config = kit.config()
    node = config.node("lab-c1")
    rules = [dict(rule) for rule in firewall.wanted(config, node)]
    rules.append({"type": "in", "action": "DROP", "comment": "mine"})
    draw.shuffle(rules)
    for at, rule in enumerate(rules):
        rule["pos"] = str(at)
        if "dport" in rule:
            ports = rule["dport"].split(",")
            draw.shuffle(ports)
            rule["dport"] = ",".join(ports)
    assert not firewall.differences(config, node, rules, {"enable": "1", "policy_out": "ACCEPT"})


def test_what_is_wrong_with_a_firewall() -> None:
    config = kit.config()
    node = config.node("lab-c1")
    rules = [{**rule, "pos": str(at)} for at, rule in enumerate(firewall.wanted(config, node))]
    rules[0]["enable"] = "0"
    rules[2]["source"] = "10.9.9.9"
    rules.append({**rules[1], "pos": str(len(rules))})
    found = firewall.differences(config, node, rules, {"enable": "0", "policy_in": "ACCEPT", "ipfilter": "1"})
    assert found.surplus == (len(rules) - 1, 2, 0)
    assert [rule["comment"] for rule in found.lacking] == [rules[0]["comment"], rules[2]["comment"]]
    assert found.options == {"enable": "1", "policy_in": "DROP", "ipfilter": "0"}
    assert "enable of its firewall is 0, not 1" in found.sentences


@given(st.sets(st.integers(int(IPv4Address("10.0.0.1")), int(IPv4Address("10.0.3.255"))), max_size=120))
def test_addresses_are_all_there_and_nothing_else(numbers: set[int]) -> None:
    text = firewall.addresses([IPv4Address(number) for number in numbers], "10.0.0.0/22")
    assert len(text) <= 512
    if text == "10.0.0.0/22":
        return
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        found |= {int(address) for address in IPv4Network(part)}
    assert found == numbers
