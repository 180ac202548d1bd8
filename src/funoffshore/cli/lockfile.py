"""``fo lock``: which bytes a cluster is built from, and how that is renewed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import config, errors
from funoffshore.cli import common

if TYPE_CHECKING:
    from funoffshore.config.lockfile import Lock

app = typer.Typer(
    help="The lock file config/lock/<cluster>.yaml. Example: fo lock update --k3s -c home", no_args_is_help=True
)
_NEW_BYTES = "its publisher has put other bytes in the same place; find out why before you commit this"


@app.command()
def show(cluster: common.Cluster = None, json: common.Json = False) -> None:
    """Print what is locked: image, K3s and Flux, with their digests.

    Example: fo lock show -c home
    """
    from funoffshore.config import lockfile

    here = common.root()
    name = config.find(here, cluster, os.environ).stem
    locked = lockfile.load(here, name)
    if locked is None:
        raise errors.ConfigError(f"there is no {lockfile.shown(name)}", fix=f"run `fo lock update -c {name}`")
    if json:
        common.data(dict(locked.entries))
    else:
        print("\n".join(f"{path}: {text}" for path, text in locked.entries.items()))


@app.command()
def update(
    cluster: common.Cluster = None,
    image: Annotated[bool, typer.Option("--image", help="Only the image.")] = False,
    k3s: Annotated[bool, typer.Option("--k3s", help="Only K3s.")] = False,
    flux: Annotated[bool, typer.Option("--flux", help="Only Flux.")] = False,
) -> None:
    """Ask the publishers for the digests of what the env file wants, show what changes, and write the lock file.

    Where the env file names no IMAGE_URL, the newest dated image of the same publisher is taken. A cluster of existing
    machines has no image to lock.

    Example: fo lock update --image -c home
    """
    from funoffshore.config import loader, lockfile, pins

    here = common.root()
    path = config.find(here, cluster, os.environ)
    wanted = loader.wanted(path, here)
    if wanted.get("LAB"):
        raise errors.ConfigError(f"{path.stem} is a lab, whose digests come with fo and stand in its env file")
    chosen = [name for name, on in zip(lockfile.SECTIONS, (image, k3s, flux), strict=True) if on]
    existing = wanted.get("MACHINES") == "existing"
    if existing and image:
        raise errors.ConfigError(f"fo makes no machine of {path.stem}, so there is no image to lock")
    sections = chosen or [section for section in lockfile.SECTIONS if section != "image" or not existing]
    before = _before(here, path.stem, whole=not chosen)
    fresh = pins.fetch(common.download, wanted, sections, before)
    kept = {
        entry: text for entry, text in (before.entries if before else {}).items() if _section(entry) not in sections
    }
    after = lockfile.ordered(kept | dict(fresh.entries))
    _tell(before, after, path.stem)
    if "image" in sections and not fresh.has("image") and not wanted.get("IMAGE_TEMPLATE"):
        common.say("no list of digests is known for this IMAGE_URL: give IMAGE_SHA256 or IMAGE_SHA512 in the env file")
    if after.entries:
        lockfile.write(here, path.stem, after)


def _before(here: Path, name: str, *, whole: bool) -> Lock | None:
    """What is locked now. A file that cannot be read is in nobody's way when all of it is renewed."""
    from funoffshore.config import lockfile

    try:
        return lockfile.load(here, name)
    except errors.ConfigError as why:
        if not whole:
            raise
        common.say(f"{why.message}, and is written anew:")
        for line in why.evidence:
            common.say(f"    {line}")
        return None


def _tell(before: Lock | None, after: Lock, name: str) -> None:
    """What changes: on stdout, and what is odd about it on stderr."""
    from funoffshore.config import lockfile

    changes = lockfile.changes(before, after)
    for entry, old, new in changes:
        print(f"{entry}: {old or 'nothing'} -> {new or 'nothing'}")
    if not changes:
        common.say(f"{lockfile.shown(name)} is as its publishers say; nothing changed")
    changed = {entry for entry, old, new in changes if old and new}
    for section, release in (("image", "image.url"), ("k3s", "k3s.version"), ("flux", "flux.version")):
        if release not in changed and any(_section(entry) == section and "sha" in entry for entry in changed):
            common.say(f"warning: {section} has another digest and is the same release: {_NEW_BYTES}")


def _section(entry: str) -> str:
    return entry.split(".")[0]
