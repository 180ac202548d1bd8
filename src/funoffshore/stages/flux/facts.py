"""What one look showed of Flux and of what it applies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from funoffshore.reading import Absent, Reading

Object = dict[str, Any]
Name = tuple[str, str]
"""Namespace and name."""

NAMESPACE = "flux-system"
CONTROLLERS = ("source-controller", "kustomize-controller", "helm-controller", "notification-controller")
"""The four default components of Flux (flux2 ``cmd/flux/install.go``)."""
SOURCE = "flux-system"
ROOT = "cluster"
SETTINGS = "cluster-settings"
GIT_REPOSITORY = "source.toolkit.fluxcd.io/v1/GitRepository"
KUSTOMIZATION = "kustomize.toolkit.fluxcd.io/v1/Kustomization"


@dataclass(frozen=True, slots=True)
class Controllers:
    """Flux's own Deployments."""

    missing: tuple[str, ...]
    waiting: tuple[str, ...]
    """Not available yet, with what they say."""
    version: str
    """Label ``app.kubernetes.io/version``, empty when they differ or are missing."""
    owner: str
    """Who manages Flux: empty for us, else a Kustomization's name or an operator's."""


@dataclass(frozen=True, slots=True)
class FluxFacts:
    """``unreadable`` is set when there is a cluster that cannot be looked at; then nothing else counts."""

    unreadable: str = ""
    commit: Reading[str] = field(default_factory=Absent)
    """The commit that Flux's branch is at."""
    wanted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Kustomizations that Git holds at that commit, each with the names that it depends on."""
    controllers: Controllers = Controllers(CONTROLLERS, (), "", "")
    settings: Mapping[str, str] | None = None
    """Data of the ConfigMap, None when it is absent."""
    secrets: Mapping[Name, str] = field(default_factory=dict)
    """Digest of each Secret's data that is there; values never leave the look."""
    source: Object | None = None
    kustomizations: Mapping[str, Object] = field(default_factory=dict)
    """Those in ``flux-system``, by name."""


def digest(data: Mapping[str, bytes]) -> str:
    """One hash over a Secret's data, for comparing without keeping values."""
    whole = hashlib.sha256()
    for key in sorted(data):
        for part in (key.encode(), data[key]):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def revision_of(obj: Object) -> str:
    """The Git commit that a source holds or a Kustomization has applied, empty for none (``main@sha1:<commit>``)."""
    status = obj.get("status") or {}
    text = str((status.get("artifact") or {}).get("revision") or status.get("lastAppliedRevision") or "")
    return text.rsplit(":", 1)[-1]
