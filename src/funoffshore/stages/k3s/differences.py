"""How a node differs from what it shall be, and what each difference asks for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml
from pydantic import SecretStr

from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import classes, files
from funoffshore.stages.k3s.facts import LABEL, K3sFacts, NodeFact
from funoffshore.world.ssh import HostFacts

BLOCKED_FIX = "put the old value back into the env file, or undo what somebody else changed on that host"
_FULL = re.compile(r"K10([0-9a-f]{64})::(server|node):(.+)")


class How(StrEnum):
    """What it takes to mend a difference."""

    LIVE = "live"
    """A file or the API; nothing restarts."""
    RESTART = "restart"
    UPGRADE = "upgrade"
    """A restart with another release, which only an upgrade may do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it shall be."""

    sentence: str
    """A clause without values."""
    how: How = How.RESTART


def of(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> list[Difference]:
    """Everything in which ``node``, which is in the cluster, differs."""
    return [
        *_binary(config, facts, node, host),
        *_beside(config, node, host),
        *_config(config, facts, node, host),
        *_running(config, facts, node),
        *_live(node, facts.node(node.name)),
    ]


def blocked(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> str:
    """Why fo must not touch the K3s of ``node``, or empty: settings that a living cluster does not survive."""
    there = read_settings(host.file(files.CONFIG))
    if node.role is NodeRole.CONTROLLER and there is not None:
        if isinstance(there.get("token"), str) and secret_of(there["token"]) != config.k3s.token.get_secret_value():
            return "the cluster was founded with another token than the env file's"
        wanted = files.settings(config, node)
        for key in classes.IMMUTABLE:
            if key in there and key in wanted and str(there[key]) != str(wanted[key]):
                return f"{key} cannot be changed on a living cluster (it is {there[key]}, not {wanted[key]})"
    seen = facts.node(node.name)
    if seen is None or not seen.arguments or seen.fingerprint != files.fingerprint(config, node):
        return ""
    if foreign := sorted(set(classes.differing(files.settings(config, node), seen.arguments))):
        return (
            f"it runs with other values of {', '.join(foreign)} than fo wrote: look for a drop-in in "
            "/etc/rancher/k3s/config.yaml.d, or for a unit that somebody changed"
        )
    return ""


def _binary(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> Iterator[Difference]:
    pinned = config.k3s.version
    match host.file(files.BINARY):
        case Present(binary) if binary.sha256 == config.k3s.digest(host.architecture) and binary.mode & 0o111:
            pass
        case Present():
            known = host.k3s_version or "of no known version"
            # What does not run, or is the pinned release in other bytes, is repaired; anything else is another release.
            how = How.RESTART if host.k3s_version in (None, pinned) else How.UPGRADE
            yield Difference(f"its K3s is {known}, not the pinned {pinned}", how)
        case Absent():
            yield Difference(f"{files.BINARY} is absent")
        case Unreadable(why):
            yield Difference(f"{files.BINARY} cannot be read ({why})")
    seen = facts.node(node.name)
    if seen is not None and seen.version and seen.version != pinned:
        yield Difference(f"it runs {seen.version}, not {pinned}", How.UPGRADE)


def _beside(config: ClusterConfig, node: Node, host: HostFacts) -> Iterator[Difference]:
    for one in files.beside(config, node):
        how = How.RESTART if one.restart else How.LIVE
        match host.file(one.path):
            case Present(there) if there.sha256 != one.sha256:
                yield Difference(f"{one.path} differs", how)
            case Present(there) if there.mode != one.mode:
                yield Difference(f"{one.path} has mode {there.mode:04o}", How.LIVE)
            case Absent():
                yield Difference(f"{one.path} is absent", how)
            case Unreadable(why):
                yield Difference(f"{one.path} cannot be read ({why})", how)


def _config(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> Iterator[Difference]:
    reading = host.file(files.CONFIG)
    there = read_settings(reading)
    if there is None or not isinstance(reading, Present):
        yield Difference(f"{files.CONFIG} is absent or no YAML")
        return
    if reading.value.mode != 0o600:
        yield Difference(f"{files.CONFIG} has mode {reading.value.mode:04o}", How.LIVE)
    entry = {key: value for key, value in there.items() if key in classes.ENTRY}
    if not entry_is_good(config, facts, node, entry):
        yield Difference(f"the way in ({', '.join(sorted(classes.ENTRY))}) in {files.CONFIG} differs")
        return
    if founds(entry):
        yield Difference(f"{files.CONFIG} would let it found another cluster if its data were lost", How.LIVE)
    text = files.config_yaml(config, node, entry)
    content = reading.value.content or SecretStr("")
    if content.get_secret_value() == text:
        return
    wanted: dict[str, Any] = yaml.safe_load(text)
    keys = sorted(str(k) for k in {*wanted, *there} if wanted.get(k) != there.get(k))
    # The node-label of fo itself stands there, too, and changes with whatever asks for a restart.
    restarts = [key for key in keys if key not in classes.LIVE] or _own_label(wanted) != _own_label(there)
    yield Difference(
        f"{files.CONFIG} differs in {', '.join(keys) if keys else 'its layout'}", How.RESTART if restarts else How.LIVE
    )


def _own_label(settings: Mapping[str, Any]) -> list[str]:
    labels = settings.get("node-label") or []
    return [label for label in labels if str(label).startswith(f"{LABEL}=")] if isinstance(labels, list) else []


def _running(config: ClusterConfig, facts: K3sFacts, node: Node) -> Iterator[Difference]:
    seen = facts.node(node.name)
    if seen is None or seen.fingerprint == files.fingerprint(config, node):
        return
    keys = classes.differing(files.settings(config, node), seen.arguments) if seen.arguments else []
    named = f" ({', '.join(keys)})" if keys else ""
    yield Difference(f"it was started with other settings{named}")


def _live(node: Node, seen: NodeFact | None) -> Iterator[Difference]:
    """Labels and taints that the Node does not carry, or still carries."""
    if seen is None:
        return
    labels = dict(node.labels)
    if any(seen.labels.get(key) != value for key, value in labels.items()) or set(seen.own_labels) != set(labels):
        yield Difference("its labels differ", How.LIVE)
    if not set(node.taints) <= set(seen.taints) or set(seen.own_taints) != set(node.taints):
        yield Difference("its taints differ", How.LIVE)


def founds(entry: Mapping[str, Any]) -> bool:
    """Whether a server with these keys and an empty disk begins a cluster of its own instead of joining."""
    return "server" not in entry


def entry_is_good(config: ClusterConfig, facts: K3sFacts, node: Node, entry: Mapping[str, Any]) -> bool:
    """Whether the keys by which a node came in could have been written by fo for this cluster."""
    token = str(entry.get("token", ""))
    if node.role is NodeRole.CONTROLLER and set(entry) == {"cluster-init", "token"}:
        return entry["cluster-init"] is True and token == config.k3s.token.get_secret_value()
    full = _FULL.fullmatch(token)
    if set(entry) != {"server", "token"} or entry["server"] != f"https://{config.network.vip}:6443" or not full:
        return False
    server = node.role is NodeRole.CONTROLLER
    secret = config.k3s.token if server else config.k3s.agent_token
    known = known_authority(facts)
    good = full[2] == ("server" if server else "node") and full[3] == secret.get_secret_value()
    return good and known in ("", full[1])


def known_authority(facts: K3sFacts) -> str:
    """SHA-256 of the cluster's authority, as far as it is known; else empty."""
    if isinstance(facts.ca_hash, Present):
        return facts.ca_hash.value
    return facts.kubeconfig.value.ca_hash if isinstance(facts.kubeconfig, Present) else ""


def read_settings(reading: Reading[Any]) -> dict[str, Any] | None:
    """config.yaml as a table; None when it is absent, unreadable or no table."""
    if not isinstance(reading, Present) or reading.value.content is None:
        return None
    try:
        table = yaml.safe_load(reading.value.content.get_secret_value())
    except (yaml.YAMLError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def secret_of(token: str) -> str:
    """The password in a token of either form."""
    full = _FULL.fullmatch(token)
    return full[3] if full else token
