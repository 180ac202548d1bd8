"""Users who log in: tickets, the token against forged requests, and who has which rights.

Facts from pve-access-control ``PVE/API2/AccessControl.pm``, ``PVE/AccessControl.pm``, ``PVE/RPCEnvironment.pm``;
recorded from a real 8.4 API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from funoffshore.lab.pve.access import Caller
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.refusal import RefusalError, silent

LIFETIME = 7200
"""Seconds that a ticket is good for."""
NOBODY = Caller("")
_KEPT = {
    "vms": r"VM\.|Permissions\.Modify",
    "access": r"(?:User|Group)\.|Permissions\.Modify",
    "storage": r"Datastore\.|Permissions\.Modify",
    "nodes": r"Sys\.|Permissions\.Modify",
    "sdn": r"SDN\.|Permissions\.Modify",
    "dc": r"Sys\.Audit|SDN\.",
    "mapping": r"Mapping\.|Permissions\.Modify",
}


def caller(house: House, headers: Mapping[str, str], method: str) -> Caller | None:
    """Who shows a ticket; None when nobody does. Refuses a bad one, and a write without its CSRF token, with 401."""
    cookie = re.search(r"(?:^|;\s*)PVEAuthCookie=([^;]*)", headers.get("cookie", ""))
    bearer = re.match(r"PVEAuthCookie=(.*)", headers.get("authorization", ""))
    shown = cookie or bearer
    if shown is None:
        return None
    user = _owner(house, unquote(shown[1]))
    if user is None:
        raise silent(401, "permission denied - invalid PVE ticket")
    if method != "GET" and not _is_csrf(house, user, headers.get("csrfpreventiontoken", "")):
        raise silent(401, "Permission denied - invalid csrf token")
    return Caller(user)


def _owner(house: House, ticket: str) -> str | None:
    found = re.fullmatch(r"PVE:([^:]+@[^:]+):([0-9A-F]{8})::(.+)", ticket)
    if found is None or not hmac.compare_digest(found[3], _signature(house, f"PVE:{found[1]}:{found[2]}")):
        return None
    age = house.kit.clock.now() - int(found[2], 16)
    return found[1] if -300 < age < LIFETIME and house.access.exists(found[1]) else None


def _is_csrf(house: House, user: str, token: str) -> bool:
    at, _, signature = token.partition(":")
    return hmac.compare_digest(signature.encode(), _signature(house, f"{at}:{user}").encode())


def _signature(house: House, text: str) -> str:
    shelf = house.shelf("ticket")
    with shelf.guard:
        kept = shelf.get("key")
        if kept is None:
            kept = {"hex": secrets.token_hex(32)}
            shelf.put("key", kept)
    digest = hmac.new(bytes.fromhex(kept["hex"]), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def login(call: Call) -> dict[str, Any]:
    """POST /access/ticket; a ticket that is still good does instead of a password."""
    house, name, password = call.house, call.text("username"), call.text("password")
    user = name if "@" in name or "realm" not in call.values else f"{name}@{call.text('realm')}"
    known = "@" in user and "!" not in user
    if not known or not (house.access.fits(user, password) or _owner(house, password) == user):
        raise RefusalError(401, "authentication failure")
    at = f"{int(house.kit.clock.now()):08X}"
    found = {
        "username": user,
        "ticket": f"PVE:{user}:{at}::{_signature(house, f'PVE:{user}:{at}')}",
        "CSRFPreventionToken": f"{at}:{_signature(house, f'{at}:{user}')}",
        "cap": _capabilities(house, Caller(user)),
    }
    return {**found, **({"clustername": "lab"} if len(house.nodes) > 1 else {})}


def _capabilities(house: House, who: Caller) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {name: {} for name in _KEPT}
    for path in ["/mapping", *house.access.known_paths(who)]:
        top = path.split("/")[1] or "dc"
        places = {"vms": r"VM\.", "storage": r"Datastore\."} if top == "pool" else {top: _KEPT.get(top, "never")}
        for privilege in house.access.held(who, path):
            for place, kind in places.items():
                if re.match(kind, privilege):
                    found[place][privilege] = 1
    return found
