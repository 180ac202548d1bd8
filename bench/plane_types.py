"""Writes src/funoffshore/lab/kube/types.txt: what fields the built-in kinds have, as a real API server tells it.

    python -m bench.plane_types

Types, merge keys and defaults come from a running kube-apiserver's OpenAPI documents, the numbers of the fields in
protobuf and what is written when empty from the Go modules it was built from. Only names, numbers and marks are taken,
no texts.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import build, paths
from bench.plane import Plane
from funoffshore.lab.kube import kinds

TARGET = paths.project() / "src" / "funoffshore" / "lab" / "kube" / "types.txt"
SOURCES = (
    ("k8s.io/api", "*/*/types*.go"),
    ("k8s.io/apimachinery", "pkg/apis/meta/v1/types.go"),
    ("k8s.io/apiextensions-apiserver", "pkg/apis/apiextensions/v1/types*.go"),
    ("k8s.io/kube-aggregator", "pkg/apis/apiregistration/v1/types.go"),
)
"""Go modules and the files that define kinds."""
ASKED = (
    "policy/v1/Eviction", "autoscaling/v1/Scale", "authorization.k8s.io/v1/SelfSubjectAccessReview",
    "authentication.k8s.io/v1/SelfSubjectReview", "authentication.k8s.io/v1/TokenRequest", "v1/Binding",
)  # fmt: skip
"""Kinds that are sent to the API but never kept."""
ALSO = ("meta/v1.DeleteOptions",)
_PLAIN = {
    "meta/v1.Time": "t", "meta/v1.MicroTime": "T", "resource.Quantity": "q", "intstr.IntOrString": "x",
    "runtime.RawExtension": "r", "meta/v1.FieldsV1": "r", "apiextensions/v1.JSON": "j",
    "apiextensions/v1.JSONSchemaPropsOrArray": "j", "apiextensions/v1.JSONSchemaPropsOrBool": "j",
    "apiextensions/v1.JSONSchemaPropsOrStringArray": "j",
}  # fmt: skip
_SCALARS = {
    ("string", None): "s", ("string", "byte"): "y", ("integer", "int32"): "i", ("integer", "int64"): "l",
    ("number", "double"): "d", ("boolean", None): "b", ("object", None): "r", ("string", "date-time"): "t",
}  # fmt: skip
_LINE = re.compile(r"^\t(?:\w+ +)?(?P<type>[*\[\]\w.]+)\s+`(?P<tags>[^`]*)`", re.M)
Schema = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class GoField:
    """What only the Go source tells of a field."""

    number: str = ""
    """In protobuf; ``2.19`` within an embedded message."""
    pointer: bool = False
    empty: bool = False
    """Not ``omitempty``."""
    zero: bool = False
    """Not ``omitzero``, and not nil."""


def main() -> int:
    """Prints how many types there are now."""
    with tempfile.TemporaryDirectory() as folder, Plane(Path(folder) / "plane") as plane:
        text = render(plane)
    TARGET.write_text(text)
    print(f"{text.count(chr(10))} lines, {len(text) >> 10} KiB: {TARGET}")
    return 0


def render(plane: Plane) -> str:
    """The table of what ``plane`` serves."""
    schemas, roots = _openapi(plane)
    return "\n".join(_lines(schemas, roots, _structs())) + "\n"


def short(name: str) -> str:
    """``apps/v1.Deployment`` for ``io.k8s.api.apps.v1.Deployment`` and for its name in a .proto file."""
    parts = [part for part in name.strip(".").split(".") if part not in ("io", "k8s", "api", "pkg", "apis")]
    if parts[0] in ("apimachinery", "apiextensions-apiserver", "kube-aggregator"):
        parts = parts[1:]
    if parts[0] in ("util", "api"):
        parts = parts[1:]
    return f"{parts[-3]}/{parts[-2]}.{parts[-1]}" if len(parts) > 2 else ".".join(parts)


def _openapi(plane: Plane) -> tuple[dict[str, Schema], dict[str, str]]:
    """Every schema by its short name, and the schema of every kind by ``apps/v1/Deployment``."""
    schemas: dict[str, Schema] = {}
    roots: dict[str, str] = {}
    _, index = plane.call("GET", "/openapi/v3")
    for place in index["paths"].values():
        _, document = plane.call("GET", place["serverRelativeURL"])
        for name, schema in document.get("components", {}).get("schemas", {}).items():
            schemas[short(name)] = schema
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                group = f"{kind['group']}/" if kind["group"] else ""
                roots[f"{group}{kind['version']}/{kind['kind']}"] = short(name)
    return schemas, roots


def _structs() -> dict[str, dict[str, GoField]]:
    """The fields of every Go struct, by struct and JSON name; those of embedded structs among them."""
    own: dict[str, dict[str, GoField]] = {}
    embedded: dict[str, list[tuple[str, str]]] = {}
    kube = build.MODULES / "kube"
    for module, pattern in SOURCES:
        folder = Path(build.go(kube, "list", "-m", "-f", "{{.Dir}}", module).strip())
        for file in sorted(folder.glob(pattern)):
            place = "/".join(file.parent.parts[-2:])
            for struct in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", file.read_text(), re.M | re.S):
                name = f"{place}.{struct[1]}"
                own[name], embedded[name] = {}, []
                for line in _LINE.finditer(struct[2]):
                    _note(line, place, own[name], embedded[name])
    return {name: {**fields, **_inherited(name, own, embedded)} for name, fields in own.items()}


def _note(line: re.Match[str], place: str, own: dict[str, GoField], embedded: list[tuple[str, str]]) -> None:
    tags = dict(re.findall(r'(\w+):"([^"]*)"', line["tags"]))
    key, *options = tags.get("json", "").split(",")
    number = re.search(r",(\d+),", tags.get("protobuf", ""))
    type_ = line["type"]
    if key:
        pointer, empty = type_.startswith("*"), "omitempty" not in options
        own[key] = GoField(number[1] if number else "", pointer, empty, "omitzero" not in options and not pointer)
    elif "inline" in options and "TypeMeta" not in type_:
        embedded.append((number[1] if number else "", f"{place}.{type_}"))


def _inherited(name: str, own: dict[str, dict[str, GoField]], embedded: dict[str, list[tuple[str, str]]]) -> Any:
    found = {}
    for number, inner in embedded.get(name, ()):
        for key, field in {**own.get(inner, {}), **_inherited(inner, own, embedded)}.items():
            found[key] = dataclasses.replace(field, number=f"{number}.{field.number}" if number else "")
    return found


def _lines(schemas: dict[str, Schema], roots: dict[str, str], structs: dict[str, dict[str, GoField]]) -> Iterator[str]:
    """``=kind type`` for every kind that the lab serves, then each type that is reached, with its fields."""
    wanted = sorted({*(kind.key for kind in kinds.built_in()), *ASKED})
    for key in wanted:
        yield f"={key} {roots[key]}"
    waiting, done = [*(roots[key] for key in wanted), *ALSO], set[str]()
    lines = []
    while waiting:
        name = waiting.pop()
        if name in done or name in _PLAIN:
            continue
        done.add(name)
        schema, struct = schemas[name], structs.get(name, {})
        properties = schema.get("properties", {})
        fields = [_field(key, properties[key], schema, struct.get(key, GoField())) for key in sorted(properties)]
        mark = ";A" if schema.get("x-kubernetes-map-type") == "atomic" else ""
        lines.append(" ".join([name + mark, *fields]))
        waiting += [found for field in fields for found in re.findall(r"@([\w./-]+)", field)]
    yield from sorted(lines)


def _field(key: str, field: Schema, owner: Schema, go: GoField) -> str:
    """``name:number:type`` and marks, as the header of ``types.py`` explains them."""
    whole = {**field, **(field["allOf"][0] if "allOf" in field else {})}
    type_ = _type(whole)
    default = field.get("default")
    strategy = field.get("x-kubernetes-patch-strategy", "").split(",")
    marks = {
        "!": key in owner.get("required", ()),
        "n": go.pointer and type_ in "silbdy",
        "z": go.zero and type_ not in "qr" and (go.empty or type_[0] in "@tT"),
        f"m={','.join(field.get('x-kubernetes-list-map-keys', ()))}": field.get("x-kubernetes-list-type") == "map",
        "S": field.get("x-kubernetes-list-type") == "set",
        "A": field.get("x-kubernetes-map-type") == "atomic",
        f"p={field.get('x-kubernetes-patch-merge-key', '')}": "merge" in strategy,
        "R": "retainKeys" in strategy,
        f"d={default}": isinstance(default, str) and default != "",
    }
    return ";".join([f"{key}:{go.number}:{type_}", *(mark for mark, holds in marks.items() if holds)])


def _type(field: Schema) -> str:
    if "$ref" in field:
        name = short(field["$ref"].rpartition("/")[2])
        return _PLAIN.get(name, f"@{name}")
    if "allOf" in field:
        return _type(field["allOf"][0])
    if field.get("type") == "array":
        return f"[{_type(field['items'])}"
    if isinstance(inner := field.get("additionalProperties"), dict):
        return f"{{{_type(inner)}"
    return _SCALARS[field.get("type", "object"), field.get("format")]


if __name__ == "__main__":
    raise SystemExit(main())
