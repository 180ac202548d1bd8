"""How often fo asks: one SSH round trip for each host, one list call for each kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from operator_home import Operator

from funoffshore import config, road
from funoffshore.checks import base, postcheck
from funoffshore.config import ClusterConfig
from funoffshore.lab import lab
from funoffshore.world.world import open_world


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> ClusterConfig:
    home = Operator(tmp_path_factory.mktemp("counts") / "home", CONTROLLERS=1, WORKERS=2)
    assert home.fo("bootstrap").code == 0
    return config.load(home.env_file, home.folder)


def test_a_look_is_one_round_trip_for_each_host(cluster: ClusterConfig, tmp_path: Path) -> None:
    with lab.running(cluster) as clock:
        world = open_world(cluster, clock, tmp_path)
        facts = road.look(world, cluster)
        assert not road.plan(cluster, facts)
        assert world.hosts.round_trips == len(cluster.nodes)
        world.close()


def test_a_postcheck_lists_each_kind_once(cluster: ClusterConfig, tmp_path: Path) -> None:
    with lab.running(cluster) as clock:
        world = open_world(cluster, clock, tmp_path)
        seen = postcheck.look(world, cluster)
        assert seen.complete, [f for f in seen.findings if f.outcome.value != "pass"]
        # readyz, the cluster's UID, and for kinds that the client has no path of its own for, one discovery a group
        assert world.kube.calls <= len(base.EVERY_KIND) + 8
        assert world.hosts.round_trips == len(cluster.nodes)
        world.close()
