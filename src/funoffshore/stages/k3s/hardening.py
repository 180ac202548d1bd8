"""What makes a node harder to abuse: kernel settings, audit policy, pod security defaults, the CIS profile. Pure.

Items and values: K3s documentation, "CIS Hardening Guide"; Kubernetes documentation, "Auditing" and "Pod Security
Admission".
"""

from __future__ import annotations

from typing import Any

import yaml

from funoffshore.config import ClusterConfig

SYSCTL = "/etc/sysctl.d/90-kubelet.conf"
AUDIT_POLICY = "/var/lib/rancher/k3s/server/audit.yaml"
AUDIT_LOG = "/var/lib/rancher/k3s/server/logs/audit.log"
POD_SECURITY = "/var/lib/rancher/k3s/server/psa.yaml"

KERNEL = {"vm.panic_on_oom": 0, "vm.overcommit_memory": 1, "kernel.panic": 10, "kernel.panic_on_oops": 1}
"""What the kubelet wants to find when it may not set it itself (``--protect-kernel-defaults``)."""

_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
)  # fmt: skip
_LOUD = ("secrets", "configmaps", "serviceaccounts/token")
"""Resources whose bodies hold secrets, so that only who asked for them is written down."""


def sysctl() -> str:
    """The sysctl.d file."""
    return "# Written by fo.\n" + "".join(f"{name}={value}\n" for name, value in KERNEL.items())


def is_audited(config: ClusterConfig) -> bool:
    return config.k3s.audit or config.k3s.cis


def audit_policy() -> str:
    """Every change with who made it, secrets without their bodies, no noise of health checks and watches."""
    quiet = [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "None", "resources": [{"group": "", "resources": ["events"]}]},
        {"level": "None", "verbs": ["get", "list", "watch"], "userGroups": ["system:nodes"]},
    ]
    secret = {"level": "Metadata", "resources": [{"group": "", "resources": list(_LOUD)}]}
    changes = {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]}
    rules = [*quiet, secret, changes, {"level": "Metadata"}]
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
    return yaml.safe_dump(policy, sort_keys=False)


def pod_security() -> str:
    """Pods of a namespace that says nothing itself are restricted; kube-system is K3s' own."""
    levels = {f"{mode}{what}": value for mode in ("enforce", "audit", "warn")
              for what, value in (("", "restricted"), ("-version", "latest"))}  # fmt: skip
    defaults = {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": levels,
        "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": ["kube-system"]},
    }
    plugins = [{"name": "PodSecurity", "configuration": defaults}]
    whole = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins}
    return yaml.safe_dump(whole, sort_keys=False)


def server_arguments(config: ClusterConfig) -> dict[str, list[str]]:
    """Further arguments of a server's components, by key of config.yaml."""
    api: list[str] = []
    if is_audited(config):
        api += [
            f"audit-policy-file={AUDIT_POLICY}", f"audit-log-path={AUDIT_LOG}",
            "audit-log-maxage=30", "audit-log-maxbackup=10", "audit-log-maxsize=100",
        ]  # fmt: skip
    if not config.k3s.cis:
        return {"kube-apiserver-arg": api} if api else {}
    api += [f"admission-control-config-file={POD_SECURITY}", "request-timeout=300s"]
    return {"kube-apiserver-arg": api, "kube-controller-manager-arg": ["terminated-pod-gc-threshold=10"]}


def kubelet_arguments(config: ClusterConfig) -> dict[str, list[str]]:
    """Further arguments of every node's kubelet."""
    if not config.k3s.cis:
        return {}
    return {"kubelet-arg": ["streaming-connection-idle-timeout=5m", "tls-cipher-suites=" + ",".join(_CIPHERS)]}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """One table; lists of the same key follow one another, any other value is the last one's."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            there = whole.get(key)
            whole[key] = [*there, *_listed(value)] if isinstance(there, list) else value
    return whole


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
