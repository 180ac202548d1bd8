"""Prints the numbers of the K3s stage: on slow hosts of the bench, and of looking at fifty hosts far away.

Nothing is asserted: machines are noisy. k3sup and k3s-ansible would stand beside fo here, and neither can be had from a
registry that the project uses: k3sup is a Go module that the proxy does not serve, k3s-ansible a collection of Galaxy.

Usage: python -m bench.k3s_numbers [--quick]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench import control, delay, paths
from funoffshore import config as configs
from funoffshore import journal, road, run, timeline
from funoffshore.clock import WallClock
from funoffshore.config import ClusterConfig
from funoffshore.reading import Present
from funoffshore.stages import k3s
from funoffshore.world.routes import Routes
from funoffshore.world.world import open_world

for _folder in ("tests", "tests/real"):
    sys.path.insert(0, str(paths.project() / _folder))

QUICK = "--quick" in sys.argv
START_SECONDS = 10
"""What a host of these numbers needs before K3s begins to start."""
ROUND_TRIP = 0.020
HOSTS = 10 if QUICK else 50
LOOKS = 5


def main() -> None:
    """First the lab, which every machine can; then the bench."""
    looks()
    if why := control.obstacles():
        print(f"the bench's numbers cannot be had here: {'; '.join(why)}")
        return
    control.prepare(lambda text: print(f"  {text}", flush=True))
    with control.alone():
        try:
            slow_hosts()
        finally:
            control.down()


def line(what: str, number: float, unit: str, said: str = "") -> None:
    print(f"{what:64} {number:9.2f} {unit:3} {said}", flush=True)


def looks() -> None:
    """At every host of a cluster of the lab, each a round trip of ROUND_TRIP away."""
    from operator_home import Operator

    controllers = 3 if QUICK else 5
    with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
        home = Operator(Path(folder) / "home", CONTROLLERS=controllers, WORKERS=HOSTS - controllers)
        ended = home.fo("bootstrap", "--until", "k3s", timeout=1800)
        if ended.code:
            raise SystemExit(f"bootstrap ended with {ended.code}:\n{ended.err[-3000:]}")
        config = configs.load(home.env_file, home.folder)
        with home.start("lab", "serve") as process:
            try:
                while not (home.lab / "running.json").exists():
                    time.sleep(0.05)
                with far(config):
                    look(config, Path(folder))
            finally:
                process.terminate()
                process.communicate()


def look(config: ClusterConfig, folder: Path) -> None:
    """At the hosts alone, and at everything."""
    seconds: dict[str, list[float]] = {"its hosts": [], "all of it": []}
    trips = 0
    for _ in range(LOOKS):
        for what, found in seconds.items():
            world = open_world(config, WallClock(), folder / "cache")
            began = time.monotonic()
            if what == "its hosts":
                seen = world.hosts.observe_all(config.nodes, k3s.look_of(config))
                unread = [name for name, reading in seen.items() if not isinstance(reading, Present)]
            else:
                facts = road.look(world, config, thorough=False)
                unread = list(road.plan(config, facts, "k3s").actions)
            found.append(time.monotonic() - began)
            if unread:
                raise SystemExit(f"that was no whole look: {unread}")
            trips = world.hosts.round_trips
            world.close()
    for what, found in seconds.items():
        said = f"(of {', '.join(f'{value:.2f}' for value in found)})"
        line(f"a cluster {1000 * ROUND_TRIP:.0f} ms away: looking at {what}", statistics.median(found), "s", said)
    line("a cluster far away: SSH round trips of a look", trips, "", f"for {len(config.nodes)} hosts")


@contextmanager
def far(config: ClusterConfig) -> Iterator[None]:
    """Every host's sshd is ROUND_TRIP away."""
    assert config.lab is not None  # noqa: S101 - for the type checker
    file = config.lab.directory / "routes.json"
    routes = Routes(file)
    doors = [(str(node.address), config.ssh.port) for node in config.nodes]
    with delay.slow(file, {door: routes.resolve(*door) for door in doors}, ROUND_TRIP):
        yield


def slow_hosts() -> None:
    """3+3 whose K3s needs START_SECONDS more for every start: from nothing, and again."""
    from real_home import RealOperator

    control.up()
    (paths.run() / "bin" / "k3s-start-seconds").write_text(f"{START_SECONDS}\n")
    workers = 1 if QUICK else 3
    with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
        operator = RealOperator(Path(folder) / "home", controllers=3, workers=workers)
        name = f"3+{workers} on hosts whose K3s needs {START_SECONDS} s"
        line(f"{name}: from nothing", bootstrap(operator), "s")
        stage(name, timeline.spans(journal.read(journal.runs(operator.folder / "ai" / "state")[-1])))
        before, writes = starts(operator), operator.proxmox_writes()
        line(f"{name}: unchanged rerun", bootstrap(operator), "s")
        line(f"{name}: unchanged rerun, writes to Proxmox", operator.proxmox_writes() - writes, "")
        after = starts(operator)
        changed = [host for host in before if after[host] != before[host]]
        line(f"{name}: unchanged rerun, hosts with a restart or a changed file", len(changed), "", " ".join(changed))


def bootstrap(operator: object) -> float:
    """Seconds of one that must end well."""
    from real_home import RealOperator

    assert isinstance(operator, RealOperator)  # noqa: S101 - for the type checker; the import is late
    began = time.monotonic()
    ended = operator.fo("bootstrap", "--until", "k3s", timeout=1800)
    if ended.code:
        raise SystemExit(f"bootstrap ended with {ended.code}:\n{ended.err[-4000:]}")
    return time.monotonic() - began


def stage(name: str, spans: list[timeline.Span]) -> None:
    """The K3s stage alone, against the longest chain of actions that had to follow one another."""
    own = [span for span in spans if span.stage == "k3s"]
    if not own:
        return
    elapsed = max(span.end for span in own) - min(span.start for span in own)
    path = timeline.critical_path(own).seconds
    lanes = timeline.lane_bound(own, run.CAPACITY)
    line(f"{name}: K3s stage, elapsed", elapsed, "s")
    line(f"{name}: K3s stage, elapsed / critical path", elapsed / max(path, lanes), "", f"(path {path:.1f} s)")


def starts(operator: object) -> Mapping[str, str]:
    """By host: when K3s started, and the times of the files that fo writes."""
    from real_home import RealOperator

    assert isinstance(operator, RealOperator)  # noqa: S101 - for the type checker; the import is late
    asks = (
        "systemctl show k3s k3s-agent -p ActiveEnterTimestamp; sudo stat -c '%n %Y' /usr/local/bin/k3s "
        "/etc/systemd/system/k3s*.service /etc/rancher/k3s/*.yaml /etc/sysctl.d/*; true"
    )
    config = configs.load(operator.env_file, operator.folder)
    return {node.name: operator.ssh(str(node.address), asks).out for node in config.nodes}


if __name__ == "__main__":
    main()
