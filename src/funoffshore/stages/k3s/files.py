"""The files of a node as they shall be: config.yaml, the systemd unit, and what stands beside them. Pure.

Keys of config.yaml: K3s documentation, "k3s server" and "k3s agent". The unit is what install.sh writes, see
``docs/decisions/0004-own-k3s-unit.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.stages.k3s import copies, hardening, kube_vip, registries
from funoffshore.stages.k3s.classes import LIVE, SECRETS
from funoffshore.stages.k3s.facts import LABEL, Role

CONFIG = "/etc/rancher/k3s/config.yaml"
BINARY = "/usr/local/bin/k3s"
MANIFEST = "/var/lib/rancher/k3s/server/manifests/funoffshore-kube-vip.yaml"
IMAGES = "/var/lib/rancher/k3s/agent/images"
"""K3s imports every archive that lies here."""
_FULL = re.compile(r"K10[0-9a-f]{64}::(server|node):\S+")
_AGENTS = ("kubelet-arg", "kube-proxy-arg")
"""Keys of K3S_EXTRA_CONFIG that workers get as well; a key that an agent does not know kills it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How a node comes in: the keys of ``ENTRY``."""

    role: Role
    token: str = ""
    """A full token (K10…::) for joiners."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A file that stands beside config.yaml. None of them holds a secret."""

    path: str
    content: str
    mode: int
    restart: bool
    """Whether K3s reads it only when it starts."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()


def unit_name(node: Node) -> str:
    return "k3s.service" if node.role is NodeRole.CONTROLLER else "k3s-agent.service"


def unit_path(node: Node) -> str:
    return f"/etc/systemd/system/{unit_name(node)}"


def beside(config: ClusterConfig, node: Node) -> tuple[Beside, ...]:
    """Everything that ``node`` gets besides config.yaml and the binary."""
    server = node.role is NodeRole.CONTROLLER
    found = [Beside(unit_path(node), unit(node), 0o644, True)]
    if protects_kernel(config):
        found.append(Beside(hardening.SYSCTL, hardening.sysctl(), 0o644, False))
    if mirrors := registries.wanted(config):
        found.append(Beside(registries.PATH, mirrors, 0o600, True))
    if server and hardening.is_audited(config):
        found.append(Beside(hardening.AUDIT_POLICY, hardening.audit_policy(), 0o600, True))
    if server and config.k3s.cis:
        found.append(Beside(hardening.POD_SECURITY, hardening.pod_security(), 0o600, True))
    if server and config.virtual:
        # K3s looks at its manifests every few seconds, so a changed one needs no restart.
        found.append(Beside(MANIFEST, kube_vip.manifest(config), 0o600, False))
    if server:
        found += [Beside(path, text, 0o644, False) for path, text in copies.units(config).items()]
    return tuple(found)


def paths(config: ClusterConfig) -> tuple[str, ...]:
    """Every path that ``beside`` names on any node, for the look at the hosts."""
    return tuple(sorted({one.path for node in config.nodes for one in beside(config, node)}))


def protects_kernel(config: ClusterConfig) -> bool:
    return config.k3s.protect_kernel or config.k3s.cis


def settings(config: ClusterConfig, node: Node) -> dict[str, Any]:
    """config.yaml without the keys of ``ENTRY`` and without fo's own label; what servers must share is the same on
    each of them by construction."""
    own: dict[str, Any] = {"node-name": node.name, "node-ip": _addresses(node)}
    if node.labels:
        own["node-label"] = [f"{key}={value}" for key, value in node.labels]
    if node.taints:
        own["node-taint"] = list(node.taints)
    if protects_kernel(config):
        own["protect-kernel-defaults"] = True
    extra = {key: _value(value) for key, value in config.k3s.extra_config.items()}
    kubelet = hardening.kubelet_arguments(config)
    if node.role is NodeRole.WORKER:
        return hardening.merged(
            own, kubelet, {k: v for k, v in extra.items() if k in ("kubelet-arg", "kube-proxy-arg")}
        )
    return hardening.merged(own, _shared(config), kubelet, hardening.server_arguments(config), extra)


def _addresses(node: Node) -> str:
    return f"{node.address},{node.address_v6}" if node.address_v6 else str(node.address)


def _shared(config: ClusterConfig) -> dict[str, Any]:
    k3s = config.k3s
    names = dict.fromkeys([str(config.network.vip), *(str(c.address) for c in config.controllers)])
    shared: dict[str, Any] = {
        "agent-token": k3s.agent_token.get_secret_value(),
        "tls-san": list(names),
        "cluster-cidr": _both(k3s.cluster_cidr, k3s.cluster_cidr_v6),
        "service-cidr": _both(k3s.service_cidr, k3s.service_cidr_v6),
        "cluster-dns": str(k3s.service_cidr.network_address + 10),
        "disable": list(k3s.disable),
        "secrets-encryption": k3s.secrets_encryption,
        "write-kubeconfig-mode": "0600",
        "etcd-snapshot-schedule-cron": k3s.snapshots.schedule,
        "etcd-snapshot-retention": k3s.snapshots.keep,
    }
    if k3s.cluster_cidr_v6:
        shared["flannel-ipv6-masq"] = True
    if k3s.embedded_registry:
        shared["embedded-registry"] = True
    return {**shared, **_object_storage(config)}


def _both(four: object, six: object) -> str:
    return f"{four},{six}" if six else str(four)


def _object_storage(config: ClusterConfig) -> dict[str, Any]:
    s3 = config.k3s.snapshots.s3
    if s3 is None:
        return {}
    told = {
        "etcd-s3": True,
        "etcd-s3-endpoint": s3.endpoint,
        "etcd-s3-region": s3.region,
        "etcd-s3-bucket": s3.bucket,
        "etcd-s3-folder": s3.folder,
        "etcd-s3-access-key": s3.access_key.get_secret_value(),
        "etcd-s3-secret-key": s3.secret_key.get_secret_value(),
    }
    return {key: value for key, value in told.items() if value}


def fingerprint(config: ClusterConfig, node: Node) -> str:
    """16 hex digits over everything that needs a restart when it changes; no secret goes into it, and not the
    binary, as the kubelet tells its version itself."""
    told = {k: v for k, v in settings(config, node).items() if k not in SECRETS | LIVE}
    whole = [told, *([one.path, one.content] for one in beside(config, node) if one.restart)]
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
    if not _FULL.fullmatch(entry.token):
        # K3s with `server` and no token founds a cluster of its own, and a bare secret joins whatever answers.
        raise ValueError("a node that joins must name the authority that it expects")
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


def _value(text: str) -> Any:
    """A value of K3S_EXTRA_CONFIG: a switch, a number, a flow list, else the text as it is."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | list) else text
