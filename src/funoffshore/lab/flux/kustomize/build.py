"""Accumulates a folder: resources, generators, components, then everything a kustomization does to them."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from funoffshore.lab.flux.kustomize import generators, patches, references, transform
from funoffshore.lab.flux.kustomize.documents import BuildError, Object, load_all, load_objects
from funoffshore.lab.flux.kustomize.resource import Resource

FILE_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_LISTS = ("resources", "bases", "components", "patches", "patchesStrategicMerge", "patchesJson6902", "labels", "images",
          "replicas", "configMapGenerator", "secretGenerator", "configurations", "buildMetadata")  # fmt: skip
_OTHERS = ("apiVersion", "kind", "metadata", "namespace", "namePrefix", "nameSuffix", "commonLabels",
           "commonAnnotations", "generatorOptions", "sortOptions")  # fmt: skip
_UNSUPPORTED = ("vars", "replacements", "helmCharts", "helmGlobals", "helmChartInflationGenerator", "generators",
                "transformers", "validators", "crds", "openapi")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Overlay:
    """What Flux adds to the kustomization of the path it builds (``spec`` of its Kustomization)."""

    namespace: str = ""
    name_prefix: str = ""
    name_suffix: str = ""
    patches: tuple[Object, ...] = ()
    images: tuple[Object, ...] = ()
    components: tuple[str, ...] = ()


@dataclass(slots=True)
class _Build:
    files: Mapping[str, bytes]
    root: str
    """Where the real files would lie, for messages that quote a path."""
    references: references.Fields = field(default_factory=dict)
    entered: list[str] = field(default_factory=list)


def build(
    files: Mapping[str, bytes], path: str, overlay: Overlay | None = None, root: str = "/data/kustomization"
) -> list[Object]:
    """Objects of the folder ``path`` (``./apps``) of a repository's ``files`` (``apps/web.yaml`` → bytes).

    A folder without kustomization.yaml is taken whole, as Flux does it. Raises BuildError.
    """
    state = _Build(files, root.rstrip("/"))
    folder = _normal(path)
    if not _is_folder(files, folder):
        raise BuildError(f"{state.root}/{folder}: no such file or directory")
    try:
        resources = _accumulate(state, folder, [], overlay or Overlay())
    except (TypeError, AttributeError, KeyError, ValueError, UnicodeError) as why:
        where = state.entered[-1] if state.entered else folder
        raise BuildError(f"{where or '.'}: invalid Kustomization: a field has the wrong type: {why}") from why
    for resource in resources:
        if resource.hashed:
            resource.rename(name=f"{resource.name}-{generators.suffix(resource.obj)}")
    references.fix(resources, state.references)
    return [resource.obj for resource in resources]


def _normal(path: str) -> str:
    folder = posixpath.normpath(path.lstrip("/") or ".")
    return "" if folder == "." else folder


def _join(folder: str, path: str) -> str:
    joined = posixpath.normpath(posixpath.join(folder, path))
    if joined.startswith(("..", "/")):
        raise BuildError(f"security; file '{path}' is not in or below the repository")
    return "" if joined == "." else joined


def _is_folder(files: Mapping[str, bytes], folder: str) -> bool:
    return not folder or any(name.startswith(f"{folder}/") for name in files)


def _kustomization(state: _Build, folder: str) -> tuple[str, Object] | None:
    """Path and content of the folder's kustomization file."""
    found = [name for n in FILE_NAMES if (name := posixpath.join(folder, n)) in state.files]
    if len(found) > 1:
        raise BuildError(f"Found multiple kustomization files under: {folder or '.'}")
    if not found:
        return None
    documents = load_all(state.files[found[0]], found[0])
    content = documents[0] if documents else {}
    if not isinstance(content, dict) or len(documents) > 1:
        raise BuildError(f"{found[0]}: invalid Kustomization: it must be one mapping")
    if not content.keys() - {"apiVersion", "kind"}:
        raise BuildError("kustomization.yaml is empty")
    for name in content:
        if name in _UNSUPPORTED:
            raise BuildError(f"{found[0]}: field {name} is not supported in the lab")
        if name not in _LISTS and name not in _OTHERS:
            raise BuildError(f'{found[0]}: invalid Kustomization: json: unknown field "{name}"')
    for name in _LISTS:
        if content.get(name) is not None and not isinstance(content[name], list):
            raise BuildError(f"{found[0]}: invalid Kustomization: {name} must be a list")
    return found[0], content


def _generated(state: _Build, folder: str) -> Object:
    """The kustomization that Flux writes where there is none: every manifest below, folders with their own once."""
    skip: set[str] = set()
    entries: list[str] = []
    for name in sorted(state.files):
        if not name.startswith(f"{folder}/" if folder else "") or any(name.startswith(f"{s}/") for s in skip):
            continue
        inner = posixpath.dirname(name)
        while inner != folder and not any(posixpath.join(inner, n) in state.files for n in FILE_NAMES):
            inner = posixpath.dirname(inner)
        if inner != folder:
            skip.add(inner)
            entries.append(posixpath.relpath(inner, folder or "."))
        elif name.endswith((".yaml", ".yml")):
            entries.append(posixpath.relpath(name, folder or "."))
    return {"resources": entries}


def _accumulate(state: _Build, folder: str, inherited: list[Resource], overlay: Overlay) -> list[Resource]:
    """``inherited`` are the objects that a component works on; for any other folder it is empty."""
    if folder in state.entered:
        raise BuildError(f"cycle detected: candidate root '{folder}' contains visited root")
    state.entered.append(folder)
    where, content = _kustomization(state, folder) or (f"{folder}/kustomization.yaml", _generated(state, folder))
    _configure(state, folder, content)
    resources = list(inherited)
    for entry in [*(content.get("resources") or []), *(content.get("bases") or [])]:
        for resource in _accumulate_entry(state, folder, str(entry)):
            _append(resources, resource)
    _generate(state, folder, where, content, resources)
    for entry in [*(content.get("components") or []), *overlay.components]:
        component = _join(folder, str(entry))
        found = _kustomization(state, component)
        if found is None or found[1].get("kind") != "Component":
            raise BuildError(f"{where}: accumulating components: '{entry}' is no folder with a kind: Component")
        resources = _accumulate(state, component, resources, Overlay())
    _transform(state, folder, where, content, resources, overlay)
    state.entered.pop()
    return resources


def _configure(state: _Build, folder: str, content: Object) -> None:
    for path in content.get("configurations") or []:
        for document in load_all(_read(state, folder, str(path)), str(path)):
            for rule in document.get("nameReference") or []:
                for spec in rule.get("fieldSpecs") or []:
                    state.references.setdefault(rule["kind"], []).append((spec.get("kind", ""), spec["path"]))


def _accumulate_entry(state: _Build, folder: str, entry: str) -> list[Resource]:
    path = _join(folder, entry)
    if path in state.files:
        try:
            return [Resource(obj) for obj in load_objects(state.files[path], entry)]
        except BuildError as why:
            raise BuildError(f"accumulating resources: accumulating resources from '{entry}': {why}") from why
    real = f"{state.root}/{path}"
    if not _is_folder(state.files, path):
        raise BuildError(
            f"accumulating resources: accumulation err='accumulating resources from '{entry}': open {real}: no such "
            f"file or directory': must build at directory: not a valid directory: evalsymlink failure on '{real}' : "
            f"lstat {real}: no such file or directory"
        )
    if _kustomization(state, path) is None:
        raise BuildError(
            f"accumulating resources: accumulation err='accumulating resources from '{entry}': read {real}: is a "
            f"directory': unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in "
            f"directory '{real}'"
        )
    return _accumulate(state, path, [], Overlay())


def _append(resources: list[Resource], resource: Resource) -> None:
    if any(r.id == resource.id for r in resources):
        raise BuildError(f"may not add resource with an already registered id: {resource.id}")
    resources.append(resource)


def _read(state: _Build, folder: str, path: str) -> bytes:
    full = _join(folder, path)
    if full not in state.files:
        raise BuildError(f"evalsymlink failure on '{state.root}/{full}' : no such file or directory")
    return state.files[full]


def _generate(state: _Build, folder: str, where: str, content: Object, resources: list[Resource]) -> None:
    defaults = content.get("generatorOptions") or {}
    for kind in ("ConfigMap", "Secret"):
        for arguments in content.get(f"{kind[0].lower()}{kind[1:]}Generator") or []:
            made = generators.generate(kind, arguments, defaults, lambda path: _read(state, folder, path), where)
            behavior = arguments.get("behavior") or "create"
            if behavior == "create":
                _append(resources, made)
            else:
                _combine(resources, made, behavior, where)


def _combine(resources: list[Resource], made: Resource, behavior: str, where: str) -> None:
    old = [r for r in resources if r.kind == made.kind and r.was_called(made.name)]
    if behavior not in ("merge", "replace") or len(old) != 1:
        raise BuildError(f"{where}: id {made.id} does not exist; cannot merge or replace")
    for name in ("data", "binaryData"):
        kept = (old[0].obj.get(name) or {}) if behavior == "merge" else {}
        both = {**kept, **(made.obj.get(name) or {})}
        if both:
            old[0].obj[name] = both
        else:
            old[0].obj.pop(name, None)


def _transform(
    state: _Build, folder: str, where: str, content: Object, resources: list[Resource], overlay: Overlay
) -> None:
    """Order as in kustomize's ``configureBuiltinTransformers``."""

    def read(path: str) -> bytes:
        return _read(state, folder, path)

    for patch in [*_old_patches(content), *(content.get("patches") or []), *overlay.patches]:
        patches.apply(resources, patch, read, where)
    namespace = overlay.namespace or content.get("namespace")
    if namespace:
        transform.set_namespace(resources, str(namespace))
    prefix = overlay.name_prefix or content.get("namePrefix") or ""
    suffix = overlay.name_suffix or content.get("nameSuffix") or ""
    if prefix or suffix:
        transform.add_affixes(resources, str(prefix), str(suffix))
    if content.get("commonLabels"):
        transform.add_labels(resources, content["commonLabels"], selectors=True)
    for entry in content.get("labels") or []:
        selectors, templates = bool(entry.get("includeSelectors")), bool(entry.get("includeTemplates"))
        transform.add_labels(resources, entry.get("pairs") or {}, selectors=selectors, templates=templates)
    if content.get("commonAnnotations"):
        transform.add_annotations(resources, content["commonAnnotations"])
    for entry in content.get("replicas") or []:
        transform.set_replicas(resources, entry["name"], entry["count"], where)
    for image in [*(content.get("images") or []), *overlay.images]:
        transform.set_image(resources, image, where)


def _old_patches(content: Object) -> list[Any]:
    """Patches in the two deprecated fields, in the form of ``patches``."""
    found: list[Any] = []
    for entry in content.get("patchesStrategicMerge") or []:
        found.append({"patch": entry} if "\n" in str(entry) else {"path": entry})
    return found + [copy.deepcopy(entry) for entry in content.get("patchesJson6902") or []]
