"""One run of a command with a journal of its own, in which several plans may be carried out one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from funoffshore.cli import common
from funoffshore.cli.cluster import _interruptible

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig
    from funoffshore.plan import Action, Plan
    from funoffshore.run import Step
    from funoffshore.world.world import World

    Apply = Callable[[World, ClusterConfig, Action, Step], None]
    Carry = Callable[..., None]


@contextmanager
def journaled(world: World, config: ClusterConfig, what: str, attempt: str = "") -> Iterator[Carry]:
    """Begins a run about ``what`` and gives what carries out a plan in it: ``carry(plan, apply, earlier)``. ``attempt``
    tells runs that go on with each other from those that do not.

    ``earlier``: by action key, what a stopped run recorded. The run has ended well when the body has; Ctrl-C stops it
    at the next safe point.
    """
    from funoffshore import journal, redact, run
    from funoffshore.show import live

    redactor = redact.Redactor(redact.secrets_of(config))
    about = {"cluster": config.name, "until": what, **({"attempt": attempt} if attempt else {})}
    log = journal.Journal.begin(config.state, world.clock.now, redactor, **about)
    count = 0
    try:
        with _interruptible() as stop, live.watch(config, world.clock) as watcher:

            def carry(wanted: Plan, apply: Apply, earlier: Mapping[str, Mapping[str, str]] | None = None) -> None:
                nonlocal count
                run.execute(
                    wanted, lambda action, step: apply(world, config, action, step), log, watcher, stop, earlier or {},
                    run.capacity(config),
                )  # fmt: skip
                count += len(wanted.actions)

            yield carry
        log.write("end", "", sync=True, outcome="done", actions=count)
    except BaseException as why:
        log.write("end", "", sync=True, outcome="failed", error=f"{type(why).__name__}: {why}")
        common.say(f"what was done is in {log.folder}; the same command goes on from there")
        raise
    finally:
        log.close()
