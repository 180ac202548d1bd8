"""Everything that runs: system workloads, workloads, volumes, certificates."""

from __future__ import annotations

from funoffshore.checks.base import (
    CERTIFICATE,
    CLUSTER_ISSUER,
    DAEMON_SET,
    DEPLOYMENT,
    ISSUER,
    JOB,
    PVC,
    STATEFUL_SET,
    Answer,
    Check,
    Object,
    Sight,
    failed,
    judge,
    passed,
    unknown,
)
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable

SYSTEM = ("coredns",)
"""Workloads of kube-system without which nothing else works, whatever is disabled in K3s."""


def _within(reading: Reading[list[Object]], namespace: str) -> Reading[list[Object]]:
    if isinstance(reading, Present):
        return Present([o for o in reading.value if o["metadata"].get("namespace") == namespace])
    return reading


def system(sight: Sight) -> Answer:
    """K3s' own workloads run."""
    deployments = _within(sight.list(DEPLOYMENT), "kube-system")
    if isinstance(deployments, Present):
        there = {d["metadata"]["name"] for d in deployments.value}
        if missing := [name for name in SYSTEM if name not in there]:
            return failed("a system workload is missing", *missing)
    answer = judge(deployments, "system Deployments", at_least=len(SYSTEM))
    return (
        answer
        if answer[0] is not Outcome.PASS
        else judge(_within(sight.list(DAEMON_SET), "kube-system"), "system DaemonSets")
    )


def deployments(sight: Sight) -> Answer:
    return judge(sight.list(DEPLOYMENT), "Deployments", at_least=1)


def stateful_sets(sight: Sight) -> Answer:
    return judge(sight.list(STATEFUL_SET), "StatefulSets")


def daemon_sets(sight: Sight) -> Answer:
    return judge(sight.list(DAEMON_SET), "DaemonSets")


def jobs(sight: Sight) -> Answer:
    return judge(sight.list(JOB), "Jobs")


def volumes(sight: Sight) -> Answer:
    """Every claim that something uses is Bound; a claim waiting for its first pod is no fault, but is told."""
    return judge(sight.list(PVC), "PersistentVolumeClaims")


def certificates(sight: Sight) -> Answer:
    """There are certificates, and each is valid."""
    match sight.list(CERTIFICATE):
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return failed("the cluster does not know certificates: cert-manager is not there")
        case Present(found):
            return judge(Present(found), "Certificates", at_least=1)


def issuers(sight: Sight) -> Answer:
    """Every issuer is registered with its authority."""
    answer = judge(sight.list(CLUSTER_ISSUER), "ClusterIssuers", at_least=1)
    if answer[0] is not Outcome.PASS:
        return answer
    others = judge(sight.list(ISSUER), "Issuers")
    return others if others[0] is not Outcome.PASS else passed(answer[1])


CHECKS = (
    Check("FO-SYS-001", "K3s' system workloads to be ready", system),
    Check("FO-WORK-001", "every Deployment to be available", deployments),
    Check("FO-WORK-002", "every StatefulSet to be ready", stateful_sets),
    Check("FO-WORK-003", "every DaemonSet to be on every node", daemon_sets),
    Check("FO-WORK-004", "every Job to have succeeded", jobs),
    Check("FO-PVC-001", "every volume claim to be bound", volumes),
    Check("FO-CERT-001", "every certificate to be valid", certificates),
    Check("FO-CERT-002", "every issuer to be ready", issuers),
)
