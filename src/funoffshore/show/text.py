"""Plain text, JSON and JUnit forms of plans, findings and status. Data goes to stdout."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from funoffshore import atomic, errors, journal
from funoffshore.findings import Finding, Outcome
from funoffshore.plan import Action, Plan

SIGNS = {Outcome.PASS: "✔", Outcome.WARN: "!", Outcome.FAIL: "✘", Outcome.UNKNOWN: "?"}


def action_json(action: Action) -> dict[str, Any]:
    """Stable: fields are added, never renamed."""
    return {
        "verb": action.verb.value, "key": action.key, "reason": action.reason, "after": sorted(action.after),
        "lane": action.lane, "stage": action.stage, "on": action.on,
    }  # fmt: skip


def finding_json(finding: Finding) -> dict[str, Any]:
    """Stable: fields are added, never renamed."""
    return {
        "id": finding.id, "title": finding.title, "outcome": finding.outcome.value, "said": finding.said,
        "evidence": list(finding.evidence), "fix": finding.fix,
    }  # fmt: skip


def plan(wanted: Plan) -> None:
    """Every action as a sentence with its reason, stage by stage, predecessors first."""
    if not wanted:
        print("nothing to do, everything is as desired")
        return
    width = max(len(a.key) for a in wanted.actions.values())
    for stage in ("machines", "k3s", "flux"):
        ours = [a for a in wanted.in_order() if a.stage == stage]
        if ours:
            print(f"{stage}:")
        for action in ours:
            print(f"  {action.verb.value:8} {action.key:{width}}  because {action.reason}")
    print(f"{len(wanted.actions)} actions")


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
    last = body["last_run"]
    if last:
        print(f"last run {last['run']}: {last['outcome']}, {last.get('actions_done', 0)} actions")
        if last.get("error"):
            print(f"           {last['error']}")


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
