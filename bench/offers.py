"""What the internet of the bench has to offer for download, by URL, in the places where fo looks."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from bench import home, release
from bench.build import binary
from bench.image import build as image
from bench.install import install_manifest
from bench.internet.tls import Authority

_FLUX = f"https://github.com/fluxcd/flux2/releases/download/{home.FLUX_VERSION}"


def offers(authority: Authority) -> Mapping[str, Path | bytes]:
    """Files and lists of digests by URL. Raises MissingError for what is not built."""
    k3s, flux, debian = binary("k3s"), install_manifest(version_label=False), image.path(authority.certificate())
    folder, _, name = home.IMAGE_URL.rpartition("/")
    version = home.FLUX_VERSION.removeprefix("v")
    return {
        **_k3s(home.K3S_VERSION, k3s),
        **_k3s(home.K3S_NEXT, release.labelled(k3s, home.K3S_NEXT)),
        f"{_FLUX}/install.yaml": flux,
        f"{_FLUX}/flux_{version}_checksums.txt": _sums("sha256", {"install.yaml": flux}),
        home.IMAGE_URL: debian,
        f"{folder}/SHA512SUMS": _sums("sha512", {name: debian}),
    }


def _k3s(version: str, program: Path | bytes) -> dict[str, Path | bytes]:
    """What K3s' own release of that name has, as far as it is asked for."""
    place = f"https://github.com/k3s-io/k3s/releases/download/{quote(version, safe='')}"
    return {
        f"{place}/k3s": program,
        f"{place}/sha256sum-amd64.txt": _sums("sha256", {"k3s": program}),
        f"{place}/sha256sum-arm64.txt": _sums("sha256", {"k3s-arm64": program}),  # locked, and never asked for here
    }


def _sums(algorithm: str, files: Mapping[str, Path | bytes]) -> bytes:
    lines = []
    for name, content in files.items():
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, algorithm).hexdigest()}  {name}\n")
    return "".join(lines).encode()
