"""Keys of what the cluster is called and where it lives: its Proxmox, image and network."""

from __future__ import annotations

from funoffshore.config import hosts, kinds, proxmox
from funoffshore.config.kinds import listed, one_of, url, whole
from funoffshore.config.sections.key import Key, Section

CLUSTER = Section(
    "Cluster",
    "",
    (
        Key("CLUSTER_NAME", kinds.CLUSTER, "Name of the cluster and of this file. Every machine is named and owned "
            "by it; changing it later means another cluster.", None, example="{name}"),
        Key("LAB", one_of("embedded"), "embedded: the cluster lives in the simulated homelab on loopback. Empty: it "
            "lives on real hardware.", lab="embedded"),
        Key("LAB_WEB_URL", url("http"), "Where the lab serves downloads and Git. Only in a lab.", lab="{web}"),
        Key("MACHINES", one_of("proxmox", "existing"), "proxmox: fo makes the machines on Proxmox. existing: they are "
            "there, with Debian or Ubuntu, SSH and sudo; fo sets up K3s on them, makes and deletes no machine, and "
            "nothing of Proxmox is needed. NODE_W3_MACHINE=existing says so of one.", "proxmox"),
        Key("DOMAIN", kinds.DOMAIN, "Domain under which the applications are served.", None,
            example="home.example.org", lab="lab.example.org"),
        Key("TIMEZONE", kinds.TIMEZONE, "Time zone of the machines and applications.", "Etc/UTC"),
    ),
)  # fmt: skip

PROXMOX = Section(
    "Proxmox",
    "The hypervisor and what it lends to the cluster. docs/guide names the privileges that the token needs.",
    (
        Key("PROXMOX_URL", url("https", path="/?", what="a URL like https://host:8006, without a path"),
            "The API.", None, example="https://192.168.1.5:8006", lab="https://{proxmox}:8006",
            required_for="made"),
        Key("PROXMOX_TOKEN_ID", proxmox.TOKEN_ID, "API token, user@realm!name. Only tokens are taken, no password: "
            f"{proxmox.ONLY_TOKENS}.", None, example="fo@pve!fo", required_for="made"),
        Key("PROXMOX_TOKEN_SECRET", proxmox.TOKEN_SECRET, "Shown once, when the token is made.", None, secret=True,
            generate="lab-uuid", required_for="made"),
        Key("PROXMOX_FINGERPRINT", proxmox.FINGERPRINT, "SHA-256 fingerprint of the API's certificate; nothing else is "
            "trusted. On the host: openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem (or "
            "pveproxy-ssl.pem, where there is one).", None, required_for="made"),
        Key("PROXMOX_NODES", proxmox.NODES, "Where the machines may live. Each is placed where most memory, CPU and "
            "storage are free, controllers apart from each other; `fo plan` says why. NODE_C1_PROXMOX_NODE pins one.",
            "pve"),
        Key("HIGH_AVAILABILITY", kinds.SWITCH, "Whether Proxmox restarts the machines elsewhere when a node fails. "
            "Needs 3 nodes or more, at least as many as controllers: its rule that no two controllers share a node is "
            "strict, so one that finds no node of its own stays off.", "false"),
        Key("PROXMOX_POOL", proxmox.POOL, "Pool of the machines, made when it is missing. Empty: fo-<cluster>."),
        Key("STORAGE_DISK", proxmox.STORAGE, "Storage of the machines' disks.", "local-lvm"),
        Key("STORAGE_IMAGE", proxmox.STORAGE, "Storage of the cloud image and the seed ISOs: a file-based one that "
            "allows the contents import and iso.", "local"),
        Key("STORAGE_PARALLEL", whole(1, 16), "How many disks are imported at once. More is faster on SSDs; a hard "
            "disk or a NAS only thrashes.", "3"),
        Key("BRIDGE", proxmox.BRIDGE, "Bridge the machines are attached to.", "vmbr0"),
        Key("VLAN", whole(1, 4094), "VLAN tag. Empty: untagged."),
        Key("VMID_FIRST", whole(100, 999_999_000), "Number of the first machine. Controller n gets this + n - 1, "
            "worker n gets this + 9 + n, so that adding a controller renumbers nothing. Where a stranger has that "
            "number, the machine takes a free one up to VMID_LAST.", "9000"),
        Key("VMID_LAST", proxmox.VMID, "Last number that fo may take. Empty: VMID_FIRST + 199."),
    ),
)  # fmt: skip

IMAGE = Section(
    "Cloud image",
    "What every machine starts from, and how it learns who it is. The digest stands in config/lock/<cluster>.yaml; the "
    "two keys for it are for those who keep no lock file.",
    (
        Key("IMAGE_URL", url("https", "http", path=r"/(?:[^/]*/)*[A-Za-z0-9][A-Za-z0-9._-]*\.(?:qcow2|img)",
                             what="a URL of a .qcow2 or .img file"),
            "A Debian or Ubuntu cloud image for amd64 with cloud-init. A dated one: the digest of a moving one "
            "breaks with its next release. Empty: the one in the lock file, and `fo lock update --image` takes the "
            "publisher's newest.",
            "https://cloud.debian.org/images/cloud/trixie/20260831-2587/"
            "debian-13-genericcloud-amd64-20260831-2587.qcow2", may_be_empty=True,
            lab="{web}/images/debian-13-genericcloud-amd64.qcow2"),
        Key("IMAGE_SHA256", kinds.HEX64, "Only without a lock file: digest of the image, where the publisher gives "
            "SHA-256 (Ubuntu: SHA256SUMS)."),
        Key("IMAGE_SHA512", kinds.HEX128, "Only without a lock file: digest of the image, where the publisher gives "
            "SHA-512 (Debian: SHA512SUMS beside the image)."),
        Key("IMAGE_TEMPLATE", proxmox.VM_NAME, "Name of a VM template to clone instead, as Proxmox before 8.4 cannot "
            "import images. Then no image is downloaded, and no digest needed."),
        Key("SEED", one_of("iso", "drive"), "How a machine learns its name, address and keys. iso: from an ISO that "
            "fo makes and uploads, and removes once the machine was reached. drive: from Proxmox' cloud-init drive, "
            "where the token may not upload; it carries no host key, see SSH_TRUST.", "iso"),
    ),
)  # fmt: skip

NETWORK = Section(
    "Network",
    "Every address is used once, and lies in the subnet unless its machine is an existing one. Keep them out of the "
    "DHCP range. The cluster is dual stack once CLUSTER_CIDR_V6 and SERVICE_CIDR_V6 are given, and then every machine "
    "needs an IPv6 address, too.",
    (
        Key("SUBNET", kinds.NETWORK, "The network of the machines.", None, example="192.168.1.0/24",
            lab="{subnet}", required_for="made"),
        Key("GATEWAY", kinds.ADDRESS, "Default gateway of the machines.", None, example="192.168.1.1",
            lab="{gateway}", required_for="made"),
        Key("DNS_SERVERS", listed(kinds.ADDRESS, "IPv4 addresses with commas between them"),
            "Name servers of the machines.", None, example="192.168.1.1", lab="{gateway}", required_for="made"),
        Key("VIP", kinds.ADDRESS, "Virtual address of the Kubernetes API, carried by one controller at a time "
            "(kube-vip). Must be unused. With CONTROLLERS=1 it may be empty: the API then has that machine's own "
            "address, and adding controllers later means another address.", None, example="192.168.1.40", lab="{vip}",
            required_for="vip"),
        Key("SUBNET_V6", hosts.NETWORK_V6, "The IPv6 network of the machines. Each has its network address plus the "
            "last 16 bits of the machine's IPv4 address, unless NODE_W1_IPV6 says another: in fd00:7::/64, "
            "192.168.1.41 gets fd00:7::129. Empty: no IPv6."),
        Key("GATEWAY_V6", hosts.ADDRESS_V6, "Default gateway of the machines for IPv6; may be a link-local one. Empty: "
            "the one that the router announces."),
    ),
)  # fmt: skip
