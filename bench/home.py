"""The bench as an operator would find it at home: addresses, accounts, and the answers for ``fo init``."""

from __future__ import annotations

import uuid
from pathlib import Path

from bench.hosts import names
from funoffshore.lab.pve import lab_fingerprint

DOMAIN = "home.example.org"
GIT_HOST = "git.example.net"
REPOSITORY = "home"
K3S_VERSION = "v1.36.3+k3s1"
"""What the stand-in and the Kubernetes programs behind it say they are."""
K3S_NEXT = "v1.36.4+k3s1"
"""The patch release that the bench's internet offers as well."""
FLUX_VERSION = "v2.9.4"
IMAGE_URL = "https://cloud.debian.org/images/cloud/bookworm/bench/debian-12-bench-amd64.qcow2"
TOKEN_ID = "fo@pve!fo"  # noqa: S105 - its name
TOKEN_SECRET = str(uuid.uuid5(uuid.NAMESPACE_DNS, "proxmox.bench"))  # opens nothing but the bench
THIRD_PARTIES = (
    "CF_TUNNEL_TOKEN",
    "CF_API_TOKEN",
    "CF_ORIGIN_CA_TOKEN",
    "TAILSCALE_CLIENT_ID",
    "TAILSCALE_CLIENT_SECRET",
)
"""Keys whose value a real third party would give."""
GIT_URL = f"https://{GIT_HOST}/{REPOSITORY}.git"


def answers(controllers: int = 3, workers: int = 2) -> dict[str, str]:
    """Values for ``fo init <name> --set``; digests are left to its own fetching. The second worker has a data disk."""
    return {
        "DOMAIN": DOMAIN,
        "PROXMOX_URL": f"https://{names.PROXMOX}:8006",
        "PROXMOX_TOKEN_ID": TOKEN_ID,
        "PROXMOX_TOKEN_SECRET": TOKEN_SECRET,
        "PROXMOX_FINGERPRINT": lab_fingerprint(TOKEN_SECRET, names.PROXMOX),
        "IMAGE_URL": IMAGE_URL,
        "SUBNET": names.SUBNET,
        "GATEWAY": names.GATEWAY,
        "DNS_SERVERS": names.GATEWAY,
        "VIP": "10.77.0.10",
        "CONTROLLERS": str(controllers),
        "CONTROLLER_FIRST_IP": "10.77.0.11",
        "WORKERS": str(workers),
        "WORKER_FIRST_IP": "10.77.0.21",
        **({"NODE_W2_DATA_DISK_GIB": "10"} if workers > 1 else {}),
        "K3S_VERSION": K3S_VERSION,
        "FLUX_VERSION": FLUX_VERSION,
        # the kubelet refuses hosts with cgroup v1 unless it is told otherwise, and this kernel may have nothing else
        "K3S_EXTRA_CONFIG": "kubelet-arg=fail-cgroupv1=false",
        "GIT_URL": GIT_URL,
        "NFS_SERVER": names.GATEWAY,
        "ACME_EMAIL": "op@example.org",
        **dict.fromkeys(THIRD_PARTIES, "bench-opens-nothing"),
    }


def environment(authority: Path) -> dict[str, str]:
    """What an operator's shell needs so that fo, git and curl trust the bench's internet."""
    return {
        "SSL_CERT_FILE": str(authority),
        "REQUESTS_CA_BUNDLE": str(authority),
        "GIT_SSL_CAINFO": str(authority),
        "CURL_CA_BUNDLE": str(authority),
    }
