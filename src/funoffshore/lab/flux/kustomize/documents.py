"""YAML as kustomize reads it, which is not YAML as PyYAML reads it: ``on`` is a word, ``1:30`` is text."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

Object = dict[str, Any]


class BuildError(Exception):
    """Why a folder cannot be built; the text names file and field, as kustomize's does."""


_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]  # the C loader's type is only known when it is there
    """Resolves scalars by the YAML 1.2 core schema plus Go's number forms, and refuses a key given twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- PyYAML's own shape

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.constructor.ConstructorError(
                        None, None, f'mapping key "{key.value}" already defined', key.start_mark
                    ) from ValueError(line)
                seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=True)
        return mapping


def _construct_int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    if re.fullmatch(r"[-+]?0[0-7]+", text):
        return int(text, 8)
    return int(text, 0)


def _construct_float(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _construct_map(loader: Any, node: Any) -> Iterator[dict[Hashable, Any]]:
    data: dict[Hashable, Any] = {}
    yield data
    data.update(loader.construct_mapping(node))


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(?:0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|(?:0|[1-9][0-9_]*))", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    for _char in _first:
        _Loader.yaml_implicit_resolvers.setdefault("" if _char == "\0" else _char, []).append(
            (f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"))
        )
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)


def load_all(data: bytes | str, name: str) -> list[Any]:
    """Every document that is not empty. Raises BuildError that names the file and the line."""
    try:
        return [document for document in yaml.load_all(data, Loader=_Loader) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as why:
        mark = getattr(why, "problem_mark", None)
        problem = getattr(why, "problem", None) or getattr(why, "reason", None) or str(why)
        where = f"line {mark.line + 1}: " if mark else ""
        raise BuildError(f"MalformedYAMLError: yaml: {where}{problem} in File: {name}") from why


def load_objects(data: bytes | str, name: str) -> list[Object]:
    """Kubernetes objects of a file, ``List`` kinds unpacked. Raises BuildError for anything else in it."""
    found: list[Object] = []
    for document in load_all(data, name):
        if not isinstance(document, dict):
            raise BuildError(f"missing metadata.name in object {{{document!r}}} in File: {name}")
        if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
            found.extend(document["items"])
        else:
            found.append(document)
    for obj in found:
        _check(obj, name)
    return found


def _check(obj: Object, name: str) -> None:
    metadata = obj.get("metadata")
    labelled = isinstance(metadata, dict) and isinstance(metadata.get("name"), str) and metadata["name"]
    for ok, what in ((obj.get("kind"), "kind"), (obj.get("apiVersion"), "apiVersion"), (labelled, "metadata.name")):
        if not ok:
            kind = obj.get("kind") or "?"
            raise BuildError(f"missing {what} in object {{{obj.get('apiVersion', '')}/{kind}}} in File: {name}")
