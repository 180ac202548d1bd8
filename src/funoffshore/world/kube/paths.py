"""From a kind to its path. Kinds of everyday are in a table; others are asked for once per client, never on disk.

The official client's discovery cache is a file in the temp directory named after the server's address, stale
after a cluster was rebuilt at the same address (kubernetes-client/python#1536), hence this.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_CLUSTER = {
    "v1": "Namespace=namespaces Node=nodes PersistentVolume=persistentvolumes",
    "rbac.authorization.k8s.io/v1": "ClusterRole=clusterroles ClusterRoleBinding=clusterrolebindings",
    "storage.k8s.io/v1": "StorageClass=storageclasses",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition=customresourcedefinitions",
    "scheduling.k8s.io/v1": "PriorityClass=priorityclasses",
    "cert-manager.io/v1": "ClusterIssuer=clusterissuers",
}
_NAMESPACED = {
    "v1": "Pod=pods Service=services Secret=secrets ConfigMap=configmaps ServiceAccount=serviceaccounts Event=events "
    "PersistentVolumeClaim=persistentvolumeclaims ResourceQuota=resourcequotas LimitRange=limitranges",
    "apps/v1": "Deployment=deployments StatefulSet=statefulsets DaemonSet=daemonsets ReplicaSet=replicasets",
    "batch/v1": "Job=jobs CronJob=cronjobs",
    "networking.k8s.io/v1": "Ingress=ingresses NetworkPolicy=networkpolicies",
    "rbac.authorization.k8s.io/v1": "Role=roles RoleBinding=rolebindings",
    "policy/v1": "PodDisruptionBudget=poddisruptionbudgets",
    "coordination.k8s.io/v1": "Lease=leases",
    "source.toolkit.fluxcd.io/v1": "GitRepository=gitrepositories OCIRepository=ocirepositories "
    "HelmRepository=helmrepositories HelmChart=helmcharts",
    "kustomize.toolkit.fluxcd.io/v1": "Kustomization=kustomizations",
    "helm.toolkit.fluxcd.io/v2": "HelmRelease=helmreleases",
    "cert-manager.io/v1": "Certificate=certificates Issuer=issuers",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind are found."""

    base: str
    """``/apis/apps/v1``."""
    plural: str
    namespaced: bool

    def path(self, namespace: str | None = None, name: str = "") -> str:
        """``namespace`` None: all namespaces. Names are quoted."""
        quoted = [urllib.parse.quote(part, safe=":") for part in (namespace or "", name)]
        inside = f"/namespaces/{quoted[0]}" if self.namespaced and namespace else ""
        return f"{self.base}{inside}/{self.plural}" + (f"/{quoted[1]}" if name else "")


def base(api_version: str) -> str:
    """``/api/v1`` or ``/apis/<group>/<version>``."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _table() -> dict[str, Resource]:
    found = {}
    for kinds, namespaced in ((_CLUSTER, False), (_NAMESPACED, True)):
        for api_version, text in kinds.items():
            for pair in text.split():
                kind, plural = pair.split("=")
                found[f"{api_version}/{kind}"] = Resource(base(api_version), plural, namespaced)
    return found


class Paths:
    """``ask`` gives the resource list at a path, or None when the cluster does not serve it."""

    def __init__(self, ask: Callable[[str], dict[str, Any] | None]) -> None:
        self._ask = ask
        self._known = _table()

    def find(self, kind: str) -> Resource | None:
        """``kind`` is ``apps/v1/Deployment``. None when the cluster does not serve it now. Raises what ``ask``
        raises."""
        known = self._known.get(kind)
        if known:
            return known
        api_version = kind.rpartition("/")[0]
        document = self._ask(base(api_version)) or {}
        for item in document.get("resources") or []:
            if isinstance(item, dict) and "/" not in str(item.get("name", "/")):
                place = Resource(base(api_version), str(item["name"]), bool(item.get("namespaced")))
                self._known[f"{api_version}/{item.get('kind')}"] = place
        return self._known.get(kind)
