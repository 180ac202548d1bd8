"""Builds the image with mmdebstrap from Debian's packages, once per recipe.

The result is a qcow2 file, as Proxmox wants it for an import; in it is a squashfs of the whole tree, which every
machine of the bench mounts as the lowest layer of its root.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import paths
from bench.image import recipe

NEEDS = ("mmdebstrap", "mksquashfs", "qemu-img", "chroot")
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


class ImageError(RuntimeError):
    """The image cannot be built; the text says why."""


def path(authority: bytes) -> Path:
    """Where the image for this CA lies once it is built."""
    return paths.cache() / "image" / f"debian-12-bench-{key(authority)}.qcow2"


def key(authority: bytes) -> str:
    """16 hex digits over everything that goes into the image but the packages' versions."""
    digest = hashlib.sha256(authority)
    for part in (recipe.RELEASE, *recipe.PACKAGES):
        digest.update(part.encode())
    for file in (Path(recipe.__file__), Path(__file__), *sorted(p for p in recipe.TREE.rglob("*") if p.is_file())):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def build(authority: bytes, say: Callable[[str], None] = print) -> Path:
    """The image, built if it is missing (minutes; root only). Raises ImageError."""
    target = path(authority)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        missing = [name for name in NEEDS if shutil.which(name) is None]
        if missing or os.geteuid() != 0:
            raise ImageError(f"the image needs root and {', '.join(missing) or 'nothing else'}")
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fo-bench-image-", dir=target.parent) as folder:
            fresh = _make(Path(folder), authority, say)
            for old in target.parent.glob("debian-12-bench-*.qcow2"):
                old.unlink()
            fresh.replace(target)
    say(f"image: built in {time.monotonic() - began:.0f} s, {target.stat().st_size >> 20} MiB")
    return target


def _make(work: Path, authority: bytes, say: Callable[[str], None]) -> Path:
    root = work / "root"
    say(f"image: unpacking Debian {recipe.RELEASE}")
    _run(
        "mmdebstrap", "--variant=minbase", "--mode=root", "--skip=cleanup/apt", "--quiet",
        '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        f"--include={','.join(recipe.PACKAGES)}", recipe.RELEASE, str(root), *_sources(),
    )  # fmt: skip
    recipe.finish(root, authority)
    say("image: packing it")
    raw, done = work / "root.squashfs", work / "image.qcow2"
    _run("mksquashfs", str(root), str(raw), "-comp", "zstd", "-Xcompression-level", "3", "-quiet", "-no-progress")
    # Proxmox takes whole sectors only
    os.truncate(raw, -(-raw.stat().st_size // (1 << 20)) << 20)
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(done))
    return done


def _sources() -> list[str]:
    """This machine's own Debian sources, if it has them; else mmdebstrap takes the public ones."""
    return [str(found) for found in SOURCES if found.exists()][:1]


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise ImageError(f"{argv[0]} ended with {done.returncode}:\n{tail}")
