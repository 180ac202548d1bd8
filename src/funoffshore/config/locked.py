"""The values of an env file and its lock file together: each may stand in one of them, or in both if it is the same."""

from __future__ import annotations

import dataclasses

from funoffshore.config import keys, lockfile
from funoffshore.config.files import Problem
from funoffshore.config.lockfile import Lock
from funoffshore.config.values import Values

_WANTED = frozenset(("IMAGE_URL", "K3S_VERSION", "FLUX_VERSION", "FLUX_INSTALL_URL"))
"""Keys that say what is wanted; the others say which bytes that is."""


def apply(values: Values, lock: Lock, table: keys.Table) -> tuple[Values, list[Problem]]:
    """The values with what is locked in the place of what the env file leaves open, and what does not agree."""
    template = values.get("IMAGE_TEMPLATE")  # then no image is downloaded, whatever is locked
    pairs = {
        key: path
        for key, path in lockfile.ENV_KEYS.items()
        if path in lock.entries and not (template and path.startswith("image."))
    }
    filled = {key: lock.entries[path] for key, path in pairs.items() if key not in values.given}
    differing = [k for k in pairs.keys() - filled.keys() if values.texts.get(k) not in (None, lock.entries[pairs[k]])]
    stale = {_section(pairs[key]) for key in differing if key in _WANTED}
    problems = [
        _differs(values, key, lock, pairs[key])
        for key in differing
        if key in _WANTED or _section(pairs[key]) not in stale  # another release has another digest: said once
    ]
    for one, other in (("IMAGE_SHA256", "IMAGE_SHA512"), ("IMAGE_SHA512", "IMAGE_SHA256")):
        if one in values.given and filled.pop(other, "") and "image" not in stale:
            text = f"is given beside {pairs[other]} in {lockfile.shown(values.stem)}; give only one of them"
            problems.append(values.problem(one, text))
    parsed = {key: table.keys[key].kind.parse(text) for key, text in filled.items()}
    together = dataclasses.replace(values, parsed={**values.parsed, **parsed}, texts={**values.texts, **filled})
    return together, problems


def _differs(values: Values, key: str, lock: Lock, path: str) -> Problem:
    where = lockfile.shown(values.stem)
    if key in _WANTED:
        text = f"locked is {lock.entries[path]} ({where}), the env file wants {values.texts[key]}"
        return values.problem(key, f"{text}; run `fo lock update -c {values.stem}`")
    return values.problem(key, f"differs from {path} in {where}; take the line out here, or run `fo lock update`")


def _section(path: str) -> str:
    return path.split(".")[0]
