"""What Flux's reconcilers in the lab share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from funoffshore.lab.base import Kit
from funoffshore.lab.flux import conditions
from funoffshore.lab.flux.fetch import Checkouts
from funoffshore.lab.flux.queue import Key, Queue
from funoffshore.lab.kube.api import Cluster, Object

NAMESPACE = "flux-system"
FINALIZER = "finalizers.fluxcd.io"
GIT = "source.toolkit.fluxcd.io/v1/GitRepository"
OCI = "source.toolkit.fluxcd.io/v1/OCIRepository"
HELM_REPOSITORY = "source.toolkit.fluxcd.io/v1/HelmRepository"
HELM_CHART = "source.toolkit.fluxcd.io/v1/HelmChart"
KUSTOMIZATION = "kustomize.toolkit.fluxcd.io/v1/Kustomization"
HELM_RELEASE = "helm.toolkit.fluxcd.io/v2/HelmRelease"
CRD = "apiextensions.k8s.io/v1/CustomResourceDefinition"

CONTROLLERS = {
    GIT: "source-controller",
    OCI: "source-controller",
    HELM_REPOSITORY: "source-controller",
    HELM_CHART: "source-controller",
    KUSTOMIZATION: "kustomize-controller",
    HELM_RELEASE: "helm-controller",
}
"""Kind to the Deployment in ``flux-system`` that must be available for anything to happen to it."""


def kind_of(obj: Object) -> str:
    """``apps/v1/Deployment``."""
    return f"{obj['apiVersion']}/{obj['kind']}"


def key_of(obj: Object) -> Key:
    return kind_of(obj), str(obj["metadata"].get("namespace") or ""), str(obj["metadata"]["name"])


def source_kind(name: str) -> str:
    """The kind of a ``sourceRef`` or ``chartRef`` as the cluster names it."""
    return f"source.toolkit.fluxcd.io/v1/{name}"


@dataclass(frozen=True)
class Engine:
    """Handed to every reconciler."""

    kit: Kit
    cluster: Cluster
    queue: Queue
    checkouts: Checkouts

    def now(self) -> float:
        """Unix time on the lab's clock."""
        return self.kit.clock.now()

    def get(self, key: Key) -> Object | None:
        return self.cluster.get(*key)

    def write(self, key: Key, change: Callable[[conditions.Status, Object], None]) -> None:
        """Lets ``change`` edit the status of the object as it is now."""

        def edit(obj: Object) -> Object:
            status = conditions.Status(obj, self.now())
            change(status, obj)
            return status.done()

        self.cluster.change_status(*key, edit)

    def finalize(self, obj: Object) -> None:
        """Puts Flux's finalizer on ``obj`` when it lacks it."""
        if FINALIZER in obj["metadata"].get("finalizers", []):
            return

        def edit(metadata: Object) -> None:
            if FINALIZER not in metadata.setdefault("finalizers", []):
                metadata["finalizers"].append(FINALIZER)

        self.cluster.change_metadata(*key_of(obj), edit)

    def release(self, key: Key) -> None:
        """Takes the finalizer away, which lets a deleted object go."""

        def edit(metadata: Object) -> None:
            metadata["finalizers"] = [f for f in metadata.get("finalizers", []) if f != FINALIZER]

        self.cluster.change_metadata(*key, edit)

    def scope(self, obj: Object) -> str | None:
        """``Cluster`` or ``Namespaced`` for the kind of a custom resource; None when no CRD defines it."""
        group = str(obj["apiVersion"]).partition("/")[0]
        for crd in self.cluster.list(CRD):
            if crd["spec"]["group"] == group and crd["spec"]["names"]["kind"] == obj["kind"]:
                return str(crd["spec"]["scope"])
        return None
