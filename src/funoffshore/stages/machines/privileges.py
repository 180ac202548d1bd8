"""What the token must be allowed, and why. Pure; from the permission checks of pve-manager, qemu-server (option
lists in API2/Qemu.pm), pve-storage (API2/Storage) and the API description of 8.4 and 9.1."""

from __future__ import annotations

from collections.abc import Mapping

from funoffshore.config import ClusterConfig
from funoffshore.stages.machines.facts import Missing
from funoffshore.world.proxmox import grant_line

_MACHINE = {
    "VM.Allocate": "create and delete machines",
    "VM.Audit": "see which machine is whose",
    "VM.PowerMgmt": "start machines",
    "VM.Config.CPU": "set their cores",
    "VM.Config.Memory": "set their memory",
    "VM.Config.Disk": "import and grow their disks",
    "VM.Config.Network": "attach them to the bridge",
    "VM.Config.HWType": "give them their identity",
    "VM.Config.Options": "name and tag them",
    "VM.Config.CDROM": "insert and remove the seed",
}
_DISKS = {"Datastore.AllocateSpace": "make disks", "Datastore.Audit": "see the room that is left"}
_IMAGES = {
    "Datastore.AllocateTemplate": "put the image and the seeds there",
    "Datastore.Allocate": "delete the seeds, which hold host keys",
    "Datastore.Audit": "see what is there",
}
_NODE = {"Sys.Audit": "see its memory and tasks", "Sys.AccessNetwork": "have it download the image"}
_POOL = {"Pool.Allocate": "create the pool", "Pool.Audit": "see whether it exists"}
_BRIDGE = {"SDN.Use": "attach machines to it"}


def needed(config: ClusterConfig) -> dict[str, Mapping[str, str]]:
    """Path → privilege → what it is for.

    ``/vms`` and not the pool: a machine joins its pool only when its creation ends, so a token with rights on the
    pool alone can neither see nor remove what an interrupted creation leaves (recorded from a real 8.4 API).
    """
    lent = config.proxmox
    tag = f"/{lent.vlan}" if lent.vlan is not None else ""
    paths: dict[str, Mapping[str, str]] = {"/vms": _MACHINE}
    for path, wanted in (
        (f"/storage/{lent.disk_storage}", _DISKS),
        (f"/storage/{lent.image_storage}", _IMAGES),
        (f"/sdn/zones/localnetwork/{lent.bridge}{tag}", _BRIDGE),
        *((f"/nodes/{name}", _NODE) for name in lent.nodes),
        *(((f"/pool/{lent.pool}", _POOL),) if lent.pool else ()),
    ):
        paths[path] = {**paths.get(path, {}), **wanted}
    return paths


def missing(config: ClusterConfig, granted: Mapping[str, frozenset[str]]) -> tuple[Missing, ...]:
    """What is needed on a path of ``granted`` and not there. Paths that could not be read are left out."""
    return tuple(
        Missing(path, privilege, purpose)
        for path, wanted in needed(config).items()
        if path in granted
        for privilege, purpose in wanted.items()
        if privilege not in granted[path]
    )


def remedy(config: ClusterConfig, lacking: tuple[Missing, ...]) -> tuple[str, ...]:
    """Shell lines for the Proxmox host, one per path, that grant everything the path needs."""
    wanted = needed(config)
    paths = dict.fromkeys(lack.path for lack in lacking)
    return tuple(grant_line(config.proxmox.token_id, path, sorted(wanted[path]), _role(path)) for path in paths)


def _role(path: str) -> str:
    words = [word for word in path.split("/") if word]
    return "fo-" + "-".join(words[:1] + words[-1:] if len(words) > 1 else words)
