"""An object on its way through a build, with the names it had before."""

from __future__ import annotations

from dataclasses import dataclass, field

from funoffshore.lab.flux.kustomize.documents import Object

CLUSTER_KINDS = frozenset(
    {
        "Namespace",
        "Node",
        "PersistentVolume",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "StorageClass",
        "CSIDriver",
        "CSINode",
        "PriorityClass",
        "IngressClass",
        "RuntimeClass",
        "VolumeAttachment",
        "APIService",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "CertificateSigningRequest",
        "FlowSchema",
        "PriorityLevelConfiguration",
        "VolumeAttributesClass",
        "ServiceCIDR",
        "IPAddress",
    }
)
"""Cluster-scoped kinds that kustomize knows from Kubernetes' own OpenAPI; it takes any other for namespaced."""


@dataclass(slots=True)
class Resource:
    """One object. ``names`` are all the (namespace, name) it had, oldest first, the present one last."""

    obj: Object
    hashed: bool = False
    """Whether its name gets a hash of its content when the build ends."""
    names: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.names:
            self.names.append((self.namespace, self.name))

    @property
    def kind(self) -> str:
        return str(self.obj["kind"])

    @property
    def group(self) -> str:
        group, _, version = str(self.obj["apiVersion"]).rpartition("/")
        return group if version else ""

    @property
    def version(self) -> str:
        return str(self.obj["apiVersion"]).rpartition("/")[2]

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"].get("namespace") or "")

    @property
    def namespaced(self) -> bool:
        return self.kind not in CLUSTER_KINDS

    @property
    def id(self) -> str:
        """As kustomize writes it: ``Deployment.v1.apps/web.default``."""
        space = self.namespace or ("[noNs]" if self.namespaced else "")
        tail = f".{space}" if space else ""
        return f"{self.kind}.{self.version}.{self.group or '[noGrp]'}/{self.name}{tail}"

    def rename(self, *, name: str | None = None, namespace: str | None = None) -> None:
        """Changes the object and remembers what it was called."""
        if name is not None:
            self.obj["metadata"]["name"] = name
        if namespace is not None:
            self.obj["metadata"]["namespace"] = namespace
        if self.names[-1] != (self.namespace, self.name):
            self.names.append((self.namespace, self.name))

    def was_called(self, name: str) -> bool:
        return any(name == old for _, old in self.names)
