"""The rules by which a server or an agent gets into a cluster, and the lines that say why one does not."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from funoffshore.lab.k3s import log, tokens, troubles
from funoffshore.lab.k3s.settings import Settings

if TYPE_CHECKING:
    from funoffshore.lab.k3s.process import Process
    from funoffshore.lab.k3s.server import Server

BARE = (
    "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. "
    "Use the full token from the server's node-token file to enable Cluster CA validation."
)
OTHER = "failed to reconcile with local datastore: bootstrap data already found and encrypted with different token"
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
    host = urllib.parse.urlsplit(url).netloc
    if process.is_blocked(url):
        raise Refusal(silent(url))
    server = process.dial(url)
    if server is None or server.stage == "starting":
        tail = f"dial tcp {host}: connect: connection refused"
        if seen_as:
            tail = f"read tcp 127.0.0.1:41234->{seen_as}: read: connection reset by peer"
        raise Refusal(f'failed to get CA certs: Get "https://{seen_as or host}/cacerts": {tail}')
    late = troubles.clock(process, server.plane, f"https://{seen_as or host}")
    if late:
        raise Refusal(late)
    real = tokens.hash_of(server.plane.ca)
    if token.ca_hash and token.ca_hash != real:
        raise Refusal(f"token CA hash does not match the Cluster CA certificate hash: {token.ca_hash} != {real}")
    if not token.ca_hash:
        process.say("warning", BARE)
    name = token.user if tokens.is_bootstrap(token) else user
    return server, server.role_of(name, token.password)


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
    if tokens.password_of(server_token(server)) != other.plane.password:
        # that server still takes a token which another one has rotated away
        raise log.Fatal(_BOOTSTRAP + OTHER)
    return other


def reconcile(server: Server, token: str) -> None:
    """What a server that comes back does first: it asks the one it once joined, and only complains of a refusal."""
    url = server.settings.text("server")
    if not (url and token) or server.resumed:
        return
    try:
        _, role = reach(server, url, token, "server")
    except Refusal as refusal:
        server.say("warning", f"Unable to reconcile with remote datastore: {refusal.why}")
        return
    if role != "server":
        server.say("warning", "Unable to reconcile with remote datastore: not authorized")


def _compare(server: Server, other: Server) -> None:
    """Looks at the cluster's settings as a node: with the agent token where there is one. Raises Fatal."""
    secret = server.settings.text("agent-token") or server_token(server)
    if other.role_of("node", tokens.password_of(secret)) != "node":
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


def own_token(server: Server) -> str:
    """What a server that comes back opens its database with: the configured token, else that of its file."""
    configured = server_token(server)
    kept = server.machine.path("/var/lib/rancher/k3s/server/token")
    return configured or (kept.read_text().strip() if kept.is_file() else "")


def other_token() -> log.Fatal:
    return log.Fatal(_BOOTSTRAP + OTHER)
