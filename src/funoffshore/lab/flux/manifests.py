"""From a Kustomization and the files of its source to the objects that are applied."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from funoffshore.lab.flux import decrypt, substitute
from funoffshore.lab.flux.applier import ApplyError, subject
from funoffshore.lab.flux.engine import Engine
from funoffshore.lab.flux.kustomize import BuildError, Object, Overlay, build
from funoffshore.lab.flux.kustomize.patches import matches

KSA = "kustomize.toolkit.fluxcd.io"


def render(engine: Engine, kustomization: Object, files: Mapping[str, bytes]) -> list[Object]:
    """What ``kustomization`` stands for, decrypted, substituted, labelled with its owner. Raises BuildError."""
    spec, metadata = kustomization["spec"], kustomization["metadata"]
    namespace = str(metadata["namespace"])
    known = _identities(engine, namespace, spec.get("decryption"))
    try:
        objects = build(files, spec.get("path") or "./", _overlay(spec))
    except BuildError as why:
        raise BuildError(f"kustomize build failed: {why}") from why
    found = []
    values = _values(engine, namespace, spec.get("postBuild"))
    for obj in objects:
        plain = decrypt.decrypt(obj, known) if spec.get("decryption") else obj
        if values is not None:
            plain = substitute.substitute(plain, values)
        _label(plain, spec.get("commonMetadata") or {}, metadata)
        found.append(plain)
    return found


def _overlay(spec: Object) -> Overlay:
    return Overlay(
        namespace=spec.get("targetNamespace") or "",
        name_prefix=spec.get("namePrefix") or "",
        name_suffix=spec.get("nameSuffix") or "",
        patches=tuple(spec.get("patches") or ()),
        images=tuple(spec.get("images") or ()),
        components=tuple(spec.get("components") or ()),
    )


def _identities(engine: Engine, namespace: str, decryption: Object | None) -> dict[str, str]:
    ref = (decryption or {}).get("secretRef")
    if not ref:
        return {}
    secret = engine.cluster.get("v1/Secret", namespace, ref["name"])
    if secret is None:
        raise BuildError(f'secrets "{ref["name"]}" not found')
    return decrypt.identities(secret)


def _values(engine: Engine, namespace: str, post_build: Object | None) -> dict[str, str] | None:
    """Variables, later sources over earlier ones and ``substitute`` over all; None when nothing is substituted."""
    if post_build is None:
        return None
    values: dict[str, str] = {}
    for ref in post_build.get("substituteFrom") or []:
        kind, name = ref["kind"], ref["name"]
        source = engine.cluster.get(f"v1/{kind}", namespace, name)
        if source is None:
            if ref.get("optional"):
                continue
            resource = {"Secret": "secrets", "ConfigMap": "configmaps"}[kind]
            raise BuildError(
                f"post build failed: substitute from '{kind}/{name}' error: {resource} \"{name}\" not found"
            )
        for key, value in (source.get("data") or {}).items():
            text = base64.b64decode(value).decode(errors="replace") if kind == "Secret" else value
            values[key] = text.replace("\n", "")
    return values | {k: str(v).replace("\n", "") for k, v in (post_build.get("substitute") or {}).items()}


def normalize(objects: list[Object]) -> None:
    """Gives Secrets and ConfigMaps the form that they have in the API, as fluxcd/pkg ``ssa/normalize`` does by its Go
    types. What has no place in those is lost on the way: a Secret with ``stringData`` is applied although it is still
    encrypted. Raises ApplyError for one whose ``data`` is no base64, which keeps its SOPS part.
    """
    for obj in objects:
        if obj["apiVersion"] != "v1" or obj["kind"] not in ("Secret", "ConfigMap"):
            continue
        if obj["kind"] == "Secret" and not all(map(_is_base64, (obj.get("data") or {}).values())):
            if "sops" in obj:
                raise ApplyError(
                    f"{subject(obj)} is SOPS encrypted, configuring decryption is required for this secret to be "
                    "reconciled"
                )
            continue
        obj.pop("sops", None)
        if obj.get("data"):
            obj["data"] = {k: "" if v is None else v for k, v in obj["data"].items()}
        if obj["kind"] == "Secret" and obj.get("stringData"):
            plain = {k: base64.b64encode(str(v).encode()).decode() for k, v in obj.pop("stringData").items()}
            obj["data"] = (obj.get("data") or {}) | plain


def _is_base64(value: object) -> bool:
    try:
        base64.b64decode(str(value or ""), validate=True)
    except ValueError:
        return False
    return True


def _label(obj: Object, common: Object, owner: Object) -> None:
    metadata = obj["metadata"]
    labels = {f"{KSA}/name": owner["name"], f"{KSA}/namespace": owner["namespace"]}
    metadata["labels"] = {**(metadata.get("labels") or {}), **(common.get("labels") or {}), **labels}
    if common.get("annotations"):
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **common["annotations"]}


def watched(obj: Object) -> bool:
    """Whether a ConfigMap or Secret asks that its users be reconciled when it changes."""
    return matches("reconcile.fluxcd.io/watch=Enabled", obj["metadata"].get("labels") or {})
