"""Whether the addresses that the cluster shall have are free, as far as this computer can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from funoffshore.config import ClusterConfig
from funoffshore.doctor import findings
from funoffshore.doctor.proxmox import count
from funoffshore.findings import Finding, Outcome
from funoffshore.reading import Absent, Unreadable
from funoffshore.stages.machines.facts import MachineFacts
from funoffshore.world.reach import Reach


def examine(config: ClusterConfig, seen: MachineFacts, reach: Reach, founded: bool | None = False) -> Iterator[Finding]:
    """Asks every address that nobody may have yet, and the gateway, all at once.

    ``founded``: whether a controller that fo does not make carries the cluster; None when that could not be seen.
    """
    fresh = {node.name: str(node.address) for node in config.made if isinstance(seen.machine(node.name), Absent)}
    network = config.network
    has_vip = founded or any(node.made and node.name not in fresh for node in config.controllers)
    # A lab has no gateway: its machines are processes on this computer.
    gateway = not config.lab and not network.gateway.is_unspecified
    others = ([network.vip] if config.virtual and not has_vip else []) + ([network.gateway] if gateway else [])
    found = reach.answering([*fresh.values(), *others])
    names = {**fresh, "VIP": str(network.vip)}
    for name in seen.answering:
        found.setdefault(names.get(name, ""), f"takes connections on port {config.ssh.port}")
    taken = {address: how for address, how in found.items() if address in fresh.values()}
    unseen = [node.name for node in config.made if isinstance(seen.machine(node.name), Unreadable)]
    if config.made:
        yield _machines(fresh, taken, unseen)
    if config.virtual:
        dark = founded is None or any(node.name in unseen for node in config.controllers)
        yield _vip(config, found.get(str(network.vip), ""), bool(has_vip), dark)
    if gateway:
        yield _gateway(config, found.get(str(network.gateway), ""))


def _machines(fresh: Mapping[str, str], taken: Mapping[str, str], unseen: list[str]) -> Finding:
    id_, fix = "FO-DOC-020", "find out who has it, and free it or choose another one in the env file"
    if taken:
        lines = [f"{fresh[name]} of {name} {taken[fresh[name]]}" for name in fresh if fresh[name] in taken]
        return Finding(id_, findings.TITLES[id_], Outcome.FAIL, _said(lines), tuple(lines[1:]), fix)
    if unseen:
        said = f"whether {count(len(unseen), 'machine')} exist could not be seen, so their addresses were not asked"
        return findings.unknown(id_, said, "see FO-DOC-010")
    return findings.passed(id_, f"nobody answers at {count(len(fresh), 'address', 'addresses')}")


def _said(lines: list[str]) -> str:
    return lines[0] if len(lines) == 1 else f"{lines[0]}, and {len(lines) - 1} more"


def _vip(config: ClusterConfig, how: str, has_vip: bool, dark: bool) -> Finding:
    id_, vip = "FO-DOC-021", config.network.vip
    if dark:
        fix = "see FO-DOC-010" if config.made else "see FO-DOC-023"
        return findings.unknown(id_, "whether there is a controller could not be seen", fix)
    if has_vip:
        return findings.passed(id_, f"{vip} is for the controllers that exist")
    if how:
        said = f"{vip} {how}, and no controller exists yet"
        fix = "find out who has it, and free it or choose another VIP in the env file"
        return Finding(id_, findings.TITLES[id_], Outcome.FAIL, said, fix=fix)
    return findings.passed(id_, f"nobody answers at {vip}")


def _gateway(config: ClusterConfig, how: str) -> Finding:
    id_, gateway = "FO-DOC-022", config.network.gateway
    if how:
        return findings.passed(id_, f"{gateway} {how}")
    said = f"{gateway} does not answer this computer; machines without a gateway reach no registry"
    return findings.warned(id_, [said], "check GATEWAY in the env file, and from another host of that network")
