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
    from funoffshore.plan import Permits
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


Reboots = Annotated[
    bool, typer.Option("--allow-reboots", help="Restart machines where a change needs it, drained and one at a time.")
]
Replace = Annotated[
    list[str] | None,
    typer.Option(metavar="MACHINE", help="Delete this machine and make it anew. May be given several times."),
]
Remove = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MACHINE",
        help="Drain and delete this machine, which the env file names no more. May be given several times.",
    ),
]


def plan(
    cluster: common.Cluster = None,
    json: common.Json = False,
    allow_reboots: Reboots = False,
    replace: Replace = None,
    remove: Remove = None,
) -> None:
    """Print exactly what a bootstrap would do, with a reason for each line. Changes nothing.

    What is not as desired and needs a permit to be changed is listed as held back.

    Example: fo plan -c home --allow-reboots
    """
    from funoffshore import history, road
    from funoffshore.show import text

    config = common.load(cluster)
    with common.world(config) as world:
        facts = road.look(world, config)
        permits = _permits(config, road.former(config, facts), allow_reboots, replace, remove)
        wanted = road.plan(config, facts, permits=permits)
        found = road.problems(config, facts, permits=permits)
        left = road.held(config, facts, permits=permits)
        notes = road.advice(config, facts)
    if json:
        common.data(
            {"actions": [text.action_json(a) for a in wanted.in_order()], "held": [text.held_json(h) for h in left]}
        )
    else:
        text.plan(wanted, history.durations(config.state))
        text.held(left)
    for note in notes:
        common.say(f"note: {note}")
    if found:
        stop_at(found)


def stop_at(found: list[errors.FoError]) -> None:
    """Tells what a run would stop at, and ends with the exit code of the first."""
    for problem in found:
        common.say("a bootstrap would stop here:")
        common.explain(problem)
    raise typer.Exit(found[0].exit_code)


def bootstrap(
    cluster: common.Cluster = None,
    until: Annotated[Until, typer.Option(help="Stop once this stage is as desired.")] = Until.POSTCHECK,
    allow_reboots: Reboots = False,
    replace: Replace = None,
    remove: Remove = None,
) -> None:
    """Take a Proxmox host to a finished homelab: machines, K3s, Flux, everything in Git, postcheck.

    Safe to run again at any time: it does only what is still to be done. It restarts, replaces or removes no machine
    that is in use unless it is told to, and never in a run that ends before K3s, which could not drain it.

    Example: fo bootstrap -c home
    """
    from funoffshore import lock

    config = common.load(cluster)
    with lock.hold(config.state, "fo bootstrap"), common.world(config) as world:
        permits = _permits(config, None, allow_reboots, replace, remove)
        converge(world, config, until, permits)


def _permits(
    config: ClusterConfig,
    seen: frozenset[str] | None,
    reboots: bool,
    replace: list[str] | None,
    remove: list[str] | None,
) -> Permits:
    """Raises ConfigError for a machine that can be neither replaced nor removed, by that name."""
    from funoffshore.plan import Permits

    known = [node.name for node in config.nodes]
    for name in replace or []:
        if name not in known:
            raise errors.ConfigError(f"--replace: there is no machine {name}", fix=f"one of {', '.join(known)}")
    for name in remove or []:
        if name in known:
            raise errors.ConfigError(
                f"--remove: the env file still names {name}", fix="lower CONTROLLERS or WORKERS first"
            )
        if seen is not None and name not in seen:
            there = ", ".join(sorted(seen)) or "none"
            raise errors.ConfigError(f"--remove: no machine {name} of this cluster is left over", fix=f"left: {there}")
    return Permits(reboots, frozenset(replace or []), frozenset(remove or []))


def converge(world: World, config: ClusterConfig, until: Until, permits: Permits) -> None:
    """One run of the road with its journal and display, and the proof at its end where ``until`` asks for it."""
    from funoffshore import journal, redact, road
    from funoffshore.show import live, text

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
            outcome = road.converge(world, config, log, watcher, stop, stage, watcher.heard, permits)
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
    text.held(outcome.held)
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
