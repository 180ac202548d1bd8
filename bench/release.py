"""A second release of K3s to upgrade to: the same stand-in, under another version."""

from __future__ import annotations

from pathlib import Path

MARK = b"\nbench-k3s-version="
"""What the program looks for at its own end; the Kubernetes programs that it starts call themselves the same."""


def labelled(program: Path, version: str) -> bytes:
    """The program's bytes under another version. Raises ValueError for one that is too long."""
    label = MARK + version.encode() + b"\n"
    if len(label) > 128:
        raise ValueError(f"{version} is too long for a version of K3s")
    return program.read_bytes() + label
