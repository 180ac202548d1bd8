"""From facts to actions. Pure: this module has no world in reach, so it cannot act."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml
from pydantic import SecretStr

from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import files
from funoffshore.stages.k3s.facts import K3sFacts, Role, cluster_exists, role_of, unreadable
from funoffshore.world.ssh import HostFacts

STAGE = "k3s"
FOUNDS = "no controller holds K3s data, so this one founds the cluster"
"""The only reason on which ``apply`` may found a cluster."""
_FULL = re.compile(r"K10([0-9a-f]{64})::(server|node):(.+)")


class Kind(StrEnum):
    """What an action does to its node; decides what it must wait for."""

    FOUND = "found"
    JOIN = "join"
    START = "start"
    """Its unit is down; it may be needed for the quorum of the others, so it waits for none of them."""
    RESTART = "restart"
    WAIT = "wait"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Need:
    """What one node needs, and why."""

    kind: Kind
    reason: str

    @property
    def verb(self) -> Verb:
        if self.kind in (Kind.FOUND, Kind.JOIN):
            return Verb.CREATE
        return Verb.CHANGE if self.kind in (Kind.START, Kind.RESTART) else Verb.WAIT


def plan(config: ClusterConfig, facts: K3sFacts) -> list[Action]:
    """Everything between reachable hosts and a cluster of Ready nodes with a proven kubeconfig."""
    needs = {node.name: need for node in config.nodes if (need := need_of(config, facts, node))}
    chain = _chain(config, facts, needs)
    actions = [_server(node, needs, chain) for node in chain if node.name in needs]
    lead = {f"k3s/{config.controllers[0].name}", *(f"k3s/{node.name}" for node in chain[:1])}
    for node in config.workers:
        if need := needs.get(node.name):
            after = frozenset({*lead, f"host/{node.name}"})
            key = f"k3s/{node.name}"
            actions.append(Action(need.verb, key, need.reason, after, lane="agents", stage=STAGE, on=node.name))
    return [*actions, *_kubeconfig(config, facts, frozenset(lead))]


def need_of(config: ClusterConfig, facts: K3sFacts, node: Node) -> Need | None:
    """None when the node is as desired."""
    host, role = facts.host(node.name), role_of(config, facts, node)
    if isinstance(host, Unreadable):
        return Need(Kind.UNKNOWN, f"its host cannot be read ({host.why})")
    if role is Role.UNKNOWN:
        return Need(Kind.UNKNOWN, unreadable(config, facts, (node, *config.controllers)))
    if role is Role.FOUND:
        return Need(Kind.FOUND, FOUNDS)
    if role is Role.JOIN:
        again = ", and the cluster still remembers an earlier machine of that name" if facts.node(node.name) else ""
        return Need(Kind.JOIN, f"it has no K3s yet{again}")
    if isinstance(host, Absent):  # role_of never says KEEP of a host that is not there
        raise ValueError(f"{node.name} holds data and is absent")
    if why := blocked(config, node, host.value):
        return Need(Kind.WAIT, why)
    return _upkeep(config, facts, node, host.value)


def _upkeep(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> Need | None:
    """What a node that is in the cluster needs."""
    wrong = [*file_differences(config, facts, node, host), *_running_differences(config, facts, node)]
    unit = host.unit(files.unit_name(node))
    if isinstance(unit, Unreadable):
        return Need(Kind.UNKNOWN, f"its unit cannot be read ({unit.why})")
    active = unit.value.active if isinstance(unit, Present) else "absent"
    if active in ("inactive", "failed", "absent", "deactivating"):
        down = f"{files.unit_name(node)} is {active}"
        return Need(Kind.START, "; ".join([down, *wrong]))
    if isinstance(unit, Present) and unit.value.enabled != "enabled":
        wrong.append(f"{files.unit_name(node)} is not enabled")
    if wrong:
        return Need(Kind.RESTART, "; ".join(wrong))
    if active != "active":
        return Need(Kind.WAIT, f"{files.unit_name(node)} is {active}")
    return _api_need(facts, node)


def _api_need(facts: K3sFacts, node: Node) -> Need | None:
    match facts.nodes:
        case Absent():
            return Need(Kind.WAIT, "whether it is Ready cannot be told without a kubeconfig")
        case Unreadable(why):
            return Need(Kind.WAIT, f"the API does not answer ({why})")
    seen = facts.node(node.name)
    if seen is None and node.role is NodeRole.WORKER:
        return Need(Kind.RESTART, "the cluster has forgotten it, so it joins again")
    if seen is None:
        return Need(Kind.WAIT, "the cluster does not know it")
    if not seen.ready:
        return Need(Kind.WAIT, f"it is not Ready ({seen.said})")
    if node.role is NodeRole.CONTROLLER and not seen.voter:
        return Need(Kind.WAIT, "it does not vote in etcd yet")
    return None


def blocked(config: ClusterConfig, node: Node, host: HostFacts) -> str:
    """Why fo must not touch the K3s of ``node``, or empty: settings that a living cluster does not survive."""
    there = read_settings(host.file(files.CONFIG))
    if node.role is NodeRole.WORKER or there is None:
        return ""
    if isinstance(there.get("token"), str) and _secret(there["token"]) != config.k3s.token.get_secret_value():
        return "the cluster was founded with another token than the env file's"
    wanted = files.settings(config, node)
    for key in files.FIXED:
        if key in there and key in wanted and str(there[key]) != str(wanted[key]):
            return f"{key} cannot be changed on a living cluster (it is {there[key]}, not {wanted[key]})"
    return ""


def file_differences(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> list[str]:
    """What is not as it shall be among the files of ``node``, as clauses without values."""
    found = []
    match host.file(files.BINARY):
        case Present(binary) if binary.sha256 == config.k3s.sha256 and binary.mode & 0o111:
            pass
        case Present():
            found.append(f"its K3s is {host.k3s_version or 'of no known version'}, not {config.k3s.version}")
        case Absent():
            found.append(f"{files.BINARY} is absent")
        case Unreadable(why):
            found.append(f"{files.BINARY} cannot be read ({why})")
    unit = host.file(files.unit_path(node))
    content = unit.value.content if isinstance(unit, Present) else None
    if content is None or content.get_secret_value() != files.unit(node):
        found.append(f"{files.unit_path(node)} differs")
    return found + _config_differences(config, facts, node, host)


def _config_differences(config: ClusterConfig, facts: K3sFacts, node: Node, host: HostFacts) -> list[str]:
    reading = host.file(files.CONFIG)
    there = read_settings(reading)
    if there is None or not isinstance(reading, Present):
        return [f"{files.CONFIG} is absent or no YAML"]
    if reading.value.mode != 0o600:
        return [f"{files.CONFIG} has mode {reading.value.mode:04o}"]
    entry = {key: value for key, value in there.items() if key in files.ENTRY}
    if not entry_is_good(config, facts, node, entry):
        return [f"the way in ({', '.join(sorted(files.ENTRY))}) in {files.CONFIG} differs"]
    text = files.config_yaml(config, node, entry)
    content = reading.value.content or SecretStr("")
    if content.get_secret_value() == text:
        return []
    wanted: dict[str, Any] = yaml.safe_load(text)
    keys = sorted(str(k) for k in {*wanted, *there} if wanted.get(k) != there.get(k))
    return [f"{files.CONFIG} differs in {', '.join(keys) if keys else 'its layout'}"]


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
    known = facts.kubeconfig.value.ca_hash if isinstance(facts.kubeconfig, Present) else ""
    if isinstance(facts.ca_hash, Present):
        known = facts.ca_hash.value
    good = full[2] == ("server" if server else "node") and full[3] == secret.get_secret_value()
    return good and known in ("", full[1])


def _running_differences(config: ClusterConfig, facts: K3sFacts, node: Node) -> list[str]:
    seen = facts.node(node.name)
    if seen is None:
        return []
    if seen.version != config.k3s.version:
        return [f"it runs {seen.version}, not {config.k3s.version}"]
    if seen.fingerprint != files.fingerprint(config, node):
        return ["it was started with other settings"]
    return []


def read_settings(reading: Reading[Any]) -> dict[str, Any] | None:
    """config.yaml as a table; None when it is absent, unreadable or no table."""
    if not isinstance(reading, Present) or reading.value.content is None:
        return None
    try:
        table = yaml.safe_load(reading.value.content.get_secret_value())
    except (yaml.YAMLError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def _secret(token: str) -> str:
    full = _FULL.fullmatch(token)
    return full[3] if full else token


def _chain(config: ClusterConfig, facts: K3sFacts, needs: Mapping[str, Need]) -> list[Node]:
    """Controllers in the order in which they are worked on: those in the cluster first."""
    return sorted(config.controllers, key=lambda n: role_of(config, facts, n) is not Role.KEEP)


def _server(node: Node, needs: Mapping[str, Need], chain: list[Node]) -> Action:
    need = needs[node.name]
    key = f"k3s/{node.name}"
    after = {f"host/{node.name}"}
    if need.kind is Kind.UNKNOWN:
        after |= {f"host/{other.name}" for other in chain}
    if need.kind in (Kind.START, Kind.WAIT):
        return Action(need.verb, key, need.reason, frozenset(after), stage=STAGE, on=node.name)
    after |= {f"k3s/{other.name}" for other in chain[: chain.index(node)]}
    behind = [other for other in chain[chain.index(node) + 1 :] if other.name in needs]
    after |= {f"k3s/{o.name}" for o in behind if needs[o.name].kind in (Kind.START, Kind.WAIT)}
    return Action(need.verb, key, need.reason, frozenset(after), lane="etcd", stage=STAGE, on=node.name)


def _kubeconfig(config: ClusterConfig, facts: K3sFacts, after: frozenset[str]) -> list[Action]:
    def action(verb: Verb, reason: str) -> list[Action]:
        return [Action(verb, "kubeconfig", reason, after, stage=STAGE)]

    match facts.kubeconfig:
        case Absent():
            return action(Verb.CREATE, "it is absent")
        case Unreadable(why):
            return action(Verb.WAIT, f"it cannot be read ({why})")
        case Present(there):
            wrong = []
            if cluster_exists(config, facts) is False:
                wrong.append("it belongs to an earlier cluster")
            elif isinstance(facts.ca_hash, Present) and facts.ca_hash.value != there.ca_hash:
                wrong.append("it names another authority than the cluster's")
            if there.server != f"https://{config.network.vip}:6443":
                wrong.append("it does not lead to the VIP")
            if there.name != config.name:
                wrong.append("its names differ")
            if there.mode != 0o600:
                wrong.append(f"its mode is {there.mode:04o}")
            return action(Verb.CHANGE, ", ".join(wrong)) if wrong else []
    return []
