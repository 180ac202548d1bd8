"""The core's keys, in the order in which they stand in a file."""

from funoffshore.config.sections.key import Key, Section
from funoffshore.config.sections.machines import BACKUP, HARDWARE, MACHINES, SSH
from funoffshore.config.sections.place import CLUSTER, IMAGE, NETWORK, PROXMOX
from funoffshore.config.sections.software import FLUX, K3S

SECTIONS: tuple[Section, ...] = (CLUSTER, PROXMOX, IMAGE, NETWORK, MACHINES, HARDWARE, BACKUP, SSH, K3S, FLUX)

__all__ = ["SECTIONS", "Key", "Section"]
