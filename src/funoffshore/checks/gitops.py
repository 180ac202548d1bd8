"""Flux: its controllers, its sources, and that the cluster runs the commit that the operator sees."""

from __future__ import annotations

from collections.abc import Callable

from funoffshore.checks.base import (
    DEPLOYMENT,
    GIT_REPOSITORY,
    HELM_RELEASE,
    HELM_REPOSITORY,
    KUSTOMIZATION,
    OCI_REPOSITORY,
    Answer,
    Check,
    Object,
    Sight,
    failed,
    judge,
    name_of,
    passed,
    unknown,
    warned,
)
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable

CONTROLLERS = ("source-controller", "kustomize-controller", "helm-controller", "notification-controller")


def controllers(sight: Sight) -> Answer:
    """The four controllers are deployed and available."""
    match sight.list(DEPLOYMENT):
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return failed("there are no Deployments at all")
        case Present(found):
            pass
    ours = {d["metadata"]["name"]: d for d in found if d["metadata"].get("namespace") == "flux-system"}
    missing = [name for name in CONTROLLERS if name not in ours]
    if missing:
        return failed("Flux is not installed completely", *missing, fix="fo bootstrap")
    return judge(Present([ours[name] for name in CONTROLLERS]), "controllers")


def pushed(sight: Sight) -> Answer:
    """What the operator has committed is what Flux's branch holds."""
    match sight.head(), sight.remote_head():
        case Present(here), Present(there):
            if here != there:
                text = f"the repository is at {here[:12]}, {sight.config.git.branch} at {there[:12]}"
                return failed(text, fix="git push (or git pull), then run this again")
        case Unreadable(why), _:
            return unknown(why)
        case _, Unreadable(why):
            return unknown(why)
        case _:
            return failed("the repository or its remote branch has no commit", fix="git commit, git push")
    match sight.world.repo.dirty("infra/k8s"):
        case Present(changed) if changed:
            return warned("infra/k8s has changes that are not committed and so not deployed", *changed)
        case Unreadable(why):
            return unknown(why)
    return passed(f"both are at {here[:12]}")


def sources(sight: Sight) -> Answer:
    """Every source is Ready, and the Git source holds the operator's commit."""
    git = sight.list(GIT_REPOSITORY)
    for reading, things, least in (
        (git, "Git sources", 1),
        (sight.list(OCI_REPOSITORY), "OCI sources", 0),
        (sight.list(HELM_REPOSITORY), "Helm sources", 0),
    ):
        answer = judge(reading, things, at_least=least, fix="fo bootstrap")
        if answer[0] is not Outcome.PASS:
            return answer
    if not isinstance(git, Present):
        return unknown("the Git sources were not listed")
    return _at_commit(sight, git.value, lambda s: str(s.get("status", {}).get("artifact", {}).get("revision", "")))


def kustomizations(sight: Sight) -> Answer:
    """Every Kustomization is Ready, not suspended, and has applied the operator's commit."""
    found = sight.list(KUSTOMIZATION)
    answer = judge(found, "Kustomizations", at_least=1, fix="fo bootstrap")
    if answer[0] is not Outcome.PASS or not isinstance(found, Present):
        return answer
    return _at_commit(sight, found.value, lambda k: str(k.get("status", {}).get("lastAppliedRevision", "")))


def _at_commit(sight: Sight, objects: list[Object], revision: Callable[[Object], str]) -> Answer:
    head: Reading[str] = sight.head()
    if not isinstance(head, Present):
        return unknown(head.why if isinstance(head, Unreadable) else "the repository has no commit")
    wrong = [f"{name_of(o)}: {revision(o) or 'no revision'}" for o in objects if not revision(o).endswith(head.value)]
    if wrong:
        return failed(f"not everything is at {head.value[:12]}", *wrong, fix="wait for Flux, or fo bootstrap")
    return passed(f"all {len(objects)} are ready at {head.value[:12]}")


def releases(sight: Sight) -> Answer:
    """Every HelmRelease is Ready."""
    return judge(sight.list(HELM_RELEASE), "HelmReleases", at_least=1)


def suspended(sight: Sight) -> Answer:
    """Nothing of Flux is suspended."""
    held = []
    for kind in (GIT_REPOSITORY, KUSTOMIZATION, HELM_RELEASE):
        match sight.list(kind):
            case Unreadable(why):
                return unknown(why)
            case Present(objects):
                held += [f"{kind.rsplit('/', 1)[1]} {name_of(o)}" for o in objects if o.get("spec", {}).get("suspend")]
            case Absent():
                return unknown(f"the cluster does not know {kind}")
    return failed("something is suspended, so Git does not rule it", *held) if held else passed("nothing is suspended")


CHECKS = (
    Check("FO-FLUX-001", "Flux's controllers to be available", controllers),
    Check("FO-FLUX-002", "the operator's commit to be what Flux follows", pushed),
    Check("FO-FLUX-003", "every source to be ready at the operator's commit", sources),
    Check("FO-FLUX-004", "every Kustomization to be applied at the operator's commit", kustomizations),
    Check("FO-FLUX-005", "every HelmRelease to be ready", releases),
    Check("FO-FLUX-006", "nothing to be suspended", suspended),
)
