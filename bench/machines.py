"""Prints the numbers of the machine stage: elapsed against the critical path, calls per VM, an unchanged cluster.

The lab runs in a process of its own with realistic latencies. Nothing is asserted: machines are noisy.

Usage: python bench/machines.py [--quick]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from operator_home import Operator
from operator_kills import served

from funoffshore import config as configs
from funoffshore import journal, road, run, timeline
from funoffshore.cli import common
from funoffshore.config import ClusterConfig, model
from funoffshore.plan import Action, Plan
from funoffshore.reading import Absent, Present
from funoffshore.stages import machines
from funoffshore.world.proxmox import Storage
from funoffshore.world.world import World

QUICK = "--quick" in sys.argv
SIZES = (1, 5, 20) if QUICK else (1, 5, 20, 100)
HYPERVISORS = (1, 3) if QUICK else (1, 3, 8)
SPEED = 4
"""Lab seconds per real second. Faster, and this computer's own slowness would count as Proxmox' slowness."""


class Quiet:
    """Watches a run and says nothing."""

    def planned(self, plan: Plan) -> None: ...

    def started(self, action: Action) -> None: ...

    def said(self, action: Action, sentence: str) -> None: ...

    def ended(self, action: Action, error: BaseException | None) -> None: ...


def main() -> None:
    """All of them, from quick to slow."""
    print(f"{'plan of 1,000 machines over 16 Proxmox nodes':56} {plan_of(1000):8.3f} s", flush=True)
    for hypervisors in HYPERVISORS:
        for size in SIZES:
            measure(size, hypervisors)


def measure(size: int, hypervisors: int) -> None:
    """One cluster from nothing, and the same again."""
    controllers = 1 if size < 5 else 3 if size < 20 else 5
    nodes = ",".join(["pve", *(f"pve{n}" for n in range(2, hypervisors + 1))])
    with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
        home = Operator(
            Path(folder) / "home", CONTROLLERS=controllers, WORKERS=size - controllers, PROXMOX_NODES=nodes,
            CONTROLLER_MEMORY_MIB=2048, WORKER_MEMORY_MIB=1024, CONTROLLER_DISK_GIB=10, WORKER_DISK_GIB=10,
        )  # fmt: skip
        config = configs.load(configs.find(home.folder, "lab", {}), root=home.folder)
        with served(home, SPEED):
            calls, spans = created(config)
            again, seconds = unchanged(config)
    lanes = {**run.CAPACITY, "storage": config.proxmox.imports}
    elapsed = max(s.end for s in spans) - min(s.start for s in spans)
    path = max(timeline.critical_path(spans).seconds, timeline.lane_bound(spans, lanes))
    print(
        f"{f'{size} machines over {hypervisors} Proxmox nodes':40} elapsed {elapsed:6.1f} lab s, / critical path "
        f"{elapsed / path:5.3f}, {calls / size:5.1f} calls per machine; again {again} calls in {seconds:.2f} s",
        flush=True,
    )


def created(config: ClusterConfig) -> tuple[int, list[timeline.Span]]:
    """Proxmox calls for the machines themselves in a run from nothing, and what that run did.

    What a run does once, however many machines there are, is not among the calls: looking, the pool, and having each
    Proxmox node compare the image that it has with its digest. The image was fetched before.
    """
    config.state.mkdir(parents=True, exist_ok=True)
    with common.world(config) as world:
        with journal_of(config, world) as log:
            prepare(world, config, log)
        with journal_of(config, world) as log:
            once = prepare(world, config, log)
        looks, look, start = 0, road.look, world.proxmox.calls

        def counted(world: World, config: ClusterConfig, *, thorough: bool = True) -> road.Facts:
            nonlocal looks
            before = world.proxmox.calls
            seen = look(world, config, thorough=thorough)
            looks += world.proxmox.calls - before
            return seen

        road.look = counted
        try:
            with journal_of(config, world) as log:
                road.converge(world, config, log, Quiet(), threading.Event(), "machines")
        finally:
            road.look = look
        return world.proxmox.calls - start - looks - once, timeline.spans(journal.read(log.folder))


def prepare(world: World, config: ClusterConfig, log: journal.Journal) -> int:
    """Pool and image, as every run sees to them. Returns how many calls that takes, without the look."""
    facts = road.look(world, config)
    before = world.proxmox.calls
    actions = road.plan(config, facts, "machines").actions.items()
    plan = Plan({key: action for key, action in actions if key.startswith(("pool/", "image/"))})
    run.execute(plan, lambda a, step: road.apply(world, config, a, step), log, Quiet(), threading.Event(), {})
    return world.proxmox.calls - before


@contextmanager
def journal_of(config: ClusterConfig, world: World) -> Iterator[journal.Journal]:
    """A run's journal, closed behind it."""
    log = journal.Journal.begin(config.state, world.clock.now, str, cluster=config.name, until="machines")
    try:
        yield log
    finally:
        log.close()


def unchanged(config: ClusterConfig) -> tuple[int, float]:
    """Proxmox calls and real seconds of one more look at the machines, as a second bootstrap takes it."""
    with common.world(config) as world:
        start = time.monotonic()
        facts = machines.observe(world, config, thorough=False)
        hosts = {n.name: Absent() for n in config.nodes}
        wanted = [a for a in machines.plan(config, facts, hosts) if not a.key.startswith("host/")]
        seconds = time.monotonic() - start
        if wanted:
            raise SystemExit(f"the unchanged cluster is not unchanged: {wanted[0]}")
        return world.proxmox.calls, seconds


def plan_of(count: int) -> float:
    """Seconds to plan that many machines from nothing."""
    with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
        home = Operator(Path(folder) / "home")
        config = configs.load(configs.find(home.folder, "lab", {}), root=home.folder)
    names = tuple(f"pve{n}" for n in range(1, 17))
    proxmox = replace(config.proxmox, nodes=names, vmid_first=9000, vmid_last=9000 + 2 * count)
    pattern = config.workers[0]
    nodes = tuple(
        replace(
            pattern, name=f"lab-w{n}", role=model.Role.WORKER, vmid=9000 + n, address=IPv4Address("10.0.0.0") + n,
            identity=model.identity("lab", f"lab-w{n}"), memory_mib=1024,
        )
        for n in range(1, count + 1)
    )  # fmt: skip
    large = replace(config, nodes=nodes, proxmox=proxmox)
    facts = machines.MachineFacts(
        release=Present((9, 1)),
        machines={node.name: Absent() for node in nodes},
        hypervisors={name: Present(_hypervisor(name)) for name in names},
    )
    start = time.monotonic()
    machines.plan(large, facts, {})
    return time.monotonic() - start


def _hypervisor(name: str) -> machines.Hypervisor:
    gib = 2**30
    storages = {
        "local-lvm": Storage("local-lvm", frozenset({"images"}), 99_999 * gib, True, False, node=name),
        "local": Storage("local", frozenset({"import", "iso"}), 500 * gib, True, False, node=name),
    }
    return machines.Hypervisor(True, 512 * gib, 500 * gib, 64, 0, storages, frozenset({"vmbr0"}))


if __name__ == "__main__":
    main()
