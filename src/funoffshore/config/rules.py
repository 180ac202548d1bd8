"""What must hold between values. Each rule looks only at values that are right by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network

from funoffshore.config import (
    keys,
    kinds,
    lockfile,
    machines,
    needs,
    pins,
    rules_hosts,
    rules_k3s,
    rules_network,
)
from funoffshore.config.files import Problem
from funoffshore.config.model import Role
from funoffshore.config.values import Values

_URLS = ("PROXMOX_URL", "IMAGE_URL", "K3S_DOWNLOAD_URL", "FLUX_INSTALL_URL", "GIT_URL")
_HA_NODES = 3
"""Proxmox nodes without which the loss of one is the loss of the majority."""

_LOOPBACK = IPv4Network("127.0.0.0/8")


def all_of(values: Values, table: keys.Table) -> Iterator[Problem]:
    """Every problem that shows only when values are looked at together."""
    for rule in RULES:
        yield from rule(values)
    yield from needs.problems(values, table)
    yield from _required_secrets(values, table)


def _name(values: Values) -> Iterator[Problem]:
    if values.has("CLUSTER_NAME") and values["CLUSTER_NAME"] != values.stem:
        yield values.problem("CLUSTER_NAME", "differs from the name of the file, which is <CLUSTER_NAME>.env")


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
    if (
        machines.makes(values) is not True
        or not values.get("HIGH_AVAILABILITY")
        or not values.has("PROXMOX_NODES", "CONTROLLERS")
    ):
        return
    count, needed = len(values["PROXMOX_NODES"]), max(_HA_NODES, values["CONTROLLERS"])
    if count < needed:
        why = "a vote needs 3" if needed == _HA_NODES else "no two controllers may share one"
        yield values.problem("HIGH_AVAILABILITY", f"needs {needed} PROXMOX_NODES, as {why}; there are {count}")


def _host_keys(values: Values) -> Iterator[Problem]:
    """A host key that fo makes reaches the machine only in an ISO of fo's own."""
    if machines.makes(values) is not True or not values.has("SEED", "SSH_TRUST"):
        return
    if values["SEED"] == "drive" and values["SSH_TRUST"] in ("", "seed"):
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
        elif match[3] in keys.MADE_FIELDS and draft.made is False:
            yield values.problem(name, f"is for machines that fo makes, and {draft.name} is an existing one")
        elif match[3] == "MEMORY_MIB" and draft.role is Role.CONTROLLER and values[name] < 2048:
            yield values.problem(name, f"{values[name]} is less than the 2048 MiB that a controller needs")
        elif match[3] == "PROXMOX_NODE" and values[name] not in values.get("PROXMOX_NODES", (values[name],)):
            yield values.problem(name, "is not one of PROXMOX_NODES")


def _image(values: Values) -> Iterator[Problem]:
    if machines.makes(values) is not True or not values.has("IMAGE_URL", "IMAGE_SHA256", "IMAGE_SHA512"):
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
    """A cluster of existing arm64 machines alone needs no other binary; every machine that fo makes is amd64."""
    if values.has("K3S_SHA256", "K3S_SHA256_ARM64") and not values["K3S_SHA256"]:
        arm_alone = values["K3S_SHA256_ARM64"] and machines.makes(values) is False
        if not arm_alone:
            yield values.problem("K3S_SHA256", _unlocked(values, "give it here"))
    if values.has("FLUX_INSTALL_SHA256") and not values["FLUX_INSTALL_SHA256"]:
        yield values.problem("FLUX_INSTALL_SHA256", _unlocked(values, "give it here"))


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
        ("K3S_TOKEN_NEXT", "K3S_AGENT_TOKEN", "a worker could join as a server"),
        ("K3S_TOKEN", "K3S_AGENT_TOKEN_NEXT", "a worker could join as a server"),
        ("K3S_TOKEN_NEXT", "K3S_AGENT_TOKEN_NEXT", "a worker could join as a server"),
        ("HOST_KEY_SEED", "EVIDENCE_KEY", "the two keys must not be one"),
    ):
        if values.get(one) and values.get(one) == values.get(other):
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
    if not lab and any(mirror.startswith("http://") for _, mirror in values.get("REGISTRY_MIRRORS", ())):
        yield values.problem("REGISTRY_MIRRORS", "names an http:// one, which is only for LAB=embedded")


def _places(values: Values) -> Iterator[tuple[str, str, bool]]:
    """Where the values lead: key, what leads there, whether it is on loopback."""
    if values.has("SUBNET"):
        # A network that only partly is loopback fails either way; see rules_network for the smallest prefix.
        yield "SUBNET", str(values["SUBNET"]), values["SUBNET"].overlaps(_LOOPBACK)
    for key, what, address, made in rules_network.addressed(values):
        if made is False or not values.has("SUBNET"):
            yield key, f"{what} ({IPv4Address(address)})", IPv4Address(address).is_loopback
    for server in values.get("DNS_SERVERS", ()):
        yield "DNS_SERVERS", str(server), server.is_loopback
    for key in (*_URLS, "LAB_WEB_URL"):
        if values.has(key) and values[key]:
            yield key, "its host", kinds.is_loopback(kinds.host_of(values[key]))
    for _, mirror in values.get("REGISTRY_MIRRORS", ()):
        yield "REGISTRY_MIRRORS", mirror, kinds.is_loopback(kinds.host_of(mirror))
    if endpoint := values.get("ETCD_S3_ENDPOINT"):
        yield "ETCD_S3_ENDPOINT", "it", kinds.is_loopback(kinds.host_of(f"https://{endpoint}"))


RULES: tuple[Callable[[Values], Iterator[Problem]], ...] = (
    _name,
    *rules_network.RULES,
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
    *rules_hosts.RULES,
    *rules_k3s.RULES,
    _git,
    _lab,
)
