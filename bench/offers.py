"""What the internet of the bench has to offer for download, by URL, in the places where fo looks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from bench import home
from bench.build import binary
from bench.image import build as image
from bench.install import install_manifest
from bench.internet.tls import Authority

_K3S = f"https://github.com/k3s-io/k3s/releases/download/{quote(home.K3S_VERSION, safe='')}"
_FLUX = f"https://github.com/fluxcd/flux2/releases/download/{home.FLUX_VERSION}"


def offers(authority: Authority) -> Mapping[str, Path | bytes]:
    """Files and lists of digests by URL. Raises MissingError for what is not built."""
    k3s, flux, debian = binary("k3s"), install_manifest(version_label=False), image.path(authority.certificate())
    folder, _, name = home.IMAGE_URL.rpartition("/")
    version = home.FLUX_VERSION.removeprefix("v")
    return {
        f"{_K3S}/k3s": k3s,
        f"{_K3S}/sha256sum-amd64.txt": _sums("sha256", {"k3s": k3s}),
        f"{_K3S}/sha256sum-arm64.txt": _sums("sha256", {"k3s-arm64": k3s}),  # locked, and never asked for here
        f"{_FLUX}/install.yaml": flux,
        f"{_FLUX}/flux_{version}_checksums.txt": _sums("sha256", {"install.yaml": flux}),
        home.IMAGE_URL: debian,
        f"{folder}/SHA512SUMS": _sums("sha512", {name: debian}),
    }


def _sums(algorithm: str, files: Mapping[str, Path]) -> bytes:
    lines = []
    for name, path in files.items():
        with path.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, algorithm).hexdigest()}  {name}\n")
    return "".join(lines).encode()
