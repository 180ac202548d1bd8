"""Objects that are refused before anybody looks at what is stored: bad names, fields of the wrong type."""

from __future__ import annotations

import re

from funoffshore.lab.kube import decode, schema
from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.kinds import Kind

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class InvalidError(ApiError):
    """422 with the fields that are wrong."""

    def __init__(self, kind: Kind, name: str, causes: list[schema.Cause]) -> None:
        texts = [f"{c['field']}: {c['message']}" for c in causes]
        what = f"{kind.name}.{kind.group}" if kind.group else kind.name
        text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        super().__init__(422, "Invalid", f'{what} "{name}" is invalid: {text}')
        self.causes = causes


def check_typed(kind: Kind, namespace: str, name: str, config: Object) -> None:
    """Server-side apply's own way to refuse what does not fit the kind.

    The message is recorded from a v1.36 cluster; that it is a 500 without a reason is inferred from how
    kustomize-controller prints it.
    """
    where = f"{namespace}/{name}" if kind.namespaced else f"/{name}"
    try:
        decode.check(kind, config)
    except decode.DecodeError as why:
        problem = why.typed
    else:
        problem = schema.undeclared(config, kind.schema) if kind.schema else ""
    if problem:
        raise ApiError(500, "", f"failed to create typed patch object ({where}; {kind.api_version}, "
                       f"Kind={kind.name}): {problem}")  # fmt: skip


def check_name(kind: Kind, name: str) -> None:
    if not name:
        raise InvalidError(kind, "", [{"reason": "FieldValueRequired", "field": "metadata.name",
                           "message": "Required value: name or generateName is required"}])  # fmt: skip
    if kind.group == "rbac.authorization.k8s.io":
        wrong = "/" in name or "%" in name or name in (".", "..")
    else:
        wrong = len(name) > 253 or not _SUBDOMAIN.fullmatch(name)
    if wrong:
        raise InvalidError(kind, name, [{"reason": "FieldValueInvalid", "field": "metadata.name",
            "message": f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case '
                       "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
            }])  # fmt: skip
