"""The content of an etcd snapshot: the cluster's objects as they are, its keys sealed with its token.

A real one is etcd's database, in which K3s keeps its bootstrap data encrypted with the join token; so here, too, nobody
gets at the keys with another token, and one file is all that a restore needs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from funoffshore.lab.base import Store

MAGIC = b"#!funoffshore-lab etcd-snapshot\n"
SEALED = ("ca", "password", "agent_password", "encryption")
"""What of a cluster's document nobody may read who has no token."""


class BrokenSnapshotError(Exception):
    """The file is no snapshot, or not a whole one."""


class OtherTokenError(Exception):
    """The keys were sealed with another token."""


@dataclass(frozen=True, slots=True)
class State:
    """A cluster as a snapshot has it."""

    document: dict[str, Any]
    """The plane's own."""
    objects: dict[str, Any]
    version: int
    """The newest resourceVersion."""


def state_of(store: Store, identity: str, document: dict[str, Any]) -> State:
    """The cluster as it is now."""
    objects = dict(store.scan(f"kube/{identity}"))
    kept = int((store.get(f"kube/{identity}/meta", "version") or {}).get("n", 0))
    versions = (int(body["metadata"]["resourceVersion"]) for body in objects.values())
    return State(document, objects, max([kept, *versions], default=kept))


def write(state: State) -> bytes:
    """The file."""
    secret = {key: state.document.get(key) for key in SEALED}
    nonce = secrets.token_bytes(12)
    box = AESGCM(_key(str(state.document["password"]))).encrypt(nonce, json.dumps(secret).encode(), MAGIC)
    body = {
        "document": {key: value for key, value in state.document.items() if key not in SEALED},
        "sealed": base64.b64encode(nonce + box).decode(),
        "objects": state.objects,
        "version": state.version,
    }
    text = json.dumps(body, sort_keys=True).encode()
    # etcd puts a SHA-256 behind the database, which a restore checks
    return MAGIC + text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"


def compress(data: bytes, name: str) -> bytes:
    """A zip with the snapshot in it, as ``etcd-snapshot-compress`` wants it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def plain(data: bytes) -> bytes:
    """The snapshot in a zip; anything else as it is. Raises BrokenSnapshotError."""
    if not data.startswith(b"PK"):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(archive.namelist()[0])
    except (zipfile.BadZipFile, IndexError, zlib.error):
        raise BrokenSnapshotError from None


def read(data: bytes, password: str) -> State:
    """What lies in the file. Raises BrokenSnapshotError, OtherTokenError."""
    body = parse(data)
    box = base64.b64decode(body["sealed"])
    try:
        secret = json.loads(AESGCM(_key(password)).decrypt(box[:12], box[12:], MAGIC))
    except InvalidTag:
        raise OtherTokenError from None
    return State({**body["document"], **secret}, body["objects"], int(body["version"]))


def parse(data: bytes) -> dict[str, Any]:
    """All of the file but its keys. Raises BrokenSnapshotError."""
    text, _, digest = data.removeprefix(MAGIC).rstrip(b"\n").rpartition(b"\n")
    if not data.startswith(MAGIC) or hashlib.sha256(text).hexdigest().encode() != digest:
        raise BrokenSnapshotError
    body: dict[str, Any] = json.loads(text)
    return body


def token_hash(password: str) -> str:
    """What the annotation ``snapshot-token-hash`` shows: the first twelve digits tell tokens apart."""
    return hashlib.sha256(password.encode()).hexdigest()[:12]


def _key(password: str) -> bytes:
    return hashlib.sha256(b"lab bootstrap " + password.encode()).digest()
