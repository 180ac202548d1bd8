"""The real kubectl, in the versions that are at hand, against the lab and a real control plane."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_backends import Backend


def bench_kubectl() -> list[str]:
    """kubectl as the bench builds it. Raises build.MissingError."""
    from bench.plane_process import program

    return [str(program("kube")), "kubectl"]


def installed_kubectl() -> list[str]:
    """kubectl as this machine has it; nothing when it has none."""
    found = shutil.which("kubectl")
    return [found] if found else []


class Kubectl:
    """Runs kubectl with a home of its own, where it keeps what it has discovered."""

    def __init__(self, argv: list[str], backend: Backend, home: Path) -> None:
        self._argv = argv
        self.backend = backend
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(backend.kubeconfig)}

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """What it printed, errors after output; asserts that it ended with ``code``."""
        done = subprocess.run(
            [*self._argv, *words], input=stdin, capture_output=True, text=True, timeout=120, env=self.environment,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, f"kubectl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return (done.stdout + done.stderr).strip()

    def json(self, *words: str) -> Any:
        return json.loads(self("get", *words, "-o", "json"))

    def apply(self, *objects: Any, code: int = 0, words: tuple[str, ...] = ()) -> str:
        return self("apply", *words, "-f", "-", stdin=as_list(*objects), code=code)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._argv, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.environment
        )


def as_list(*objects: Any) -> str:
    """What older versions can read too: a stream of JSON documents is not."""
    if len(objects) == 1:
        return json.dumps(objects[0])
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def rows(text: str) -> list[list[str]]:
    """A printed table: words by line."""
    return [line.split() for line in text.splitlines()]


def runs(backend: Backend, which: str, home: Path) -> Iterator[Kubectl]:
    """For a fixture. Skips where there is no such kubectl."""
    if which == "installed":
        argv = installed_kubectl()
        if not argv:
            pytest.skip("kubectl is not installed")
    else:
        argv = bench_kubectl()
    yield Kubectl(argv, backend, home)
