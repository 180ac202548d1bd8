"""What is asked of a host: files to look at, files to write, and everything else that one look shows."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class FileLook:
    """A path to look at. ``content`` asks for the bytes too (at most 1 MiB)."""

    path: str
    content: bool = False


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A file as it shall be. Missing folders are made with ``folder_mode``."""

    path: str
    content: bytes | SecretStr
    mode: int = 0o644
    owner: str = "root:root"
    only_if_absent: bool = False
    folder_mode: int = 0o755

    def request(self) -> dict[str, Any]:
        """The helper's ``write`` item. Holds the content, so it is never logged."""
        raw = self.content if isinstance(self.content, bytes) else self.content.get_secret_value().encode()
        return {
            "path": self.path,
            "content": base64.b64encode(raw).decode(),
            "mode": f"{self.mode:04o}",
            "owner": self.owner,
            "only_if_absent": self.only_if_absent,
            "folder_mode": f"{self.folder_mode:04o}",
        }


OBSERVED_FILES = (
    FileLook("/etc/rancher/k3s/config.yaml", content=True),
    FileLook("/etc/rancher/k3s/k3s.yaml"),
    FileLook("/etc/rancher/node/password"),
    FileLook("/etc/systemd/system/k3s.service", content=True),
    FileLook("/etc/systemd/system/k3s-agent.service", content=True),
    FileLook("/usr/local/bin/k3s"),
    FileLook("/var/lib/rancher/k3s/server/token"),
    FileLook("/var/lib/rancher/k3s/server/db/etcd/member"),
    FileLook("/var/lib/rancher/k3s/agent/kubelet.kubeconfig"),
    FileLook("/etc/cloud/cloud-init.disabled"),
)
"""What every look at a host includes. Contents come back as SecretStr: config.yaml holds the tokens."""

OBSERVED_UNITS = ("k3s.service", "k3s-agent.service")
DATA = "/var/lib/rancher"
"""Where the data disk is mounted, on machines that have one: everything K3s keeps lies below."""


@dataclass(frozen=True, slots=True)
class Look:
    """What to look at in one go. The default is what planning needs."""

    files: tuple[FileLook, ...] = OBSERVED_FILES
    units: tuple[str, ...] = OBSERVED_UNITS
    journal: int = 0
    """Lines of each unit's journal."""
    commands: tuple[str, ...] = ("k3s-version", "cloud-init")
    """Also ``certificates``, ``encryption``, ``snapshots``: what K3s says of them."""
    space: tuple[str, ...] = ("/", "/var/lib/rancher/k3s")
    file_systems: tuple[str, ...] = ("/", DATA)
    """Folders where one may be mounted, each looked at with its device and disk."""
    modes: tuple[str, ...] = ()
    """Paths or patterns (``*``, ``?``, ``[…]``) whose owner and mode are looked at, and nothing else of them."""
    connect: tuple[tuple[str, int], ...] = ()
    """Places (address or name, TCP port) that the host shall try to reach."""

    def also(self, *files: FileLook) -> Look:
        """The same look with more files; a path asked for twice is asked for as the later one says."""
        merged = {look.path: look for look in (*self.files, *files)}
        return replace(self, files=tuple(merged.values()))

    def request(self) -> dict[str, Any]:
        return {
            "files": [{"path": look.path, "content": look.content} for look in self.files],
            "units": [{"name": name, "journal": self.journal} for name in self.units],
            "commands": list(self.commands),
            "space": list(self.space),
            "file_systems": list(self.file_systems),
            "modes": list(self.modes),
            "connect": [{"host": host, "port": port} for host, port in self.connect],
        }
