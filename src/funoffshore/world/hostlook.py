"""The part of the program on a host that looks and changes nothing: at the machine, its files, units, programs.

Sent with ``hosthelper.py``, under the same rules.
"""

from __future__ import annotations

import base64
import fnmatch
import os
import re
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from funoffshore.world.hostfiles import BIG, Refusal, digest_of, look

K3S = "/usr/local/bin/k3s"
UNIT_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,NRestarts"
SYSCTLS = ("vm.panic_on_oom", "vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops")
PATIENCE_TO_CONNECT = 2  # seconds
PIECE = 8 << 20  # bytes of a file that are sent at once
MANY = 2000  # files that one pattern may stand for
WORDS = 60000  # characters of what a program said that are sent
SECRETS = (  # K3s' tokens: with the CA's digest, and those that kubeadm made up (docs.k3s.io/cli/token)
    (re.compile(r"K10[0-9a-fA-F]{8,}[^\s\x22']*"), "K10***"),
    (re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"), "***.***"),
)


def run(*argv: str, timeout: float = 30) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. Raises FileNotFoundError, Refusal when it lasts too long."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as why:
        raise Refusal("timeout", f"{' '.join(argv)} did not end within {timeout:.0f} s") from why
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def without_secrets(text: str) -> str:
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text


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
    fact.update(mode_fact(seen), size=seen.st_size)
    if fact["kind"] == "file" and item.get("hash", True):
        fact["sha256"] = digest_of(path, seen)
    if fact["kind"] == "file" and item.get("content"):
        if seen.st_size > BIG:
            raise Refusal("request", f"{path} has {seen.st_size} bytes, too many to send")
        with open(path, "rb") as stream:
            fact["content"] = base64.b64encode(stream.read()).decode()
    return fact


def mode_fact(seen: Any) -> dict[str, Any]:
    kind = "file" if stat.S_ISREG(seen.st_mode) else "directory" if stat.S_ISDIR(seen.st_mode) else "other"
    return {"mode": f"{stat.S_IMODE(seen.st_mode):04o}", "owner": f"{seen.st_uid}:{seen.st_gid}", "kind": kind}


def read_modes(pattern: str) -> dict[str, Any]:
    """Of everything that the path, or pattern, stands for; the pattern itself is absent when that is nothing."""
    found = {}
    for path in matches(pattern):
        seen = look(path)
        if seen is not None:
            found[path] = {"state": "present", **mode_fact(seen), "size": seen.st_size, "mtime": seen.st_mtime}
        if len(found) > MANY:
            raise Refusal("request", f"{pattern} stands for more than {MANY} files")
    return found or {pattern: {"state": "absent"}}


def matches(pattern: str) -> list[str]:
    """Paths, sorted; ``*``, ``?`` and ``[…]`` stand for parts of one name, and not for its leading dot."""
    found = [""]
    for part in pattern.split("/")[1:]:
        if not set(part) & set("*?["):
            found = [f"{folder}/{part}" for folder in found]
            continue
        found = [
            f"{folder}/{name}"
            for folder in found
            if os.path.isdir(folder or "/")
            for name in sorted(os.listdir(folder or "/"))
            if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
        ]
    return found


def fetch_part(item: dict[str, Any]) -> dict[str, Any]:
    """A piece of a file that is too big to send whole; less than ``length`` bytes at its end. No link is followed."""
    path, length = item["path"], int(item["length"])
    seen = look(path)
    if seen is None:
        return {"state": "absent"}
    if not stat.S_ISREG(seen.st_mode) or length > PIECE:
        raise Refusal("request", f"{path} is no file of which {length} bytes can be sent")
    with open(path, "rb") as stream:
        stream.seek(int(item["offset"]))
        data = base64.b64encode(stream.read(length)).decode()
    return {"state": "present", "size": seen.st_size, "data": data}


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


def k3s_says(*words: str, timeout: float = 60) -> dict[str, Any]:
    """Both streams without tokens: where K3s puts an answer differs from command to command."""
    code, out, err = run(K3S, *words, timeout=timeout)
    out, err = without_secrets(out), without_secrets(err)
    return {"state": "present", "code": code, "out": out[-WORDS:], "err": err[-WORDS:]}


def cloud_init() -> dict[str, Any]:
    """Old releases know no ``--format json``: they print a usage and exit 2, which elsewhere means *degraded*."""
    code, out, err = run("cloud-init", "status", "--format", "json")
    if not out.lstrip().startswith("{"):
        code, out, err = run("cloud-init", "status", "--long")
    return {"state": "present", "code": code, "out": out[-20000:], "err": err[-400:]}


COMMANDS: dict[str, Callable[[], dict[str, Any]]] = {
    "k3s-version": lambda: k3s_says("--version", timeout=30),
    "cloud-init": cloud_init,
    "certificates": lambda: k3s_says("certificate", "check"),
    "encryption": lambda: k3s_says("secrets-encrypt", "status"),
    "snapshots": lambda: k3s_says("etcd-snapshot", "ls", "-o", "json"),
}


def run_command(name: str) -> dict[str, Any]:
    if name not in COMMANDS:
        raise Refusal("request", "unknown command " + name)
    try:
        return COMMANDS[name]()
    except FileNotFoundError:
        return {"state": "absent"}


def connect(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether each place takes TCP connections from here; all are asked at once."""
    found: dict[str, Any] = {}

    def ask(host: str, port: int) -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE_TO_CONNECT).close()
            answer = {"open": True, "said": ""}
        except OSError as why:
            answer = {"open": False, "said": why.strerror or str(why) or type(why).__name__}
        found[f"{host}:{port}"] = {"state": "present", **answer}

    threads = [threading.Thread(target=ask, args=(item["host"], int(item["port"]))) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


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


def addresses() -> list[str]:
    """The host's own, without localhost and link-local ones.

    IPv4: leaves marked ``/32 host LOCAL`` of /proc/net/fib_trie (kernel, net/ipv4/fib_trie.c); IPv6: proc(5), if_inet6.
    """
    found, last = set[str](), ""
    for line in slurp("/proc/net/fib_trie").splitlines():
        if "|--" in line:
            last = line.split()[-1]
        elif "/32 host LOCAL" in line:
            found.add(last)
    for fields in map(str.split, slurp("/proc/net/if_inet6").splitlines()):
        if len(fields) > 3 and fields[3] == "00":
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0])))
    return sorted(found - {"127.0.0.1"})


def sysctls() -> dict[str, str]:
    """Those that the kubelet wants with ``protect-kernel-defaults``; what this kernel does not have is left out."""
    found = {name: slurp("/proc/sys/" + name.replace(".", "/")).strip() for name in SYSCTLS}
    return {name: value for name, value in found.items() if value}


def memory_cgroup() -> bool:
    """Whether memory can be limited; Raspberry Pi OS boots with it switched off."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return "memory" in slurp("/sys/fs/cgroup/cgroup.controllers").split()
    rows = (line.split() for line in slurp("/proc/cgroups").splitlines())
    return any(row[0] == "memory" and row[-1] == "1" for row in rows if row)


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
        "memory_cgroup": memory_cgroup(),
        "systemd": os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        "sysctls": sysctls(),
        "default_route": default_route(),
        "addresses": addresses(),
        "listening": listening(),
    }
