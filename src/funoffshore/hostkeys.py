"""Host keys known before the first boot: derived from the cluster's seed, so no file of them is ever needed.

HKDF-SHA256 (RFC 5869) with the node's name as info; ed25519 as in RFC 8032.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def private(seed_hex: str, name: str) -> Ed25519PrivateKey:
    """The private host key of node ``name``. ``seed_hex`` is 64 hex digits; raises ValueError otherwise."""
    seed = bytes.fromhex(seed_hex)
    if len(seed) != 32:
        raise ValueError("a host key seed has 64 hex digits")
    derived = HKDF(hashes.SHA256(), 32, salt=b"funoffshore host key", info=name.encode()).derive(seed)
    return Ed25519PrivateKey.from_private_bytes(derived)


def openssh_private(key: Ed25519PrivateKey) -> str:
    """The key as an OpenSSH private key file's text."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()


def openssh_public(key: Ed25519PrivateKey) -> str:
    """``ssh-ed25519 AAAA…``, one line without comment."""
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
