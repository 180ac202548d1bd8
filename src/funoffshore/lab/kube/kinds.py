"""The kinds that a cluster serves: those every Kubernetes has, and those that CRDs add.

Names, scopes, plurals and short names are those of the Kubernetes API reference (v1.36).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from funoffshore.lab.kube.api import ApiError, Object


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version."""

    group: str
    """Empty for the core group."""
    version: str
    name: str
    """``Deployment``."""
    plural: str
    namespaced: bool
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    """Whether ``status`` is a subresource of its own."""
    scale: bool = False
    generation: bool = False
    """Whether the API counts changes of ``spec`` in ``metadata.generation``."""
    crd: str = ""
    """Name of the CRD that defines it, empty for built-in kinds."""
    storage: str = ""
    """Version in which objects are stored; the same as ``version`` unless a CRD has several."""
    schema: dict[str, Any] | None = field(default=None, compare=False)
    """``openAPIV3Schema`` of a CRD's version."""
    columns: tuple[dict[str, Any], ...] = field(default=(), compare=False)
    """``additionalPrinterColumns`` of a CRD's version."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> str:
        """``apps/v1/Deployment``, as the parts of the lab name it."""
        return f"{self.api_version}/{self.name}"

    @property
    def resource(self) -> str:
        """``deployments.apps``, as messages of the API name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """``Deployment.apps``, as messages of the API name the kind."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def bucket(self) -> str:
        """Where its objects are kept, the same for all versions: ``Deployment.apps``."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def singular(self) -> str:
        return self.name.lower()


_BUILT_IN = """
v1 Namespace namespaces cluster ns - status
v1 Node nodes cluster no - status
v1 Pod pods namespaced po all status,generation
v1 Service services namespaced svc all status
v1 Secret secrets namespaced - - -
v1 ConfigMap configmaps namespaced cm - -
v1 ServiceAccount serviceaccounts namespaced sa - -
v1 PersistentVolumeClaim persistentvolumeclaims namespaced pvc - status
v1 PersistentVolume persistentvolumes cluster pv - status
v1 Event events namespaced ev - -
v1 Endpoints endpoints namespaced ep - -
v1 LimitRange limitranges namespaced limits - -
v1 ResourceQuota resourcequotas namespaced quota - status
v1 ReplicationController replicationcontrollers namespaced rc all status,scale,generation
v1 PodTemplate podtemplates namespaced - - -
apps/v1 Deployment deployments namespaced deploy all status,scale,generation
apps/v1 ReplicaSet replicasets namespaced rs all status,scale,generation
apps/v1 StatefulSet statefulsets namespaced sts all status,scale,generation
apps/v1 DaemonSet daemonsets namespaced ds all status,generation
apps/v1 ControllerRevision controllerrevisions namespaced - - -
batch/v1 Job jobs namespaced - all status,generation
batch/v1 CronJob cronjobs namespaced cj all status,generation
networking.k8s.io/v1 Ingress ingresses namespaced ing - status,generation
networking.k8s.io/v1 IngressClass ingressclasses cluster - - generation
networking.k8s.io/v1 NetworkPolicy networkpolicies namespaced netpol - generation
networking.k8s.io/v1 ServiceCIDR servicecidrs cluster - - status
rbac.authorization.k8s.io/v1 Role roles namespaced - - -
rbac.authorization.k8s.io/v1 RoleBinding rolebindings namespaced - - -
rbac.authorization.k8s.io/v1 ClusterRole clusterroles cluster - - -
rbac.authorization.k8s.io/v1 ClusterRoleBinding clusterrolebindings cluster - - -
policy/v1 PodDisruptionBudget poddisruptionbudgets namespaced pdb - status,generation
storage.k8s.io/v1 StorageClass storageclasses cluster sc - -
storage.k8s.io/v1 CSIDriver csidrivers cluster - - -
storage.k8s.io/v1 CSINode csinodes cluster - - -
storage.k8s.io/v1 VolumeAttachment volumeattachments cluster - - status
apiextensions.k8s.io/v1 CustomResourceDefinition customresourcedefinitions cluster crd,crds api-extensions status,generation
coordination.k8s.io/v1 Lease leases namespaced - - -
discovery.k8s.io/v1 EndpointSlice endpointslices namespaced - - generation
scheduling.k8s.io/v1 PriorityClass priorityclasses cluster pc - generation
apiregistration.k8s.io/v1 APIService apiservices cluster - api-extensions status
admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration validatingwebhookconfigurations cluster - api-extensions generation
admissionregistration.k8s.io/v1 MutatingWebhookConfiguration mutatingwebhookconfigurations cluster - api-extensions generation
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy validatingadmissionpolicies cluster - api-extensions status,generation
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding validatingadmissionpolicybindings cluster - api-extensions generation
autoscaling/v2 HorizontalPodAutoscaler horizontalpodautoscalers namespaced hpa all status
node.k8s.io/v1 RuntimeClass runtimeclasses cluster - - -
events.k8s.io/v1 Event events namespaced ev - -
"""  # noqa: E501 - one kind per line reads as a table


def _split(field_: str) -> tuple[str, ...]:
    return () if field_ == "-" else tuple(field_.split(","))


def built_in() -> Iterator[Kind]:
    """The kinds that are there without any CRD."""
    for line in _BUILT_IN.strip().splitlines():
        api_version, name, plural, scope, short, categories, traits = line.split()
        group, _, version = api_version.rpartition("/")
        yield Kind(
            group=group, version=version, name=name, plural=plural, namespaced=scope == "namespaced",
            short=_split(short), categories=_split(categories), status="status" in traits,
            scale="scale" in traits, generation="generation" in traits, storage=version,
        )  # fmt: skip


def of_crd(crd: Object) -> list[Kind]:
    """The kinds that an accepted CRD serves, one per served version; for an incomplete CRD, none."""
    spec = crd.get("spec") or {}
    names = spec.get("names") or {}
    versions = [v for v in spec.get("versions") or [] if isinstance(v, dict) and v.get("served")]
    if not (spec.get("group") and names.get("kind") and names.get("plural")):
        return []
    storage = next((v["name"] for v in spec["versions"] if v.get("storage")), versions[0]["name"] if versions else "")
    return [
        Kind(
            group=spec["group"], version=version["name"], name=names["kind"], plural=names["plural"],
            namespaced=spec.get("scope") != "Cluster", short=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()), generation=True, crd=crd["metadata"]["name"],
            status="status" in (version.get("subresources") or {}), storage=storage,
            scale="scale" in (version.get("subresources") or {}),
            schema=(version.get("schema") or {}).get("openAPIV3Schema"),
            columns=tuple(c for c in version.get("additionalPrinterColumns") or () if isinstance(c, dict)),
        )
        for version in versions
    ]  # fmt: skip


class Kinds:
    """What the cluster knows right now. Read without a lock: every change replaces the tables."""

    def __init__(self) -> None:
        self._by_key: dict[str, Kind] = {}
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self._fill(list(built_in()))

    def _fill(self, kinds: list[Kind]) -> None:
        self._by_path = {(k.group, k.version, k.plural): k for k in kinds}
        self._by_key = {k.key: k for k in kinds}

    def all(self) -> list[Kind]:
        return list(self._by_key.values())

    def find(self, key: str) -> Kind | None:
        return self._by_key.get(key)

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def get(self, key: str) -> Kind:
        """Raises ApiError 404 as the API server does for a path that it does not serve."""
        kind = self._by_key.get(key)
        if kind is None:
            raise ApiError(404, "NotFound", f'no matches for kind "{key.rpartition("/")[2]}" in version '
                           f'"{key.rpartition("/")[0]}"')  # fmt: skip
        return kind

    def add(self, crd: Object) -> None:
        """Serves what ``crd`` defines, instead of what it defined before."""
        name = crd["metadata"]["name"]
        self._fill([k for k in self.all() if k.crd != name] + of_crd(crd))

    def drop(self, crd: str) -> None:
        self._fill([k for k in self.all() if k.crd != crd])
