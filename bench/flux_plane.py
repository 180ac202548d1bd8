"""The real Flux controllers as plain processes beside a control plane, with Git, downloads and charts on loopback.

``fo`` installs Flux's manifest as it always does; the pods of its Deployments are kwok's and do nothing, and the
processes here do their work, as administrators of the cluster.
"""

from __future__ import annotations

import functools
import http.client
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from bench import paths
from bench.internet.server import Internet
from bench.internet.tls import Authority
from bench.plane import Plane
from bench.plane_process import free_ports, program

CONTROLLERS = ("source-controller", "kustomize-controller", "helm-controller", "notification-controller")
PROGRAMS = ("etcd", "kube", "kwok", *CONTROLLERS)
"""What must be built for all of this."""
HOST, GIT_HOST = "127.0.0.1", "localhost"
"""Two names of one address: below the first are downloads and charts, below the second is Git."""
_INSTALL = f"http://{HOST}/flux/install.yaml"
_PATIENCE = 90.0
"""Seconds until a controller on a busy machine says that it is ready."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A stand-in chart that is published; see ``bench.internet.charts``."""

    name: str
    versions: tuple[str, ...]
    oci: bool


class FluxPlane:
    """A control plane, an internet for it, and (once ``install.yaml`` is applied) Flux's controllers."""

    def __init__(self, folder: Path, install: Path, charts: Sequence[Chart] = ()) -> None:
        """``install``: the manifest that is offered at ``install_url``. Writes only below ``folder``."""
        self.plane = Plane(folder / "plane")
        self._folder = folder
        self._git = folder / "git"
        self._git.mkdir(parents=True)
        tree = folder / "charts"
        tree.mkdir()
        (tree / "charts.yaml").write_text(yaml.safe_dump_all(_asking(charts)))
        self._internet = Internet(
            HOST, authority=Authority(folder / "authority"), tree=tree, binaries=program,
            offers={_INSTALL: install}, git_root=self._git, git_host=GIT_HOST, cache=paths.cache() / "images",
            ports=(0, 0),
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Everything but the controllers. Raises build.MissingError, plane_process.PlaneError, OSError."""
        for name in PROGRAMS:
            program(name)
        self._internet.start()
        try:
            self.plane.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every process and the servers."""
        self.plane.stop()
        self._internet.stop()

    @property
    def web(self) -> str:
        """Host and port of the downloads and charts, over plain HTTP."""
        return f"{HOST}:{self._internet.ports[1]}"

    @property
    def install_url(self) -> str:
        """Where Flux's install manifest is."""
        return f"http://{self.web}/flux/install.yaml"

    def git_url(self, name: str) -> str:
        """The address of the repository ``name``, which need not be there."""
        return f"http://{GIT_HOST}:{self._internet.ports[1]}/{name}.git"

    def publish(self, worktree: Path, name: str, branch: str = "main") -> None:
        """Makes ``branch`` of the repository ``name`` the HEAD of ``worktree``."""
        bare = self._git / f"{name}.git"
        if not bare.exists():
            subprocess.run(["git", "init", "-q", "--bare", "-b", branch, bare], check=True)
        push = ["push", "-q", "--force", str(bare), f"HEAD:refs/heads/{branch}"]
        subprocess.run(["git", "-C", str(worktree), *push], check=True, capture_output=True)

    def start_controllers(self) -> None:
        """Returns when all four are ready; Flux's definitions must be there. Raises plane_process.PlaneError."""
        names = [f"{name}/{port}" for name in CONTROLLERS for port in ("metrics", "health")]
        names += ["artifacts", "events", "hooks"]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        for name in CONTROLLERS:
            home = self._folder / "homes" / name
            home.mkdir(parents=True, exist_ok=True)
            environment = {
                "KUBECONFIG": str(self.plane.kubeconfig), "RUNTIME_NAMESPACE": "flux-system", "HOME": str(home),
                "TMPDIR": str(home),
            }  # fmt: skip
            self.plane.processes.start(name, [program(name), *_flags(name, ports, home)], environment)
        for name in CONTROLLERS:
            healthy = functools.partial(_healthy, ports[f"{name}/health"])
            self.plane.processes.wait(name, f"{name}'s /readyz", healthy, _PATIENCE)


def _flags(name: str, ports: Mapping[str, int], home: Path) -> list[str]:
    flags = [
        "--watch-all-namespaces", f"--metrics-addr={HOST}:{ports[f'{name}/metrics']}",
        f"--health-addr={HOST}:{ports[f'{name}/health']}", "--kube-api-qps=200", "--kube-api-burst=400",
    ]  # fmt: skip
    if name == "notification-controller":
        return [*flags, f"--events-addr={HOST}:{ports['events']}", f"--receiverAddr={HOST}:{ports['hooks']}"]
    flags += [f"--events-addr=http://{HOST}:{ports['events']}/", "--requeue-dependency=2s"]
    if name != "source-controller":
        flags.append("--concurrent=8")  # a health check keeps a worker busy until it ends
    else:
        storage = f"{HOST}:{ports['artifacts']}"
        folder = home / "artifacts"
        folder.mkdir()
        flags += [f"--storage-path={folder}", f"--storage-addr={storage}", f"--storage-adv-addr={storage}"]
    return flags


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except http.client.HTTPException as why:
        raise OSError(str(why)) from why
    finally:
        connection.close()


def _asking(charts: Sequence[Chart]) -> list[dict[str, object]]:
    """Manifests that ask for the charts, which is how the bench's internet learns what to publish."""
    found: list[dict[str, object]] = []
    for chart in charts:
        for version in chart.versions:
            name = f"{chart.name}-{version}"
            kind = "OCIRepository" if chart.oci else "HelmRepository"
            source: dict[str, object] = {"url": f"oci://{HOST}/charts/{chart.name}", "ref": {"tag": version}}
            use: dict[str, object] = {"chartRef": {"kind": kind, "name": name}}
            if not chart.oci:
                source = {"url": f"http://{HOST}/helm"}
                reference = {"kind": kind, "name": name}
                use = {"chart": {"spec": {"chart": chart.name, "version": version, "sourceRef": reference}}}
            found += [{"kind": kind, "metadata": {"name": name}, "spec": source}]
            found += [{"kind": "HelmRelease", "metadata": {"name": name}, "spec": use}]
    return found
