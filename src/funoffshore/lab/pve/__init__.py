"""The lab's Proxmox VE: its HTTPS API, tasks, storages and machine configurations, as a real 8.4 or 9.1 answers.

Stays light: ``lab_fingerprint`` can be had without starting, and without importing, anything of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from funoffshore.lab.pve.certificate import lab_fingerprint

if TYPE_CHECKING:
    from funoffshore.lab.pve.api import ProxmoxApi

__all__ = ["ProxmoxApi", "lab_fingerprint"]


def __getattr__(name: str) -> Any:
    if name == "ProxmoxApi":
        from funoffshore.lab.pve.api import ProxmoxApi

        return ProxmoxApi
    raise AttributeError(name)
