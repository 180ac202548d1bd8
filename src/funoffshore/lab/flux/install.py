"""Flux's install manifest as the lab offers it: the shape of the real one, and the same text for ever.

Components, names, labels, arguments and ports are those of the flux2 release (fluxcd/flux2 ``manifests/install``);
the schemas are looser than the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from funoffshore.lab.flux import crds
from funoffshore.lab.flux.crds import BOOLEAN, DURATION, STRING, Crd, choice, loose, reference, strict

NAMESPACE = "flux-system"
SOURCE = "source.toolkit.fluxcd.io"
KUSTOMIZE = "kustomize.toolkit.fluxcd.io"
HELM = "helm.toolkit.fluxcd.io"
NOTIFICATION = "notification.toolkit.fluxcd.io"
IMAGE = "image.toolkit.fluxcd.io"

COMPONENTS = {
    "source-controller": "v1.9.4",
    "kustomize-controller": "v1.9.4",
    "helm-controller": "v1.6.3",
    "notification-controller": "v1.9.3",
    "image-reflector-controller": "v1.2.4",
    "image-automation-controller": "v1.2.4",
    "source-watcher": "v2.2.3",
}
"""Component to image tag, in the order of the manifest; those of flux2 v2.9.4."""

_LIST: crds.Schema = {"type": "array", "items": loose()}
_OBJECT = {"interval": DURATION, "timeout": DURATION, "suspend": BOOLEAN}
_CRDS: dict[str, tuple[Crd, ...]] = {
    "source-controller": (
        Crd(SOURCE, "Bucket", "buckets", "v1", ("bucketName", "endpoint", "interval"), _OBJECT),
        Crd(SOURCE, "ExternalArtifact", "externalartifacts", "v1", short=("ea",)),
        Crd(
            SOURCE, "GitRepository", "gitrepositories", "v1", ("interval", "url"), short=("gitrepo",),
            fields=_OBJECT
            | {
                "url": {"type": "string", "pattern": "^(http|https|ssh)://.*$"},
                "ref": loose(branch=STRING, tag=STRING, semver=STRING, name=STRING, commit=STRING),
                "secretRef": strict(("name",), name=STRING),
                "timeout": DURATION | {"default": "60s"},
                "include": _LIST,
            },
        ),
        Crd(
            SOURCE, "HelmChart", "helmcharts", "v1", ("chart", "interval", "sourceRef"), short=("hc",),
            fields=_OBJECT
            | {
                "chart": STRING,
                "sourceRef": reference("HelmRepository", "GitRepository", "Bucket"),
                "reconcileStrategy": choice("ChartVersion", "Revision") | {"default": "ChartVersion"},
                "version": STRING | {"default": "*"},
            },
        ),
        Crd(
            SOURCE, "HelmRepository", "helmrepositories", "v1", ("url",), short=("helmrepo",),
            fields=_OBJECT
            | {"url": {"type": "string", "pattern": "^(http|https|oci)://.*$"}, "type": choice("default", "oci")},
        ),
        Crd(
            SOURCE, "OCIRepository", "ocirepositories", "v1", ("interval", "url"), short=("ocirepo",),
            fields=_OBJECT
            | {
                "url": {"type": "string", "pattern": "^oci://.*$"},
                "ref": loose(tag=STRING, semver=STRING, digest=STRING),
                "timeout": DURATION | {"default": "60s"},
                "layerSelector": loose(mediaType=STRING, operation=choice("extract", "copy")),
            },
        ),
    ),
    "kustomize-controller": (
        Crd(
            KUSTOMIZE, "Kustomization", "kustomizations", "v1", ("interval", "prune", "sourceRef"), short=("ks",),
            fields=_OBJECT
            | {
                "sourceRef": reference("OCIRepository", "GitRepository", "Bucket", "ExternalArtifact"),
                "path": STRING,
                "prune": BOOLEAN,
                "wait": BOOLEAN,
                "force": BOOLEAN | {"default": False},
                "retryInterval": DURATION,
                "targetNamespace": {"type": "string", "minLength": 1, "maxLength": 63},
                "dependsOn": {"type": "array", "items": strict(("name",), name=STRING, namespace=STRING)},
                "patches": {"type": "array", "items": strict(("patch",), patch=STRING, target=loose())},
                "postBuild": loose(
                    substitute={"type": "object", "additionalProperties": STRING},
                    substituteFrom={
                        "type": "array",
                        "items": strict(
                            ("kind", "name"), kind=choice("Secret", "ConfigMap"), name=STRING,
                            optional=BOOLEAN | {"default": False},
                        ),
                    },
                ),
                "decryption": strict(("provider",), provider=choice("sops"), secretRef=loose(name=STRING)),
                "healthChecks": {"type": "array", "items": strict(("kind", "name"), kind=STRING, name=STRING)},
            },
        ),
    ),
    "helm-controller": (
        Crd(
            HELM, "HelmRelease", "helmreleases", "v2", ("interval",), short=("hr",),
            fields=_OBJECT
            | {
                "chart": strict(("spec",), spec=strict(("chart", "sourceRef"), chart=STRING, version=STRING)),
                "chartRef": reference("OCIRepository", "HelmChart", "ExternalArtifact"),
                "releaseName": {"type": "string", "minLength": 1, "maxLength": 53},
                "targetNamespace": {"type": "string", "minLength": 1, "maxLength": 63},
                "dependsOn": {"type": "array", "items": strict(("name",), name=STRING, namespace=STRING)},
                "values": loose(),
                "valuesFrom": {
                    "type": "array",
                    "items": strict(("kind", "name"), kind=choice("Secret", "ConfigMap"), name=STRING),
                },
            },
        ),
    ),
    "notification-controller": (
        Crd(NOTIFICATION, "Alert", "alerts", "v1beta3", ("eventSources", "providerRef"), status=False),
        Crd(NOTIFICATION, "Provider", "providers", "v1beta3", ("type",), {"type": STRING}, status=False),
        Crd(NOTIFICATION, "Receiver", "receivers", "v1", ("resources", "type"), {"type": STRING}),
    ),
    "image-reflector-controller": (
        Crd(IMAGE, "ImagePolicy", "imagepolicies", "v1", ("imageRepositoryRef", "policy"), short=("imgpol",)),
        Crd(IMAGE, "ImageRepository", "imagerepositories", "v1", ("image", "interval"), short=("imgrepo",)),
    ),
    "image-automation-controller": (
        Crd(IMAGE, "ImageUpdateAutomation", "imageupdateautomations", "v1", ("interval", "sourceRef"), short=("iua",)),
    ),
    "source-watcher": (
        Crd("source.extensions.fluxcd.io", "ArtifactGenerator", "artifactgenerators", "v1beta1",
            ("artifacts", "sources"), short=("ag",)),
    ),
}  # fmt: skip
_SERVICES = {
    "notification-controller": (("notification-controller", "http"), ("webhook-receiver", "http-webhook")),
    "source-controller": (("source-controller", "http"),),
    "source-watcher": (("source-watcher", "http"),),
}
_EMPTY_EVENTS_ADDRESS = ("notification-controller",)


def install_manifest(version: str) -> str:
    """``install.yaml`` of ``version`` (``v2.9.4``): YAML documents, each written as JSON, which is YAML too.

    As in the published file, no label tells the release: flux2's release workflow makes it with plain kustomize.
    """
    documents = "".join(f"---\n{json.dumps(document, indent=2)}\n" for document in _documents())
    return f"# Flux {version}, as the lab has it\n{documents}"


def _documents() -> Iterator[dict[str, Any]]:
    yield _object("v1", "Namespace", NAMESPACE)
    yield from _policies()
    yield from _cluster_roles()
    for component in COMPONENTS:
        labels = _labels(component)
        for crd in _CRDS[component]:
            document = crds.definition(crd)
            document["metadata"]["labels"] = labels
            if crd.status:
                schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                schema["properties"]["status"]["default"] = {"observedGeneration": -1}
            yield document
        yield _object("v1", "ServiceAccount", component, component)
        for name, port in _SERVICES.get(component, ()):
            yield _service(name, component, port)
        yield _deployment(component)


def _labels(component: str = "") -> dict[str, str]:
    labels = {"app.kubernetes.io/instance": NAMESPACE, "app.kubernetes.io/part-of": "flux"}
    return ({"app.kubernetes.io/component": component} if component else {}) | labels


def _object(api: str, kind: str, name: str, component: str = "", **rest: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": _labels(component)}
    if kind == "Namespace":
        metadata["labels"]["pod-security.kubernetes.io/warn"] = "restricted"
        metadata["labels"]["pod-security.kubernetes.io/warn-version"] = "latest"
    elif not kind.startswith("Cluster"):
        metadata["namespace"] = NAMESPACE
    if name in ("flux-edit", "flux-view"):
        roles = ("admin", "edit") if name == "flux-edit" else ("admin", "edit", "view")
        metadata["labels"] |= {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in roles}
    if kind in ("Deployment", "Service"):
        metadata["labels"]["control-plane"] = "controller"
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def _policies() -> Iterator[dict[str, Any]]:
    anyone: dict[str, Any] = {"podSelector": {}}
    egress = {**anyone, "egress": [{}], "ingress": [{"from": [{"podSelector": {}}]}]}
    yield _policy("allow-egress", egress | {"policyTypes": ["Ingress", "Egress"]})
    scraping = {**anyone, "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 8080}]}]}
    yield _policy("allow-scraping", scraping | {"policyTypes": ["Ingress"]})
    hooks = {"podSelector": {"matchLabels": {"app": "notification-controller"}}}
    yield _policy("allow-webhooks", hooks | {"ingress": [{"from": [{"namespaceSelector": {}}]}]})
    quota = {
        "hard": {"pods": "1000"},
        "scopeSelector": {
            "matchExpressions": [
                {
                    "operator": "In",
                    "scopeName": "PriorityClass",
                    "values": ["system-node-critical", "system-cluster-critical"],
                }
            ]
        },
    }
    yield _object("v1", "ResourceQuota", "critical-pods", spec=quota)


def _policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def _cluster_roles() -> Iterator[dict[str, Any]]:
    groups = sorted({crd.group for group in _CRDS.values() for crd in group})
    rules = [{"apiGroups": [group], "resources": ["*"], "verbs": ["*"]} for group in groups]
    rbac = "rbac.authorization.k8s.io/v1"
    yield _object(rbac, "ClusterRole", "crd-controller", rules=rules)
    edit = [{"apiGroups": groups, "resources": ["*"], "verbs": ["create", "delete", "patch", "update"]}]
    yield _object(rbac, "ClusterRole", "flux-edit", rules=edit)
    view = [{"apiGroups": groups, "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    yield _object(rbac, "ClusterRole", "flux-view", rules=view)
    appliers = ("kustomize-controller", "helm-controller")
    for name, role, accounts in (
        ("cluster-reconciler", "cluster-admin", appliers),
        ("crd-controller", "crd-controller", tuple(COMPONENTS)),
    ):
        yield _object(
            rbac, "ClusterRoleBinding", name,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            subjects=[{"kind": "ServiceAccount", "name": a, "namespace": NAMESPACE} for a in accounts],
        )  # fmt: skip


def _service(name: str, component: str, port: str) -> dict[str, Any]:
    spec = {
        "type": "ClusterIP",
        "selector": {"app": component},
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": port}],
    }
    return _object("v1", "Service", name, component, spec=spec)


def _deployment(component: str) -> dict[str, Any]:
    events = "--events-addr=http://notification-controller.flux-system.svc.cluster.local./"
    arguments = [] if component in _EMPTY_EVENTS_ADDRESS else [events]
    arguments += ["--watch-all-namespaces", "--log-level=info", "--log-encoding=json", "--enable-leader-election"]
    container = {
        "name": "manager",
        "image": f"ghcr.io/fluxcd/{component}:{COMPONENTS[component]}",
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "env": [{"name": "RUNTIME_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
        "ports": [
            {"containerPort": 8080, "name": "http-prom", "protocol": "TCP"},
            {"containerPort": 9440, "name": "healthz", "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "healthz"}},
        "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod = {
        "containers": [container],
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": component,
        "terminationGracePeriodSeconds": 10,
    }
    scraped = {"prometheus.io/port": "8080", "prometheus.io/scrape": "true"}
    template = {"metadata": {"annotations": scraped, "labels": {"app": component} | _labels(component)}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": component}}, "template": template}
    return _object("apps/v1", "Deployment", component, component, spec=spec)
