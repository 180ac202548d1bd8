"""What the cases of traps and faults have in common: other people's clusters on our hosts, waits that end soon, and the
proof that there is one cluster, the same as before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from k3s_homelab import Homelab, Voice
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node, model
from funoffshore.lab.k3s import plane
from funoffshore.plan import Plan
from funoffshore.reading import Present
from funoffshore.stages import k3s
from funoffshore.stages.k3s import facts, files
from funoffshore.world.world import World, open_world

OTHER = "ffffffffffffffffffffffffffffffff"


def clusters(lab: Homelab) -> set[str]:
    """CA hashes of every cluster that a K3s of the lab ever founded, whoever told it to."""
    found = [body["ca"]["server-ca"]["certificate"] for _, body in lab.kit.store.scan(plane.BUCKET)]
    return {hashlib.sha256(text.encode()).hexdigest() for text in found}


def members(lab: Homelab) -> dict[str, set[str]]:
    """etcd's members by the CA hash of their cluster."""
    return {
        hashlib.sha256(body["ca"]["server-ca"]["certificate"].encode()).hexdigest(): set(body["members"])
        for _, body in lab.kit.store.scan(plane.BUCKET)
    }


@contextmanager
def unharmed(lab: Homelab, *, joins: str = "") -> Iterator[None]:
    """The clusters and the members of etcd are the same afterwards; ``joins`` may have become one."""
    before = members(lab)
    yield
    after = members(lab)
    assert set(after) == set(before), "another cluster was founded"
    for authority, names in after.items():
        assert names - {joins} == before[authority] - {joins}


@contextmanager
def untouched(lab: Homelab) -> Iterator[None]:
    """Not one call that changes anything reaches a host or the API."""
    before = lab.kit.ledger.entries()
    with unharmed(lab):
        yield
    assert lab.kit.ledger.entries()[len(before) :] == []


@contextmanager
def short(seconds: float = 15.0) -> Iterator[None]:
    """A rung of the ladder ends after that many lab seconds."""
    patch = pytest.MonkeyPatch()
    patch.setattr("funoffshore.stages.k3s.ladder.DEADLINE", seconds)
    patch.setattr("funoffshore.stages.k3s.work.READABLE", seconds)
    try:
        yield
    finally:
        patch.undo()


def only(plan: Plan, *keys: str) -> Plan:
    return replace(plan, actions={key: action for key, action in plan.actions.items() if key in keys})


def without(plan: Plan, *keys: str) -> Plan:
    return replace(plan, actions={key: action for key, action in plan.actions.items() if key not in keys})


def fails(lab: Homelab, plan: Plan | None = None, config: ClusterConfig | None = None) -> errors.FoError:
    """What carrying it out ends with; nothing secret is in it."""
    with pytest.raises(errors.FoError) as caught:
        lab.carry_out(plan or lab.plan(config), config)
    why = caught.value
    whole = "\n".join((why.message, why.fix, *why.evidence))
    for settings in (lab.config, config or lab.config):
        for secret in (settings.k3s.token, settings.k3s.agent_token):
            assert secret.get_secret_value() not in whole
    return why


def told(why: errors.FoError) -> str:
    return "\n".join((why.message, *why.evidence))


def with_k3s(config: ClusterConfig, **changes: Any) -> ClusterConfig:
    return replace(config, k3s=replace(config.k3s, **changes))


def cut_down(lab: Homelab, *names: str) -> ClusterConfig:
    """The config with these nodes alone."""
    return replace(lab.config, nodes=tuple(lab.config.node(name) for name in names))


def somebody_elses(lab: Homelab, node: Node, folder: Path, token: str = OTHER) -> ClusterConfig:
    """Another cluster, of one server, which lives on ``node``: with its own token, its own agents' and authority."""
    folder.mkdir()
    network = replace(lab.config.network, vip=node.address)
    assert lab.config.lab
    other = replace(
        with_k3s(lab.config, token=SecretStr(token)), network=network, nodes=(node,),
        lab=model.Lab(folder, lab.config.lab.web_url),
    )  # fmt: skip
    with world_of(lab, other, folder) as world:
        seen = k3s.observe(world, other, world.hosts.observe_all(other.nodes, k3s.look_of(other)))
        for action in Plan.of(k3s.plan(other, seen)).in_order():
            k3s.apply(world, other, action, Voice())
    return other


@contextmanager
def world_of(lab: Homelab, config: ClusterConfig, folder: Path) -> Iterator[World]:
    """Doors of another computer."""
    world = open_world(config, lab.kit.clock, folder / "cache")
    try:
        yield world
    finally:
        world.close()


def settle(lab: Homelab, config: ClusterConfig | None = None) -> None:
    """As a run does it: look, act, look again, until a look plans nothing."""
    for _ in range(4):
        plan = lab.plan(config)
        if not plan:
            return
        lab.carry_out(plan, config)
    raise AssertionError([str(action) for action in lab.plan(config).actions.values()])


def ready_nodes(lab: Homelab) -> set[str]:
    nodes = lab.facts().nodes
    assert isinstance(nodes, Present)
    return {name for name, node in nodes.value.items() if node.ready}


def holds_nothing(lab: Homelab, name: str) -> bool:
    """Whether fo and K3s have left nothing on the disk of ``name``."""
    host = lab.host(name)
    return not any(host.path(path).exists() for path in (files.CONFIG, files.BINARY, facts.TOKEN, facts.AGENT))
