"""What must hold between networks and addresses. Each rule looks only at values that are right by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from funoffshore.config import machines
from funoffshore.config.files import Problem
from funoffshore.config.values import Values

_POD_PREFIX = 24
"""Prefix length of the part of CLUSTER_CIDR that each machine gets (kube-controller-manager, node-cidr-mask-size)."""

_POD_PREFIX_V6 = 64
"""The same of CLUSTER_CIDR_V6 (node-cidr-mask-size-ipv6)."""

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
"""Never a destination (RFC 1122, 3.2.1.3)."""


def addressed(values: Values) -> Iterator[tuple[str, str, int, bool | None]]:
    """Every address that somebody has: its key, who has it, the address, and False where that is an existing machine.

    A VIP that is the only controller's own address is not listed beside it.
    """
    drafts = machines.drafts(values)
    own = drafts[0].address if values.get("CONTROLLERS") == 1 and drafts else None
    for key, what in (("GATEWAY", "the gateway"), ("VIP", "the VIP")):
        if values.has(key) and (key == "GATEWAY" or int(values[key]) != own):
            yield key, what, int(values[key]), None
    for draft in drafts:
        if draft.address is not None:
            yield draft.address_key, draft.name, draft.address, draft.made


def _subnet(values: Values) -> Iterator[Problem]:
    if not values.has("SUBNET"):
        return
    subnet: IPv4Network = values["SUBNET"]
    if not 8 <= subnet.prefixlen <= 29:
        yield values.problem("SUBNET", "has a prefix outside /8 to /29")
    if subnet.is_multicast or subnet.is_link_local or subnet.is_reserved or subnet.overlaps(_THIS_NETWORK):
        yield values.problem("SUBNET", f"{subnet} is not a network for machines")


def _addresses(values: Values) -> Iterator[Problem]:
    """Inside the subnet, unless the machine exists, and none used twice."""
    seen: dict[int, tuple[str, str]] = {}
    for key, what, address, made in addressed(values):
        text = IPv4Address(address)
        fault = _outside(values.get("SUBNET"), text, free=made is False)
        if fault:
            yield values.problem(key, f"{what} would have {text}, {fault}")
        elif address in seen:
            other_key, other = seen[address]
            yield values.problem(key, f"{what} would have {text}, which {other} has already ({other_key})")
        else:
            seen[address] = (key, what)


def _outside(subnet: IPv4Network | None, address: IPv4Address, *, free: bool) -> str:
    """Why nobody in ``subnet`` can have ``address``; empty when one can. ``free``: it need not be inside."""
    if address.is_multicast or address.is_reserved or address.is_link_local or address in _THIS_NETWORK:
        return "which no machine can have" if subnet is None or address in subnet or free else _beyond(subnet)
    if subnet is None or (free and address not in subnet):
        return ""
    if address not in subnet:
        return _beyond(subnet)
    if address in (subnet.network_address, subnet.broadcast_address):
        kind = "network" if address == subnet.network_address else "broadcast"
        return f"the {kind} address of SUBNET {subnet}"
    return ""


def _beyond(subnet: IPv4Network) -> str:
    return f"which is outside SUBNET {subnet}"


def _name_servers(values: Values) -> Iterator[Problem]:
    """A name server may be the gateway, or anywhere; not one of the machines, and not the VIP."""
    taken = {address: (key, what) for key, what, address, _ in addressed(values)}
    if values.has("GATEWAY"):
        taken.pop(int(values["GATEWAY"]), None)
    for server in values.get("DNS_SERVERS", ()):
        if int(server) in taken:
            key, what = taken[int(server)]
            yield values.problem("DNS_SERVERS", f"{server} is the address of {what} ({key})")
    if values.has("DNS_SERVERS") and len(values["DNS_SERVERS"]) > 3:
        yield values.problem("DNS_SERVERS", "names more than 3 servers; resolv.conf(5) takes no more")


def _workers(values: Values) -> Iterator[Problem]:
    if values.has("WORKERS", "WORKER_FIRST_IP") and values["WORKERS"] and values["WORKER_FIRST_IP"] is None:
        numbers = range(1, values["WORKERS"] + 1)
        if not all(f"NODE_W{n}_IP" in values.lines for n in numbers):
            yield values.problem("WORKER_FIRST_IP", f"is required when WORKERS is {values['WORKERS']}")


def _networks(values: Values) -> Iterator[Problem]:
    names = [name for name in ("SUBNET", "CLUSTER_CIDR", "SERVICE_CIDR") if values.has(name)]
    yield from _overlaps(values, names)
    inner = [name for name in names if name != "SUBNET"]
    for name in inner:
        if values[name].is_loopback or values[name].is_multicast:
            yield values.problem(name, f"{values[name]} is not a network for pods or services")
    for key, what, address, made in addressed(values):
        for name in inner if made is False or not values.has("SUBNET") else ():
            if IPv4Address(address) in values[name]:
                text = f"{what} would have {IPv4Address(address)}, which is in {name} {values[name]}"
                yield values.problem(key, text)
    if values.has("CLUSTER_CIDR", "CONTROLLERS", "WORKERS"):
        count = values["CONTROLLERS"] + values["WORKERS"]
        room = 2 ** max(_POD_PREFIX - values["CLUSTER_CIDR"].prefixlen, -1)
        if room < count:
            text = f"{values['CLUSTER_CIDR']} has room for {int(room)} machines (a /24 each), not for {count}"
            yield values.problem("CLUSTER_CIDR", text)
    if values.has("SERVICE_CIDR") and not 12 <= values["SERVICE_CIDR"].prefixlen <= 24:
        yield values.problem("SERVICE_CIDR", "has a prefix outside /12 to /24")  # kube-apiserver takes at most 20 bits


def _overlaps(values: Values, names: list[str]) -> Iterator[Problem]:
    for one, other in itertools.combinations(names, 2):
        if values[one].overlaps(values[other]):
            yield values.problem(other, f"{values[other]} overlaps with {one} {values[one]}")


# IPv6


def _dual_stack(values: Values) -> Iterator[Problem]:
    """Both networks or none; without them nothing else of IPv6."""
    if not values.has("CLUSTER_CIDR_V6", "SERVICE_CIDR_V6"):
        return
    given = [name for name in ("CLUSTER_CIDR_V6", "SERVICE_CIDR_V6") if values[name]]
    if len(given) == 1:
        missing = "SERVICE_CIDR_V6" if given == ["CLUSTER_CIDR_V6"] else "CLUSTER_CIDR_V6"
        yield values.problem(missing, f"is required beside {given[0]}")
    if given:
        return
    own = [f"NODE_{draft.label}_IPV6" for draft in machines.drafts(values)]
    for name in ("SUBNET_V6", "GATEWAY_V6", *own):
        if values.get(name):
            yield values.problem(name, "is given, and CLUSTER_CIDR_V6 and SERVICE_CIDR_V6 are not")


def _networks_v6(values: Values) -> Iterator[Problem]:
    names = [name for name in ("SUBNET_V6", "CLUSTER_CIDR_V6", "SERVICE_CIDR_V6") if values.get(name)]
    yield from _overlaps(values, names)
    for name in names:
        network: IPv6Network = values[name]
        if network.is_multicast or network.is_link_local or network.is_unspecified or network.prefixlen < 16:
            yield values.problem(name, f"{network} is not a network for machines, pods or services")
    if "SUBNET_V6" in names and not 32 <= values["SUBNET_V6"].prefixlen <= 112:
        yield values.problem("SUBNET_V6", "has a prefix outside /32 to /112")
    # kube-apiserver takes at most 20 bits (--secondary-service-cluster-ip-range)
    if "SERVICE_CIDR_V6" in names and not 108 <= values["SERVICE_CIDR_V6"].prefixlen <= 120:
        yield values.problem("SERVICE_CIDR_V6", "has a prefix outside /108 to /120")
    if "CLUSTER_CIDR_V6" in names and values.has("CONTROLLERS", "WORKERS"):
        prefix, count = values["CLUSTER_CIDR_V6"].prefixlen, values["CONTROLLERS"] + values["WORKERS"]
        # kube-controller-manager takes at most 16 bits between both prefixes
        if not _POD_PREFIX_V6 - 16 <= prefix <= _POD_PREFIX_V6:
            yield values.problem("CLUSTER_CIDR_V6", "has a prefix outside /48 to /64; each machine gets a /64 of it")
        elif 2 ** (_POD_PREFIX_V6 - prefix) < count:
            room = f"has room for {2 ** (_POD_PREFIX_V6 - prefix)} machines (a /64 each), not for {count}"
            yield values.problem("CLUSTER_CIDR_V6", f"{values['CLUSTER_CIDR_V6']} {room}")


def _addresses_v6(values: Values) -> Iterator[Problem]:
    """Every machine of a dual-stack cluster has one, and none has another's."""
    if not values.get("CLUSTER_CIDR_V6") or not values.has("SUBNET_V6", "GATEWAY_V6"):
        return
    yield from _gateway_v6(values)
    gateway: IPv6Address | None = values["GATEWAY_V6"]
    seen = {gateway: ("GATEWAY_V6", "the gateway")} if gateway else {}
    for draft in machines.drafts(values):
        own = f"NODE_{draft.label}_IPV6"
        key = own if own in values.lines else "SUBNET_V6"
        address = machines.address_v6(values, draft)
        if address is None:
            if not values["SUBNET_V6"] and own not in values.lines:
                yield values.problem("SUBNET_V6", f"is required for the IPv6 address of {draft.name}, or give {own}")
        elif fault := _unusable_v6(values, address, made=draft.made is True):
            yield values.problem(key, f"{draft.name} would have {address}, {fault}")
        elif address in seen:
            other_key, other = seen[address]
            yield values.problem(key, f"{draft.name} would have {address}, which {other} has already ({other_key})")
        else:
            seen[address] = (key, draft.name)


def _gateway_v6(values: Values) -> Iterator[Problem]:
    gateway: IPv6Address | None = values["GATEWAY_V6"]
    subnet: IPv6Network | None = values["SUBNET_V6"]
    if gateway is None:
        return
    if subnet is None:
        yield values.problem("GATEWAY_V6", "is given without SUBNET_V6")
    elif not gateway.is_link_local and gateway not in subnet:
        yield values.problem("GATEWAY_V6", f"the gateway would have {gateway}, which is outside SUBNET_V6 {subnet}")


def _unusable_v6(values: Values, address: IPv6Address, *, made: bool) -> str:
    subnet: IPv6Network | None = values["SUBNET_V6"]
    if address.is_multicast or address.is_link_local or address.is_unspecified or address.is_loopback:
        return "which no machine can have"
    if made and subnet is None:
        return "and SUBNET_V6 does not say how long its prefix is"
    if made and subnet is not None and address not in subnet:
        return f"which is outside SUBNET_V6 {subnet}"
    if subnet is not None and address == subnet.network_address:
        return f"the network address of SUBNET_V6 {subnet}"
    for name in ("CLUSTER_CIDR_V6", "SERVICE_CIDR_V6"):
        if values.get(name) and address in values[name]:
            return f"which is in {name} {values[name]}"
    return ""


RULES: tuple[Callable[[Values], Iterator[Problem]], ...] = (
    _subnet,
    _addresses,
    _name_servers,
    _workers,
    _networks,
    _dual_stack,
    _networks_v6,
    _addresses_v6,
)
