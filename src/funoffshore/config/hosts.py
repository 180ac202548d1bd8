"""Kinds of values about hosts and the way to them: public keys, a jump host, IPv6 addresses, files on this computer."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from funoffshore.config import knownhosts
from funoffshore.config.access import Jump
from funoffshore.config.kinds import Kind, whole
from funoffshore.config.kubernetes import is_endpoint

_PORT = whole(1, 65535)


def _public_key(text: str) -> str:
    """Without its comment."""
    parts = text.split(" ")
    if "PRIVATE" in text:
        raise ValueError("is a private key; give the public one, the content of the .pub file")
    if len(parts) < 2 or not knownhosts.is_key(parts[0], parts[1]):
        raise ValueError
    if parts[0] != knownhosts.ED25519:
        raise ValueError("is not an ed25519 key (ssh-keygen -t ed25519 makes one)")
    return f"{parts[0]} {parts[1]}"


def _jump(text: str) -> Jump:
    """Its host key is a key of its own."""
    user, at, place = text.rpartition("@")
    host, colon, port = place.partition(":")
    if not at or not is_endpoint(host) or not is_endpoint(place) or (colon and not port):
        raise ValueError
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise ValueError
    return Jump(user, host, _PORT.parse(port) if port else 22, "")


def _path(text: str) -> Path:
    if text.startswith("~"):
        raise ValueError("starts with ~, which nobody expands; give the whole path")
    if not text.startswith("/") or ".." in text.split("/") or not text.isprintable():
        raise ValueError
    return Path(text)


def _address(text: str) -> IPv6Address:
    try:
        found = IPv6Address(text)
    except ValueError:
        raise ValueError from None
    if found.scope_id is not None or found.ipv4_mapped is not None:
        raise ValueError
    return found


def _network(text: str) -> IPv6Network:
    if "/" not in text:
        raise ValueError("has no prefix length, like /64")
    if not re.fullmatch(r"[0-9A-Fa-f:.]{2,45}/[0-9]{1,3}", text):
        raise ValueError
    try:
        network = IPv6Network(text, strict=False)
    except ValueError:
        raise ValueError from None
    if network.network_address != IPv6Address(text.split("/")[0]):
        raise ValueError(f"has bits set behind its prefix; the network is {network}")
    return network


PUBLIC_KEY = Kind("an ed25519 public key on one line, like ssh-ed25519 AAAA…", _public_key, empty="", echo=False)
JUMP = Kind("a jump host, like ops@jump.lan:22", _jump, echo=False)
PATH = Kind("an absolute path on this computer", _path, echo=False)
ADDRESS_V6 = Kind("an IPv6 address", _address)
NETWORK_V6 = Kind("an IPv6 network, like fd00:7::/64", _network)
