"""What a change of each key of config.yaml asks for: nothing but the API, a restart, or that it is not made. Pure.

From K3s' own behaviour (recorded): labels are applied at a restart and taints only when a Node registers, and both can
be written to a living Node; changed CIDRs are taken without a word and break the cluster; secrets-encryption taken
away bricks the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


class Class(StrEnum):
    """When a changed key comes into force."""

    LIVE = "live"
    """At once, through the API."""
    RESTART = "restart"
    """When the node's K3s starts."""
    IMMUTABLE = "immutable"
    """Never on a living cluster."""


LIVE = frozenset({"node-label", "node-taint"})
IMMUTABLE = ("cluster-cidr", "service-cidr", "cluster-dns", "secrets-encryption", "flannel-backend", "cluster-domain")
ENTRY = frozenset({"cluster-init", "server", "token"})
"""Keys that only say how a node came in; etcd on its disk wins afterwards, so they are left as they are."""
SECRETS = frozenset({"token", "agent-token", "etcd-s3-access-key", "etcd-s3-secret-key"})
"""Keys whose values K3s itself shows as ``********`` in ``k3s.io/node-args``."""


def class_of(key: str) -> Class:
    """How a change of ``key`` comes into force."""
    if key in LIVE:
        return Class.LIVE
    return Class.IMMUTABLE if key in IMMUTABLE else Class.RESTART


def arguments(settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Settings as K3s unfolds them into its arguments, values in their order."""
    return {
        key: tuple(_word(v) for v in (value if isinstance(value, list) else [value])) for key, value in settings.items()
    }


def unfolded(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The annotation ``k3s.io/node-args`` (role, then flag and value in turns) as values by key."""
    found: dict[str, tuple[str, ...]] = {}
    at = 1
    while at < len(words):
        name, given, value = words[at].lstrip("-").partition("=")
        if not given and at + 1 < len(words) and not words[at + 1].startswith("--"):
            at += 1
            value = words[at]
        elif not given:
            value = "true"
        found[name] = (*found.get(name, ()), value)
        at += 1
    return found


def differing(wanted: Mapping[str, Any], running: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Keys whose values a running K3s has otherwise, but for those that a restart does not concern."""
    told = arguments(wanted)
    keys = (told.keys() | running.keys()) - ENTRY - SECRETS - LIVE
    return sorted(key for key in keys if not _same(told.get(key, ()), running.get(key, ())))


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """K3s takes a list as several flags or with commas; an empty list and a missing flag are the same."""
    return _parts(one) == _parts(other)


def _parts(values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in value.split(",") if part]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
