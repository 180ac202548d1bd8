"""The real kubectl against the lab's API, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import kube_server
import pytest

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: a, image: "x:1"}]}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kube_server.Served]:
    made = kube_server.Served(tmp_path_factory.mktemp("lab"))
    made.add_node()
    yield made
    made.close()


def kubectl(served: kube_server.Served, *words: str, stdin: str = "", code: int = 0) -> str:
    home = served.kubeconfig.parent
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(served.kubeconfig)}
    done = subprocess.run(
        ["kubectl", *words], input=stdin, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_apply_wait_change_delete(served: kube_server.Served, tmp_path: Path) -> None:
    assert "deployment.apps/shop created" in kubectl(served, "apply", "-f", "-", stdin=MANIFEST)
    assert "deployment.apps/shop unchanged" in kubectl(served, "apply", "-f", "-", stdin=MANIFEST)
    kubectl(served, "-n", "shop", "wait", "--for=condition=Available", "deploy/shop", "--timeout=10s")
    kubectl(served, "-n", "shop", "set", "image", "deploy/shop", "a=x:2")
    assert "successfully rolled out" in kubectl(
        served, "-n", "shop", "rollout", "status", "deploy/shop", "--timeout=10s"
    )
    conflict = kubectl(served, "apply", "--server-side", "-f", "-", stdin=MANIFEST, code=1)
    assert 'conflict with "kubectl-set"' in conflict
    kubectl(served, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST)
    assert 'namespace "shop" deleted' in kubectl(served, "delete", "ns", "shop", "--timeout=10s")
    assert 'namespaces "shop" not found' in kubectl(served, "get", "ns", "shop", code=1)


def test_get_prints_columns(served: kube_server.Served) -> None:
    lines = kubectl(served, "get", "nodes").splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert lines[1].split()[:2] == ["n1", "Ready"]
    assert "v1.36.3+k3s1" in kubectl(served, "version")
    assert kubectl(served, "auth", "can-i", "get", "pods").strip() == "yes"


def test_drain_and_uncordon(served: kube_server.Served) -> None:
    assert "node/n1 drained" in kubectl(served, "drain", "n1", "--ignore-daemonsets", "--force", "--timeout=10s")
    assert "SchedulingDisabled" in kubectl(served, "get", "nodes")
    kubectl(served, "uncordon", "n1")
