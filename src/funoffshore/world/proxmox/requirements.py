"""Requests held against the table of the connected release before they are sent, so that no slip reaches Proxmox."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from funoffshore import errors, pveapi
from funoffshore.world.proxmox.shapes import Version


def table_of(version: Version) -> str:
    """The newest release with a table that is not newer than ``version``; the oldest one for what is older."""
    known = {tuple(int(part) for part in release.split(".")): release for release in pveapi.RELEASES}
    fitting = [release for release in known if release <= version.release]
    return known[max(fitting)] if fitting else pveapi.RELEASES[0]


def check(version: Version, method: str, path: str, parameters: Mapping[str, object]) -> None:
    """Raises RefusedError naming each field that Proxmox would complain of, in its own words. Nothing was sent.

    An operation that only another release's table has is held against that one: a release between two tables may well
    have it, and if not says so itself. Raises FoError for what is no operation of the API at all.
    """
    complaints = _complaints(version, method, path, parameters)
    if not complaints:
        return
    evidence = tuple(f"{name}: {' '.join(said.split())}" for name, said in sorted(complaints.items()))
    raise errors.RefusedError(
        f"Proxmox {version.text} would refuse {method} {path}, so it was not sent ({'; '.join(evidence)})",
        status=400,
        evidence=evidence,
    )


def _complaints(version: Version, method: str, path: str, parameters: Mapping[str, object]) -> dict[str, str]:
    for release in (table_of(version), *reversed(pveapi.RELEASES)):
        with contextlib.suppress(pveapi.UnknownOperationError):
            return pveapi.check(release, method, path, parameters)
    raise errors.FoError(f"fo was about to send {method} {path}, which no release of Proxmox knows: a bug in fo")
