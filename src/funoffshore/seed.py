"""The NoCloud seed: what a machine is told before its first boot. Pure: config and node in, the bytes of an ISO out.

The ISO holds the machine's private host key (with SSH_TRUST=seed) and nothing else that is secret; it is deleted once
the host is reached. What a machine needs beside name, address and keys is here for whoever has to bring it there
without an ISO, too.
Format: cloud-init's NoCloud data source (volume id ``cidata``; user-data, meta-data, network-config).
"""

from __future__ import annotations

import base64
import io
import uuid
from typing import Any

import yaml

from funoffshore.config import ClusterConfig, Node

SSHD_DROP_IN = "/etc/ssh/sshd_config.d/10-fo.conf"
PACKAGES = ("qemu-guest-agent", "nfs-common")
AGENT_UNIT = "qemu-guest-agent.service"
DATA_ID = "scsi-0QEMU_QEMU_HARDDISK_fo-data"
"""Name below /dev/disk/by-id of the disk whose serial number is ``fo-data``: the same at every boot, unlike sdb."""
DATA_DEVICE = f"/dev/disk/by-id/{DATA_ID}"
DATA_FOLDER = "/var/lib/rancher"
DATA_LABEL = "fo-data"
DATA_TYPE = "ext4"
DATA_OPTIONS = "defaults,nofail,x-systemd.device-timeout=30s"
"""A machine whose data disk is gone still boots and can be looked at, half a minute later."""
UPGRADES = ("apt-daily.service", "apt-daily-upgrade.service")
"""What Debian and Ubuntu upgrade packages with, unasked. Masked below /run only, so that they are held until the next
boot: the first one neither changes what was pinned nor waits for their lock, and later the distribution's own
rules hold."""
_MODULES = ("br_netfilter", "overlay", "nf_conntrack")
_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.bridge.bridge-nf-call-iptables": 1,
    "net.bridge.bridge-nf-call-ip6tables": 1,
    "fs.inotify.max_user_instances": 8192,
    "fs.inotify.max_user_watches": 524288,
    # What the kubelet insists on under protect-kernel-defaults (kubelet's container manager, K3s hardening guide).
    "vm.panic_on_oom": 0,
    "vm.overcommit_memory": 1,
    "kernel.panic": 10,
    "kernel.panic_on_oops": 1,
    "kernel.keys.root_maxkeys": 1000000,
    "kernel.keys.root_maxbytes": 25000000,
}
_SYSCTLS_V6 = {"net.ipv6.conf.all.forwarding": 1}
"""In a dual-stack cluster: what pods send by IPv6 is forwarded as well."""


def mac(identity: uuid.UUID) -> str:
    """The machine's MAC address, upper case: locally administered, from its identity, so never another's."""
    return ":".join(f"{byte:02X}" for byte in b"\x02" + identity.bytes[:5])


def filename(config: ClusterConfig, node: Node) -> str:
    """Name of the ISO on the image storage. Carries part of the identity, so that clusters cannot collide."""
    return f"{config.name}-{node.name}-{node.identity.hex[:12]}.iso"


def iso(config: ClusterConfig, node: Node) -> bytes:
    """The seed's bytes; the same for the same config and node, on every machine and day."""
    return _image(
        {
            "meta-data": _yaml(meta_data(node)),
            "network-config": _yaml(network_config(config, node)),
            "user-data": "#cloud-config\n" + _yaml(user_data(config, node)),
        }
    )


def meta_data(node: Node) -> dict[str, Any]:
    """The instance id is the identity, so a changed seed never makes cloud-init believe in a new machine."""
    return {"instance-id": str(node.identity), "local-hostname": node.name}


def network_config(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """Version 2, one static address of each family, the interface found by its MAC and called eth0."""
    face: dict[str, Any] = {
        "match": {"macaddress": mac(node.identity).lower()},
        "set-name": "eth0",
        "dhcp4": False,
        "addresses": [f"{node.address}/{config.network.subnet.prefixlen}"],
        "routes": [{"to": "0.0.0.0/0", "via": str(config.network.gateway)}],
        "nameservers": {"addresses": [str(a) for a in config.network.dns], "search": [config.domain]},
    }
    _add_v6(face, config, node)
    return {"version": 2, "ethernets": {"eth0": face}}


def _add_v6(face: dict[str, Any], config: ClusterConfig, node: Node) -> None:
    network = config.network
    if node.address_v6 is None or network.subnet_v6 is None:
        return
    face["dhcp6"] = False
    # A host that forwards ignores its router's advertisements unless told otherwise (Linux, ip-sysctl: accept_ra).
    face["accept-ra"] = network.gateway_v6 is None
    face["addresses"].append(f"{node.address_v6}/{network.subnet_v6.prefixlen}")
    if network.gateway_v6 is not None:
        face["routes"].append({"to": "::/0", "via": str(network.gateway_v6)})


def user_data(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """One user with the operator's public key and no password, a host key known beforehand, what K3s needs."""
    return {
        "hostname": node.name,
        "fqdn": f"{node.name}.{config.domain}",
        "prefer_fqdn_over_hostname": False,
        "manage_etc_hosts": True,
        "timezone": config.timezone,
        "users": [
            {
                "name": config.ssh.user,
                "gecos": "funoffshore",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [authorized_key(config)],
            }
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        **({"ssh_keys": _host_keys(config, node)} if config.ssh.trust == "seed" else {}),
        "bootcmd": [mask_upgrades()],
        **(_data_disk() if node.data_disk_gib else {}),
        "package_update": True,
        "package_upgrade": False,
        "packages": list(PACKAGES),
        "write_files": [_file(path, content) for path, content in files(config).items()],
        "runcmd": [*setup_commands(), *_relisten(config)],
    }


def authorized_key(config: ClusterConfig) -> str:
    """The public half of the key that fo logs in with, one line. Raises ValueError for a key that cannot be read."""
    return f"{config.ssh.public_key()} fo@{config.name}"


def _host_keys(config: ClusterConfig, node: Node) -> dict[str, str]:
    from funoffshore import hostkeys

    key = hostkeys.private(config.ssh.host_key_seed.get_secret_value(), node.name)
    private = _settle_check(hostkeys.openssh_private(key))
    return {"ed25519_private": private, "ed25519_public": hostkeys.openssh_public(key)}


def _settle_check(pem: str) -> str:
    """The same ed25519 key with its two random, equal check words set to zero, as equal seeds have equal bytes.

    Layout: OpenSSH PROTOCOL.key; without a passphrase everything before the check words has a fixed length.
    """
    head, *lines, tail = pem.strip().splitlines()
    raw = base64.b64decode("".join(lines))
    encoded = base64.b64encode(raw[:98] + bytes(8) + raw[106:]).decode()
    return "\n".join([head, *(encoded[at : at + 70] for at in range(0, len(encoded), 70)), tail, ""])


def files(config: ClusterConfig) -> dict[str, str]:
    """Path → content of the files that K3s and a safe sshd need; all root's, 0644."""
    port = f"Port {config.ssh.port}\n" if config.ssh.port != 22 else ""
    sysctls = {**_SYSCTLS, **(_SYSCTLS_V6 if config.k3s.cluster_cidr_v6 else {})}
    return {
        SSHD_DROP_IN: f"{port}PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n",
        "/etc/modules-load.d/90-fo.conf": "".join(f"{name}\n" for name in _MODULES),
        "/etc/sysctl.d/90-fo.conf": "".join(f"{name} = {value}\n" for name, value in sysctls.items()),
    }


def mask_upgrades() -> list[str]:
    """The command that keeps the distribution from upgrading anything until the next boot."""
    return ["systemctl", "mask", "--runtime", *UPGRADES]


def setup_commands() -> list[list[str]]:
    """What makes files and packages take effect without a restart; each may be run again."""
    return [
        ["modprobe", "-a", *_MODULES],
        ["sysctl", "--system"],
        ["systemctl", "enable", AGENT_UNIT],
        ["systemctl", "start", AGENT_UNIT],
    ]


def _file(path: str, content: str) -> dict[str, str]:
    return {"path": path, "content": content, "owner": "root:root", "permissions": "0644"}


def _data_disk() -> dict[str, Any]:
    """Of ``partition`` only *any* never formats over something: a file system of that type is taken as it is, a disk
    with any other is left alone (cloudinit/config/cc_disk_setup.py, find_device_node)."""
    system = {"label": DATA_LABEL, "filesystem": DATA_TYPE, "device": DATA_DEVICE, "partition": "any"}
    return {
        "fs_setup": [{**system, "overwrite": False}],
        "mounts": [[DATA_DEVICE, DATA_FOLDER, DATA_TYPE, DATA_OPTIONS, "0", "2"]],
    }


def _relisten(config: ClusterConfig) -> list[list[str]]:
    if config.ssh.port == 22:
        return []
    # Where systemd listens for sshd (Ubuntu 22.10 and later), it read the port before the file was written.
    relisten = "systemctl daemon-reload; systemctl is-active -q ssh.socket && systemctl restart ssh.socket || true"
    return [["sh", "-c", relisten]]


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)


def _image(files: dict[str, str]) -> bytes:
    """An ISO 9660 image with Rock Ridge and Joliet names; without them the names would be ``USER_DAT.;1``."""
    import pycdlib

    image: Any = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    for name, text in files.items():
        content = text.encode()
        short = name.upper().replace("-", "_")[:20]
        image.add_fp(
            io.BytesIO(content),
            len(content),
            f"/{short}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100400,
        )
    for volume in (image.pvd, image.joliet_vd):
        _freeze_record(volume.root_directory_record())
    out = io.BytesIO()
    image.write_fp(out)
    image.close()
    return _freeze_volumes(bytearray(out.getvalue()))


def _freeze_volumes(image: bytearray) -> bytes:
    """Puts one fixed date into the volume descriptors, as equal seeds shall have equal bytes.

    Offsets: ECMA-119 8.4.26 to 8.4.29 (creation, modification, expiration, effective; 17 bytes each from 813 on).
    """
    sector = 16 * 2048
    while image[sector] != 255:
        for offset in (813, 830, 864):
            image[sector + offset : sector + offset + 17] = b"2024010100000000\x00"
        sector += 2048
    return bytes(image)


def _freeze_record(record: Any) -> None:
    """The same for a directory record, its Rock Ridge stamps, and everything below it."""
    from pycdlib import dates

    fixed = dates.DirectoryRecordDate.from_fields(124, 1, 1, 0, 0, 0, 0)
    record.date = fixed
    for holder in ("dr_entries", "ce_entries"):
        stamps = getattr(getattr(record.rock_ridge, holder, None), "tf_record", None)
        for slot in ("access_time", "modification_time", "attribute_change_time"):
            if getattr(stamps, slot, None) is not None:
                setattr(stamps, slot, fixed)
    for child in record.children:
        _freeze_record(child)
