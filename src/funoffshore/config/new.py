"""A new env file: what ``fo init`` writes. Generates every secret that is ours to choose."""

from __future__ import annotations

import base64
import os
import secrets
import string
import uuid
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from funoffshore import atomic, errors
from funoffshore.config import age, envfile, keys, machines, needs, place, render, sections, sshkey
from funoffshore.config.sections import Key
from funoffshore.config.values import Values

LAB_SUBNET = "127.77.0.0/24"
"""Of the lab cluster, unless its operator gives another one."""
LAB_OFFSETS = {"gateway": 1, "proxmox": 2, "web": 3, "vip": 10, "controller": 11, "worker": 21}
"""Who lives where in a lab's subnet."""
_LAB_WEB_PORT = 8088
_HOME_OFFSETS = {"GATEWAY": 1, "DNS_SERVERS": 1, "VIP": 40, "CONTROLLER_FIRST_IP": 41, "WORKER_FIRST_IP": 51}

_ALPHABET = string.ascii_letters + string.digits


def _password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(32))


def _ssh_key() -> str:
    return base64.b64encode(sshkey.generate().encode()).decode()


_GENERATORS: Mapping[str, Callable[[], str]] = {
    "hex32": lambda: secrets.token_hex(16),
    "hex64": lambda: secrets.token_hex(32),
    "password": _password,
    "ssh-key": _ssh_key,
    "age": lambda: age.identity(secrets.token_bytes(32)),
    "lab-uuid": lambda: str(uuid.uuid4()),
}


def secret(key: str) -> str:
    """A fresh value for the secret key ``key``. Raises KeyError for a key whose value is not ours to choose."""
    return _GENERATORS[keys.known().keys[key].generate]()


def suggest(subnet: str) -> dict[str, str]:
    """Addresses for a cluster in ``subnet``, by key: what ``fo init`` offers. Raises ConfigError when it is none."""
    return {key: str(_address(subnet, offset)) for key, offset in _HOME_OFFSETS.items()}


def generate(name: str, answers: Mapping[str, str], *, lab: bool) -> str:
    """The text of a complete env file for cluster ``name``: answers, else generated, else defaults.

    ``answers`` is by key and wins over everything. A required key that nobody answered stays empty, and reading the
    file reports it; ``loader.parse`` tells before it is written. In a lab nothing stays empty but what only the lab
    itself knows: PROXMOX_FINGERPRINT, IMAGE_SHA256, K3S_SHA256, FLUX_INSTALL_SHA256. Where no machine is made by fo,
    what is only for those is left out. Raises ConfigError for a name that is none, an answer to no key, or one that an
    env file cannot hold.
    """
    place.env_file(Path(), name)
    table = keys.known()
    if wrong := [key for key in answers if table.find(key) is None]:
        message = f"there is no such key: {', '.join(sorted(wrong))}"
        raise errors.ConfigError(message, fix="see docs/reference/config.md")
    given = {"CLUSTER_NAME": name, **answers}
    seen = needs.of({**given, **({"LAB": "embedded"} if lab else {})}, name)
    filled = _lab_values(given) if lab else _home_values(given)
    pointless = {k.name for k in table.keys.values() if k.required_for != "vip" and not needs.is_needed(k, seen)}
    filled = {name: "" if name in pointless else text for name, text in filled.items()}
    values = {key.name: given.get(key.name, filled.get(key.name, "")) for key in table.keys.values()}
    remark = {}
    if values["SOPS_AGE_KEY"]:
        remark["SOPS_AGE_KEY"] = f"Its public half, for .sops.yaml: {_recipient(values['SOPS_AGE_KEY'])}"
    single = {key: text for key, text in answers.items() if key not in table.keys}
    intro = f"Cluster {name}, written by `fo init`. Holds secrets: mode 0600, never in Git, kept in a safe place."
    for key in (*values, *single):
        try:
            envfile.quote(values.get(key, single.get(key, "")))
        except ValueError as why:
            raise errors.ConfigError(f"{key}: {why}") from None
    unused = () if lab else _unused(seen, given)
    return render.env_text(intro, lambda key: values[key.name], remark=remark, single=single, without=unused)


def _unused(seen: Values, given: Mapping[str, str]) -> list[str]:
    """Sections that say nothing about machines that are there already, and of which nothing was answered."""
    if machines.makes(seen) is not False:
        return []
    return [s.title for s in sections.OF_MADE if not any(given.get(key.name) for key in s.keys)]


def write(path: Path, text: str) -> None:
    """Makes the env file, 0600, whole or not at all. Raises ConfigError when something is there already."""
    shown = place.shown(path, place.root(path.parent))
    if os.path.lexists(path):
        raise _exists(shown)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.create(path, text.encode())
    except OSError as why:
        if os.path.lexists(path):
            raise _exists(shown) from None
        raise errors.ConfigError(f"{shown} cannot be written: {why.strerror}") from None


def _exists(shown: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"{shown} exists already, and fo never overwrites an env file",
        fix="choose another name, or move the file away if its cluster is gone",
    )


def _home_values(given: Mapping[str, str]) -> dict[str, str]:
    values = {key.name: key.default or _fresh(key, lab=False) for key in keys.known().keys.values()}
    if given.get("SUBNET"):
        values |= suggest(given["SUBNET"])
    version = given.get("FLUX_VERSION", values["FLUX_VERSION"])
    values["FLUX_INSTALL_URL"] = values["FLUX_INSTALL_URL"].replace(values["FLUX_VERSION"], version)
    return values


def _lab_values(given: Mapping[str, str]) -> dict[str, str]:
    """Everything follows from the subnet; third parties' tokens are random, as the lab knows no third party."""
    subnet = given.get("SUBNET", LAB_SUBNET)
    fill = {what: str(_address(subnet, offset)) for what, offset in LAB_OFFSETS.items()}
    fill |= {
        "subnet": subnet,
        "web": given.get("LAB_WEB_URL", f"http://{fill['web']}:{_LAB_WEB_PORT}"),
        "flux_version": given.get("FLUX_VERSION", keys.known().keys["FLUX_VERSION"].default or ""),
    }
    values = {}
    for key in keys.known().keys.values():
        made = key.lab.format(**fill) if key.lab is not None else key.default or _fresh(key, lab=True)
        values[key.name] = made or (key.example if key.default is None else "")
    switches = {switch.key: given.get(switch.key, values[switch.key]) for switch in keys.known().switches}
    for key in keys.known().keys.values():
        needed = key.default is None or switches.get(key.required_when) == "true"
        if key.secret and needed and not values[key.name]:
            values[key.name] = "lab-" + secrets.token_hex(16)
    return values


def _fresh(key: Key, *, lab: bool) -> str:
    if not key.generate or (key.generate == "lab-uuid" and not lab):
        return ""
    return _GENERATORS[key.generate]()


def _address(subnet: str, offset: int) -> IPv4Address:
    try:
        return IPv4Network(subnet).network_address + offset
    except ValueError:
        raise errors.ConfigError("SUBNET: is not an IPv4 network, like 192.168.1.0/24") from None


def _recipient(identity: str) -> str:
    try:
        return age.recipient(identity)
    except ValueError as why:
        raise errors.ConfigError(f"SOPS_AGE_KEY: {why}") from None
