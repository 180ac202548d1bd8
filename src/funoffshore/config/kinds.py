"""Kinds of values: what a text must look like to become a value of the config.

A kind raises ``ValueError(reason)``; the reason completes "KEY: …" and never holds the text, or is empty, and then
the message is "… is not <what>".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from funoffshore.config import age, sshkey

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label (RFC 1123, 2.1), lower case."""

_SCP_LIKE = re.compile(r"[\w.-]+@[\w.-]+:(?!//)")
"""``git@github.com:you/homelab.git``, which git takes and Flux does not."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a text becomes a value."""

    what: str
    """Completes "is not …", and says in the reference what the key takes."""
    parse: Callable[[str], Any]
    """Never given the empty text."""
    empty: Any = None
    """The value of an empty text, where the key may be empty."""
    echo: bool = True
    """Whether a wrong text of a key that is no secret may be shown; not where people paste credentials."""


def pattern(what: str, regex: str, *, echo: bool = True, reasons: Mapping[str, str] | None = None) -> Kind:
    """Text that matches ``regex`` as a whole. ``reasons`` maps a regex of a likely slip to its explanation."""
    right = re.compile(regex)
    slips = [(re.compile(slip), reason) for slip, reason in (reasons or {}).items()]

    def parse(text: str) -> str:
        if right.fullmatch(text):
            return text
        raise ValueError(next((reason for slip, reason in slips if slip.search(text)), ""))

    return Kind(what, parse, empty="", echo=echo)


def whole(low: int, high: int) -> Kind:
    """A decimal number without sign or leading zeros."""

    def parse(text: str) -> int:
        if re.fullmatch(r"0|[1-9][0-9]{0,9}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError

    return Kind(f"a whole number between {low} and {high}", parse)


def one_of(*choices: str) -> Kind:
    def parse(text: str) -> str:
        if text in choices:
            return text
        raise ValueError

    return Kind(" or ".join(f'"{choice}"' for choice in choices), parse, empty="")


def listed(item: Kind, what: str, separator: str = ",") -> Kind:
    """A tuple of items, none twice."""

    def parse(text: str) -> tuple[Any, ...]:
        values = tuple(item.parse(part) for part in text.split(separator) if part or _refuse("has an empty item"))
        if len(set(values)) < len(values):
            raise ValueError("names an item twice")
        return values

    return Kind(what, parse, empty=(), echo=item.echo)


def url(*schemes: str, path: str = "", what: str = "") -> Kind:
    """A URL without credentials, query or fragment; ``path`` is a regex for its path, by default any."""

    def parse(text: str) -> str:
        if "ssh" in schemes and _SCP_LIKE.match(text):
            raise ValueError("is written as for scp; write it as ssh://git@host/path")
        parts = _split(text)
        if parts is None or parts.scheme not in schemes or not _is_host(parts.hostname or ""):
            raise ValueError
        if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
            raise ValueError("holds a user or password; a URL here never does, secrets have keys of their own")
        if parts.query or parts.fragment or text.endswith(("?", "#")):
            raise ValueError("has a query or fragment")
        if path and not re.fullmatch(path, parts.path):
            raise ValueError
        return text

    return Kind(what or f"a URL like {schemes[0]}://host/path", parse, empty="", echo=False)


def host_of(text: str) -> str:
    """The host name or address in a URL that a kind has passed."""
    return urlsplit(text).hostname or ""


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its very name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return IPv4Address(host).is_loopback
    except ValueError:
        return host.strip("[]") == "::1"


def is_cluster(name: str) -> bool:
    """Whether a cluster could be called ``name``."""
    try:
        CLUSTER.parse(name)
    except ValueError:
        return False
    return True


def _split(text: str) -> SplitResult | None:
    if not re.fullmatch(r"[!-~]{1,2000}", text):
        return None
    try:
        parts = urlsplit(text)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def _is_host(text: str) -> bool:
    if re.fullmatch(r"[0-9.]+", text):
        return _is_address(text)
    return len(text) <= 253 and all(LABEL.fullmatch(label) for label in text.split("."))


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _refuse(reason: str = "") -> Any:
    raise ValueError(reason)


def _network(text: str) -> IPv4Network:
    if "/" not in text:
        raise ValueError("has no prefix length, like /24")
    try:
        network = IPv4Network(text, strict=False)
    except ValueError:
        raise ValueError from None
    if not re.fullmatch(r"[0-9.]+/[0-9]{1,2}", text):
        raise ValueError
    if str(network.network_address) != text.split("/")[0]:
        raise ValueError(f"has bits set behind its prefix; the network is {network}")
    return network


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError from None


def _timezone(text: str) -> str:
    """Needs the system's zone files; where there are none at all, the shape is all that can be checked."""
    import zoneinfo

    def exists(name: str) -> bool:
        try:
            zoneinfo.ZoneInfo(name)
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            return False
        return True

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", text):
        raise ValueError
    if not exists(text) and exists("Etc/UTC"):
        raise ValueError
    return text


def _yes_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _odd(text: str) -> int:
    if text in ("2", "4"):
        raise ValueError(f"{text} is an even number: etcd would survive no more losses than with {int(text) - 1}")
    if text not in ("1", "3", "5"):
        raise ValueError
    return int(text)


def _ssh_key(text: str) -> str:
    pem = _pem(text)
    sshkey.check(pem)
    return pem


def _pem(text: str) -> str:
    try:
        pem = base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise ValueError("is not base64 of a private key file, on one line") from None
    if not re.match(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n", pem):
        raise ValueError("is base64, but not of a private key file")
    return pem


def _known_hosts(text: str) -> str:
    line = re.compile(r"\S+ (?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,}={0,2}")
    lines = [part.strip() for part in text.split(";")]
    if not all(line.fullmatch(part) for part in lines):
        raise ValueError
    return "\n".join(lines) + "\n"


_DOMAIN = r"(?=.{3,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])"

TEXT = pattern("up to 500 characters without quotes, \\, $, ` or braces", r"[^\"'\\$`{}]{1,500}")
SECRET_TEXT = pattern("at least 6 characters without spaces around them", r"\S.{4,}\S")
"""The last net, ``redact``, cannot catch shorter ones."""
PASSPHRASE = pattern("up to 200 characters", r".{1,200}", echo=False)
DOMAIN = pattern("a domain in lower case, like home.example.org", _DOMAIN)
HOST = Kind(
    "a host name in lower case or an IPv4 address", lambda text: text if _is_host(text) else _refuse(), empty=""
)
EMAIL = pattern("a mail address", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+")
PUBLIC_URL = url("https", what="a URL like https://host/path")
FOLDER = pattern("an absolute path", r"/(?:[A-Za-z0-9._-]+/)*(?:[A-Za-z0-9._-]+)?")
TIMEZONE = Kind("a time zone of the IANA database, like Europe/Berlin", _timezone)
SWITCH = Kind("true or false", _yes_no)
ODD = Kind("1, 3 or 5", _odd)
ADDRESS = Kind("an IPv4 address", _address)
NETWORK = Kind("an IPv4 network, like 192.168.1.0/24", _network)
HEX64 = pattern("64 hex digits in lower case", r"[0-9a-f]{64}")
HEX128 = pattern("128 hex digits in lower case", r"[0-9a-f]{128}")
TOKEN = pattern("16 to 128 letters and digits", r"[A-Za-z0-9]{16,128}")
CLUSTER = pattern(
    "a DNS label in lower case of at most 20 characters, starting with a letter",
    r"[a-z](?:[a-z0-9-]{0,18}[a-z0-9])?",
)
USER = pattern("a Linux user name", r"[a-z_][a-z0-9_-]{0,31}")
SSH_KEY = Kind("an OpenSSH private key, base64 on one line", _ssh_key, empty="", echo=False)
PEM = Kind("a private key, base64 on one line", _pem, empty="", echo=False)
KNOWN_HOSTS = Kind('lines as in known_hosts, with ";" between them', _known_hosts, empty="", echo=False)
AGE = Kind("an age identity (AGE-SECRET-KEY-1…)", age.check, empty="", echo=False)
K3S_VERSION = pattern("a K3s release, like v1.36.4+k3s1", r"v1\.[0-9]{1,3}\.[0-9]{1,3}\+k3s[0-9]{1,2}")
FLUX_VERSION = pattern("a Flux release, like v2.9.4", r"v2\.[0-9]{1,3}\.[0-9]{1,3}")
IMAGE = pattern(
    "an image by tag or digest, like ghcr.io/kube-vip/kube-vip:v1.1.2",
    r"[a-z0-9.:/_-]+(?::[A-Za-z0-9._-]+)?(?:@sha256:[0-9a-f]{64})?",
)
BRANCH = pattern("a Git branch", r"(?!.*(?:\.\.|//|\.lock$|/$))[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
REPO_PATH = pattern("a path inside the repository", r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
