"""Flux in a cluster of the lab, following a Git repository over HTTP: what the test_lab_flux files share."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from funoffshore.lab import base
from funoffshore.lab.flux import Flux
from funoffshore.lab.flux.install import install_manifest
from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.cluster import KubeCluster
from funoffshore.lab.web import Web

GIT = "source.toolkit.fluxcd.io/v1/GitRepository"
KUSTOMIZATION = "kustomize.toolkit.fluxcd.io/v1/Kustomization"
HELM_RELEASE = "helm.toolkit.fluxcd.io/v2/HelmRelease"
HELM_CHART = "source.toolkit.fluxcd.io/v1/HelmChart"
SHARED = Path(os.environ.get("FO_SHARED") or Path(__file__).parents[2].parent / "shared")
PATIENCE = 20.0
"""Real seconds that anything here may take."""
_numbers = itertools.count()
KUSTOMIZE = """
    apiVersion: kustomize.toolkit.fluxcd.io/v1
    kind: Kustomization
    metadata: {{name: {0}, namespace: flux-system}}
    spec:
      interval: 10m
      retryInterval: 1m
      timeout: 30s
      path: ./infra/{0}
      prune: true
      wait: true
      dependsOn: {1}
      sourceRef: {{kind: GitRepository, name: flux-system}}
      postBuild: {{substituteFrom: [{{kind: ConfigMap, name: cluster-settings}}]}}
"""
CONFIG = """
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: hello, namespace: default}
    data: {domain: "${DOMAIN}"}
"""


def network() -> str:
    """``127.x.y``, used by no other test."""
    return f"127.{64 + os.getpid() % 150}.{250 - next(_numbers) % 100}"


class Worktree:
    """An operator's checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *argv: str) -> str:
        who = {"GIT_AUTHOR_NAME": "op", "GIT_COMMITTER_NAME": "op"}
        who |= {"GIT_AUTHOR_EMAIL": "op@example.org", "GIT_COMMITTER_EMAIL": "op@example.org"}
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1", **who}
        done = subprocess.run(
            ["git", *argv], cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str | None]) -> str:
        """Writes files (None deletes one) and returns the new commit."""
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"))
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")


class Bench:
    """Web server, cluster with two nodes, and Flux; ``speed`` lab seconds to a real one."""

    def __init__(self, directory: Path, *, speed: float = 1.0, **latencies: float) -> None:
        self.directory = directory
        self.speed = speed
        self.net = network()
        self.worktree = Worktree(directory / "work")
        self.latencies = base.Latencies(**latencies)
        self.open()
        self.install()

    def open(self) -> None:
        store = base.Store(self.directory / "lab" / "lab.sqlite")
        self.kit = base.Kit(
            self.directory / "lab", base.LabClock(self.speed), store, self.latencies, base.Faults(store),
            base.Ledger(store), base.Routes(self.directory / "lab"),
        )  # fmt: skip
        self.web = Web(self.kit, f"{self.net}.3")
        self.web.start()
        self.cluster = KubeCluster(self.kit, "demo")
        self.flux = Flux(self.kit, self.cluster)
        self.flux.start()

    def close(self) -> None:
        self.flux.stop()
        self.cluster.close()
        self.web.stop()
        self.kit.clock.stop()
        self.kit.store.close()

    def install(self) -> None:
        for name in ("n1", "n2"):
            labels = {"kubernetes.io/os": "linux"}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            self.cluster.create({**node, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "kubelet")
        documents = list(yaml.safe_load_all(install_manifest("v2.9.4")))
        for document in documents:
            if document["kind"] in ("Namespace", "CustomResourceDefinition"):
                self.cluster.apply(document, "kubectl")
        for document in documents:
            self.cluster.apply(document, "kubectl")
        self.until(lambda: self.cluster.known(HELM_RELEASE) and self.cluster.known(KUSTOMIZATION))

    def install_again(self, name: str) -> None:
        """Applies one controller's Deployment."""
        documents = yaml.safe_load_all(install_manifest("v2.9.4"))
        self.cluster.apply(
            next(d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == name), "kubectl"
        )

    def publish(self, files: dict[str, str | None]) -> str:
        """Commits, pushes, and asks the source to look."""
        commit = self.worktree.commit(files)
        assert self.web.publish(self.worktree.folder, "fleet") == commit
        if self.cluster.get(GIT, "flux-system", "fleet"):
            self.request(GIT, "fleet")
        return commit

    def request(self, kind: str, name: str) -> None:
        self.annotate(kind, name, {"reconcile.fluxcd.io/requestedAt": f"{time.time():.6f}"})

    def annotate(self, kind: str, name: str, annotations: dict[str, str]) -> None:
        def change(metadata: Object) -> None:
            metadata.setdefault("annotations", {}).update(annotations)

        self.cluster.change_metadata(kind, "flux-system", name, change)

    def follow(self, **spec: Any) -> None:
        url = self.web.git_url("fleet")
        whole = {"interval": "10m", "ref": {"branch": "main"}, "timeout": "20s", "url": url} | spec
        self.apply(GIT, "fleet", whole)

    def kustomize(self, name: str, **spec: Any) -> None:
        whole: Object = {"interval": "1m", "path": f"./{name}", "prune": True, "retryInterval": "5s", "timeout": "10s",
                         "wait": True, "sourceRef": {"kind": "GitRepository", "name": "fleet"}}  # fmt: skip
        self.apply(KUSTOMIZATION, name, whole | spec)

    def apply(self, kind: str, name: str, spec: Object, namespace: str = "flux-system") -> None:
        api, _, short = kind.rpartition("/")
        metadata = {"name": name, "namespace": namespace}
        self.cluster.apply({"apiVersion": api, "kind": short, "metadata": metadata, "spec": spec}, "test")

    def get(self, kind: str, name: str, namespace: str = "flux-system") -> Object:
        found = self.cluster.get(kind, namespace, name)
        assert found is not None, f"{kind} {name} is absent"
        return found

    def until(self, look: Callable[[], Any], say: Callable[[], Any] = lambda: "") -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := look()):
            assert time.monotonic() < end, f"did not come to pass: {say()}"
            time.sleep(0.005)
        return found

    def reason(self, kind: str, name: str, reason: str, part: str = "", type_: str = "Ready") -> Object:
        """Waits until a condition of the object has a reason and a message with ``part``."""

        def look() -> Object | None:
            found = self.cluster.get(kind, "flux-system", name)
            said = condition(found, type_) if found else None
            return found if said and said["reason"] == reason and part in said["message"] else None

        found: Object = self.until(look, lambda: (self.cluster.get(kind, "flux-system", name) or {}).get("status"))
        return found


def condition(obj: Object, type_: str = "Ready") -> Object | None:
    return next((c for c in (obj.get("status") or {}).get("conditions", []) if c["type"] == type_), None)


def sample(name: str, kind: str, object_name: str) -> Object:
    """A recorded object; the test is skipped where the recordings are not at hand."""
    path = SHARED / "bench" / "k8s" / "samples" / f"{name}.json"
    if not path.exists():
        pytest.skip("the recorded objects are not at hand")
    found: Object = next(
        o for o in json.loads(path.read_text())["objects"]
        if o["kind"] == kind.rpartition("/")[2] and o["metadata"]["name"] == object_name
    )  # fmt: skip
    return found


def essence(obj: Object) -> Object:
    """What two runs of the same story have in common: no commits, ports, times, folders."""
    status = obj["status"]
    keys = sorted(k for k in status if k not in ("conditions", "url"))
    lines = [
        (c["type"], c["status"], c["reason"], _plain(c["message"]), c["observedGeneration"])
        for c in status["conditions"]
    ]
    return {"conditions": lines, "keys": keys, "observedGeneration": status.get("observedGeneration")}


def _plain(message: str) -> str:
    for pattern, word in (
        (r"[0-9a-f]{40}", "COMMIT"), (r"\+[0-9a-f]{12}", "+COMMIT"), (r"https?://[0-9.]+:\d+(/git)?", "URL"),
        (r"127\.[0-9.]+:\d+", "HOST"), (r"(?:\d+m)?\d+(?:\.\d+)?(ms|µs|s)\b", "TIME"),
        (r"\S*/kustomization(-\d+)?", "ROOT"), (r"age1[0-9a-z]+", "AGE"),
    ):  # fmt: skip
        message = re.sub(pattern, word, message)
    return message
