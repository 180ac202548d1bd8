"""What must hold between values. Each rule looks only at values that are right by themselves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network

from funoffshore.config import keys, kinds, lockfile, machines, pins
from funoffshore.config.files import Problem
from funoffshore.config.model import Role
from funoffshore.config.values import Values

_URLS = ("PROXMOX_URL", "IMAGE_URL", "K3S_DOWNLOAD_URL", "FLUX_INSTALL_URL", "GIT_URL")
_POD_PREFIX = 24
"""Prefix length of the part of CLUSTER_CIDR that each machine gets (kube-controller-manager, node-cidr-mask-size)."""

_HA_NODES = 3
"""Proxmox nodes without which the loss of one is the loss of the majority."""

_LOOPBACK = IPv4Network("127.0.0.0/8")
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
"""Never a destination (RFC 1122, 3.2.1.3)."""


def all_of(values: Values, table: keys.Table) -> Iterator[Problem]:
    """Every problem that shows only when values are looked at together."""
    for rule in RULES:
        yield from rule(values)
    yield from _required_secrets(values, table)


def _name(values: Values) -> Iterator[Problem]:
    if values.has("CLUSTER_NAME") and values["CLUSTER_NAME"] != values.stem:
        yield values.problem("CLUSTER_NAME", "differs from the name of the file, which is <CLUSTER_NAME>.env")


def _subnet(values: Values) -> Iterator[Problem]:
    if not values.has("SUBNET"):
        return
    subnet: IPv4Network = values["SUBNET"]
    if not 8 <= subnet.prefixlen <= 29:
        yield values.problem("SUBNET", "has a prefix outside /8 to /29")
    if subnet.is_multicast or subnet.is_link_local or subnet.is_reserved or subnet.overlaps(_THIS_NETWORK):
        yield values.problem("SUBNET", f"{subnet} is not a network for machines")


def _addresses(values: Values) -> Iterator[Problem]:
    """Inside the subnet, and none used twice."""
    if not values.has("SUBNET"):
        return
    subnet: IPv4Network = values["SUBNET"]
    seen: dict[int, tuple[str, str]] = {}
    for key, what, address in _addressed(values):
        text = IPv4Address(address)
        if text not in subnet:
            yield values.problem(key, f"{what} would have {text}, which is outside SUBNET {subnet}")
        elif text in (subnet.network_address, subnet.broadcast_address):
            kind = "network" if text == subnet.network_address else "broadcast"
            yield values.problem(key, f"{what} would have {text}, the {kind} address of SUBNET {subnet}")
        elif address in seen:
            other_key, other = seen[address]
            yield values.problem(key, f"{what} would have {text}, which {other} has already ({other_key})")
        else:
            seen[address] = (key, what)


def _addressed(values: Values) -> Iterator[tuple[str, str, int]]:
    """Every address in the subnet: its key, who has it, the address."""
    for key, what in (("GATEWAY", "the gateway"), ("VIP", "the VIP")):
        if values.has(key):
            yield key, what, int(values[key])
    for draft in machines.drafts(values):
        if draft.address is not None:
            yield draft.address_key, draft.name, draft.address


def _name_servers(values: Values) -> Iterator[Problem]:
    """A name server may be the gateway, or anywhere; not one of the machines, and not the VIP."""
    taken = {address: (key, what) for key, what, address in _addressed(values)}
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
    for one, other in itertools.combinations(names, 2):
        if values[one].overlaps(values[other]):
            yield values.problem(other, f"{values[other]} overlaps with {one} {values[one]}")
    for name in names:
        if name != "SUBNET" and (values[name].is_loopback or values[name].is_multicast):
            yield values.problem(name, f"{values[name]} is not a network for pods or services")
    if values.has("CLUSTER_CIDR", "CONTROLLERS", "WORKERS"):
        count = values["CONTROLLERS"] + values["WORKERS"]
        room = 2 ** max(_POD_PREFIX - values["CLUSTER_CIDR"].prefixlen, -1)
        if room < count:
            text = f"{values['CLUSTER_CIDR']} has room for {int(room)} machines (a /24 each), not for {count}"
            yield values.problem("CLUSTER_CIDR", text)
    if values.has("SERVICE_CIDR") and not 12 <= values["SERVICE_CIDR"].prefixlen <= 24:
        yield values.problem("SERVICE_CIDR", "has a prefix outside /12 to /24")  # kube-apiserver takes at most 20 bits


def _vmids(values: Values) -> Iterator[Problem]:
    seen: dict[int, tuple[str, str]] = {}
    for draft in machines.drafts(values):
        if draft.vmid is None:
            continue
        if draft.vmid in seen:
            other_key, other = seen[draft.vmid]
            text = f"{draft.name} would have {draft.vmid}, which {other} has already ({other_key})"
            yield values.problem(draft.vmid_key, text)
        else:
            seen[draft.vmid] = (draft.vmid_key, draft.name)


def _vmid_range(values: Values) -> Iterator[Problem]:
    """It holds the first choice of every machine whose VMID is not its operator's own."""
    if not values.has("VMID_FIRST", "VMID_LAST"):
        return
    last = machines.last_vmid(values)
    if last < values["VMID_FIRST"]:
        yield values.problem("VMID_LAST", f"{last} is less than VMID_FIRST, {values['VMID_FIRST']}")
        return
    wanted = [(d.vmid, d.name) for d in machines.drafts(values) if d.vmid is not None and not d.vmid_pinned]
    beyond = [(vmid, name) for vmid, name in wanted if vmid > last]
    if beyond:
        vmid, name = max(beyond)
        yield values.problem("VMID_LAST", f"is {last}, and {name} would have {vmid}; give at least that")


def _high_availability(values: Values) -> Iterator[Problem]:
    if not values.get("HIGH_AVAILABILITY") or not values.has("PROXMOX_NODES", "CONTROLLERS"):
        return
    count, needed = len(values["PROXMOX_NODES"]), max(_HA_NODES, values["CONTROLLERS"])
    if count < needed:
        why = "a vote needs 3" if needed == _HA_NODES else "no two controllers may share one"
        yield values.problem("HIGH_AVAILABILITY", f"needs {needed} PROXMOX_NODES, as {why}; there are {count}")


def _host_keys(values: Values) -> Iterator[Problem]:
    """A host key that fo makes reaches the machine only in an ISO of fo's own."""
    if values.has("SEED", "SSH_TRUST") and values["SEED"] == "drive" and values["SSH_TRUST"] == "seed":
        text = "is seed, and Proxmox' own drive (SEED=drive) carries no host key; give agent, or first-use"
        yield values.problem("SSH_TRUST", text)


def _overrides(values: Values) -> Iterator[Problem]:
    """Settings of single machines: the machine exists, and the value fits its role."""
    labels = {draft.label: draft for draft in machines.drafts(values)}
    for name in values.parsed:
        match = keys.NODE_KEY.fullmatch(name)
        if match is None or not labels:
            continue
        draft = labels.get(match[1] + match[2])
        if draft is None:
            count = "CONTROLLERS" if match[1] == "C" else "WORKERS"
            role = "controller" if match[1] == "C" else "worker"
            yield values.problem(name, f"there is no {role} {match[2]}, as {count} is {values[count]}")
        elif match[3] == "MEMORY_MIB" and draft.role is Role.CONTROLLER and values[name] < 2048:
            yield values.problem(name, f"{values[name]} is less than the 2048 MiB that a controller needs")
        elif match[3] == "PROXMOX_NODE" and values[name] not in values.get("PROXMOX_NODES", (values[name],)):
            yield values.problem(name, "is not one of PROXMOX_NODES")


def _image(values: Values) -> Iterator[Problem]:
    if not values.has("IMAGE_URL", "IMAGE_SHA256", "IMAGE_SHA512"):
        return
    if not values.get("IMAGE_TEMPLATE"):
        if not values["IMAGE_URL"]:
            yield values.problem("IMAGE_URL", f"is empty, and there is no {lockfile.shown(values.stem)} that names one")
        if not values["IMAGE_SHA256"] and not values["IMAGE_SHA512"]:
            yield values.problem("IMAGE_SHA512", _unlocked(values, "give it or IMAGE_SHA256 here"))
    if values["IMAGE_SHA256"] and values["IMAGE_SHA512"]:
        yield values.problem("IMAGE_SHA512", "is given beside IMAGE_SHA256; give only one of them")


def moving_image(values: Values) -> Iterator[Problem]:
    if values.has("IMAGE_URL") and pins.is_moving(values["IMAGE_URL"]):
        text = "leads to another image after each release; give a dated one, or leave it empty and run `fo lock update`"
        yield values.problem("IMAGE_URL", text)


def _pins(values: Values) -> Iterator[Problem]:
    for key in ("K3S_SHA256", "FLUX_INSTALL_SHA256"):
        if values.has(key) and not values[key]:
            yield values.problem(key, _unlocked(values, "give it here"))


def _unlocked(values: Values, otherwise: str) -> str:
    update = f"run `fo lock update -c {values.stem}`, which writes {lockfile.shown(values.stem)}"
    return f"is required and missing: {update}, or {otherwise}"


def flux_release(values: Values) -> Iterator[Problem]:
    """A version raised in one key and forgotten in the other would install the old one."""
    if values.has("FLUX_VERSION", "FLUX_INSTALL_URL"):
        found = re.search(r"/(v2\.[0-9]+\.[0-9]+)/", values["FLUX_INSTALL_URL"])
        if found and found[1] != values["FLUX_VERSION"]:
            text = f"is of release {found[1]}, and FLUX_VERSION is {values['FLUX_VERSION']}"
            yield values.problem("FLUX_INSTALL_URL", text)


def _tokens(values: Values) -> Iterator[Problem]:
    for one, other, why in (
        ("K3S_TOKEN", "K3S_AGENT_TOKEN", "a worker could join as a server"),
        ("HOST_KEY_SEED", "EVIDENCE_KEY", "the two keys must not be one"),
    ):
        if values.has(one, other) and values[one] == values[other]:
            yield values.problem(other, f"is the same as {one}; {why}")


def _git(values: Values) -> Iterator[Problem]:
    if not values.has("GIT_URL"):
        return
    ssh = values["GIT_URL"].startswith("ssh://")
    for key in ("GIT_SSH_KEY", "GIT_KNOWN_HOSTS"):
        if ssh and values.has(key) and not values[key]:
            yield values.problem(key, "is required when GIT_URL is an ssh:// one")
        if not ssh and key in values.given:
            yield values.problem(key, "is given, and GIT_URL is not an ssh:// one")
    if ssh and "GIT_TOKEN" in values.given:
        yield values.problem("GIT_TOKEN", "is given, and GIT_URL is an ssh:// one; it takes GIT_SSH_KEY")


def _required_secrets(values: Values, table: keys.Table) -> Iterator[Problem]:
    for key in table.keys.values():
        on = key.required_when and values.get(key.required_when) is True
        if on and values.has(key.name) and not values[key.name]:
            yield values.problem(key.name, f"is required while {key.required_when} is true")


def _lab(values: Values) -> Iterator[Problem]:
    """A lab lives on loopback alone, and nothing else does."""
    if not values.has("LAB"):
        return
    lab = bool(values["LAB"])
    if lab and values.has("LAB_WEB_URL") and not values["LAB_WEB_URL"]:
        yield values.problem("LAB_WEB_URL", "is required in a lab")
    if not lab and "LAB_WEB_URL" in values.given:
        yield values.problem("LAB_WEB_URL", "is only for a lab, and LAB is empty")
    for key, what, loopback in _places(values):
        if lab and not loopback:
            yield values.problem(key, f"{what} is not on loopback (127.0.0.0/8), and LAB=embedded lives there alone")
        if not lab and loopback:
            yield values.problem(key, f"{what} is on loopback, which is only for LAB=embedded")
    for key in ("IMAGE_URL", "K3S_DOWNLOAD_URL", "FLUX_INSTALL_URL", "GIT_URL"):
        if not lab and values.has(key) and values[key].startswith("http://"):
            yield values.problem(key, "is an http:// one, which is only for LAB=embedded")


def _places(values: Values) -> Iterator[tuple[str, str, bool]]:
    """Where the values lead: key, what leads there, whether it is on loopback."""
    if values.has("SUBNET"):
        # A network that only partly is loopback fails either way; see _subnet for the smallest prefix.
        yield "SUBNET", str(values["SUBNET"]), values["SUBNET"].overlaps(_LOOPBACK)
    for server in values.get("DNS_SERVERS", ()):
        yield "DNS_SERVERS", str(server), server.is_loopback
    for key in (*_URLS, "LAB_WEB_URL"):
        if values.has(key) and values[key]:
            yield key, "its host", kinds.is_loopback(kinds.host_of(values[key]))


RULES: tuple[Callable[[Values], Iterator[Problem]], ...] = (
    _name,
    _subnet,
    _addresses,
    _name_servers,
    _workers,
    _networks,
    _vmids,
    _vmid_range,
    _high_availability,
    _host_keys,
    _overrides,
    _image,
    moving_image,
    flux_release,
    _pins,
    _tokens,
    _git,
    _lab,
)
