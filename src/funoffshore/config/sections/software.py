"""Keys of what runs on the machines: K3s, Flux, and the repository that Flux follows."""

from __future__ import annotations

from funoffshore.config import kinds
from funoffshore.config.kinds import listed, url
from funoffshore.config.sections.key import Key, Section

K3S = Section(
    "K3s",
    "",
    (
        Key("K3S_VERSION", kinds.K3S_VERSION, "Release.", "v1.36.4+k3s1"),
        Key("K3S_DOWNLOAD_URL", url("https", "http"), "Base of the downloads; the binary is <base>/<release>/k3s.",
            "https://github.com/k3s-io/k3s/releases/download", lab="{web}/k3s"),
        Key("K3S_SHA256", kinds.HEX64, "Only without a lock file: digest of the amd64 binary, from sha256sum-amd64.txt "
            "of the release."),
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
