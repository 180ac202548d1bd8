"""What every command needs: which cluster, which world, and where talk and data go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from funoffshore import config, errors

if TYPE_CHECKING:
    from funoffshore.world.world import World

Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", "-c", envvar="FO_CLUSTER", metavar="NAME",
        help="Cluster to work on; the only env file in config/env when not given.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout, for programs.")]


def say(text: str) -> None:
    """Talk: to stderr, so that stdout stays data."""
    print(text, file=sys.stderr)


class Said:
    """What a single action tells while no plan runs: to stderr, and Ctrl-C ends it as it ends any program."""

    def say(self, sentence: str) -> None:
        say(sentence)

    def record(self, **ids: str) -> None: ...

    def recorded(self, name: str) -> str | None:
        return None

    def checkpoint(self) -> None: ...


def data(body: Any) -> None:
    """Data: JSON on stdout."""
    print(json.dumps(body, indent=2, ensure_ascii=False))


def root() -> Path:
    """The operator's repository: the nearest folder above that holds ``config/env``, else the current one."""
    return config.root(Path.cwd())


def load(name: str | None) -> config.ClusterConfig:
    """The cluster's config. A lab that has no env file yet gets one, for a lab has nothing to ask a human."""
    here = root()
    if name == "lab" and not (here / "config" / "env" / "lab.env").exists():
        from funoffshore.cli import new

        say(f"made {new.make_lab(here, 'lab')} for the embedded lab")
    return config.load(config.find(here, name, os.environ), root=here)


def cache() -> Path:
    """Where verified downloads are kept between runs (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "funoffshore"


def download(url: str) -> bytes:
    """The body at a public URL. Raises FoError."""
    from funoffshore.world.download import Downloads

    return Downloads(cache()).get(url)


@contextmanager
def world(cluster: config.ClusterConfig) -> Iterator[World]:
    """The doors of a cluster, open while the body runs; a lab's homelab runs as long, unless it is served elsewhere."""
    from contextlib import ExitStack

    from funoffshore.clock import Clock, WallClock

    with ExitStack() as stack:
        clock: Clock = WallClock()
        if cluster.lab:
            from funoffshore.lab import lab

            clock = stack.enter_context(lab.running(cluster))
        from funoffshore.world.world import open_world

        doors = open_world(cluster, clock, cache())
        stack.callback(doors.close)
        yield doors


def explain(error: errors.FoError) -> None:
    """One clear message on stderr: what, evidence, what to do."""
    say(f"fo: {error.message}")
    for line in error.evidence[:40]:
        say(f"    {line}")
    if len(error.evidence) > 40:
        say(f"    … and {len(error.evidence) - 40} more lines")
    if error.fix:
        say(f"  → {error.fix}")
