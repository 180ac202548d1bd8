"""The objects that fo itself puts into the cluster for Flux. Pure: from the config, nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from funoffshore import stage1
from funoffshore.config import ClusterConfig
from funoffshore.stages.flux.facts import NAMESPACE, ROOT, SETTINGS, SOURCE, Name, Object

GIT_SECRET = "flux-git"  # noqa: S105 - the name of a Secret
AGE_SECRET = "sops-age"  # noqa: S105 - the name of a Secret
LABELS = {"app.kubernetes.io/managed-by": "funoffshore"}
SELECTOR = "app.kubernetes.io/managed-by=funoffshore"
"""Finds what carries ``LABELS``."""


def settings(config: ClusterConfig) -> dict[str, str]:
    """Data of the ConfigMap that Flux substitutes from: public values, and switches as ``true`` or ``false``."""
    switches = {key: "true" if on else "false" for key, on in config.switches.items()}
    return {**config.settings, **switches}


def secrets(config: ClusterConfig) -> dict[Name, dict[str, bytes]]:
    """Every Secret that fo renders, by namespace and name, with its data. A part that is off gets none."""
    found: dict[Name, dict[str, bytes]] = {}
    for secret in stage1.RENDERED_SECRETS:
        if secret.switch is not None and not config.switches.get(secret.switch, False):
            continue
        data = {key: value.encode() for key, value in secret.literals.items()}
        for key, env in secret.keys.items():
            if env in config.app_secrets:
                data[key] = config.app_secrets[env].get_secret_value().encode()
        found[secret.namespace, secret.name] = data
    if config.sops_age_key is not None:
        found[NAMESPACE, AGE_SECRET] = {"age.agekey": config.sops_age_key.get_secret_value().encode()}
    if git := _git_access(config):
        found[NAMESPACE, GIT_SECRET] = git
    return found


def _git_access(config: ClusterConfig) -> dict[str, bytes]:
    """What source-controller needs to read the repository (source-controller docs/spec/v1/gitrepositories.md)."""
    git = config.git
    if git.ssh_key is not None:
        return {"identity": git.ssh_key.get_secret_value().encode(), "known_hosts": git.known_hosts.encode()}
    if git.token is not None:
        return {"username": b"git", "password": git.token.get_secret_value().encode()}
    return {}


def secret(name: Name, data: Mapping[str, bytes]) -> Object:
    """The Secret as Kubernetes takes it."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    meta = {"namespace": name[0], "name": name[1], "labels": LABELS}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "data": encoded}


def config_map(config: ClusterConfig) -> Object:
    """The ConfigMap ``cluster-settings``."""
    meta = {"namespace": NAMESPACE, "name": SETTINGS, "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": settings(config)}


def source(config: ClusterConfig) -> Object:
    """The GitRepository that everything comes from."""
    spec: Object = {"interval": "1m", "url": config.git.url, "ref": {"branch": config.git.branch}}
    if _git_access(config):
        spec["secretRef"] = {"name": GIT_SECRET}
    return {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": {"namespace": NAMESPACE, "name": SOURCE},
        "spec": spec,
    }


def root(config: ClusterConfig) -> Object:
    """The Kustomization that applies the entry folder, and so all the others."""
    spec = {
        "interval": "10m",
        "retryInterval": "1m",
        "timeout": "5m",
        "path": f"./{config.git.path.strip('/')}",
        "prune": True,
        "sourceRef": {"kind": "GitRepository", "name": SOURCE},
        "postBuild": {"substituteFrom": [{"kind": "ConfigMap", "name": SETTINGS}]},
    }
    return {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"namespace": NAMESPACE, "name": ROOT},
        "spec": spec,
    }


def covers(seen: Object | None, wanted: Object) -> bool:
    """Whether everything that fo wants of an object's spec is there; defaults that the API added do not count."""
    return seen is not None and _within(wanted["spec"], seen.get("spec") or {})


def _within(wanted: object, seen: object) -> bool:
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(k in seen and _within(v, seen[k]) for k, v in wanted.items())
    if isinstance(wanted, list):
        return isinstance(seen, list) and len(seen) == len(wanted) and all(map(_within, wanted, seen))
    return wanted == seen
