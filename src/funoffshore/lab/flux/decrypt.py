"""SOPS in the lab: objects are opened with the identities that Flux holds. A made-up object, whose recipients are told
without a key, gets opaque values instead, and only the recipients decide."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from funoffshore.config import age
from funoffshore.lab.flux import sealed
from funoffshore.lab.flux.kustomize import BuildError, Object

_OPAQUE = "opaque-in-the-lab"
_FAILED = (
    "    - | failed to create reader for decrypting sops data key with\n"
    "      | age: identity did not match any of the recipients: incorrect\n"
    "      | identity for recipient block\n"
)
_RECOVERY = (
    "\nRecovery failed because no master key was able to decrypt the file. In\n"
    "order for SOPS to recover the file, at least one key has to be successful,\nbut none were."
)


def identities(secret: Object) -> dict[str, str]:
    """Every identity in the ``*.agekey`` entries of a Secret, by its recipient (``age1…``)."""
    found: dict[str, str] = {}
    for name, encoded in (secret.get("data") or {}).items():
        if name.endswith(".agekey"):
            for line in base64.b64decode(encoded).decode(errors="replace").split():
                if line.startswith("AGE-SECRET-KEY-1"):
                    try:
                        found[age.recipient(line)] = line
                    except ValueError:
                        continue
    return found


def decrypt(obj: Object, known: Mapping[str, str]) -> Object:
    """``obj`` without its SOPS part, with its values in the clear. ``known``: what ``identities`` gives.

    Raises BuildError when no identity fits, or a value is not what was encrypted.
    """
    if "sops" not in obj:
        return obj
    space, name, kind = obj["metadata"].get("namespace", ""), obj["metadata"]["name"], obj["kind"]
    begin = (
        f"decryption failed for '{kind}.v1.[noGrp]/{name}': failed to decrypt and format '{space}/{name}' {kind} data: "
    )
    entries = {str(entry.get("recipient")): entry.get("enc") for entry in (obj["sops"].get("age") or [])}
    key, opened = None, False
    for recipient, enc in entries.items():
        if recipient in known:
            try:
                key = sealed.data_key(enc, age.secret(known[recipient])) if enc else None
                opened = True
                break
            except sealed.SealedError:
                continue
    if not opened:
        groups = "".join(f"  {recipient}: FAILED\n{_FAILED}" for recipient in entries)
        raise BuildError(
            f"{begin}cannot get sops data key: Failed to get the data key required to "
            f"decrypt the SOPS file.\n\nGroup 0: FAILED\n{groups}{_RECOVERY}"
        )
    open_value = _opaque if key is None else (lambda text, path: sealed.value(text, key, path))
    try:
        return {k: _open(v, (k,), open_value, kind) for k, v in obj.items() if k != "sops"}
    except sealed.SealedError as why:
        raise BuildError(
            f"{begin}error decrypting sops tree: Error walking tree: Could not decrypt value: {why}"
        ) from why


def _opaque(text: str, path: tuple[str, ...]) -> str:
    return base64.b64encode(_OPAQUE.encode()).decode() if path[0] == "data" else _OPAQUE


def _open(value: Any, path: tuple[str, ...], open_value: Callable[[str, tuple[str, ...]], Any], kind: str) -> Any:
    """Entries of a list have no path of their own in SOPS."""
    if isinstance(value, dict):
        return {k: _open(v, (*path, str(k)), open_value, kind) for k, v in value.items()}
    if isinstance(value, list):
        return [_open(v, path, open_value, kind) for v in value]
    return open_value(value, path) if isinstance(value, str) and value.startswith("ENC[") else value
