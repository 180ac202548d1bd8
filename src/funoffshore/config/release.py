"""Another release of K3s for a cluster: its digests asked for, and pinned where the cluster's pins stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from funoffshore import errors
from funoffshore.config import edit, envfile, kinds, loader, lockfile, pins

_DIGESTS = {"K3S_SHA256": "k3s.sha256.amd64", "K3S_SHA256_ARM64": "k3s.sha256.arm64"}


def parse(version: str) -> str:
    """``version`` if it is one like ``v1.36.4+k3s1``. Raises ConfigError."""
    try:
        kinds.K3S_VERSION.parse(version)
    except ValueError:
        raise errors.ConfigError(f"{version!r} is no release of K3s", fix="give one like v1.36.4+k3s1") from None
    return version


def pin(path: Path, root: Path, version: str, get: pins.Fetch, folder: Path | None = None) -> None:
    """Pins ``version`` for the cluster of the env file ``path``: in the lock file where K3s is locked, and in every key
    of the env file that speaks of it. The env file first: a run that ends in between leaves what ``fo lock update``
    completes. ``folder``: the airgap folder, where the digests are taken from it.

    Raises ConfigError, and what ``get`` raises; nothing is written then.
    """
    before = lockfile.load(root, path.stem)
    is_locked = before is not None and before.has("k3s")
    wanted = {**loader.wanted(path, root), "K3S_VERSION": version}
    fresh = pins.fetch(_in(folder) if folder else get, wanted, ["k3s"], before).entries
    given = envfile.parse(path.read_bytes()).entries
    if changes := _changes(given, fresh, version, is_locked=is_locked):
        edit.set_values(path, changes)
    if before is not None and is_locked:
        kept = {entry: text for entry, text in before.entries.items() if not entry.startswith("k3s.")}
        lockfile.write(root, path.stem, lockfile.ordered(kept | dict(fresh)))


def _changes(given: Collection[str], fresh: Mapping[str, str], version: str, *, is_locked: bool) -> dict[str, str]:
    changes = {"K3S_VERSION": version} if "K3S_VERSION" in given or not is_locked else {}
    for key, entry in _DIGESTS.items():
        if entry in fresh and (key in given or not is_locked):
            changes[key] = fresh[entry]
    return changes


def _in(folder: Path) -> pins.Fetch:
    """An airgap folder in the place of the publisher: the lists of digests lie in it."""

    def get(url: str) -> bytes:
        file = folder / url.rsplit("/", 1)[-1]
        try:
            return file.read_bytes()
        except OSError as why:
            raise errors.ConfigError(
                f"{file} cannot be read: {why.strerror}", fix="put the files of the new release into K3S_FOLDER first"
            ) from None

    return get
