"""``fo status``, ``fo postcheck``, ``fo report``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import errors, journal
from funoffshore import status as statuses
from funoffshore.cli import common
from funoffshore.reading import Present

if TYPE_CHECKING:
    from funoffshore.checks import postcheck as checks
    from funoffshore.config import ClusterConfig
    from funoffshore.world.world import World


def status(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Show what was proven last, the machines' backups among it, whether the gate is open, and how the last run ended.

    Contacts nobody.

    Example: fo status -c home --json
    """
    from funoffshore.cli import gate
    from funoffshore.show import text

    config = common.load(cluster)
    seen = statuses.read(config.state)
    reasons = gate.reasons(config, seen)
    runs = journal.runs(config.state)
    body = {
        "cluster": config.name,
        "stage_1_complete": isinstance(seen, Present) and seen.value.stage_1_complete and not _stage_1(reasons),
        "gate_open": not reasons,
        "reasons": [r.text for r in reasons],
        "vm_backup": text.backup_status(seen.value if isinstance(seen, Present) else None),
        "last_run": text.run_json(runs[-1]) if runs else None,
    }
    if json:
        common.data(body)
    else:
        text.status(body)


def _stage_1(reasons: tuple[object, ...]) -> list[object]:
    """The reasons that speak against Stage 1, those of Stage 2's own marks left out."""
    return [r for r in reasons if getattr(r, "code", "") not in ("stage-2-locked", "mark-signature")]


def postcheck(
    cluster: common.Cluster = None,
    json: common.Json = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the findings as JUnit XML.")] = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long what is still on its way to ready may take.")
    ] = 0.0,
) -> None:
    """Verify all of Stage 1 on the live cluster, and write what was found to status.json.

    Exit code 20 when a check failed, 21 when one could not look.

    Example: fo postcheck -c home --junit out.xml
    """
    from funoffshore import lock

    config = common.load(cluster)
    with lock.hold(config.state, "fo postcheck"), common.world(config) as world:
        prove(world, config, None, json=json, junit=junit, patience=wait)


SETTLING = 300.0
"""Seconds on the cluster's clock that a bootstrap gives to what is still on its way: a node that has just joined gets
the pods of every DaemonSet first."""


def prove(
    world: World,
    config: ClusterConfig,
    folder: Path | None,
    *,
    json: bool = False,
    junit: Path | None = None,
    patience: float = 0.0,
) -> None:
    """Asks every check, seals the findings, shows them, and raises when Stage 1 is not proven.

    ``patience``: seconds to ask again while all that is amiss is on its way to ready.
    """
    from funoffshore.checks import postcheck as checks
    from funoffshore.cli import gate
    from funoffshore.findings import Outcome
    from funoffshore.show import report as reports
    from funoffshore.show import text

    seen = _settled(world, config, patience)
    now = time.time()  # the gate counts real time, whatever clock a lab runs on
    sealed = checks.seal(config, seen, now)
    if junit:
        text.junit(seen.findings, junit, config.name)
    if json:
        common.data({"complete": seen.complete, "findings": [text.finding_json(f) for f in seen.findings]})
    else:
        text.findings(seen.findings, quiet_passes=True)
    if folder is not None:
        closed = gate.reasons(config, Present(sealed))
        common.say(f"report: {reports.write(config, folder, Present(sealed), closed, now)}")
    if seen.outcome is Outcome.FAIL:
        raise errors.CheckFailedError("Stage 1 is not proven: a check failed", fix="see the findings above")
    if not seen.complete:
        raise errors.CheckUnknownError("Stage 1 is not proven: a check could not look", fix="see the findings above")
    common.say(f"{config.name}: Stage 1 is complete at commit {seen.commit[:12]}, {len(seen.findings)} checks passed")


def _settled(world: World, config: ClusterConfig, patience: float) -> checks.Sealable:
    """The last look: asks again, at most for ``patience`` seconds, while all that is amiss is on its way."""
    from funoffshore.checks import postcheck as checks

    seen = checks.look(world, config)
    give_up = world.clock.monotonic() + patience
    while (under_way := checks.under_way(seen.findings)) and world.clock.monotonic() < give_up:
        common.say(f"waiting for {under_way}")
        world.clock.sleep(min(5.0, patience))
        seen = checks.look(world, config)
    return seen


def report(
    cluster: common.Cluster = None,
    run: Annotated[
        str | None, typer.Option(metavar="UTC", help="Run to report on; the last one when not given.")
    ] = None,
) -> None:
    """Write one self-contained HTML file about a run: timeline, topology, checks and gate. Prints its path.

    Example: fo report -c home
    """
    from funoffshore.cli import gate
    from funoffshore.show import report as reports

    config = common.load(cluster)
    folders = journal.runs(config.state)
    if run is not None:
        folders = [f for f in folders if f.name == run]
    if not folders:
        what = f"no run {run}" if run else "no run yet"
        raise errors.ConfigError(f"there is {what} for {config.name}", fix="fo bootstrap, or look into ai/state/runs")
    seen = statuses.read(config.state)
    print(reports.write(config, folders[-1], seen, gate.reasons(config, seen), time.time()))
