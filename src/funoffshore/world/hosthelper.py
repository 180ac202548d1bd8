"""The program that runs on a host. ``fo`` sends this text on stdin to ``sudo -n python3 -`` with a request behind it.

The texts of ``hostdisks.py``, ``hostfiles.py`` and ``hostlook.py`` stand in front of it. Python 3.9, standard library
only, nothing left behind but a cache of digests. Answers with one JSON document on stdout. Changes come first and in
this order: before, wipe, write, download, push, remove, sysctl, units, k3s, prepare, grow; the first one that fails
ends them (the rest are ``skipped``), and reading still happens. Says nothing that was not asked for, no traceback.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

from funoffshore.world.hostfiles import (
    Refusal,
    download,
    look,
    make_folders,
    push,
    remove,
    sync_folder,
    write,
)
from funoffshore.world.hostlook import (
    K3S,
    WORDS,
    connect,
    facts,
    fetch_part,
    read_file,
    read_modes,
    read_units,
    run,
    run_command,
    slurp,
    space,
    without_secrets,
)

VERSION = 1
ANSWERS = "/run/funoffshore"
KEPT = 3600  # seconds that the answer to a request with an id is kept
ACTIONS = ("enable", "disable", "start", "stop", "restart")
WIPEABLE = (
    "/var/lib/rancher", "/etc/rancher", "/var/lib/kubelet", "/var/lib/cni", "/run/k3s", "/run/flannel",
)  # fmt: skip
DATA_FOLDERS = ("/var/lib/rancher", "/var/lib/rancher/k3s", "/var/lib/kubelet", "/run/k3s")
Disks = dict[str, Callable[[Any], dict[str, Any]]]
Work = list[tuple[str, Callable[[Any], dict[str, Any]], Any]]


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


def sysctl(item: dict[str, Any]) -> dict[str, Any]:
    code, _, err = run("sysctl", "-p", item["path"])
    if code:
        raise Refusal("sysctl", f"sysctl -p {item['path']}: exit {code}: {err.strip()[-400:]}")
    return {"result": "done"}


def call_k3s(item: dict[str, Any]) -> dict[str, Any]:
    """K3s' own words are part of the outcome, without tokens where it failed: they end up in an error."""
    code, out, err = run(K3S, *item["argv"], timeout=item.get("timeout", 120))
    if code:
        out, err = without_secrets(out), without_secrets(err)
        last = ([line for line in (out + "\n" + err).splitlines() if line.strip()] or ["it said nothing"])[-1]
        said = {"code": code, "out": out[-WORDS:], "err": err[-WORDS:]}
        raise Refusal("k3s", f"k3s {item['argv'][0]}: exit {code}: {last.strip()[-400:]}", **said)
    return {"result": "done", "code": code, "out": out[-WORDS:], "err": err[-WORDS:]}


def wipe(path: str) -> dict[str, Any]:
    """Removes a tree of K3s' own, with what is still mounted in it unmounted first. Never reaches into a mount."""
    if os.path.normpath(path) != path or not any(path == top or path.startswith(top + "/") for top in WIPEABLE):
        raise Refusal("request", path + " is nothing that fo removes")
    for unit in ("k3s.service", "k3s-agent.service"):
        _, out, _ = run("systemctl", "show", "--property=ActiveState", unit)
        if out.strip() not in ("ActiveState=inactive", "ActiveState=failed"):
            raise Refusal("unit", f"{unit} is not stopped ({out.strip() or 'systemd does not say'}); {path} was kept")
    there = look(path)
    if there is None:
        return {"result": "absent"}
    if path in DATA_FOLDERS:
        end_containers()
    unmount_below(path)
    if stat.S_ISDIR(there.st_mode):
        empty(path, there.st_dev)
    keep = path in mount_points()  # a disk of its own stays, empty
    if not keep and stat.S_ISDIR(there.st_mode):
        os.rmdir(path)
    elif not keep:
        os.unlink(path)
    sync_folder(os.path.dirname(path))
    return {"result": "removed"}


def empty(folder: str, device: int) -> None:
    """Links are removed, not followed; a file system that is mounted in there after all is not entered."""
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        there = look(path)
        if there is None:
            continue
        if stat.S_ISDIR(there.st_mode):
            # Of folders only: on an overlay, files show the device of the layer that they are in.
            if there.st_dev != device:
                raise Refusal("os", f"{path} is another file system; what is left of {folder} was kept")
            empty(path, device)
            os.rmdir(path)
        else:
            os.unlink(path)


def mount_points() -> list[str]:
    """proc(5), mountinfo: blanks and the like are octal there."""
    fields = (line.split() for line in slurp("/proc/self/mountinfo").splitlines())
    return [row[4].replace("\\040", " ") for row in fields if len(row) > 4]


def unmount_below(path: str) -> None:
    """Volumes of pods stay mounted when K3s is stopped; what is in them is not ours to remove."""
    for point in sorted((at for at in mount_points() if at.startswith(path + "/")), reverse=True):
        code, _, err = run("umount", point)
        if code:
            raise Refusal("os", f"{point} is mounted and stays so ({err.strip()[-200:]}); {path} was kept")


def end_containers() -> None:
    """Kills what K3s leaves running when it is stopped: its shims and everything below (k3s-killall.sh does too)."""
    parents, doomed = {}, set()
    for name in os.listdir("/proc"):
        words = slurp(f"/proc/{name}/stat").rpartition(")")[2].split() if name.isdigit() else []
        if len(words) > 1:
            parents[int(name)] = int(words[1])
            program = slurp(f"/proc/{name}/cmdline").split("\0")[0]
            if "/k3s/data/" in program and "/bin/containerd-shim" in program:
                doomed.add(int(name))
    for _ in range(len(parents) if doomed else 0):
        more = {child for child, parent in parents.items() if parent in doomed} - doomed
        if not more:
            break
        doomed |= more
    for number in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def attempt(operation: Callable[[Any], dict[str, Any]], argument: Any) -> dict[str, Any]:
    """Its answer, or its error as data."""
    more: dict[str, Any] = {}
    try:
        return operation(argument)
    except Refusal as why:
        kind, text, more = why.kind, str(why), why.more
    except OSError as why:
        kinds = {errno.ENOSPC: "space", errno.EDQUOT: "space", errno.EROFS: "readonly"}
        kind = kinds.get(why.errno or 0, "os")
        text = f"{why.filename or name_of(argument)}: {why.strerror or why}"
    except Exception as why:  # the caller must get an answer, whatever this host does
        kind, text = "bug", f"{type(why).__name__}: {why}"
    return {"result": "failed", "state": "unreadable", "kind": kind, "error": text, **more}


def name_of(argument: Any) -> str:
    if not isinstance(argument, dict):
        return str(argument)
    words = argument.get("label") or argument.get("path") or argument.get("name")
    return str(words or "k3s " + " ".join(map(str, argument.get("argv", ())))) if argument else ""


def change(request: dict[str, Any], disks: Disks) -> dict[str, Any]:
    """Every asked change with its outcome; after the first failure nothing more is touched."""
    first: dict[str, Callable[[Any], dict[str, Any]]] = {
        "before": change_unit, "wipe": wipe, "write": write, "download": download, "push": push, "remove": remove,
        "sysctl": sysctl,
    }  # fmt: skip
    work: Work = [(name, operation, item) for name, operation in first.items() for item in request.get(name, ())]
    if request.get("units") or request.get("reload"):
        work.append(("reload", systemctl, "daemon-reload"))
    work += [("units", change_unit, item) for item in request.get("units", ())]
    work += [("k3s", call_k3s, item) for item in request.get("k3s", ())]
    work += [(name, disks[name], item) for name in ("prepare", "grow") for item in request.get(name, ())]
    answer: dict[str, Any] = {}
    failed = False
    for name, operation, argument in work:
        outcome = {"result": "skipped"} if failed else attempt(operation, argument)
        failed = failed or outcome["result"] == "failed"
        answer.setdefault(name, []).append({"on": name_of(argument), **outcome})
    return answer


def once(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` answers, done at most once for that id: later calls wait for the first one's answer.

    Only outcomes of changes are kept, 0600 and for an hour, never the content of a file that was read. ``lost`` when
    the first one was killed in the middle: nobody knows what it did, and it is not done again unasked.
    """
    if len(name) != 32 or not name.isalnum():
        raise Refusal("request", "an id is 32 hex digits")
    make_folders(ANSWERS, 0o700)
    prune()
    handle = os.open(f"{ANSWERS}/{name}", os.O_RDWR | os.O_CREAT, 0o600)
    with open(handle, "r+") as stream:
        fcntl.flock(handle, fcntl.LOCK_EX)
        said = stream.read().split("\n")
        if len(said) > 2:
            kept: dict[str, Any] = json.loads(said[1])
            return kept
        if said[0]:
            raise Refusal("lost", "it was cut short in the middle, and what it did is not known")
        stream.write("begun\n")
        stream.flush()
        answer = work()
        with contextlib.suppress(OSError):  # the one who asked first gets it all the same
            stream.write(json.dumps(answer) + "\n")
            stream.flush()
        return answer


def prune() -> None:
    for name in os.listdir(ANSWERS):
        there = look(f"{ANSWERS}/{name}")
        if there is not None and there.st_mtime < time.time() - KEPT:
            with contextlib.suppress(FileNotFoundError):  # another one prunes at the same moment
                os.unlink(f"{ANSWERS}/{name}")


def read(request: dict[str, Any], disks: Disks) -> dict[str, Any]:
    answer: dict[str, Any] = {"facts": attempt(lambda _: facts(), "facts")}
    answer["files"] = {item["path"]: attempt(read_file, item) for item in request.get("files", ())}
    answer["commands"] = {name: attempt(run_command, name) for name in request.get("commands", ())}
    answer["space"] = {path: attempt(space, path) for path in request.get("space", ())}
    answer["file_systems"] = {path: disks["file_systems"](path) for path in request.get("file_systems", ())}
    answer["modes"] = {}
    for pattern in request.get("modes", ()):
        modes = attempt(read_modes, pattern)
        answer["modes"].update({pattern: modes} if "error" in modes else modes)
    if request.get("fetch"):
        answer["fetch"] = {item["path"]: attempt(fetch_part, item) for item in request["fetch"]}
    if request.get("units"):
        units = attempt(read_units, request["units"])
        answer["units"] = {item["name"]: units for item in request["units"]} if "error" in units else units
    if request.get("connect"):
        found = attempt(connect, request["connect"])
        names = (f"{item['host']}:{item['port']}" for item in request["connect"])
        answer["connect"] = dict.fromkeys(names, found) if "error" in found else found
    return answer


def main(asked: str, disks: Disks) -> None:
    """``asked`` is the request as JSON; ``disks`` what ``hostdisks.py`` offers."""
    # A connection that drops ends nothing: who asked comes back with the same id for the answer.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    request = json.loads(asked)
    if "id" in request:
        changes = attempt(lambda name: once(name, lambda: change(request, disks)), request["id"])
        if "error" in changes:
            changes = {"once": [{"on": ANSWERS, **changes}]}
    else:
        changes = change(request, disks)
    answer: dict[str, Any] = {"helper": VERSION, "changes": changes}
    if "read" in request:
        answer["read"] = read(request["read"], disks)
    sys.stdout.write(json.dumps(answer) + "\n")
