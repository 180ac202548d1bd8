"""SOPS in the lab: whether a Secret could be decrypted is told by its recipients; its values stay opaque."""

from __future__ import annotations

import base64
from typing import Any

from funoffshore.config import age
from funoffshore.lab.flux.kustomize import BuildError, Object

_OPAQUE = "decrypted-in-the-lab"
_FAILED = (
    "    - | failed to create reader for decrypting sops data key with\n"
    "      | age: identity did not match any of the recipients: incorrect\n"
    "      | identity for recipient block\n"
)
_RECOVERY = (
    "\nRecovery failed because no master key was able to decrypt the file. In\n"
    "order for SOPS to recover the file, at least one key has to be successful,\nbut none were."
)


def recipients(secret: Object) -> set[str]:
    """``age1…`` of every identity in the ``*.agekey`` entries of a Secret."""
    found: set[str] = set()
    for name, encoded in (secret.get("data") or {}).items():
        if name.endswith(".agekey"):
            for line in base64.b64decode(encoded).decode(errors="replace").split():
                if line.startswith("AGE-SECRET-KEY-1"):
                    try:
                        found.add(age.recipient(line))
                    except ValueError:
                        continue
    return found


def decrypt(obj: Object, known: set[str]) -> Object:
    """``obj`` without its SOPS part, encrypted values replaced by opaque ones.

    ``known`` are the recipients whose identity Flux holds. Raises BuildError when none fits.
    """
    if "sops" not in obj:
        return obj
    asked = [str(entry.get("recipient")) for entry in (obj["sops"].get("age") or [])]
    name = obj["metadata"]["name"]
    if not known & set(asked):
        groups = "".join(f"  {recipient}: FAILED\n{_FAILED}" for recipient in asked)
        space = obj["metadata"].get("namespace", "")
        raise BuildError(
            f"decryption failed for '{obj['kind']}.v1.[noGrp]/{name}': failed to decrypt and format "
            f"'{space}/{name}' {obj['kind']} data: cannot get sops data key: Failed to get the data key required to "
            f"decrypt the SOPS file.\n\nGroup 0: FAILED\n{groups}{_RECOVERY}"
        )
    return {k: _open(v, encoded=k == "data" and obj["kind"] == "Secret") for k, v in obj.items() if k != "sops"}


def _open(value: Any, *, encoded: bool) -> Any:
    if isinstance(value, dict):
        return {k: _open(v, encoded=encoded) for k, v in value.items()}
    if isinstance(value, list):
        return [_open(v, encoded=encoded) for v in value]
    if isinstance(value, str) and value.startswith("ENC["):
        return base64.b64encode(_OPAQUE.encode()).decode() if encoded else _OPAQUE
    return value
