"""What must hold between the values about hosts and the way to them. Each rule looks only at values that are right by
themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from funoffshore.config import knownhosts, machines
from funoffshore.config.files import Problem
from funoffshore.config.values import Values

_FOR_MADE = {
    "HIGH_AVAILABILITY": "and existing machines are nothing that Proxmox could restart",
    "FIREWALL": "and the firewall of existing machines is their owner's",
    "VM_BACKUP_STORAGE": "and fo backs up no existing machine",
}
"""Keys that would do nothing where all machines exist, and whose operator would believe that they do."""


def _only_existing(values: Values) -> Iterator[Problem]:
    if machines.makes(values) is not False:
        return
    for key, why in _FOR_MADE.items():
        if values.get(key):
            yield values.problem(key, f"is given, and fo makes no machine here, {why}")


def _root(values: Values) -> Iterator[Problem]:
    """The seed of a machine that fo makes forbids root to log in."""
    if values.get("SSH_USER") == "root" and machines.makes(values) is not False:
        yield values.problem("SSH_USER", "is root; on machines that it makes fo logs in as a user with sudo")


def _trust(values: Values) -> Iterator[Problem]:
    """Who can know a host key how."""
    drafts = machines.drafts(values)
    if not values.has("SSH_TRUST", "SSH_KNOWN_HOSTS") or not drafts or any(draft.made is None for draft in drafts):
        return
    trust, known = values["SSH_TRUST"], values["SSH_KNOWN_HOSTS"]
    made = [draft.name for draft in drafts if draft.made]
    if not made and trust in ("seed", "agent"):
        how = "no seed of fo's" if trust == "seed" else "no guest agent that fo could ask"
        yield values.problem("SSH_TRUST", f"is {trust}, and existing machines have {how}; give known, or first-use")
    if made and trust == "known":
        text = f"is known, and {made[0]} is made by fo; SSH_TRUST speaks of those, SSH_KNOWN_HOSTS of existing ones"
        yield values.problem("SSH_TRUST", text)
    if not made and trust == "known" and not known:
        yield values.problem("SSH_KNOWN_HOSTS", "is required with SSH_TRUST=known")
    if not made and trust == "first-use" and known:
        yield values.problem("SSH_KNOWN_HOSTS", "is given, and SSH_TRUST is first-use; give one of them")
    if known and len(made) == len(drafts):
        yield values.problem("SSH_KNOWN_HOSTS", "is given, and no machine is an existing one")
    elif known and values.has("SSH_PORT"):
        yield from _unknown(values, drafts)


def _unknown(values: Values, drafts: list[machines.Draft]) -> Iterator[Problem]:
    """The machines whose key is not among the known ones."""
    for draft in drafts:
        if draft.made or draft.address is None:
            continue
        address = str(IPv4Address(draft.address))
        wanted = knownhosts.names(address, draft.name, values["SSH_PORT"])
        if not knownhosts.has_key(values["SSH_KNOWN_HOSTS"], wanted):
            yield values.problem("SSH_KNOWN_HOSTS", f"has no ed25519 key for {draft.name} ({wanted[0]})")


def _auth(values: Values) -> Iterator[Problem]:
    """Of the keys to log in with, those that SSH_AUTH speaks of, and no others."""
    if not values.has("SSH_AUTH"):
        return
    auth = values["SSH_AUTH"]
    for key, wanted in (("SSH_PRIVATE_KEY", "key"), ("SSH_KEY_FILE", "file"), ("SSH_KEY_PASSPHRASE", "file")):
        if key in values.given and auth != wanted:
            yield values.problem(key, f"is given, and SSH_AUTH is {auth}; it goes with {wanted}")


def _sudo(values: Values) -> Iterator[Problem]:
    drafts = machines.drafts(values)
    if "SSH_SUDO_PASSWORD" in values.given and drafts and all(draft.made for draft in drafts):
        yield values.problem("SSH_SUDO_PASSWORD", "is given, and fo makes all machines; their sudo asks for none")


def _jump(values: Values) -> Iterator[Problem]:
    if not values.has("SSH_JUMP", "SSH_JUMP_HOST_KEY"):
        return
    if values["SSH_JUMP"] and not values["SSH_JUMP_HOST_KEY"]:
        yield values.problem("SSH_JUMP_HOST_KEY", "is required with SSH_JUMP")
    if values["SSH_JUMP_HOST_KEY"] and not values["SSH_JUMP"]:
        yield values.problem("SSH_JUMP_HOST_KEY", "is given without SSH_JUMP")


RULES: tuple[Callable[[Values], Iterator[Problem]], ...] = (_only_existing, _root, _trust, _auth, _sudo, _jump)
