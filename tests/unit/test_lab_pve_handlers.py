"""The lab plays every operation that the table has, in every release."""

from __future__ import annotations

import pytest

from funoffshore import pveapi
from funoffshore.lab.pve.handlers import HANDLERS


@pytest.mark.parametrize("release", pveapi.RELEASES)
def test_every_operation_has_its_handler(release: str) -> None:
    assert set(pveapi.table(release)) - set(HANDLERS) == set()


def test_every_handler_is_of_some_release() -> None:
    known = {key for release in pveapi.RELEASES for key in pveapi.table(release)}
    assert set(HANDLERS) - known == set()
