"""OpenSSH private key files with one unencrypted ed25519 key. Source: OpenSSH PROTOCOL.key, RFC 8709."""

from __future__ import annotations

import base64
import binascii
import re

_MAGIC = b"openssh-key-v1\0"
_PEM = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END OPENSSH PRIVATE KEY-----\n*")
_SEED, _POINT = 32, 32


def generate() -> str:
    """A fresh key as the text of its file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        .decode()
    )


def check(pem: str) -> None:
    """Raises ValueError, with a reason that completes "KEY: …", unless an SSH client can use ``pem`` as it is.

    Looks at the structure only, so that reading a config need not load a cryptography library.
    """
    match = _PEM.fullmatch(pem)
    if match is None:
        raise ValueError("is not an OpenSSH private key file (ssh-keygen -t ed25519 makes one)")
    try:
        data = base64.b64decode(match[1].replace("\n", ""), validate=True)
    except binascii.Error:
        raise ValueError("is an OpenSSH private key file whose inside is not base64") from None
    if not data.startswith(_MAGIC):
        raise ValueError("is not an OpenSSH private key of version 1")
    cipher, kdf, options, rest = _strings(data[len(_MAGIC) :], 3)
    if (cipher, kdf, options) != (b"none", b"none", b""):
        raise ValueError("is protected by a passphrase, and fo cannot ask for one (ssh-keygen -p removes it)")
    if rest[:4] != b"\0\0\0\1":
        raise _damaged()
    public, private, end = _strings(rest[4:], 2)
    if _strings(public, 1)[0] != b"ssh-ed25519":
        raise ValueError("is not an ed25519 key (ssh-keygen -t ed25519 makes one)")
    if end or not _agree(public, private):
        raise _damaged()


def _agree(public: bytes, private: bytes) -> bool:
    """Whether both parts describe one key, and the padding is as it must be."""
    if len(private) % 8 or private[:4] != private[4:8]:
        return False
    kind, point, pair, _comment, padding = _strings(private[8:], 4)
    outer_kind, outer_point, end = _strings(public, 2)
    return (
        (kind, point) == (outer_kind, outer_point)
        and not end
        and len(point) == _POINT
        and len(pair) == _SEED + _POINT
        and pair[_SEED:] == point
        and padding == bytes(range(1, len(padding) + 1))
    )


def _strings(data: bytes, count: int) -> list[bytes]:
    """``count`` length-prefixed strings (RFC 4251, 5), and what is left."""
    found: list[bytes] = []
    for _ in range(count):
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise _damaged()
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return [*found, data]


def _damaged() -> ValueError:
    return ValueError("is a damaged OpenSSH private key")
