"""What the lab offers for download, and the digests that its env file pins. Pure: the same bytes for ever."""

from __future__ import annotations

import hashlib

from funoffshore.lab.flux import install

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
