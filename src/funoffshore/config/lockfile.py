"""The lock file of a cluster, ``config/lock/<cluster>.yaml``: which bytes it is built from. Not secret, kept in Git.

It pins the image (URL and digest), K3s (release, and the binary's digest by architecture) and Flux (release, URL and
digest of install.yaml). The env file says what is wanted; the lock says which bytes that is.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from funoffshore import atomic, errors
from funoffshore.config import files, keys, kinds, place
from funoffshore.config.files import FILE, Problem

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 16 * 1024
MODE = 0o644
SECTIONS = ("image", "k3s", "flux")
ENV_KEYS: Mapping[str, str] = {
    "IMAGE_URL": "image.url",
    "IMAGE_SHA256": "image.sha256",
    "IMAGE_SHA512": "image.sha512",
    "K3S_VERSION": "k3s.version",
    "K3S_SHA256": "k3s.sha256.amd64",
    "K3S_SHA256_ARM64": "k3s.sha256.arm64",
    "FLUX_VERSION": "flux.version",
    "FLUX_INSTALL_URL": "flux.url",
    "FLUX_INSTALL_SHA256": "flux.sha256",
}
"""Where the value of a key stands in the lock file."""

_OPTIONAL = frozenset((*SECTIONS, "image.sha256", "image.sha512", "k3s.sha256.arm64"))
_SHOW_AT_MOST = 40
"""Problems; a hostile file has thousands."""

_Say = Callable[[int, str], None]


@dataclass(frozen=True)
class Lock:
    """What is locked."""

    entries: Mapping[str, str]
    """By path, like ``k3s.sha256.amd64``, in the order of the file."""

    def has(self, section: str) -> bool:
        return any(path.startswith(f"{section}.") for path in self.entries)

    def section(self, name: str) -> dict[str, str]:
        return {path: text for path, text in self.entries.items() if path.startswith(f"{name}.")}


def load(root: Path, name: str) -> Lock | None:
    """The lock of cluster ``name``; None where there is no file. Raises ConfigError that names every problem."""
    data, problems = read(root, name)
    found = None
    if data is not None:
        found, more = parse(data, shown(name))
        problems += more
    if problems:
        raise errors.ConfigError(
            f"{shown(name)} cannot be trusted",
            fix=f"restore it from Git, or run `fo lock update -c {name}`, which writes it anew",
            evidence=tuple(problem.text for problem in problems),
        )
    return found


def read(root: Path, name: str) -> tuple[bytes | None, list[Problem]]:
    """The bytes of the lock file; no bytes and no problem where there is none. Never follows a symlink."""
    path = place.lock_file(root, name)
    if not os.path.lexists(path):
        return None, []
    data, problems = files.read(path, MAX_BYTES, _distrust)
    return data, [Problem(0, f"{shown(name)}: {problem.text}") for problem in problems]


def shown(name: str) -> str:
    """The path of the lock file, for a message."""
    return f"config/lock/{name}.yaml"


def parse(data: bytes, where: str) -> tuple[Lock, list[Problem]]:
    """What ``data`` locks, and every problem in it; ``where`` stands before each. ``data`` may be any bytes."""
    import yaml

    found: dict[str, str] = {}
    problems: list[Problem] = []

    def say(line: int, text: str) -> None:
        if len(problems) < _SHOW_AT_MOST:
            problems.append(Problem(0, f"{where}: line {line}: {text}" if line else f"{where}: {text}"))

    try:
        node = yaml.compose(data.decode("utf-8"), Loader=yaml.BaseLoader)
    except UnicodeDecodeError:
        say(0, "is not UTF-8")
    except RecursionError:
        say(0, "is nested too deeply")
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        say(mark.line + 1 if mark else 0, "cannot be read as YAML")
    else:
        if node is None:
            say(0, "is empty")
        elif not _is_mapping(node):
            say(0, "does not hold sections with entries")
        else:
            _walk(node, _shape(), "", found, say)
            _digest_of_image(found, problems, say)
            if not found and not problems:
                say(0, "is empty")
    return Lock(MappingProxyType(found)), problems


def text(lock: Lock, name: str) -> str:
    """The lock file of cluster ``name``."""
    lines = [
        f"# The bytes that cluster {name} is built from; fo takes no others. Not secret: keep this file in Git.",
        f"# The env file says what is wanted; `fo lock update -c {name}` asks the publishers which bytes that is.",
    ]
    open_sections: list[str] = []
    for path, value in lock.entries.items():
        *sections, leaf = path.split(".")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != sections[: depth + 1]:
                lines += [""] * (depth == 0) + [f"{'  ' * depth}{section}:"]
        open_sections = sections
        shown_value = f'"{value}"' if re.fullmatch("[0-9a-f]+", value) else value
        lines.append(f"{'  ' * len(sections)}{leaf}: {shown_value}")
    return "\n".join(lines) + "\n"


def write(root: Path, name: str, lock: Lock) -> None:
    """Makes the lock file hold ``lock``: the old bytes or the new ones, never a mixture. Raises ConfigError."""
    path = place.lock_file(root, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text(lock, name).encode(), mode=MODE)
    except OSError as why:
        raise errors.ConfigError(f"{shown(name)} cannot be written: {why.strerror}") from None


def ordered(entries: Mapping[str, str]) -> Lock:
    """A lock of these entries, in the order of a file."""
    return Lock(MappingProxyType({path: entries[path] for path in _paths(_shape(), "") if path in entries}))


def changes(old: Lock | None, new: Lock) -> list[tuple[str, str, str]]:
    """What differs: path, old value, new value; empty text where there is none."""
    before = old.entries if old else {}
    return [
        (path, before.get(path, ""), new.entries.get(path, ""))
        for path in _paths(_shape(), "")
        if before.get(path) != new.entries.get(path)
    ]


def _distrust(status: os.stat_result) -> Iterator[Problem]:
    if status.st_mode & stat.S_IWOTH:
        yield Problem(FILE, "can be written by everybody; chmod 644 it")


_Shape = Mapping[str, "kinds.Kind | _Shape"]


@cache
def _shape() -> _Shape:
    table = keys.known().keys
    return {
        "image": {"url": table["IMAGE_URL"].kind, "sha256": kinds.HEX64, "sha512": kinds.HEX128},
        "k3s": {"version": kinds.K3S_VERSION, "sha256": {"amd64": kinds.HEX64, "arm64": kinds.HEX64}},
        "flux": {"version": kinds.FLUX_VERSION, "url": table["FLUX_INSTALL_URL"].kind, "sha256": kinds.HEX64},
    }


def _paths(shape: _Shape, above: str) -> Iterator[str]:
    for name, inner in shape.items():
        if isinstance(inner, kinds.Kind):
            yield above + name
        else:
            yield from _paths(inner, f"{above}{name}.")


def _is_mapping(node: yaml.Node) -> bool:
    from yaml import MappingNode

    return isinstance(node, MappingNode) and node.tag == "tag:yaml.org,2002:map"


def _text_of(node: yaml.Node) -> str | None:
    """None: it is something else than a text."""
    from yaml import ScalarNode

    return str(node.value) if isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:str" else None


def _walk(node: yaml.Node, shape: _Shape, above: str, found: dict[str, str], say: _Say) -> None:
    """Only as deep as ``shape``, so that aliases can lead nowhere."""
    seen: set[str] = set()
    for name_node, value in node.value:
        line, name = name_node.start_mark.line + 1, _text_of(name_node) or ""
        if name not in shape:
            is_plain = re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name)
            say(line, f"{above}{name if is_plain else '?'}: there is no such entry")
        elif name in seen:
            say(line, f"{above}{name}: stands there twice")
        else:
            seen.add(name)
            inner = shape[name]
            if isinstance(inner, kinds.Kind):
                _leaf(value, inner, above + name, found, say)
            elif _is_mapping(value):
                _walk(value, inner, f"{above}{name}.", found, say)
            else:
                say(line, f"{above}{name}: is not a section with entries")
    for name in shape:
        if name not in seen and above + name not in _OPTIONAL:
            say(node.start_mark.line + 1, f"{above}{name}: is missing")


def _leaf(node: yaml.Node, kind: kinds.Kind, path: str, found: dict[str, str], say: _Say) -> None:
    line, text = node.start_mark.line + 1, _text_of(node)
    if text is None:
        say(line, f"{path}: is not a text")
        return
    try:
        if not text:
            raise ValueError("is empty")
        kind.parse(text)
        found[path] = text
    except ValueError as why:
        reason = str(why) if type(why) is ValueError and str(why) else f"is not {kind.what}"
        say(line, f"{path}: {reason}")


def _digest_of_image(found: Mapping[str, str], problems: list[Problem], say: _Say) -> None:
    given = [path for path in ("image.sha256", "image.sha512") if path in found]
    if len(given) == 2:
        say(0, "image.sha512: is given beside image.sha256; give only one of them")
    if "image.url" in found and not given and not problems:
        say(0, "image.sha512: is missing, unless image.sha256 is given")
