"""fo's Flux stage against the lab's Flux, over HTTPS, HTTP and git, as on a real cluster."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from flux_bench import CONFIG, GIT, KUSTOMIZATION, KUSTOMIZE, Worktree, network
from kube_server import Served

from funoffshore import config as configs
from funoffshore import errors
from funoffshore.config import new
from funoffshore.lab.flux import Flux
from funoffshore.lab.web import Web, offers
from funoffshore.plan import Action, Plan
from funoffshore.stages import flux
from funoffshore.stages.flux import work
from funoffshore.world.download import Downloads
from funoffshore.world.git import Repo
from funoffshore.world.kube import Kube
from funoffshore.world.routes import Routes
from funoffshore.world.world import World

DEPLOYMENT = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web, namespace: default}
    spec:
      selector: {matchLabels: {app: web}}
      template:
        metadata: {labels: {app: web}}
        spec: {containers: [{name: main, image: example.org/web:1}]}
"""
TREE: dict[str, str | None] = {
    "infra/k8s/flux/kustomization.yaml": "resources: [base.yaml, apps.yaml]\n",
    "infra/k8s/flux/base.yaml": KUSTOMIZE.format("base", "[]"),
    "infra/k8s/flux/apps.yaml": KUSTOMIZE.format("apps", "[{name: base}]"),
    "infra/base/hello.yaml": CONFIG,
    "infra/apps/web.yaml": DEPLOYMENT,
}


class Said:
    """A step that remembers what was said."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def record(self, **ids: str) -> None: ...

    def recorded(self, name: str) -> str | None:
        return None

    def checkpoint(self) -> None: ...


class Home:
    """An operator's repository, a cluster without Flux, and the doors to both."""

    def __init__(self, directory: Path) -> None:
        self.served = Served(directory / "lab")
        self.served.cluster.create(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}},
             "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "kubelet")  # fmt: skip
        self.kit = self.served.kit
        self.web = Web(self.kit, f"{network()}.3")
        self.web.start()
        self.worktree = Worktree(directory / "repo")
        self.flux = Flux(self.kit, self.served.cluster)
        self.flux.start()
        digests = {"FLUX_INSTALL_SHA256": offers.flux_install_sha256("v2.9.4"), "K3S_SHA256": "1" * 64,
                   "PROXMOX_FINGERPRINT": "AB:" * 31 + "AB", "IMAGE_SHA256": "2" * 64}  # fmt: skip
        parsed = configs.parse(new.generate("lab", digests, lab=True), "lab", self.worktree.folder)
        self.config = replace(
            parsed,
            git=replace(parsed.git, url=self.web.git_url(), branch="main", path="infra/k8s/flux"),
            flux=replace(parsed.flux, install_url=self.web.url + offers.flux_install_path(parsed.flux.version)),
        )
        routes = Routes(self.kit.directory / "routes.json")
        self.world = World(
            clock=self.kit.clock,
            proxmox=cast("Any", None),
            hosts=cast("Any", None),
            kube=Kube(self.served.kubeconfig, routes, self.kit.clock),
            repo=Repo(self.config, routes),
            downloads=Downloads(directory / "cache", routes),
            reach=cast("Any", None),
        )

    def publish(self, files: dict[str, str | None]) -> str:
        commit = self.worktree.commit(files)
        self.web.publish(self.worktree.folder)
        return commit

    def plan(self) -> list[Action]:
        return flux.plan(self.config, flux.observe(self.world, self.config, True))

    def run(self) -> list[str]:
        """Applies plans until one is empty; the keys of the first."""
        first = self.plan()
        actions = first
        for _ in range(4):
            for action in Plan.of(actions).in_order():
                flux.apply(self.world, self.config, action, Said())
            actions = self.plan()
            if not actions:
                return [a.key for a in first]
        raise AssertionError(f"still planned: {[str(a) for a in actions]}")

    def close(self) -> None:
        self.flux.stop()
        self.web.stop()
        self.served.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


@pytest.fixture
def done(home: Home) -> Home:
    home.publish(TREE)
    home.run()
    return home


def test_from_nothing_to_the_commit_that_git_holds(home: Home) -> None:
    commit = home.publish(TREE)
    keys = home.run()
    assert {"flux/controllers", "flux/settings", "flux/source", "flux/sync", "flux/kustomization/apps"} <= set(keys)
    cluster = home.served.cluster
    for name in ("cluster", "base", "apps"):
        found = cluster.get(KUSTOMIZATION, "flux-system", name)
        assert found is not None
        assert found["status"]["lastAppliedRevision"] == f"main@sha1:{commit}"
    hello = cluster.get("v1/ConfigMap", "default", "hello")
    assert hello is not None
    assert hello["data"] == {"domain": home.config.domain}
    names = {d["metadata"]["name"] for d in cluster.list("apps/v1/Deployment", "flux-system")}
    assert names == {"source-controller", "kustomize-controller", "helm-controller", "notification-controller"}
    age = cluster.get("v1/Secret", "flux-system", "sops-age")
    assert age is not None
    assert home.config.sops_age_key is not None
    key = home.config.sops_age_key.get_secret_value()
    assert base64.b64decode(age["data"]["age.agekey"]).decode().strip() == key
    assert home.plan() == []


def test_a_new_commit_is_waited_for(done: Home) -> None:
    commit = done.publish({"infra/base/hello.yaml": CONFIG.replace("hello", "again")})
    assert "flux/source" in [a.key for a in done.plan()]
    done.run()
    assert done.served.cluster.get("v1/ConfigMap", "default", "again")
    found = done.served.cluster.get(GIT, "flux-system", "flux-system")
    assert found is not None
    assert commit in found["status"]["artifact"]["revision"]


def test_drift_is_mended_foreign_keys_included(done: Home) -> None:
    cluster = done.served.cluster
    metadata = {"name": "cluster-settings", "namespace": "flux-system"}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                   "data": {"DOMAIN": "evil.example", "EXTRA": "x"}}, "stranger")  # fmt: skip
    cluster.delete("v1/Secret", "flux-system", "sops-age")
    cluster.delete("apps/v1/Deployment", "flux-system", "helm-controller")
    assert {a.key for a in done.plan()} == {"flux/controllers", "flux/settings", "secret/flux-system/sops-age"}
    done.run()
    settings = cluster.get("v1/ConfigMap", "flux-system", "cluster-settings")
    assert settings is not None
    assert settings["data"]["DOMAIN"] == done.config.domain
    assert "EXTRA" not in settings["data"]


def test_a_branch_that_is_not_there_is_told_before_anything_is_followed(home: Home) -> None:
    home.publish(TREE)
    home.config = replace(home.config, git=replace(home.config.git, branch="gone"))
    home.world = replace(home.world, repo=Repo(home.config))
    actions = {a.key: a for a in home.plan()}
    flux.apply(home.world, home.config, actions["flux/controllers"], Said())
    with pytest.raises(errors.PreflightError, match="no branch gone") as caught:
        flux.apply(home.world, home.config, actions["flux/source"], Said())
    assert "git push" in caught.value.fix
    assert home.served.cluster.get(GIT, "flux-system", "flux-system") is None


def test_git_that_cannot_be_read_is_never_taken_for_done(done: Home) -> None:
    done.kit.faults.on("git-unreachable")
    [action, *_] = done.plan()
    assert action.key == "flux/source"
    assert "503" in action.reason
    done.kit.faults.off("git-unreachable")
    assert done.plan() == []


def test_what_stands_failed_is_given_up_with_its_cause_first(done: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "PATIENCE", 0.0)
    done.publish(
        {"infra/base/hello.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere}\n"}
    )
    actions = {a.key: a for a in done.plan()}
    flux.apply(done.world, done.config, actions["flux/source"], Said())
    with pytest.raises(errors.TaskFailedError, match="Kustomization base has failed") as caught:
        flux.apply(done.world, done.config, actions["flux/kustomization/base"], Said())
    assert any("nowhere" in line for line in caught.value.evidence)


def test_what_is_suspended_is_not_waited_for(done: Home) -> None:
    done.world.kube.patch(KUSTOMIZATION, "flux-system", "apps", {"spec": {"suspend": True}})
    [action] = done.plan()
    assert (action.key, action.reason) == ("flux/kustomization/apps", "it is suspended")
    with pytest.raises(errors.TaskFailedError, match="suspended") as caught:
        flux.apply(done.world, done.config, action, Said())
    assert caught.value.fix == "flux resume kustomization apps"


def test_of_a_flux_that_git_manages_only_what_is_missing_comes_back(done: Home) -> None:
    cluster = done.served.cluster
    crd = "apiextensions.k8s.io/v1/CustomResourceDefinition"
    name = "gitrepositories.source.toolkit.fluxcd.io"
    owner = {"kustomize.toolkit.fluxcd.io/name": "flux-system"}
    cluster.change_metadata(crd, "", name, lambda metadata: metadata["labels"].update(owner))
    before = cluster.get("v1/Namespace", "", "flux-system")
    cluster.change_metadata("v1/Namespace", "", "flux-system", lambda metadata: metadata["labels"].clear())
    cluster.delete("apps/v1/Deployment", "flux-system", "helm-controller")
    assert [a.key for a in done.plan()] == ["flux/controllers"]
    done.run()
    after = cluster.get("v1/Namespace", "", "flux-system")
    assert before is not None
    assert after is not None
    assert not after["metadata"].get("labels", {}).keys() & {"app.kubernetes.io/part-of"}
