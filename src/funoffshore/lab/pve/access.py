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
from funoffshore.lab.pve import roles
from funoffshore.lab.pve.refusal import forbidden, silent

_BUCKET = "pve/token"
_ROLES = "pve/role"
ROOT = "root@pam"
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
    """``user@realm!name``, or ``user@realm`` for somebody who logged in."""

    @property
    def is_root(self) -> bool:
        """Whether it is root@pam in person, no token of it."""
        return self.user == self.token_id and self.user == ROOT

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
        self._guard = threading.RLock()
        self._tokens: dict[str, dict[str, Any]] = dict(kit.store.scan(_BUCKET))
        self._roles: dict[str, list[str]] = {name: body["privs"] for name, body in kit.store.scan(_ROLES)}

    def add(self, token_id: str, secret: str, acl: Mapping[str, Iterable[str]] | None, expires: float) -> None:
        """Makes or replaces a token. ``acl`` None means what fo needs, or everything for a token of root@pam."""
        if acl is None:
            is_root = token_id.startswith("root@pam!")
            acl = {"/": self.everything()} if is_root else pveapi.privileges.role(self._release, whole=True)
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
        if self._release < "9":
            unknown = ("Sys.AccessNetwork",) if self._release < "8.4" else ()
            return [privilege for privilege in (*_EVERYTHING.split(), "VM.Monitor") if privilege not in unknown]
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
        if not self.is_enabled(user):
            raise silent(401, f"user '{user}' is disabled")
        body = self._tokens.get(token_id)
        if body is None:
            raise silent(401, f"no such token '{name}' for user '{user}'")
        if body["expires"] and body["expires"] < self._kit.clock.now():
            raise silent(401, f"token '{name}' access expired")
        if not hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), str(body["secret"])):
            raise silent(401, "invalid token value!")
        return Caller(token_id)

    def held(self, caller: Caller, path: str) -> dict[str, int]:
        """Privilege → 1, or 0 where it reaches no further down: granted so, or it comes from a pool.

        A token without rights of its own has those of its user; one that the API made for a user, never more.
        """
        body = self._tokens[caller.token_id]
        if body.get("privsep") == 0:
            return self.held(Caller(caller.user), path)
        found = self._at(caller.token_id, path)
        pool = self._pool_of(path)
        if pool is not None:
            for privilege in self._at(caller.token_id, f"/pool/{pool}"):
                found.setdefault(privilege, 0)
        if body.get("privsep") == 1:
            most = self.held(Caller(caller.user), path)
            return {privilege: value for privilege, value in found.items() if privilege in most}
        return found

    def _at(self, name: str, path: str) -> dict[str, int]:
        """The entry nearest to ``path`` on the way from the root; one's own goes before that of one's groups."""
        groups = [f"@{group}" for group in self._tokens[name].get("groups", []) if f"@{group}" in self._tokens]
        found: dict[str, int] = {}
        parts = [part for part in path.split("/") if part]
        for length in range(len(parts) + 1):
            place = "/" + "/".join(parts[:length])
            for holders in ([name], groups):
                entries = [e for who in holders if (e := self._entry(who, place, is_end=length == len(parts)))]
                if entries:
                    found = {privilege: value for entry in entries for privilege, value in entry[0].items()}
                    break
        return found

    def _entry(self, who: str, place: str, *, is_end: bool) -> list[dict[str, int]]:
        """What ``who`` has exactly at ``place``; empty when nothing is said there, not even that it is nothing."""
        body = self._tokens[who]
        here = body.get("here", {}).get(place) if is_end else None
        if place not in body["acl"] and here is None:
            return []
        return [{**dict.fromkeys(here or [], 0), **dict.fromkeys(body["acl"].get(place, []), 1)}]

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
        own = self._tokens[caller.token_id]
        names = [caller.token_id, *([caller.user] if "privsep" in own else [])]
        names += [f"@{group}" for name in names for group in self._tokens.get(name, {}).get("groups", [])]
        bodies = [self._tokens[name] for name in names if name in self._tokens]
        return sorted({*_ROOTS, *(path for body in bodies for path in (*body["acl"], *body.get("here", {})))})

    def fits(self, name: str, secret: str) -> bool:
        """Whether there is such a user or token with that secret."""
        body = self._tokens.get(name)
        given = hashlib.sha256(secret.encode()).hexdigest()
        return body is not None and self.is_enabled(name) and hmac.compare_digest(given, str(body["secret"]))

    def all(self) -> dict[str, dict[str, list[str]]]:
        """Users and tokens with what they have at which path."""
        with self._guard:
            return {name: body["acl"] for name, body in sorted(self._tokens.items())}

    def exists(self, token_id: str) -> bool:
        return token_id in self._tokens

    def is_enabled(self, user: str) -> bool:
        """Whether a user may log in: one who was never disabled, and whose time is not over."""
        body = self._tokens.get(user, {})
        expires = float(body.get("expires", 0))
        return bool(body.get("enable", 1)) and not (expires and expires < self._kit.clock.now())

    def record(self, name: str) -> dict[str, Any] | None:
        """All that is known of a user, a token, or a group ``@name``; a copy."""
        with self._guard:
            return dict(self._tokens[name]) if name in self._tokens else None

    def names(self) -> list[str]:
        """Every user, token and group ``@name`` that has a record."""
        with self._guard:
            return sorted(self._tokens)

    def change(self, name: str, **what: Any) -> None:
        """Makes or changes a user, a token or a group ``@name``; ``secret`` is hashed, None leaves it as it is."""
        with self._guard:
            body = self._tokens.get(name, {"secret": "", "expires": 0, "acl": {}})
            if what.get("secret") is not None:
                what["secret"] = hashlib.sha256(what["secret"].encode()).hexdigest()
            self._save(name, {**body, **{key: value for key, value in what.items() if value is not None}})

    def forget(self, name: str) -> None:
        """A user goes with all tokens."""
        with self._guard:
            for known in [known for known in self._tokens if known == name or known.startswith(f"{name}!")]:
                del self._tokens[known]
                self._kit.store.delete(_BUCKET, known)

    def roles(self) -> dict[str, list[str]]:
        """Those that somebody made, and those that the lab's own grants amount to."""
        with self._guard:
            bodies = self._tokens.values()
            sets = [p for body in bodies for at, p in body["acl"].items() if at not in body.get("granted", {})]
            return {**{roles.name_of(privileges): privileges for privileges in sets}, **self._roles}

    def save_role(self, role: str, privileges: Iterable[str] | None) -> None:
        """Makes or changes a role, or takes it away: None. Whoever has it feels that at once."""
        with self._guard:
            if privileges is None:
                self._roles.pop(role, None)
                self._kit.store.delete(_ROLES, role)
            else:
                self._roles[role] = sorted(privileges)
                self._kit.store.put(_ROLES, role, {"privs": self._roles[role]})
            for name, body in list(self._tokens.items()):
                for path, given in body.get("granted", {}).items():
                    if role in given:
                        self._settle(
                            name, path, {key: value for key, value in given.items() if key in self._known_roles()}
                        )

    def grant(self, name: str, path: str, role: str, propagate: int | None) -> None:
        """Gives a role at a path, to what lies below, too, when ``propagate``; takes it away when that is None."""
        with self._guard:
            body = self._tokens[name]
            given = dict(body.get("granted", {}).get(path, {}))
            if path in body["acl"] and not given:
                unnamed = roles.name_of(body["acl"][path])
                given[unnamed] = 1
                self.save_role(unnamed, body["acl"][path])
            given.pop(role, None)
            self._settle(name, path, {**given, **({} if propagate is None else {role: propagate})})

    def granted(self) -> list[tuple[str, str, str, int]]:
        """Path, name, role and whether it propagates, of all that is granted."""
        with self._guard:
            found = []
            for name, body in self._tokens.items():
                given = {path: {roles.name_of(privileges): 1} for path, privileges in body["acl"].items()}
                for path, entry in {**given, **body.get("granted", {})}.items():
                    found += [(path, name, role, propagate) for role, propagate in entry.items()]
            return sorted(found)

    def _known_roles(self) -> dict[str, list[str]]:
        return {**self.roles(), **self.builtin()}

    def _settle(self, name: str, path: str, given: Mapping[str, int]) -> None:
        """Writes down which roles ``name`` has at ``path``, and what they amount to."""
        body, known = self._tokens[name], self._known_roles()
        sums: dict[str, dict[str, Any]] = {"granted": {path: dict(given)}, "acl": {}, "here": {}}
        for kind, wanted in (("acl", 1), ("here", 0)):
            sets = [known[role] for role, propagate in given.items() if propagate == wanted and role in known]
            if sets:
                sums[kind][path] = sorted({privilege for privileges in sets for privilege in privileges})
        if not given:
            sums["granted"] = {}
        rest = {kind: {at: what for at, what in body.get(kind, {}).items() if at != path} for kind in sums}
        self._save(name, {**body, **{kind: {**rest[kind], **sums[kind]} for kind in sums}})

    def builtin(self) -> dict[str, list[str]]:
        """The roles that cannot be changed."""
        return roles.builtin(self._release, self.everything())

    def _save(self, token_id: str, body: dict[str, Any]) -> None:
        with self._guard:
            self._tokens[token_id] = body
            self._kit.store.put(_BUCKET, token_id, body)
