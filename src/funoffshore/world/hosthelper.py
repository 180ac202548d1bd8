"""The program that runs on a host. ``fo`` sends this text on stdin to ``sudo -n python3 -`` with a request behind it.

Python 3.9, standard library only, nothing left behind but a cache of digests. Answers with one JSON document on
stdout. Changes come first and in this order: write, download, remove, units, prepare, grow; the first one that fails
ends them (the rest are ``skipped``), and reading still happens. Says nothing that was not asked for, no traceback.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

VERSION = 1
CACHE = "/var/lib/funoffshore/digests.json"
BIG = 1 << 20  # bytes; bigger files are not read twice for their digest, and never sent
K3S = "/usr/local/bin/k3s"
UNIT_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,NRestarts"
ACTIONS = ("enable", "disable", "start", "stop", "restart")
Disks = dict[str, Callable[[Any], dict[str, Any]]]


class Refusal(Exception):
    """An operation that ended badly: ``kind`` for the machine, the text for the operator."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


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


def place(path: str, mode: int, ids: tuple[int, int], fill: Callable[[Any], None]) -> None:
    """The file appears whole or not at all, even through a power cut."""
    temp = f"{os.path.dirname(path)}/.{os.path.basename(path)}.fo-{os.getpid()}"
    if os.path.lexists(temp):
        os.unlink(temp)
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as stream:
            fill(stream)
            stream.flush()
            os.fchown(handle, ids[0], ids[1])
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(temp, path)
    except BaseException:
        os.unlink(temp)
        raise
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
    make_folders(os.path.dirname(path), int(item.get("folder_mode", "0755"), 8))
    place(path, mode, ids, lambda stream: stream.write(content))
    return {"result": "changed"}


def download(item: dict[str, Any]) -> dict[str, Any]:
    path, wanted, mode = item["path"], item["sha256"].lower(), int(item.get("mode", "0644"), 8)
    there = look(path)
    if there is not None and stat.S_ISREG(there.st_mode) and digest_of(path, there) == wanted:
        if stat.S_IMODE(there.st_mode) == mode:
            return {"result": "same"}
        os.chmod(path, mode)
        return {"result": "changed"}

    def fill(stream: Any) -> None:
        sum_ = hashlib.sha256()
        try:
            with urllib.request.urlopen(item["url"], timeout=60) as source:  # noqa: S310  # any scheme, digest pinned
                for chunk in iter(lambda: source.read(BIG), b""):
                    sum_.update(chunk)
                    stream.write(chunk)
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as why:
            raise Refusal("network", f"{item['url']}: {getattr(why, 'reason', why)}") from why
        if sum_.hexdigest() != wanted:
            raise Refusal("digest", f"{item['url']}: expected sha256 {wanted}, got {sum_.hexdigest()}")

    make_folders(os.path.dirname(path), 0o755)
    place(path, mode, (0, 0), fill)
    return {"result": "changed"}


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


def run(*argv: str, timeout: float = 30) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. Raises FileNotFoundError, Refusal when it lasts too long."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as why:
        raise Refusal("timeout", f"{' '.join(argv)} did not end within {timeout:.0f} s") from why
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def systemctl(*words: str, timeout: float = 90) -> dict[str, Any]:
    code, _, err = run("systemctl", *words, timeout=timeout)
    if code:
        raise Refusal("unit", f"systemctl {' '.join(words)}: exit {code}: {err.strip()[-400:]}")
    return {"result": "done"}


def change_unit(item: dict[str, Any]) -> dict[str, Any]:
    if item["action"] not in ACTIONS:
        raise Refusal("request", "unknown unit action " + item["action"])
    options = ["--no-block"] if item.get("no_block") else []
    return systemctl(*options, item["action"], item["name"], timeout=item.get("timeout", 90))


def read_file(item: dict[str, Any]) -> dict[str, Any]:
    path = item["path"]
    seen = look(path)
    if seen is None:
        return {"state": "absent"}
    fact: dict[str, Any] = {"state": "present"}
    if stat.S_ISLNK(seen.st_mode):
        fact["link"] = os.readlink(path)
        try:
            seen = os.stat(path)
        except FileNotFoundError:
            return {"state": "absent", "link": fact["link"]}
    fact.update(mode=f"{stat.S_IMODE(seen.st_mode):04o}", owner=f"{seen.st_uid}:{seen.st_gid}", size=seen.st_size)
    fact["kind"] = "file" if stat.S_ISREG(seen.st_mode) else "directory" if stat.S_ISDIR(seen.st_mode) else "other"
    if fact["kind"] == "file" and item.get("hash", True):
        fact["sha256"] = digest_of(path, seen)
    if fact["kind"] == "file" and item.get("content"):
        if seen.st_size > BIG:
            raise Refusal("request", f"{path} has {seen.st_size} bytes, too many to send")
        with open(path, "rb") as stream:
            fact["content"] = base64.b64encode(stream.read()).decode()
    return fact


def read_units(items: list[dict[str, Any]]) -> dict[str, Any]:
    command = ("systemctl", "show", "--property=" + UNIT_PROPERTIES, "--")
    code, out, err = run(*command, *(item["name"] for item in items))
    blocks = [block for block in out.split("\n\n") if block.strip()]
    if len(blocks) != len(items):
        raise Refusal("unit", f"systemctl show: exit {code}: {err.strip()[-400:]}")
    facts = {}
    for item, block in zip(items, blocks):  # noqa: B905  # strict= is 3.10+
        fact: dict[str, Any] = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        fact["state"] = "absent" if fact.get("LoadState") == "not-found" else "present"
        if item.get("journal"):
            _, journal, _ = run("journalctl", "-u", item["name"], "-n", str(item["journal"]), "-o", "cat", "--no-pager")
            fact["journal"] = journal.splitlines()
        facts[item["name"]] = fact
    return facts


def k3s_version() -> dict[str, Any]:
    code, out, err = run(K3S, "--version")
    return {"state": "present", "code": code, "out": out, "err": err[-400:]}


def cloud_init() -> dict[str, Any]:
    """Old releases know no ``--format json``: they print a usage and exit 2, which elsewhere means *degraded*."""
    code, out, err = run("cloud-init", "status", "--format", "json")
    if not out.lstrip().startswith("{"):
        code, out, err = run("cloud-init", "status", "--long")
    return {"state": "present", "code": code, "out": out[-20000:], "err": err[-400:]}


COMMANDS = {"k3s-version": k3s_version, "cloud-init": cloud_init}


def run_command(name: str) -> dict[str, Any]:
    if name not in COMMANDS:
        raise Refusal("request", "unknown command " + name)
    try:
        return COMMANDS[name]()
    except FileNotFoundError:
        return {"state": "absent"}


def slurp(path: str) -> str:
    """The file's text, or empty: these are facts about the machine that some kernels do not have."""
    try:
        with open(path) as stream:
            return stream.read()
    except OSError:
        return ""


def table_of(path: str, separator: str) -> dict[str, str]:
    pairs = (line.split(separator, 1) for line in slurp(path).splitlines() if separator in line)
    return {key.strip(): value.strip().strip('"') for key, value in pairs}


def listening() -> list[int]:
    """TCP ports in state LISTEN (0A in proc(5), net/tcp)."""
    ports = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in slurp(path).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == "0A":
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return sorted(ports)


def default_route() -> str:
    """Gateway of the IPv4 default route, dotted; empty when there is none. proc(5): hex, host byte order."""
    for line in slurp("/proc/net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            return ".".join(str(byte) for byte in reversed(bytes.fromhex(fields[2])))
    return ""


def space(path: str) -> dict[str, Any]:
    """Free bytes and inodes of the file system that holds ``path``, or will once it is made."""
    while path != "/" and not os.path.exists(path):
        path = os.path.dirname(path)
    disk = os.statvfs(path)
    return {"state": "present", "bytes": disk.f_bavail * disk.f_frsize, "inodes": disk.f_favail}


def facts() -> dict[str, Any]:
    release, memory = table_of("/etc/os-release", "="), table_of("/proc/meminfo", ":")
    system = os.uname()
    return {
        "hostname": system.nodename,
        "arch": system.machine,
        "kernel": system.release,
        "os": release.get("ID", ""),
        "os_version": release.get("VERSION_ID", ""),
        "boot_id": slurp("/proc/sys/kernel/random/boot_id").strip(),
        "uuid": slurp("/sys/class/dmi/id/product_uuid").strip().lower(),
        "clock": time.time(),
        "clock_synced": os.path.exists("/run/systemd/timesync/synchronized"),
        "memory_kib": int((memory.get("MemTotal") or "0").split()[0]),
        "swap_kib": int((memory.get("SwapTotal") or "0").split()[0]),
        "cpus": os.cpu_count() or 0,
        "cgroup2": os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        "default_route": default_route(),
        "listening": listening(),
    }


def attempt(operation: Callable[[Any], dict[str, Any]], argument: Any) -> dict[str, Any]:
    """Its answer, or its error as data."""
    try:
        return operation(argument)
    except Refusal as why:
        kind, text = why.kind, str(why)
    except OSError as why:
        kind = "space" if why.errno in (errno.ENOSPC, errno.EDQUOT) else "os"
        text = f"{why.filename or name_of(argument)}: {why.strerror or why}"
    except Exception as why:  # the caller must get an answer, whatever this host does
        kind, text = "bug", f"{type(why).__name__}: {why}"
    return {"result": "failed", "state": "unreadable", "kind": kind, "error": text}


def name_of(argument: Any) -> str:
    return str(argument.get("path") or argument.get("name")) if isinstance(argument, dict) else str(argument)


def change(request: dict[str, Any], disks: Disks) -> dict[str, Any]:
    """Every asked change with its outcome; after the first failure nothing more is touched."""
    work: list[tuple[str, Callable[[Any], dict[str, Any]], Any]]
    work = [("write", write, item) for item in request.get("write", ())]
    work += [("download", download, item) for item in request.get("download", ())]
    work += [("remove", remove, path) for path in request.get("remove", ())]
    if request.get("units") or request.get("reload"):
        work.append(("reload", systemctl, "daemon-reload"))
    work += [("units", change_unit, item) for item in request.get("units", ())]
    work += [(name, disks[name], item) for name in ("prepare", "grow") for item in request.get(name, ())]
    answer: dict[str, Any] = {}
    failed = False
    for name, operation, argument in work:
        outcome = {"result": "skipped"} if failed else attempt(operation, argument)
        failed = failed or outcome["result"] == "failed"
        answer.setdefault(name, []).append({"on": name_of(argument), **outcome})
    return answer


def read(request: dict[str, Any], disks: Disks) -> dict[str, Any]:
    answer: dict[str, Any] = {"facts": attempt(lambda _: facts(), "facts")}
    answer["files"] = {item["path"]: attempt(read_file, item) for item in request.get("files", ())}
    answer["commands"] = {name: attempt(run_command, name) for name in request.get("commands", ())}
    answer["space"] = {path: attempt(space, path) for path in request.get("space", ())}
    answer["file_systems"] = {path: disks["file_systems"](path) for path in request.get("file_systems", ())}
    if request.get("units"):
        units = attempt(read_units, request["units"])
        answer["units"] = {item["name"]: units for item in request["units"]} if "error" in units else units
    return answer


def main(encoded: str, disks: Disks) -> None:
    """``encoded`` is the request, JSON in base64; ``disks`` what ``hostdisks.py`` offers."""
    request = json.loads(base64.b64decode(encoded))
    answer: dict[str, Any] = {"helper": VERSION, "changes": change(request, disks)}
    if "read" in request:
        answer["read"] = read(request["read"], disks)
    sys.stdout.write(json.dumps(answer) + "\n")
