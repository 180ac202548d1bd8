"""What a machine is made of, in Proxmox's words: the request that makes it, and the options fo vouches for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from funoffshore import seed
from funoffshore.config import ClusterConfig, Node
from funoffshore.stages.machines.placing import Place
from funoffshore.world.proxmox import VmConfig

BOOT_DISK = "scsi0"
DATA_DISK = "scsi1"
DATA_SERIAL = "fo-data"
"""Serial number of the data disk: what the guest finds it by (``/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_fo-data``)."""
SEED_DRIVE = "ide2"
DISK_OPTIONS: Mapping[str, str] = {"discard": "on", "iothread": "1", "ssd": "1"}
IDENTITY_MARK = "fo-identity: "


def image_volume(config: ClusterConfig) -> str:
    """Volume of the cloud image: ``local:import/debian-12-….qcow2``."""
    return f"{config.proxmox.image_storage}:import/{config.image.filename}"


def seed_volume(config: ClusterConfig, node: Node) -> str:
    """Volume of the node's seed ISO: ``local:iso/home-home-c1-….iso``."""
    return f"{config.proxmox.image_storage}:iso/{seed.filename(config, node)}"


def tags(config: ClusterConfig) -> tuple[str, ...]:
    """Tags that every machine of the cluster carries, as Proxmox stores them: lower case, sorted, each once.

    They are for a human's filter; they prove nothing.
    """
    return tuple(sorted({tag.lower() for tag in ("fo", f"fo-{config.name}", *config.shape.tags)}))


def description(config: ClusterConfig, node: Node) -> str:
    """Tells whoever opens the VM in Proxmox whose it is."""
    return f"Made by funoffshore: {node.role} {node.name} of cluster {config.name}.\n\n{identity_mark(node)}"


def identity_mark(node: Node) -> str:
    """The line of the description that names the machine's identity."""
    return f"{IDENTITY_MARK}{node.identity}"


def body(config: ClusterConfig, node: Node, place: Place, release: tuple[int, int]) -> dict[str, Any]:
    """The whole request that creates the machine on ``place``; only its boot disk has still to grow afterwards."""
    storage = config.proxmox.disk_storage
    source = f"{storage}:0,import-from={image_volume(config)}"
    drives = {BOOT_DISK: ",".join([source, *_pairs(DISK_OPTIONS)]), **_fresh_drives(config, node)}
    return {
        "vmid": place.vmid,
        "description": description(config, node),
        **_own(config, node),
        **drives,
        **_pool(config),
    }


def clone_body(config: ClusterConfig, node: Node, place: Place) -> dict[str, Any]:
    """The request that makes the machine a full copy of the template; ``after_clone`` says what then has to be set.

    The copy has a new SMBIOS UUID until then: its description alone carries the identity.
    """
    return {
        "newid": place.vmid,
        "name": node.name,
        "description": description(config, node),
        "full": 1,
        "storage": config.proxmox.disk_storage,
        "target": place.hypervisor,
        **_pool(config),
    }


def after_clone(
    config: ClusterConfig, node: Node, place: Place, release: tuple[int, int], cloned: VmConfig | None = None
) -> dict[str, Any]:
    """What a fresh copy of the template has to be given before its first boot. ``cloned`` is the copy's configuration;
    without it the options of the boot disk stay the template's."""
    changes = {"description": description(config, node), **_own(config, node), **_fresh_drives(config, node)}
    if cloned is not None:
        boot = cloned.parts(BOOT_DISK, "file")
        volume = boot.pop("file", "")
        if volume:
            changes[BOOT_DISK] = ",".join([volume, *_pairs({**boot, **DISK_OPTIONS})])
        # The copy brought its own EFI disk, and a second one would only leave the first behind.
        if cloned.volume("efidisk0"):
            changes.pop("efidisk0", None)
    return changes


def wanted(config: ClusterConfig, node: Node, release: tuple[int, int]) -> Mapping[str, str]:
    """The options that fo vouches for, in the stored form; of a disk its options and size, as its volume is unknown."""
    own = _own(config, node)
    stored = {option: str(value) for option, value in own.items() if option not in _cloud_init(config, node)}
    # The identity is what a machine is found by, so it can never differ.
    del stored["smbios1"]
    stored[BOOT_DISK] = ",".join(_pairs({**DISK_OPTIONS, "size": f"{node.disk_gib}G"}))
    if node.data_disk_gib:
        data = {**DISK_OPTIONS, "serial": DATA_SERIAL, "size": f"{node.data_disk_gib}G"}
        stored[DATA_DISK] = ",".join(_pairs(data))
    if config.shape.uefi:
        stored["efidisk0"] = "efitype=4m,pre-enrolled-keys=0"
    stored["description"] = identity_mark(node)
    return stored


def fresh_disk(config: ClusterConfig, node: Node, option: str) -> str:
    """What makes ``option`` a new disk (``scsi1``, ``efidisk0``); empty when it is not a disk to be made anew."""
    return str(_fresh_drives(config, node).get(option, "")) if option in {DATA_DISK, "efidisk0"} else ""


def _own(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """Everything but disks, description, VMID and pool."""
    shape = config.shape
    settings: dict[str, Any] = {
        "name": node.name,
        "tags": ";".join(tags(config)),
        "ostype": "l26",
        "machine": "q35",
        "bios": "ovmf" if shape.uefi else "seabios",
        "cpu": shape.cpu,
        "sockets": 1,
        "cores": node.cores,
        "numa": 0,
        "memory": node.memory_mib,
        # Kubernetes plans with the memory it saw at start, so none may be taken back.
        "balloon": 0,
        "scsihw": "virtio-scsi-single",
        "boot": f"order={BOOT_DISK}",
        # Debian and Ubuntu images can panic after a resize when they have no serial console.
        "serial0": "socket",
        "vga": "serial0",
        "net0": _net(config, node),
        "agent": "enabled=1",
        "onboot": int(shape.onboot),
        "smbios1": f"uuid={node.identity}",
    }
    if shape.startup:
        settings["startup"] = shape.startup
    if shape.watchdog:
        settings["watchdog"] = "model=i6300esb,action=reset"
    settings |= {f"hostpci{at}": f"mapping={name},pcie=1" for at, name in enumerate(node.pci)}
    settings |= {f"usb{at}": f"mapping={name}" for at, name in enumerate(node.usb)}
    return settings | _cloud_init(config, node)


def _net(config: ClusterConfig, node: Node) -> str:
    lent = config.proxmox
    parts = [f"virtio={seed.mac(node.identity)}", f"bridge={lent.bridge}"]
    parts += ["firewall=1"] if config.shape.firewall else []
    parts += [f"tag={lent.vlan}"] if lent.vlan is not None else []
    return ",".join(parts)


def _fresh_drives(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """The drives beside the boot disk, as they are asked for."""
    storage = config.proxmox.disk_storage
    if config.proxmox.seed == "drive":
        drives = {SEED_DRIVE: f"{storage}:cloudinit"}
    else:
        drives = {SEED_DRIVE: f"{seed_volume(config, node)},media=cdrom"}
    if node.data_disk_gib:
        options = _pairs({**DISK_OPTIONS, "serial": DATA_SERIAL})
        drives[DATA_DISK] = ",".join([f"{storage}:{node.data_disk_gib}", *options])
    if config.shape.uefi:
        # Cloud images boot without Secure Boot's keys, and some only without.
        drives["efidisk0"] = f"{storage}:1,efitype=4m,pre-enrolled-keys=0"
    return drives


def _cloud_init(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """The keys of Proxmox's own cloud-init drive; empty where fo makes the seed. Never written again afterwards."""
    if config.proxmox.seed != "drive":
        return {}
    network = config.network
    six = f",ip6={node.address_v6}/{network.subnet_v6.prefixlen}" if node.address_v6 and network.subnet_v6 else ""
    # Without a gateway of its own, the routers' advertisements tell the way.
    six += f",gw6={network.gateway_v6}" if six and network.gateway_v6 else ""
    return {
        "ciuser": config.ssh.user,
        # Proxmox wants the keys percent-encoded once more than the form; it refuses "+" for a space.
        "sshkeys": quote(seed.authorized_key(config), safe=""),
        "ipconfig0": f"ip={node.address}/{network.subnet.prefixlen},gw={network.gateway}{six}",
        "nameserver": " ".join(str(address) for address in network.dns),
        "searchdomain": config.domain,
        "ciupgrade": 0,
    }


def _pool(config: ClusterConfig) -> dict[str, Any]:
    return {"pool": config.proxmox.pool} if config.proxmox.pool else {}


def _pairs(options: Mapping[str, str]) -> Iterator[str]:
    """As Proxmox stores the options of a drive: by name."""
    return (f"{key}={options[key]}" for key in sorted(options))
