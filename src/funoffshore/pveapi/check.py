"""Whether a request is one that Proxmox would take, in its own words where it would not.

Order and texts as in pve-common ``PVE/JSONSchema.pm`` (``check_object``, ``check_prop``,
``parse_property_string``) and as recorded from a real 8.4 API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from funoffshore.pveapi import formats
from funoffshore.pveapi.formats import FormatError
from funoffshore.pveapi.operations import table
from funoffshore.pveapi.schema import Operation, Parameter

UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
MISSING = "property is missing and it is not optional"


class UnknownOperationError(LookupError):
    """The table has no such method on such a path in that release."""


def find(release: str, method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation behind a concrete path (no ``/api2/json``, percent-decoded), and the path's parameters.

    Raises UnknownOperationError when the table does not have it.
    """
    node: dict[str, object] = _tree(release)
    words = [word for word in path.split("/") if word]
    values: list[str] = []
    for index, word in enumerate(words):
        if word in node:
            node = _branch(node[word])
        elif "{volume}" in node:
            values.append("/".join(words[index:]))
            node = _branch(node["{volume}"])
            break
        elif "{}" in node:
            values.append(word)
            node = _branch(node["{}"])
        else:
            raise UnknownOperationError(f"{method} {path}")
    found = node.get(f"\n{method}")
    if not isinstance(found, Operation):
        raise UnknownOperationError(f"{method} {path}")
    return found, dict(zip(re.findall(r"{(\w+)}", found.path), values, strict=True))


def below(release: str, path: str) -> list[str]:
    """The fixed names right below a concrete path, which is how the API answers a GET that is no operation."""
    node: dict[str, object] = _tree(release)
    for word in [word for word in path.split("/") if word]:
        branch = node.get(word, node.get("{}"))
        if branch is None:
            return []
        node = _branch(branch)
    return sorted(word for word in node if word.isidentifier() or "-" in word)


def check(release: str, method: str, path: str, parameters: Mapping[str, object]) -> dict[str, str]:
    """What Proxmox would say against each field; empty when it would take the request.

    ``parameters`` are those of query and body; those of ``path`` are added. A list stands for a repeated key.
    Raises UnknownOperationError as ``find`` does.
    """
    operation, from_path = find(release, method, path)
    return check_parameters(operation, {**parameters, **from_path})


def check_parameters(operation: Operation, parameters: Mapping[str, object]) -> dict[str, str]:
    """As ``check``, for an operation already found and all its parameters together."""
    errors: dict[str, str] = {}
    for name, parameter in operation.parameters.items():
        if not parameter.optional and not parameter.count and name not in parameters:
            errors[name] = MISSING
    for name, value in parameters.items():
        known = operation.parameter(name)
        if known is None:
            errors[name] = UNKNOWN
            continue
        if known.requires and known.requires not in parameters:
            errors[known.requires] = f"missing property - '{name}' requires this property"
        complaint = complaint_of(name, known, value)
        if complaint:
            errors[name] = complaint
    return errors


def complaint_of(name: str, parameter: Parameter, value: object) -> str:
    """What is wrong with one value; empty when nothing is."""
    if isinstance(value, list) and parameter.format.endswith("-list"):
        value = ",".join(str(part) for part in value)
    if parameter.type == "array" and not isinstance(value, dict):
        return ""  # a single value stands for a list of one
    if isinstance(value, list):
        return f"type check ('{parameter.type}') failed - got ARRAY"
    if isinstance(value, dict):
        return f"type check ('{parameter.type}') failed - got HASH"
    text = str(value)
    if parameter.type in _TYPES and not _TYPES[parameter.type].match(text):
        return f"type check ('{parameter.type}') failed - got '{text}'"
    try:
        if (parts := parts_of(parameter)) is not None:
            found = parse(parts, text, name)
            key, form = formats.WHOLE.get(parameter.format, ("", ""))
            if key in found:
                formats.verify(form, found[key])
        elif parameter.format:
            formats.verify(parameter.format, text)
    except FormatError as why:
        return f"invalid format - {why}"
    return _bounds(parameter, text)


def parts_of(parameter: Parameter) -> Mapping[str, Parameter] | None:
    """The keys of the property string that the parameter's value is, or None when it is none."""
    return parameter.parts if parameter.parts is not None else formats.PROPERTIES.get(parameter.format)


def parse(parts: Mapping[str, Parameter], text: str, name: str = "") -> dict[str, str]:
    """Key → value of a property string such as ``virtio=BC:24:11:00:00:01,bridge=vmbr0``; booleans become 0 or 1.

    Raises FormatError with Proxmox's text, errors inside named ``name.key``.
    """
    found: dict[str, str] = {}
    bare = False
    for part in text.split(","):
        if not part.strip():
            continue
        key, sign, value = part.partition("=")
        if sign and (not key or not value):
            raise FormatError("missing key in comma-separated list property\n")
        if sign:
            _put_pair(parts, found, key, value)
            continue
        default = next((k for k, p in parts.items() if p.default_key), None)
        if default is None:
            raise FormatError("value without key, but schema does not define a default key\n")
        if bare or default in found:
            raise FormatError(f"duplicate key in comma-separated list property: {default}\n")
        found[default] = part
        bare = True
    errors = _check_parts(parts, found, name)
    if errors:
        raise FormatError("format error\n" + "".join(f"{key}: {why}\n" for key, why in errors.items()))
    return found


def _put_pair(parts: Mapping[str, Parameter], found: dict[str, str], key: str, value: str) -> None:
    if key in found:
        raise FormatError(f"duplicate key in comma-separated list property: {key}\n")
    part = parts.get(key)
    if part is not None and part.alias:
        if part.key_alias:
            if part.key_alias in found:
                raise FormatError(f"key alias '{part.key_alias}' is already defined\n")
            found[part.key_alias] = key
        key = part.alias
        part = parts.get(key)
    if part is not None and part.type == "boolean":
        value = {"on": "1", "yes": "1", "true": "1", "off": "0", "no": "0", "false": "0"}.get(value.lower(), value)
    found[key] = value


def _check_parts(parts: Mapping[str, Parameter], found: Mapping[str, str], name: str) -> dict[str, str]:
    prefix = f"{name}." if name else ""
    errors: dict[str, str] = {}
    for key, part in parts.items():
        if key in found and not part.alias:
            complaint = complaint_of(f"{prefix}{key}", part, found[key])
            if complaint:
                errors[f"{prefix}{key}"] = complaint
        elif not part.optional:
            errors[f"{prefix}{key}"] = MISSING
    for key in found:
        if key not in parts:
            errors[f"{prefix}{key}"] = UNKNOWN
        elif parts[key].requires and parts[key].requires not in found:
            errors[f"{prefix}{parts[key].requires}"] = f"missing property - '{prefix}{key}' requires this property"
    return errors


def _bounds(parameter: Parameter, text: str) -> str:
    if parameter.pattern and not _compiled(parameter.pattern).match(text):
        return "value does not match the regex pattern"
    if parameter.max_length is not None and len(text) > parameter.max_length:
        return f"value may only be {parameter.max_length} characters long"
    if parameter.minimum is not None or parameter.maximum is not None:
        number = float(text)
        if parameter.maximum is not None and number > parameter.maximum:
            return f"value must have a maximum value of {parameter.maximum:.15g}"
        if parameter.minimum is not None and number < parameter.minimum:
            return f"value must have a minimum value of {parameter.minimum:.15g}"
    if parameter.enum and text not in parameter.enum:
        return f"value '{text}' does not have a value in the enumeration '{', '.join(parameter.enum)}'"
    return ""


_TYPES = {
    "integer": re.compile(r"[+-]?[0-9]+\Z"),
    "number": re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?\Z"),
    "boolean": re.compile(r"[01]\Z"),
}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # Perl prints a compiled pattern as (?^:…), which Python spells (?:…).
    return re.compile(f"(?:{pattern.replace('(?^:', '(?:')})\\Z", re.ASCII)


@cache
def _tree(release: str) -> dict[str, object]:
    root: dict[str, object] = {}
    for (method, path), operation in table(release).items():
        node = root
        for word in path.split("/")[1:]:
            key = "{}" if word.startswith("{") and word != "{volume}" else word
            node = _branch(node.setdefault(key, {}))
        node[f"\n{method}"] = operation
    return root


def _branch(value: object) -> dict[str, object]:
    assert isinstance(value, dict)  # noqa: S101 - the tree holds dicts below every path word
    return value
