"""Container images made here: the real program where the bench has one, else our stand-in, which says so in labels."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.internet.layers import Layer, Layers
from bench.internet.reply import canonical
from bench.internet.tree import Tree, full_reference

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LABEL = "dev.funoffshore.bench"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_STANDIN = "/standin"
APPLICATION = "/usr/bin/application"
"""The stand-in as an application: it serves its ports whatever its arguments are."""

REAL = {
    "ghcr.io/fluxcd/source-controller": "source-controller",
    "ghcr.io/fluxcd/kustomize-controller": "kustomize-controller",
    "ghcr.io/fluxcd/helm-controller": "helm-controller",
    "ghcr.io/fluxcd/notification-controller": "notification-controller",
    "docker.io/rancher/mirrored-coredns-coredns": "coredns",
    "docker.io/coredns/coredns": "coredns",
    "registry.k8s.io/coredns/coredns": "coredns",
}
"""Repository → program of the bench that its images really hold, whatever the tag."""


@dataclass(frozen=True, slots=True)
class _System:
    """An image that neither infra/k8s nor a chart names, but K3s or kube-vip's manifest. Any tag exists."""

    entrypoint: str
    user: str = "0:0"
    ports: tuple[int, ...] = ()


_SYSTEM = {
    "ghcr.io/kube-vip/kube-vip": _System("/kube-vip"),
    "docker.io/rancher/mirrored-pause": _System("/pause", "65535:65535"),
    "registry.k8s.io/pause": _System("/pause", "65535:65535"),
    "docker.io/rancher/local-path-provisioner": _System("/usr/bin/local-path-provisioner"),
    "docker.io/rancher/mirrored-library-busybox": _System(APPLICATION),
    "docker.io/rancher/klipper-lb": _System("/usr/bin/entry"),
    "docker.io/rancher/klipper-helm": _System("/usr/bin/entry"),
    "docker.io/rancher/mirrored-metrics-server": _System("/metrics-server", "65534:65534", (10250,)),
    "docker.io/rancher/mirrored-library-traefik": _System("/usr/bin/traefik", "65532:65532", (8000, 8080, 8443, 9100)),
}
CHARTS = "registry.bench.internal/standin"
"""Where the images of our stand-in charts are, one repository for each chart. Any tag exists."""


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest, and the one small blob that is not a layer."""

    manifest: bytes
    config: bytes
    layer: Layer

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return digest(self.manifest)


class Images:
    """All images by reference. ``binaries`` gives the path of a built program and may raise for one that is not."""

    def __init__(self, folder: Path, *, authority: bytes, tree: Tree, binaries: Callable[[str], Path]) -> None:
        self._layers = Layers(folder, authority)
        self._tree = tree
        self._binaries = binaries
        self._lock = threading.Lock()
        self._images: dict[str, Image | None] = {}
        self._blobs: dict[str, bytes | Path] = {}

    def find(self, repository: str, reference: str) -> Image | None:
        """By tag or manifest digest; None for what nobody publishes. ``repository`` begins with the registry's host."""
        with self._lock:
            if reference.startswith("sha256:"):
                found = (i for n, i in self._images.items() if i and n.startswith(f"{repository}:"))
                return next((i for i in found if i.digest == reference), None)
            name = f"{repository}:{reference}"
            if name not in self._images:
                self._images[name] = self._make(repository, name)
            return self._images[name]

    def blob(self, wanted: str) -> bytes | Path | None:
        """A config or layer by digest, once an image with it was asked for."""
        with self._lock:
            return self._blobs.get(wanted)

    def tags(self, repository: str) -> list[str]:
        """What is known by tag; of images that exist at any tag, those that were asked for."""
        with self._lock:
            names = [*self._tree.images, *(n for n, image in self._images.items() if image)]
        return sorted({n.rpartition(":")[2] for n in names if n.rpartition(":")[0] == repository and "@" not in n})

    def _make(self, repository: str, name: str) -> Image | None:
        if repository in REAL:
            program = REAL[repository]
            layer = self._layers.get(program, self._binaries(program), f"/usr/local/bin/{program}")
            user = "0:0" if program == "coredns" else "65534:65534"  # a port below 1024
            made = _image(layer, name, program, program, user, {"GNUPGHOME": "/tmp"})  # noqa: S108
        elif repository in _SYSTEM:
            system = _SYSTEM[repository]
            made = _image(self._standin(), name, "", system.entrypoint, system.user, _ports(system.ports))
        elif name in self._tree.images or repository.startswith(CHARTS + "/"):
            ports = _ports(self._tree.images.get(name, ()))
            made = _image(self._standin(), name, "", APPLICATION, "65534:65534", ports)
        else:
            return None
        self._blobs[digest(made.config)] = made.config
        self._blobs[made.layer.digest] = made.layer.path
        return made

    def _standin(self) -> Layer:
        commands = {c if c.startswith("/") else f"/usr/bin/{c}" for c in self._tree.commands}
        links = {APPLICATION, *(s.entrypoint for s in _SYSTEM.values()), *commands}
        return self._layers.get("standin", self._binaries("standin"), _STANDIN, links - {_STANDIN})


def digest(content: bytes) -> str:
    """``sha256:…``"""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _ports(ports: tuple[int, ...]) -> dict[str, str]:
    return {"STANDIN_PORTS": ",".join(map(str, ports))} if ports else {}


def _image(layer: Layer, name: str, program: str, entrypoint: str, user: str, environment: Mapping[str, str]) -> Image:
    """``program``: the real one inside, or empty for the stand-in."""
    says = (
        f"the real {program}, built from source" if program else "a stand-in of funoffshore's bench, not the original"
    )
    config = canonical({
        "architecture": _ARCHITECTURES.get(platform.machine(), "amd64"),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": user,
            "Env": [_PATH, *(f"{k}={v}" for k, v in sorted(environment.items()))],
            "Entrypoint": [entrypoint],
            "WorkingDir": "/",
            "Labels": {_LABEL: says, "org.opencontainers.image.ref.name": full_reference(name)},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "funoffshore bench", "comment": says}],
    })  # fmt: skip
    manifest = canonical({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size}],
        "annotations": {_LABEL: says},
    })  # fmt: skip
    return Image(manifest, config, layer)
