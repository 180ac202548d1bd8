"""``fo doctor``, ``fo plan``, ``fo bootstrap``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig
    from funoffshore.world.world import World


class Until(StrEnum):
    """Where a bootstrap may stop."""

    MACHINES = "machines"
    K3S = "k3s"
    FLUX = "flux"
    POSTCHECK = "postcheck"


def doctor(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Look for everything that would stop a bootstrap: env file, tools, Proxmox, privileges, addresses, Git.

    Changes nothing.

    Example: fo doctor -c home
    """
    from funoffshore import doctor as doctors
    from funoffshore.findings import Outcome, worst
    from funoffshore.show import text

    config = common.load(cluster)
    with common.world(config) as world:
        findings = doctors.examine(world, config)
    if json:
        common.data({"findings": [text.finding_json(f) for f in findings]})
    else:
        text.findings(findings)
    if worst(findings) is Outcome.FAIL:
        raise errors.PreflightError("something stands in the way of a bootstrap", fix="see the findings above")
    if worst(findings) is Outcome.UNKNOWN:
        raise errors.UnreachableError("something could not be looked at", fix="see the findings above")


def plan(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Print exactly what a bootstrap would do, with a reason for each line. Changes nothing.

    Example: fo plan -c home --json
    """
    from funoffshore import road
    from funoffshore.show import text

    config = common.load(cluster)
    with common.world(config) as world:
        facts = road.look(world, config)
        wanted = road.plan(config, facts)
        found = road.problems(config, facts)
    if json:
        common.data({"actions": [text.action_json(a) for a in wanted.in_order()]})
    else:
        text.plan(wanted)
    for problem in found:
        common.say("a bootstrap would stop here:")
        common.explain(problem)
    if found:
        raise typer.Exit(found[0].exit_code)


def bootstrap(
    cluster: common.Cluster = None,
    until: Annotated[Until, typer.Option(help="Stop once this stage is as desired.")] = Until.POSTCHECK,
) -> None:
    """Take a Proxmox host to a finished homelab: machines, K3s, Flux, everything in Git, postcheck.

    Safe to run again at any time: it does only what is still to be done.

    Example: fo bootstrap -c home
    """
    from funoffshore import lock

    config = common.load(cluster)
    with lock.hold(config.state, "fo bootstrap"), common.world(config) as world:
        _bootstrap(world, config, until)


def _bootstrap(world: World, config: ClusterConfig, until: Until) -> None:
    from funoffshore import journal, redact, road
    from funoffshore.show import live

    log = journal.Journal.begin(
        config.state,
        world.clock.now,
        redact.Redactor(redact.secrets_of(config)),
        cluster=config.name,
        until=until.value,
    )
    stage = "flux" if until is Until.POSTCHECK else until.value
    try:
        with _interruptible() as stop, live.watch(config, world.clock) as watcher:
            outcome = road.converge(world, config, log, watcher, stop, stage, watcher.heard)
        log.write("end", "", sync=True, outcome="done", actions=outcome.actions)
    except BaseException as why:
        log.write("end", "", sync=True, outcome="failed", error=f"{type(why).__name__}: {why}")
        common.say(f"what was done is in {log.folder}; fo report -c {config.name} shows it")
        raise
    finally:
        log.close()
    if outcome.actions == 0:
        common.say(f"{config.name}: nothing to do, everything is as desired")
    else:
        common.say(
            f"{config.name}: {outcome.actions} changes in {outcome.seconds:.0f} s, and a fresh look plans nothing"
        )
    if until is Until.POSTCHECK:
        from funoffshore.cli import proof

        proof.prove(world, config, log.folder, patience=proof.SETTLING)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; a second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def hear(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        common.say("stopping at the next safe point; Ctrl-C again to stop at once (both can be resumed)")

    before = {s: signal.signal(s, hear) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
