"""What the token must be allowed, and why: the permission checks of every call that fo makes. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from funoffshore.config import ClusterConfig
from funoffshore.stages.machines.facts import Missing
from funoffshore.stages.machines.preflight_calls import Need, Right, Way, needs
from funoffshore.world.proxmox import Grants

NEWEST = (9, 1)
_ORDER = ("/vms", "/storage/", "/sdn/", "/nodes", "/pool/", "/mapping/", "/")
_COST = {"Audit": 1, "Use": 2, "FileRead": 3, "AccessNetwork": 3, "AllocateSpace": 4, "AllocateTemplate": 4}
"""How much a privilege gives away, by the end of its name; where one is enough, the least is asked for."""
_DEAR = 10


def needed(config: ClusterConfig, release: tuple[int, int] = NEWEST) -> dict[str, Mapping[str, str]]:
    """Path → privilege → what it is for. A token that holds these, passed on below ``/vms`` and ``/nodes``, can do
    everything that fo does for this config; one that lacks any of them cannot."""
    wanted: dict[Right, str] = {}
    for need, way in _chosen(config, release):
        for right in sorted(way):
            wanted.setdefault(right, need.purpose)
    paths: dict[str, dict[str, str]] = {}
    for (path, privilege), purpose in sorted(wanted.items(), key=lambda item: (_rank(item[0][0]), item[0])):
        paths.setdefault(path, {})[privilege] = purpose
    return dict(paths)


def missing(config: ClusterConfig, grants: Grants, release: tuple[int, int]) -> tuple[Missing, ...]:
    """What the token has not got, on the very paths where it is lacking."""
    found: dict[Right, Missing] = {}
    for need, way in _chosen(config, release):
        if any(_holds(config, grants, other) for other in need.ways):
            continue
        for right in sorted(way):
            for path in _lacking(config, grants, right):
                found.setdefault((path, right[1]), Missing(path, right[1], need.purpose))
    return tuple(sorted(found.values(), key=lambda lack: (_rank(lack.path), lack.path, lack.privilege)))


def remedy(config: ClusterConfig, lacking: tuple[Missing, ...], release: tuple[int, int] = NEWEST) -> tuple[str, ...]:
    """Shell lines for the Proxmox host, two for each path: a role, and who has it there.

    Each grants all that its path needs, as what is granted on a path replaces what it inherits. Token and user are
    both named: a token with separated privileges has only what its user has too (pve-access-control).
    """
    return tuple(
        line for path in dict.fromkeys(lack.path for lack in lacking) for line in _lines(config, path, release)
    )


def _lines(config: ClusterConfig, path: str, release: tuple[int, int]) -> Iterator[str]:
    role, token = f"fo-{config.name}-{_slug(path)}", config.proxmox.token_id
    privileges = ",".join(sorted(needed(config, release)[_folder(path)]))
    # Where the role exists already it only grows: another run may have asked for something else.
    yield f"pveum role add {role} 2>/dev/null; pveum role modify {role} --append 1 --privs {privileges}"
    user = shlex.quote(token.partition("!")[0])
    # What is needed on / is needed there alone.
    only = " --propagate 0" if path == "/" else ""
    yield f"pveum acl modify {path} --users {user} --tokens {shlex.quote(token)} --roles {role}{only}"


def _slug(path: str) -> str:
    words = [word for word in path.split("/") if word not in ("", "zones", "localnetwork")]
    return "-".join(words) or "root"


def _rank(path: str) -> int:
    return next(n for n, start in enumerate(_ORDER) if path.startswith(start))


def _chosen(config: ClusterConfig, release: tuple[int, int]) -> list[tuple[Need, Way]]:
    """Every need with the way that gives away least beside what is needed anyway; first those that have one way."""
    wanted = sorted(needs(config, release), key=lambda need: len(need.ways) > 1)
    anyway = {right for need in wanted if len(need.ways) == 1 for right in need.ways[0]}
    return [(need, min(need.ways, key=lambda way: _cost(way - anyway))) for need in wanted]


def _cost(rights: frozenset[Right]) -> tuple[int, int]:
    whole = sum(path == "/" for path, _ in rights)
    return whole, sum(_COST.get(privilege.rpartition(".")[2], _DEAR) for _, privilege in rights)


def _holds(config: ClusterConfig, grants: Grants, way: Way) -> bool:
    return not any(_lacking(config, grants, right) for right in way)


def _lacking(config: ClusterConfig, grants: Grants, right: Right) -> tuple[str, ...]:
    """Where the privilege is not held; the folder itself where one grant there mends it."""
    folder, privilege = right
    lacks = privilege not in grants.at(folder)
    below = [path for path in _below(config, grants, folder) if privilege not in grants.at(path)]
    if folder == "/nodes":
        if below and len(below) == len(config.proxmox.nodes) and not any(path in grants.paths for path in below):
            return (folder,)
        # CPU types that the operator made are shown to those who may look at all Proxmox nodes.
        return (folder, *below) if lacks and config.shape.cpu.startswith("custom-") else tuple(below)
    # A path that has less than its folder has a rule of its own, and what is granted above does not reach it.
    own = tuple(path for path in below if grants.at(folder) - grants.at(path))
    return (folder, *own) if lacks else own


def _below(config: ClusterConfig, grants: Grants, folder: str) -> list[str]:
    """The paths in ``folder`` that Proxmox will ask about and that need not inherit from it."""
    lent = config.proxmox
    if folder == "/nodes":
        return [f"/nodes/{name}" for name in lent.nodes]
    if folder != "/vms":
        return []
    ours = {node.vmid for node in config.nodes}
    listed = (re.fullmatch(r"/vms/([0-9]{1,9})", path) for path in grants.paths)
    numbers = {int(match[1]): match[0] for match in listed if match}
    return [path for n, path in sorted(numbers.items()) if n in ours or lent.vmid_first <= n <= lent.vmid_last]


def _folder(path: str) -> str:
    """The path that ``needed`` knows this one by."""
    return "/" + path.split("/")[1] if path.startswith(("/vms/", "/nodes/")) else path
