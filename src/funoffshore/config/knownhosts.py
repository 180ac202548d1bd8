"""Lines as in known_hosts: what SSH_KNOWN_HOSTS may hold, and which of them is about whom.

Source: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". Keys are those of hosts; RFC 4253 6.6 and RFC 8709 have their encoding.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re

from funoffshore.config.kinds import Kind

ED25519 = "ssh-ed25519"
_TYPES = frozenset((ED25519, "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"))
_MARKS = ("@revoked", "@cert-authority")
_ED25519_BYTES = 4 + len(ED25519) + 4 + 32
_HASHED = re.compile(r"\|1\|[A-Za-z0-9+/]{27}=\|[A-Za-z0-9+/]{27}=")
_PATTERN = re.compile(r"!?(?:[A-Za-z0-9._*?-]{1,253}|\[[A-Za-z0-9._*?-]{1,253}\]:[0-9]{1,5})")


def is_key(kind: str, text: str) -> bool:
    """Whether ``text`` is base64 of a public key of type ``kind`` that a host may have."""
    if kind not in _TYPES:
        return False
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    named = blob[4 : 4 + len(kind)] == kind.encode() and int.from_bytes(blob[:4], "big") == len(kind)
    return named and (len(blob) == _ED25519_BYTES if kind == ED25519 else len(blob) >= 64)


def names(address: str, name: str, port: int) -> tuple[str, ...]:
    """As what OpenSSH looks a host up: with its port in brackets unless that is 22."""
    return (address, name) if port == 22 else (f"[{address}]:{port}", f"[{name}]:{port}")


def covers(hosts: str, name: str) -> bool:
    """Whether the first field of a line is about ``name``: names with ``*`` and ``?``, ``!`` for exceptions, or one
    hashed name (``|1|salt|HMAC-SHA1``)."""
    if hosts.startswith("|1|"):
        return _is_hash_of(hosts, name)
    found = False
    for pattern in hosts.lower().split(","):
        # Brackets are part of a name there, and a set of characters to fnmatch.
        fits = fnmatch.fnmatchcase(name.lower(), pattern.removeprefix("!").replace("[", "[[]"))
        if fits and pattern.startswith("!"):
            return False
        found = found or fits
    return found


def has_key(lines: str, wanted: tuple[str, ...]) -> bool:
    """Whether one of ``lines`` gives an ed25519 key for a host that is looked up as ``wanted``."""
    for line in lines.splitlines():
        words = line.split()  # of a line with a mark, the second is no type
        if words[1] == ED25519 and any(covers(words[0], name) for name in wanted):
            return True
    return False


def _is_hash_of(field: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in field.split("|")[2:4])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.lower().encode(), hashlib.sha1).digest(), digest)


def _parse(text: str) -> str:
    """A line each, without comments."""
    lines: list[str] = []
    for part in text.split(";"):
        words = part.split()
        mark = [words.pop(0)] if words and words[0] in _MARKS else []
        if len(words) < 3 or not is_key(words[1], words[2]):
            raise ValueError
        if not _HASHED.fullmatch(words[0]) and not all(map(_PATTERN.fullmatch, words[0].split(","))):
            raise ValueError
        lines.append(" ".join((*mark, *words[:3])))
    return "".join(f"{line}\n" for line in lines)


KNOWN_HOSTS = Kind('lines as in known_hosts (address, type, key), with ";" between them', _parse, empty="", echo=False)
