"""What a token may do: its effective privileges by path, and the shell line that grants more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_EVALUATED = frozenset({"/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"})
"""Paths that Proxmox always looks at for the list: one of them that is not listed grants nothing."""


@dataclass(frozen=True, slots=True)
class Grants:
    """The effective privileges of the token, those of its user already taken into account.

    Proxmox lists the paths that an access rule names, the members of pools, and the roots (pve-access-control
    ``RPCEnvironment.pm``). Only a rule that takes everything away below a root (role NoAccess) cannot be seen in it.
    """

    paths: Mapping[str, Mapping[str, bool]]
    """Path → privilege → whether it reaches further down."""

    def at(self, path: str) -> frozenset[str]:
        """Privileges on ``path``. Those on a listed path are granted whatever their number; what is not listed
        inherits from the nearest path above it that passes anything on."""
        if path in self.paths:
            return frozenset(self.paths[path])
        while path not in _EVALUATED:
            path = path.rpartition("/")[0] or "/"
            passed_on = frozenset(name for name, reaches in self.paths.get(path, {}).items() if reaches)
            if passed_on:
                return passed_on
        # A root that is listed, but passes nothing on, leaves what comes from above it in force.
        above = self.paths.get("/", {}) if path in self.paths else {}
        return frozenset(name for name, reaches in above.items() if reaches)


def parse_grants(answer: Mapping[str, Mapping[str, Any]] | None) -> Grants:
    return Grants(
        {
            str(path): {str(name): bool(int(reaches)) for name, reaches in held.items()}
            for path, held in (answer or {}).items()
        }
    )


def grant_line(token_id: str, path: str, privileges: list[str], role: str) -> str:
    """The shell line for the Proxmox host that grants ``privileges`` on ``path`` to the token and to its user.

    Both are named because a token with separated privileges has only what its user has too (pve-access-control).
    """
    user = token_id.partition("!")[0]
    privs = ",".join(sorted(privileges))
    return (
        f"pveum role add {role} --privs '{privs}' && "
        f"pveum acl modify {path} --users '{user}' --tokens '{token_id}' --roles {role}"
    )
