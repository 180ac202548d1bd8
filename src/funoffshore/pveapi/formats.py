"""Named formats: what Proxmox checks behind a name such as ``pve-vmid``, with its own words on refusal.

Facts from pve-common ``PVE/JSONSchema.pm``, qemu-server ``PVE/QemuServer.pm``, ``PVE/QemuServer/CPUConfig.pm``; texts
recorded from a real 8.4 API.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from funoffshore.pveapi import calendar
from funoffshore.pveapi.schema import Parameter


class FormatError(ValueError):
    """The value does not have the format; ``str()`` is what Proxmox says after "invalid format - "."""


_FLAG = Parameter("boolean")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_BASE64 = Parameter(pattern=r"[A-Za-z0-9+\/]+={0,2}")
_KEPT = Parameter("integer", minimum=0)
_SNIPPET = Parameter(format="pve-volume-id")

PROPERTIES: Mapping[str, Mapping[str, Parameter]] = {
    "pve-qm-ipconfig": {
        "ip": Parameter(format="pve-ipv4-config"),
        "gw": Parameter(format="ipv4", requires="ip"),
        "ip6": Parameter(format="pve-ipv6-config"),
        "gw6": Parameter(format="ipv6", requires="ip6"),
    },
    "pve-qm-smbios1": {
        "uuid": Parameter(pattern="[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}"),
        **dict.fromkeys(("version", "serial", "manufacturer", "product", "sku", "family"), _BASE64),
        "base64": _FLAG,
    },
    "pve-qm-boot": {
        "legacy": Parameter(pattern="[acdn]{1,4}", default_key=True),
        "order": Parameter(format="pve-qm-bootdev-list"),
    },
    "pve-vm-cpu-conf": {
        "cputype": Parameter(default_key=True),
        "flags": Parameter(pattern=r"[+-][a-zA-Z0-9\-_\.]+(;[+-][a-zA-Z0-9\-_\.]+)*"),
        "guest-phys-bits": Parameter("integer", minimum=32, maximum=64, since="9.1"),
        "hidden": _FLAG,
        "hv-vendor-id": Parameter(pattern="[a-zA-Z0-9]{1,12}"),
        "phys-bits": Parameter(pattern="(8|9|[1-5][0-9]|6[0-4]|host)"),
        "reported-model": Parameter(),
    },
    "pve-qm-cicustom": dict.fromkeys(("meta", "network", "user", "vendor"), _SNIPPET),
    "pve-qm-hostpci": {
        "host": Parameter(default_key=True),
        "mapping": Parameter(format="pve-configid"),
        **dict.fromkeys(("pcie", "rombar", "x-vga", "legacy-igd"), _FLAG),
        "mdev": Parameter(),
        "romfile": Parameter(),
    },
    "pve-qm-rng": {
        "source": Parameter(optional=False, enum=("/dev/urandom", "/dev/random", "/dev/hwrng"), default_key=True),
        "max_bytes": Parameter("integer"),
        "period": Parameter("integer"),
    },
    "pve-qm-watchdog": {
        "model": Parameter(enum=("i6300esb", "ib700"), default_key=True),
        "action": Parameter(enum=("reset", "shutdown", "poweroff", "pause", "debug", "none")),
    },
    "prune-backups": {
        "keep-all": _FLAG,
        **dict.fromkeys((f"keep-{span}" for span in ("last", "hourly", "daily", "weekly", "monthly", "yearly")), _KEPT),
    },
    "backup-performance": {
        "max-workers": Parameter("integer", minimum=1, maximum=256),
        "pbs-entries-max": Parameter("integer", minimum=1),
    },
    "backup-fleecing": {
        "enabled": Parameter("boolean", default_key=True),
        "storage": Parameter(format="pve-storage-id"),
    },
}
"""Formats that are property strings."""

WHOLE: Mapping[str, tuple[str, str]] = {"pve-vm-cpu-conf": ("cputype", "pve-cputype")}
"""Property strings of which Proxmox checks one key afterwards, without naming it: format → key, its format."""

_CPUS = (
    "486 athlon Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS Cascadelake-Server "
    "Cascadelake-Server-noTSX Cascadelake-Server-v2 Cascadelake-Server-v4 Cascadelake-Server-v5 Conroe Cooperlake "
    "Cooperlake-v2 core2duo coreduo EPYC EPYC-Genoa EPYC-IBPB EPYC-Milan EPYC-Milan-v2 EPYC-Rome EPYC-Rome-v2 "
    "EPYC-Rome-v3 EPYC-Rome-v4 EPYC-v3 EPYC-v4 GraniteRapids Haswell Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS "
    "host Icelake-Client Icelake-Client-noTSX Icelake-Server Icelake-Server-noTSX Icelake-Server-v3 Icelake-Server-v4 "
    "Icelake-Server-v5 Icelake-Server-v6 IvyBridge IvyBridge-IBRS KnightsMill kvm32 kvm64 max Nehalem Nehalem-IBRS "
    "Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 Penryn pentium pentium2 pentium3 phenom qemu32 qemu64 "
    "SandyBridge SandyBridge-IBRS SapphireRapids SapphireRapids-v2 Skylake-Client Skylake-Client-IBRS "
    "Skylake-Client-noTSX-IBRS Skylake-Client-v4 Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS "
    "Skylake-Server-v4 Skylake-Server-v5 Westmere Westmere-IBRS x86-64-v2 x86-64-v2-AES x86-64-v3 x86-64-v4"
)
CPU_MODELS: tuple[str, ...] = tuple(_CPUS.split())
"""CPU types that need no definition of their own."""
_CONTENTS = frozenset(("images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import", "none"))
_BOOTABLE = re.compile(r"(?:(?:ide|sata|scsi|virtio|net|usb|hostpci)(?:0|[1-9]\d?)|efidisk0)\Z")


def verify(name: str, value: str) -> None:
    """Raises FormatError when ``value`` is not of format ``name``. Names not known here accept everything."""
    if name.endswith("-list") and name not in _CHECKS:
        inner = name.removesuffix("-list")
        for part in split_list(value):
            verify(inner, part)
        return
    test = _CHECKS.get(name)
    if test is not None:
        test(value)


def split_list(text: str) -> list[str]:
    """The parts of a list as Proxmox splits it: at commas, semicolons and white space."""
    return text.replace(",", " ").replace(";", " ").split()


def _matches(pattern: str, complaint: str) -> Callable[[str], None]:
    compiled = re.compile(pattern + r"\Z")

    def test(value: str) -> None:
        if not compiled.match(value):
            raise FormatError(complaint.replace("VALUE", value) + "\n")

    return test


def _address(version: int) -> Callable[[str], None]:
    name = {0: "IP address", 4: "IPv4 address", 6: "IPv6 address"}[version]

    def test(value: str) -> None:
        try:
            found = ipaddress.ip_address(value)
        except ValueError:
            found = None
        if found is None or version not in (0, found.version):
            raise FormatError(f"value does not look like a valid {name}\n")

    return test


def _interface(version: int, words: tuple[str, ...]) -> Callable[[str], None]:
    def test(value: str) -> None:
        if value in words:
            return
        try:
            if "/" in value and ipaddress.ip_interface(value).version == version and value.split("/")[1].isdigit():
                return
        except ValueError:
            pass
        raise FormatError(f"value does not look like a valid ipv{version} network configuration\n")

    return test


def _mac(value: str) -> None:
    if not re.fullmatch(r"[a-fA-F0-9][02468aceACE](?::[a-fA-F0-9]{2}){5}", value):
        raise FormatError("value does not look like a valid unicast MAC address\n")


def _cpu(value: str) -> None:
    if not value.startswith("custom-") and value not in CPU_MODELS:
        raise FormatError(f"Built-in cputype '{value}' is not defined (missing 'custom-' prefix?)\n")


def _startup(value: str) -> None:
    for part in value.split(","):
        if part and not re.fullmatch(r"(?:order=)?\d+|(?:up|down)=\d+", part.strip()):
            raise FormatError("unable to parse startup options\n")


def _boot_device(value: str) -> None:
    if not _BOOTABLE.match(value):
        raise FormatError(f"invalid boot device '{value}'\n")


def _content(value: str) -> None:
    if value not in _CONTENTS:
        raise FormatError(f"invalid content type '{value}'\n")


def _volume(value: str) -> None:
    if not re.match(r"[a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]:.+\Z", value):
        raise FormatError(f"unable to parse volume ID '{value}'\n")


def _volume_or_path(value: str) -> None:
    if not value.startswith("/"):
        _volume(value)


def _volume_or_word(value: str) -> None:
    """Also sizes alone, ``none``, ``cdrom`` and ``cloudinit``: what a drive's first part may be."""
    if value not in ("none", "cdrom", "cloudinit") and not re.fullmatch(r"\d+(\.\d+)?", value):
        _volume_or_path(value)


def _disk_size(value: str) -> None:
    if not re.fullmatch(r"\d+(?:\.\d+)?[KMGT]?", value):
        raise FormatError(f"value does not look like a valid disk size: {value}\n")


def _urlencoded(value: str) -> None:
    if not re.fullmatch(r"[-%a-zA-Z0-9_.!~*'()]*", value):
        raise FormatError(f"invalid urlencoded string: {value}\n")
    unquote(value)


def _event(value: str) -> None:
    try:
        calendar.parse(value)
    except ValueError as why:
        raise FormatError(f"invalid calendar event '{value}' - {why}\n") from None


def _firewall_address(value: str) -> None:
    """Addresses, networks and ranges by comma; names of sets and aliases are taken as they are."""
    for part in value.split(","):
        if re.fullmatch(r"\+?(?:(?:dc|guest)/)?[A-Za-z][A-Za-z0-9\-_]+", part):
            continue
        try:
            for address in part.split("-", 1):
                ipaddress.ip_interface(address)
        except ValueError:
            raise FormatError(f"invalid address/cidr/ipset specification '{part}'\n") from None


def _firewall_ports(value: str) -> None:
    for part in value.split(","):
        numbers = [int(number) for number in part.split(":")] if re.fullmatch(r"\d+(?::\d+)?", part) else []
        if numbers and not all(0 < number <= 65535 for number in numbers):
            raise FormatError(f"invalid port '{part}'\n")
        if not numbers and not re.fullmatch(r"[A-Za-z][A-Za-z0-9\-_]*", part):
            raise FormatError(f"invalid port '{part}'\n")


_ID = r"[a-zA-Z][a-zA-Z0-9_-]+"
_CHECKS: dict[str, Callable[[str], None]] = {
    "dns-name": _matches(rf"{_LABEL}(?:\.{_LABEL})*", "value does not look like a valid DNS name"),
    "pve-node": _matches(_LABEL, "value does not look like a valid node name"),
    "pve-vmid": _matches(r"[1-9][0-9]{2,8}", "value does not look like a valid VM ID"),
    "pve-storage-id": _matches(
        r"[a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]", "storage ID 'VALUE' contains illegal characters"
    ),
    "pve-poolid": _matches(r"[A-Za-z0-9.\-_]+(?:/[A-Za-z0-9.\-_]+){0,2}", "value does not look like a valid pool name"),
    "pve-configid": _matches(_ID, "invalid configuration ID 'VALUE'"),
    "pve-bridge-id": _matches(r"[-_.\w]+", "invalid bridge ID 'VALUE'"),
    "pve-tag": _matches(r"[a-zA-Z0-9_][a-zA-Z0-9_\-+.]*", "invalid characters in tag"),
    "pve-task-status-type": _matches("ok|error|warning|unknown", "invalid task status type 'VALUE'"),
    "pve-storage-content": _content,
    "pve-volume-id": _volume,
    "pve-volume-id-or-absolute-path": _volume_or_path,
    "pve-volume-id-or-qm-path": _volume_or_word,
    "pve-ipv4-config": _interface(4, ("dhcp",)),
    "pve-ipv6-config": _interface(6, ("auto", "dhcp")),
    "pve-cputype": _cpu,
    "pve-qm-bootdev": _boot_device,
    "pve-startup-order": _startup,
    "pve-calendar-event": _event,
    "pve-ha-resource-or-vm-id": _matches(r"[a-z]+:\S+|\d+", "value does not look like a valid ha resource id"),
    "pve-ha-resource-id": _matches(r"[a-z]+:\S+", "value does not look like a valid ha resource id"),
    "pve-ha-group-node": _matches(_LABEL + r"(?::\d+)?", "value does not look like a valid ha group node"),
    "pve-ha-node": _matches(_LABEL + r"(?::\d+)?", "value does not look like a valid ha node"),
    "pve-iface": _matches(r"[a-zA-Z][a-zA-Z0-9_]{1,20}(?:[:.]\d+)?", "invalid network interface name 'VALUE'"),
    "pve-fw-addr-spec": _firewall_address,
    "pve-fw-dport-spec": _firewall_ports,
    "pve-fw-sport-spec": _firewall_ports,
    "pve-userid": _matches(r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+", "value 'VALUE' does not look like a valid user name"),
    "pve-tokenid": _matches(
        r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+",
        "value 'VALUE' does not look like a valid token ID",
    ),
    "pve-groupid": _matches(r"[A-Za-z0-9.\-_]+", "group name 'VALUE' contains invalid characters"),
    "pve-roleid": _matches(r"[A-Za-z0-9.\-_]+", "role name 'VALUE' contains invalid characters"),
    "ipv4": _address(4),
    "ipv6": _address(6),
    "address": _address(0),
    "mac-addr": _mac,
    "disk-size": _disk_size,
    "urlencoded": _urlencoded,
}
