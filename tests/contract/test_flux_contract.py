"""What fo relies on in Flux's sources and Kustomizations, as cases that run on the embedded lab and on the real
controllers. A difference is a bug in the lab."""

from __future__ import annotations

import pytest
from flux_backends import BACKENDS, GIT, KUSTOMIZATION, Flux, Object, Story, condition, kept, state

from funoffshore import health
from funoffshore.stages import flux as stage
from funoffshore.stages.flux import look
from funoffshore.stages.flux.facts import Controllers, revision_of


@pytest.fixture(scope="module", params=BACKENDS)
def flux(request: pytest.FixtureRequest) -> Flux:
    return kept(request)


def config(name: str, **data: str) -> str:
    """A ConfigMap."""
    pairs = ", ".join(f'{k}: "{v}"' for k, v in data.items())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{{pairs}}}\n"


def test_fo_sees_what_it_installed(flux: Flux) -> None:
    assert look.read_controllers(flux.world) == Controllers((), (), "v2.9.4", "")
    facts = stage.observe(flux.world, flux.config, True)
    assert not facts.unreadable
    assert "flux/controllers" not in [a.key for a in stage.plan(flux.config, facts)]


def test_a_source_shows_the_commit_that_it_holds(flux: Flux) -> None:
    story = Story(flux, "src", {"apps/c.yaml": config("src")})
    found = flux.ready(GIT, "src", story.commit)
    assert state(found) is health.State.READY
    assert revision_of(found) == story.commit
    assert found["status"]["artifact"]["revision"] == f"main@sha1:{story.commit}"
    assert found["status"]["artifact"]["digest"].startswith("sha256:")
    assert [c["type"] for c in found["status"]["conditions"]] == ["Ready", "ArtifactInStorage"]
    ready = condition(found)
    assert ready is not None
    assert (ready["reason"], ready["observedGeneration"]) == ("Succeeded", found["metadata"]["generation"])
    assert story.commit in ready["message"]
    assert found["metadata"]["finalizers"] == ["finalizers.fluxcd.io"]


def test_a_source_that_breaks_keeps_what_it_had(flux: Flux) -> None:
    story = Story(flux, "broken", {"apps/c.yaml": config("broken")})
    story.kustomize()
    story.ready()
    story.follow(ref={"branch": "nope"})
    found = flux.says(GIT, "broken", "GitOperationFailed", "couldn't find remote ref")
    assert state(found) is health.State.FAILED
    assert (condition(found, "FetchFailed") or {})["status"] == "True"
    assert revision_of(found) == story.commit
    assert flux.lag(GIT, "broken", story.commit).startswith("GitOperationFailed: ")
    used = flux.get(KUSTOMIZATION, "broken")
    assert state(used) is health.State.READY
    assert flux.lag(KUSTOMIZATION, "broken", story.commit) == ""
    story.follow(url="http://127.0.0.1:9/fleet.git")
    flux.says(GIT, "broken", "GitOperationFailed", "connection refused")
    story.follow()
    found = flux.ready(GIT, "broken", story.commit)
    assert [c["type"] for c in found["status"]["conditions"]] == ["Ready", "ArtifactInStorage"]


def test_a_source_that_never_worked_and_what_waits_for_it(flux: Flux) -> None:
    spec = {"interval": "10m", "url": flux.servers.git_url("nowhere"), "ref": {"branch": "main"}, "timeout": "20s"}
    flux.put(GIT, "never", spec)
    use: Object = {"interval": "10m", "prune": True, "retryInterval": "3s", "path": "./apps"}
    for name, source in (("never", "never"), ("orphan", "absent")):
        flux.put(KUSTOMIZATION, name, use | {"sourceRef": {"kind": "GitRepository", "name": source}})
    found = flux.says(GIT, "never", "GitOperationFailed")
    assert found["status"]["observedGeneration"] == -1
    assert state(found) is health.State.FAILED
    assert flux.lag(GIT, "never", "0" * 40).startswith("GitOperationFailed: ")
    for name, part in (("never", "artifact not found"), ("orphan", '"absent" not found')):
        waiting = flux.says(KUSTOMIZATION, name, "ArtifactFailed", part)
        assert state(waiting) is health.State.PROGRESSING
        assert revision_of(waiting) == ""


def test_credentials_that_are_missing(flux: Flux) -> None:
    spec = {"interval": "10m", "url": flux.servers.git_url("home"), "secretRef": {"name": "absent"}}
    flux.put(GIT, "locked", spec)
    found = flux.says(GIT, "locked", "AuthenticationFailed", "absent")
    assert state(found) is health.State.FAILED


def test_a_kustomization_says_what_it_applied(flux: Flux) -> None:
    story = Story(flux, "app", {"apps/c.yaml": config("app", colour="blue"), "apps/n.yaml": "apiVersion: v1\nkind: "
                                "Namespace\nmetadata: {name: app}\n"})  # fmt: skip
    story.kustomize(wait=True)
    found = story.ready()
    assert state(found) is health.State.READY
    status, revision = found["status"], f"main@sha1:{story.commit}"
    assert (status["lastAppliedRevision"], status["lastAttemptedRevision"]) == (revision, revision)
    assert status["observedGeneration"] == found["metadata"]["generation"]
    assert status["inventory"]["entries"] == [{"id": "_app__Namespace", "v": "v1"},
                                              {"id": "default_app__ConfigMap", "v": "v1"}]  # fmt: skip
    ready, healthy = condition(found) or {}, condition(found, "Healthy") or {}
    assert (ready["reason"], ready["message"]) == ("ReconciliationSucceeded", f"Applied revision: {revision}")
    assert (healthy["status"], healthy["reason"]) == ("True", "Succeeded")
    assert condition(found, "Reconciling") is None
    made = flux.get("v1/ConfigMap", "app", "default")
    owner = {"kustomize.toolkit.fluxcd.io/name": "app", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
    assert made["metadata"]["labels"] == owner
    assert [m["manager"] for m in made["metadata"]["managedFields"]] == ["kustomize-controller"]
    assert found["metadata"]["finalizers"] == ["finalizers.fluxcd.io"]


def test_the_newest_of_several_commits_wins(flux: Flux) -> None:
    story = Story(flux, "quick", {"apps/a.yaml": config("quick-a")})
    story.kustomize()
    old = story.ready()["status"]["lastAppliedRevision"]
    story.publish({"apps/b.yaml": config("quick-b")})
    assert "is at" in flux.lag(GIT, "quick", story.commit) or flux.lag(GIT, "quick", story.commit) == ""
    last = story.publish({"apps/b.yaml": None, "apps/c.yaml": config("quick-c")})
    found = story.ready()
    assert found["status"]["lastAppliedRevision"] == f"main@sha1:{last}" != old
    assert flux.get("v1/ConfigMap", "quick-c", "default")
    flux.gone("v1/ConfigMap", "quick-b")
    flux.ready(GIT, "quick", last)


def test_a_request_is_answered_and_mends_drift(flux: Flux) -> None:
    story = Story(flux, "drift", {"apps/c.yaml": config("drift", colour="blue"), "apps/d.yaml": config("drift-d")})
    story.kustomize()
    story.ready()
    flux.kube.patch("v1/ConfigMap", "default", "drift", {"data": {"colour": "red"}})
    flux.kube.delete("v1/ConfigMap", "default", "drift-d")
    token = flux.request(KUSTOMIZATION, "drift")
    flux.says(KUSTOMIZATION, "drift", "ReconciliationSucceeded", lastHandledReconcileAt=token)
    assert flux.get("v1/ConfigMap", "drift", "default")["data"] == {"colour": "blue"}
    assert flux.get("v1/ConfigMap", "drift-d", "default")
    token = flux.request(GIT, "drift")
    flux.says(GIT, "drift", "Succeeded", lastHandledReconcileAt=token)


def test_what_is_suspended_says_so_only_in_its_spec(flux: Flux) -> None:
    story = Story(flux, "still", {"apps/c.yaml": config("still", colour="blue")})
    story.kustomize()
    old = story.ready()["status"]["lastAppliedRevision"]
    story.kustomize(suspend=True)
    commit = story.publish({"apps/c.yaml": config("still", colour="red")})
    flux.ready(GIT, "still", commit)
    token = flux.request(KUSTOMIZATION, "still")
    found = flux.says(KUSTOMIZATION, "still", "ReconciliationSucceeded", lastHandledReconcileAt=token)
    assert (condition(found) or {})["status"] == "True"
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"] == 2
    assert found["status"]["lastAppliedRevision"] == old
    assert state(found) is health.State.SUSPENDED
    assert flux.lag(KUSTOMIZATION, "still", commit) == "it is suspended"
    assert flux.get("v1/ConfigMap", "still", "default")["data"] == {"colour": "blue"}
    story.kustomize()  # applied without the field, which takes it away
    assert "suspend" not in story.ready()["spec"]
    assert flux.get("v1/ConfigMap", "still", "default")["data"] == {"colour": "red"}


def test_a_suspended_source_does_not_look(flux: Flux) -> None:
    story = Story(flux, "asleep", {"apps/c.yaml": config("asleep")})
    old = story.commit
    flux.ready(GIT, "asleep", old)
    story.follow(suspend=True)
    story.publish({"apps/c.yaml": None, "apps/d.yaml": config("asleep")})
    found = flux.get(GIT, "asleep")
    assert revision_of(found) == old
    assert state(found) is health.State.SUSPENDED
    story.follow()
    flux.ready(GIT, "asleep", story.commit)


def test_what_depends_waits(flux: Flux) -> None:
    story = Story(flux, "dep", {"first/c.yaml": config("dep-first", a="${A}"), "second/c.yaml": config("dep-second")})
    story.kustomize("second", dependsOn=[{"name": "dep-first"}])
    waiting = flux.says(KUSTOMIZATION, "dep-second", "DependencyNotReady", "dep-first")
    assert state(waiting) is health.State.PROGRESSING
    assert waiting["status"]["observedGeneration"] == -1
    assert flux.find("v1/ConfigMap", "dep-second", "default") is None
    values = {"kind": "ConfigMap", "name": "dep-values"}
    story.kustomize("first", postBuild={"substituteFrom": [values]})
    flux.says(KUSTOMIZATION, "dep-first", "BuildFailed", "dep-values")
    waiting = flux.says(KUSTOMIZATION, "dep-second", "DependencyNotReady", "dependency 'flux-system/dep-first' is not")
    assert "Reconciling" not in [c["type"] for c in waiting["status"]["conditions"]]
    flux.put("v1/ConfigMap", "dep-values", {}, data={"A": "x"})
    for name in ("dep-first", "dep-second"):
        story.ready(name)


def test_what_git_drops_is_pruned_and_deletion_takes_the_rest(flux: Flux) -> None:
    kept_one = config("prune-kept").replace(
        "}\ndata", ", annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}}\ndata"
    )
    files: dict[str, str | None] = {f"apps/{n}.yaml": config(f"prune-{n}") for n in "abc"}
    story = Story(flux, "prune", files | {"apps/k.yaml": kept_one})
    story.kustomize()
    story.kustomize("left", prune=False, path="./left")
    story.ready()
    story.publish({"apps/a.yaml": None, "apps/k.yaml": None, "left/l.yaml": config("prune-left")})
    found = story.ready()
    assert [e["id"] for e in found["status"]["inventory"]["entries"]] == [f"default_prune-{n}__ConfigMap" for n in "bc"]
    flux.gone("v1/ConfigMap", "prune-a")
    assert flux.get("v1/ConfigMap", "prune-kept", "default")
    story.ready("prune-left")
    for name in ("prune", "prune-left"):
        flux.kube.delete(KUSTOMIZATION, "flux-system", name)
        flux.gone(KUSTOMIZATION, name, "flux-system")
    for name in "bc":
        assert flux.find("v1/ConfigMap", f"prune-{name}", "default") is None
    assert flux.get("v1/ConfigMap", "prune-left", "default")
