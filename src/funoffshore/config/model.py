"""The desired state: one frozen value, made by ``config.load`` from one env file and never changed after."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing pydantic takes longer than all the rest of config
    from pydantic import SecretStr

IDENTITY_NAMESPACE = uuid.UUID("6c1f2e0a-9d0b-5f0e-8a54-3f6b1c0f7a11")
"""Namespace of every machine identity; changing it would orphan every machine ever made."""


class Role(StrEnum):
    """What a machine is for in K3s."""

    CONTROLLER = "controller"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Node:
    """One machine as it shall be."""

    name: str
    """DNS label, ``<cluster>-c1`` or ``<cluster>-w12``; hostname, VM name and Kubernetes node name at once."""
    role: Role
    vmid: int
    """The VMID it gets when that one is free; the one it must get where ``vmid_pinned``."""
    address: IPv4Address
    hypervisor: str
    """Name of the Proxmox node it is pinned to. Empty: it is placed by what the nodes have free."""
    cores: int
    memory_mib: int
    disk_gib: int
    identity: uuid.UUID
    """UUIDv5 of cluster and name: SMBIOS UUID and description of the VM, systemUUID of the kubelet."""
    vmid_pinned: bool = False
    """Whether the operator chose the VMID for this very machine."""
    data_disk_gib: int = 0
    """Size of a second disk for K3s' data (/var/lib/rancher); 0: there is none."""
    pci: tuple[str, ...] = ()
    """Names of PCI resource mappings passed through to it (a GPU, say)."""
    usb: tuple[str, ...] = ()
    """Names of USB resource mappings passed through to it."""


def identity(cluster: str, name: str) -> uuid.UUID:
    """The identity of machine ``name`` in ``cluster``; the same on every laptop, for ever."""
    return uuid.uuid5(IDENTITY_NAMESPACE, f"{cluster}/{name}")


@dataclass(frozen=True, slots=True)
class Proxmox:
    """The hypervisor's API and what it lends us."""

    url: str
    """``https://host:8006``, no path."""
    token_id: str
    """``user@realm!name``."""
    token_secret: SecretStr
    fingerprint: str
    """SHA-256 of the API's certificate, 64 lower-case hex digits, no colons."""
    nodes: tuple[str, ...]
    pool: str
    disk_storage: str
    image_storage: str
    """Must allow content ``import`` and ``iso``."""
    bridge: str
    vlan: int | None
    imports: int = 3
    """How many disks are imported at once."""
    vmid_first: int = 9000
    vmid_last: int = 9199
    """VMIDs that fo may take, both ends included. A machine whose own is taken moves on to a free one of these."""
    high_availability: bool = False
    """Whether the machines become HA resources, controllers on different hypervisors."""
    seed: str = "iso"
    """``iso``: a NoCloud ISO that fo uploads. ``drive``: Proxmox's own cloud-init drive."""


@dataclass(frozen=True, slots=True)
class Image:
    """The cloud image that every machine starts from."""

    url: str
    sha256: str = ""
    """64 lower-case hex digits; empty when the publisher gives SHA-512, as Debian does."""
    sha512: str = ""
    """128 lower-case hex digits; exactly one of the two digests is set."""
    template: str = ""
    """Name of a VM template that machines are cloned from instead, as Proxmox below 8.4 needs. Empty: the image."""

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``: Proxmox's ``checksum-algorithm``."""
        return "sha256" if self.sha256 else "sha512"

    @property
    def digest(self) -> str:
        """The pinned digest, by ``algorithm``."""
        return self.sha256 or self.sha512

    @property
    def filename(self) -> str:
        """Name on the image storage; carries part of the digest, so that two releases never collide."""
        stem = self.url.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return f"{stem}-{self.digest[:12]}.qcow2"


@dataclass(frozen=True, slots=True)
class Network:
    """Addresses of the machines."""

    subnet: IPv4Network
    gateway: IPv4Address
    dns: tuple[IPv4Address, ...]
    vip: IPv4Address


@dataclass(frozen=True, slots=True)
class Ssh:
    """How hosts are reached. Host keys are derived from ``host_key_seed``, so they are known before the first boot."""

    user: str
    port: int
    private_key: SecretStr
    """OpenSSH private key (PEM text), ed25519."""
    host_key_seed: SecretStr
    """64 hex digits; the ed25519 host key of node N is derived from it (HKDF-SHA256, info = node name)."""
    trust: str = "seed"
    """How a host key is known before the first connection. ``seed``: fo made it and the seed carries it. ``agent``:
    read through the guest agent. ``first-use``: whatever the host shows at first, recorded and printed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The hardware that all machines have in common."""

    cpu: str = "x86-64-v2-AES"
    """Proxmox CPU type."""
    uefi: bool = False
    firewall: bool = False
    """Whether Proxmox' firewall guards the machines, open only for what K3s needs."""
    onboot: bool = True
    startup: str = ""
    """Proxmox' startup order (``order=2,up=30``); empty: none, as setting it needs Sys.Modify on /."""
    watchdog: bool = False
    tags: tuple[str, ...] = ()
    """Further tags, for the operator's own filters."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The vzdump job of the cluster's machines."""

    storage: str
    """Storage with content ``backup``; a Proxmox Backup Server where that is one."""
    schedule: str = "02:30"
    """Proxmox calendar event."""
    keep: str = "keep-daily=7,keep-weekly=4"
    """Proxmox ``prune-backups``."""


@dataclass(frozen=True, slots=True)
class K3s:
    """The Kubernetes distribution, pinned."""

    version: str
    """``v1.36.4+k3s1``."""
    download_url: str
    """Base; the binary is ``<base>/<version, + as %2B>/k3s``."""
    sha256: str
    token: SecretStr
    agent_token: SecretStr
    cluster_cidr: IPv4Network
    service_cidr: IPv4Network
    disable: tuple[str, ...]
    secrets_encryption: bool
    extra_config: Mapping[str, str]
    """Further keys of config.yaml that every server gets, e.g. ``kubelet-arg``."""
    kube_vip_image: str


@dataclass(frozen=True, slots=True)
class Flux:
    """The GitOps engine, pinned."""

    version: str
    """``v2.9.4``."""
    install_url: str
    install_sha256: str


@dataclass(frozen=True, slots=True)
class Git:
    """What Flux follows."""

    url: str
    """``https://…`` or ``ssh://…``; ``http://`` only in a lab."""
    branch: str
    path: str
    """Folder of the Flux entry, relative to the repository's root: ``infra/k8s/flux``."""
    token: SecretStr | None
    ssh_key: SecretStr | None
    known_hosts: str


@dataclass(frozen=True, slots=True)
class Lab:
    """Set when the cluster lives in the embedded lab instead of on real hardware."""

    directory: Path
    """``.lab/<cluster>`` beside the repository; everything the lab keeps is below it."""
    web_url: str
    """Where the lab serves downloads and Git: ``http://127.77.0.3:8088``."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Everything one cluster shall be. Holds secrets only as SecretStr."""

    name: str
    root: Path
    """The operator's repository, the folder that holds ``config/`` and ``infra/``."""
    domain: str
    timezone: str
    proxmox: Proxmox
    image: Image
    network: Network
    ssh: Ssh
    k3s: K3s
    flux: Flux
    git: Git
    nodes: tuple[Node, ...]
    """Controllers first, each group in the order of its numbers."""
    settings: Mapping[str, str]
    """Public values for Flux's substitution, by env key: DOMAIN, TIMEZONE, VIP, NFS_SERVER, …"""
    switches: Mapping[str, bool]
    """Optional parts by env key: ``CLOUDFLARED_ENABLED`` …"""
    app_secrets: Mapping[str, SecretStr]
    """Secrets that end in Kubernetes Secrets, by env key: CF_TUNNEL_TOKEN, CF_API_TOKEN, …; only those set."""
    sops_age_key: SecretStr | None
    evidence_key: SecretStr
    """64 hex digits, seed of the ed25519 key that signs evidence."""
    lab: Lab | None
    shape: Shape = Shape()
    backup: Backup | None = None
    """None: the operator backs up the machines himself, or not at all."""

    @property
    def controllers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role is Role.CONTROLLER)

    @property
    def workers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role is Role.WORKER)

    @property
    def state(self) -> Path:
        """Where ``status.json`` and ``runs/`` live; a lab's never lie beside a real cluster's."""
        return self.lab.directory / "state" if self.lab else self.root / "ai" / "state"

    @property
    def kubeconfig(self) -> Path:
        """Where fo keeps the administrator's kubeconfig, 0600."""
        return (self.lab.directory if self.lab else self.root / "config" / "kube") / f"{self.name}.kubeconfig"

    def node(self, name: str) -> Node:
        """Raises KeyError for a name that is not in the config."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
