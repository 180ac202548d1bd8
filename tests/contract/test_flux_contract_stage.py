"""fo's whole Flux stage on the embedded lab's Flux and on the real controllers: from nothing to the commit that Git
holds, what it plans when something is not as it should be, and what it does about it."""

from __future__ import annotations

import base64

import pytest
from flux_backends import BACKENDS, GIT, KUSTOMIZATION, Flux, Said, Worktree, condition, kept, state
from flux_bench import CONFIG, KUSTOMIZE

from funoffshore import errors, health
from funoffshore.plan import Action, Plan
from funoffshore.stages import flux as stage
from funoffshore.stages.flux import look, work

DEPLOYMENT = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: stage-web, namespace: default}
    spec:
      selector: {matchLabels: {app: stage-web}}
      template:
        metadata: {labels: {app: stage-web}}
        spec: {containers: [{name: main, image: example.org/web:1}]}
"""
RETRYING = KUSTOMIZE.replace("retryInterval: 1m", "retryInterval: 3s")
TREE: dict[str, str | None] = {
    "infra/k8s/flux/kustomization.yaml": "resources: [base.yaml, apps.yaml]\n",
    "infra/k8s/flux/base.yaml": RETRYING.format("base", "[]"),
    "infra/k8s/flux/apps.yaml": RETRYING.format("apps", "[{name: base}]"),
    "infra/base/hello.yaml": CONFIG,
    "infra/apps/web.yaml": DEPLOYMENT,
}


class Home:
    """The operator's repository, which fo's stage follows."""

    def __init__(self, flux: Flux) -> None:
        self.flux = flux
        self.worktree = Worktree(flux.folder / "work" / "home")

    def publish(self, files: dict[str, str | None]) -> str:
        commit = self.worktree.commit(files)
        self.flux.servers.publish(self.worktree.folder, "home")
        return commit

    def plan(self) -> list[Action]:
        facts = stage.observe(self.flux.world, self.flux.config, True)
        assert not facts.unreadable
        return stage.plan(self.flux.config, facts)

    def run(self) -> list[str]:
        """Applies plans until one is empty; the keys of the first."""
        actions = first = self.plan()
        for _ in range(4):
            for action in Plan.of(actions).in_order():
                stage.apply(self.flux.world, self.flux.config, action, Said())
            actions = self.plan()
            if not actions:
                return [a.key for a in first]
        raise AssertionError(f"still planned: {[str(a) for a in actions]}")


@pytest.fixture(scope="module", params=BACKENDS)
def flux(request: pytest.FixtureRequest) -> Flux:
    return kept(request)


@pytest.fixture(scope="module")
def home(flux: Flux) -> Home:
    """fo's stage has run once."""
    made = Home(flux)
    commit = made.publish(TREE)
    keys = made.run()
    assert {"flux/settings", "flux/source", "flux/sync", "flux/kustomization/base", "flux/kustomization/apps"} <= {
        *keys
    }
    for name in ("cluster", "base", "apps"):
        assert flux.lag(KUSTOMIZATION, name, commit) == ""
    return made


def test_fo_reaches_the_commit_that_git_holds(flux: Flux, home: Home) -> None:
    assert home.plan() == []
    assert flux.get("v1/ConfigMap", "hello", "default")["data"] == {"domain": flux.config.domain}
    sealed = flux.get("v1/Secret", "sops-age")
    assert flux.config.sops_age_key is not None
    assert base64.b64decode(sealed["data"]["age.agekey"]).decode() == flux.config.sops_age_key.get_secret_value()
    controllers = look.read_controllers(flux.world)
    assert (controllers.version, controllers.owner, controllers.waiting) == ("v2.9.4", "", ())


def test_a_second_run_changes_nothing(flux: Flux, home: Home) -> None:
    kinds = (("v1/ConfigMap", "cluster-settings"), (GIT, "flux-system"), (KUSTOMIZATION, "cluster"))
    before = [flux.get(kind, name)["metadata"]["resourceVersion"] for kind, name in kinds]
    assert home.run() == []
    assert [flux.get(kind, name)["metadata"]["resourceVersion"] for kind, name in kinds] == before


def test_a_new_commit_is_waited_for(flux: Flux, home: Home) -> None:
    commit = home.publish({"infra/base/again.yaml": CONFIG.replace("hello", "again")})
    assert "flux/source" in [a.key for a in home.plan()]
    home.run()
    assert flux.get("v1/ConfigMap", "again", "default")
    assert flux.lag(GIT, "flux-system", commit) == ""


def test_drift_is_mended_and_strangers_keys_go(flux: Flux, home: Home) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"DOMAIN": "evil.example", "EXTRA": "x"},
                "metadata": {"name": "cluster-settings", "namespace": "flux-system"}}  # fmt: skip
    flux.kube.apply([settings], "stranger", force=True)
    flux.kube.delete("v1/Secret", "flux-system", "sops-age")
    flux.kube.delete("apps/v1/Deployment", "flux-system", "notification-controller")
    planned = {a.key for a in home.plan()}
    assert {"flux/controllers", "flux/settings", "secret/flux-system/sops-age"} <= planned
    home.run()
    assert "EXTRA" not in flux.get("v1/ConfigMap", "cluster-settings")["data"]


def test_a_kustomization_that_somebody_suspended_is_told(flux: Flux, home: Home) -> None:
    flux.kube.patch(KUSTOMIZATION, "flux-system", "apps", {"spec": {"suspend": True}}, "flux")
    [action] = home.plan()
    assert (action.key, action.reason) == ("flux/kustomization/apps", "it is suspended")
    with pytest.raises(errors.TaskFailedError, match="Kustomization apps is suspended"):
        stage.apply(flux.world, flux.config, action, Said())
    flux.kube.patch(KUSTOMIZATION, "flux-system", "apps", {"spec": {"suspend": None}}, "flux")
    flux.ready(KUSTOMIZATION, "apps", home.worktree.git("rev-parse", "HEAD"))
    assert home.plan() == []


def test_what_stays_failed_ends_the_wait_with_its_cause(
    flux: Flux, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PATIENCE", 4.0)
    home.publish({"infra/base/again.yaml": "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: x}\n"})
    with pytest.raises(errors.TaskFailedError, match=r"ReconciliationFailed: .*Thing") as raised:
        home.run()
    assert any("Kustomization flux-system/base: " in line for line in raised.value.evidence)
    assert state(flux.get(KUSTOMIZATION, "base")) in (health.State.FAILED, health.State.PROGRESSING)
    home.publish({"infra/base/again.yaml": None})
    home.run()
    assert (condition(flux.get(KUSTOMIZATION, "apps")) or {})["status"] == "True"
    flux.gone("v1/ConfigMap", "again")
