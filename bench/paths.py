"""Where the bench keeps what it built and what it runs."""

from __future__ import annotations

import os
from pathlib import Path


def project() -> Path:
    """The project's folder."""
    return Path(__file__).resolve().parents[1]


def cache() -> Path:
    """What was built, outside the tree: ``FO_BENCH_CACHE``, or ~/.cache/funoffshore-bench."""
    return Path(os.environ.get("FO_BENCH_CACHE") or Path.home() / ".cache" / "funoffshore-bench")


def run() -> Path:
    """What runs: disks, logs, Git. Removed at the end."""
    return cache() / "run"
