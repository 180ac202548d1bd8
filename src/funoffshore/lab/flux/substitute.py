"""Variable substitution after a build (fluxcd/pkg ``envsubst``, strict as in Flux 2.9)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from funoffshore.lab.flux.kustomize import BuildError, Object, load_all

_DISABLED = "kustomize.toolkit.fluxcd.io/substitute"
_PLAIN = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<how>:?[=-]|:)(?P<rest>.*))?", re.DOTALL)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def substitute(obj: Object, values: Mapping[str, str]) -> Object:
    """``obj`` with ``${VAR}`` replaced in its YAML text, so that what was a quoted word may become a number.

    ``${VAR:=default}`` and ``${VAR:-default}`` give a default, ``$${VAR}`` stands for ``${VAR}``. Raises BuildError
    for a variable without value or default, and for what is no variable at all.
    """
    metadata = obj["metadata"]
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    if marks.get(_DISABLED) == "disabled" or not _mentions(obj):
        return obj
    text = yaml.dump(obj, Dumper=_Dumper, sort_keys=False, width=1_000_000, allow_unicode=True)
    try:
        documents = load_all(expand(text, values), f"{obj['kind']}/{metadata['name']}")
    except BuildError as why:
        raise BuildError(f"post build failed for '{metadata['name']}': {why}") from why
    result: Object = documents[0]
    return result


def _mentions(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, dict):
        return any(_mentions(v) for v in value.values()) or any("${" in str(k) for k in value)
    return isinstance(value, list) and any(_mentions(v) for v in value)


def expand(text: str, values: Mapping[str, str]) -> str:
    """The substitution itself, on any text. Raises BuildError."""
    out: list[str] = []
    at = 0
    while True:
        start = text.find("${", at)
        if start < 0:
            return "".join([*out, text[at:]])
        if start > at and text[start - 1] == "$":
            out += [text[at : start - 1], "${"]
            at = start + 2
            continue
        end = _closing(text, start + 2)
        out += [text[at:start], _value(text[start + 2 : end], values)]
        at = end + 1


def _closing(text: str, start: int) -> int:
    depth, at = 1, start
    while at < len(text):
        if text.startswith("${", at):
            depth, at = depth + 1, at + 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    raise BuildError("variable substitution failed: missing closing brace")


def _value(inside: str, values: Mapping[str, str]) -> str:
    match = _PLAIN.fullmatch(inside)
    if match is None:
        raise BuildError(f"variable substitution failed: unable to parse variable name in ${{{inside}}}")
    name, how, rest = match["name"], match["how"] or "", match["rest"] or ""
    if how == ":":
        return _slice(values.get(name), name, rest)
    found = values.get(name)
    if found is not None and (found or not how.startswith(":")):
        return found
    if how:
        return expand(rest, values)
    raise BuildError(f'variable substitution failed: variable not set (strict mode): "{name}"')


def _slice(value: str | None, name: str, bounds: str) -> str:
    """``${VAR:start:length}``."""
    if value is None:
        raise BuildError(f'variable substitution failed: variable not set (strict mode): "{name}"')
    start, _, length = bounds.partition(":")
    try:
        begin = int(start)
        return value[begin : begin + int(length)] if length else value[begin:]
    except ValueError:
        raise BuildError(f"variable substitution failed: bad substitution ${{{name}:{bounds}}}") from None
