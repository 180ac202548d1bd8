"""OpenSSH private key files with one ed25519 key. Source: OpenSSH PROTOCOL.key, RFC 8709."""

from __future__ import annotations

import base64
import binascii
import re

_MAGIC = b"openssh-key-v1\0"
_PEM = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END OPENSSH PRIVATE KEY-----\n*")
_SEED, _POINT = 32, 32
_CIPHERS = (b"none", b"aes256-ctr", b"aes256-cbc")
"""Those that both paramiko and cryptography read; with a passphrase, ssh-keygen takes aes256-ctr."""
_MOST_ROUNDS = 1000
"""Some seconds of work; ssh-keygen makes 24 where nobody says otherwise, and a damaged file may ask for years."""


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
    cipher, public, private = _opened(pem)
    if cipher != b"none":
        raise ValueError("is protected by a passphrase, and fo cannot ask for one (ssh-keygen -p removes it)")
    if not _agree(public, private):
        raise _damaged()


def public(pem: str) -> str:
    """``ssh-ed25519 AAAA…`` of a key, one line without comment; no passphrase is needed. Raises ValueError."""
    _, blob, _ = _opened(pem)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def is_protected(pem: str) -> bool:
    """Whether it takes a passphrase to use the key. Raises ValueError for what is no ed25519 key file."""
    return _opened(pem)[0] != b"none"


def unlock(pem: str, passphrase: str) -> None:
    """Raises ValueError, with a reason that completes "KEY: …", unless ``passphrase``, empty for a file that has none,
    opens the file and the private key in it is that of its public one."""
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    if _opened(pem)[0] not in _CIPHERS:
        raise ValueError("has its key enciphered as no SSH client of fo's can read it (ssh-keygen -p -Z aes256-ctr)")
    try:
        key = serialization.load_ssh_private_key(pem.encode(), passphrase.encode() or None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidTag):
        raise ValueError("does not open with SSH_KEY_PASSPHRASE, or is damaged") from None
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    if line.decode() != public(pem):
        raise _damaged()


def _opened(pem: str) -> tuple[bytes, bytes, bytes]:
    """Cipher, public and private part of a file with one ed25519 key. Raises ValueError."""
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
    if rest[:4] != b"\0\0\0\1" or (cipher == b"none") != ((kdf, options) == (b"none", b"")):
        raise _damaged()
    if cipher != b"none" and kdf != b"bcrypt":
        raise _damaged()
    if cipher != b"none" and int.from_bytes(_strings(options, 1)[1], "big") > _MOST_ROUNDS:
        raise ValueError("asks for too many rounds of bcrypt (ssh-keygen -p -a 100 makes them fewer)")
    public, private, end = _strings(rest[4:], 2)
    kind, point, more = _strings(public, 2)
    if kind != b"ssh-ed25519":
        raise ValueError("is not an ed25519 key (ssh-keygen -t ed25519 makes one)")
    if more or len(point) != _POINT or (end and cipher == b"none"):
        raise _damaged()
    return cipher, public, private


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
