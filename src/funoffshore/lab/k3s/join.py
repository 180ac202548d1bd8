"""The rules by which a server or an agent gets into a cluster, and the lines that say why one does not."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from funoffshore.lab.k3s import log, tokens
from funoffshore.lab.k3s.settings import Settings

if TYPE_CHECKING:
    from funoffshore.lab.k3s.process import Process
    from funoffshore.lab.k3s.server import Server

BARE = (
    "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. "
    "Use the full token from the server's node-token file to enable Cluster CA validation."
)
_BOOTSTRAP = "Error: preparing server: failed to bootstrap cluster data: "
_CHECKING = _BOOTSTRAP + "failed to check if bootstrap data has been initialized: failed to validate token: "
_DEFAULTS = {
    "cluster-cidr": "10.42.0.0/16",
    "service-cidr": "10.43.0.0/16",
    "cluster-dns": "10.43.0.10",
    "cluster-domain": "cluster.local",
    "flannel-backend": "vxlan",
    "egress-selector-mode": "agent",
    "secrets-encryption-provider": "aescbc",
}
_SWITCHES = (
    "disable-cloud-controller disable-helm-controller disable-network-policy secrets-encryption embedded-registry "
    "flannel-ipv6-masq flannel-external-ip supervisor-metrics"
)
_FIELDS = {
    "cluster-cidr": "ClusterIPRanges.slice[0].IP.slice[13]",
    "service-cidr": "ServiceIPRanges.slice[0].IP.slice[13]",
}


class Refusal(Exception):
    """Why a server does not take a token; the tail of the line that both kinds of joiner print."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def critical(settings: Settings) -> dict[str, str]:
    """The settings that must be the same on every server."""
    found = {key: settings.text(key, default) for key, default in _DEFAULTS.items()}
    found.update({key: str(settings.flag(key)).lower() for key in _SWITCHES.split()})
    found["disable-servicelb"] = str("servicelb" in settings.many("disable")).lower()
    return found


def server_token(process: Process) -> str:
    """The configured token, from ``token`` or ``token-file``; empty when there is none."""
    settings = process.settings
    if settings.text("token-file"):
        try:
            return process.machine.path(settings.text("token-file")).read_text().strip()
        except OSError:
            raise log.Fatal(f"Error: open {settings.text('token-file')}: no such file or directory") from None
    return settings.text("token")


def reach(process: Process, url: str, token_text: str, user: str, seen_as: str = "") -> tuple[Server, str]:
    """The server behind ``url`` once it was authenticated, and the role that the token gives. Raises Refusal.

    ``seen_as`` replaces the address in the message, for agents, who talk through their own load balancer.
    """
    if urllib.parse.urlsplit(url).scheme != "https":
        raise Refusal(f"only https:// URLs are supported, invalid scheme: {url}")
    try:
        token = tokens.parse(token_text)
    except tokens.HashLengthError:
        raise Refusal("invalid token CA hash length") from None
    server = process.dial(url)
    host = urllib.parse.urlsplit(url).netloc
    if server is None or server.stage == "starting":
        tail = f"dial tcp {host}: connect: connection refused"
        if seen_as:
            tail = f"read tcp 127.0.0.1:41234->{seen_as}: read: connection reset by peer"
        raise Refusal(f'failed to get CA certs: Get "https://{seen_as or host}/cacerts": {tail}')
    real = tokens.hash_of(server.plane.ca)
    if token.ca_hash and token.ca_hash != real:
        raise Refusal(f"token CA hash does not match the Cluster CA certificate hash: {token.ca_hash} != {real}")
    if not token.ca_hash:
        process.say("warning", BARE)
    name = token.user if tokens.is_bootstrap(token) else user
    role = server.plane.role_of(name, token.password)
    return server, role


def as_server(server: Server) -> Server:
    """The server that lets ``server`` into its cluster. Raises Fatal with the recorded lines."""
    url = server.settings.text("server")
    try:
        other, role = reach(server, url, server_token(server), "server")
    except Refusal as refusal:
        raise log.Fatal(_CHECKING + refusal.why) from None
    _compare(server, other)
    if role != "server":
        raise log.Fatal(_BOOTSTRAP + "not authorized")
    if other.stage != "ready" or not other.plane.quorate():
        raise log.Fatal(_BOOTSTRAP + "failed to get bootstrap data: context deadline exceeded")
    return other


def _compare(server: Server, other: Server) -> None:
    """Looks at the cluster's settings as a node: with the agent token where there is one. Raises Fatal."""
    secret = server.settings.text("agent-token") or server_token(server)
    if other.plane.role_of("node", tokens.password_of(secret)) != "node":
        server.say("warning", "Skipping cluster configuration validation: not authorized")
        return
    mine, theirs = critical(server.settings), other.plane.settings
    different = [key for key in mine if mine[key] != theirs.get(key)]
    for key in different:
        server.say("warning", f"critical configuration mismatched: {_FIELDS.get(key, key)}")
    if different:
        problem = "critical configuration value mismatch between servers"
        raise log.Fatal(_BOOTSTRAP + f"failed to validate server configuration: {problem}")


def silent(url: str) -> str:
    """What a node says that no packet reaches: a firewall between the machines, in effect."""
    host = urllib.parse.urlsplit(url).netloc
    return f'failed to get CA certs: Get "https://{host}/cacerts": dial tcp {host}: i/o timeout'


def silent_server(url: str) -> log.Fatal:
    return log.Fatal(_CHECKING + silent(url))
