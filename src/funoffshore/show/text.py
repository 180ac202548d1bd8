"""Plain text, JSON and JUnit forms of plans, findings and status. Data goes to stdout."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funoffshore import atomic, errors, journal
from funoffshore.findings import Finding, Outcome, worst
from funoffshore.plan import Action, Plan
from funoffshore.reading import Absent, Present, Unreadable

if TYPE_CHECKING:
    from funoffshore.config import ClusterConfig
    from funoffshore.plan import Held
    from funoffshore.stages.machines.backups import Stored
    from funoffshore.status import Status

SIGNS = {Outcome.PASS: "✔", Outcome.WARN: "!", Outcome.FAIL: "✘", Outcome.UNKNOWN: "?"}


def action_json(action: Action) -> dict[str, Any]:
    """Stable: fields are added, never renamed."""
    return {
        "verb": action.verb.value, "key": action.key, "reason": action.reason, "after": sorted(action.after),
        "lane": action.lane, "stage": action.stage, "on": action.on, "values": dict(action.values),
    }  # fmt: skip


def held_json(left: Held) -> dict[str, Any]:
    """Stable: fields are added, never renamed."""
    return {"key": left.key, "reason": left.reason, "permit": left.permit}


def finding_json(finding: Finding) -> dict[str, Any]:
    """Stable: fields are added, never renamed."""
    return {
        "id": finding.id, "title": finding.title, "outcome": finding.outcome.value, "said": finding.said,
        "evidence": list(finding.evidence), "fix": finding.fix,
    }  # fmt: skip


def plan(wanted: Plan, durations: Mapping[str, float] | None = None) -> None:
    """Every action as a sentence with its reason, stage by stage, predecessors first; with how long it took last
    time where ``durations`` (seconds by verb and key) knows."""
    if not wanted:
        print("nothing to do, everything is as desired")
        return
    width = max(len(a.key) for a in wanted.actions.values())
    for stage in ("machines", "k3s", "flux"):
        ours = [a for a in wanted.in_order() if a.stage == stage]
        if ours:
            print(f"{stage}:")
        for action in ours:
            took = (durations or {}).get(f"{action.verb.value} {action.key}")
            last = "" if took is None else f"  ({took:.0f} s last time)"
            print(f"  {action.verb.value:8} {action.key:{width}}  because {action.reason}{last}")
    print(f"{len(wanted.actions)} actions")


def held(left: Iterable[Held]) -> None:
    """What is not as desired and waits for the operator's word."""
    left = list(left)
    if left:
        print("held back:")
    for one in left:
        print(f"  {one.key}, because {one.reason}" + (f"  → {one.permit}" if one.permit else ""))


def findings(found: Iterable[Finding], *, quiet_passes: bool = False) -> None:
    """A line for each finding, evidence and fix below it. ``quiet_passes`` only counts what passed."""
    found = list(found)
    for finding in found:
        if quiet_passes and finding.outcome is Outcome.PASS:
            continue
        print(f"{SIGNS[finding.outcome]} {finding.id:12} {finding.title}: {finding.said}")
        for line in finding.evidence[:10]:
            print(f"      {line}")
        if finding.fix:
            print(f"    → {finding.fix}")
    counts = {o: sum(f.outcome is o for f in found) for o in Outcome}
    print(", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count))


def run_json(folder: Path) -> dict[str, Any]:
    """How a run began and ended, from its journal."""
    try:
        entries = list(journal.read(folder))
    except errors.StateError as why:
        return {"run": folder.name, "outcome": "unreadable", "error": str(why)}
    end = next((e for e in reversed(entries) if e.event == "end"), None)
    return {
        "run": folder.name,
        "outcome": end.data.get("outcome", "unknown") if end else "cut off",
        "error": end.data.get("error") if end else None,
        "until": entries[0].data.get("until") if entries else None,
        "actions_done": sum(e.event == "done" for e in entries),
        "seconds": round(entries[-1].at - entries[0].at, 1) if entries else 0,
    }


def status(body: dict[str, Any]) -> None:
    """The status of one cluster, for a human."""
    print(f"cluster  {body['cluster']}")
    print(f"stage 1  {'complete' if body['stage_1_complete'] else 'not proven'}")
    print(f"gate     {'open' if body['gate_open'] else 'closed'}")
    for reason in body["reasons"][:8]:
        print(f"           {reason}")
    if len(body["reasons"]) > 8:
        print(f"           … and {len(body['reasons']) - 8} more (fo gate show)")
    backup = body["vm_backup"]
    if backup:
        print(f"backups  {backup['said']} ({backup['outcome']}, seen {backup['seen']})")
    last = body["last_run"]
    if last:
        print(f"last run {last['run']}: {last['outcome']}, {last.get('actions_done', 0)} actions")
        if last.get("error"):
            print(f"           {last['error']}")


def backup_status(seen: Status | None) -> dict[str, Any] | None:
    """What the last postcheck saw of the machines' backups, the worst of it; None when it never looked."""
    statement = seen.statement if seen else None
    found = [f for f in statement.findings if f.id.startswith("FO-BAK-")] if statement else []
    if statement is None or not found:
        return None
    last = next((f for f in found if f.id == "FO-BAK-002"), found[0])
    outcome = worst(tuple(found))
    said = last.said if last.outcome is outcome else next(f.said for f in found if f.outcome is outcome)
    return {"outcome": outcome.value, "said": said, "last": last.said, "seen": moment(statement.issued)}


def moment(at: float) -> str:
    """``2027-01-15 08:00 UTC``; a word for what is no time."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


def backups_json(config: ClusterConfig, found: Stored) -> dict[str, Any]:
    """Stable: fields are added, never renamed. ``backups`` is null where it cannot be told."""
    machines: list[dict[str, Any]] = []
    for name in _machines(config, found):
        reading = found.of(name)
        rows = reading.value if isinstance(reading, Present) else ()
        known = [
            {
                "volume": one.backup.volid, "vmid": one.backup.vmid, "at": one.backup.at, "size": one.backup.size,
                "protected": one.backup.protected, "verified": one.backup.verified or None, "on": one.hypervisor,
            }
            for one in rows
        ]  # fmt: skip
        machines.append({"name": name, "backups": None if isinstance(reading, Unreadable) else known})
    return {"storage": found.storage, "machines": machines, "unread": list(found.unread), "others": found.others}


def _machines(config: ClusterConfig, found: Stored) -> list[str]:
    """Those of the env file in its order, then those it no longer names."""
    named = [node.name for node in config.nodes]
    return named + sorted(found.saved.keys() - set(named))


def backups(config: ClusterConfig, found: Stored) -> None:
    """A line for each backup, machine by machine, newest first; a word where there is none or nobody can tell."""
    width = max(map(len, _machines(config, found)))
    for name in _machines(config, found):
        match found.of(name):
            case Present(rows):
                for at, one in enumerate(rows):
                    marks = [f"verified: {one.backup.verified}"] if one.backup.verified else []
                    marks += ["protected"] if one.backup.protected else []
                    line = f"{moment(one.backup.at)}  {size(one.backup.size):>9}  {one.backup.volid}"
                    print(f"{'' if at else name:{width}}  {line}  {', '.join(marks)}".rstrip())
            case Unreadable(why):
                print(f"{name:{width}}  cannot tell, because {why}")
            case Absent():
                print(f"{name:{width}}  no backup")
    if found.others:
        print(f"{found.others} further backups carry the VMID of one of these and are not of this cluster's job")


def size(count: int) -> str:
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} B"


def junit(found: Iterable[Finding], path: Path, cluster: str) -> None:
    """Writes the findings as JUnit XML: fail is a failure, unknown an error, warn a pass with output.

    Raises ConfigError when the file cannot be written.
    """
    found = list(found)
    suite = ET.Element(
        "testsuite", name=f"fo postcheck {cluster}", tests=str(len(found)),
        failures=str(sum(f.outcome is Outcome.FAIL for f in found)),
        errors=str(sum(f.outcome is Outcome.UNKNOWN for f in found)),
    )  # fmt: skip
    for finding in found:
        case = ET.SubElement(
            suite, "testcase", classname=finding.id.rsplit("-", 1)[0], name=f"{finding.id} {finding.title}"
        )
        body = "\n".join((finding.said, *finding.evidence, *((f"fix: {finding.fix}",) if finding.fix else ())))
        tag = {Outcome.FAIL: "failure", Outcome.UNKNOWN: "error"}.get(finding.outcome)
        if tag:
            ET.SubElement(case, tag, message=finding.said).text = body
        elif finding.outcome is Outcome.WARN:
            ET.SubElement(case, "system-out").text = body
    ET.indent(suite)
    try:
        atomic.write(path, ET.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n", mode=0o644)
    except OSError as why:
        raise errors.ConfigError(
            f"cannot write {path}: {why.strerror}", fix="give --junit a file in a folder that exists"
        ) from why
