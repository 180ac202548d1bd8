"""Users, tokens and groups made, changed and deleted; who has which role where.

Facts from pve-access-control ``PVE/API2/User.pm``, ``Group.pm``, ``Role.pm``, ``ACL.pm``, ``Domains.pm``.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve.access import ROOT
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.refusal import RefusalError, die, forbidden, invalid

_REALMS = (
    {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication"},
    {"realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server"},
)
_PROFILE = ("comment", "email", "firstname", "lastname", "keys")


def users(call: Call) -> list[dict[str, Any]]:
    """GET /access/users: all for whoever may see that, else only oneself."""
    everybody = call.may("/access/groups", "User.Modify", "Sys.Audit")
    found = []
    for name in _people(call):
        row = _shown(call, name)
        if (not everybody and name != call.caller.user) or (
            "enabled" in call.values and row["enable"] != call.number("enabled")
        ):
            continue
        groups = row.pop("groups")
        if call.flag("full"):
            row |= {"groups": ",".join(groups), "tokens": _tokens(call, name)}
        found.append({"userid": name, "realm-type": name.rpartition("@")[2], **row})
    return found


def _people(call: Call) -> list[str]:
    """Everybody with a password, or with a token."""
    known = {name.partition("!")[0] for name in call.house.access.names() if not name.startswith("@")}
    return sorted({ROOT, *known})


def _shown(call: Call, name: str) -> dict[str, Any]:
    body = call.house.access.record(name) or {}
    found = {"enable": int(body.get("enable", 1)), "expire": int(body.get("expires", 0))}
    return {**found, **{key: body[key] for key in _PROFILE if body.get(key)}, "groups": list(body.get("groups", []))}


def user(call: Call) -> dict[str, Any]:
    """GET /access/users/{userid}."""
    name = _existing(call)
    tokens = {row.pop("tokenid"): row for row in _tokens(call, name)}
    return {**_shown(call, name), **({"tokens": tokens} if tokens else {})}


def _existing(call: Call, doing: str = "") -> str:
    name = call.text("userid")
    if name not in _people(call):
        raise die(f"{doing}no such user ('{name}')")
    return name


def _check_password(call: Call) -> None:
    least = 5 if call.house.release < "8.4" else 8
    if "password" in call.values and len(call.text("password")) < least:
        raise invalid(password=f"value must be at least {least} characters long")


def _described(call: Call) -> dict[str, Any]:
    """The profile as asked for. Refuses groups that are not there."""
    groups = pveapi.split_list(call.text("groups"))
    for group in groups:
        if call.house.access.record(f"@{group}") is None:
            raise die(f"no such group '{group}'")
    found: dict[str, Any] = {key: call.text(key) for key in _PROFILE if key in call.values}
    found |= {"groups": groups} if "groups" in call.values else {}
    found |= {"enable": call.number("enable")} if "enable" in call.values else {}
    return {**found, **({"expires": call.number("expire")} if "expire" in call.values else {})}


def add_user(call: Call) -> None:
    """POST /access/users."""
    _check_password(call)
    name, realm = call.text("userid"), call.text("userid").rpartition("@")[2]
    if realm not in [known["realm"] for known in _REALMS]:
        raise die(f"create user failed: domain '{realm}' does not exist")
    if name in _people(call):
        raise die(f"create user failed: user '{name}' already exists")
    profile = {"enable": 1, **_described(call)}
    call.house.access.change(name, secret=call.text("password") or None, **profile)


def change_user(call: Call) -> None:
    """PUT /access/users/{userid}."""
    name = _existing(call, "update user failed: ")
    profile = _described(call)
    if call.flag("append"):
        profile["groups"] = sorted({*_shown(call, name)["groups"], *profile["groups"]})
    call.house.access.change(name, **profile)


def delete_user(call: Call) -> None:
    """DELETE /access/users/{userid}: with all tokens."""
    call.house.access.forget(_existing(call, "delete user failed: "))


def set_password(call: Call) -> None:
    """PUT /access/password: for people only."""
    if "!" in call.caller.token_id:
        raise forbidden("URI '/access/password' not available with API token, need proper ticket.\n")
    _check_password(call)
    name = _existing(call)
    call.house.access.change(name, secret=call.text("password"))


def _tokens(call: Call, name: str) -> list[dict[str, Any]]:
    found = []
    for known in call.house.access.names():
        owner, sign, token = known.partition("!")
        if owner == name and sign:
            body = call.house.access.record(known) or {}
            row = {"tokenid": token, "expire": int(body.get("expires", 0)), "privsep": int(body.get("privsep", 1))}
            found.append({**row, **({"comment": body["comment"]} if body.get("comment") else {})})
    return found


def tokens(call: Call) -> list[dict[str, Any]]:
    """GET /access/users/{userid}/token."""
    return _tokens(call, _existing(call))


def token(call: Call) -> dict[str, Any]:
    """GET /access/users/{userid}/token/{tokenid}."""
    for row in _tokens(call, _existing(call)):
        if row.pop("tokenid") == call.text("tokenid"):
            return row
    raise die(f"no such token '{call.text('tokenid')}' for user '{call.text('userid')}'")


def add_token(call: Call) -> dict[str, Any]:
    """POST /access/users/{userid}/token/{tokenid}: its secret is in this answer and never again."""
    name, short = _existing(call), call.text("tokenid")
    full, privsep = f"{name}!{short}", call.number("privsep", 1)
    if call.house.access.exists(full):
        raise invalid(tokenid="Token already exists.")
    secret, expire = str(uuid.uuid4()), call.number("expire")
    what = {"privsep": privsep, "expires": expire, "comment": call.text("comment")}
    call.house.access.change(full, secret=secret, **what)
    info = {"privsep": str(privsep), **({"expire": str(expire)} if expire else {})}
    return {"full-tokenid": full, "info": info, "value": secret}


def delete_token(call: Call) -> None:
    """DELETE /access/users/{userid}/token/{tokenid}."""
    token(call)
    call.house.access.forget(f"{call.text('userid')}!{call.text('tokenid')}")


def groups(call: Call) -> list[dict[str, Any]]:
    """GET /access/groups."""
    if not call.may("/access/groups", "User.Modify", "Sys.Audit", "Group.Allocate"):
        return []
    names = [name for name in call.house.access.names() if name.startswith("@")]
    return [
        {"groupid": name[1:], "users": ",".join(_members(call, name[1:])), **_comment(call, name)} for name in names
    ]


def _members(call: Call, group: str) -> list[str]:
    return [name for name in _people(call) if group in _shown(call, name)["groups"]]


def _comment(call: Call, name: str) -> dict[str, str]:
    comment = (call.house.access.record(name) or {}).get("comment")
    return {"comment": comment} if comment else {}


def group(call: Call) -> dict[str, Any]:
    """GET /access/groups/{groupid}."""
    name = _group(call)
    return {"members": _members(call, name[1:]), **_comment(call, name)}


def _group(call: Call, doing: str = "") -> str:
    name = f"@{call.text('groupid')}"
    if not call.house.access.exists(name):
        raise die(f"{doing}group '{name[1:]}' does not exist")
    return name


def add_group(call: Call) -> None:
    """POST /access/groups."""
    name = f"@{call.text('groupid')}"
    if call.house.access.exists(name):
        raise die(f"create group failed: group '{name[1:]}' already exists")
    call.house.access.change(name, comment=call.text("comment"))


def change_group(call: Call) -> None:
    """PUT /access/groups/{groupid}."""
    call.house.access.change(_group(call, "update group failed: "), comment=call.text("comment"))


def delete_group(call: Call) -> None:
    """DELETE /access/groups/{groupid}: its members stay users."""
    name = _group(call, "delete group failed: ")
    for member in _members(call, name[1:]):
        left = [group for group in _shown(call, member)["groups"] if group != name[1:]]
        call.house.access.change(member, groups=left)
    call.house.access.forget(name)


def realms(_: Call) -> list[dict[str, str]]:
    """GET /access/domains: for everybody, as it is there before the login."""
    return [dict(realm) for realm in _REALMS]


def realm(call: Call) -> dict[str, str]:
    """GET /access/domains/{realm}."""
    for known in _REALMS:
        if known["realm"] == call.text("realm"):
            return {key: value for key, value in known.items() if key != "realm"}
    raise die(f"domain '{call.text('realm')}' does not exist")


def rights(call: Call) -> list[dict[str, Any]]:
    """GET /access/acl: every entry, for whoever may see that."""
    found = []
    for path, name, role, propagate in call.house.access.granted():
        if call.may("/access", "Sys.Audit") or call.may(path, "Permissions.Modify"):
            kind = "group" if name.startswith("@") else "token" if "!" in name else "user"
            row = {"path": path, "ugid": name.lstrip("@"), "type": kind, "roleid": role, "propagate": propagate}
            found.append(row)
    return found


def set_rights(call: Call) -> None:
    """PUT /access/acl: gives roles to users, tokens and groups at a path, or takes them away."""
    path = "/" + "/".join(part for part in call.text("path").split("/") if part)
    if not re.fullmatch(r"/|(?:/(?:access|mapping|nodes|pool|sdn|storage|vms))(?:/[^/\s]+)*", path):
        raise invalid(path=f"invalid ACL path '{call.text('path')}'")
    kinds = {"users": "", "tokens": "", "groups": "@"}
    if not any(kind in call.values for kind in kinds):
        raise invalid(**dict.fromkeys(kinds, "either 'users', 'groups' or 'tokens' is required."))
    wanted, known = pveapi.split_list(call.text("roles")), _known(call)
    for role in wanted:
        if role not in known and not call.flag("delete"):
            raise die(f"ACL update failed: role '{role}' does not exist")
    for kind, mark in kinds.items():
        for name in pveapi.split_list(call.text(kind)):
            _set_rights(call, path, f"{mark}{name}", kind.removesuffix("s"), wanted)


def _set_rights(call: Call, path: str, name: str, kind: str, wanted: list[str]) -> None:
    access = call.house.access
    if not access.exists(name):
        if kind != "user" or name not in _people(call):
            raise die(f"ACL update failed: {kind} '{name.lstrip('@')}' does not exist")
        access.change(name)
    for role in wanted:
        access.grant(name, path, role, None if call.flag("delete") else call.number("propagate", 1))


def _known(call: Call) -> dict[str, list[str]]:
    return {**call.house.access.roles(), **call.house.access.builtin()}


def roles(call: Call) -> list[dict[str, Any]]:
    """GET /access/roles: those that are always there, then those that somebody made."""
    special = call.house.access.builtin()
    found = [{"roleid": role, "privs": ",".join(privs), "special": 1} for role, privs in special.items()]
    made = sorted(call.house.access.roles().items())
    return found + [{"roleid": role, "privs": ",".join(privs), "special": 0} for role, privs in made]


def role(call: Call) -> dict[str, int]:
    """GET /access/roles/{roleid}."""
    return dict.fromkeys(_role(call), 1)


def _role(call: Call, doing: str = "") -> list[str]:
    found = _known(call).get(call.text("roleid"))
    if found is None:
        raise die(f"{doing}role '{call.text('roleid')}' does not exist")
    return found


def _privileges(call: Call) -> list[str]:
    found = pveapi.split_list(call.text("privs"))
    for privilege in found:
        if privilege not in call.house.access.everything():
            raise invalid(privs=f"invalid format - invalid privilege '{privilege}'\n")
    return found


def add_role(call: Call) -> None:
    """POST /access/roles."""
    name = call.text("roleid")
    if name in _known(call):
        raise die(f"create role failed: role '{name}' already exists")
    if name.startswith("PVE") and call.house.release >= "8":
        raise invalid(roleid="cannot use role ID starting with the (case-insensitive) 'PVE' namespace")
    call.house.access.save_role(name, _privileges(call))


def _own_role(call: Call, doing: str) -> list[str]:
    if call.text("roleid") in call.house.access.builtin():
        raise _reserved(call, doing)
    return _role(call, f"{doing} role failed: ")


def _reserved(call: Call, doing: str) -> RefusalError:
    what = "modified" if doing == "update" else "deleted"
    return die(f"auto-generated role '{call.text('roleid')}' cannot be {what}")


def change_role(call: Call) -> None:
    """PUT /access/roles/{roleid}."""
    before = _own_role(call, "update")
    call.house.access.save_role(call.text("roleid"), {*_privileges(call), *(before if call.flag("append") else [])})


def delete_role(call: Call) -> None:
    """DELETE /access/roles/{roleid}: whoever had it has it no more."""
    _own_role(call, "delete")
    call.house.access.save_role(call.text("roleid"), None)
