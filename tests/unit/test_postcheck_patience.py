"""What a bootstrap's postcheck waits for: all that is amiss must be on its way."""

from __future__ import annotations

import pytest

from funoffshore.checks import postcheck
from funoffshore.findings import Finding, Outcome

MOVING = "monitoring/node-exporter: progressing: Rollout 5 of 6 pods are ready"
FAILED = "media/jellyfin: failed: ProgressDeadlineExceeded it has timed out"


def finding(outcome: Outcome, *evidence: str) -> Finding:
    return Finding("FO-WORK-003", "every DaemonSet to be on every node", outcome, "said", evidence)


FINE = finding(Outcome.PASS)


def test_a_rollout_under_way_is_waited_for() -> None:
    said = postcheck.under_way((FINE, finding(Outcome.FAIL, MOVING)))
    assert said == f"every DaemonSet to be on every node: {MOVING}"


@pytest.mark.parametrize(
    "findings",
    [
        (),
        (FINE,),
        (FINE, finding(Outcome.WARN, MOVING)),
        (finding(Outcome.FAIL),),
        (finding(Outcome.FAIL, FAILED),),
        (finding(Outcome.FAIL, MOVING, FAILED),),
        (finding(Outcome.FAIL, MOVING), finding(Outcome.FAIL, FAILED)),
        (finding(Outcome.FAIL, MOVING), finding(Outcome.UNKNOWN)),
    ],
)
def test_nothing_else_is(findings: tuple[Finding, ...]) -> None:
    assert postcheck.under_way(findings) == ""
