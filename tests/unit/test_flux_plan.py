"""The plan of the Flux stage, by tables: what was seen, and the actions that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from config_samples import LAB

from funoffshore import config as configs
from funoffshore.config import ClusterConfig, new
from funoffshore.plan import Plan, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.flux import FluxFacts, plan, wanted, work
from funoffshore.stages.flux.facts import CONTROLLERS, NAMESPACE, Controllers, Object, digest

COMMIT, OLD = "c" * 40, "0" * 40


@pytest.fixture(scope="module")
def cluster() -> ClusterConfig:
    return configs.parse(new.generate("lab", LAB, lab=True), "lab", Path("/homelab"))


def ready(obj: Object, commit: str = COMMIT, generation: int = 1, **status: Any) -> Object:
    """``obj`` as a controller that is content with it leaves it."""
    condition = {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "", "observedGeneration": 1}
    whole = {"conditions": [condition], "observedGeneration": 1, "lastAppliedRevision": f"main@sha1:{commit}"}
    if obj["kind"] == "GitRepository":
        whole["artifact"] = {"revision": f"main@sha1:{commit}"}
    metadata = {**obj["metadata"], "generation": generation}
    return {**obj, "metadata": metadata, "status": whole | status}


def kustomization(name: str) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": metadata, "spec": {}}


def finished(cluster: ClusterConfig) -> FluxFacts:
    """Everything is as desired; Git holds ``base``, and ``apps``, which depends on it."""
    return FluxFacts(
        commit=Present(COMMIT),
        wanted={"apps": frozenset({"base"}), "base": frozenset()},
        controllers=Controllers((), (), cluster.flux.version, ""),
        settings=wanted.settings(cluster),
        secrets={name: digest(data) for name, data in wanted.secrets(cluster).items()},
        source=ready(wanted.source(cluster)),
        kustomizations={
            "cluster": ready(wanted.root(cluster)),
            "base": ready(kustomization("base")),
            "apps": ready(kustomization("apps")),
        },
    )


def test_nothing_is_planned_when_all_is_well(cluster: ClusterConfig) -> None:
    assert plan(cluster, finished(cluster)) == []


def test_from_nothing_the_whole_graph_is_planned(cluster: ClusterConfig) -> None:
    facts = FluxFacts(commit=Present(COMMIT), wanted={"apps": frozenset({"base"}), "base": frozenset()})
    actions = {a.key: a for a in plan(cluster, facts)}
    assert Plan.of(actions.values())
    secrets = {f"secret/{namespace}/{name}" for namespace, name in wanted.secrets(cluster)}
    assert actions.keys() == {
        "flux/controllers", "flux/settings", "flux/source", "flux/sync", "flux/kustomization/base",
        "flux/kustomization/apps", *secrets,
    }  # fmt: skip
    assert {"kubeconfig", *(f"k3s/{n.name}" for n in cluster.controllers)} == actions["flux/controllers"].after
    assert actions["flux/sync"].after >= {"flux/source", "flux/settings", *secrets}
    assert actions["flux/kustomization/apps"].after == {"flux/sync", "flux/kustomization/base"}
    waits = [a for a in actions.values() if a.verb is Verb.WAIT]
    assert {a.key for a in waits} == {"flux/kustomization/base", "flux/kustomization/apps"}


def test_a_cluster_that_cannot_be_read_is_only_waited_for(cluster: ClusterConfig) -> None:
    [action] = plan(cluster, FluxFacts(unreadable="connection refused", commit=Present(COMMIT)))
    assert (action.verb, action.key) == (Verb.WAIT, "flux/cluster")
    assert "connection refused" in action.reason


@pytest.mark.parametrize(
    ("changes", "verb", "key", "reason"),
    [
        ({"controllers": Controllers(("helm-controller",), (), "", "")}, Verb.CREATE, "flux/controllers", "is missing"),
        ({"controllers": Controllers((), (), "v2.0.0", "")}, Verb.CHANGE, "flux/controllers", "it is v2.0.0, not"),
        ({"controllers": Controllers((), (), "", "")}, Verb.CHANGE, "flux/controllers", "of mixed versions"),
        ({"controllers": Controllers((), ("x: y",), "v2.9.4", "")}, Verb.WAIT, "flux/controllers", "x: y"),
        ({"settings": None}, Verb.CREATE, "flux/settings", "absent"),
        ({"settings": {"DOMAIN": "other"}}, Verb.CHANGE, "flux/settings", "DOMAIN"),
        ({"source": None}, Verb.CREATE, "flux/source", "absent"),
        ({"commit": Unreadable("no route")}, Verb.WAIT, "flux/source", "no route"),
        ({"commit": Absent()}, Verb.WAIT, "flux/source", "no commit"),
        ({"kustomizations": {}}, Verb.CREATE, "flux/sync", "absent"),
    ],
)
def test_one_difference_one_action(
    cluster: ClusterConfig, changes: dict[str, Any], verb: Verb, key: str, reason: str
) -> None:
    actions = {a.key: a for a in plan(cluster, replace(finished(cluster), **changes))}
    assert actions[key].verb is verb
    assert reason in actions[key].reason
    first = {"flux/controllers", "flux/settings", "flux/source", "flux/sync"} & actions.keys()
    assert first == {key} or "commit" in changes


def test_a_flux_of_another_owner_keeps_its_version(cluster: ClusterConfig) -> None:
    facts = replace(finished(cluster), controllers=Controllers((), (), "v2.0.0", "flux-system"))
    assert plan(cluster, facts) == []


def test_of_a_flux_of_another_owner_only_what_is_missing_is_repaired() -> None:
    def thing(kind: str, name: str) -> Object:
        return {"kind": kind, "metadata": {"name": name}}

    objects = [thing("Namespace", "flux-system"), *(thing("Deployment", name) for name in CONTROLLERS)]
    seen = Controllers(("helm-controller",), (), "", "flux-system")
    assert work.repair(objects, seen) == [thing("Deployment", "helm-controller")]
    assert work.repair(objects, Controllers(("helm-controller",), (), "", "")) == objects


def test_secrets_are_compared_by_digest_and_never_shown(cluster: ClusterConfig) -> None:
    facts = finished(cluster)
    name = next(iter(facts.secrets))
    changed = replace(facts, secrets={**facts.secrets, name: "0" * 64})
    [action] = plan(cluster, changed)
    assert (action.verb, action.key) == (Verb.CHANGE, f"secret/{name[0]}/{name[1]}")
    gone = replace(facts, secrets={k: v for k, v in facts.secrets.items() if k != name})
    [action] = plan(cluster, gone)
    assert action.verb is Verb.CREATE
    values = [v.get_secret_value() for v in cluster.app_secrets.values()]
    assert not any(value in str(a) for a in plan(cluster, FluxFacts()) for value in values)


@pytest.mark.parametrize(
    ("lag", "reason"),
    [
        ({"commit": OLD}, "it is at 000000000000, and Git is at cccccccccccc"),
        ({"generation": 2}, "generation 2 has not been looked at yet"),
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "HealthCheckFailed", "message": "timeout"}]},
            "HealthCheckFailed timeout",
        ),
    ],
)
def test_a_kustomization_that_lags_is_waited_for(cluster: ClusterConfig, lag: dict[str, Any], reason: str) -> None:
    facts = finished(cluster)
    behind = {**facts.kustomizations, "apps": ready(kustomization("apps"), **lag)}
    [action] = plan(cluster, replace(facts, kustomizations=behind))
    assert (action.verb, action.key) == (Verb.WAIT, "flux/kustomization/apps")
    assert reason in action.reason


def test_a_suspended_source_shows_although_it_is_ready(cluster: ClusterConfig) -> None:
    facts = finished(cluster)
    source = wanted.source(cluster)
    source["spec"]["suspend"] = True
    [action] = plan(cluster, replace(facts, source=ready(source)))
    assert (action.key, action.reason) == ("flux/source", "it is suspended")


def test_a_part_that_is_off_gets_no_secret(cluster: ClusterConfig) -> None:
    off = replace(cluster, switches=dict.fromkeys(cluster.switches, False))
    assert ("cloudflared", "cloudflared-token") not in wanted.secrets(off)
    assert set(wanted.settings(off).values()) >= {"false"}
