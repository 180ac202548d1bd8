"""Options of a VM as values: property strings taken apart, so that order, spelling and unsaid defaults do not matter.

Keys, aliases and default keys come from the project's table of the Proxmox API; defaults from qemu-server
``PVE/QemuServer.pm`` and ``PVE/QemuServer/Drive.pm``. Never raises: an option of a later release is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from funoffshore import pveapi
from funoffshore.pveapi import Parameter
from funoffshore.world.proxmox.shapes import size_bytes

_YES = {"on": "1", "yes": "1", "true": "1", "off": "0", "no": "0", "false": "0"}
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "agent": {"enabled": "0"},
    "balloon": {"": "on"},  # unset means on; "on" is no value that Proxmox knows
    "bios": {"": "seabios"},
    "cores": {"": "1"},
    "cpu": {"cputype": "kvm64"},
    "hostpci": {"host": "", "mapping": "", "pcie": "0"},
    "memory": {"current": "512"},
    "net": {"firewall": "0", "link_down": "0", "tag": "", "bridge": ""},
    "numa": {"": "0"},
    "onboot": {"": "0"},
    "ostype": {"": "other"},
    "scsi": {"discard": "ignore", "iothread": "0", "ssd": "0", "serial": ""},
    "scsihw": {"": "lsi"},
    "sockets": {"": "1"},
    "startup": {"order": "", "up": "", "down": ""},
    "usb": {"host": "", "mapping": ""},
    "vga": {"type": "std"},
    "watchdog": {"model": "i6300esb", "action": "reset"},
}
"""What an unsaid key means, for each key that fo vouches for; the key of an option that is no property string is ''."""
_BOOLEANS = frozenset({"numa", "onboot", "protection"})
_ANY_CASE = frozenset({"macaddr"})


def parsed(release: tuple[int, int], option: str, value: str) -> dict[str, str]:
    """The keys of ``value`` by their proper names; of an option that is no property string, its text under ''."""
    parts = _parts(release, option)
    if parts is None:
        text = value.strip()
        return {"": _YES.get(text.lower(), text) if option in _BOOLEANS else text} if text else {}
    found: dict[str, str] = {}
    for piece in value.split(","):
        key, sign, text = (word.strip() for word in piece.partition("="))
        if key and not sign:
            key, text = next((name for name, part in parts.items() if part.default_key), key), key
        part = parts.get(key)
        if part is not None and part.alias:
            if part.key_alias:
                found[part.key_alias] = key
            key, part = part.alias, parts.get(part.alias)
        if key:
            found[key] = _YES.get(text.lower(), text) if part is not None and part.type == "boolean" else text
    return found


def normal(release: tuple[int, int], option: str, value: str) -> dict[str, str]:
    """As ``parsed``, with every default said and every value in one spelling."""
    found = dict(_DEFAULTS.get(_family(option), {})) | parsed(release, option, value)
    return {key: _one_spelling(key, text) for key, text in found.items()}


def changed(release: tuple[int, int], option: str, want: str, have: str) -> frozenset[str]:
    """The keys in which ``have`` is not what ``want`` says. Keys that fo does not vouch for are not looked at, nor is
    a drive's volume or size."""
    shall, there = normal(release, option, want), normal(release, option, have)
    return frozenset(key for key in shall if key not in {"file", "size"} and shall[key] != there.get(key, ""))


def merged(release: tuple[int, int], option: str, want: str, have: str) -> str:
    """``have`` with everything that ``want`` says, as it is to be written: what an operator added stays."""
    parts = _parts(release, option)
    if parts is None:
        return want
    shall, there = parsed(release, option, want), parsed(release, option, have)
    vouched = set(_DEFAULTS.get(_family(option), {}))
    whole = {key: text for key, text in there.items() if key in shall or key not in vouched}
    whole |= {key: text for key, text in shall.items() if key != "size" or "size" not in there}
    return printed(whole, parts)


def printed(values: Mapping[str, str], parts: Mapping[str, Parameter]) -> str:
    """As Proxmox prints a property string: what needs no key first, then by key."""
    rest = dict(values)
    head = []
    model = rest.pop("model", "") if "macaddr" in parts else ""
    if model:
        mac = rest.pop("macaddr", "")
        head.append(f"{model}={mac}" if mac else f"model={model}")
    default = next((name for name, part in parts.items() if part.default_key), "")
    if default in rest and not head:
        head.append(rest.pop(default))
    return ",".join([*head, *(f"{key}={rest[key]}" for key in sorted(rest))])


def bare(release: tuple[int, int], option: str, value: str) -> str:
    """The value of the key that needs no name (``512`` of ``current=512``); the text of what is no property string."""
    parts, found = _parts(release, option), parsed(release, option, value)
    return found.get(next((name for name, part in (parts or {}).items() if part.default_key), ""), "")


def words(text: str) -> list[str]:
    """The parts of a list of tags."""
    return pveapi.split_list(text)


def first_boot_device(value: str) -> str:
    """What ``boot`` names first; empty when it leaves that to Proxmox."""
    order = [part.strip() for part in value.split(",") if part.strip().startswith("order=")]
    devices = order[0].removeprefix("order=").split(";") if order else []
    return devices[0].strip() if devices else ""


def _one_spelling(key: str, text: str) -> str:
    if key == "size":
        return str(size_bytes(text))
    return text.lower() if key in _ANY_CASE else text


def _family(option: str) -> str:
    return option.rstrip("0123456789") if option not in {"smbios1"} else option


def _parts(release: tuple[int, int], option: str) -> Mapping[str, Parameter] | None:
    return _table("8.4" if release < (9, 0) else "9.1", option)


@cache
def _table(release: str, option: str) -> Mapping[str, Parameter] | None:
    if option == "startup":
        return {"order": Parameter(default_key=True), "up": Parameter(), "down": Parameter()}
    known = pveapi.table(release)["PUT", "/nodes/{node}/qemu/{vmid}/config"].parameter(option)
    return pveapi.parts_of(known) if known is not None else None
