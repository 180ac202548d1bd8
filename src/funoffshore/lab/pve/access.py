"""Tokens and what they may do: inheritance along paths, pools included.

Facts from pve-access-control ``PVE/AccessControl.pm`` and ``PVE/RPCEnvironment.pm``; texts recorded from a real 8.4
API.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.base import Kit
from funoffshore.lab.pve.refusal import forbidden, silent

_BUCKET = "pve/token"
_EVERYTHING = (
    "Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Group.Allocate "
    "Mapping.Audit Mapping.Modify Mapping.Use Permissions.Modify Pool.Allocate Pool.Audit Realm.Allocate "
    "Realm.AllocateUser SDN.Allocate SDN.Audit SDN.Use Sys.AccessNetwork Sys.Audit Sys.Console Sys.Incoming "
    "Sys.Modify Sys.PowerMgmt Sys.Syslog User.Modify VM.Allocate VM.Audit VM.Backup VM.Clone VM.Config.CDROM "
    "VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType VM.Config.Memory VM.Config.Network "
    "VM.Config.Options VM.Console VM.Migrate VM.PowerMgmt VM.Snapshot VM.Snapshot.Rollback"
)
_ROOTS = ("/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    token_id: str
    """``user@realm!name``."""

    @property
    def user(self) -> str:
        """``user@realm``."""
        return self.token_id.split("!")[0]


class Access:
    """The tokens of the lab's Proxmox and their rights, kept in the store."""

    def __init__(self, kit: Kit, release: str, pool_of: Callable[[str], str | None]) -> None:
        self._kit = kit
        self._release = release
        self._pool_of = pool_of
        self._guard = threading.Lock()
        self._tokens: dict[str, dict[str, Any]] = dict(kit.store.scan(_BUCKET))

    def add(self, token_id: str, secret: str, acl: Mapping[str, Iterable[str]] | None, expires: float) -> None:
        """Makes or replaces a token. ``acl`` None means what fo needs, or everything for a token of root@pam."""
        if acl is None:
            is_root = token_id.startswith("root@pam!")
            acl = {"/": self.everything()} if is_root else pveapi.privileges.role(self._release)
        body = {
            "secret": hashlib.sha256(secret.encode()).hexdigest(),
            "expires": expires,
            "acl": {path: sorted(privileges) for path, privileges in acl.items()},
        }
        self._save(token_id, body)

    def ensure(self, token_id: str, secret: str) -> None:
        """As ``add`` with the default rights, but a token that is there keeps the rights it has."""
        body = self._tokens.get(token_id)
        self.add(token_id, secret, body["acl"] if body else None, body["expires"] if body else 0)

    def set(self, token_id: str, path: str, privileges: Iterable[str]) -> None:
        """Replaces what the token has at ``path``. Raises KeyError for an unknown token."""
        body = self._tokens[token_id]
        self._save(token_id, {**body, "acl": {**body["acl"], path: sorted(privileges)}})

    def remove(self, token_id: str, privilege: str) -> None:
        """Takes ``privilege`` from the token at every path. Raises KeyError for an unknown token."""
        body = self._tokens[token_id]
        acl = {path: [p for p in have if p != privilege] for path, have in body["acl"].items()}
        self._save(token_id, {**body, "acl": acl})

    def everything(self) -> list[str]:
        """Every privilege of the release."""
        if self._release == "8.4":
            return [*_EVERYTHING.split(), "VM.Monitor"]
        agent = ("Audit", "FileRead", "FileSystemMgmt", "FileWrite", "Unrestricted")
        return [*_EVERYTHING.split(), "VM.Replicate", *(f"VM.GuestAgent.{what}" for what in agent)]

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """The caller, or the 401 that the real API gives, whose only text is its reason phrase."""
        if "PVEAuthCookie=" in headers.get("cookie", ""):
            raise silent(401, "permission denied - invalid PVE ticket")
        value = headers.get("authorization", "")
        if value.startswith("PVEAuthCookie="):
            raise silent(401, "permission denied - invalid PVE ticket")
        if not value.startswith("PVEAPIToken"):
            raise silent(401, "No ticket")
        given = re.match(r"PVEAPIToken[= ]([^=]+![^=]*)=(.*)\Z", value)
        if given is None:
            raise silent(401, "no tokenid specified")
        token_id, secret = given[1], given[2]
        if not re.match(r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+\Z", token_id):
            raise silent(401, f"'{token_id}' is not a valid token ID - not able to split into user and token parts")
        return self._known(token_id, secret)

    def _known(self, token_id: str, secret: str) -> Caller:
        user, name = token_id.split("!")
        if not any(known.split("!")[0] == user for known in self._tokens):
            raise silent(401, f"no such user ('{user}')")
        body = self._tokens.get(token_id)
        if body is None:
            raise silent(401, f"no such token '{name}' for user '{user}'")
        if body["expires"] and body["expires"] < self._kit.clock.now():
            raise silent(401, f"token '{name}' access expired")
        if not hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), str(body["secret"])):
            raise silent(401, "invalid token value!")
        return Caller(token_id)

    def held(self, caller: Caller, path: str) -> dict[str, int]:
        """Privilege → 1, or 0 where it comes from a pool and so does not reach further down."""
        acl = self._tokens[caller.token_id]["acl"]
        found = dict.fromkeys(_at(acl, path), 1)
        pool = self._pool_of(path)
        if pool is not None:
            for privilege in _at(acl, f"/pool/{pool}"):
                found.setdefault(privilege, 0)
        return found

    def has(self, caller: Caller, path: str, *wanted: str) -> bool:
        """Whether the caller holds at least one of ``wanted`` at ``path``."""
        have = self.held(caller, path)
        return any(privilege in have for privilege in wanted)

    def need(self, caller: Caller, path: str, *wanted: str) -> None:
        """Refuses with 403 unless the caller holds at least one of ``wanted`` at ``path``."""
        if not self.has(caller, path, *wanted):
            raise forbidden(f"{path}, {'|'.join(wanted)}")

    def known_paths(self, caller: Caller) -> list[str]:
        """Paths that an unfiltered question about permissions looks at."""
        return sorted({*_ROOTS, *self._tokens[caller.token_id]["acl"]})

    def exists(self, token_id: str) -> bool:
        return token_id in self._tokens

    def _save(self, token_id: str, body: dict[str, Any]) -> None:
        with self._guard:
            self._tokens[token_id] = body
            self._kit.store.put(_BUCKET, token_id, body)


def _at(acl: Mapping[str, list[str]], path: str) -> list[str]:
    """The entry nearest to ``path`` on the way from the root; a nearer one replaces those above it."""
    while path and path not in acl:
        path = path.rpartition("/")[0]
    return acl.get(path or "/", [])
