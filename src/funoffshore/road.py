"""The road: look, plan, run, look again, until a fresh look plans nothing. No exit code is believed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from funoffshore import errors, journal, run
from funoffshore.config import ClusterConfig
from funoffshore.plan import NONE, Action, Held, Permits, Plan, Verb
from funoffshore.reading import Absent, Reading, Unreadable
from funoffshore.stages import flux, k3s, machines
from funoffshore.world.ssh import HostFacts
from funoffshore.world.world import World

ROUNDS = 12
"""Looks before a run gives up on a world that keeps changing its mind. Two are usual: one to act, one to believe."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one look at every door showed."""

    machines: machines.MachineFacts
    hosts: Mapping[str, Reading[HostFacts]]
    k3s: k3s.K3sFacts
    flux: flux.FluxFacts
    begun: tuple[errors.FoError, ...] = ()
    """What other commands have begun with K3s and not ended, so that nothing else may touch it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended that ended well."""

    actions: int
    """Changes that were made; waits do not count."""
    rounds: int
    seconds: float
    """On the cluster's clock."""
    held: tuple[Held, ...] = ()
    """What is not as desired and was not allowed."""


def look(world: World, config: ClusterConfig, *, thorough: bool = True) -> Facts:
    """Reads every door once. Never changes anything. ``thorough`` as in ``machines.observe``."""
    seen = machines.observe(world, config.of_made(), thorough=thorough) if config.made else machines.MachineFacts()
    alive = [n for n in config.nodes if not n.made or machines.is_running(seen, n.name)]
    hosts = {n.name: _unseen(seen.machine(n.name)) for n in config.made}
    hosts |= world.hosts.observe_all(alive, k3s.look_of(config))
    k3s_facts = k3s.observe(world, config, hosts)
    # None: some controller could not be read, and that is not taken for empty
    exists = k3s.cluster_exists(config, k3s_facts) is not False
    return Facts(seen, hosts, k3s_facts, flux.observe(world, config, exists), k3s.begun(config))


def _unseen(machine: Reading[machines.Machine]) -> Reading[HostFacts]:
    """What is known of a host that nobody can ask: that it is absent only where its machine is."""
    match machine:
        case Absent():
            return Absent()
        case Unreadable(why):
            return Unreadable(f"whether its machine exists cannot be told: {why}")
        case _:
            return Unreadable("its machine is off")


def plan(config: ClusterConfig, facts: Facts, until: str = "flux", permits: Permits = NONE) -> Plan:
    """One graph over the whole chain, as far as ``until`` (``machines``, ``k3s``, ``flux``)."""
    permits = _permitted(config, facts, until, permits)
    first = _machines(config, facts, permits)
    actions = [
        *first,
        *k3s.plan(config, facts.k3s, permits, *_going(config, facts, first, permits)),
        *flux.plan(config, facts.flux),
    ]
    return Plan.of(actions).until(until)


def _machines(config: ClusterConfig, facts: Facts, permits: Permits) -> list[Action]:
    return machines.plan(config.of_made(), facts.machines, facts.hosts, permits) if config.made else []


def held(config: ClusterConfig, facts: Facts, until: str = "flux", permits: Permits = NONE) -> list[Held]:
    """What ``plan`` leaves out because the operator has not allowed it."""
    permits = _permitted(config, facts, until, permits)
    made = machines.held(config.of_made(), facts.machines, permits) if config.made else []
    return [*made, *(k3s.held(config, facts.k3s, permits) if until != "machines" else [])]


def advice(config: ClusterConfig, facts: Facts) -> list[str]:
    """What stops no plan, and should be known before it runs."""
    return [sentence for _, sentence in machines.advice(config.of_made(), facts.machines)] if config.made else []


def problems(config: ClusterConfig, facts: Facts, until: str = "flux", permits: Permits = NONE) -> list[errors.FoError]:
    """What stands in the way before anything may be changed; empty when nothing does."""
    permits = _permitted(config, facts, until, permits)
    found = list(facts.begun) if until != "machines" else []
    found += machines.problems(config.of_made(), facts.machines, permits) if config.made else []
    if not found:
        going = _going(config, facts, _machines(config, facts, permits), permits)
        found += k3s.problems(config, facts.k3s, permits, *going)
    return found + flux.problems(config, facts.flux) if until == "flux" else found


def _permitted(config: ClusterConfig, facts: Facts, until: str, permits: Permits) -> Permits:
    """A plan that ends before K3s cannot drain a node, so it takes none away."""
    return NONE if until == "machines" and k3s.cluster_exists(config, facts.k3s) is not False else permits


def _going(config: ClusterConfig, facts: Facts, actions: list[Action], permits: Permits) -> tuple[list[str], list[str]]:
    """Names of the machines that these actions restart, and of the nodes that leave the cluster."""
    restarting = [a.on for a in actions if a.key.startswith("restart/")]
    return restarting, [*(a.on for a in actions if _ends(a)), *k3s.leaving_hosts(config, facts.k3s, permits)]


def apply(world: World, config: ClusterConfig, action: Action, step: run.Step, permits: Permits = NONE) -> None:
    """Performs one action of whatever stage."""
    if action.stage == "machines" and not action.key.startswith("trust/"):
        machines.apply(world, config.of_made(), action, step)
    elif action.stage in ("machines", "k3s"):
        k3s.apply(world, config, action, step, permits)
    else:
        flux.apply(world, config, action, step)


def converge(
    world: World,
    config: ClusterConfig,
    log: journal.Journal,
    events: run.Events,
    stop: threading.Event,
    until: str = "flux",
    heard: Callable[[str], None] = lambda sentence: None,
    permits: Permits = NONE,
) -> Outcome:
    """Runs until a fresh look plans nothing that ``permits`` allow. Raises what an action raised first, a problem found
    before anything was changed, or StillPlannedError for an action that ended well and is planned again unchanged."""
    start = world.clock.monotonic()
    earlier = journal.unfinished(config.state)
    applied: Counter[tuple[str, str, str]] = Counter()
    changes = 0
    for round_ in range(1, ROUNDS + 1):
        heard("looking at what is there" if round_ == 1 else "looking again, to be sure")
        facts = look(world, config, thorough=bool(permits))
        if found := problems(config, facts, until, permits):
            raise _joined(found)
        if round_ == 1:
            _tell_unknown(config, permits, facts, heard)
        wanted = plan(config, facts, until, permits)
        if not wanted:
            left = tuple(held(config, facts, until, permits))
            return Outcome(changes, round_, world.clock.monotonic() - start, left)
        _refuse_repeats(wanted, applied)
        act = partial(apply, world, config, permits=permits)
        run.execute(wanted, act, log, events, stop, earlier, run.capacity(config))
        applied.update((a.verb.value, a.key, a.reason) for a in wanted.actions.values())
        changes += sum(a.verb is not Verb.WAIT for a in wanted.actions.values())
        earlier = {}
        # Made anew once and no more, however the next look may find it.
        anew = {action.on for action in wanted.actions.values() if _ends(action) or _begins(action)}
        permits = replace(permits, replace=permits.replace - anew)
    raise errors.StillPlannedError(
        f"after {ROUNDS} rounds something is still to be done: {next(iter(wanted.actions.values()))}",
        fix="look at what else changes this cluster",
    )


def former(config: ClusterConfig, facts: Facts) -> frozenset[str]:
    """Machines and nodes of this cluster that the env file names no more."""
    return frozenset({*facts.machines.former, *k3s.former(config, facts.k3s)})


def _tell_unknown(config: ClusterConfig, permits: Permits, facts: Facts, heard: Callable[[str], None]) -> None:
    """A name may be misspelt, or its machine gone since the last attempt; the operator knows which."""
    for name in sorted(permits.remove - former(config, facts)):
        heard(f"there is no machine {name} left to remove")


def _ends(action: Action) -> bool:
    return action.verb is Verb.DELETE and action.key.startswith(("machine/", "wipe/"))


def _begins(action: Action) -> bool:
    """What was lost altogether is made anew without being deleted first."""
    return action.verb is Verb.CREATE and action.key.startswith(("machine/", "k3s/"))


def _refuse_repeats(wanted: Plan, applied: Counter[tuple[str, str, str]]) -> None:
    for action in wanted.in_order():
        times = applied[(action.verb.value, action.key, action.reason)]
        if times >= (3 if action.verb is Verb.WAIT else 1):
            raise errors.StillPlannedError(
                f"{action.key} was done and ended well, and a fresh look still says: {action}",
                fix="run fo status and look at the journal of this run",
            )


def _joined(found: list[errors.FoError]) -> errors.FoError:
    """The first problem, with the others as evidence, so that all can be mended in one go."""
    first, *others = found
    if others:
        first.evidence = (*first.evidence, *(f"also: {o.message}" + (f" ({o.fix})" if o.fix else "") for o in others))
    return first
