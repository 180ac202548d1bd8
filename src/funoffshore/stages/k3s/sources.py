"""How the K3s binary, and the images of an airgap folder, come to a host: fetched by it, or pushed to it.

Nothing runs that is not pinned: the binary by the digest in the lock file, an archive of images by the release's own
``sha256sum-<arch>.txt``, which lies beside it. Names of the files: K3s documentation, "Air-Gap Install".
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.run import Step
from funoffshore.stages.k3s import files
from funoffshore.world.ssh import HostFacts

if TYPE_CHECKING:
    from funoffshore.world.world import World

LIMIT = 512 << 20
"""Bytes of a binary; today's have 70 MB."""
ENDINGS = (".tar.zst", ".tar.gz", ".tar")
_ASSETS = {"amd64": "k3s", "arm64": "k3s-arm64"}


def asset(arch: str) -> str:
    """The release's file with the binary for ``amd64`` or ``arm64``."""
    return _ASSETS[arch]


def url(config: ClusterConfig, arch: str) -> str:
    """Where the binary is fetched."""
    return f"{config.k3s.download_url.rstrip('/')}/{config.k3s.version.replace('+', '%2B')}/{asset(arch)}"


def problem(config: ClusterConfig, node: Node, host: HostFacts) -> errors.FoError | None:
    """Why there is no binary for this host."""
    if host.architecture not in _ASSETS:
        return errors.PreflightError(
            f"{node.name} has the architecture {host.arch or '(unknown)'}, and K3s is made for amd64 and arm64",
            fix="use another machine",
        )
    if not config.k3s.digest(host.architecture):
        return errors.PreflightError(
            f"{node.name} is an {host.architecture} machine, and no K3s for it is pinned",
            fix=f"pin it: fo lock update -c {config.name}, or K3S_SHA256_ARM64",
        )
    return None


def request(config: ClusterConfig, host: HostFacts) -> list[dict[str, Any]]:
    """The helper's ``download`` items; empty where the binary is pushed."""
    if config.k3s.folder or config.k3s.source == "push":
        return []
    arch = host.architecture
    return [{"path": files.BINARY, "url": url(config, arch), "sha256": config.k3s.digest(arch), "mode": "0755"}]


def push(world: World, config: ClusterConfig, node: Node, host: HostFacts, step: Step) -> None:
    """Brings what the host does not fetch itself. Continues where an earlier attempt ended.

    Raises ConfigError, DigestError for files of the folder that are missing or not what is pinned.
    """
    arch = host.architecture
    digest = config.k3s.digest(arch)
    if config.k3s.folder is None:
        if config.k3s.source == "push":
            source = world.downloads.file(url(config, arch), digest, LIMIT)
            world.hosts.push(node, files.BINARY, source, digest, 0o755, step.say)
        return
    binary = config.k3s.folder / asset(arch)
    _same(binary, digest, "the digest in the lock file")
    world.hosts.push(node, files.BINARY, binary, digest, 0o755, step.say)
    for archive, sum_ in images(config.k3s.folder, arch):
        _same(archive, sum_, f"sha256sum-{arch}.txt")
        world.hosts.push(node, f"{files.IMAGES}/{archive.name}", archive, sum_, 0o644, step.say)


def images(folder: Path, arch: str) -> list[tuple[Path, str]]:
    """The archive of K3s' own images for ``arch`` with its digest; empty when the folder has none."""
    found = [folder / f"k3s-airgap-images-{arch}{ending}" for ending in ENDINGS]
    there = [path for path in found if path.is_file()][:1]
    sums = _sums(folder / f"sha256sum-{arch}.txt") if there else {}
    for path in there:
        if path.name not in sums:
            raise errors.ConfigError(
                f"{path.name} in {folder} cannot be checked: sha256sum-{arch}.txt does not name it",
                fix=f"put the release's sha256sum-{arch}.txt beside it",
            )
    return [(path, sums[path.name]) for path in there]


def _sums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {words[1].lstrip("*"): words[0].lower() for words in pairs if len(words) == 2}


def _same(path: Path, sha256: str, by: str) -> None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as why:
        raise errors.ConfigError(
            f"{path} cannot be read: {why.strerror}", fix="put the release's file there (K3S_FOLDER)"
        ) from None
    if found != sha256:
        raise errors.DigestError(
            f"{path} is not what is pinned: its SHA-256 is {found}, by {by} it is {sha256}",
            fix="put the file of the pinned release there, or run fo lock update for another release",
        )
