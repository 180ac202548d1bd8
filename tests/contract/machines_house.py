"""A lab with a Proxmox, its hosts and its web server, and the machine stage of one cluster that is to live in it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import SecretStr

from funoffshore import clock as clocks
from funoffshore.config import ClusterConfig, loader, new
from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store
from funoffshore.lab.hosts.hosts import Hosts as LabHosts
from funoffshore.lab.pve import ProxmoxApi, lab_fingerprint
from funoffshore.lab.web import offers
from funoffshore.lab.web.server import Web
from funoffshore.plan import NONE, Held, Permits, Plan
from funoffshore.reading import Absent, Reading
from funoffshore.stages import machines
from funoffshore.stages.machines import privileges
from funoffshore.world import proxmox, reach, routes, ssh

if TYPE_CHECKING:
    from funoffshore.world.world import World

SECRET = "6f1c2b9e-0000-4000-8000-1f2e3d4c5b6a"
_subnets = itertools.count()


def subnet() -> str:
    """A /24 of loopback that no other test of any run uses."""
    number = os.getpid() * 17 + next(_subnets)
    return f"127.{160 + number % 60}.{number // 60 % 256}.0/24"


@dataclass
class Step:
    """What an action tells, kept; and what an earlier run is said to have recorded."""

    earlier: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def record(self, **ids: str) -> None:
        self.kept |= ids

    def recorded(self, name: str) -> str | None:
        return self.earlier.get(name)

    def checkpoint(self) -> None:
        """Nobody stops it."""


@dataclass(frozen=True)
class Doors:
    """The doors that this stage knows."""

    clock: clocks.Clock
    proxmox: proxmox.Proxmox
    hosts: ssh.Hosts
    reach: reach.Reach


@dataclass
class House:
    """A lab with a Proxmox, and a cluster of one controller and one worker that is to live in it."""

    config: ClusterConfig
    kit: Kit
    api: ProxmoxApi
    doors: Doors

    @property
    def world(self) -> World:
        return cast("World", self.doors)

    def look(self, *, thorough: bool = True) -> tuple[machines.MachineFacts, dict[str, Reading[ssh.HostFacts]]]:
        seen = machines.observe(self.world, self.config, thorough=thorough)
        hosts: dict[str, Reading[ssh.HostFacts]] = {node.name: Absent() for node in self.config.nodes}
        alive = [node for node in self.config.nodes if machines.is_running(seen, node.name)]
        return seen, hosts | self.doors.hosts.observe_all(alive)

    def plan(self, permits: Permits = NONE, *, thorough: bool = True) -> Plan:
        """Raises the first thing that stands in the way."""
        seen, hosts = self.look(thorough=thorough)
        if found := machines.problems(self.config, seen, permits):
            raise found[0]
        return Plan.of(machines.plan(self.config, seen, hosts, permits))

    def held(self, permits: Permits = NONE) -> list[Held]:
        return machines.held(self.config, self.look()[0], permits)

    def settle(self, permits: Permits = NONE) -> None:
        """Runs until nothing is planned any more, as a bootstrap does."""
        for _ in range(6):
            plan = self.plan(permits)
            if not plan:
                return
            self.run(plan)
            permits = replace(permits, replace=frozenset())
        raise AssertionError(f"it never settles: {list(self.plan().actions)}")

    def grant(self) -> None:
        """The token gets exactly the privileges that fo asks for."""
        needed = privileges.needed(self.config, self.doors.proxmox.release())
        self.api.add_token(self.config.proxmox.token_id, SECRET, {path: list(found) for path, found in needed.items()})

    def prepare(self) -> None:
        """Pool and image, as every creation needs them."""
        actions = self.plan().actions.items()
        self.run(Plan({key: action for key, action in actions if key.split("/")[0] in ("pool", "image")}))

    def destroy(self) -> None:
        self.run(Plan.of(machines.destroy_plan(self.config, self.look()[0])))

    def vmid(self, name: str) -> int:
        """Where that machine is now."""
        reading = self.look()[0].machine(name)
        return cast("Any", reading).value.vmid  # type: ignore[no-any-return]

    def run(self, plan: Plan, earlier: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Step]:
        steps = {}
        for action in plan.in_order():
            steps[action.key] = Step((earlier or {}).get(action.key, {}))
            machines.apply(self.world, self.config, action, steps[action.key])
        return steps

    def calls(self, word: str = "") -> list[str]:
        """What Proxmox was asked to change."""
        return [e["what"] for e in self.kit.ledger.entries() if e["door"] == "pve" and word in e["what"]]

    def creations(self) -> list[str]:
        return self.calls("POST /nodes/pve/qemu ")

    def another_client(self, **changed: Any) -> proxmox.Proxmox:
        config = replace(self.config.proxmox, **changed)
        return proxmox.Proxmox(config, routes.Routes(self.kit.directory / "routes.json"), self.kit.clock)

    def seen_by(self, **changed: Any) -> machines.MachineFacts:
        """Facts as a client with another token, pin or URL gets them."""
        world = cast("World", replace(self.doors, proxmox=self.another_client(**changed)))
        return machines.observe(world, replace(self.config, proxmox=replace(self.config.proxmox, **changed)))


def config_of(tmp: Path) -> ClusterConfig:
    pins = dict.fromkeys(("PROXMOX_FINGERPRINT", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)
    answers = {**pins, "IMAGE_SHA256": offers.image_sha256(), "SUBNET": subnet()}
    whole = loader.parse(new.generate("lab", answers, lab=True), "lab", tmp)
    address = str(whole.network.subnet[2])
    lent = replace(whole.proxmox, fingerprint=lab_fingerprint(SECRET, address), token_secret=SecretStr(SECRET))
    return replace(whole, proxmox=lent, nodes=(whole.node("lab-c1"), whole.node("lab-w1")))


def spread(config: ClusterConfig, nodes: tuple[str, ...]) -> ClusterConfig:
    """The machines in turn on the Proxmox nodes."""
    placed = tuple(replace(node, hypervisor=nodes[n % len(nodes)]) for n, node in enumerate(config.nodes))
    return replace(config, proxmox=replace(config.proxmox, nodes=nodes), nodes=placed)


@contextlib.contextmanager
def built(
    tmp: Path, *, release: str = "9.1", latencies: Latencies | None = None, nodes: tuple[str, ...] = ("pve",)
) -> Iterator[House]:
    config = spread(config_of(tmp), nodes)
    store = Store(tmp / "lab.sqlite")
    kit = Kit(tmp, LabClock(100.0), store, latencies or Latencies(), Faults(store), Ledger(store), Routes(tmp))
    hosts = LabHosts(kit, config.ssh.port)
    web = Web(kit, str(config.network.subnet[3]))
    api = ProxmoxApi(
        kit, hosts, address=str(config.network.subnet[2]), release=release, nodes=nodes, secret_for_tls=SECRET
    )
    api.add_token(config.proxmox.token_id, SECRET)
    ways = routes.Routes(tmp / "routes.json")
    doors = Doors(
        kit.clock,
        proxmox.Proxmox(config.proxmox, ways, kit.clock),
        ssh.Hosts(config, ways, kit.clock),
        reach.of(config),
    )
    web.start()
    api.start()
    try:
        yield House(config, kit, api, doors)
    finally:
        doors.hosts.close()
        for stop in (api.stop, web.stop, hosts.stop, kit.clock.stop, store.close):
            stop()
