"""Manifests of the parts that K3s brings along, reduced to what can be seen from outside.

Names, namespaces, labels and images: K3s repository, folder ``manifests``.
"""

from __future__ import annotations


def _deployment(name: str, image: str, labels: str, account: str) -> str:
    return f"""\
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {account}, namespace: kube-system}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: kube-system, labels: {{{labels}}}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{{labels}}}}}
  template:
    metadata: {{labels: {{{labels}}}}}
    spec:
      serviceAccountName: {account}
      priorityClassName: system-cluster-critical
      containers:
        - {{name: {name}, image: "{image}"}}
"""


def _service(name: str, labels: str, ports: str, extra: str = "") -> str:
    return f"""\
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: kube-system, labels: {{{labels}}}}}
spec:
  {extra}
  selector: {{{labels}}}
  ports: [{ports}]
"""


_DNS_PORTS = "{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}"
_WEB_PORTS = "{name: web, port: 80, protocol: TCP}, {name: websecure, port: 443, protocol: TCP}"

MANIFESTS = {
    "coredns.yaml": _deployment("coredns", "rancher/mirrored-coredns-coredns:1.14.2", "k8s-app: kube-dns", "coredns")
    + _service("kube-dns", "k8s-app: kube-dns", _DNS_PORTS, "clusterIP: 10.43.0.10")
    + """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        errors
        health
        ready
        kubernetes cluster.local in-addr.arpa ip6.arpa
        forward . /etc/resolv.conf
        cache 30
    }
""",
    "local-storage.yaml": _deployment(
        "local-path-provisioner",
        "rancher/local-path-provisioner:v0.0.36",
        "app: local-path-provisioner",
        "local-path-provisioner-service-account",
    )
    + """\
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local-path
  annotations:
    defaultVolumeType: local
    storageclass.kubernetes.io/is-default-class: "true"
provisioner: rancher.io/local-path
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: v1
kind: ConfigMap
metadata: {name: local-path-config, namespace: kube-system}
data:
  config.json: '{"nodePathMap":[{"node":"DEFAULT_PATH_FOR_NON_LISTED_NODES","paths":["/var/lib/rancher/k3s/storage"]}]}'
""",
    "metrics-server.yaml": _deployment(
        "metrics-server", "rancher/mirrored-metrics-server:v0.8.1", "k8s-app: metrics-server", "metrics-server"
    )
    + _service("metrics-server", "k8s-app: metrics-server", "{name: https, port: 443, protocol: TCP}"),
    "traefik.yaml": _deployment(
        "traefik", "rancher/mirrored-library-traefik:3.6.9", "app.kubernetes.io/name: traefik", "traefik"
    )
    + _service("traefik", "app.kubernetes.io/name: traefik", _WEB_PORTS, "type: LoadBalancer"),
}
