"""What the lab offers for download, and the digests that its env file pins. Pure: the same bytes for ever."""

from __future__ import annotations

import hashlib

from funoffshore.lab.flux import install
from funoffshore.lab.k3s import executable

IMAGE_PATH = "/images/debian-13-genericcloud-amd64.qcow2"
_IMAGE_KIB = 8


def image() -> bytes:
    """A file that starts like a qcow2 version 3 of 3 GiB (QEMU docs/interop/qcow2) and holds no system."""
    header = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(8) + bytes(4) + (16).to_bytes(4, "big")
    header += (3 * 1024**3).to_bytes(8, "big")
    filler = b"".join(hashlib.sha256(b"funoffshore lab image %d" % n).digest() for n in range(_IMAGE_KIB * 32))
    return (header + filler)[: _IMAGE_KIB * 1024]


def image_sha256() -> str:
    """64 lower-case hex digits."""
    return hashlib.sha256(image()).hexdigest()


def flux_install_path(version: str) -> str:
    """Path of the install manifest; ``version`` is ``v2.9.4``."""
    return f"/flux/{version}/install.yaml"


def flux_install(version: str) -> bytes:
    return install.install_manifest(version).encode()


def flux_install_sha256(version: str) -> str:
    """64 lower-case hex digits."""
    return hashlib.sha256(flux_install(version)).hexdigest()


def k3s_path(version: str) -> str:
    """Path of the K3s binary, decoded; ``version`` is ``v1.36.4+k3s1``."""
    return f"/k3s/{version}/k3s"


def k3s_asset(version: str, name: str) -> bytes | None:
    """An asset of the K3s release ``version``, by the names that releases have; None for another name."""
    for arch in ("amd64", "arm64"):
        held = k3s_assets(version, arch)
        if name in held:
            return held[name]
        if name == f"sha256sum-{arch}.txt":
            return "".join(f"{hashlib.sha256(body).hexdigest()}  {file}\n" for file, body in held.items()).encode()
    return None


def k3s_assets(version: str, arch: str) -> dict[str, bytes]:
    """What ``sha256sum-<arch>.txt`` of a release lists, as far as anybody here asks for it."""
    images = executable.images(version, arch)
    binary = executable.binary(version, arch)
    return {"k3s" if arch == "amd64" else f"k3s-{arch}": binary, f"k3s-airgap-images-{arch}.tar.zst": images}
