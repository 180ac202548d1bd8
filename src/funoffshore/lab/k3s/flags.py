"""Flags of ``k3s server`` and ``k3s agent`` (``--help`` of a v1.36 release), by the kind of value they take."""

from __future__ import annotations

_COMMON_BOOL = """
debug disable-apiserver-lb rootless docker prefer-bundled-bin selinux protect-kernel-defaults with-node-id
disable-default-registry-endpoint enable-pprof
"""
_COMMON_LIST = """
kubelet-arg kube-proxy-arg node-ip node-external-ip node-label node-taint
"""
_COMMON_TEXT = """
airgap-extra-registry config container-runtime-endpoint data-dir default-runtime flannel-conf flannel-cni-conf
flannel-iface image-credential-provider-bin-dir image-credential-provider-config image-service-endpoint
lb-server-port log node-name node-internal-dns node-external-dns nonroot-devices pause-image private-registry
resolv-conf server snapshotter token token-file v vmodule alsologtostderr vpn-auth vpn-auth-file
"""
_SERVER_BOOL = """
cluster-init cluster-reset disable-agent disable-apiserver disable-controller-manager disable-etcd
disable-kube-proxy disable-network-policy disable-helm-controller disable-cloud-controller disable-scheduler
embedded-registry etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-snapshot-compress
flannel-external-ip flannel-ipv6-masq secrets-encryption supervisor-metrics
etcd-s3-insecure etcd-s3-skip-ssl-verify kine-tls
"""
_SERVER_LIST = """
tls-san disable etcd-arg kube-apiserver-arg kube-controller-manager-arg kube-cloud-controller-manager-arg
kube-scheduler-arg kube-controller-arg service-cidr cluster-cidr cluster-dns
"""
_SERVER_TEXT = """
advertise-address advertise-port agent-token agent-token-file bind-address cluster-domain
cluster-reset-restore-path datastore-cafile datastore-certfile datastore-endpoint datastore-keyfile
default-local-storage-path egress-selector-mode etcd-s3-access-key etcd-s3-bucket
etcd-s3-endpoint etcd-s3-folder etcd-s3-region etcd-s3-secret-key etcd-snapshot-dir etcd-snapshot-name
etcd-snapshot-retention etcd-snapshot-schedule-cron flannel-backend helm-job-image https-listen-port
secrets-encryption-provider service-node-port-range servicelb-namespace system-default-registry
etcd-s3-bucket-lookup-type etcd-s3-config-secret etcd-s3-endpoint-ca etcd-s3-proxy etcd-s3-retention
etcd-s3-session-token etcd-s3-timeout etcd-snapshot-reconcile-interval
tls-san-security write-kubeconfig write-kubeconfig-mode datastore-max-open-connections write-kubeconfig-group
"""

KINDS: dict[str, dict[str, str]] = {
    "agent": {
        **dict.fromkeys(_COMMON_BOOL.split(), "bool"),
        **dict.fromkeys(_COMMON_LIST.split(), "list"),
        **dict.fromkeys(_COMMON_TEXT.split(), "text"),
    }
}
KINDS["server"] = {
    **KINDS["agent"],
    **dict.fromkeys(_SERVER_BOOL.split(), "bool"),
    **dict.fromkeys(_SERVER_LIST.split(), "list"),
    **dict.fromkeys(_SERVER_TEXT.split(), "text"),
}
"""By role and flag: ``bool``, ``list`` (may be repeated) or ``text``."""

_SNAPSHOT_TEXT = """
data-dir node-name debug log etcd-token token etcd-server name dir snapshot-compress snapshot-retention
etcd-snapshot-dir etcd-snapshot-name etcd-snapshot-compress etcd-snapshot-retention etcd-s3 etcd-s3-access-key
etcd-s3-bucket etcd-s3-bucket-lookup-type etcd-s3-config-secret etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-folder
etcd-s3-insecure etcd-s3-proxy etcd-s3-region etcd-s3-secret-key etcd-s3-session-token etcd-s3-skip-ssl-verify
etcd-s3-timeout etcd-s3-retention output config
"""
SNAPSHOT = frozenset(_SNAPSHOT_TEXT.split())
"""What ``k3s etcd-snapshot`` knows."""
