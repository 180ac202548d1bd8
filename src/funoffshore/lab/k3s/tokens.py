"""The secrets that let a node in. Formats: K3s documentation "k3s token", recorded from a real run."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass


class HashLengthError(Exception):
    """``K10`` is followed by something that is not 64 hex digits long."""


@dataclass(frozen=True, slots=True)
class Token:
    """A join token, taken apart."""

    ca_hash: str
    """64 hex digits, or empty for a bare secret."""
    user: str
    """``server``, ``node``, or the ID of a bootstrap token; empty for a bare secret."""
    password: str


_BOOTSTRAP = re.compile(r"^([a-z0-9]{6})\.([a-z0-9]{16})$")


def parse(text: str) -> Token:
    """Raises HashLengthError. Anything without ``K10`` is a bare secret."""
    if not text.startswith("K10"):
        found = _BOOTSTRAP.match(text)
        return Token("", found[1], found[2]) if found else Token("", "", text)
    ca_hash, _, credentials = text[3:].partition("::")
    if len(ca_hash) != 64:
        raise HashLengthError
    found = _BOOTSTRAP.match(credentials)
    if found:
        return Token(ca_hash, found[1], found[2])
    user, _, password = credentials.partition(":")
    return Token(ca_hash, user, password)


def is_bootstrap(token: Token) -> bool:
    """Whether it is one of ``k3s token create``, good for agents only."""
    return bool(_BOOTSTRAP.match(f"{token.user}.{token.password}"))


def password_of(text: str) -> str:
    """The part after the last ``:`` of a full token, or the whole bare secret."""
    return text.rsplit(":", 1)[-1] if text.startswith("K10") else text


def hash_of(certificate: bytes) -> str:
    """Plain SHA-256 of the CA's PEM file, as long as it holds one certificate."""
    return hashlib.sha256(certificate).hexdigest()


def full(ca: bytes, user: str, password: str) -> str:
    """``K10<hash>::<user>:<password>``."""
    return f"K10{hash_of(ca)}::{user}:{password}"


def generate() -> tuple[str, str]:
    """ID and secret of a new bootstrap token."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(secrets.choice(alphabet) for _ in range(6)), "".join(secrets.choice(alphabet) for _ in range(16))
