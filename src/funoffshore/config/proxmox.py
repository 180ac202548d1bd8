"""Kinds of values whose grammar is Proxmox'. Facts from pve-common ``JSONSchema.pm``, ``CalendarEvent.pm`` and
qemu-server ``CPUConfig.pm``; where those take more than a homelab needs, less is taken here.
"""

from __future__ import annotations

import re
from typing import Any

from funoffshore.config.kinds import Kind, listed, pattern, whole

MOST_PCI = 16
MOST_USB = 14
"""Devices of a machine (qemu-server, ``$MAX_HOSTPCI_DEVICES`` and ``$MAX_USB_DEVICES``)."""

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ID = r"[A-Za-z][A-Za-z0-9_.-]{0,62}[A-Za-z0-9]"


def _fingerprint(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}|(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}", text):
        raise ValueError
    return text.replace(":", "").lower()


def _startup(text: str) -> str:
    """In Proxmox' own order, so that equal settings are equal texts."""
    found: dict[str, str] = {}
    for part in text.split(","):
        match = re.fullmatch(r"(?:(order|up|down)=)?(0|[1-9][0-9]{0,4})", part)
        if match is None:
            raise ValueError
        name = match[1] or "order"
        if name in found:
            raise ValueError(f"sets {name} twice")
        found[name] = match[2]
    return ",".join(f"{name}={found[name]}" for name in ("order", "up", "down") if name in found)


def _keep(text: str) -> str:
    found: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"keep-(all|last|hourly|daily|weekly|monthly|yearly)=(0|[1-9][0-9]{0,3})", part)
        if match is None:
            raise ValueError
        if match[1] in found:
            raise ValueError(f"sets keep-{match[1]} twice")
        found[match[1]] = int(match[2])
    if found.get("all", 1) != 1 or ("all" in found and len(found) > 1):
        raise ValueError("takes keep-all only as keep-all=1, and alone")
    if not any(found.values()):
        raise ValueError("would keep no backup at all")
    return text


def _disk(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{1,4}", text) or not (int(text) == 0 or 10 <= int(text) <= 65_536):
        raise ValueError
    return int(text)


def _limited(kind: Kind, most: int) -> Kind:
    def parse(text: str) -> Any:
        values = kind.parse(text)
        if len(values) > most:
            raise ValueError(f"names more than {most}")
        return values

    return Kind(kind.what, parse, empty=(), echo=kind.echo)


NODE = pattern("the name of a Proxmox node", _LABEL)
NODES = _limited(listed(NODE, "1 to 16 names of Proxmox nodes with commas between them"), 16)
POOL = pattern("a Proxmox pool name", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
STORAGE = pattern("the ID of a Proxmox storage", _ID)
BRIDGE = pattern("the name of a Proxmox bridge, like vmbr0", r"[A-Za-z][A-Za-z0-9_.-]{1,14}")
FINGERPRINT = Kind("a SHA-256 fingerprint: 64 hex digits, with or without colons", _fingerprint, empty="")
ONLY_TOKENS = (
    "a token can do no more than it was granted and is revoked alone, while a password opens the whole account, and "
    "its ticket ends after 2 hours"
)
"""Why fo takes no password."""
TOKEN_ID = pattern(
    "a Proxmox token ID, like fo@pve!fo",
    r"[^\s:/@!='\"]{1,60}@[A-Za-z][A-Za-z0-9._-]+![A-Za-z][A-Za-z0-9._-]+",
    echo=False,
    reasons={
        "=": "holds more than the ID; what stands behind the = belongs in PROXMOX_TOKEN_SECRET",
        r"^[^@!]+@[A-Za-z0-9._-]+$": (
            f"is a user and not a token, and fo logs in with tokens alone: {ONLY_TOKENS}. "
            "pveum user token add <user@realm> fo makes one, and its ID is <user@realm>!fo"
        ),
    },
)
TOKEN_SECRET = pattern(
    "a Proxmox token secret (a UUID in lower case)",
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    reasons={"[=!@]": "holds more than the secret; what stands before the = belongs in PROXMOX_TOKEN_ID"},
)
VMID = whole(100, 999_999_999)
DATA_DISK = Kind("0, or a whole number between 10 and 65536", _disk)
VM_NAME = pattern("the name of a VM template", rf"(?=.{{1,63}}$){_LABEL}(?:\.{_LABEL})*")

_MAPPING = pattern("the name of a resource mapping", r"[A-Za-z][A-Za-z0-9_-]{1,127}")
_MAPPINGS = listed(_MAPPING, "names of resource mappings with commas between them")
PCI = _limited(_MAPPINGS, MOST_PCI)
USB = _limited(_MAPPINGS, MOST_USB)

_FAMILIES = (
    "core2duo|phenom|Conroe|Penryn|Nehalem|Westmere|SandyBridge|IvyBridge|Haswell|Broadwell|Skylake-(?:Client|Server)|"
    "Cascadelake-Server|Cooperlake|KnightsMill|Icelake-(?:Client|Server)|SapphireRapids|GraniteRapids|SierraForest|"
    "ClearwaterForest|Opteron_G[1-5]|EPYC(?:-(?:Rome|Milan|Genoa|Turin))?"
)
CPU = pattern(
    "a 64-bit CPU type of Proxmox, like x86-64-v3 or host, or custom-<name>",
    r"host|max|kvm64|qemu64|x86-64-v[234]|x86-64-v2-AES|custom-[A-Za-z0-9_-]{1,60}|"
    rf"(?:{_FAMILIES})(?:-noTSX)?(?:-IBRS|-IBPB|-v[1-9])?",
    reasons={
        ",": "holds more than the type; flags belong in a custom-<name> type of Proxmox",
        "^(?:486|pentium[23]?|coreduo|athlon|kvm32|qemu32)$": "is a 32-bit type, and K3s needs 64",
    },
)
TAGS = listed(
    pattern(
        "tags of Proxmox in lower case, with commas between them",
        r"(?!fo)[a-z0-9_][a-z0-9_+.-]{0,63}",
        reasons={"^fo": "holds a tag that begins with fo; those are fo's own"},
    ),
    "tags of Proxmox in lower case, with commas between them",
)
STARTUP = Kind("a startup order of Proxmox, like order=2,up=30", _startup, empty="")

_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_DAYS = rf"{_DAY}(?:\.\.{_DAY})?"
_HOUR = "(?:[01]?[0-9]|2[0-3])"
SCHEDULE = pattern(
    'a Proxmox schedule: a time like 02:30, "sat 02:30", "mon..fri 22:00" or */6:00, or daily, weekly or monthly',
    rf"daily|weekly|monthly|(?:{_DAYS}(?:,{_DAYS})* )?(?:{_HOUR}(?:,{_HOUR})*|\*/(?:[1-9]|1[0-2])):[0-5][0-9]",
)
KEEP = Kind("a retention of Proxmox, like keep-daily=7,keep-weekly=4", _keep, empty="")
