"""The core's keys, in the order in which they stand in a file."""

from __future__ import annotations

from dataclasses import dataclass

from funoffshore.config import kinds
from funoffshore.config.kinds import Kind, listed, one_of, url, whole


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an env file."""

    name: str
    kind: Kind
    help: str
    """Why it is there and how to choose it."""
    default: str | None = ""
    """As it would stand in the file. None: must be given; empty: may be empty."""
    secret: bool = False
    unit: str = ""
    example: str = ""
    """What example.env shows where there is no default."""
    generate: str = ""
    """Name of a generator of ``config.new``; empty when only the operator knows the value."""
    required_when: str = ""
    """The switch that, when true, makes the key required."""
    may_be_empty: bool = False
    """Whether an empty value says "none" although there is a default; where the default is empty it always may."""
    lab: str | None = None
    """The value in a lab's file where it differs; ``{prefix}``, ``{web}``, … are filled in."""


@dataclass(frozen=True, slots=True)
class Section:
    """Keys that belong together."""

    title: str
    text: str
    keys: tuple[Key, ...]


_CLUSTER = Section(
    "Cluster",
    "",
    (
        Key("CLUSTER_NAME", kinds.CLUSTER, "Name of the cluster and of this file. Every machine is named and owned "
            "by it; changing it later means another cluster.", None, example="{name}"),
        Key("LAB", one_of("embedded"), "embedded: the cluster lives in the simulated homelab on loopback. Empty: it "
            "lives on real hardware.", lab="embedded"),
        Key("LAB_WEB_URL", url("http"), "Where the lab serves downloads and Git. Only in a lab.", lab="{web}"),
        Key("DOMAIN", kinds.DOMAIN, "Domain under which the applications are served.", None,
            example="home.example.org", lab="lab.example.org"),
        Key("TIMEZONE", kinds.TIMEZONE, "Time zone of the machines and applications.", "Etc/UTC"),
    ),
)  # fmt: skip

_PROXMOX = Section(
    "Proxmox",
    "The hypervisor and what it lends to the cluster. docs/guide names the privileges that the token needs.",
    (
        Key("PROXMOX_URL", url("https", path="/?", what="a URL like https://host:8006, without a path"),
            "The API.", None, example="https://192.168.1.5:8006", lab="https://{proxmox}:8006"),
        Key("PROXMOX_TOKEN_ID", kinds.PVE_TOKEN_ID, "API token, user@realm!name.", None, example="fo@pve!fo"),
        Key("PROXMOX_TOKEN_SECRET", kinds.PVE_SECRET, "Shown once, when the token is made.", None, secret=True,
            generate="lab-uuid"),
        Key("PROXMOX_FINGERPRINT", kinds.FINGERPRINT, "SHA-256 fingerprint of the API's certificate; nothing else is "
            "trusted. On the host: openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem (or "
            "pveproxy-ssl.pem, where there is one).", None),
        Key("PROXMOX_NODES", listed(kinds.NODE, "names of Proxmox nodes with commas between them"),
            "The machines are spread over these in turn, controllers and workers each from the first.", "pve"),
        Key("PROXMOX_POOL", kinds.POOL, "Pool of the machines, made when it is missing. Empty: fo-<cluster>."),
        Key("STORAGE_DISK", kinds.STORAGE, "Storage of the machines' disks.", "local-lvm"),
        Key("STORAGE_IMAGE", kinds.STORAGE, "Storage of the cloud image and the seed ISOs: a file-based one that "
            "allows the contents import and iso.", "local"),
        Key("STORAGE_PARALLEL", whole(1, 16), "How many disks are imported at once. More is faster on SSDs; a hard "
            "disk or a NAS only thrashes.", "3"),
        Key("BRIDGE", kinds.BRIDGE, "Bridge the machines are attached to.", "vmbr0"),
        Key("VLAN", whole(1, 4094), "VLAN tag. Empty: untagged."),
        Key("VMID_FIRST", whole(100, 999_999_000), "Number of the first machine. Controller n gets this + n - 1, "
            "worker n gets this + 9 + n, so that adding a controller renumbers nothing.", "9000"),
    ),
)  # fmt: skip

_IMAGE = Section(
    "Cloud image",
    "What every machine starts from. Give one of the two digests.",
    (
        Key("IMAGE_URL", url("https", "http", path=r"/(?:[^/]*/)*[A-Za-z0-9][A-Za-z0-9._-]*\.(?:qcow2|img)",
                             what="a URL of a .qcow2 or .img file"),
            "A Debian or Ubuntu cloud image for amd64 with cloud-init. A dated one: the digest of a moving one "
            "breaks with its next release.",
            "https://cloud.debian.org/images/cloud/trixie/20260831-2587/"
            "debian-13-genericcloud-amd64-20260831-2587.qcow2", lab="{web}/images/debian-13-genericcloud-amd64.qcow2"),
        Key("IMAGE_SHA256", kinds.HEX64, "Digest of the image, for publishers that give SHA-256 (Ubuntu: SHA256SUMS)."),
        Key("IMAGE_SHA512", kinds.HEX128, "Digest of the image, for publishers that give SHA-512 (Debian: SHA512SUMS "
            "beside the image)."),
    ),
)  # fmt: skip

_NETWORK = Section(
    "Network",
    "Every address lies in the subnet and is used once. Keep them out of the DHCP range.",
    (
        Key("SUBNET", kinds.NETWORK, "The network of the machines.", None, example="192.168.1.0/24",
            lab="{subnet}"),
        Key("GATEWAY", kinds.ADDRESS, "Default gateway of the machines.", None, example="192.168.1.1",
            lab="{gateway}"),
        Key("DNS_SERVERS", listed(kinds.ADDRESS, "IPv4 addresses with commas between them"),
            "Name servers of the machines.", None, example="192.168.1.1", lab="{gateway}"),
        Key("VIP", kinds.ADDRESS, "Virtual address of the Kubernetes API, carried by one controller at a time "
            "(kube-vip). Must be unused.", None, example="192.168.1.40", lab="{vip}"),
    ),
)  # fmt: skip

_MACHINES = Section(
    "Machines",
    "One machine can differ: NODE_C1_…, NODE_W2_… with IP, VMID, CORES, MEMORY_MIB, DISK_GIB or PROXMOX_NODE, "
    "like NODE_W2_MEMORY_MIB=16384.",
    (
        Key("CONTROLLERS", kinds.ODD, "Machines that run the Kubernetes API and etcd. Odd, as etcd needs "
            "a majority: 3 survive the loss of one, 5 of two.", "3"),
        Key("CONTROLLER_FIRST_IP", kinds.ADDRESS, "Address of the first controller; the others follow it.", None,
            example="192.168.1.41", lab="{controller}"),
        Key("CONTROLLER_CORES", whole(1, 256), "Virtual CPUs of a controller.", "2"),
        Key("CONTROLLER_MEMORY_MIB", whole(2048, 4_194_304), "Memory of a controller; K3s with etcd needs 2048.",
            "4096", unit="MiB"),
        Key("CONTROLLER_DISK_GIB", whole(10, 65_536), "Disk of a controller; etcd wants a fast one.", "32",
            unit="GiB"),
        Key("WORKERS", whole(0, 100), "Machines that run the applications. 0: the controllers do.", "2"),
        Key("WORKER_FIRST_IP", kinds.ADDRESS, "Address of the first worker; the others follow it. May be empty "
            "without workers.", "", example="192.168.1.51", lab="{worker}"),
        Key("WORKER_CORES", whole(1, 256), "Virtual CPUs of a worker.", "4"),
        Key("WORKER_MEMORY_MIB", whole(1024, 4_194_304), "Memory of a worker.", "8192", unit="MiB"),
        Key("WORKER_DISK_GIB", whole(10, 65_536), "Disk of a worker; volumes of local-path live on it.", "64",
            unit="GiB"),
    ),
)  # fmt: skip

_SSH = Section(
    "SSH",
    "",
    (
        Key("SSH_USER", kinds.USER, "User that fo logs in as; cloud-init makes it, with sudo.", "fo"),
        Key("SSH_PORT", whole(1, 65535), "Port of sshd on the machines.", "22", lab="2222"),
        Key("SSH_PRIVATE_KEY", kinds.SSH_KEY, "Key that fo logs in with: an OpenSSH ed25519 private key without "
            "passphrase, base64 on one line (base64 -w0 <file>).", None, secret=True, generate="ssh-key"),
        Key("HOST_KEY_SEED", kinds.HEX64, "Seed of the machines' host keys, so that they are known before the first "
            "connection.", None, secret=True, generate="hex64"),
    ),
)  # fmt: skip

_K3S = Section(
    "K3s",
    "",
    (
        Key("K3S_VERSION", kinds.K3S_VERSION, "Release.", "v1.36.4+k3s1"),
        Key("K3S_DOWNLOAD_URL", url("https", "http"), "Base of the downloads; the binary is <base>/<release>/k3s.",
            "https://github.com/k3s-io/k3s/releases/download", lab="{web}/k3s"),
        Key("K3S_SHA256", kinds.HEX64, "Digest of the amd64 binary, from sha256sum-amd64.txt of the release.", None),
        Key("K3S_TOKEN", kinds.TOKEN, "What a server needs to join; also encrypts K3s' bootstrap data, so keep it "
            "with the etcd snapshots. Cannot be changed later.", None, secret=True, generate="hex32"),
        Key("K3S_AGENT_TOKEN", kinds.TOKEN, "What a worker needs to join; must differ from K3S_TOKEN.", None,
            secret=True, generate="hex32"),
        Key("CLUSTER_CIDR", kinds.NETWORK, "Network of the pods, a /24 of it per machine. Cannot be changed later.",
            "10.42.0.0/16"),
        Key("SERVICE_CIDR", kinds.NETWORK, "Network of the services. Cannot be changed later.", "10.43.0.0/16"),
        Key("K3S_DISABLE", listed(kinds.pattern("a part of K3s", "coredns|servicelb|traefik|local-storage|"
                                                "metrics-server"),
                                  "parts out of coredns, servicelb, traefik, local-storage, metrics-server, with "
                                  "commas between them"),
            "Parts that K3s shall not bring along. Traefik comes through Flux instead.", "traefik",
            may_be_empty=True),
        Key("SECRETS_ENCRYPTION", kinds.SWITCH, "Encrypt Kubernetes Secrets in etcd. Cannot be switched on later.",
            "true"),
        Key("K3S_EXTRA_CONFIG", kinds.EXTRA, "Further keys of every server's config.yaml, like "
            '"etcd-snapshot-retention=10;kubelet-arg=max-pods=150". Keys that fo sets itself are refused.'),
        Key("KUBE_VIP_IMAGE", kinds.IMAGE, "Image of kube-vip, which carries the VIP.",
            "ghcr.io/kube-vip/kube-vip:v1.1.2"),
    ),
)  # fmt: skip

_FLUX = Section(
    "Flux",
    "",
    (
        Key("FLUX_VERSION", kinds.FLUX_VERSION, "Release.", "v2.9.4"),
        Key("FLUX_INSTALL_URL", url("https", "http"), "The release's install.yaml.",
            "https://github.com/fluxcd/flux2/releases/download/v2.9.4/install.yaml",
            lab="{web}/flux/{flux_version}/install.yaml"),
        Key("FLUX_INSTALL_SHA256", kinds.HEX64, "Digest of install.yaml, from the release's checksums.", None),
        Key("GIT_URL", url("https", "ssh", "http", what="a URL like https://host/path or ssh://git@host/path"),
            "Repository that Flux follows. Never holds credentials.", None,
            example="https://github.com/you/homelab", lab="{web}/git/home.git"),
        Key("GIT_BRANCH", kinds.BRANCH, "Branch that Flux follows.", "main"),
        Key("GIT_PATH", kinds.REPO_PATH, "Folder in the repository where Flux starts.", "infra/k8s/flux"),
        Key("GIT_TOKEN", kinds.SECRET_TEXT, "Read-only token for an https:// repository that is not public.",
            secret=True),
        Key("GIT_SSH_KEY", kinds.PEM, "Read-only deploy key for an ssh:// repository, base64 on one line.",
            secret=True),
        Key("GIT_KNOWN_HOSTS", kinds.KNOWN_HOSTS, "Host keys of an ssh:// repository: lines as in known_hosts, with "
            '";" between them, in quotes. Take them from the host\'s own pages, not from ssh-keyscan.'),
        Key("SOPS_AGE_KEY", kinds.AGE, "Age identity that Flux decrypts SOPS files with. Empty: there are none.",
            secret=True, generate="age"),
        Key("EVIDENCE_KEY", kinds.HEX64, "Seed of the key that signs the evidence of a verified Stage 1. Whoever has "
            "it can open the gate.", None, secret=True, generate="hex64"),
    ),
)  # fmt: skip

SECTIONS: tuple[Section, ...] = (_CLUSTER, _PROXMOX, _IMAGE, _NETWORK, _MACHINES, _SSH, _K3S, _FLUX)
