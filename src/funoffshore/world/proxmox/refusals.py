"""What Proxmox says when it says no, as our errors; and what a caller may want to know of such an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from funoffshore import errors
from funoffshore.world.proxmox.grants import grant_line

_GATEWAY = frozenset({595, 596, 597, 598, 599, 502, 503, 504})
_UNCHANGED = re.compile(r"can't lock file '.*' - got timeout|got lock request timeout", re.DOTALL)
_BUSY = re.compile(
    r"got no worker upid|no worker upid|start worker failed|got lock timeout - aborting command"
    r"|VM is locked \((?:backup|snapshot)\)"
)
_ID_FIX = (
    "Check PROXMOX_TOKEN_ID (user@realm!name) and PROXMOX_TOKEN_SECRET; `pveum user token list <user@realm>` on the "
    "Proxmox host shows what exists."
)
_RENEW_FIX = "Make a new one on the Proxmox host: `pveum user token add <user@realm> <name>`, and set PROXMOX_TOKEN_*."
_STRIP_FIX = "PROXMOX_URL must lead to Proxmox itself: what stands in between must pass the Authorization header on."
_UNAUTHORISED = (
    (r"No ticket|no tokenid specified", "no token has reached it", _STRIP_FIX),
    (r"invalid (PVE )?ticket|csrf token|invalid.*ticket", "it was shown a login ticket, and fo uses a token only",
     "PROXMOX_URL must lead to Proxmox itself: something in between adds a login cookie."),
    (r"access expired", "the token, or its user, has expired", _RENEW_FIX),
    (r"no such user|user .* is disabled", "it does not know the user, or has disabled it", _ID_FIX),
    (r"no such token|not a valid token ID", "it does not know a token of that name", _ID_FIX),
    (r"invalid token value", "the token's secret is wrong", _ID_FIX),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Context:
    """Who was asked what, by whom."""

    url: str
    token_id: str
    method: str
    path: str


class AnswerError(Exception):
    """An answer with a status of 400 or more."""

    def __init__(self, status: int, text: str, fields: Mapping[str, object]) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.fields = fields


def silence(asked: Context, why: str) -> errors.UnreachableError:
    return errors.UnreachableError(
        f"Proxmox at {asked.url} did not answer {asked.method} {asked.path}: {why}",
        fix="Check PROXMOX_URL, that the host is up, and that port 8006 can be reached from here.",
    )


def refusal(asked: Context, why: AnswerError) -> errors.FoError:
    """The error for an answer that is one."""
    if why.status in _GATEWAY:
        return _gateway(asked, why)
    if why.status == 401:
        return _unauthorised(asked, why.text)
    if why.status == 403:
        return _forbidden(asked, why.text)
    if "RPCEnvironment init request failed" in why.text:
        # Its configuration file system is being restarted, and comes back by itself.
        return silence(asked, why.text)
    evidence = tuple(f"{name}: {' '.join(str(said).split())}" for name, said in sorted(why.fields.items()))
    return errors.RefusedError(
        f"Proxmox refused {asked.method} {asked.path}: {why.text or why.status}"
        + (f" ({'; '.join(evidence)})" if evidence else ""),
        status=why.status,
        evidence=evidence,
    )


def _gateway(asked: Context, why: AnswerError) -> errors.UnreachableError:
    """595 and 596 come from a pveproxy that is alive, about whom it passed the call on to (pve-http-server)."""
    text = f"{why.status} {why.text}".strip()
    named = re.match(r"/nodes/([^/]+)", asked.path)
    if not named or why.status not in (595, 596, 599):
        return silence(asked, text)
    peer = named[1]
    if "certificate verify failed" in why.text:
        return errors.UnreachableError(
            f"Proxmox node {peer} was not asked {asked.method} {asked.path}: {asked.url} does not trust its "
            f"certificate ({text}). Proxmox' nodes distrust each other; the pin of fo has no part in it.",
            fix=f"On {peer}: `pvecm updatecerts --force && systemctl restart pveproxy`.",
        )
    if why.status == 595:
        return errors.UnreachableError(
            f"Proxmox node {peer} did not answer {asked.method} {asked.path}: {asked.url} is up, but cannot reach that "
            f"node ({text})",
            fix=f"Check that {peer} is up and on the network (`pvecm status` on another node), or take it out of "
            "PROXMOX_NODES.",
        )
    return errors.UnreachableError(
        f"Proxmox node {peer} did not answer {asked.method} {asked.path} in time ({text}); what was asked for may "
        "still be done",
        fix=f"Look at the load and the log of {peer} (`journalctl -u pvedaemon`), then run the same command again.",
    )


def _unauthorised(asked: Context, text: str) -> errors.PreflightError:
    known = ((meaning, fix) for pattern, meaning, fix in _UNAUTHORISED if re.search(pattern, text))
    meaning, fix = next(known, ("", _ID_FIX))
    detail = f"{meaning} ({text})" if meaning else text or "401"
    return errors.PreflightError(
        f"Proxmox at {asked.url} does not accept the token {asked.token_id}: {detail}",
        fix=fix if fix == _ID_FIX else f"{fix} {_ID_FIX}",
    )


def _forbidden(asked: Context, text: str) -> errors.PreflightError:
    named = re.search(r"\((/[^,]*), ([^)]+)\)", text)
    if not named:
        # Creating without VM.Allocate is refused without a name for what is missing (recorded).
        creating = asked.method == "POST" and asked.path.endswith("/qemu")
        what = "VM.Allocate on /vms" if creating else f"it says no more than: {text or 403}"
        path, privilege = ("/vms", "VM.Allocate") if creating else ("", "")
    else:
        path, privilege = named[1], named[2].split("|")[0]
        what = f"{named[2]} on {path}"
    return errors.PreflightError(
        f"the Proxmox token lacks a privilege for {asked.method} {asked.path}: {what}",
        fix="On the Proxmox host: " + grant_line(asked.token_id, path, [privilege], "fo-extra")
        if path
        else "`fo doctor` lists every privilege that is missing, with the lines that grant it.",
        evidence=(text,),
    )


def is_missing(why: errors.RefusedError) -> bool:
    """Whether the refusal says that there is no such VM (pve-guest-common AbstractConfig.pm)."""
    return "Configuration file" in why.message and "does not exist" in why.message


def already_exists(why: errors.RefusedError) -> bool:
    """Whether the refusal says that the id, or the name, is taken already."""
    return "already exists" in why.message


def has_changed(why: errors.FoError) -> bool:
    """Whether a write that carried a digest came too late: somebody else has changed the configuration since."""
    return "checksum mismatch (file change by other user?)" in why.message


def is_unchanged(why: errors.FoError) -> bool:
    """Whether the other side did nothing at all, as it did not get the lock that it needs."""
    return isinstance(why, errors.RefusedError) and why.status == 500 and bool(_UNCHANGED.search(why.message))


def is_busy(why: errors.FoError) -> bool:
    """Whether Proxmox was too busy (a lock, no free worker), at once or in the task: read again, then repeat."""
    if not isinstance(why, (errors.RefusedError, errors.TaskFailedError)):
        return False
    return bool(_UNCHANGED.search(why.message) or _BUSY.search(why.message))
