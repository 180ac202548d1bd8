"""Shared by all tests: where reference data may lie, and helpers on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

for folder in ("", "unit", "contract"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data; skips the test where there is none."""
    found = Path(os.environ.get("FO_SHARED") or Path(__file__).parents[2] / "shared")
    if not found.is_dir():
        pytest.skip("no reference data beside the project")
    return found
