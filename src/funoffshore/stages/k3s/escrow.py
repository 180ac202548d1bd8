"""What a snapshot is worth nothing without, kept beside it and encrypted: the token that seals the keys inside it.

K3s encrypts the cluster's keys in etcd with the server token of that day, so a snapshot opens with no other one
(K3s documentation, "k3s etcd-snapshot"). Encrypted with age to the recipient of SOPS_AGE_KEY.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from funoffshore import errors
from funoffshore.config import ClusterConfig, age

SUFFIX = ".escrow.age"
"""Behind the name of the snapshot."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Escrow:
    """What opens one snapshot, and what it is a snapshot of."""

    snapshot: str
    """Its file name."""
    sha256: str
    """Of its bytes, 64 lower-case hex digits."""
    cluster: str
    token: SecretStr
    """The server token of its day: the password alone."""
    ca_hash: str
    """SHA-256 of the cluster's authority, as in a K10 token."""
    version: str
    """The K3s release of its day: ``v1.36.4+k3s1``."""
    nodes: tuple[str, ...]
    """Every machine of the env file of its day."""


def beside(snapshot: Path) -> Path:
    """Where the escrow of ``snapshot`` lies."""
    return snapshot.with_name(snapshot.name + SUFFIX)


def require_key(config: ClusterConfig) -> str:
    """The age identity. Raises PreflightError without one: a token is never laid down in clear."""
    if config.sops_age_key is None:
        raise errors.PreflightError(
            "a snapshot that leaves the servers needs its token beside it, and there is no key to encrypt that with",
            fix="set SOPS_AGE_KEY in the env file (age-keygen makes one), and keep a copy of it in another place",
        )
    return config.sops_age_key.get_secret_value()


def seal(config: ClusterConfig, content: Escrow) -> bytes:
    """``content`` encrypted to the cluster's age key. Raises PreflightError without one."""
    import pyrage

    recipient = pyrage.x25519.Recipient.from_str(age.recipient(require_key(config)))
    body = {
        "format": _FORMAT,
        "snapshot": content.snapshot,
        "sha256": content.sha256,
        "cluster": content.cluster,
        "token": content.token.get_secret_value(),
        "ca_hash": content.ca_hash,
        "version": content.version,
        "nodes": list(content.nodes),
    }
    return bytes(pyrage.encrypt(json.dumps(body).encode(), [recipient]))


def read(config: ClusterConfig, snapshot: Path) -> Escrow:
    """The escrow of the off-box copy ``snapshot``. Raises PreflightError without a key, StateError when it cannot be
    read or opened, ForeignError when it belongs to something else."""
    import pyrage

    path = beside(snapshot)
    identity = pyrage.x25519.Identity.from_str(require_key(config))
    try:
        body = json.loads(pyrage.decrypt(path.read_bytes(), [identity]))
        if body["format"] != _FORMAT:
            raise errors.StateError(f"{path} is of a later fo", fix="use the fo that wrote it, or a later one")
        found = Escrow(
            snapshot=_text(body, "snapshot"), sha256=_text(body, "sha256"), cluster=_text(body, "cluster"),
            token=SecretStr(_text(body, "token")), ca_hash=_text(body, "ca_hash"), version=_text(body, "version"),
            nodes=tuple(str(name) for name in body["nodes"]),
        )  # fmt: skip
    except OSError as why:
        raise errors.StateError(
            f"{path} cannot be read: {why.strerror}",
            fix="a copy without its escrow opens only with the token of its day, set as K3S_TOKEN in the env file",
        ) from None
    except pyrage.DecryptError:
        raise errors.StateError(
            f"{path} does not open with the SOPS_AGE_KEY of the env file",
            fix="set the SOPS_AGE_KEY that the cluster had when the copy was made",
        ) from None
    except (ValueError, LookupError, TypeError):
        # The cause is not chained: it may quote what was decrypted.
        raise errors.StateError(f"{path} is no escrow of fo", fix="take another copy") from None
    if found.snapshot != snapshot.name or found.cluster != config.name:
        raise errors.ForeignError(
            f"{path} is the escrow of {found.snapshot} of the cluster {found.cluster}, not of {snapshot.name}",
            fix="put each copy back beside its own escrow",
        )
    return found


def _text(body: dict[str, object], key: str) -> str:
    value = body[key]
    if not isinstance(value, str) or not value:
        raise ValueError(key)
    return value
