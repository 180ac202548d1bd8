"""``k3s etcd-snapshot``: what the command prints. Words and exit codes recorded, or from ``pkg/cli/etcdsnapshot``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from funoffshore.lab.hosts.api import Result
from funoffshore.lab.k3s import log, nodes, settings, snapshots, words

if TYPE_CHECKING:
    from funoffshore.lab.k3s.server import Server

_SWITCHES = frozenset({"debug", "snapshot-compress", "etcd-snapshot-compress", "etcd-s3", "s3", "etcd-s3-insecure"})
_ALIASES = {"snapshot-retention": "etcd-snapshot-retention", "dir": "etcd-snapshot-dir", "s3": "etcd-s3"}


def run(server: Server, argv: list[str]) -> Result:
    """``argv`` as in ``["etcd-snapshot", "save", "--name", "x"]``. Raises Fatal."""
    machine, now = server.machine, server.kit.clock.now()
    rest = words.plain(argv[1:], _SWITCHES)
    verb = rest.pop(0) if rest else "save"
    doing = {"save": _save, "ls": _list, "list": _list, "l": _list, "prune": _prune, "delete": _delete}.get(verb)
    if doing is None:
        raise log.Fatal(f"Error: No help topic for '{verb}'")
    if not server.plane.etcd:
        raise log.Fatal("Error: etcd database not found in /var/lib/rancher/k3s/server")
    if _flag(server, argv, "etcd-s3") == "true":
        raise log.Fatal(f"Error: see server log for details: {snapshots.s3_problem(server.settings)}")
    done = doing(server, argv, rest)
    warned = "".join(
        log.line(now, "warning", settings.SKIPPING.format(k)) + "\n" for k in settings.foreign(machine.path)
    )
    return Result(done.code, done.out, warned.encode() + done.err)


def _flag(server: Server, argv: list[str], name: str) -> str:
    """A flag of the command, else of config.yaml."""
    short = next((alias for alias, flag in _ALIASES.items() if flag == name), name)
    for spelt in (name, short):
        if any(word.lstrip("-") == spelt and word.startswith("-") for word in argv) and spelt in _SWITCHES:
            return "true"
        if found := words.option(argv, spelt):
            return found
    return server.settings.text(name)


def _said(server: Server, lines: list[tuple[str, str]]) -> bytes:
    now = server.kit.clock.now()
    return "".join(log.line(now, level, text) + "\n" for level, text in lines).encode()


def _save(server: Server, argv: list[str], rest: list[str]) -> Result:
    if rest:
        raise log.Fatal("Error: this command does not take any arguments")
    try:
        made = snapshots.save(server, words.option(argv, "name", "on-demand"))
    except OSError as why:
        problem = f"failed to take etcd snapshot: {str(why.strerror).lower()}"
        server.say("error", problem)
        raise log.Fatal(f"Error: see server log for details: {problem}") from None
    return Result(0, b"", _said(server, [("info", f"Snapshot {made.name} saved.")]))


def _list(server: Server, argv: list[str], rest: list[str]) -> Result:
    found = snapshots.on(server.machine, snapshots.folder_of(server.settings))
    form = words.option(argv, "output", words.option(argv, "o"))
    if form in ("json", "yaml"):
        items = [snapshots.described(file, server.node) for file in found]
        body = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}
        return Result(0, json.dumps(body).encode() + b"\n" if form == "json" else yaml.safe_dump(body).encode())
    if form:
        raise log.Fatal(f"Error: invalid output format: {form}")
    rows = [(f.name, f.location, str(f.size), nodes.stamp(f.made)) for f in found]
    return Result(0, words.table([("Name", "Location", "Size", "Created"), *rows], " "))


def _prune(server: Server, argv: list[str], rest: list[str]) -> Result:
    keep = _flag(server, argv, "etcd-snapshot-retention") or str(snapshots.KEEP)
    if not keep.isdecimal():
        raise log.Fatal(f'Error: invalid value "{keep}" for flag -snapshot-retention: parse error')
    gone = snapshots.prune(server, words.option(argv, "name", "on-demand"), int(keep))
    return Result(0, b"", _said(server, [("info", f"Snapshot {file.name} deleted.") for file in gone]))


def _delete(server: Server, argv: list[str], rest: list[str]) -> Result:
    if not rest:
        raise log.Fatal("Error: no snapshots given for removal")
    said = []
    for name in rest:
        if "/" in name or name in (".", ".."):
            raise log.Fatal("Error: invalid snapshot name: path traversal not allowed")
        gone = snapshots.delete(server, name)
        said.append(("info", f"Snapshot {name} deleted.") if gone else ("warning", f"Snapshot {name} not found."))
    return Result(0, b"", _said(server, said))
