"""``fo init``: a complete env file, with everything generated that can be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funoffshore import config, errors
from funoffshore.cli import common

if TYPE_CHECKING:
    from funoffshore.config import lockfile
    from funoffshore.config.sections import Key

CHOSEN = (
    "MACHINES",
    "PROXMOX_NODES",
    "STORAGE_DISK",
    "STORAGE_IMAGE",
    "BRIDGE",
    "CONTROLLERS",
    "WORKERS",
    "WORKER_FIRST_IP",
    "GIT_BRANCH",
)
"""Asked although there is a default, for homes differ in them."""
CHOSEN_EXISTING = ("SSH_USER", "SSH_KNOWN_HOSTS")
"""Asked as well where the machines are there already."""
NOT_ASKED = ("CLUSTER_NAME",)
"""Known from the command."""


def init(
    name: Annotated[str, typer.Argument(help="Name of the cluster: a short DNS label.")],
    answer: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A value for the env file; repeat it. See docs/reference/config.md."
        ),
    ] = None,
    lab: Annotated[bool, typer.Option("--lab", help="A cluster in the embedded lab: nothing is asked.")] = False,
    pin: Annotated[
        bool, typer.Option(help="Fetch the digests of image, K3s and Flux, and write config/lock/NAME.yaml.")
    ] = True,
    ask: Annotated[bool, typer.Option(help="Ask at the terminal for what cannot be generated.")] = True,
) -> None:
    """Write config/env/NAME.env (0600): asks or takes values, generates keys, tokens and passwords.

    What the cluster is built from is pinned in config/lock/NAME.yaml, for Git; one that is there already is kept.

    Secrets are better typed at the prompt than given with --set, where the shell's history keeps them.

    With MACHINES=existing the machines are there already, and nothing of Proxmox is asked.

    Example: fo init home --set DOMAIN=example.org --set PROXMOX_URL=https://192.168.1.5:8006

    Example: fo init home --set MACHINES=existing --set CONTROLLERS=1 --set CONTROLLER_FIRST_IP=192.168.1.20
    """
    answers = _answers(answer or [])
    here = common.root()
    path = config.env_file(here, name)
    if path.exists() or path.is_symlink():
        raise errors.ConfigError(
            f"config/env/{name}.env is there already; nothing was changed", fix="choose another name, or move it away"
        )
    if lab:
        make_lab(here, name, answers)
    else:
        _make_real(here, name, answers, pin=pin, ask=ask and sys.stdin.isatty())
    common.say(f"wrote config/env/{name}.env, readable by you alone; next: fo doctor -c {name}")


def make_lab(here: Path, name: str, answers: dict[str, str] | None = None) -> Path:
    """Writes the env file of a lab cluster and returns its path from the repository. Raises ConfigError."""
    import uuid
    from ipaddress import IPv4Network

    from funoffshore.config import keys, new
    from funoffshore.lab.k3s.executable import digest
    from funoffshore.lab.pve import lab_fingerprint
    from funoffshore.lab.web import offers

    given = dict(answers or {})
    defaults = {key: made.default or "" for key, made in keys.known().keys.items()} | given
    given.setdefault("PROXMOX_TOKEN_SECRET", str(uuid.uuid4()))
    given.setdefault("K3S_SHA256", digest(defaults["K3S_VERSION"]))
    given.setdefault("K3S_SHA256_ARM64", digest(defaults["K3S_VERSION"], "arm64"))
    given.setdefault("FLUX_INSTALL_SHA256", offers.flux_install_sha256(defaults["FLUX_VERSION"]))
    given.setdefault("IMAGE_SHA256", offers.image_sha256())
    try:
        address = IPv4Network(given.get("SUBNET", new.LAB_SUBNET)).network_address + new.LAB_OFFSETS["proxmox"]
    except ValueError:
        raise errors.ConfigError("SUBNET is not an IPv4 network", fix="for example 127.77.0.0/24") from None
    given.setdefault("PROXMOX_FINGERPRINT", lab_fingerprint(given["PROXMOX_TOKEN_SECRET"], str(address)))
    path = config.env_file(here, name)
    text = new.generate(name, given, lab=True)
    config.parse(text, name, here)
    new.write(path, text)
    return path.relative_to(here)


def _answers(pairs: list[str]) -> dict[str, str]:
    answers = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise errors.ConfigError("--set takes KEY=VALUE", fix="for example --set DOMAIN=example.org")
        if key in answers:
            raise errors.ConfigError(f"--set gives {key} twice")
        answers[key] = value
    return answers


def _make_real(here: Path, name: str, answers: dict[str, str], *, pin: bool, ask: bool) -> None:
    from funoffshore.config import lockfile, new

    locked = lockfile.load(here, name)
    new.generate(name, answers, lab=False)  # refuses wrong keys before anybody is asked, at the terminal or elsewhere
    if ask:
        _ask(answers, name)
    if locked:
        common.say(f"{lockfile.shown(name)} is there and stays as it is")
    elif pin:
        locked = _pin(here, name, answers)
    text = new.generate(name, _as_locked(answers, locked), lab=False)
    new.write(config.env_file(here, name), text)
    _tell_of_existing(name, text)
    try:
        config.parse(text, name, here, lockfile.text(locked, name) if locked else None)
    except errors.ConfigError as left:
        common.say("what is still to be filled in or mended:")
        for line in left.evidence or (left.message,):
            common.say(f"  {line}")


def _tell_of_existing(name: str, text: str) -> None:
    """What must be done on machines that are there already, before fo can get in."""
    from funoffshore.config import envfile, keys, machines, sshkey, values

    seen, _ = values.read(envfile.parse(text.encode()), name, keys.known())
    existing = [draft.name for draft in machines.drafts(seen) if draft.made is False]
    if not existing:
        return
    if seen.get("SSH_AUTH") == "key" and seen.get("SSH_PRIVATE_KEY"):
        where = f"~{seen.get('SSH_USER', 'fo')}/.ssh/authorized_keys"
        common.say(f"put this line into {where} on {', '.join(existing)}; the user needs sudo:")
        common.say(f"  {sshkey.public(seen['SSH_PRIVATE_KEY'])} fo@{name}")
    if not seen.get("SSH_KNOWN_HOSTS"):
        common.say(
            "their host keys are not known: whatever they show at the first connection will be believed and recorded; "
            "SSH_KNOWN_HOSTS in the env file is safer"
        )


def _pin(here: Path, name: str, answers: dict[str, str]) -> lockfile.Lock | None:
    """Writes the lock file; None when a publisher gives no digests, which keeps nobody from the rest."""
    from funoffshore.config import lockfile, machines, needs, pins

    without = machines.makes(needs.of(answers, name)) is False  # machines that are there need no image
    sections = [section for section in lockfile.SECTIONS if section != "image" or not without]
    try:
        locked = pins.fetch(common.download, answers, sections)
    except errors.FoError as why:
        common.say(f"nothing was locked: {why.message}; run `fo lock update -c {name}` once that is mended")
        return None
    lockfile.write(here, name, locked)
    what = "K3s and Flux" if without else "image, K3s and Flux"
    common.say(f"wrote {lockfile.shown(name)}; commit it, it says which {what} this cluster is made of")
    return locked


def _as_locked(answers: dict[str, str], locked: lockfile.Lock | None) -> dict[str, str]:
    """The answers, and for the rest what is locked. The image's URL stays in the lock file, where it is renewed."""
    from funoffshore.config import pins

    if locked is None:
        return answers
    pairs = (("K3S_VERSION", "k3s.version"), ("FLUX_VERSION", "flux.version"), ("FLUX_INSTALL_URL", "flux.url"))
    filled = {key: locked.entries[path] for key, path in pairs if path in locked.entries} | answers
    if "image.url" in locked.entries and (not answers.get("IMAGE_URL") or pins.is_moving(answers["IMAGE_URL"])):
        filled["IMAGE_URL"] = ""
    return filled


def _ask(answers: dict[str, str], name: str) -> None:
    """Asks for everything that has no default and cannot be generated. An empty answer leaves the key for later."""
    from funoffshore.config import keys, new

    offered: dict[str, str] = {}
    for key in keys.known().keys.values():
        if key.name in answers or key.name in NOT_ASKED or not _is_asked(key, answers, name):
            continue
        common.say(f"\n{key.help}")
        default = offered.get(key.name) or key.default or ""
        said = typer.prompt(key.name, default=default, show_default=bool(default), hide_input=key.secret, err=True)
        if said.strip():
            answers[key.name] = said.strip()
        if key.name == "SUBNET" and said.strip():
            offered = new.suggest(said.strip())


def _is_asked(key: Key, answers: dict[str, str], name: str) -> bool:
    from funoffshore.config import keys, machines, needs, sections

    seen = needs.of(answers, name)
    if machines.makes(seen) is False:
        if any(key in section.keys for section in sections.OF_MADE):
            return False
        if key.name in CHOSEN_EXISTING:
            return True
    ours = key.generate not in ("", "lab-uuid")  # a Proxmox token is made by Proxmox, except in a lab
    table = keys.known()
    on = {switch.key: answers.get(switch.key, table.keys[switch.key].default) for switch in table.switches}
    needed = key.default is None and needs.is_needed(key, seen)
    return key.name in CHOSEN or (not ours and (needed or on.get(key.required_when) == "true"))
