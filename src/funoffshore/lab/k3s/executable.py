"""The file that stands in for the k3s binary. Its first line says which program of the lab it is, and its version."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

INTERPRETER = "#!funoffshore-lab k3s "
_SIZE = 8192


@cache
def binary(version: str, architecture: str = "amd64") -> bytes:
    """The "binary" of ``version`` (``v1.36.4+k3s1``) for ``amd64`` or ``arm64``: the same bytes on every machine, for
    ever."""
    head = f"{INTERPRETER}{version}{' ' + architecture if architecture != 'amd64' else ''}\n".encode()
    filler = hashlib.shake_256(head).digest(_SIZE - len(head))
    return head + bytes(32 + b % 95 for b in filler)


def digest(version: str, architecture: str = "amd64") -> str:
    """SHA-256 of ``binary(version, architecture)``, lower-case hex; what an env file pins."""
    return hashlib.sha256(binary(version, architecture)).hexdigest()


def version_of(path: Path) -> str:
    """Version in the file at ``path``; ``v0.0.0`` when it is no binary of the lab."""
    try:
        with path.open("rb") as file:
            first = file.readline(200).decode("utf-8", "replace")
    except OSError:
        return "v0.0.0"
    return first.removeprefix(INTERPRETER).split()[0] if first.startswith(INTERPRETER) else "v0.0.0"


@cache
def images(version: str, architecture: str) -> bytes:
    """What stands for ``k3s-airgap-images-<architecture>.tar.zst``: the magic of Zstandard (RFC 8878), and bytes."""
    head = b"\x28\xb5\x2f\xfd" + f"images of k3s {version} {architecture}\n".encode()
    return head + hashlib.shake_256(head).digest(4096)
