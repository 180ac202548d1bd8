"""The keys of an env file: the one list that the reader, ``fo init``, example.env and the reference all follow.

The core's keys are in ``sections``; those of Stage 1's applications come from ``funoffshore.stage1``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from funoffshore import stage1
from funoffshore.config import hosts, kinds, kubernetes, proxmox
from funoffshore.config.sections import SECTIONS, Key, Section

NODE_KEY = re.compile(r"NODE_([CW])([1-9][0-9]{0,2})_([A-Z][A-Z0-9_]*)")
NODE_FIELDS: Mapping[str, kinds.Kind] = {
    "MACHINE": kinds.one_of("proxmox", "existing"),
    "IP": kinds.ADDRESS,
    "IPV6": hosts.ADDRESS_V6,
    "LABELS": kubernetes.LABELS,
    "TAINTS": kubernetes.TAINTS,
    "VMID": proxmox.VMID,
    "CORES": kinds.whole(1, 256),
    "MEMORY_MIB": kinds.whole(1024, 4_194_304),
    "DISK_GIB": kinds.whole(10, 65_536),
    "DATA_DISK_GIB": proxmox.DATA_DISK,
    "PROXMOX_NODE": proxmox.NODE,
    "PCI": proxmox.PCI,
    "USB": proxmox.USB,
}
"""What ``NODE_<C or W><number>_<field>`` may set for one machine."""
MADE_FIELDS = ("VMID", "CORES", "MEMORY_MIB", "DISK_GIB", "DATA_DISK_GIB", "PROXMOX_NODE", "PCI", "USB")
"""Those that only mean something for a machine that fo makes."""


@dataclass(frozen=True, slots=True)
class _Guess:
    """What a setting of Stage 1 must look like, by the end of its name."""

    end: str
    kind: kinds.Kind
    example: str = ""
    lab: str | None = None


_GUESSES = (
    _Guess("_EMAIL", kinds.EMAIL, "you@example.org", "lab@example.org"),
    _Guess("_SERVER", kinds.HOST, "192.168.1.6", "nas.lab.example.org"),
    _Guess("_ADDRESS", kinds.ADDRESS),
    _Guess("_PATH", kinds.FOLDER),
    _Guess("", kinds.TEXT),
)


@dataclass(frozen=True)
class Table:
    """Every key there is."""

    sections: tuple[Section, ...]
    settings: tuple[stage1.Setting, ...]
    """Keys whose values Flux substitutes, some of the core among them."""
    switches: tuple[stage1.Switch, ...]
    secrets: tuple[stage1.SecretKey, ...]
    """Keys whose values end in Kubernetes Secrets."""

    @functools.cached_property
    def keys(self) -> Mapping[str, Key]:
        """By name, in the order of a file."""
        return {key.name: key for section in self.sections for key in section.keys}

    def find(self, name: str) -> Key | None:
        """The key called ``name``, overrides of single machines included, whether or not there is such a machine."""
        return self.keys.get(name) or _node_key(name)


def table(
    settings: Iterable[stage1.Setting], switches: Iterable[stage1.Switch], secrets: Iterable[stage1.SecretKey]
) -> Table:
    """The core's keys with Stage 1's behind them. A setting that is a core key already is not listed twice."""
    core = {key.name for section in SECTIONS for key in section.keys}
    settings, switches, secrets = tuple(settings), tuple(switches), tuple(secrets)
    more = (
        Section(
            "Stage 1: settings",
            "Public values that Flux puts into the manifests.",
            tuple(_setting(s) for s in settings if s.key not in core),
        ),
        Section("Stage 1: optional parts", "Each is true or false.", tuple(_switches(switches))),
        Section(
            "Stage 1: secrets",
            "Each ends in a Kubernetes Secret and nowhere else. `fo init` generates those that are ours to choose.",
            tuple(_secrets(secrets)),
        ),
    )
    return Table(SECTIONS + more, settings, switches, secrets)


@functools.cache
def known() -> Table:
    """The table of this release."""
    return table(stage1.SETTINGS, stage1.SWITCHES, stage1.SECRET_KEYS)


def _node_key(name: str) -> Key | None:
    match = NODE_KEY.fullmatch(name)
    if match is None or match[3] not in NODE_FIELDS:
        return None
    return Key(name, NODE_FIELDS[match[3]], "", None)


def _setting(setting: stage1.Setting) -> Key:
    guess = next(guess for guess in _GUESSES if setting.key.endswith(guess.end))
    if (setting.default or "").startswith("https://"):
        guess = _Guess("", kinds.PUBLIC_URL)
    text = f"{setting.help} Empty: the value of {setting.follows}." if setting.follows else setting.help
    default = setting.default if setting.default is not None else "" if setting.follows else None
    return Key(setting.key, guess.kind, text, default, example=guess.example, lab=guess.lab)


def _switches(switches: Iterable[stage1.Switch]) -> Iterator[Key]:
    for switch in switches:
        yield Key(switch.key, kinds.SWITCH, switch.help, "true" if switch.default else "false")


def _secrets(secrets: Iterable[stage1.SecretKey]) -> Iterator[Key]:
    for secret in secrets:
        yield Key(
            secret.key,
            kinds.SECRET_TEXT,
            secret.help,
            "" if secret.required_when else None,
            secret=True,
            generate=secret.generate or "",
            required_when=secret.required_when or "",
        )
