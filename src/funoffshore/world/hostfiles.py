"""The part of the program on a host that makes, fetches, receives and removes files.

Sent with ``hosthelper.py``, under the same rules. A file appears whole or not at all; what arrives in parts is staged
beside it, under a name that holds part of its digest, so that the next call goes on where this one was cut off.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

CACHE = "/var/lib/funoffshore/digests.json"
BIG = 1 << 20  # bytes; bigger files are not read twice for their digest, and never sent
ATTEMPTS = 5  # connections for one download, each going on where the last was cut


class Refusal(Exception):
    """An operation that ended badly: ``kind`` for the machine, the text for the operator."""

    def __init__(self, kind: str, text: str, **more: Any) -> None:
        super().__init__(text)
        self.kind = kind
        self.more = more


def owner_ids(owner: str) -> tuple[int, int]:
    """``user:group`` or ``1000:1000`` as numbers."""
    ids = []
    for name, table in zip(owner.split(":", 1), ("/etc/passwd", "/etc/group")):  # noqa: B905  # strict= is 3.10+
        ids.append(int(name) if name.isdigit() else look_up(name, table))
    if len(ids) != 2:
        raise Refusal("request", "owner must be user:group, not " + owner)
    return ids[0], ids[1]


def look_up(name: str, table: str) -> int:
    with open(table) as lines:
        for line in lines:
            fields = line.rstrip("\n").split(":")
            if fields[0] == name and len(fields) > 2:
                return int(fields[2])
    raise Refusal("request", "no " + name + " in " + table)


def make_folders(folder: str, mode: int) -> None:
    if folder and not os.path.isdir(folder):
        make_folders(os.path.dirname(folder), mode)
        os.mkdir(folder)
        os.chmod(folder, mode)


def place(path: str, mode: int, ids: tuple[int, int], fill: Callable[[Any], Any]) -> None:
    """The file appears whole or not at all, even through a power cut."""
    temp = f"{os.path.dirname(path)}/.{os.path.basename(path)}.fo-{os.getpid()}"
    if os.path.lexists(temp):
        os.unlink(temp)
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as stream:
            fill(stream)
        move(temp, path, mode, ids)
    except BaseException:
        if os.path.lexists(temp):
            os.unlink(temp)
        raise


def move(temp: str, path: str, mode: int, ids: tuple[int, int]) -> None:
    """A finished file from its name beside ``path`` to ``path``, on disk when this returns."""
    handle = os.open(temp, os.O_RDONLY)
    try:
        os.fchown(handle, ids[0], ids[1])
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temp, path)
    sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def look(path: str) -> Any | None:
    """``lstat``, or None when nothing is there."""
    try:
        return os.lstat(path)
    except OSError as why:
        if why.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def no_room(path: str, need: int) -> Refusal:
    """What the operator needs to know of a full disk; ``need`` and what is free are bytes."""
    folder = os.path.dirname(path)
    while folder != "/" and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free >= need and disk.f_files and not disk.f_favail:
        return Refusal("space", f"no inode is free on the file system of {folder}")
    return Refusal("space", f"no space on the file system of {folder}: {need} bytes are needed, {free} are free")


def roomy(path: str, need: int, work: Callable[[], Any]) -> None:
    """``work`` with a full disk told as such. Raises Refusal."""
    try:
        work()
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room(path, need) from why
        raise


def write(item: dict[str, Any]) -> dict[str, Any]:
    path, content = item["path"], base64.b64decode(item["content"])
    mode, ids = int(item.get("mode", "0644"), 8), owner_ids(item.get("owner", "root:root"))
    there = look(path)
    if there is not None and item.get("only_if_absent"):
        return {"result": "kept"}
    if there is not None and stat.S_ISREG(there.st_mode):
        alike = (there.st_size, stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid) == (len(content), mode, *ids)
        if alike and read_digest(path) == hashlib.sha256(content).hexdigest():
            return {"result": "same"}

    def work() -> None:
        make_folders(os.path.dirname(path), int(item.get("folder_mode", "0755"), 8))
        place(path, mode, ids, lambda stream: stream.write(content))

    roomy(path, len(content), work)
    return {"result": "changed"}


def settled(path: str, wanted: str, mode: int) -> str:
    """``same`` or ``changed`` when the file with that digest is there, its mode put right; else empty."""
    there = look(path)
    if there is None or not stat.S_ISREG(there.st_mode) or digest_of(path, there) != wanted:
        return ""
    if stat.S_IMODE(there.st_mode) == mode:
        return "same"
    os.chmod(path, mode)
    return "changed"


def staged_at(path: str, wanted: str) -> str:
    """Where the parts of a file with that digest are kept."""
    return f"{os.path.dirname(path)}/.{os.path.basename(path)}.{wanted[:16]}.fo-part"


def size_of(path: str) -> int:
    there = look(path)
    return 0 if there is None else int(there.st_size)


def append(staged: str, chunks: Any) -> None:
    """Adds bytes to the staged file, which only root can read. What did not fit leaves nothing staged: the room is
    needed by whoever makes some."""
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with open(handle, "ab") as stream:
            for chunk in chunks:
                stream.write(chunk)
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EDQUOT):
            os.unlink(staged)
        raise


def download(item: dict[str, Any]) -> dict[str, Any]:
    path, wanted, mode = item["path"], item["sha256"].lower(), int(item.get("mode", "0644"), 8)
    result = settled(path, wanted, mode)
    if result:
        return {"result": result}
    make_folders(os.path.dirname(path), 0o755)
    staged = staged_at(path, wanted)
    resumed = size_of(staged) > 0
    fetch(item["url"], staged)
    found = read_digest(staged)
    if found != wanted and resumed:
        # What an earlier call left may be of another file that was offered there then.
        os.unlink(staged)
        fetch(item["url"], staged)
        found = read_digest(staged)
    if found != wanted:
        os.unlink(staged)
        raise Refusal("digest", f"{item['url']}: expected sha256 {wanted}, got {found}")
    move(staged, path, mode, (0, 0))
    return {"result": "changed"}


def fetch(url: str, staged: str) -> None:
    """Completes the staged file from ``url``; goes on with what is there, again as long as each try brings some."""
    for attempt in range(ATTEMPTS):
        before = size_of(staged)
        try:
            return fetch_rest(url, staged, before)
        except Refusal as why:
            if why.kind != "network" or attempt == ATTEMPTS - 1 or size_of(staged) <= before:
                raise
    return None


def fetch_rest(url: str, staged: str, have: int) -> None:
    """RFC 9110, 14: 206 with the range that was asked for goes on; 200 is the whole file; 416 has no such range."""
    request = urllib.request.Request(url)  # noqa: S310  # any scheme, digest pinned
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=60) as source:  # noqa: S310
            goes_on = str(source.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
            if have and not (getattr(source, "status", 0) == 206 and goes_on):
                os.unlink(staged)
                have = 0
            length = source.headers.get("Content-Length")
            take(source, url, staged, have + int(length) if length else -1)
    except urllib.error.HTTPError as why:
        if why.code == 416 and have:
            os.unlink(staged)
            return fetch_rest(url, staged, 0)
        raise Refusal("network", f"{url}: {why.reason}") from why
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError, HTTPException) as why:
        raise Refusal("network", f"{url}: {getattr(why, 'reason', why)}") from why


def take(source: Any, url: str, staged: str, total: int) -> None:
    """Everything that ``source`` has; ``total`` bytes are staged then, where it said how many (else -1)."""

    chunks = iter(lambda: source.read(BIG), b"")
    roomy(staged, max(total, 0), lambda: append(staged, chunks))
    # An answer that ends early is no error to urllib.
    if total >= 0 and size_of(staged) < total:
        raise Refusal("network", f"{url}: cut off after {size_of(staged)} of {total} bytes")


def push(item: dict[str, Any]) -> dict[str, Any]:
    """One chunk of a file that fo sends; appended only where the staged file ends. Empty data asks what is there."""
    path, wanted, mode = item["path"], item["sha256"].lower(), int(item.get("mode", "0644"), 8)
    size, data = int(item["size"]), base64.b64decode(item.get("data", ""))
    result = settled(path, wanted, mode)
    if result:
        return {"result": result, "have": size}
    make_folders(os.path.dirname(path), 0o755)
    staged = staged_at(path, wanted)
    if size_of(staged) > size:
        os.unlink(staged)
    if size_of(staged) == item["offset"] and len(data) <= size - item["offset"]:
        roomy(staged, size, lambda: append(staged, [data]))
    have = size_of(staged)
    if have < size:
        return {"result": "staged", "have": have}
    found = read_digest(staged)
    if found != wanted:
        os.unlink(staged)
        raise Refusal("digest", f"{path}: expected sha256 {wanted}, what arrived has {found}")
    move(staged, path, mode, (0, 0))
    return {"result": "changed", "have": size}


def remove(path: str) -> dict[str, Any]:
    there = look(path)
    if there is None:
        return {"result": "absent"}
    if stat.S_ISDIR(there.st_mode):
        raise Refusal("request", path + " is a directory")
    os.unlink(path)
    sync_folder(os.path.dirname(path))
    return {"result": "removed"}


def digest_of(path: str, seen: Any) -> str:
    """SHA-256. A big file that has not changed since (size, time, inode) is not read again."""
    if seen.st_size <= BIG:
        return read_digest(path)
    mark = f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ino}"
    cache: dict[str, list[str]] = {}
    try:
        with open(CACHE) as stream:
            cache = json.load(stream)
        if cache[path][0] == mark:
            return cache[path][1]
    except (OSError, ValueError, LookupError, TypeError):
        pass
    found = read_digest(path)
    if isinstance(cache, dict):
        remember({**cache, path: [mark, found]})
    return found


def remember(cache: dict[str, list[str]]) -> None:
    try:
        make_folders(os.path.dirname(CACHE), 0o700)
        place(CACHE, 0o600, (0, 0), lambda stream: stream.write(json.dumps(cache).encode()))
    except OSError:
        pass  # a full or read-only disk only makes the next look slower


def read_digest(path: str) -> str:
    sum_ = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(BIG), b""):
            sum_.update(chunk)
    return sum_.hexdigest()
