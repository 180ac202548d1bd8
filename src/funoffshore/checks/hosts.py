"""The hosts as a postcheck sees them: each looked at once, for all checks, and what is told of several of them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from funoffshore import errors
from funoffshore.checks import k3s_files
from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.findings import Outcome
from funoffshore.reading import Present, Reading, Unreadable
from funoffshore.stages.k3s import copies
from funoffshore.world.ssh import CommandFact, FileLook, HostFacts, Look
from funoffshore.world.world import World

BINARY = "/usr/local/bin/k3s"
CERTIFICATES, ENCRYPTION = "certificates", "encryption"
_SIDE_BY_SIDE = 32


def authority(node: Node) -> str:
    """Path of the authority of the API's certificate, as the node keeps it."""
    folder = "server/tls" if node.role is Role.CONTROLLER else "agent"
    return f"/var/lib/rancher/k3s/{folder}/server-ca.crt"


def look_at(config: ClusterConfig, node: Node) -> Look:
    """Everything that postcheck wants to know of one host, as one look."""
    server = node.role is Role.CONTROLLER
    copied = server and bool(config.k3s.snapshots.nfs)
    return Look(
        files=(FileLook(BINARY), FileLook(authority(node))),
        units=(copies.SERVICE, copies.TIMER) if copied else (),
        commands=(CERTIFICATES, ENCRYPTION) if server else (CERTIFICATES,),
        space=(),
        file_systems=(),
        modes=k3s_files.patterns(config, node),
    )


def look(world: World, config: ClusterConfig) -> Mapping[str, Reading[HostFacts]]:
    """One round trip to every configured host, all at once. A host that is not believed is Unreadable as well."""

    def one(node: Node) -> Reading[HostFacts]:
        try:
            return world.hosts.observe(node, look_at(config, node))
        except errors.FoError as why:
            return Unreadable(why.message)

    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="sight-host") as pool:
        return dict(zip((node.name for node in config.nodes), pool.map(one, config.nodes), strict=True))


def said(host: HostFacts, command: str) -> Reading[CommandFact]:
    """What K3s on the host said; Unreadable where it was not asked."""
    return host.commands.get(command, Unreadable(f"{command} was not looked at"))


@dataclass
class Tally:
    """What was seen of several things, line by line, and the one answer that it makes."""

    bad: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    dark: list[str] = field(default_factory=list)
    """What could not be looked at."""

    def answer(self, wrong: str, fine: str, fix: str = "") -> tuple[Outcome, str, tuple[str, ...], str]:
        """``wrong`` completes nothing: it is the sentence for what is bad or odd; ``fine`` the one for all well."""
        if self.bad:
            return Outcome.FAIL, wrong, (*self.bad, *self.odd, *self.dark), fix
        if self.dark:
            return Outcome.UNKNOWN, f"cannot tell: {self.dark[0]}", (*self.dark, *self.odd), ""
        if self.odd:
            return Outcome.WARN, wrong, tuple(self.odd), fix
        return Outcome.PASS, fine, (), ""

    def host(self, node: Node, reading: Reading[HostFacts]) -> HostFacts | None:
        """The host's facts; None, and a line, where it could not be looked at."""
        if isinstance(reading, Present):
            return reading.value
        why = reading.why if isinstance(reading, Unreadable) else "there is no such host"
        self.dark.append(f"{node.name}: {why}")
        return None
