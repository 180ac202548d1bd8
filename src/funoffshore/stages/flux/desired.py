"""The objects as they shall be. Pure; what is returned may hold secrets and is only ever handed to the cluster."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from funoffshore import errors, stage1
from funoffshore.config import ClusterConfig
from funoffshore.stages.flux.facts import GitKustomization, Object

NAMESPACE = "flux-system"
SOURCE = "flux-system"
SYNC = "cluster"
SETTINGS = "cluster-settings"
SECRETS = "cluster-secrets"
SOPS = "sops-age"
COMPONENTS = ("source-controller", "kustomize-controller", "helm-controller", "notification-controller")
"""Flux's default components; ``install.yaml`` holds more (fluxcd/flux2 ``manifests/install``)."""
_OPTIONAL = ("image-reflector-controller", "image-automation-controller", "source-watcher")
_OPTIONAL_GROUPS = ("image.toolkit.fluxcd.io", "source.extensions.fluxcd.io")
LABELS = {"app.kubernetes.io/managed-by": "fo"}
_USER = "git"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def settings(config: ClusterConfig) -> dict[str, str]:
    """Public values for substitution; a switch is exactly ``true`` or ``false``."""
    switches = {key: str(on).lower() for key, on in config.switches.items()}
    return {**config.settings, **switches}


def settings_map(config: ClusterConfig) -> Object:
    metadata = {"name": SETTINGS, "namespace": NAMESPACE, "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": settings(config)}


def secrets(config: ClusterConfig) -> dict[str, dict[str, str]]:
    """Every Secret that fo renders: ``namespace/name`` to its data in plain text."""
    found: dict[str, dict[str, str]] = {}
    rendered: set[str] = set()
    for entry in stage1.RENDERED_SECRETS:
        rendered |= set(entry.keys.values())
        if entry.switch is not None and not config.switches.get(entry.switch, False):
            continue
        values = {
            key: config.app_secrets[env].get_secret_value()
            for key, env in entry.keys.items()
            if env in config.app_secrets
        }
        if values:
            found[f"{entry.namespace}/{entry.name}"] = values | dict(entry.literals)
    substituted = {k: v.get_secret_value() for k, v in config.app_secrets.items() if k not in rendered}
    if substituted:
        found[f"{NAMESPACE}/{SECRETS}"] = substituted
    if config.sops_age_key is not None:
        found[f"{NAMESPACE}/{SOPS}"] = {"age.agekey": config.sops_age_key.get_secret_value() + "\n"}
    if access := _access(config):
        found[f"{NAMESPACE}/{SOURCE}"] = access
    return found


def _access(config: ClusterConfig) -> dict[str, str]:
    """How Flux gets in at the repository; empty where anyone may read it."""
    git = config.git
    if git.ssh_key is not None:
        return {"identity": git.ssh_key.get_secret_value().rstrip("\n") + "\n", "known_hosts": git.known_hosts}
    return {"username": _USER, "password": git.token.get_secret_value()} if git.token is not None else {}


def secret(place: str, values: Mapping[str, str]) -> Object:
    """The Secret at ``namespace/name``."""
    namespace, _, name = place.partition("/")
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    metadata = {"name": name, "namespace": namespace, "labels": LABELS}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}


def digest(data: Mapping[str, str]) -> str:
    """Of a Secret's ``data`` (base64 values): tells whether two are the same, and nothing else."""
    return hashlib.sha256(json.dumps(dict(data), sort_keys=True).encode()).hexdigest()


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def source(config: ClusterConfig) -> Object:
    """The GitRepository that Flux follows."""
    spec: Object = {
        "interval": "1m",
        "timeout": "60s",
        "url": config.git.url,
        "ref": {"branch": config.git.branch},
    }
    if _access(config):
        spec["secretRef"] = {"name": SOURCE}
    metadata = {"name": SOURCE, "namespace": NAMESPACE, "labels": LABELS}
    return {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata, "spec": spec}


def sync(config: ClusterConfig) -> Object:
    """The Kustomization that applies all others."""
    substitutes = [
        {"kind": "ConfigMap", "name": SETTINGS},
        {"kind": "Secret", "name": SECRETS, "optional": True},
    ]
    spec: Object = {
        "interval": "10m",
        "retryInterval": "1m",
        "timeout": "5m",
        "path": f"./{config.git.path.strip('/')}",
        "prune": True,
        "sourceRef": {"kind": "GitRepository", "name": SOURCE},
        "postBuild": {"substituteFrom": substitutes},
    }
    metadata = {"name": SYNC, "namespace": NAMESPACE, "labels": LABELS}
    api = "kustomize.toolkit.fluxcd.io/v1"
    return {"apiVersion": api, "kind": "Kustomization", "metadata": metadata, "spec": spec}


def covers(actual: Any, wanted: Any) -> bool:
    """Whether ``actual`` has everything that ``wanted`` says; more is fine in mappings, not in lists."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(covers(actual.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(actual, list) and len(actual) == len(wanted)
        return same and all(covers(a, w) for a, w in zip(actual, wanted, strict=True))
    return bool(actual == wanted)


def difference(actual: Object, wanted: Object, path: str = "spec") -> str:
    """The first field that is not as wanted, in words; both are ``spec``."""
    for key, value in wanted.items():
        if covers(actual.get(key), value):
            continue
        if isinstance(value, dict) and isinstance(actual.get(key), dict):
            return difference(actual[key], value, f"{path}.{key}")
        return f"{path}.{key} is {json.dumps(actual.get(key))}, not {json.dumps(value)}"
    return ""


def install(manifest: bytes) -> list[Object]:
    """Objects of ``install.yaml`` without the optional components. Raises DigestError for what is no such file."""
    try:
        documents = [d for d in yaml.load_all(manifest, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if d]
        return [d for d in documents if not _is_optional(d)]
    except (yaml.YAMLError, AttributeError, TypeError, KeyError) as why:
        raise errors.DigestError(
            "Flux's install manifest has the pinned digest and is no list of Kubernetes objects",
            fix="correct FLUX_INSTALL_URL and FLUX_INSTALL_SHA256",
        ) from why


def _is_optional(document: Object) -> bool:
    metadata = document["metadata"]
    component = (metadata.get("labels") or {}).get("app.kubernetes.io/component", "")
    if document["kind"] == "CustomResourceDefinition" and document["spec"]["group"] in _OPTIONAL_GROUPS:
        return True
    return component in _OPTIONAL or metadata["name"] in _OPTIONAL


def git_kustomizations(files: Mapping[str, bytes]) -> tuple[GitKustomization, ...]:
    """Flux Kustomizations in ``files``, sorted by name. A file that is no YAML holds none; Flux will say so."""
    found: dict[str, GitKustomization] = {}
    for name in sorted(files):
        if name.endswith((".yaml", ".yml")):
            for document in _documents(files[name]):
                if str(document.get("apiVersion", "")).startswith("kustomize.toolkit.fluxcd.io/"):
                    entry = _git_kustomization(document)
                    found[entry.name] = entry
    return tuple(found[name] for name in sorted(found))


def _documents(text: bytes) -> Iterable[Object]:
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError:
        return []
    return [
        d for d in documents if isinstance(d, dict) and isinstance(d.get("metadata"), dict) and "name" in d["metadata"]
    ]


def _git_kustomization(document: Object) -> GitKustomization:
    spec = document.get("spec") or {}
    own = str(document["metadata"].get("namespace") or NAMESPACE)
    depends = [str(d["name"]) for d in spec.get("dependsOn") or [] if (d.get("namespace") or own) == NAMESPACE]
    timeout = seconds(spec.get("timeout") or spec.get("interval") or "5m")
    return GitKustomization(str(document["metadata"]["name"]), tuple(depends), timeout)


def seconds(text: Any) -> float:
    """``1h2m3s`` in seconds."""
    total, number = 0.0, ""
    for char in str(text):
        if char in _UNITS and number:
            total, number = total + float(number) * _UNITS[char], ""
        else:
            number += char if char in "0123456789." else ""
    return total
