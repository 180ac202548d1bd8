"""How the API server says no: the code, the words and the details of each refusal."""

from __future__ import annotations

import json
import re
from typing import Any

from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.kinds import Kind

Cause = dict[str, str]
"""``reason``, ``message``, ``field``, as in metav1.StatusDetails.causes."""
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"


class InvalidError(ApiError):
    """422 with the fields that are wrong."""

    def __init__(self, kind: Kind, name: str, causes: list[Cause]) -> None:
        super().__init__(422, "Invalid", f'{kind.qualified} "{name}" is invalid: {_spoken(causes)}')
        who = {"name": name} if name else {}
        self.details = {**who, **({"group": kind.group} if kind.group else {}), "kind": kind.name, "causes": causes}


def _spoken(causes: list[Cause]) -> str:
    texts = list(dict.fromkeys(f"{c['field']}: {c['message']}" for c in causes))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def cause(reason: str, field: str, message: str) -> Cause:
    """``reason`` is Invalid, Required, Forbidden, NotSupported, Duplicate, …"""
    return {"reason": f"FieldValue{reason}", "field": field, "message": message}


def option(kind: str, field: str, message: str, reason: str = "NotSupported") -> ApiError:
    """422 for a parameter of the request: ``kind`` is CreateOptions, PatchOptions, …"""
    error = ApiError(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {field}: {message}')
    error.details = {"group": "meta.k8s.io", "kind": kind, "causes": [cause(reason, field, message)]}
    return error


def patch(given: Any, why: str) -> ApiError:
    """422 for a patch whose result does not fit the kind; the message quotes what was given."""
    text = given if isinstance(given, str) else json.dumps(given, separators=(",", ":"))
    message = f"Invalid value: {json.dumps(text)}: {why}"
    error = ApiError(422, "Invalid", f' "" is invalid: patch: {message}')
    error.details = {"causes": [cause("Invalid", "patch", message)]}
    return error


def about(kind: Kind, name: str) -> Object:
    """Details that name an object."""
    return {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}


def not_found(kind: Kind, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found', about(kind, name))


def no_namespace(name: str) -> ApiError:
    return ApiError(404, "NotFound", f'namespaces "{name}" not found', {"name": name, "kind": "namespaces"})


def exists(kind: Kind, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', about(kind, name))


def forbidden(kind: Kind, name: str, why: str) -> ApiError:
    return ApiError(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', about(kind, name))


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    text = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return ApiError(409, "Conflict", text, about(kind, name))


def changed(kind: Kind, name: str) -> ApiError:
    """The caller's version of the object is not the newest."""
    text = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, text)


def precondition(kind: Kind, name: str, field: str, wanted: Any, found: Any) -> ApiError:
    """A DELETE's precondition that does not hold."""
    word = {"uid": "UID", "resourceVersion": "ResourceVersion"}.get(field, field)
    text = (
        f'Operation cannot be fulfilled on {kind.name} "{name}": the {word} in the precondition ({wanted}) does not '
        f"match the {word} in record ({found}). The object might have been deleted and then recreated"
    )
    return ApiError(409, "Conflict", text, {**about(kind, name), "kind": kind.name})


def unfit(kind: Kind, why: str) -> ApiError:
    """A body that cannot be what its kind says."""
    return bad(f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {why}')


def bad(why: str) -> ApiError:
    return ApiError(400, "BadRequest", why)


def no_method() -> ApiError:
    text = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", text, {})


def no_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def media(*accepted: str) -> ApiError:
    text = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(415, "UnsupportedMediaType", text)


def name_rule(kind: Kind, name: str) -> str:
    """Why the kind cannot have the name; empty when it can."""
    if kind.group == "rbac.authorization.k8s.io":
        found = next((c for c in "/%" if c in name), "")
        return f"may not contain '{found}'" if found else f"may not be '{name}'" if name in (".", "..") else ""
    strict = kind.bucket in ("Namespace", "Service")
    if strict and "." in name:
        return "must not contain dots"
    limit, pattern = (63, _LABEL) if strict else (253, _SUBDOMAIN)
    if len(name) > limit:
        return f"must be no more than {limit} characters"
    return "" if re.fullmatch(pattern, name) else _rule(pattern)


def _rule(pattern: str) -> str:
    what, rest, example = (
        ("label", "characters or '-'", "'my-name',  or '123-abc'")
        if pattern == _LABEL
        else ("subdomain", "characters, '-' or '.'", "'example.com'")
    )
    return (
        f"a lowercase RFC 1123 {what} must consist of lower case alphanumeric {rest}, and must start and end with an "
        f"alphanumeric character (e.g. {example}, regex used for validation is '{pattern}')"
    )


def label_rule(name: str) -> str:
    """Why nothing inside an object can have the name (containers, volumes); empty when it can."""
    return "" if len(name) <= 63 and re.fullmatch(_LABEL, name) else _rule(_LABEL)
