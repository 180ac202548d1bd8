"""Custom resource definitions as the lab installs them: right names, scopes and required fields, loose insides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"}


def loose(**properties: Schema) -> Schema:
    """An object with ``properties`` and whatever else."""
    schema: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return schema | ({"properties": properties} if properties else {})


def strict(required: tuple[str, ...], **properties: Schema) -> Schema:
    """An object that must have ``required``, and may have unknown fields besides."""
    return loose(**properties) | {"required": list(required)}


def choice(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def reference(*kinds: str) -> Schema:
    """A sourceRef that names one of ``kinds``."""
    return strict(("kind", "name"), kind=choice(*kinds), name=STRING, namespace=STRING)


@dataclass(frozen=True, slots=True)
class Crd:
    """One definition with one served version."""

    group: str
    kind: str
    plural: str
    version: str
    required: tuple[str, ...] = ()
    """Fields of ``spec`` that must be there."""
    fields: Mapping[str, Schema] = field(default_factory=dict)
    """Fields of ``spec`` whose schema matters."""
    scope: str = "Namespaced"
    status: bool = True
    short: tuple[str, ...] = ()
    unobserved: bool = False
    """Whether a new object starts with ``status.observedGeneration: -1``, as Flux's do."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.plural}.{self.group}"

    @property
    def api(self) -> str:
        """``group/version/kind``, as ``lab.kube.api`` names a kind."""
        return f"{self.group}/{self.version}/{self.kind}"


def definition(crd: Crd) -> dict[str, Any]:
    """The CustomResourceDefinition as JSON."""
    status: Schema = loose() | ({"default": {"observedGeneration": -1}} if crd.unobserved else {})
    properties: dict[str, Schema] = {
        "apiVersion": STRING,
        "kind": STRING,
        "metadata": {"type": "object"},
        "spec": strict(crd.required, **crd.fields) if crd.required else loose(**crd.fields),
        "status": status,
    }
    schema: Schema = {"type": "object", "properties": properties, "x-kubernetes-preserve-unknown-fields": True}
    if crd.required:
        schema["required"] = ["spec"]
    version: dict[str, Any] = {"name": crd.version, "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": schema}
    if crd.status:
        version["subresources"] = {"status": {}}
    names: dict[str, Any] = {
        "kind": crd.kind,
        "listKind": f"{crd.kind}List",
        "plural": crd.plural,
        "singular": crd.kind.lower(),
    }
    if crd.short:
        names["shortNames"] = list(crd.short)
    metadata: dict[str, Any] = {"name": crd.name}
    if crd.labels:
        metadata["labels"] = dict(crd.labels)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {"group": crd.group, "names": names, "scope": crd.scope, "versions": [version]},
    }
