"""What a preflight looks at, one word for each, in the order of their gravity. Values only."""

from __future__ import annotations

from enum import StrEnum

from funoffshore.errors import FoError


class Subject(StrEnum):
    """What a problem is about."""

    PRIVILEGES = "privileges"
    RELEASE = "release"
    NODES = "nodes"
    """Proxmox nodes and their quorum."""
    GUESTS = "guests"
    """Other people's VMs where ours belong, and ours in a state that forbids the plan."""
    ADDRESSES = "addresses"
    CLOCKS = "clocks"
    STORAGES = "storages"
    BRIDGE = "bridge"
    CPU = "cpu"
    IMAGE = "image"
    """The cloud image or the template."""
    DEVICES = "devices"
    """Resource mappings."""
    ROOM = "room"
    """Memory, CPUs, disk space and VMIDs for every machine."""
    BACKUPS = "backups"
    AVAILABILITY = "availability"


Told = tuple[Subject, FoError]
Advice = tuple[Subject, str]
"""What stops nothing and should be known all the same, a sentence."""
