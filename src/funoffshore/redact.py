"""The last net: whatever is written for eyes or disk passes here, so that a secret that slipped is not shown.

Nothing relies on it: secrets are SecretStr and are not put into sentences in the first place.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

SHORTEST = 6
"""Characters. Shorter values would blank out ordinary words; config refuses secrets that short where it can."""


class Redactor:
    """Replaces every known secret value in a text by ``***``."""

    def __init__(self, secrets: Iterable[str]) -> None:
        parts = {line for secret in secrets for line in (secret, *secret.splitlines()) if len(line) >= SHORTEST}
        longest_first = sorted(parts, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(p) for p in longest_first)) if longest_first else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text


def secrets_of(value: object) -> Iterable[str]:
    """Every SecretStr inside a (nested) dataclass, mapping or tuple, revealed."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from secrets_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_of(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from secrets_of(item)
