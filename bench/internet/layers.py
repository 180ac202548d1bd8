"""Layers of images: one static program, its links, and the few files that such a program wants. Made once."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ACCOUNTS = """\
root:x:0:0:root:/:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
"""
_GROUPS = "root:x:0:\nnobody:x:65534:\n"
_FOLDERS = ("data", "etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/bin", "usr/local", "usr/local/bin", "var", "run")


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed tar on disk."""

    path: Path
    digest: str
    """``sha256:…`` of the tar, which is also its diff ID."""
    size: int


class Layers:
    """Makes layers below ``folder`` and finds them again. ``authority``: the CA's PEM, trusted in every image."""

    def __init__(self, folder: Path, authority: bytes) -> None:
        self._folder = folder
        self._authority = authority
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, program: Path, place: str, links: Iterable[str] = ()) -> Layer:
        """A layer with ``program`` at ``place`` and ``links`` to it, all absolute; the newest of a ``name`` is kept."""
        links = sorted(set(links))
        stat = program.stat()
        content = json.dumps([str(program.resolve()), stat.st_size, stat.st_mtime_ns, place, links]).encode()
        key = hashlib.sha256(content + self._authority + Path(__file__).read_bytes()).hexdigest()[:20]
        path, note = self._folder / f"{name}-{key}.tar", self._folder / f"{name}-{key}.json"
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not note.exists():
                for old in [*self._folder.glob(f"{name}-*.json"), *self._folder.glob(f"{name}-*.tar")]:
                    if len(old.stem) == len(path.stem):  # not of another name that begins like this one
                        old.unlink()
                self._make(path, program, place, links)
                with path.open("rb") as made:
                    digest = hashlib.file_digest(made, "sha256").hexdigest()
                note.write_text(json.dumps({"digest": f"sha256:{digest}", "size": path.stat().st_size}))
        told = json.loads(note.read_text())
        return Layer(path, told["digest"], told["size"])

    def _make(self, path: Path, program: Path, place: str, links: list[str]) -> None:
        fresh = path.with_suffix(".new")
        with tarfile.open(fresh, "w", format=tarfile.USTAR_FORMAT) as tar:
            for entry, content in self._entries(place, links):
                tar.addfile(entry, io.BytesIO(content))
            entry = _entry(place.strip("/"), 0o755)
            entry.size = program.stat().st_size
            with program.open("rb") as source:
                tar.addfile(entry, source)
        fresh.replace(path)

    def _entries(self, place: str, links: list[str]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        seen = set(_FOLDERS)
        needed = [str(p) for link in (place, *links) for p in Path(link.strip("/")).parents if str(p) != "."]
        for folder in (*_FOLDERS, *sorted(set(needed) - seen - {"bin"})):
            yield _entry(folder, 0o755, tarfile.DIRTYPE), b""
        yield _entry("tmp", 0o1777, tarfile.DIRTYPE), b""
        usr = _entry("bin", 0o777, tarfile.SYMTYPE)
        usr.linkname = "usr/bin"
        yield usr, b""
        files = {
            "etc/passwd": _ACCOUNTS.encode(),
            "etc/group": _GROUPS.encode(),
            "etc/nsswitch.conf": b"hosts: files dns\n",
            "etc/ssl/cert.pem": self._authority,  # where Go looks, too (crypto/x509, root_linux.go)
        }
        for name, content in files.items():
            entry = _entry(name, 0o644)
            entry.size = len(content)
            yield entry, content
        for name in links:
            entry = _entry(name.strip("/"), 0o777, tarfile.SYMTYPE)
            entry.linkname = place
            yield entry, b""


def _entry(name: str, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    """A member without owner and time, so that the same content has the same digest."""
    made = tarfile.TarInfo(name)
    made.mode, made.type = mode, kind
    return made
