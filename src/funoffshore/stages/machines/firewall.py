"""Proxmox' firewall around a machine: closed from outside but for what K3s, its services and the operator need. Pure.

Ports: K3s documentation, "Inbound Rules for K3s Nodes". The VIP needs no rule: kube-vip announces it by ARP, which the
firewall lets through as long as ``ipfilter`` is off. Rules work only where the firewall of the datacenter is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from funoffshore.config import ClusterConfig, Node, Role

MARK = "fo: "
"""How the comment of each of our rules begins; rules without it are the operator's and stay."""
OPTIONS: Mapping[str, str] = {"enable": "1", "policy_in": "DROP", "ipfilter": "0"}
_DEFAULTS: Mapping[str, str] = {"enable": "0", "policy_in": "DROP", "ipfilter": "0"}
"""What an option means that is not set (pve-firewall ``PVE/Firewall.pm``)."""
_NODE_PORTS = "30000:32767"
_SOURCE_LIMIT = 512
"""Longest ``source`` that Proxmox takes."""
_COMPARED = ("type", "action", "proto", "dport", "source", "comment")


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes the rules right: first ``surplus``, then ``lacking``, then ``options``."""

    surplus: tuple[int, ...]
    """Positions of rules of ours to be deleted, the highest first, so that the others keep theirs."""
    lacking: tuple[Mapping[str, str], ...]
    """Rules to be added, as bodies."""
    options: Mapping[str, str]
    """Options to be set last, so that a machine is never closed to what has no rule yet."""
    sentences: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.surplus or self.lacking or self.options)


def wanted(config: ClusterConfig, node: Node) -> tuple[Mapping[str, str], ...]:
    """The rules of ``node`` as bodies; the order does not matter, as each accepts something."""
    lan = str(config.network.subnet)
    nodes = addresses([n.address for n in (*config.nodes, *config.others)], lan)
    return tuple(
        {"type": "in", "action": "ACCEPT", "enable": "1", "source": source, **what, "comment": MARK + comment}
        for source, what, comment in _openings(config, node, lan, nodes)
    )


def _controllers(config: ClusterConfig) -> list[Node]:
    return [node for node in (*config.nodes, *config.others) if node.role is Role.CONTROLLER]


def differences(
    config: ClusterConfig, node: Node, rules: Sequence[Mapping[str, str]], options: Mapping[str, str]
) -> Changes:
    """What of ``rules`` and ``options``, as read from Proxmox, is not as wanted; the operator's rules stay."""
    lacking = list(wanted(config, node))
    surplus = []
    for index, rule in enumerate(rules):
        if not rule.get("comment", "").startswith(MARK):
            continue
        twin = next((want for want in lacking if _same(want, rule)), None)
        if twin is None:
            surplus.append(int(rule.get("pos", index)))
        else:
            lacking.remove(twin)
    wrong = {k: v for k, v in OPTIONS.items() if options.get(k, _DEFAULTS[k]) != v}
    sentences = [f"its firewall lacks the rule {rule['comment'].removeprefix(MARK)}" for rule in lacking]
    sentences += [f"{len(surplus)} rules of its firewall are outdated"] if surplus else []
    sentences += [f"{key} of its firewall is {options.get(key, _DEFAULTS[key])}, not {wrong[key]}" for key in wrong]
    return Changes(tuple(sorted(surplus, reverse=True)), tuple(lacking), wrong, tuple(sentences))


def addresses(found: Iterable[IPv4Address], otherwise: str) -> str:
    """The addresses as Proxmox takes them, exactly those; ``otherwise`` where that gets too long.

    As networks, since a list may hold no ranges (pve-firewall ``PVE/Firewall.pm``, ``parse_address_list``).
    """
    networks = collapse_addresses(IPv4Network(address) for address in found)
    whole = ",".join(str(network).removesuffix("/32") for network in networks)
    return whole if len(whole) <= _SOURCE_LIMIT else otherwise


def _openings(config: ClusterConfig, node: Node, lan: str, nodes: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Source, protocol and ports, and what for. Few rules with many ports: each is a call of its own."""
    controller = node.role is Role.CONTROLLER
    backend = config.k3s.extra_config.get("flannel-backend", "vxlan").strip("\"' ")
    ports = [str(config.ssh.port), *(["6443"] if controller else []), "80", "443", _NODE_PORTS]
    yield lan, _tcp(*ports), "SSH, Kubernetes and its services from the LAN"
    yield lan, {"proto": "udp", "dport": f"443,{_NODE_PORTS}"}, "services over UDP from the LAN"
    yield lan, {"proto": "icmp"}, "ping from the LAN"
    if config.switches.get("SYNCTHING_ENABLED"):
        yield lan, _tcp("22000"), "Syncthing from the LAN"
        yield lan, {"proto": "udp", "dport": "22000"}, "Syncthing over UDP from the LAN"
    if backend == "none":
        # Another network plug-in chooses its own ports, and which ones cannot be told from here.
        yield nodes, {}, "everything among the machines, whose network is not flannel"
        return
    # 9100: node-exporter, which the cluster's own Prometheus asks on every machine; 5001: the embedded registry.
    yield nodes, _tcp("5001", "9100", "10250"), "kubelet, metrics and registry among the machines"
    if controller:
        etcd = addresses([n.address for n in _controllers(config)], lan)
        yield etcd, _tcp("2379:2380"), "etcd among the controllers"
    yield _pods(config, backend, nodes)


def _pods(config: ClusterConfig, backend: str, nodes: str) -> tuple[str, dict[str, str], str]:
    """How the pods of one machine reach those of another."""
    if backend == "host-gw":
        return str(config.k3s.cluster_cidr), {}, "pods of other machines (host-gw)"
    if backend.startswith("wireguard"):
        return nodes, {"proto": "udp", "dport": "51820:51821"}, "pods among the machines (WireGuard)"
    return nodes, {"proto": "udp", "dport": "8472"}, "pods among the machines (VXLAN)"


def _tcp(*ports: str) -> dict[str, str]:
    return {"proto": "tcp", "dport": ",".join(ports)}


def _same(want: Mapping[str, str], rule: Mapping[str, str]) -> bool:
    """A rule that is switched off is not the same, whatever else it says."""
    if rule.get("enable", "0") in {"", "0"}:
        return False
    extra = ("dest", "sport", "iface", "macro", "icmp-type")
    return all(_value(want, key) == _value(rule, key) for key in _COMPARED) and not any(rule.get(key) for key in extra)


def _value(rule: Mapping[str, str], key: str) -> object:
    text = rule.get(key, "")
    if key in {"dport", "source"}:
        return frozenset(part.strip().replace("-", ":") if key == "dport" else part.strip() for part in text.split(","))
    return text.lower() if key in {"type", "action", "proto"} else text
