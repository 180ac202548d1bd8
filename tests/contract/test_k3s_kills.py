"""``fo`` killed by SIGKILL at points of its journal, while the lab's hosts go on: the same command again ends well, a
plan is empty, and there is the one cluster with its authority and its members.

A sample of the points, chosen by a fixed seed; all of them with FO_KILLS=all.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from k3s_operator import authorities, clusters, done, left, members
from operator_home import Operator
from road_kit import served

SEED = 20261124
ALL = os.environ.get("FO_KILLS") == "all"
FOREVER = 400
"""More lines than any of these runs writes."""
WAITS = (0.0, 0.05, 0.2)
"""Seconds after the line is on disk, so that some die amid what the line announces."""
DYING = Path(__file__).with_name("k3s_dying.py")
THREE = {"lab-c1", "lab-c2", "lab-c3"}


def killed(home: Operator, point: int, seconds: float, *argv: str) -> bool:
    """Runs ``fo`` until it dies at that point; False when it ended well before."""
    ended = subprocess.run(
        [sys.executable, str(DYING), str(point), str(seconds), *argv], cwd=home.folder, env=home.environment(),
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in ended.stderr
    if ended.returncode != -signal.SIGKILL:
        assert ended.returncode == 0, ended.stderr
        return False
    return True


def points(lines: int, sample: int) -> Iterator[tuple[int, float]]:
    """Where to die in a run that writes about ``lines`` lines."""
    chance = random.Random(SEED)  # noqa: S311 - chooses moments, guards nothing
    chosen = range(1, FOREVER) if ALL else sorted(chance.sample(range(2, lines), sample))
    return ((point, chance.choice(WAITS)) for point in chosen)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Three controllers and a worker with K3s on them, in a lab that is served while nobody looks."""
    home = Operator(tmp_path_factory.mktemp("kills") / "home", CONTROLLERS=3, WORKERS=1)
    with served(home):
        done(home, "bootstrap", "--until", "k3s")
        yield home


def sweep(home: Operator, lines: int, sample: int, command: Callable[[int], tuple[str, ...]]) -> None:
    """Dies at each point, then does it to the end; the cluster is the same afterwards. ``command`` by its number."""
    authority = clusters(home)
    assert len(authority) == 1
    deaths = 0
    for number, (point, seconds) in enumerate(points(lines, sample)):
        argv = command(number)
        if not killed(home, point, seconds, *argv):
            break
        deaths += 1
        assert clusters(home) == authority
        done(home, *argv)
        whole(home, authority)
    assert deaths >= sample


def whole(home: Operator, authority: set[str]) -> None:
    assert left(home) == []
    assert clusters(home) == authority
    assert authorities(home) == authority
    assert members(home) == THREE


def test_a_bootstrap(tmp_path: Path) -> None:
    """Each attempt but the last dies some lines into its work: the K3s part is begun again and again."""
    home = Operator(tmp_path / "home", CONTROLLERS=3, WORKERS=1)
    with served(home):
        done(home, "bootstrap", "--until", "machines")
        founded = set[str]()
        for point, seconds in itertools.islice(points(10, 5), 30):
            if not killed(home, point, seconds, "bootstrap", "--until", "k3s"):
                break
            founded |= clusters(home)
            assert len(founded) <= 1
        done(home, "bootstrap", "--until", "k3s")
        assert len(clusters(home)) == 1
        whole(home, clusters(home))


def test_an_upgrade(home: Operator) -> None:
    sweep(home, 26, 3, lambda number: ("k3s", "upgrade", f"v1.36.{5 + number}+k3s1"))


def test_a_controller_that_is_made_anew(home: Operator) -> None:
    sweep(home, 22, 3, lambda number: ("k3s", "replace", f"lab-c{number % 3 + 1}", "--yes"))


def test_a_restore(home: Operator) -> None:
    before = {s["name"] for s in snapshots(home)}
    done(home, "k3s", "snapshot", "save", "--name", "hand")
    (name,) = {s["name"] for s in snapshots(home)} - before
    sweep(home, 14, 3, lambda number: ("k3s", "restore", name, "--yes"))


def test_a_rotation_of_the_tokens(home: Operator) -> None:
    sweep(home, 14, 3, lambda number: ("k3s", "rotate-token"))


def snapshots(home: Operator) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = home.fo("k3s", "snapshot", "list", "--json").json["snapshots"]
    return listed
