"""The files of a node as they shall be: config.yaml and the systemd unit; kube-vip's manifest is beside. Pure.

Keys of config.yaml: K3s documentation, "k3s server" and "k3s agent". The unit is what install.sh writes, see
``docs/decisions/0004-own-k3s-unit.md``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import yaml

from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.stages.k3s import kube_vip
from funoffshore.stages.k3s.facts import LABEL, Role

CONFIG = "/etc/rancher/k3s/config.yaml"
BINARY = "/usr/local/bin/k3s"
MANIFEST = "/var/lib/rancher/k3s/server/manifests/funoffshore-kube-vip.yaml"
SECRETS = frozenset({"token", "agent-token"})
ENTRY = frozenset({"cluster-init", "server", "token"})
"""Keys that only say how a node came in; etcd on its disk wins afterwards, so they are left as they are."""
FIXED = ("cluster-cidr", "service-cidr", "cluster-dns", "secrets-encryption", "flannel-backend", "cluster-domain")
"""Keys that K3s takes without a word on a living cluster, and that break it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How a node comes in: the keys of ``ENTRY``."""

    role: Role
    token: str = ""
    """A full token for joiners; empty while it cannot be known."""


def unit_name(node: Node) -> str:
    return "k3s.service" if node.role is NodeRole.CONTROLLER else "k3s-agent.service"


def unit_path(node: Node) -> str:
    return f"/etc/systemd/system/{unit_name(node)}"


def settings(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """config.yaml without the keys of ``ENTRY`` and without the label; the same for every server but its own name."""
    own: dict[str, Any] = {"node-name": node.name, "node-ip": str(node.address)}
    if node.role is NodeRole.WORKER:
        extra = {k: _value(v) for k, v in config.k3s.extra_config.items() if k in ("kubelet-arg", "kube-proxy-arg")}
        return {**own, **extra}
    k3s = config.k3s
    dns = k3s.service_cidr.network_address + 10
    shared: dict[str, Any] = {
        "agent-token": k3s.agent_token.get_secret_value(),
        "tls-san": [str(config.network.vip), *(str(c.address) for c in config.controllers)],
        "cluster-cidr": str(k3s.cluster_cidr),
        "service-cidr": str(k3s.service_cidr),
        "cluster-dns": str(dns),
        "disable": list(k3s.disable),
        "secrets-encryption": k3s.secrets_encryption,
        "write-kubeconfig-mode": "0600",
        "etcd-snapshot-schedule-cron": "0 */6 * * *",
        "etcd-snapshot-retention": 20,
    }
    return {**own, **shared, **{k: _value(v) for k, v in k3s.extra_config.items()}}


def fingerprint(config: ClusterConfig, node: Node) -> str:
    """16 hex digits over everything that needs a restart when it changes; no secret goes into it."""
    told = {k: v for k, v in settings(config, node).items() if k not in SECRETS}
    whole = [told, unit(node), config.k3s.sha256, kube_vip.manifest(config) if node.role is NodeRole.CONTROLLER else ""]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def config_yaml(config: ClusterConfig, node: Node, entry: dict[str, Any]) -> str:
    """The whole file. ``entry`` holds the keys of ``ENTRY``, from ``entry_keys`` or as they lie on the node."""
    whole = {**entry, **settings(config, node)}
    labels = whole.get("node-label", [])
    whole["node-label"] = [*(labels if isinstance(labels, list) else [labels]), label(config, node)]
    head = f"# Written by fo for {node.name}; changes made here are undone by the next run.\n"
    return head + yaml.safe_dump(whole, sort_keys=False)


def label(config: ClusterConfig, node: Node) -> str:
    return f"{LABEL}={fingerprint(config, node)}"


def entry_keys(config: ClusterConfig, entry: Entry) -> dict[str, Any]:
    """The founder takes the bare secret, as no authority exists yet; joiners name the authority they expect."""
    if entry.role is Role.FOUND:
        return {"cluster-init": True, "token": config.k3s.token.get_secret_value()}
    return {"server": f"https://{config.network.vip}:6443", "token": entry.token}


def unit(node: Node) -> str:
    """The systemd unit."""
    server = node.role is NodeRole.CONTROLLER
    role, what = ("server", "server") if server else ("agent", "agent")
    # Its mount is nofail, so that a lost disk leaves a host that can be reached; without it K3s must not start.
    disk = "RequiresMountsFor=/var/lib/rancher\n" if node.data_disk_gib else ""
    return f"""\
# Written by fo.
[Unit]
Description=Lightweight Kubernetes ({what})
Documentation=https://k3s.io
Wants=network-online.target
After=network-online.target
{disk}
[Install]
WantedBy=multi-user.target

[Service]
Type=notify
KillMode=process
Delegate=yes
User=root
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart={BINARY} {role}
"""


def takes_cgroup1(config: ClusterConfig) -> bool:
    """Whether the operator told the kubelet to run on hosts with cgroup v1 (kubelet flag ``--fail-cgroupv1``)."""
    value = _value(config.k3s.extra_config.get("kubelet-arg", ""))
    return "fail-cgroupv1=false" in (value if isinstance(value, list) else [value])


def download_url(config: ClusterConfig) -> str:
    """Where a host fetches the binary."""
    return f"{config.k3s.download_url.rstrip('/')}/{config.k3s.version.replace('+', '%2B')}/k3s"


def _value(text: str) -> Any:
    """A value of K3S_EXTRA_CONFIG: a switch, a number, a flow list, else the text as it is."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | list) else text
