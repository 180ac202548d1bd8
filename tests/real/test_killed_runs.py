"""A bootstrap that is killed goes on where it was: on the bench, where a half-made cluster is a real one."""

from __future__ import annotations

import signal
import subprocess

import pytest
from real_home import RealOperator, eventually

from bench import control, paths

pytestmark = pytest.mark.real
MINUTES = 60
MOMENTS = ("power/", "k3s/bench-c1", "k3s/bench-c2", "k3s/bench-w1")
"""The run is killed as soon as it has begun with an action of that name."""


def run_until(operator: RealOperator, moment: str) -> None:
    """Starts a bootstrap and kills it, without a word, once it says that ``moment`` has begun."""
    process = subprocess.Popen(
        operator.command("bootstrap", "--until", "k3s"), cwd=operator.folder, env=operator.environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if (moment in line and "create" in line) or (moment in line and "change" in line):
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stderr.close()


def test_killed_at_every_turn_it_still_makes_one_cluster(operator: RealOperator) -> None:
    for moment in MOMENTS:
        run_until(operator, moment)
    ended = operator.fo("bootstrap", "--until", "k3s", timeout=15 * MINUTES)
    assert ended.code == 0, ended.err[-6000:]
    nodes = operator.get("nodes")["items"]
    assert len(nodes) == 5
    hashes = {operator.ssh(f"10.77.0.{n}", "sudo cat /var/lib/rancher/k3s/server/token").out for n in (11, 12, 13)}
    assert len(hashes) == 1
    assert operator.fo("plan", "--json").json["actions"][0]["stage"] != "k3s"


def test_the_bench_itself_leaves_nothing_when_it_is_killed(operator: RealOperator) -> None:
    from bench import leftovers
    from bench.hosts import names

    pid = leftovers.running()
    assert pid is not None
    subprocess.run(["kill", "-9", str(pid)], check=True)
    eventually("it to be dead", lambda: leftovers.running() is None, 10)
    assert control.down()
    assert not list(names.NETNS.glob(f"{names.NAMESPACE}*"))
    alive = subprocess.run(["ps", "-eo", "stat=,comm="], capture_output=True, text=True, check=True).stdout
    assert not [line for line in alive.splitlines() if "nspawn" in line and not line.startswith("Z")]
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert str(paths.run()) not in loops
    mounts = subprocess.run(["cat", "/proc/mounts"], capture_output=True, text=True, check=True).stdout
    assert str(paths.run()) not in mounts
