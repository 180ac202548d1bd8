"""The firewall of the datacenter and of each machine: options and rules, kept and shown, not enforced.

Facts from pve-firewall ``PVE/API2/Firewall/Rules.pm``, ``VM.pm``, ``Cluster.pm`` and ``PVE/Firewall.pm``; recorded from
a real 8.4 API.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.refusal import die, invalid, invalid_fields

DATACENTER = "cluster"
_STALE = "detected modified configuration - file changed by other user? Try again."
_NOT_FIELDS = frozenset(("node", "vmid", "pos", "moveto", "delete", "digest"))
_WITH_PORTS = frozenset(("tcp", "udp", "udplite", "sctp", "dccp", "6", "17", "icmp", "ipv6-icmp", "icmpv6"))
_NUMBERS = frozenset(("enable", "dhcp", "ipfilter", "macfilter", "ndp", "radv", "ebtables"))


def _document(house: House, name: str) -> dict[str, Any]:
    return house.shelf("firewall").get(name) or {"options": {}, "rules": []}


def _name(call: Call) -> str:
    return str(call.vmid)


def _digest(entries: Sequence[Mapping[str, Any]]) -> str:
    text = "".join(f"{key}:{entry[key]}\n" for entry in entries for key in sorted(entry))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _refuse_stale(call: Call, entries: Sequence[Mapping[str, Any]]) -> None:
    if call.text("digest") not in ("", _digest(entries)):
        raise die(_STALE)


def _given(call: Call) -> dict[str, Any]:
    """What the call sets, numbers as numbers."""
    names = sorted(set(call.values) - _NOT_FIELDS)
    return {name: call.number(name) if name in _NUMBERS else call.text(name) for name in names}


def options(name: str = "") -> Callable[[Call], dict[str, Any]]:
    """The handler of GET …/firewall/options, of one document or of the machine in the path."""

    def show(call: Call) -> dict[str, Any]:
        found = _document(call.house, name or _name(call))["options"]
        return {**found, "digest": _digest([found])}

    return show


def set_options(name: str = "") -> Callable[[Call], None]:
    """The handler of PUT …/firewall/options."""

    def change(call: Call) -> None:
        shelf = call.house.shelf("firewall")
        with shelf.guard:
            document = _document(call.house, name or _name(call))
            _refuse_stale(call, [document["options"]])
            gone = pveapi.split_list(call.text("delete"))
            kept = {key: value for key, value in document["options"].items() if key not in gone}
            shelf.put(name or _name(call), {**document, "options": {**kept, **_given(call)}})

    return change


def rules(call: Call) -> list[dict[str, Any]]:
    """GET …/firewall/rules, first one first."""
    found = _document(call.house, _name(call))["rules"]
    return [{**entry, "pos": number, "digest": _digest(found)} for number, entry in enumerate(found)]


def rule(call: Call) -> dict[str, Any]:
    """GET …/firewall/rules/{pos}."""
    found = rules(call)
    return found[_position(call, found)]


def _position(call: Call, found: Sequence[object]) -> int:
    pos = call.number("pos")
    if pos >= len(found):
        raise invalid(pos=f"no rule at position {pos}")
    return pos


def add_rule(call: Call) -> None:
    """POST …/firewall/rules: at the top, whatever ``pos`` says, and disabled unless told otherwise."""
    entry = {"enable": 0, **_given(call)}
    _verify(entry)
    shelf = call.house.shelf("firewall")
    with shelf.guard:
        document = _document(call.house, _name(call))
        _refuse_stale(call, document["rules"])
        shelf.put(_name(call), {**document, "rules": [entry, *document["rules"]]})


def change_rule(call: Call) -> None:
    """PUT …/firewall/rules/{pos}: other values, or with ``moveto`` another place."""
    shelf = call.house.shelf("firewall")
    with shelf.guard:
        document = _document(call.house, _name(call))
        found = list(document["rules"])
        _refuse_stale(call, found)
        pos = _position(call, found)
        if "moveto" in call.values:
            entry = found.pop(pos)
            target = call.number("moveto")
            found.insert(target - 1 if target > pos else target, entry)
        else:
            gone = pveapi.split_list(call.text("delete"))
            entry = {key: value for key, value in {**found[pos], **_given(call)}.items() if key not in gone}
            _verify(entry)
            found[pos] = entry
        shelf.put(_name(call), {**document, "rules": found})


def delete_rule(call: Call) -> None:
    """DELETE …/firewall/rules/{pos}."""
    shelf = call.house.shelf("firewall")
    with shelf.guard:
        document = _document(call.house, _name(call))
        _refuse_stale(call, document["rules"])
        pos = _position(call, document["rules"])
        left = [entry for number, entry in enumerate(document["rules"]) if number != pos]
        shelf.put(_name(call), {**document, "rules": left})


def _verify(entry: Mapping[str, Any]) -> None:
    """Refuses rules that Proxmox cannot make sense of with 400."""
    errors: dict[str, str] = {}
    kind, action, protocol = entry.get("type", ""), str(entry.get("action", "")), str(entry.get("proto", "")).lower()
    if kind == "group":
        errors["action"] = f"no such security group '{action}'"
    elif action not in ("ACCEPT", "DROP", "REJECT"):
        errors["action"] = f"unknown action '{action}'"
    if "iface" in entry and not re.fullmatch(r"net\d+", str(entry["iface"])):
        errors["iface"] = "value does not match the regex pattern 'net\\d+'"
    for port in ("dport", "sport"):
        if port in entry and not protocol:
            errors["proto"] = f"missing property - '{port}' requires this property"
        elif port in entry and protocol not in _WITH_PORTS:
            errors[port] = f"protocol '{protocol}' does not support ports"
    if errors:
        raise invalid_fields(errors)


def forget(house: House, vmid: int) -> None:
    """A machine that is destroyed takes its firewall configuration along."""
    house.shelf("firewall").delete(str(vmid))
