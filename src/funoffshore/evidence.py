"""Findings for one cluster at one commit, signed with the cluster's own ed25519 key.

The signed bytes are ``fo-stage1\\n`` (a namespace, so that no other signature of the key fits here) and the
statement as canonical JSON (sorted keys, no spaces, UTF-8).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from funoffshore.findings import Finding, Outcome

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LIFETIME = 24 * 3600.0
"""Seconds a statement may open the gate for."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What was found, about which cluster, at which commit, and when."""

    cluster: str
    cluster_uid: str
    """UID of the namespace kube-system, the nearest thing Kubernetes has to a cluster's identity."""
    commit: str
    """Git commit that the cluster was seen to run, 40 hex digits."""
    serial: int
    """One more than the statement before."""
    issued: float
    """Unix seconds."""
    expires: float
    tool: str
    components: tuple[str, ...]
    """IDs of the Stage 1 components that were looked at; a switched-off one is not among them."""
    findings: tuple[Finding, ...]


def to_json(statement: Statement) -> dict[str, Any]:
    """The statement as plain JSON values."""
    return json.loads(json.dumps(asdict(statement)))  # type: ignore[no-any-return]


def from_json(body: object) -> Statement:
    """Raises ValueError saying what is wrong: a field missing, unknown or of another type."""
    fields = {
        "cluster": str, "cluster_uid": str, "commit": str, "serial": int, "issued": float, "expires": float,
        "tool": str, "components": list, "findings": list,
    }  # fmt: skip
    values = _typed(body, fields, "statement")
    if not all(isinstance(c, str) for c in values["components"]):
        raise ValueError("statement.components has something that is not text")
    findings = tuple(_finding(f) for f in values.pop("findings"))
    components = tuple(values.pop("components"))
    return Statement(**values, components=components, findings=findings)


def sign(statement: Statement, key_hex: str) -> str:
    """The signature, base64. ``key_hex`` is the seed of the private key, 64 hex digits."""
    return base64.b64encode(_private(key_hex).sign(_message(statement))).decode()


def verify(statement: Statement, signature: str, public_hex: str) -> bool:
    """Whether ``signature`` over ``statement`` was made with the key whose public half is ``public_hex``."""
    return _verified(_message(statement), signature, public_hex)


def sign_mark(cluster: str, by: str, at: float, digest: str, key_hex: str) -> str:
    """The signature of a human's mark that unlocks Stage 2 of ``cluster``, base64."""
    return base64.b64encode(_private(key_hex).sign(_mark(cluster, by, at, digest))).decode()


def verify_mark(cluster: str, by: str, at: float, digest: str, signature: str, public_hex: str) -> bool:
    """Whether the mark was signed for this very cluster."""
    return _verified(_mark(cluster, by, at, digest), signature, public_hex)


def public(key_hex: str) -> str:
    """The public half of the evidence key, 64 hex digits."""
    return _private(key_hex).public_key().public_bytes_raw().hex()


def _private(key_hex: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key_hex))


def canonical(body: object) -> bytes:
    """The one way these values are written when they are hashed or signed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _message(statement: Statement) -> bytes:
    return b"fo-stage1\n" + canonical(to_json(statement))


def _mark(cluster: str, by: str, at: float, digest: str) -> bytes:
    return b"fo-stage2\n" + canonical({"cluster": cluster, "by": by, "at": at, "digest": digest})


def _verified(message: bytes, signature: str, public_hex: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex))
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _finding(body: object) -> Finding:
    fields = {"id": str, "title": str, "outcome": str, "said": str, "evidence": list, "fix": str}
    values = _typed(body, fields, "finding")
    if not all(isinstance(line, str) for line in values["evidence"]):
        raise ValueError("finding.evidence has something that is not text")
    values["evidence"] = tuple(values["evidence"])
    values["outcome"] = Outcome(values["outcome"])
    return Finding(**values)


def _typed(body: object, fields: Mapping[str, type], what: str) -> dict[str, Any]:
    if not isinstance(body, dict) or body.keys() != fields.keys():
        raise ValueError(f"the {what} does not have exactly the fields {', '.join(sorted(fields))}")
    for name, kind in fields.items():
        # bool is an int in Python, and true is no number here
        if type(body[name]) is not kind and not (kind is float and type(body[name]) is int):
            raise ValueError(f"{what}.{name} is not {'a number' if kind in (int, float) else kind.__name__}")
    return dict(body)
