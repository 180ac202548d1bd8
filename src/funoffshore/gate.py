"""The gate before Stage 2: a pure function from evidence, marks and time to the reasons it is closed.

Nothing here reads a file, a clock or a cluster; whoever asks must have looked, and says what was seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from funoffshore import evidence
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.status import Status, Unlock

SKEW = 300.0
"""Seconds a statement may lie in the future before it is not believed."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why the gate is closed, and the command that would clear it."""

    code: str
    text: str
    clear: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What a statement must be about to open the gate."""

    cluster: str
    public_key: str
    """Of the evidence key, 64 hex digits."""
    head: Reading[str]
    """The commit that the operator sees, 40 hex digits."""
    components: Collection[str]
    """IDs of every Stage 1 component that is switched on."""


def reasons_closed(status: Reading[Status], expected: Expected, now: float) -> tuple[Reason, ...]:
    """Every reason, most basic first; ``()`` means open. ``now`` is Unix seconds."""
    postcheck = f"fo postcheck -c {expected.cluster}"
    match status:
        case Absent():
            return (Reason("no-status", "no postcheck has ever been written down", postcheck),)
        case Unreadable(why):
            return (Reason("unreadable", f"the status cannot be read: {why}", postcheck),)
        case Present(seen):
            pass
    if seen.statement is None:
        return (Reason("no-evidence", "Stage 1 is not proven: there is no evidence", postcheck),)
    if not evidence.verify(seen.statement, seen.signature, expected.public_key):
        return (Reason("signature", "the evidence is not signed with this cluster's key", postcheck),)
    reasons = [
        *_subject(seen, seen.statement, expected, postcheck),
        *_time(seen.statement, now, postcheck),
        *_findings(seen.statement, expected, postcheck),
        *_marks(seen, expected),
    ]
    return tuple(reasons)


def digest(statement: evidence.Statement) -> str:
    """What a human's mark is bound to: SHA-256 of the canonical statement, hex."""
    return hashlib.sha256(evidence.canonical(evidence.to_json(statement))).hexdigest()


def _subject(seen: Status, statement: evidence.Statement, expected: Expected, clear: str) -> list[Reason]:
    reasons = []
    if statement.cluster != expected.cluster or seen.cluster != expected.cluster:
        reasons.append(Reason("other-cluster", f"the evidence is about cluster {statement.cluster!r}", clear))
    match expected.head:
        case Present(head) if head != statement.commit:
            text = f"the evidence is for commit {statement.commit[:12]}, and the repository is at {head[:12]}"
            reasons.append(Reason("other-commit", text, f"git push, then {clear}"))
        case Present():
            pass
        case Absent():
            reasons.append(Reason("no-commit", "the repository has no commit", "git commit"))
        case Unreadable(why):
            reasons.append(Reason("no-commit", f"the repository's commit cannot be read: {why}", "git status"))
    return reasons


def _time(statement: evidence.Statement, now: float, clear: str) -> list[Reason]:
    if statement.issued > now + SKEW:
        return [Reason("future", "the evidence claims to be from the future", clear)]
    if not now < min(statement.expires, statement.issued + evidence.LIFETIME):
        hours = (now - statement.issued) / 3600
        return [Reason("expired", f"the evidence is {hours:.0f} hours old and no longer counts", clear)]
    return []


def _findings(statement: evidence.Statement, expected: Expected, clear: str) -> list[Reason]:
    reasons = []
    for finding in statement.findings:
        if finding.outcome in (Outcome.FAIL, Outcome.UNKNOWN):
            kind = "failed" if finding.outcome is Outcome.FAIL else "could not look"
            text = f"{finding.id} {kind} ({finding.title}): {finding.said}"
            reasons.append(Reason(f"check-{finding.outcome.value}", text, clear))
    if not statement.findings:
        reasons.append(Reason("no-findings", "the evidence holds no findings", clear))
    for missing in sorted(set(expected.components) - set(statement.components)):
        reasons.append(Reason("component", f"component {missing} was not looked at", clear))
    return reasons


def _signed(mark: Unlock, expected: Expected) -> bool:
    return evidence.verify_mark(expected.cluster, mark.by, mark.at, mark.digest, mark.signature, expected.public_key)


def _marks(seen: Status, expected: Expected) -> list[Reason]:
    reasons = []
    if not seen.stage_1_complete:
        text = "Stage 1 is not marked complete"
        reasons.append(Reason("stage-1-mark", text, f"fo postcheck -c {expected.cluster}"))
    unlock = f"fo gate unlock -c {expected.cluster}"
    if seen.unlock is None:
        reasons.append(Reason("stage-2-locked", "no human has unlocked Stage 2", unlock))
    elif not _signed(seen.unlock, expected):
        reasons.append(Reason("mark-signature", "the mark that unlocks Stage 2 is not signed by this cluster", unlock))
    return reasons
