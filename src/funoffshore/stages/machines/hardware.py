"""What a machine is made of, in Proxmox's words. Pure."""

from __future__ import annotations

from typing import Any

from funoffshore import seed
from funoffshore.config import ClusterConfig, Node

BOOT_DISK = "scsi0"


def image_volume(config: ClusterConfig) -> str:
    """Volume of the cloud image: ``local:import/debian-12-….qcow2``."""
    return f"{config.proxmox.image_storage}:import/{config.image.filename}"


def seed_volume(config: ClusterConfig, node: Node) -> str:
    """Volume of the node's seed ISO: ``local:iso/home-home-c1-….iso``."""
    return f"{config.proxmox.image_storage}:iso/{seed.filename(config, node)}"


def tags(config: ClusterConfig) -> tuple[str, str]:
    """Tags that every machine of the cluster carries, for a human's filter; they prove nothing."""
    return ("fo", f"fo-{config.name.lower()}")


def description(config: ClusterConfig, node: Node) -> str:
    """Tells whoever opens the VM in Proxmox whose it is."""
    return f"Made by funoffshore: {node.role} {node.name} of cluster {config.name}.\n\nfo-identity: {node.identity}"


def body(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """The whole request that creates the machine; only its disk has still to grow afterwards."""
    lent = config.proxmox
    vlan = f",tag={lent.vlan}" if lent.vlan is not None else ""
    wanted: dict[str, Any] = {
        "vmid": node.vmid,
        "name": node.name,
        "description": description(config, node),
        "tags": ";".join(tags(config)),
        "ostype": "l26",
        "machine": "q35",
        "cpu": "x86-64-v2-AES",
        "sockets": 1,
        "cores": node.cores,
        "memory": node.memory_mib,
        # Kubernetes plans with the memory it saw at start, so none may be taken back.
        "balloon": 0,
        "scsihw": "virtio-scsi-single",
        BOOT_DISK: f"{lent.disk_storage}:0,import-from={image_volume(config)},discard=on,iothread=1,ssd=1",
        "ide2": f"{seed_volume(config, node)},media=cdrom",
        "boot": f"order={BOOT_DISK}",
        # Debian and Ubuntu images can panic after a resize when they have no serial console.
        "serial0": "socket",
        "vga": "serial0",
        "net0": f"virtio={seed.mac(node.identity)},bridge={lent.bridge}{vlan}",
        "agent": "enabled=1",
        "onboot": True,
        "smbios1": f"uuid={node.identity}",
    }
    return wanted | ({"pool": lent.pool} if lent.pool else {})
