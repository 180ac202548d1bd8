"""Files that K3s leaves on a host. Paths, modes and contents recorded from a real run."""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
from pathlib import Path

import yaml

from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.k3s import pki, tokens
from funoffshore.lab.k3s.plane import Plane

DATA = "/var/lib/rancher/k3s"
SERVER = f"{DATA}/server"
AGENT = f"{DATA}/agent"
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"


def folder(machine: Machine, path: str, mode: int = 0o755) -> Path:
    """The folder, made if need be, with ``mode``."""
    real = machine.path(path)
    real.mkdir(parents=True, exist_ok=True)
    real.chmod(mode)
    return real


def write(machine: Machine, path: str, content: str | bytes, mode: int) -> None:
    """Replaces the file; its mode is right from its first byte on."""
    real = machine.path(path)
    data = content.encode() if isinstance(content, str) else content
    # A process that is being stopped may still write what the next one writes already.
    fresh = real.with_name(f".{real.name}.{threading.get_ident()}.tmp")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.chmod(mode)
    fresh.replace(real)


def node_password(machine: Machine) -> str:
    """The password in /etc/rancher/node/password, made when absent."""
    folder(machine, "/etc/rancher/node")
    real = machine.path("/etc/rancher/node/password")
    if not real.exists():
        write(machine, "/etc/rancher/node/password", secrets.token_hex(16) + "\n", 0o600)
    return real.read_text().strip()


def unpack(machine: Machine, version: str) -> None:
    """What the first real command unpacks."""
    digest = tokens.hash_of(version.encode())
    folder(machine, DATA)
    data = folder(machine, f"{DATA}/data")
    folder(machine, f"{DATA}/data/{digest}")
    (data / ".lock").touch(mode=0o600)
    current = data / "current"
    if not current.is_symlink():
        current.symlink_to(digest)


def database(machine: Machine) -> str:
    """Identity of the cluster whose datastore lies on the host, or empty."""
    for kept in (f"{SERVER}/db/etcd/member/cluster", f"{SERVER}/db/state.db"):
        real = machine.path(kept)
        if real.is_file():
            return real.read_text().strip()
    return ""


def write_database(machine: Machine, plane: Plane, node: str, address: str) -> None:
    """``db/etcd`` (or ``db/state.db`` without etcd) and the folder of snapshots."""
    folder(machine, f"{SERVER}/db", 0o700)
    if not plane.etcd:
        write(machine, f"{SERVER}/db/state.db", plane.identity, 0o600)
        return
    member = plane.members[node]
    folder(machine, f"{SERVER}/db/etcd", 0o700)
    folder(machine, f"{SERVER}/db/etcd/member", 0o700)
    folder(machine, f"{SERVER}/db/snapshots", 0o700)
    write(machine, f"{SERVER}/db/etcd/member/cluster", plane.identity, 0o600)
    write(machine, f"{SERVER}/db/etcd/name", member["etcd_name"], 0o600)
    config = {"name": member["etcd_name"], "listen-peer-urls": f"https://{address}:2380"}
    write(machine, f"{SERVER}/db/etcd/config", yaml.safe_dump(config), 0o600)


def write_authorities(machine: Machine, plane: Plane) -> None:
    """The folders below ``server/``, and the cluster's authorities in them."""
    for path, mode in (("", 0o700), ("/cred", 0o700), ("/tls", 0o700), ("/tls/etcd", 0o755), ("/manifests", 0o700)):
        folder(machine, SERVER + path, mode)
    folder(machine, SERVER + "/etc")
    folder(machine, SERVER + "/static")
    for name in pki.AUTHORITIES:
        pair = plane.authority(name)
        write(machine, f"{SERVER}/tls/{name}.crt", pair.certificate, 0o644)
        write(machine, f"{SERVER}/tls/{name}.key", pair.key, 0o600)
    write_tokens(machine, plane)


def write_server(machine: Machine, plane: Plane, encryption: bool, admin: pki.Pair) -> None:
    """Everything else below ``server/`` but the datastore, and the administrator's kubeconfig."""
    if encryption:
        keep = machine.path(f"{SERVER}/cred/encryption-config.json")
        if not keep.exists():
            provider = {"aescbc": {"keys": [{"name": "aescbckey", "secret": plane.encryption_key}]}}
            document = {
                "kind": "EncryptionConfiguration",
                "apiVersion": "apiserver.config.k8s.io/v1",
                "resources": [{"resources": ["secrets"], "providers": [provider, {"identity": {}}]}],
            }
            write(machine, f"{SERVER}/cred/encryption-config.json", json.dumps(document), 0o600)
    folder(machine, "/etc/rancher")
    folder(machine, "/etc/rancher/k3s")
    write(machine, KUBECONFIG, kubeconfig(plane, admin), 0o600)


def write_tokens(machine: Machine, plane: Plane) -> None:
    """``cred/passwd``, ``token`` and its companions: symlinks, or a file of its own for a separate agent token."""
    write(machine, f"{SERVER}/cred/passwd", plane.passwords(), 0o600)
    write(machine, f"{SERVER}/token", tokens.full(plane.ca, "server", plane.password) + "\n", 0o600)
    for name in ("node-token", "agent-token"):
        link = machine.path(f"{SERVER}").joinpath(name)
        link.unlink(missing_ok=True)
        if name == "agent-token" and plane.agent_password != plane.password:
            write(machine, f"{SERVER}/{name}", tokens.full(plane.ca, "node", plane.agent_password) + "\n", 0o600)
        else:
            link.symlink_to("token")


def write_agent(machine: Machine, plane: Plane, servers: list[str]) -> None:
    """Everything below ``agent/``."""
    folder(machine, DATA)
    folder(machine, AGENT, 0o700)
    for path in ("/etc", "/etc/containerd", "/etc/kubelet.conf.d", "/etc/cni", "/etc/cni/net.d", "/images"):
        folder(machine, AGENT + path)
    folder(machine, f"{AGENT}/pod-manifests", 0o750)
    for name in ("server-ca", "client-ca"):
        write(machine, f"{AGENT}/{name}.crt", plane.authority(name).certificate, 0o600)
    write(machine, f"{AGENT}/kubelet.kubeconfig", "apiVersion: v1\nkind: Config\n", 0o600)
    write(machine, f"{AGENT}/etc/containerd/config.toml", "version = 3\n", 0o644)
    write(machine, f"{AGENT}/etc/kubelet.conf.d/00-k3s-defaults.conf", "kind: KubeletConfiguration\n", 0o600)
    write(machine, f"{AGENT}/etc/cni/net.d/10-flannel.conflist", '{"name":"cbr0","cniVersion":"1.0.0"}\n', 0o644)
    if servers:
        write_balancer(machine, servers[0], servers[1:])


def write_balancer(machine: Machine, url: str, servers: list[str]) -> None:
    """Where an agent's own balancer finds API servers: ``address:6443``."""
    balancer = {"ServerURL": url, "ServerAddresses": servers}
    write(machine, f"{AGENT}/etc/k3s-agent-load-balancer.json", json.dumps(balancer), 0o600)


def known_servers(machine: Machine) -> list[str]:
    """Addresses that an agent's load balancer remembers."""
    try:
        kept = json.loads(machine.path(f"{AGENT}/etc/k3s-agent-load-balancer.json").read_text())
    except (OSError, ValueError):
        return []
    return [str(a) for a in kept.get("ServerAddresses", [])]


def kubeconfig(plane: Plane, admin: pki.Pair) -> str:
    """k3s.yaml: everything is called ``default``, the server is the local one."""

    def encode(data: bytes) -> str:
        return base64.b64encode(data).decode()

    document = {
        "apiVersion": "v1",
        "clusters": [
            {
                "cluster": {"certificate-authority-data": encode(plane.ca), "server": "https://127.0.0.1:6443"},
                "name": "default",
            }
        ],
        "contexts": [{"context": {"cluster": "default", "user": "default"}, "name": "default"}],
        "current-context": "default",
        "kind": "Config",
        "users": [
            {
                "name": "default",
                "user": {
                    "client-certificate-data": encode(admin.certificate),
                    "client-key-data": encode(admin.key),
                },
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)
