"""Host keys that the operator lists: SSH_KNOWN_HOSTS, read as OpenSSH reads a known_hosts file (sshd(8))."""

from __future__ import annotations

from collections.abc import Iterator

from funoffshore import errors
from funoffshore.config import knownhosts, model
from funoffshore.world.ssh import known

_FIX = "correct SSH_KNOWN_HOSTS in the env file; ssh-keygen -lf shows fingerprints, the machine's console the true one"


def find(settings: model.Ssh, node: model.Node) -> known.HostKey | None:
    """The ed25519 key that is listed for the node's address or name; None when there is none.

    Raises TrustError when that key is marked as revoked, ConfigError when two different ones are listed.
    """
    keys: dict[str, known.HostKey] = {}
    revoked: set[str] = set()
    for mark, key in _lines(settings, node):
        if mark == "@revoked":
            revoked.add(key.line)
        elif not mark:
            keys[key.line] = key
    if barred := revoked & set(keys):
        raise errors.TrustError(
            f"the host key of {node.name}, {known.parse(barred.pop()).fingerprint}, is marked @revoked",
            fix="give the machine a new host key, and list that one in SSH_KNOWN_HOSTS",
        )
    if len(keys) > 1:
        raise errors.ConfigError(f"SSH_KNOWN_HOSTS lists {len(keys)} different ed25519 keys for {node.name}", fix=_FIX)
    return next(iter(keys.values()), None)


def _lines(settings: model.Ssh, node: model.Node) -> Iterator[tuple[str, known.HostKey]]:
    """Mark (or nothing) and key of every line about the node. Lines of certificate authorities and of other kinds of
    keys prove nothing here."""
    names = knownhosts.names(str(node.address), node.name, settings.port)
    for line in settings.known_hosts.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        mark = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3 or words[1] != "ssh-ed25519" or not any(knownhosts.covers(words[0], name) for name in names):
            continue
        try:
            yield mark, known.parse(" ".join(words[1:3]))
        except ValueError as why:
            raise errors.ConfigError(f"SSH_KNOWN_HOSTS has {why} for {node.name}", fix=_FIX) from None
