"""A pytest plugin: fixtures for cases that run on the lab's Kubernetes API and on a real one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import kube_server
import pytest
from kube_backends import Backend

from bench.build import BuildError
from bench.plane import Plane
from funoffshore.reading import Present

NOT_TRIED = "THE BENCH IS NOT TRIED"
BOTH = ["lab", pytest.param("real", marks=pytest.mark.real)]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A real control plane, started once."""
    made = Plane(tmp_path_factory.mktemp("plane") / "plane")
    try:
        made.start()
    except BuildError as why:
        pytest.skip(f"{NOT_TRIED}: {why}")
    yield made
    made.stop()


@pytest.fixture(scope="module", params=BOTH)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    if request.param == "real":
        real: Plane = request.getfixturevalue("plane")
        yield Backend("real", real.kubeconfig, real.token, real.forget)
        return
    served = kube_server.Served(tmp_path_factory.mktemp("lab"))
    served.add_node()
    served.cluster.add_token("right", "admin")
    yield Backend("lab", served.kubeconfig, "right", served.cluster.core.objects.forget)
    served.close()


@pytest.fixture
def space(backend: Backend) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"t{next(_numbers)}"
    backend.door.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}], "test")
    account = lambda: isinstance(backend.door.get("v1/ServiceAccount", name, "default"), Present)  # noqa: E731
    backend.until(account)
    yield name
    backend.door.delete("v1/Namespace", "", name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line, and not one for each case, when the real servers could not be had."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {str(r.longrepr[2]) for r in skipped if isinstance(r.longrepr, tuple) and NOT_TRIED in str(r.longrepr[2])}
    for reason in sorted(reasons):
        terminalreporter.write_line(f"{reason.removeprefix('Skipped: ')} ({len(skipped)} cases skipped)", red=True)
