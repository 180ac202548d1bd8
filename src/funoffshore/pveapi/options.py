"""Options of a virtual machine: every one that fo sets, reads, or must be told it may not set.

Facts from the public API description of Proxmox VE 8.0, 8.4 and 9.1 (pve-docs ``api-viewer/apidata.js``) and
qemu-server ``PVE/QemuServer.pm``, ``PVE/QemuServer/Drive.pm``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from funoffshore.pveapi.formats import PROPERTIES
from funoffshore.pveapi.schema import Parameter

FLAG = Parameter("boolean")
TEXT = Parameter()
COUNT = Parameter("integer")
NODE = Parameter(format="pve-node", optional=False)
VMID = Parameter("integer", False, minimum=100, maximum=999999999, format="pve-vmid")
ANY_VMID = Parameter("integer", minimum=100, maximum=999999999, format="pve-vmid")
STORAGE = Parameter(format="pve-storage-id")

_LENGTH = Parameter("integer", minimum=1)
_RATE = Parameter("number")

_DRIVE: dict[str, Parameter] = {
    "file": Parameter(optional=False, format="pve-volume-id-or-qm-path", default_key=True),
    "volume": Parameter(alias="file"),
    "aio": Parameter(enum=("native", "threads", "io_uring")),
    "backup": FLAG,
    **{f"{unit}{way}": COUNT for unit in ("bps", "iops") for way in ("", "_rd", "_wr")},
    **{f"iops{way}_max": COUNT for way in ("", "_rd", "_wr")},
    **{f"mbps{way}{top}": _RATE for way in ("", "_rd", "_wr") for top in ("", "_max")},
    **{f"{unit}{way}_max_length": _LENGTH for unit in ("bps", "iops") for way in ("", "_rd", "_wr")},
    **{
        f"{unit}{way}_length": Parameter(alias=f"{unit}{way}_max_length")
        for unit in ("bps", "iops")
        for way in ("_rd", "_wr")
    },
    "cache": Parameter(enum=("none", "writethrough", "writeback", "unsafe", "directsync")),
    "cyls": Parameter("integer", until="8.4"),
    "detect_zeroes": FLAG,
    "discard": Parameter(enum=("ignore", "on")),
    "format": Parameter(enum=("raw", "qcow", "qed", "qcow2", "vmdk", "cloop")),
    "heads": Parameter("integer", until="8.4"),
    "import-from": Parameter(format="pve-volume-id-or-absolute-path"),
    "media": Parameter(enum=("cdrom", "disk")),
    "replicate": FLAG,
    "rerror": Parameter(enum=("ignore", "report", "stop")),
    "secs": Parameter("integer", until="8.4"),
    "serial": Parameter(format="urlencoded", max_length=60),
    "shared": FLAG,
    "size": Parameter(format="disk-size"),
    "snapshot": FLAG,
    "trans": Parameter(enum=("none", "lba", "auto"), until="8.4"),
    "werror": Parameter(enum=("enospc", "ignore", "report", "stop")),
}
_SSD = {"ssd": FLAG}
_WWN = {"wwn": Parameter(pattern=r"(?^:^(0x)[0-9a-fA-F]{16})")}
_IDE = {**_DRIVE, **_SSD, **_WWN, "model": Parameter(format="urlencoded", max_length=120)}
_SATA = {**_DRIVE, **_SSD, **_WWN}
_VIRTIO = {**_DRIVE, "iothread": FLAG, "ro": FLAG}
_SCSI = {
    **_DRIVE,
    **_SSD,
    **_WWN,
    "iothread": FLAG,
    "ro": FLAG,
    "scsiblock": FLAG,
    "queues": Parameter("integer", minimum=2),
    "product": Parameter(pattern=r"[A-Za-z0-9\-_\s]{,16}", since="8.4"),
    "vendor": Parameter(pattern=r"[A-Za-z0-9\-_\s]{,8}", since="8.4"),
}
_EFIDISK = {
    **{key: _DRIVE[key] for key in ("file", "volume", "format", "import-from", "size")},
    "efitype": Parameter(enum=("2m", "4m")),
    "ms-cert": Parameter(enum=("2011", "2023", "2023w", "2023k"), since="9.1"),
    "pre-enrolled-keys": FLAG,
}

NET_MODELS: tuple[str, ...] = (
    "e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em", "e1000e", "i82551", "i82557b", "i82559er",
    "ne2k_isa", "ne2k_pci", "pcnet", "rtl8139", "virtio", "vmxnet3",
)  # fmt: skip
_NET = {
    "model": Parameter(optional=False, enum=NET_MODELS, default_key=True),
    "macaddr": Parameter(format="mac-addr"),
    **{model: Parameter(alias="macaddr", key_alias="model") for model in NET_MODELS},
    "bridge": Parameter(format="pve-bridge-id"),
    "firewall": FLAG,
    "link_down": FLAG,
    "mtu": Parameter("integer", minimum=1, maximum=65520),
    "queues": Parameter("integer", minimum=0, maximum=64),
    "rate": Parameter("number", minimum=0),
    "tag": Parameter("integer", minimum=1, maximum=4094),
    "trunks": Parameter(pattern=r"(?^:\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*)"),
}

_MACHINE = {
    "type": Parameter(
        max_length=40,
        default_key=True,
        pattern=r"(pc|pc(-i440fx)?-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|q35|pc-q35-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?"
        r"|virt(?:-\d+(\.\d+)+)?(\+pve\d+)?)",
    ),
    "aw-bits": Parameter("number", minimum=32, maximum=64, since="9.1"),
    "enable-s3": FLAG,
    "enable-s4": FLAG,
    "viommu": Parameter(enum=("intel", "virtio")),
}


def machine(release: str) -> Parameter:
    """The machine type, a property string since 8.1."""
    kind = _MACHINE["type"]
    return Parameter(pattern=kind.pattern, max_length=40) if release < "8.4" else Parameter(parts=_MACHINE)


_AGENT = {
    "enabled": Parameter("boolean", False, default_key=True),
    "freeze-fs": Parameter("boolean", since="9.1"),
    "fstrim_cloned_disks": FLAG,
    "type": Parameter(enum=("virtio", "isa")),
}
_VGA_TYPES = (
    "cirrus", "qxl", "qxl2", "qxl3", "qxl4", "none", "serial0", "serial1", "serial2", "serial3", "std", "virtio",
    "virtio-gl", "vmware",
)  # fmt: skip
_VGA = {
    "type": Parameter(enum=_VGA_TYPES, default_key=True),
    "memory": Parameter("integer", minimum=4, maximum=512),
    "clipboard": Parameter(enum=("vnc",), since="8.4"),
}
_USB_HOST = (
    r"(?^:(?:(?:(?^:(0x)?([0-9A-Fa-f]{4}):(0x)?([0-9A-Fa-f]{4})))|(?:(?^:(\d+)\-(\d+(\.\d+)*)))|[Ss][Pp][Ii][Cc][Ee]))"
)
_USB = {
    "host": Parameter(pattern=_USB_HOST, default_key=True),
    "mapping": Parameter(format="pve-configid"),
    "usb3": FLAG,
}
OSTYPES = (
    "other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26", "solaris",
)  # fmt: skip
_LOCKS = (
    "backup", "clone", "create", "migrate", "rollback", "snapshot", "snapshot-delete", "suspending", "suspended",
)  # fmt: skip


def options(release: str) -> Mapping[str, Parameter]:
    """Every option that a VM configuration of ``release`` may hold and the table knows."""
    agent = dict(_AGENT)
    agent["freeze-fs-on-backup"] = FLAG if release < "9" else Parameter(alias="freeze-fs")
    if release >= "9":
        agent["guest-fsfreeze"] = Parameter(alias="freeze-fs")
    found = {**_DRIVES, **_PLAIN, **_CLOUD_INIT, "agent": Parameter(parts=agent), "machine": machine(release)}
    return found if release >= "8.4" else {**found, **_before_8_1()}


def _before_8_1() -> dict[str, Parameter]:
    """Options that 8.0 describes otherwise."""
    old: dict[str, Parameter] = {"memory": Parameter("integer", minimum=16)}
    old["rng0"] = Parameter(parts=PROPERTIES["pve-qm-rng"])
    for option, drive in _DRIVES.items():
        if drive.parts and "format" in drive.parts:
            form = drive.parts["format"]
            older = dataclasses.replace(form, enum=("raw", "cow", *form.enum[1:]))
            old[option] = dataclasses.replace(drive, parts={**drive.parts, "format": older})
    return old


_DRIVES: dict[str, Parameter] = {
    "scsi[n]": Parameter(parts=_SCSI, count=31),
    "virtio[n]": Parameter(parts=_VIRTIO, count=16),
    "sata[n]": Parameter(parts=_SATA, count=6),
    "ide[n]": Parameter(parts=_IDE, count=4),
    "efidisk0": Parameter(parts=_EFIDISK),
    "cdrom": Parameter(format="pve-qm-ide"),
    "unused[n]": Parameter(
        parts={
            "file": Parameter(optional=False, format="pve-volume-id", default_key=True),
            "volume": Parameter(alias="file"),
        },
        count=256,
    ),
}
_CLOUD_INIT: dict[str, Parameter] = {
    "cicustom": Parameter(format="pve-qm-cicustom"),
    "cipassword": TEXT,
    "citype": Parameter(enum=("configdrive2", "nocloud", "opennebula")),
    "ciupgrade": FLAG,
    "ciuser": TEXT,
    "ipconfig[n]": Parameter(format="pve-qm-ipconfig", count=32),
    "nameserver": Parameter(format="address-list"),
    "searchdomain": TEXT,
    "sshkeys": Parameter(format="urlencoded"),
}
_PLAIN: dict[str, Parameter] = {
    "acpi": FLAG,
    "affinity": Parameter(format="pve-cpuset"),
    "allow-ksm": Parameter("boolean", since="9.1"),
    "arch": Parameter(enum=("x86_64", "aarch64")),
    "args": TEXT,
    "autostart": FLAG,
    "balloon": Parameter("integer", minimum=0),
    "bios": Parameter(enum=("seabios", "ovmf")),
    "boot": Parameter(format="pve-qm-boot"),
    "bootdisk": Parameter(format="pve-qm-bootdisk", pattern=r"(ide|sata|scsi|virtio)\d+"),
    "cores": Parameter("integer", minimum=1),
    "cpu": Parameter(format="pve-vm-cpu-conf"),
    "cpulimit": Parameter("number", minimum=0, maximum=128),
    "cpuunits": Parameter("integer", minimum=1, maximum=262144),
    "description": Parameter(max_length=8192),
    "freeze": FLAG,
    "hookscript": Parameter(format="pve-volume-id"),
    "hostpci[n]": Parameter(format="pve-qm-hostpci", count=16),
    "hotplug": Parameter(format="pve-hotplug-features"),
    "hugepages": Parameter(enum=("any", "2", "1024")),
    "keephugepages": FLAG,
    "kvm": FLAG,
    "localtime": FLAG,
    "lock": Parameter(enum=_LOCKS),
    "memory": Parameter(parts={"current": Parameter("integer", False, minimum=16, default_key=True)}),
    "migrate_downtime": Parameter("number", minimum=0),
    "migrate_speed": Parameter("integer", minimum=0),
    "name": Parameter(format="dns-name"),
    "net[n]": Parameter(parts=_NET, count=32),
    "numa": FLAG,
    "onboot": FLAG,
    "ostype": Parameter(enum=OSTYPES),
    "protection": FLAG,
    "reboot": FLAG,
    "rng0": Parameter(format="pve-qm-rng"),
    "scsihw": Parameter(enum=("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")),
    "serial[n]": Parameter(pattern="(/dev/.+|socket)", count=4),
    "shares": Parameter("integer", minimum=0, maximum=50000),
    "smbios1": Parameter(format="pve-qm-smbios1", max_length=512),
    "smp": Parameter("integer", minimum=1),
    "sockets": Parameter("integer", minimum=1),
    "startdate": Parameter(pattern=r"(now|\d{4}-\d{1,2}-\d{1,2}(T\d{1,2}:\d{1,2}:\d{1,2})?)"),
    "startup": Parameter(format="pve-startup-order"),
    "tablet": FLAG,
    "tags": Parameter(format="pve-tag-list"),
    "tdf": FLAG,
    "template": FLAG,
    "usb[n]": Parameter(parts=_USB, count=14),
    "vcpus": Parameter("integer", minimum=1),
    "vga": Parameter(parts=_VGA),
    "vmgenid": Parameter(pattern="(?:[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}|[01])"),
    "vmstatestorage": STORAGE,
    "watchdog": Parameter(format="pve-qm-watchdog"),
}
