"""Keys of what runs on the machines: K3s, Flux, and the repository that Flux follows."""

from __future__ import annotations

from funoffshore.config import hosts, kinds, kubernetes
from funoffshore.config.kinds import one_of, url, whole
from funoffshore.config.sections.key import Key, Section

K3S = Section(
    "K3s",
    "",
    (
        Key("K3S_VERSION", kinds.K3S_VERSION, "Release.", "v1.36.4+k3s1"),
        Key("K3S_DOWNLOAD_URL", url("https", "http"), "Base of the downloads, your mirror for one; the binary is "
            "<base>/<release>/k3s, or k3s-arm64.", "https://github.com/k3s-io/k3s/releases/download", lab="{web}/k3s"),
        Key("K3S_SOURCE", one_of("hosts", "push"), "Who downloads K3s. hosts: each machine. push: this computer, once, "
            "and it hands the binary over; for machines without a way out.", "hosts"),
        Key("K3S_FOLDER", hosts.PATH, "A folder on this computer that holds k3s, k3s-arm64 for arm64 machines, and "
            "k3s-airgap-images-amd64.tar.zst or -arm64. They are pushed, and nothing is downloaded, whatever "
            "K3S_SOURCE says. Empty: there is none."),
        Key("K3S_SHA256", kinds.HEX64, "Only without a lock file: digest of the amd64 binary, from sha256sum-amd64.txt "
            "of the release."),
        Key("K3S_SHA256_ARM64", kinds.HEX64, "Only without a lock file, and only for arm64 machines: digest of the "
            "arm64 binary, from sha256sum-arm64.txt of the release."),
        Key("K3S_TOKEN", kinds.TOKEN, "What a server needs to join; also encrypts K3s' bootstrap data, so keep it "
            "with the etcd snapshots. Only `fo k3s rotate-token` changes it later.", None, secret=True,
            generate="hex32"),
        Key("K3S_AGENT_TOKEN", kinds.TOKEN, "What a worker needs to join; must differ from K3S_TOKEN.", None,
            secret=True, generate="hex32"),
        Key("K3S_TOKEN_NEXT", kinds.TOKEN, "While `fo k3s rotate-token` works: what K3S_TOKEN will be. fo writes it, "
            "and empties it at the end.", secret=True),
        Key("K3S_AGENT_TOKEN_NEXT", kinds.TOKEN, "The same for K3S_AGENT_TOKEN.", secret=True),
        Key("CLUSTER_CIDR", kinds.NETWORK, "Network of the pods, a /24 of it per machine. Cannot be changed later.",
            "10.42.0.0/16"),
        Key("SERVICE_CIDR", kinds.NETWORK, "Network of the services. Cannot be changed later.", "10.43.0.0/16"),
        Key("CLUSTER_CIDR_V6", hosts.NETWORK_V6, "IPv6 network of the pods, a /64 of it per machine, like "
            "fd00:42::/56; together with SERVICE_CIDR_V6. Cannot be changed later. Empty: IPv4 alone."),
        Key("SERVICE_CIDR_V6", hosts.NETWORK_V6, "IPv6 network of the services, like fd00:43::/112. Cannot be changed "
            "later."),
        Key("K3S_DISABLE", kubernetes.PARTS, "Parts that K3s shall not bring along. Traefik comes through Flux "
            "instead.", "traefik", may_be_empty=True),
        Key("SECRETS_ENCRYPTION", kinds.SWITCH, "Encrypt Kubernetes Secrets in etcd. Cannot be switched on later.",
            "true"),
        Key("K3S_PROTECT_KERNEL", kinds.SWITCH, "The kubelet refuses to start where the kernel's settings are not as "
            "it wants them (protect-kernel-defaults); fo makes them so.", "true"),
        Key("K3S_CIS", kinds.SWITCH, "The settings of the CIS profile of K3s' hardening guide. Applications may need "
            "privileges that it takes from them.", "false"),
        Key("K3S_AUDIT", kinds.SWITCH, "The API server writes down who changed what, on each controller.", "false"),
        Key("REGISTRY_MIRRORS", kubernetes.MIRRORS, "Where images are fetched instead of from their registry; * stands "
            "for all registries. The registry itself is asked when its mirror does not answer."),
        Key("EMBEDDED_REGISTRY", kinds.SWITCH, "Machines hand images to each other before they ask a registry.",
            "false"),
        Key("UPGRADE_BATCH", whole(1, 10), "How many workers `fo k3s upgrade` takes at once. Controllers go one by "
            "one.", "1"),
        Key("K3S_EXTRA_CONFIG", kubernetes.EXTRA, "Further keys of every server's config.yaml, like "
            '"flannel-backend=host-gw;kubelet-arg=max-pods=150". Keys that fo sets itself are refused.'),
        Key("KUBE_VIP_IMAGE", kinds.IMAGE, "Image of kube-vip, which carries the VIP.",
            "ghcr.io/kube-vip/kube-vip:v1.1.2"),
    ),
)  # fmt: skip

SNAPSHOTS = Section(
    "etcd snapshots",
    "What the cluster is restored from (`fo k3s restore`). Every controller takes its own; off the machines they are "
    "kept in S3, on an NFS server, or by `fo k3s snapshot`.",
    (
        Key("ETCD_SNAPSHOT_SCHEDULE", kubernetes.CRON, "When, in the machines' own time.", "0 */6 * * *"),
        Key("ETCD_SNAPSHOT_KEEP", whole(1, 1000), "How many of them each controller keeps, and S3.", "20"),
        Key("ETCD_S3_ENDPOINT", kubernetes.ENDPOINT, "S3 server that they are copied to, over https. Empty: none. "
            "The bucket and both keys come with it."),
        Key("ETCD_S3_REGION", kubernetes.REGION, "Empty: us-east-1."),
        Key("ETCD_S3_BUCKET", kubernetes.BUCKET, "The bucket, which must be there."),
        Key("ETCD_S3_FOLDER", kubernetes.S3_FOLDER, "Folder in the bucket. Needed where clusters share a bucket."),
        Key("ETCD_S3_ACCESS_KEY", kinds.SECRET_TEXT, "Access key of an account that may use this bucket alone.",
            secret=True),
        Key("ETCD_S3_SECRET_KEY", kinds.SECRET_TEXT, "Its secret key.", secret=True),
        Key("ETCD_SNAPSHOT_NFS", kubernetes.NFS, "NFS export that every controller copies its snapshots to."),
    ),
)  # fmt: skip

FLUX = Section(
    "Flux",
    "",
    (
        Key("FLUX_VERSION", kinds.FLUX_VERSION, "Release.", "v2.9.4"),
        Key("FLUX_INSTALL_URL", url("https", "http"), "The release's install.yaml.",
            "https://github.com/fluxcd/flux2/releases/download/v2.9.4/install.yaml",
            lab="{web}/flux/{flux_version}/install.yaml"),
        Key("FLUX_INSTALL_SHA256", kinds.HEX64, "Only without a lock file: digest of install.yaml, from the release's "
            "checksums."),
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
