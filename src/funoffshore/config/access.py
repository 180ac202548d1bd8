"""How hosts are reached: the part of the desired state that an SSH client needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from funoffshore.config.model import Node


@dataclass(frozen=True, slots=True)
class Jump:
    """The host that every connection to a machine goes through."""

    user: str
    host: str
    """Name or IPv4 address."""
    port: int
    host_key: str
    """``ssh-ed25519 AAAA…``, the only key that it may show."""

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ssh:
    """How hosts are reached. Host keys are derived from ``host_key_seed``, so they are known before the first boot."""

    user: str
    port: int
    private_key: SecretStr
    """Text of an OpenSSH private key file, ed25519: SSH_PRIVATE_KEY, or what stood in ``key_file`` when the config was
    read, which ``passphrase`` opens. Empty with auth ``agent``."""
    host_key_seed: SecretStr
    """64 hex digits; the ed25519 host key of node N is derived from it (HKDF-SHA256, info = node name)."""
    trust: str = "seed"
    """How the host key of a machine is known before the first connection. ``seed``: fo made it and the seed carries it.
    ``agent``: read through the guest agent. ``first-use``: whatever the host shows at first, recorded and printed.
    ``known``: from ``known_hosts``. Of one machine, see ``trust_of``."""
    known_hosts: str = ""
    """Lines as in known_hosts, for the existing machines that are trusted by ``known``."""
    auth: str = "key"
    """Who holds the private key. ``key``: the env file. ``file``: ``key_file``. ``agent``: an SSH agent."""
    key_file: Path | None = None
    passphrase: SecretStr | None = None
    """Opens ``private_key``; None where it has none. Only with auth ``file``."""
    public_key_line: str = ""
    """``ssh-ed25519 AAAA…``. May be empty with auth ``key``, see ``public_key``."""
    sudo_password: SecretStr | None = None
    """What sudo asks ``user`` for on existing machines; None: it asks for nothing, as on those that fo makes."""
    jump: Jump | None = None
    """None: machines are reached directly."""

    def public_key(self) -> str:
        """``ssh-ed25519 AAAA…`` of the key that fo logs in with, whoever holds it; one line without comment.

        Raises ValueError for a private key that cannot be read.
        """
        if self.public_key_line:
            return self.public_key_line
        from funoffshore.config import sshkey

        return sshkey.public(self.private_key.get_secret_value())

    def trust_of(self, node: Node) -> str:
        """How the host key of ``node`` is known: ``trust`` for one that fo makes; ``known`` for an existing one where
        SSH_KNOWN_HOSTS is given, else ``first-use``."""
        if node.made:
            return self.trust
        return "known" if self.known_hosts else "first-use"
