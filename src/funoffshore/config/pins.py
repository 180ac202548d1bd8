"""Digests of what a cluster is built from, as their publishers give them over HTTPS today.

Fetched by ``fo init`` and ``fo lock update``, and kept in the lock file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from funoffshore import errors
from funoffshore.config import keys, kinds, lockfile
from funoffshore.config.lockfile import Lock

Fetch = Callable[[str], bytes]
"""Gets the body at an https:// URL; raises an FoError when it cannot."""

ARCHITECTURES = ("amd64", "arm64")
_DEBIAN = "https://cloud.debian.org/images/cloud/trixie"
_DEBIAN_IMAGE = "debian-13-genericcloud-amd64"
_UBUNTU = "https://cloud-images.ubuntu.com/releases/noble"
_UBUNTU_IMAGE = "ubuntu-24.04-server-cloudimg-amd64.img"
_MOVING = re.compile(r"/(?:latest|current|daily|release)/[^/]*$")
"""Folders whose files are replaced with each release."""


@dataclass(frozen=True, slots=True)
class _Publisher:
    """Who publishes images, and how."""

    sums: str
    """Name of the list of digests beside an image."""
    entry: str
    kind: kinds.Kind


_PUBLISHERS: Mapping[str, _Publisher] = {
    "cloud.debian.org": _Publisher("SHA512SUMS", "image.sha512", kinds.HEX128),
    "cloud-images.ubuntu.com": _Publisher("SHA256SUMS", "image.sha256", kinds.HEX64),
}


def fetch(
    get: Fetch,
    wanted: Mapping[str, str] | None = None,
    sections: Collection[str] = lockfile.SECTIONS,
    before: Lock | None = None,
) -> Lock:
    """What to lock in ``sections``; ``wanted`` may hold versions and URLs, by key of the env file.

    Without an IMAGE_URL it is the newest dated image of the publisher of the one in ``before``, else of Debian 13; with
    one that moves it is the dated one that it leads to. An
    image of a publisher whose lists are not known here is left out, so that the operator gives its digest; so is any
    image beside an IMAGE_TEMPLATE. Raises what ``get`` raises, and DigestError when a list does not hold what it
    should.
    """
    given = wanted or {}
    chosen = {name: key.default or "" for name, key in keys.known().keys.items()} | dict(given)
    found: dict[str, str] = {}
    if "image" in sections and not chosen["IMAGE_TEMPLATE"]:
        found |= _image(get, given.get("IMAGE_URL", ""), before.entries.get("image.url", "") if before else "")
    if "k3s" in sections:
        found |= _k3s(get, chosen["K3S_DOWNLOAD_URL"], chosen["K3S_VERSION"])
    if "flux" in sections:
        url = chosen["FLUX_INSTALL_URL"] if given.get("FLUX_INSTALL_URL") else ""
        found |= _flux(get, chosen["FLUX_VERSION"], url)
    return lockfile.ordered(found)


def is_moving(url: str) -> bool:
    """Whether ``url`` leads to another image after each release of its publisher."""
    return kinds.host_of(url) in _PUBLISHERS and _MOVING.search(url) is not None


def newest_debian(get: Fetch) -> str:
    """URL of the newest dated image; a moving one would break its pin at the next release.

    ``<image>.json`` beside the image names its build (debian-cloud-images, ``data.info.version``).
    """
    about = get(f"{_DEBIAN}/latest/{_DEBIAN_IMAGE}.json").decode("utf-8", "replace")
    match = re.search(r'"version"\s*:\s*"([0-9]{8}-[0-9]{1,6})"', about)
    if match is None:
        raise errors.DigestError(f"{_DEBIAN_IMAGE}.json does not name the build of the image", fix="give IMAGE_URL")
    return f"{_DEBIAN}/{match[1]}/{_DEBIAN_IMAGE}-{match[1]}.qcow2"


def newest_ubuntu(get: Fetch) -> str:
    """URL of the newest dated image of Ubuntu 24.04: the last ``release-<date>`` that the folder's page lists."""
    listed = get(f"{_UBUNTU}/").decode("utf-8", "replace")
    releases = re.findall(r'href="release-([0-9]{8}(?:\.[0-9]{1,3})?)/"', listed)
    if not releases:
        raise errors.DigestError(f"{_UBUNTU}/ lists no release", fix="give IMAGE_URL")
    newest = max(releases, key=lambda release: tuple(int(part) for part in release.split(".")))
    return f"{_UBUNTU}/release-{newest}/{_UBUNTU_IMAGE}"


def _image(get: Fetch, wanted: str, before: str) -> dict[str, str]:
    url = wanted
    if not wanted or is_moving(wanted):
        if wanted and not wanted.startswith(f"{_DEBIAN}/") and "/noble/" not in wanted:
            raise errors.DigestError(f"{wanted} changes with each release", fix="give the URL of a dated image")
        is_ubuntu = kinds.host_of(wanted or before) == "cloud-images.ubuntu.com"
        url = newest_ubuntu(get) if is_ubuntu else newest_debian(get)
    publisher = _PUBLISHERS.get(kinds.host_of(url))
    if publisher is None:
        return {}
    folder, _, file = url.rpartition("/")
    digest = _listed(get(f"{folder}/{publisher.sums}"), file, publisher.kind, publisher.sums)
    return {"image.url": url, publisher.entry: digest}


def _k3s(get: Fetch, base: str, version: str) -> dict[str, str]:
    found = {"k3s.version": version}
    for architecture in ARCHITECTURES:
        name = f"sha256sum-{architecture}.txt"
        file = "k3s" if architecture == "amd64" else f"k3s-{architecture}"
        body = get(f"{base.rstrip('/')}/{quote(version, safe='')}/{name}")
        found[f"k3s.sha256.{architecture}"] = _listed(body, file, kinds.HEX64, name)
    return found


def _flux(get: Fetch, version: str, url: str) -> dict[str, str]:
    """From the release's checksums; install.yaml itself is hashed where they do not list it."""
    base = f"https://github.com/fluxcd/flux2/releases/download/{version}"
    url, name = url or f"{base}/install.yaml", f"flux_{version.removeprefix('v')}_checksums.txt"
    try:
        digest = _listed(get(f"{base}/{name}"), "install.yaml", kinds.HEX64, name)
    except errors.DigestError:
        digest = hashlib.sha256(get(url)).hexdigest()
    return {"flux.version": version, "flux.url": url, "flux.sha256": digest}


def _listed(body: bytes, file: str, kind: kinds.Kind, name: str) -> str:
    """The digest of ``file`` in a list as sha256sum(1) writes it."""
    for line in body.decode("utf-8", "replace").splitlines():
        digest, _, rest = line.partition(" ")
        if rest.lstrip(" *") == file:
            try:
                return str(kind.parse(digest))
            except ValueError:
                break
    raise errors.DigestError(f"{name} holds no digest of {file}", fix="give the digest yourself")
