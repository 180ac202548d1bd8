"""What a hypervisor asks of whatever runs its virtual machines.

The lab's Proxmox owns configurations, disks and tasks; a driver with this shape makes machines that boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Hardware:
    """A virtual machine as its guest sees it at power-on."""

    vmid: int
    name: str
    uuid: str
    """SMBIOS system UUID, lower case."""
    cores: int
    memory_mib: int
    disk_gib: float
    image: str
    """Volume the boot disk was imported from (``local:import/x.qcow2``), or empty."""
    seed: Path | None
    """The ISO in the CD-ROM drive, or the folder that stands for a cloud-init drive, if there is either."""
    macs: tuple[str, ...]
    agent: bool
    """Whether the guest agent's channel is configured."""
    data_disk_gib: float = 0.0
    """Size of the disk whose serial number is ``fo-data``; 0 without one."""
    architecture: str = "amd64"
    """``amd64`` or ``arm64``, as Go and Kubernetes say."""


class AgentSilentError(Exception):
    """The guest agent does not answer (machine booting, stopped, or no agent)."""


class AgentError(Exception):
    """The guest agent answers that it cannot do what it was told."""


class Guests(Protocol):
    """Runs machines. Every call returns quickly; booting goes on by itself."""

    def power_on(self, hardware: Hardware) -> None:
        """Raises ValueError with a message for the task log when the machine cannot start."""

    def power_off(self, vmid: int) -> None:
        """Pulls the plug. Does nothing for a machine that is off."""

    def shut_down(self, vmid: int) -> None:
        """Asks the guest to power off; it may take a while, or ignore it while it boots."""

    def is_on(self, vmid: int) -> bool:
        """Whether the machine has power."""

    def destroy(self, vmid: int) -> None:
        """Removes every trace of a machine that is off, its disk's content included."""

    def agent(self, vmid: int, command: str, arguments: dict[str, Any]) -> object:
        """What the guest agent answers (JSON-like) to ``network-get-interfaces``, ``get-host-name``, ``ping``, …

        ``file-open`` (``path``, ``mode``), ``file-read`` (``handle``, ``count``), ``file-close`` (``handle``) are the
        agent's own; ``exec`` (``command`` as JSON, ``input``) answers with ``pid``, ``exec-status`` (``pid``) with
        ``exited``, ``exitcode``, ``out-data`` and ``err-data``. Raises AgentSilentError when it does not answer,
        AgentError with its words when it refuses.
        """


@runtime_checkable
class Keeps(Protocol):
    """A driver whose disks can be put aside and brought back; one that cannot has no such methods."""

    def save_disks(self, vmid: int, target: Path) -> None:
        """The content of the machine's disks into one file, whether it is on or off."""

    def load_disks(self, vmid: int, source: Path) -> None:
        """The content back onto the disks of a machine that is off. Does nothing where there is no such file."""
