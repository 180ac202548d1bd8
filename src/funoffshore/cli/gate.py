"""``fo gate``: whether Stage 2 may run, every reason why not, and the human's own mark."""

from __future__ import annotations

import getpass
import socket
import sys
import time
from typing import TYPE_CHECKING

import typer

from funoffshore import errors, evidence
from funoffshore import gate as gates
from funoffshore import status as statuses
from funoffshore.cli import common
from funoffshore.reading import Present, Reading

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig

app = typer.Typer(help="The gate before Stage 2. Example: fo gate show -c home", no_args_is_help=True)


def reasons(config: ClusterConfig, seen: Reading[statuses.Status]) -> tuple[gates.Reason, ...]:
    """Every reason why the gate of ``config``'s cluster is closed now."""
    from funoffshore.checks import wanted
    from funoffshore.world.git import Repo

    expected = gates.Expected(
        cluster=config.name,
        public_key=evidence.public(config.evidence_key.get_secret_value()),
        head=Repo(config).head(),
        components=wanted.components(config),
    )
    return gates.reasons_closed(seen, expected, time.time())


@app.command()
def show(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Say whether the gate is open, or every reason it is closed and the command that would clear it.

    Example: fo gate show -c home --json
    """
    config = common.load(cluster)
    closed = reasons(config, statuses.read(config.state))
    if json:
        body = [{"code": r.code, "text": r.text, "clear": r.clear} for r in closed]
        common.data({"open": not closed, "reasons": body})
        return
    count = "1 reason" if len(closed) == 1 else f"{len(closed)} reasons"
    print(f"the gate is closed, for {count}" if closed else "the gate is open")
    for reason in closed:
        print(f"  {reason.text}\n    clear it with: {reason.clear}")


@app.command()
def unlock(cluster: common.Cluster = None) -> None:
    """Set the human's mark that Stage 2 may run. Shows the evidence and asks for the cluster's name.

    Needs a terminal: no script and no persona can do it.

    Example: fo gate unlock -c home
    """
    config = common.load(cluster)
    seen = statuses.read(config.state)
    blocking = [r for r in reasons(config, seen) if r.code not in ("stage-2-locked", "mark-signature")]
    if blocking or not isinstance(seen, Present) or seen.value.statement is None:
        raise errors.GateClosedError(
            "Stage 2 cannot be unlocked while Stage 1 is not proven",
            fix=blocking[0].clear if blocking else f"fo postcheck -c {config.name}",
            evidence=tuple(r.text for r in blocking),
        )
    if not sys.stdin.isatty():
        raise errors.ConfigError("unlocking Stage 2 is a human's act", fix="run fo gate unlock in a terminal")
    statement = seen.value.statement
    common.say(f"cluster {statement.cluster}, commit {statement.commit[:12]}, {len(statement.findings)} findings:")
    for finding in statement.findings:
        common.say(f"  {finding.outcome.value:8}{finding.id}  {finding.said}")
    if input("type the cluster's name to unlock Stage 2: ") != config.name:
        raise errors.ConfigError("that is not the cluster's name; nothing was changed")
    by, at, digest = f"{getpass.getuser()}@{socket.gethostname()}", time.time(), gates.digest(statement)
    signature = evidence.sign_mark(config.name, by, at, digest, config.evidence_key.get_secret_value())
    _mark(config, seen.value, statuses.Unlock(by, at, digest, signature))
    common.say("Stage 2 is unlocked")


@app.command()
def lock(cluster: common.Cluster = None) -> None:
    """Take the human's mark back: Stage 2 is locked from now on.

    Example: fo gate lock -c home
    """
    config = common.load(cluster)
    seen = statuses.read(config.state)
    if isinstance(seen, Present) and seen.value.unlock is not None:
        _mark(config, seen.value, None)
    common.say("Stage 2 is locked")


def _mark(config: ClusterConfig, seen: statuses.Status, mark: statuses.Unlock | None) -> None:
    statuses.write(
        config.state, statuses.Status(seen.cluster, seen.stage_1_complete, seen.statement, seen.signature, mark)
    )
