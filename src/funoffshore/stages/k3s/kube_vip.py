"""kube-vip, which carries the VIP from one server to the next: the manifest that K3s applies at its first start. Pure.

ARP mode, control plane only; services keep their own load balancer. Shape: kube-vip documentation, "As a DaemonSet".
"""

from __future__ import annotations

from typing import Any

import yaml

from funoffshore.config import ClusterConfig

NAMESPACE = "kube-system"
_READ = ["list", "get", "watch", "update"]
_RULES: list[dict[str, Any]] = [
    {"apiGroups": [""], "resources": ["services/status"], "verbs": ["update"]},
    {"apiGroups": [""], "resources": ["services", "endpoints"], "verbs": _READ},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": [*_READ, "patch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": [*_READ, "create"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _READ},
]
_ENVIRONMENT = {
    "vip_arp": "true",
    "port": "6443",
    "vip_subnet": "32",
    "dns_mode": "first",
    "cp_enable": "true",
    "cp_namespace": NAMESPACE,
    "svc_enable": "false",
    "vip_leaderelection": "true",
    "vip_leasename": "plndr-cp-lock",
    "vip_leaseduration": "5",
    "vip_renewdeadline": "3",
    "vip_retryperiod": "1",
}
_LABELS = {"app.kubernetes.io/name": "kube-vip", "app.kubernetes.io/managed-by": "funoffshore"}
_ROLE, _BINDING = "system:kube-vip-role", "system:kube-vip-binding"


def manifest(config: ClusterConfig) -> str:
    """Service account, its rights, and the DaemonSet."""
    rbac = "rbac.authorization.k8s.io"
    account = {"name": "kube-vip", "namespace": NAMESPACE}
    reference = {"apiGroup": rbac, "kind": "ClusterRole", "name": _ROLE}
    documents = [
        _object("v1", "ServiceAccount", account),
        _object(f"{rbac}/v1", "ClusterRole", {"name": _ROLE}, rules=_RULES),
        _object(
            f"{rbac}/v1", "ClusterRoleBinding", {"name": _BINDING}, roleRef=reference,
            subjects=[{"kind": "ServiceAccount", **account}],
        ),
        _object("apps/v1", "DaemonSet", account, spec=_daemons(config)),
    ]  # fmt: skip
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False)


def _object(api_version: str, kind: str, metadata: dict[str, str], **rest: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {**metadata, "labels": _LABELS}, **rest}


def _daemons(config: ClusterConfig) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in {**_ENVIRONMENT, "address": str(config.network.vip)}.items()
    ]
    environment.append({"name": "vip_nodename", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    container = {
        "name": "kube-vip",
        "image": config.k3s.kube_vip_image,
        "args": ["manager"],
        "env": environment,
        "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}},
    }
    servers = [{"matchExpressions": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": servers}}
    pod = {
        "serviceAccountName": "kube-vip",
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "affinity": {"nodeAffinity": required},
        "tolerations": [{"operator": "Exists", "effect": effect} for effect in ("NoSchedule", "NoExecute")],
        "containers": [container],
    }
    select = {"app.kubernetes.io/name": "kube-vip"}
    template = {"metadata": {"labels": _LABELS}, "spec": pod}
    return {"selector": {"matchLabels": select}, "updateStrategy": {"type": "RollingUpdate"}, "template": template}


class _Plain(yaml.SafeDumper):
    """Writes shared parts out instead of naming them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
