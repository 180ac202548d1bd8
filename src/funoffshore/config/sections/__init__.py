"""The core's keys, in the order in which they stand in a file."""

from funoffshore.config.sections.key import Key, Section
from funoffshore.config.sections.machines import BACKUP, HARDWARE, MACHINES, SSH
from funoffshore.config.sections.place import CLUSTER, IMAGE, NETWORK, PROXMOX
from funoffshore.config.sections.software import FLUX, K3S, SNAPSHOTS

SECTIONS: tuple[Section, ...] = (
    CLUSTER,
    PROXMOX,
    IMAGE,
    NETWORK,
    MACHINES,
    HARDWARE,
    BACKUP,
    SSH,
    K3S,
    SNAPSHOTS,
    FLUX,
)

OF_MADE: tuple[Section, ...] = (PROXMOX, IMAGE, HARDWARE, BACKUP)
"""Those that are about machines that fo makes."""

__all__ = ["OF_MADE", "SECTIONS", "Key", "Section"]
