"""The same Flux twice: the embedded lab's, and real controllers on a real control plane; both through fo's doors."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from flux_bench import GIT, HELM_RELEASE, KUSTOMIZATION, Worktree, condition, network
from kube_server import address, pair

from funoffshore import clock, health
from funoffshore import config as configs
from funoffshore.config import new
from funoffshore.config.model import ClusterConfig
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present
from funoffshore.stages import flux as stage
from funoffshore.stages.flux import work
from funoffshore.world.download import Downloads
from funoffshore.world.git import Repo
from funoffshore.world.kube import Kube
from funoffshore.world.routes import Routes
from funoffshore.world.world import World

Object = dict[str, Any]
SPACE = "flux-system"
SPEED = 15.0
"""Of the lab: a health check of 30 s takes two, which is long enough to be seen under way."""
CHARTS = {"podinfo": ("1.2.3", "v2.0.0"), "podinfo-old": ("1.2.4",)}
"""Versions by chart; the first is in an OCI registry, the other in a Helm repository."""


class Said:
    """A step of fo that nobody watches."""

    def say(self, sentence: str) -> None: ...

    def record(self, **ids: str) -> None: ...

    def recorded(self, name: str) -> str | None:
        return None

    def checkpoint(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Servers:
    """What the backends differ in."""

    kind: str
    clock: clock.Clock
    kubeconfig: Path
    routes: Path | None
    install: tuple[str, str]
    """URL of Flux's manifest, and its SHA-256."""
    charts: str
    """Host and port of a registry below ``charts/`` and of a Helm repository below ``helm``."""
    git_url: Callable[[str], str]
    publish: Callable[[Path, str], object]
    started: Callable[[], None]
    """To be called once Flux is installed."""
    patience: float
    """Seconds that anything here may take."""


class Flux:
    """A cluster in which fo has installed Flux, seen through fo's own client."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.servers = servers
        self.kind = servers.kind
        self.folder = folder
        routes = Routes(servers.routes)
        self.config = _config(servers, folder)
        self.world = World(
            clock=servers.clock, proxmox=cast("Any", None), hosts=cast("Any", None),
            kube=Kube(servers.kubeconfig, routes, servers.clock), repo=Repo(self.config, routes),
            downloads=Downloads(folder / "cache", routes), reach=cast("Any", None),
        )  # fmt: skip
        self.kube = self.world.kube
        stage.apply(self.world, self.config, Action(Verb.CREATE, "flux/controllers", "", stage="flux"), Said())
        servers.started()

    def find(self, kind: str, name: str, namespace: str = SPACE) -> Object | None:
        seen = self.kube.get(kind, namespace, name)
        assert isinstance(seen, Present | Absent), seen
        return seen.value if isinstance(seen, Present) else None

    def get(self, kind: str, name: str, namespace: str = SPACE) -> Object:
        found = self.find(kind, name, namespace)
        assert found is not None, f"{kind} {name} is absent"
        return found

    def put(self, kind: str, name: str, spec: Object, namespace: str = SPACE, **rest: Any) -> Object:
        """Applies an object as fo does; without ``spec`` when that is empty."""
        api, _, short = kind.rpartition("/")
        obj: Object = {"apiVersion": api, "kind": short, "metadata": {"name": name, "namespace": namespace}, **rest}
        if not namespace:
            del obj["metadata"]["namespace"]
        if spec:
            obj["spec"] = spec
        [stored] = self.kube.apply([obj], "fo", force=True)
        return stored

    def request(self, kind: str, name: str, **marks: str) -> str:
        """Asks for a reconciliation, as ``flux reconcile`` does; the token."""
        token = f"{time.time():.6f}"
        names = {"requestedAt": token, **dict.fromkeys(marks, token)}
        stamp = {f"reconcile.fluxcd.io/{mark}": value for mark, value in names.items()}
        self.kube.patch(kind, SPACE, name, {"metadata": {"annotations": stamp}})
        return token

    def until(self, look: Callable[[], Any], say: Callable[[], Any] = lambda: "") -> Any:
        end = time.monotonic() + self.servers.patience
        while not (found := look()):
            assert time.monotonic() < end, f"did not come to pass: {say()}"
            time.sleep(0.02 if self.kind == "lab" else 0.2)
        return found

    def says(self, kind: str, name: str, reason: str, part: str = "", type_: str = "Ready", **status: Any) -> Object:
        """Waits until a condition has a reason and a message with ``part``, at the present generation unless the object
        is suspended, and the status holds ``status`` (of a revision: its end)."""

        def look() -> Object | None:
            found = self.find(kind, name)
            said = condition(found, type_) if found else None
            if not found or not said or said["reason"] != reason or part not in said["message"]:
                return None
            if said.get("observedGeneration") != found["metadata"]["generation"] and not found["spec"].get("suspend"):
                return None
            held = found["status"]
            return found if all(str(held.get(k, "")).endswith(v) for k, v in status.items()) else None

        found: Object = self.until(look, lambda: (self.find(kind, name) or {}).get("status"))
        return found

    def gone(self, kind: str, name: str, namespace: str = "default") -> None:
        self.until(lambda: self.find(kind, name, namespace) is None, lambda: f"{kind} {name} is still there")

    def lag(self, kind: str, name: str, commit: str) -> str:
        """What fo says is missing until the object is ready at ``commit``."""
        return work.lag(self.kube.get(kind, SPACE, name), Present(commit))

    def ready(self, kind: str, name: str, commit: str) -> Object:
        """Waits until fo calls the object ready at ``commit``."""
        self.until(lambda: self.lag(kind, name, commit) == "", lambda: self.lag(kind, name, commit))
        return self.get(kind, name)


class Story:
    """A Git repository of its own, with a GitRepository of the same name that follows it."""

    def __init__(self, flux: Flux, name: str, files: dict[str, str | None]) -> None:
        self.flux = flux
        self.name = name
        self.worktree = Worktree(flux.folder / "work" / name)
        self.commit = self.push(files)
        self.follow()

    def push(self, files: dict[str, str | None]) -> str:
        """Commits and publishes; Flux is not told."""
        self.commit = self.worktree.commit(files)
        self.flux.servers.publish(self.worktree.folder, self.name)
        return self.commit

    def publish(self, files: dict[str, str | None]) -> str:
        """Commits, publishes, and asks the source to look."""
        commit = self.push(files)
        self.flux.request(GIT, self.name)
        return commit

    def follow(self, **spec: Any) -> Object:
        whole = {"interval": "10m", "ref": {"branch": "main"}, "timeout": "20s",
                 "url": self.flux.servers.git_url(self.name)}  # fmt: skip
        return self.flux.put(GIT, self.name, whole | spec)

    def kustomize(self, name: str = "", **spec: Any) -> str:
        """A Kustomization of the folder ``name``, or of ``apps``; its name."""
        whole: Object = {"interval": "10m", "path": f"./{name or 'apps'}", "prune": True, "retryInterval": "3s",
                         "timeout": "10s", "sourceRef": {"kind": "GitRepository", "name": self.name}}  # fmt: skip
        full = f"{self.name}-{name}" if name else self.name
        self.flux.put(KUSTOMIZATION, full, whole | spec)
        return full

    def ready(self, name: str = "") -> Object:
        """Waits until fo calls the Kustomization ready at the newest commit."""
        return self.flux.ready(KUSTOMIZATION, name or self.name, self.commit)


def _config(servers: Servers, folder: Path) -> ClusterConfig:
    pins = {"FLUX_INSTALL_SHA256": servers.install[1], "K3S_SHA256": "1" * 64, "IMAGE_SHA256": "2" * 64,
            "PROXMOX_FINGERPRINT": "AB:" * 31 + "AB"}  # fmt: skip
    parsed = configs.parse(new.generate("lab", pins, lab=True), "lab", folder)
    return dataclasses.replace(
        parsed,
        git=dataclasses.replace(parsed.git, url=servers.git_url("home"), branch="main", path="infra/k8s/flux"),
        flux=dataclasses.replace(parsed.flux, install_url=servers.install[0], install_sha256=servers.install[1]),
    )


# The lab


@contextlib.contextmanager
def _lab(folder: Path) -> Iterator[Servers]:
    from funoffshore.lab import base
    from funoffshore.lab.flux import Flux as LabFlux
    from funoffshore.lab.kube.cluster import KubeCluster
    from funoffshore.lab.web import Web, offers

    store = base.Store(folder / "lab" / "lab.sqlite")
    kit = base.Kit(folder / "lab", base.LabClock(SPEED), store, base.Latencies(), base.Faults(store),
                   base.Ledger(store), base.Routes(folder / "lab"))  # fmt: skip
    web = Web(kit, f"{network()}.3")
    authority, host = pair("k3s-ca"), address()
    admin, server = pair("system:admin", authority), pair("k3s", authority, host)
    cluster = KubeCluster(kit, "demo", ca=authority.pem.decode())
    flux = LabFlux(kit, cluster)
    web.start()
    cluster.listen(host, 6443, server.pem, server.key_pem, authority.pem, lambda _: None)
    for name in ("n1", "n2"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}}
        cluster.create({**node, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "kubelet")
    flux.start()
    try:
        yield Servers(
            "lab", kit.clock, _kubeconfig(folder, f"https://{host}:6443", authority, admin),
            folder / "lab" / "routes.json",
            (web.url + offers.flux_install_path("v2.9.4"), offers.flux_install_sha256("v2.9.4")),
            "charts.example.org", web.git_url, web.publish, lambda: None, 30.0,
        )  # fmt: skip
    finally:
        flux.stop()
        cluster.close()
        web.stop()
        kit.clock.stop()
        store.close()


def _kubeconfig(folder: Path, server: str, authority: Any, admin: Any) -> Path:
    from bench.plane import kubeconfig

    file = folder / "kubeconfig"
    file.touch(mode=0o600)
    file.write_bytes(kubeconfig(server, authority, admin))
    return file


# The real one


@contextlib.contextmanager
def _real(folder: Path) -> Iterator[Servers]:
    from bench.build import BuildError
    from bench.flux_plane import Chart, FluxPlane
    from bench.install import install_manifest

    try:
        manifest = install_manifest(version_label=False)
        charts = [Chart(name, versions, name == "podinfo") for name, versions in CHARTS.items()]
        made = FluxPlane(folder / "bench", manifest, charts)
        made.start()
    except BuildError as why:
        pytest.skip(f"REAL FLUX IS NOT TRIED: {why}")
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    with contextlib.ExitStack() as stack:
        stack.callback(made.stop)
        yield Servers(
            "real", clock.WallClock(), made.plane.kubeconfig, None, (made.install_url, digest), made.web,
            made.git_url, made.publish, made.start_controllers, 90.0,
        )  # fmt: skip


# For the tests

BACKENDS = ["lab", pytest.param("real", marks=pytest.mark.real)]
_KEPT = pytest.StashKey[dict[str, Flux]]()


def kept(request: pytest.FixtureRequest) -> Flux:
    """The backend ``request.param``, made on first use and kept for the whole session: a start takes half a minute."""
    flux = request.session.stash.setdefault(_KEPT, {})
    kind = str(request.param)
    if kind not in flux:
        folder = request.getfixturevalue("tmp_path_factory").mktemp(f"flux-{kind}")
        stack = contextlib.ExitStack()
        request.session.addfinalizer(stack.close)
        flux[kind] = Flux(stack.enter_context({"lab": _lab, "real": _real}[kind](folder)), folder)
    return flux[kind]


def state(obj: Object) -> health.State:
    """What fo makes of it."""
    return health.assess(obj).state


__all__ = ["BACKENDS", "GIT", "HELM_RELEASE", "KUSTOMIZATION", "SPACE", "Flux", "Object", "Said", "Story",
           "Worktree", "condition", "kept", "state"]  # fmt: skip
