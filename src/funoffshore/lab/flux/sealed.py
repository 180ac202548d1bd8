"""What SOPS and age put into a file, opened: the file key by age's X25519 recipient, the values by AES-GCM.

Sources: C2SP age.md (header, X25519 recipient, payload); getsops/sops ``aes/cipher.go`` and ``sops.go`` for the form
of a value and what is authenticated with it. SOPS' own checksum over all values is left alone, as Flux leaves it
(kustomize-controller ``internal/decryptor``).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VALUE = re.compile(r"ENC\[AES256_GCM,data:(?P<data>.*),iv:(?P<iv>.+),tag:(?P<tag>.+),type:(?P<type>\w+)\]")
_TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda text: text == "True"}
_NONCE = bytes(12)


class SealedError(Exception):
    """Why something cannot be opened, in SOPS' words where it has any."""


def data_key(armoured: str, secret: bytes) -> bytes:
    """What an ``age`` entry of a SOPS file holds. ``secret``: the identity's 32 bytes. Raises SealedError."""
    try:
        whole = base64.b64decode("".join(line for line in armoured.split("\n") if not line.startswith("-----")))
        header, mark, rest = whole.partition(b"\n--- ")
        tag, _, payload = rest.partition(b"\n")
        lines = header.decode().split("\n")
        at = next(n for n, line in enumerate(lines) if line.startswith("-> X25519 "))
        share, body = _raw(lines[at].split()[2]), _raw(lines[at + 1])
        key = _file_key(secret, share, body)
        check = hmac.HMAC(_derive(key, b"", b"header"), hashes.SHA256())
        check.update(header + mark[:4])
        check.verify(_raw(tag.decode()))
        last = bytes(11) + b"\x01"  # the first chunk is the last: a data key is short
        return ChaCha20Poly1305(_derive(key, payload[:16], b"payload")).decrypt(last, payload[16:], None)
    except (InvalidTag, InvalidSignature, ValueError, IndexError, StopIteration) as why:
        raise SealedError(
            "identity did not match any of the recipients: incorrect identity for recipient block"
        ) from why


def _file_key(secret: bytes, share: bytes, body: bytes) -> bytes:
    mine = X25519PrivateKey.from_private_bytes(secret)
    shared = mine.exchange(X25519PublicKey.from_public_bytes(share))
    salt = share + mine.public_key().public_bytes_raw()
    return ChaCha20Poly1305(_derive(shared, salt, b"age-encryption.org/v1/X25519")).decrypt(_NONCE, body, None)


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def _raw(text: str) -> bytes:
    """Base64 without padding."""
    return base64.b64decode(text + "=" * (-len(text) % 4))


def value(text: str, key: bytes, path: tuple[str, ...]) -> Any:
    """An encrypted value at ``path`` of its document. Raises SealedError."""
    match = _VALUE.fullmatch(text)
    if match is None:
        raise SealedError(f"Input string {text} does not match sops' data format")
    try:
        data, nonce, tag = (base64.b64decode(match[part]) for part in ("data", "iv", "tag"))
        plain = AESGCM(key).decrypt(nonce, data + tag, (":".join(path) + ":").encode())
    except (InvalidTag, binascii.Error, ValueError):
        raise SealedError("Could not decrypt with AES_GCM: cipher: message authentication failed") from None
    return _TYPES.get(match["type"], str)(plain.decode())
