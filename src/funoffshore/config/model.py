"""The desired state: one frozen value, made by ``config.load`` from one env file and never changed after."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

from funoffshore.config.access import Jump, Ssh

if TYPE_CHECKING:  # importing pydantic takes longer than all the rest of config
    from pydantic import SecretStr

__all__ = [
    "IDENTITY_NAMESPACE",
    "S3",
    "Backup",
    "ClusterConfig",
    "Flux",
    "Git",
    "Image",
    "Jump",
    "K3s",
    "Lab",
    "Network",
    "Node",
    "Proxmox",
    "Role",
    "Shape",
    "Snapshots",
    "Ssh",
    "identity",
]

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
    made: bool = True
    """Whether fo makes it on Proxmox. False: it exists, and fo neither makes nor changes the machine itself; VMID,
    sizes and ``identity`` mean nothing then, and Kubernetes knows it by the system UUID that it has."""
    address_v6: IPv6Address | None = None
    """None: the cluster has IPv4 alone."""
    labels: tuple[tuple[str, str], ...] = ()
    """Kubernetes labels of the Node, key and value."""
    taints: tuple[str, ...] = ()
    """Kubernetes taints of the Node, ``key=value:Effect`` or ``key:Effect``."""


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
    """0.0.0.0/32 where fo makes no machine and none was given."""
    gateway: IPv4Address
    """0.0.0.0 (``is_unspecified``) where fo makes no machine and none was given."""
    dns: tuple[IPv4Address, ...]
    """May be () where fo makes no machine."""
    vip: IPv4Address
    """Address of the Kubernetes API; the only controller's own where there is no virtual one."""
    subnet_v6: IPv6Network | None = None
    gateway_v6: IPv6Address | None = None


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
class S3:
    """Where K3s copies its etcd snapshots to; always over TLS."""

    endpoint: str
    """``host`` or ``host:port``."""
    region: str
    bucket: str
    folder: str
    """Inside the bucket; may be empty."""
    access_key: SecretStr
    secret_key: SecretStr


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Copies of etcd that K3s takes."""

    schedule: str = "0 */6 * * *"
    """cron(5), five fields, in the host's own time."""
    keep: int = 20
    """How many scheduled ones each server keeps, and S3 of each."""
    s3: S3 | None = None
    nfs: str = ""
    """``server:/export`` that every server copies its own to; empty: none."""


@dataclass(frozen=True, slots=True)
class K3s:
    """The Kubernetes distribution, pinned."""

    version: str
    """``v1.36.4+k3s1``."""
    download_url: str
    """Base; the binary is ``<base>/<version, + as %2B>/k3s``."""
    sha256: str
    """Of the amd64 binary."""
    token: SecretStr
    agent_token: SecretStr
    cluster_cidr: IPv4Network
    service_cidr: IPv4Network
    disable: tuple[str, ...]
    secrets_encryption: bool
    extra_config: Mapping[str, str]
    """Further keys of config.yaml that every server gets, e.g. ``kubelet-arg``."""
    kube_vip_image: str
    sha256_arm64: str = ""
    """Of the arm64 binary; empty: not pinned, so no arm64 host can be set up."""
    source: str = "hosts"
    """Who downloads. ``hosts``: each host for itself. ``push``: this computer, once, and hands it over."""
    folder: Path | None = None
    """Absolute; binaries and images are taken from it and pushed, and nothing is downloaded. None: there is none."""
    protect_kernel: bool = True
    """Whether the kubelet refuses to start where the kernel's settings are not as it wants
    (protect-kernel-defaults)."""
    cis: bool = False
    """Whether the settings of the CIS profile of K3s' hardening guide are made."""
    audit: bool = False
    """Whether the API server writes an audit log."""
    mirrors: tuple[tuple[str, str], ...] = ()
    """Registry and the URL that is asked before it."""
    embedded_registry: bool = False
    """Whether nodes hand images to each other (Spegel)."""
    cluster_cidr_v6: IPv6Network | None = None
    service_cidr_v6: IPv6Network | None = None
    """Both or none. With them the cluster is dual stack."""
    upgrade_batch: int = 1
    """How many agents are upgraded at once."""
    snapshots: Snapshots = Snapshots()
    token_next: SecretStr | None = None
    """What ``token`` becomes; set while a rotation is under way."""
    agent_token_next: SecretStr | None = None

    def digest(self, arch: str) -> str:
        """SHA-256 of the binary for ``amd64`` or ``arm64``; empty when that one is not pinned, or there is none."""
        return {"amd64": self.sha256, "arm64": self.sha256_arm64}.get(arch, "")


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
    others: tuple[Node, ...] = ()
    """Nodes of the same cluster that ``of_made`` left out of ``nodes``; their hosts still talk to the machines."""

    @property
    def controllers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role is Role.CONTROLLER)

    @property
    def workers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role is Role.WORKER)

    @property
    def made(self) -> tuple[Node, ...]:
        """The nodes whose machines fo makes. Without any, nothing of ``proxmox`` and ``image`` is to be used."""
        return tuple(n for n in self.nodes if n.made)

    def of_made(self) -> ClusterConfig:
        """The same cluster as if it had no other nodes than those that fo makes."""
        return dataclasses.replace(self, nodes=self.made, others=tuple(n for n in self.nodes if not n.made))

    @property
    def virtual(self) -> bool:
        """Whether the API has a virtual address, which moves between controllers; else it is the only one's own."""
        return self.network.vip not in {n.address for n in self.controllers}

    @property
    def api(self) -> IPv4Address:
        """Where the Kubernetes API is reached, on port 6443."""
        return self.network.vip

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
