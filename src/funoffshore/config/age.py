"""Identities of age, the encryption that SOPS uses: X25519 secrets and recipients in Bech32.

Source: C2SP age.md ("The X25519 recipient type"), BIP 173 for Bech32; age lifts its length limit, which does not
matter for 32 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_IDENTITY = "age-secret-key-"
_RECIPIENT = "age"


def identity(secret: bytes) -> str:
    """``AGE-SECRET-KEY-1…`` for 32 secret bytes; raises ValueError for any other number of them."""
    if len(secret) != 32:
        raise ValueError("an age secret has 32 bytes")
    return _encode(_IDENTITY, secret).upper()


def recipient(text: str) -> str:
    """``age1…``, the public half of an identity. Raises ValueError for anything but an identity."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    public = X25519PrivateKey.from_private_bytes(secret(text)).public_key()
    return _encode(_RECIPIENT, public.public_bytes_raw())


def check(text: str) -> str:
    """``text``, if it is an identity with a right checksum; else raises ValueError, which never holds the text."""
    secret(text)
    return text


def secret(text: str) -> bytes:
    prefix, mark, body = text.lower().rpartition("1")
    if text != text.upper() or prefix != _IDENTITY or not mark:
        raise ValueError("is not an age identity (AGE-SECRET-KEY-1…)")
    try:
        values = [_ALPHABET.index(c) for c in body]
    except ValueError:
        raise ValueError("is not an age identity: it holds a character that Bech32 does not have") from None
    if len(values) != 58 or _polymod([*_expanded(prefix), *values]) != 1:
        raise ValueError("is not an age identity: its checksum is wrong, so a character is missing or mistyped")
    data = _regroup(values[:-6], 5, 8)
    if any(data[32:]):
        raise ValueError("is not an age identity: its last bits are not zero")
    return bytes(data[:32])


def _encode(prefix: str, data: bytes) -> str:
    values = _regroup(data, 8, 5)
    check = _polymod([*_expanded(prefix), *values, 0, 0, 0, 0, 0, 0]) ^ 1
    values += [check >> 5 * (5 - n) & 31 for n in range(6)]
    return prefix + "1" + "".join(_ALPHABET[v] for v in values)


def _expanded(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, mask in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= mask if top >> bit & 1 else 0
    return state


def _regroup(values: Iterable[int], width: int, into: int) -> list[int]:
    """Bits in other groups, filled with zeros at the end."""
    bits = "".join(f"{value:0{width}b}" for value in values)
    bits += "0" * (-len(bits) % into)
    return [int(bits[n : n + into], 2) for n in range(0, len(bits), into)]
