"""Lab hosts that run the lab's K3s, and the real doors to them: what the K3s stage works on."""

from __future__ import annotations

import threading
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from ssh_machines import config_of, hardware_of, kit_of, subnet, until

from funoffshore import run
from funoffshore.config import ClusterConfig, Node, model
from funoffshore.lab.base import Latencies
from funoffshore.lab.hosts.hosts import Hosts
from funoffshore.lab.k3s import K3s, binary, digest
from funoffshore.lab.web import Web
from funoffshore.plan import Action, Plan
from funoffshore.stages import k3s
from funoffshore.stages.k3s import K3sFacts
from funoffshore.world.world import World, open_world

VERSION = "v1.36.4+k3s1"


class Voice:
    """A step that listens to itself."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def record(self, **ids: str) -> None:
        pass

    def recorded(self, name: str) -> str | None:
        return None

    def checkpoint(self) -> None:
        pass


class Homelab:
    """Booted hosts without K3s. ``controllers`` and ``workers`` count them."""

    def __init__(
        self, tmp: Path, controllers: int = 1, workers: int = 0, *, latencies: Latencies | None = None,
        speed: float = 20.0, config: ClusterConfig | None = None,
    ) -> None:  # fmt: skip
        self.config = config or _config(tmp, controllers, workers)
        web = self.config.network.subnet[3]
        self.kit = kit_of(tmp, latencies, speed)
        self.machines = Hosts(self.kit, self.config.ssh.port)
        self.k3s = K3s(self.kit)
        self.machines.register_program("k3s", self.k3s)
        self.machines.register_service("k3s", self.k3s)
        self.web = Web(self.kit, str(web), 8088)
        self.web.add(f"/k3s/{VERSION}/k3s", binary(VERSION))
        self.web.start()
        self.world: World = open_world(self.config, self.kit.clock, tmp / "cache")
        self.voice = Voice()

    def boot(self, *nodes: Node) -> None:
        for node in nodes or self.config.nodes:
            self.machines.power_on(hardware_of(self.config, node))
        for node in nodes or self.config.nodes:
            until(lambda node=node: (self.kit.store.get("hosts", str(node.vmid)) or {}).get("phase") == "done")  # type: ignore[misc]

    def facts(self, config: ClusterConfig | None = None) -> K3sFacts:
        wanted = config or self.config
        return k3s.observe(self.world, wanted, self.world.hosts.observe_all(wanted.nodes, k3s.look_of(wanted)))

    def plan(self, config: ClusterConfig | None = None) -> Plan:
        return Plan.of(k3s.plan(config or self.config, self.facts(config)))

    def carry_out(self, plan: Plan, config: ClusterConfig | None = None) -> None:
        """As the runner does: side by side where the graph allows. Raises the first failure."""
        done: set[str] = set()
        failures: list[BaseException] = []

        def act(action: Action) -> None:
            try:
                k3s.apply(self.world, config or self.config, action, self.voice)
                done.add(action.key)
            except BaseException as why:
                failures.append(why)

        while len(done) < len(plan.actions) and not failures:
            batch = _startable(plan, frozenset(done))
            threads = [threading.Thread(target=act, args=(action,)) for action in batch]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        if failures:
            raise failures[0]

    def converge(self, config: ClusterConfig | None = None) -> Plan:
        """Carries out what is planned; afterwards nothing is. Returns what was planned."""
        plan = self.plan(config)
        self.carry_out(plan, config)
        left = self.plan(config)
        assert not left, [str(action) for action in left.actions.values()]
        return plan

    def host(self, name: str) -> Any:
        found = self.machines.host(name)
        assert found is not None
        return found

    def close(self) -> None:
        self.world.close()
        self.web.stop()
        self.k3s.close()
        self.machines.stop()
        self.kit.clock.stop()
        self.kit.store.close()


def _startable(plan: Plan, done: frozenset[str]) -> list[Action]:
    """What the runner would start: of a lane with a capacity of one, only one."""
    chosen: list[Action] = []
    for action in plan.ready(done):
        if run.CAPACITY.get(action.lane, 99) > sum(1 for c in chosen if c.lane == action.lane and action.lane):
            chosen.append(action)
    return chosen


def _config(tmp: Path, controllers: int, workers: int) -> ClusterConfig:
    network = subnet()
    base = config_of(tmp, network, controllers)
    k3s_config = replace(
        base.k3s, version=VERSION, download_url=f"http://{network[3]}:8088/k3s", sha256=digest(VERSION),
        token=SecretStr("0123456789abcdef0123456789abcdef"),
        agent_token=SecretStr("fedcba9876543210fedcba9876543210"), disable=("traefik", "servicelb"),
        kube_vip_image="ghcr.io/kube-vip/kube-vip:v1.0.1",
    )  # fmt: skip
    nodes = (*base.nodes, *(_worker(network, n) for n in range(1, workers + 1)))
    return replace(base, k3s=k3s_config, nodes=nodes, lab=model.Lab(tmp, f"http://{network[3]}:8088"))


def _worker(network: Any, number: int) -> Node:
    name, address = f"lab-w{number}", IPv4Address(int(network[0]) + 20 + number)
    role = model.Role.WORKER
    return Node(name, role, 920 + number, address, "pve", 2, 4096, 20, model.identity("lab", name))
