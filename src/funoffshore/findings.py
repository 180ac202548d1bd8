"""What a check found. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Unknown is not a kind of pass: it closes the gate like a failure does."""

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one check."""

    id: str
    """``FO-K3S-003``; stable, never reused."""
    title: str
    """Completes "waiting for …"."""
    outcome: Outcome
    said: str
    """What was seen, one line."""
    evidence: tuple[str, ...] = ()
    fix: str = ""
    """What the operator can do about it; empty when nothing is wrong."""


def worst(findings: tuple[Finding, ...]) -> Outcome:
    """FAIL before UNKNOWN before WARN before PASS. No finding at all is UNKNOWN."""
    for outcome in (Outcome.FAIL, Outcome.UNKNOWN, Outcome.WARN):
        if any(f.outcome is outcome for f in findings):
            return outcome
    return Outcome.PASS if findings else Outcome.UNKNOWN
