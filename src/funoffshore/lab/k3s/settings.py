"""What one k3s process is told: config.yaml, its drop-ins and the command line, folded into one list of flags.

Rules recorded from a real run: later files replace a key, ``key+`` appends, the command line comes last; an unknown
key of a file is skipped by a server and kills an agent; an unknown flag on the command line kills both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from funoffshore.lab.k3s.flags import KINDS, SNAPSHOT
from funoffshore.lab.k3s.log import Fatal

CONFIG = "/etc/rancher/k3s/config.yaml"
SKIPPING = "Unknown flag --{} found in config.yaml, skipping"

_ALIASES = {"t": "token", "s": "server", "c": "config", "d": "data-dir", "i": "node-ip", "l": "log"}
_SECRET = {"token", "agent-token", "datastore-endpoint", "etcd-s3-access-key", "etcd-s3-secret-key", "vpn-auth"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Flags of one process, in the order in which they were unfolded."""

    role: str
    """``server`` or ``agent``."""
    flags: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...] = ()
    """Unknown keys of config.yaml, for which a server only warns."""

    def text(self, key: str, default: str = "") -> str:
        """The last value of ``key``."""
        return next((v for k, v in reversed(self.flags) if k == key), default)

    def flag(self, key: str) -> bool:
        return self.text(key, "false").lower() in ("true", "1", "t")

    def many(self, key: str) -> list[str]:
        """Every value of ``key``, commas split, in order."""
        return [part for k, v in self.flags if k == key for part in v.split(",") if part]

    def arguments(self, *, redacted: bool) -> list[str]:
        """``["server", "--cluster-init", "true", …]``, as the annotation ``k3s.io/node-args`` shows it."""
        words = [self.role]
        for key, value in self.flags:
            words += [f"--{key}", "********" if redacted and key in _SECRET else value]
        return words


@dataclass(slots=True)
class _Folding:
    role: str
    values: dict[str, list[str]] = field(default_factory=dict)

    def take(self, path: Path) -> None:
        for key, value in _read(path).items():
            items = [_text(item) for item in value] if isinstance(value, list) else [_text(value)]
            if str(key).endswith("+"):
                self.values.setdefault(str(key)[:-1], []).extend(items)
            else:
                self.values[str(key)] = items


def read(locate: Callable[[str], Path], argv: list[str]) -> Settings:
    """Settings for ``argv`` (``["k3s", "server", …]``). ``locate`` finds a host's path. Raises Fatal."""
    role = argv[1]
    told = list(_command_line(role, argv[2:]))
    folding = _Folding(role)
    config = next((v for k, v in told if k == "config"), CONFIG)
    main, folder = locate(config), locate(config + ".d")
    if main.is_file():
        folding.take(main)
    for part in sorted(folder.glob("*.yaml")) + sorted(folder.glob("*.yml")) if folder.is_dir() else []:
        folding.take(part)
    kinds = KINDS[role]
    skipped = [key for key in folding.values if _ALIASES.get(key, key) not in kinds]
    if skipped and role == "agent":
        raise Fatal(f"Error: flag provided but not defined: -{skipped[0]}")
    flags = [
        (_ALIASES.get(key, key), item) for key, items in folding.values.items() if key not in skipped for item in items
    ]
    settings = Settings(role, (*flags, *told), tuple(skipped))
    _check(settings)
    return settings


def foreign(locate: Callable[[str], Path]) -> list[str]:
    """Keys of config.yaml that ``k3s etcd-snapshot``, which reads it too, does not know; once per value."""
    folding = _Folding("etcd-snapshot")
    main, folder = locate(CONFIG), locate(CONFIG + ".d")
    for part in ([main] if main.is_file() else []) + (sorted(folder.glob("*.yaml")) if folder.is_dir() else []):
        folding.take(part)
    return [key for key, items in folding.values.items() if key not in SNAPSHOT for _ in items]


def _command_line(role: str, words: list[str]) -> Iterator[tuple[str, str]]:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise Fatal(f"Error: unknown argument: {word}")
        name, given, value = word.lstrip("-").partition("=")
        name = _ALIASES.get(name, name)
        kind = KINDS[role].get(name)
        if kind is None:
            raise Fatal(f"Error: flag provided but not defined: -{name}")
        if not given and kind == "bool":
            value = "true"
        elif not given:
            if not rest:
                raise Fatal(f"Error: flag needs an argument: -{name}")
            value = rest.pop(0)
        yield name, value


def _read(path: Path) -> dict[Any, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except yaml.MarkedYAMLError as why:
        number = why.problem_mark.line + 1 if why.problem_mark else 1
        where = f"line {number}: " if number > 1 else ""  # go-yaml is silent about the first
        problem = (why.problem or "could not find expected key").replace("allowed here", "allowed in this context")
        raise Fatal(f"yaml: {where}{problem}") from None
    except yaml.YAMLError:
        raise Fatal("yaml: control characters are not allowed") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Fatal(f"yaml: unmarshal errors:\n  line 1: cannot unmarshal {type(document).__name__} into yaml.MapSlice")
    return document


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _check(settings: Settings) -> None:
    kinds = KINDS[settings.role]
    for key, value in settings.flags:
        if kinds[key] == "bool" and value.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise Fatal(f'Error: invalid boolean value "{value}" for -{key}: parse error')
    for key in ("cluster-cidr", "service-cidr"):
        for value in settings.many(key):
            try:
                ipaddress.ip_network(value)
                if "/" not in value:
                    raise ValueError
            except ValueError:
                raise Fatal(f"Error: invalid {key} {value}: invalid CIDR address: {value}") from None
    for value in settings.many("node-ip"):
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise Fatal(f"Error: invalid node-ip: invalid ip format '{value}'") from None
