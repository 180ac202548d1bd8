"""An operator of existing machines, and what every case about a cluster's life asks of it at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from operator_home import Operator

from funoffshore import config as configs
from funoffshore.config import ClusterConfig, Node
from funoffshore.lab.bare import Machine, all_of
from funoffshore.lab.base import Store
from funoffshore.lab.k3s import plane

STAGES = ("machines", "k3s")


def existing(folder: Path, *, known: bool = True, **values: Any) -> Operator:
    """A lab whose machines stand there already; their host keys are in the env file where ``known``."""
    home = Operator(folder, MACHINES="existing", **values)
    if known:
        know(home)
    return home


def know(home: Operator) -> None:
    """SSH_KNOWN_HOSTS as the machines have their keys now."""
    home.set("SSH_KNOWN_HOSTS", "")
    shown = home.fo("lab", "hosts", "keys")
    assert shown.code == 0, shown.err
    home.set("SSH_KNOWN_HOSTS", '"' + ";".join(shown.out.strip().splitlines()) + '"')


def load(home: Operator) -> ClusterConfig:
    return configs.load(home.env_file, root=home.folder)


def done(home: Operator, *argv: str) -> str:
    """Runs a command that must end well; what it said."""
    ended = home.fo(*argv)
    assert ended.code == 0, ended.err + ended.out
    return ended.out + ended.err


def left(home: Operator, *options: str) -> list[str]:
    """What ``fo plan`` would still do to machines and K3s, and what it holds back."""
    ended = home.fo("plan", "--json", *options)
    body = ended.json
    kept = [str(h["key"]) for h in body["held"]]
    return [f"{a['verb']} {a['key']}: {a['reason']}" for a in body["actions"] if a["stage"] in STAGES] + kept


@contextmanager
def stored(home: Operator) -> Iterator[Store]:
    store = Store(home.lab / "lab.sqlite")
    try:
        yield store
    finally:
        store.close()


def clusters(home: Operator) -> set[str]:
    """CA hashes of every cluster that any K3s of the lab has ever founded: more than one is a split brain."""
    with stored(home) as store:
        authorities = [body["ca"]["server-ca"]["certificate"] for _, body in store.scan(plane.BUCKET)]
    return {hashlib.sha256(text.encode()).hexdigest() for text in authorities}


def members(home: Operator) -> set[str]:
    """Voting members of etcd in the one cluster that is not given up."""
    with stored(home) as store:
        (alive,) = [body for _, body in store.scan(plane.BUCKET) if not body.get("superseded")]
    return {name for name, member in alive["members"].items() if member["voter"]}


def bare(home: Operator, name: str) -> Machine:
    with stored(home) as store:
        return next(machine for machine in all_of(store) if machine.name == name)


def disk(home: Operator, node: Node) -> Path:
    """Root of the file system of ``node`` in the lab."""
    vmid = node.vmid if node.made else bare(home, node.name).vmid
    return home.lab / "hosts" / str(vmid) / "root"


def authorities(home: Operator) -> set[str]:
    """CA hashes in the tokens on the servers' disks; more than one would be a second cluster."""
    found = set[str]()
    for node in load(home).controllers:
        token = disk(home, node) / "var/lib/rancher/k3s/server/token"
        if token.is_file():
            found.add(token.read_text().split("::")[0].removeprefix("K10"))
    return found
