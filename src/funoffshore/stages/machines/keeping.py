"""Disks that outlive their machine: they hang, unused, in a VM that is never started, one for each Proxmox node."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from funoffshore import errors, run
from funoffshore.config import ClusterConfig, identity
from funoffshore.stages.machines import finding

if TYPE_CHECKING:
    from funoffshore.world.world import World

_DISK = re.compile(r"(?:scsi|virtio|sata|ide)[0-9]+")
_SLOTS = 256
"""Unused disks that one VM can hold (qemu-server)."""


def keep(world: World, config: ClusterConfig, found: finding.Found, step: run.Step) -> None:
    """Hands the disks of a machine that is off to the keeper of its Proxmox node. May be called again after a crash,
    and for one machine at a time: two would choose the same slot of the keeper."""
    disks = [option for option in sorted(found.config.options) if _is_disk(found, option)]
    if not disks:
        return
    keeper = _keeper(world, config, found.hypervisor, step)
    for disk in disks:
        step.checkpoint()
        seen = finding.need(world, config, keeper.name, {"hypervisor": keeper.hypervisor, "vmid": str(keeper.vmid)})
        slot = next((f"unused{n}" for n in range(_SLOTS) if f"unused{n}" not in seen.config.options), None)
        if slot is None:
            raise errors.PreflightError(
                f"VM {keeper.vmid} ({keeper.name}) holds {_SLOTS} disks and takes no more",
                fix="Delete the ones that are not needed, then run the same command again.",
            )
        step.say(f"handing {disk} of {found.name} to {keeper.name}")
        upid = world.proxmox.move_disk(found.hypervisor, found.vmid, disk, keeper.vmid, slot)
        world.proxmox.wait_task(upid, step, f"{disk} of {found.name} to be handed over")
        _note(world, keeper, seen, f"{slot}: {disk} of {found.name}")


def keeper_name(config: ClusterConfig, hypervisor: str) -> str:
    """Of the VM on ``hypervisor`` that holds kept disks; no name that a machine could have."""
    return f"{config.name}-kept-{hypervisor.lower()}"


def _is_disk(found: finding.Found, option: str) -> bool:
    if _DISK.fullmatch(option) is None or not found.config.volume(option):
        return False
    return found.config.parts(option, "file").get("media") != "cdrom"


def _keeper(world: World, config: ClusterConfig, hypervisor: str, step: run.Step) -> finding.Found:
    name = keeper_name(config, hypervisor)
    # The cluster's list does not name a VM that was made a moment ago; the node's own does.
    for row in world.proxmox.vms(hypervisor):
        seen = world.proxmox.config(hypervisor, row.vmid) if row.name == name else None
        if seen is not None and finding.is_ours(seen, identity(config.name, name)):
            return finding.Found(name, hypervisor, row.vmid, seen)
    taken = {row.vmid for row in world.proxmox.resources().guests} | {node.vmid for node in config.nodes}
    lent = config.proxmox
    for vmid in range(lent.vmid_last, lent.vmid_first - 1, -1):
        if vmid not in taken:
            return _make(world, config, hypervisor, vmid, step)
    raise errors.PreflightError(
        f"no VMID from {lent.vmid_first} to {lent.vmid_last} is free for the VM that would keep the disks",
        fix="Give the cluster a wider range with VMID_LAST in the env file.",
    )


def _make(world: World, config: ClusterConfig, hypervisor: str, vmid: int, step: run.Step) -> finding.Found:
    name = keeper_name(config, hypervisor)
    body = {
        "vmid": vmid,
        "name": name,
        "memory": 16,
        "onboot": False,
        "tags": ";".join(sorted(("fo", f"fo-{config.name}", "fo-kept"))),
        "smbios1": f"uuid={identity(config.name, name)}",
        "description": f"Disks that outlived the machines of cluster {config.name}. Never started.\n",
    }
    step.say(f"making VM {vmid} ({name}) to keep the disks")
    upid = world.proxmox.create_vm(hypervisor, body)
    world.proxmox.wait_task(upid, step, f"{name} to be made")
    return finding.need(world, config, name, {"hypervisor": hypervisor, "vmid": str(vmid)})


def _note(world: World, keeper: finding.Found, seen: finding.Found, line: str) -> None:
    """Says in the keeper's notes whose disk that was."""
    fresh = world.proxmox.config(keeper.hypervisor, keeper.vmid) or seen.config
    text = fresh.options.get("description", "").rstrip("\n")
    world.proxmox.change_now(keeper.hypervisor, keeper.vmid, {"description": f"{text}\n{line}"}, digest=fresh.digest)
