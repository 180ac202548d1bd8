"""ConfigMaps and Secrets made from files and literals, and the hash that ends their names."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
from collections.abc import Callable
from typing import Any

from funoffshore.lab.flux.kustomize.documents import BuildError, Object
from funoffshore.lab.flux.kustomize.resource import Resource

_FIELDS = frozenset(
    {"name", "namespace", "behavior", "files", "literals", "env", "envs", "options", "type", "disableNameSuffixHash"}
)
Read = Callable[[str], bytes]
"""Reads a file by its path relative to the kustomization; raises BuildError."""


def generate(kind: str, arguments: Object, defaults: Object, read: Read, where: str) -> Resource:
    """The ConfigMap or Secret that one entry of ``configMapGenerator`` or ``secretGenerator`` describes."""
    for unknown in arguments.keys() - _FIELDS:
        raise BuildError(f'{where}: invalid Kustomization: json: unknown field "{unknown}"')
    options = {**defaults, **(arguments.get("options") or {})}
    for name in ("labels", "annotations"):
        options[name] = {**(defaults.get(name) or {}), **((arguments.get("options") or {}).get(name) or {})}
    data: dict[str, bytes] = {}
    for key, value in _pairs(arguments, read, where):
        if key in data:
            raise BuildError(f"{where}: cannot add key {key} to {kind} {arguments.get('name')}: it exists already")
        data[key] = value
    metadata: Object = {"name": str(arguments.get("name", ""))}
    if not metadata["name"]:
        raise BuildError(f"{where}: a generator needs a name")
    if arguments.get("namespace"):
        metadata["namespace"] = arguments["namespace"]
    metadata |= {name: options[name] for name in ("labels", "annotations") if options[name]}
    obj: Object = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    obj |= _secret_data(data, arguments) if kind == "Secret" else _config_data(data)
    if options.get("immutable"):
        obj["immutable"] = True
    return Resource(obj, hashed=not options.get("disableNameSuffixHash", False))


def _config_data(data: dict[str, bytes]) -> Object:
    texts: dict[str, str] = {}
    binaries: dict[str, str] = {}
    for key, value in data.items():
        try:
            texts[key] = value.decode()
        except UnicodeDecodeError:
            binaries[key] = base64.b64encode(value).decode()
    return ({"data": texts} if texts else {}) | ({"binaryData": binaries} if binaries else {})


def _secret_data(data: dict[str, bytes], arguments: Object) -> Object:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"type": arguments.get("type") or "Opaque"} | ({"data": encoded} if encoded else {})


def _pairs(arguments: Object, read: Read, where: str) -> list[tuple[str, bytes]]:
    pairs: list[tuple[str, bytes]] = []
    single = arguments.get("env")
    for path in [*(arguments.get("envs") or []), *([single] if single else [])]:
        for line in read(path).decode().splitlines():
            text = line.strip()
            if text and not text.startswith("#"):
                key, _, value = text.partition("=")
                pairs.append((key, value.encode()))
    for entry in arguments.get("files") or []:
        key, is_named, path = str(entry).partition("=")
        pairs.append((key, read(path)) if is_named else (posixpath.basename(key), read(key)))
    for literal in arguments.get("literals") or []:
        key, has_value, value = str(literal).partition("=")
        if not has_value:
            raise BuildError(f"{where}: invalid literal source {literal}, expected key=value")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        pairs.append((key, value.encode()))
    return pairs


def suffix(obj: Object) -> str:
    """The ten characters that kustomize puts behind the name (kustomize ``api/hasher``)."""
    if obj["kind"] == "ConfigMap":
        content: dict[str, Any] = {"kind": "ConfigMap", "name": _name(obj), "data": obj.get("data", "")}
        if "binaryData" in obj:
            content["binaryData"] = obj["binaryData"]
    elif obj["kind"] == "Secret":
        content = {"kind": "Secret", "type": obj.get("type", ""), "name": _name(obj), "data": obj.get("data", "")}
        if "stringData" in obj:
            content["stringData"] = obj["stringData"]
    else:
        content = obj
    digest = hashlib.sha256(_go_json(content)).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))


def _name(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("name", ""))


def _go_json(value: Any) -> bytes:
    """JSON as Go's encoding/json writes it: sorted keys, no spaces, HTML characters escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for char, escaped in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(char, escaped)
    return text.encode()
