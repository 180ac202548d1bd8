"""Node objects and the secrets around them, as K3s writes them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.k3s.settings import Settings
from funoffshore.lab.kube.api import ApiError, Cluster, Object

NODE = "v1/Node"
FINALIZER = "wrangler.cattle.io/node"
ETCD_FINALIZER = "wrangler.cattle.io/managed-etcd-controller"


@dataclass(frozen=True, slots=True)
class Kubelet:
    """What a node tells about itself."""

    name: str
    address: str
    uuid: str
    version: str
    settings: Settings
    cores: int = 2
    memory_mib: int = 4096
    disk_gib: float = 20
    etcd_name: str = ""
    """Empty on agents and on servers without etcd."""
    boot_id: str = ""
    """As the kernel tells it: another one at every boot."""
    machine_id: str = ""
    others: tuple[str, ...] = ()
    """Further addresses, of other families."""
    architecture: str = "amd64"
    cidrs: str = "10.42.0.0/16"
    """Ranges for pods, a comma between two families."""


def stamp(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def register(kube: Cluster, kubelet: Kubelet) -> None:
    """Creates the Node, or brings labels and annotations of an existing one up to date."""
    labels, annotations = _labels(kubelet), _annotations(kubelet)
    finalizers = [FINALIZER, ETCD_FINALIZER] if kubelet.etcd_name else [FINALIZER]
    if kube.get(NODE, "", kubelet.name) is None:
        cidrs = pod_cidrs(kube, kubelet.cidrs)
        kube.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": kubelet.name,
                    "labels": labels,
                    "annotations": annotations,
                    "finalizers": finalizers,
                },
                "spec": {
                    "podCIDR": cidrs[0],
                    "podCIDRs": cidrs,
                    "providerID": f"k3s://{kubelet.name}",
                    **taints(kubelet.settings),
                },
            },
            "k3s",
        )
        _adopt(kube, kubelet.name)
        return

    def change(metadata: Object) -> None:
        metadata["labels"] = {**metadata.get("labels", {}), **labels}
        metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}

    kube.change_metadata(NODE, "", kubelet.name, change)
    _adopt(kube, kubelet.name)


def pod_cidrs(kube: Cluster, ranges: str) -> list[str]:
    """The first parts of the cluster's ranges that no Node has: /24, or /64 of IPv6."""
    taken = {cidr for node in kube.list(NODE) for cidr in (node.get("spec") or {}).get("podCIDRs", [])}
    found = []
    for text in ranges.split(","):
        network = ipaddress.ip_network(text.strip(), strict=False)
        wanted = max(24 if network.version == 4 else 64, network.prefixlen)
        found.append(next(str(part) for part in network.subnets(new_prefix=wanted) if str(part) not in taken))
    return found


def taints(told: Settings) -> Object:
    """``spec.taints`` of a Node that registers; later ``node-taint`` counts no more."""
    found = []
    for text in told.many("node-taint"):
        rest, _, effect = text.rpartition(":")
        key, equals, value = rest.partition("=")
        found.append({"key": key, "effect": effect, **({"value": value} if equals and value else {})})
    return {"taints": found} if found else {}


def _adopt(kube: Cluster, name: str) -> None:
    """Makes the Node the owner of its password secret, so that both go together."""
    node = kube.get(NODE, "", name)
    if node is None:
        return
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}

    def change(metadata: Object) -> None:
        metadata["ownerReferences"] = [owner]

    kube.change_metadata("v1/Secret", "kube-system", f"{name}.node-password.k3s", change)


def let_go(kube: Cluster, name: str) -> None:
    """Takes K3s' finalizers off a Node that is being deleted."""

    def change(metadata: Object) -> None:
        kept = [f for f in metadata.get("finalizers", []) if f not in (FINALIZER, ETCD_FINALIZER)]
        metadata["finalizers"] = kept

    kube.change_metadata(NODE, "", name, change)


def report(kube: Cluster, kubelet: Kubelet, now: float, *, ready: bool, voter: bool | None) -> None:
    """The kubelet's status. ``voter`` is None where there is no etcd."""

    def change(node: Object) -> Object:
        status: Object = dict(node.get("status") or {})
        status.update(_status(kubelet))
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        for condition in _conditions(kubelet, now, ready=ready, voter=voter):
            before = conditions.get(condition["type"], {})
            if before.get("status") == condition["status"]:
                condition["lastTransitionTime"] = before["lastTransitionTime"]
            conditions[condition["type"]] = condition
        status["conditions"] = list(conditions.values())
        return status

    kube.change_status(NODE, "", kubelet.name, change)


def mark_lost(kube: Cluster, alive: set[str], now: float) -> None:
    """What the node controller does to Nodes whose kubelet has gone silent."""

    def change(node: Object) -> Object:
        status: Object = dict(node["status"])
        status["conditions"] = [_lost(c, now) for c in status.get("conditions", [])]
        return status

    for node in kube.list(NODE):
        name = node["metadata"]["name"]
        ready = [c for c in (node.get("status") or {}).get("conditions", []) if c["type"] == "Ready"]
        if name not in alive and ready and ready[0]["status"] == "True":
            kube.change_status(NODE, "", name, change)


def _lost(condition: Object, now: float) -> Object:
    if condition["type"] not in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
        return condition
    return {
        **condition,
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastTransitionTime": stamp(now),
    }


def password_accepted(kube: Cluster, name: str, password: str) -> bool:
    """Whether ``password`` is the one that ``name`` first came with; keeps it when ``name`` is new."""
    secret = kube.get("v1/Secret", "kube-system", f"{name}.node-password.k3s")
    hashed = hashlib.sha256(f"{name}:{password}".encode()).hexdigest()
    if secret is not None:
        return base64.b64decode(secret["data"]["hash"]).decode() == hashed
    try:
        kube.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": f"{name}.node-password.k3s", "namespace": "kube-system"},
                "type": "k3s.cattle.io/node-password",
                "immutable": True,
                "data": {"hash": base64.b64encode(hashed.encode()).decode()},
            },
            "k3s",
        )
    except ApiError:
        return False
    return True


def bootstrap_secret(secret: Object) -> str:
    """The token-secret of a bootstrap token's Secret."""
    return base64.b64decode(secret.get("data", {}).get("token-secret", "")).decode("ascii", "replace")


def virtual_address(daemonset: Object) -> str:
    """The address that kube-vip serves for the control plane, or empty for any other DaemonSet."""
    if "kube-vip" not in str(daemonset["metadata"]["name"]):
        return ""
    pod = daemonset.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers", []):
        env = {e.get("name"): str(e.get("value", "")) for e in container.get("env", [])}
        if env.get("cp_enable") == "true":
            return env.get("address", "") or env.get("vip_address", "")
    return ""


def _labels(kubelet: Kubelet) -> dict[str, str]:
    labels = {
        "beta.kubernetes.io/arch": kubelet.architecture,
        "beta.kubernetes.io/instance-type": "k3s",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": kubelet.architecture,
        "kubernetes.io/hostname": kubelet.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "k3s",
    }
    if kubelet.settings.role == "server":
        labels["node-role.kubernetes.io/control-plane"] = "true"
        if kubelet.etcd_name:
            labels["node-role.kubernetes.io/etcd"] = "true"
    for text in kubelet.settings.many("node-label"):
        key, _, value = text.partition("=")
        labels[key] = value
    return labels


def _annotations(kubelet: Kubelet) -> dict[str, str]:
    plain = json.dumps([kubelet.settings.arguments(redacted=False), {}]).encode()
    annotations = {
        "alpha.kubernetes.io/provided-node-ip": ",".join((kubelet.address, *kubelet.others)),
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": kubelet.address,
        "k3s.io/hostname": kubelet.name,
        "k3s.io/internal-ip": ",".join((kubelet.address, *kubelet.others)),
        "k3s.io/node-args": json.dumps(kubelet.settings.arguments(redacted=True), separators=(",", ":")),
        "k3s.io/node-config-hash": base64.b32encode(hashlib.sha256(plain).digest()).decode(),
        "k3s.io/node-env": "{}",
    }
    if kubelet.etcd_name:
        annotations["etcd.k3s.cattle.io/node-name"] = kubelet.etcd_name
        annotations["etcd.k3s.cattle.io/node-address"] = kubelet.address
    if kubelet.settings.flag("secrets-encryption"):
        digest = hashlib.sha256(kubelet.etcd_name.split("-")[0].encode()).hexdigest()
        annotations["k3s.io/encryption-config-hash"] = f"start-{digest}"
    return annotations


def _status(kubelet: Kubelet) -> dict[str, Any]:
    size = {
        "cpu": str(kubelet.cores),
        "memory": f"{kubelet.memory_mib * 1024}Ki",
        "ephemeral-storage": f"{int(kubelet.disk_gib * 1024 * 1024)}Ki",
        "pods": next(
            (arg.partition("=")[2] for arg in kubelet.settings.many("kubelet-arg") if "max-pods=" in arg), "110"
        ),
    }
    return {
        "addresses": [
            *({"type": "InternalIP", "address": address} for address in (kubelet.address, *kubelet.others)),
            {"type": "Hostname", "address": kubelet.name},
        ],
        "capacity": size,
        "allocatable": size,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": kubelet.architecture,
            "bootID": kubelet.boot_id,
            "containerRuntimeVersion": "containerd://2.3.2-k3s1",
            "kernelVersion": f"6.12.48+deb13-{kubelet.architecture}",
            "kubeProxyVersion": kubelet.version,
            "kubeletVersion": kubelet.version,
            "machineID": kubelet.machine_id or kubelet.uuid.replace("-", ""),
            "operatingSystem": "linux",
            "osImage": "Debian GNU/Linux 13 (trixie)",
            "systemUUID": kubelet.uuid,
        },
    }


def _conditions(kubelet: Kubelet, now: float, *, ready: bool, voter: bool | None) -> list[dict[str, str]]:
    def condition(kind: str, value: bool, reason: str, message: str) -> dict[str, str]:
        return {
            "type": kind,
            "status": "True" if value else "False",
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": stamp(now),
            "lastTransitionTime": stamp(now),
        }

    found = []
    if voter is not None:
        found.append(
            condition("EtcdIsVoter", True, "MemberNotLearner", "Node is a voting member of the etcd cluster")
            if voter
            else condition("EtcdIsVoter", False, "MemberIsLearner", "Node has not been promoted to voting member")
        )
    for kind, reason, message in (
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ):
        found.append(condition(kind, False, reason, message))
    if ready:
        found.append(condition("Ready", True, "KubeletReady", "kubelet is posting ready status"))
    else:
        message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"
        found.append(condition("Ready", False, "KubeletNotReady", message))
    return found
