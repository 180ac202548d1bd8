"""SSH cut in the middle of founding and joining, at bytes all over the talk: a named cause or a node that is in, and in
the end the one cluster that was wanted. All bytes of a coarser sweep with FO_CUTS=all."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from k3s_homelab import Homelab
from k3s_trouble import clusters, members, only, ready_nodes, settle
from ssh_servers import Proxy

from funoffshore import errors

CUTS = 60 if os.environ.get("FO_CUTS") == "all" else 6
TALK = 24_000
"""Bytes of one direction of a join, with the handshake; what lies beyond cuts nothing."""


@contextmanager
def cutting(lab: Homelab, name: str, upward: bool, after: int) -> Iterator[Proxy]:
    """The first three connections to the host are cut once ``after`` bytes have gone in that direction."""
    address, port = str(lab.config.node(name).address), lab.config.ssh.port
    routes = lab.kit.directory / "routes.json"

    def fail(number: int, direction: bool, total: int) -> int:
        return after - total if number < 3 and direction is upward else 1 << 30

    lab.world.hosts.close()
    proxy = Proxy(address, (address, port), fail)
    routes.write_text(json.dumps({f"{address}:{port}": [address, proxy.port]}))
    try:
        yield proxy
    finally:
        routes.unlink()
        lab.world.hosts.close()
        proxy.close()


def cuts(upward: bool) -> list[int]:
    chance = random.Random(20261124 + upward)  # noqa: S311 - chooses bytes, guards nothing
    return sorted(chance.sample(range(200, TALK), CUTS))


@pytest.mark.parametrize("upward", [True, False])
@pytest.mark.parametrize("name", ["lab-c1", "lab-c2", "lab-w1"])
def test_wherever_ssh_is_cut_there_is_one_cluster(tmp_path: Path, name: str, upward: bool) -> None:
    lab = Homelab(tmp_path, 3, 1)
    lab.boot()
    broken, authority = 0, set[str]()
    try:
        if name != "lab-c1":
            lab.carry_out(only(lab.plan(), "k3s/lab-c1", "kubeconfig"))
            lab.carry_out(only(lab.plan(), "k3s/lab-c3"))
            authority = clusters(lab)
        for after in cuts(upward):
            with cutting(lab, name, upward, after) as proxy:
                why = attempt(lab, name)
                assert why is None or "lab-" in why.message
                broken += proxy.connections > 1
            settle(lab)
            authority = authority or clusters(lab)
            assert clusters(lab) == authority
            assert len(authority) == 1
            assert list(members(lab).values()) == [{"lab-c1", "lab-c2", "lab-c3"}]
            assert ready_nodes(lab) == {"lab-c1", "lab-c2", "lab-c3", "lab-w1"}
            again(lab, name)
        assert broken
    finally:
        lab.close()


def attempt(lab: Homelab, name: str) -> errors.FoError | None:
    try:
        lab.carry_out(only(lab.plan(), f"k3s/{name}"))
    except errors.FoError as why:
        return why
    return None


def again(lab: Homelab, name: str) -> None:
    """The machine is made anew, so that it has to join once more."""
    node = lab.config.node(name)
    lab.machines.destroy(node.vmid)
    lab.boot(node)
    lab.world.hosts.close()
