"""Digests of what a cluster is built from, as their publishers give them over HTTPS today.

Fetched once, by ``fo init``, and pinned in the env file from then on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

from funoffshore import errors
from funoffshore.config import keys, kinds

Fetch = Callable[[str], bytes]
"""Gets the body at an https:// URL; raises an FoError when it cannot."""

_DEBIAN = "https://cloud.debian.org/images/cloud/trixie"
_DEBIAN_IMAGE = "debian-13-genericcloud-amd64"
_SUMS = {"cloud.debian.org": ("SHA512SUMS", "IMAGE_SHA512"), "cloud-images.ubuntu.com": ("SHA256SUMS", "IMAGE_SHA256")}


def fetch(get: Fetch, answers: Mapping[str, str] | None = None) -> dict[str, str]:
    """Values for the keys that pin downloads; ``answers`` may hold versions and URLs, by key.

    Without an IMAGE_URL the newest dated Debian 13 image is taken. An image of a publisher whose lists are not
    known here is left out, so that the operator gives its digest. Raises what ``get`` raises, and DigestError when a
    list does not hold what it should.
    """
    chosen = {name: key.default or "" for name, key in keys.known().keys.items()} | dict(answers or {})
    found = {"K3S_SHA256": _k3s(get, chosen["K3S_DOWNLOAD_URL"], chosen["K3S_VERSION"])}
    found |= _flux(get, chosen["FLUX_VERSION"])
    image = (answers or {}).get("IMAGE_URL") or newest_debian(get)
    return found | _image(get, image)


def newest_debian(get: Fetch) -> str:
    """URL of the newest dated image; a moving one would break its pin at the next release.

    ``<image>.json`` beside the image names its build (debian-cloud-images, ``data.info.version``).
    """
    about = get(f"{_DEBIAN}/latest/{_DEBIAN_IMAGE}.json").decode("utf-8", "replace")
    match = re.search(r'"version"\s*:\s*"([0-9]{8}-[0-9]{1,6})"', about)
    if match is None:
        raise errors.DigestError(f"{_DEBIAN_IMAGE}.json does not name the build of the image", fix="give IMAGE_URL")
    return f"{_DEBIAN}/{match[1]}/{_DEBIAN_IMAGE}-{match[1]}.qcow2"


def _k3s(get: Fetch, base: str, version: str) -> str:
    name = "sha256sum-amd64.txt"
    return _listed(get(f"{base}/{quote(version, safe='')}/{name}"), "k3s", kinds.HEX64, name)


def _flux(get: Fetch, version: str) -> dict[str, str]:
    """From the release's checksums; install.yaml itself is hashed where they do not list it."""
    base = f"https://github.com/fluxcd/flux2/releases/download/{version}"
    url, name = f"{base}/install.yaml", f"flux_{version.removeprefix('v')}_checksums.txt"
    try:
        digest = _listed(get(f"{base}/{name}"), "install.yaml", kinds.HEX64, name)
    except errors.DigestError:
        digest = hashlib.sha256(get(url)).hexdigest()
    return {"FLUX_INSTALL_URL": url, "FLUX_INSTALL_SHA256": digest}


def _image(get: Fetch, url: str) -> dict[str, str]:
    folder, _, file = url.rpartition("/")
    if kinds.host_of(url) not in _SUMS:
        return {"IMAGE_URL": url}
    name, key = _SUMS[kinds.host_of(url)]
    kind = kinds.HEX128 if key == "IMAGE_SHA512" else kinds.HEX64
    return {"IMAGE_URL": url, key: _listed(get(f"{folder}/{name}"), file, kind, name)}


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
