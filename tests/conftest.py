"""Shared by all tests: where reference data may lie, and helpers on the path."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from real_home import RealOperator

for folder in ("", "bench", "unit", "contract", "real"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

pytest_plugins = ("internet_fixtures",)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data; skips the test where there is none."""
    found = Path(os.environ.get("FO_SHARED") or Path(__file__).parents[2] / "shared")
    if not found.is_dir():
        pytest.skip("no reference data beside the project")
    return found


@pytest.fixture(scope="session")
def right_to_the_bench() -> Iterator[None]:
    """One run at a time uses the bench. Skips where this machine cannot run one, and says why."""
    from bench import control

    if why := control.obstacles():
        pytest.skip(f"THE BENCH IS NOT TRIED: {'; '.join(why)}")
    with control.alone():
        try:
            yield
        finally:
            control.down()


@pytest.fixture(scope="module")
def operator(right_to_the_bench: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOperator]:
    """An operator's clone, and an empty Proxmox with real machines behind it."""
    from real_home import RealOperator

    from bench import control

    control.up()
    try:
        yield RealOperator(tmp_path_factory.mktemp("home") / "home")
    finally:
        control.down()
