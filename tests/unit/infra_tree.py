"""Reads infra/k8s as Flux does: documents by file, substitution over text, strict YAML. Helps the test_infra files."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
TREE = REPOSITORY / "infra" / "k8s"
SHARED = Path(os.environ.get("FO_SHARED") or REPOSITORY.parent / "shared")

Document = dict[str, Any]


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, which YAML parsers otherwise let win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def documents(text: str) -> list[Document]:
    """Every document of a YAML text; raises yaml.YAMLError for duplicates and bad syntax."""
    return [d for d in yaml.load_all(text, Loader=StrictLoader) if d is not None]


@dataclass(frozen=True)
class Item:
    """One document and where it stands."""

    file: Path
    document: Document

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

    @property
    def group(self) -> str:
        return str(self.document["apiVersion"]).rpartition("/")[0]

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.document["metadata"].get("namespace", ""))

    @property
    def component(self) -> str:
        """First folder below infra/k8s."""
        return self.file.relative_to(TREE).parts[0]

    @property
    def is_local(self) -> bool:
        """A kustomization.yaml of kustomize itself, which never reaches the cluster."""
        return self.group == "kustomize.config.k8s.io"

    def __str__(self) -> str:
        return f"{self.file.relative_to(TREE)}:{self.kind}/{self.document.get('metadata', {}).get('name', '')}"


@functools.cache
def everything() -> tuple[Item, ...]:
    files = sorted(TREE.rglob("*.yaml"))
    return tuple(Item(f, d) for f in files for d in documents(f.read_text(encoding="utf-8")))


@functools.cache
def objects() -> tuple[Item, ...]:
    """What reaches the cluster."""
    return tuple(i for i in everything() if not i.is_local)


def of_kind(*kinds: str) -> list[Item]:
    return [i for i in objects() if i.kind in kinds]


@functools.cache
def flux_kustomizations() -> dict[str, Document]:
    return {i.name: i.document for i in objects() if i.group == "kustomize.toolkit.fluxcd.io"}


VARIABLE = re.compile(r"(\$*)\$\{([^}]*)\}")


def variables(text: str) -> set[str]:
    """Names that Flux would substitute; ``$${…}`` is an escape and not one of them."""
    return {m[2] for m in VARIABLE.finditer(text) if len(m[1]) % 2 == 0}


def substituted(document: Document, values: dict[str, str]) -> Document:
    """As kustomize-controller does it: over the document's text after it was written anew, so quotes are lost."""

    def replace(match: re.Match[str]) -> str:
        return match[0][1:] if len(match[1]) % 2 else match[1] + values[match[2]]

    [result] = documents(VARIABLE.sub(replace, yaml.safe_dump(document, width=10_000, allow_unicode=True)))
    return result


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value below ``value`` with its path, itself included."""
    yield path, value
    if isinstance(value, dict):
        for key, below in value.items():
            yield from walk(below, (*path, str(key)))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from walk(below, (*path, str(index)))


def shared(*parts: str) -> Path:
    """A file of the reference data; skips the test where it is not there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference data {'/'.join(parts)} is not at hand")
    return path


@functools.cache
def schema(path: Path) -> Document:
    loaded: Document = json.loads(path.read_text(encoding="utf-8"))
    return loaded
