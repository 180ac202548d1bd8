"""K3s itself: what runs, with which flags, and whether it is closed to those whom it does not concern."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from funoffshore import kubeconfig
from funoffshore.checks import hosts, k3s_certificates, k3s_files
from funoffshore.checks.base import NODE, Answer, Check, Object, Sight, failed, unknown
from funoffshore.checks.hosts import Tally
from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import classes, files, hardening
from funoffshore.stages.k3s.certificates import DAY, parse
from funoffshore.world.ssh import HostFacts
from funoffshore.world.supervisor import Supervisor

CRITICAL = (
    "cluster-cidr", "service-cidr", "cluster-dns", "cluster-domain", "disable", "disable-cloud-controller",
    "disable-helm-controller", "disable-network-policy", "egress-selector-mode", "embedded-registry",
    "flannel-backend", "flannel-external-ip", "flannel-ipv6-masq", "secrets-encryption",
    "secrets-encryption-provider", "supervisor-metrics",
)  # fmt: skip
"""What K3s compares when a server joins, recorded from a real run; ``disable`` as far as it names servicelb."""
OWN = frozenset({"node-name", "node-ip", "node-external-ip", "advertise-address", "bind-address"})
"""Flags that belong to one server alone."""
ARGUMENTS = "k3s.io/node-args"
AGAIN = "fo bootstrap"


def checks(config: ClusterConfig) -> tuple[Check, ...]:
    """Those that concern this cluster."""
    found = [Check("FO-K3S-001", "every host to carry the pinned K3s", binary)]
    if config.k3s.secrets_encryption:
        found.append(Check("FO-K3S-002", "secrets to be encrypted in etcd", encryption))
    found += [
        Check("FO-K3S-003", "K3s' certificates to be far from their end", certificates),
        Check("FO-K3S-004", "K3s' files to be closed to others", modes),
        Check("FO-K3S-005", "all servers to run with the same flags", flags),
    ]
    if files.protects_kernel(config):
        found.append(Check("FO-K3S-006", "the kernels to be set as the kubelet wants", kernel))
    if config.k3s.cis:
        found.append(Check("FO-K3S-007", "the CIS profile to be in force", profile))
    return (
        *found,
        Check("FO-K3S-008", "labels and taints to be as the env file says", labels),
        Check("FO-K3S-009", "the API to be of the kubeconfig's authority", authority),
    )


def nodes_by_name(sight: Sight) -> dict[str, Object] | Answer:
    """The cluster's Nodes, or the answer that they cannot be seen."""
    match sight.list(NODE):
        case Present(nodes):
            return {str(node["metadata"]["name"]): node for node in nodes}
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return unknown("the cluster does not know nodes")


def binary(sight: Sight) -> Answer:
    """On every host lies the binary whose digest is pinned for its architecture."""
    tally, k3s = Tally(), sight.config.k3s
    for node in sight.config.nodes:
        host = tally.host(node, sight.host(node))
        if host is None:
            continue
        wanted = k3s.digest(host.architecture)
        match host.file(hosts.BINARY):
            case _ if not wanted:
                tally.bad.append(f"{node.name}: no digest is pinned for its architecture ({host.arch or 'unknown'})")
            case Unreadable(why):
                tally.dark.append(f"{node.name}: {why}")
            case Absent():
                tally.bad.append(f"{node.name}: {hosts.BINARY} is absent")
            case Present(there):
                if there.sha256 != wanted:
                    tally.bad.append(f"{node.name}: SHA-256 {there.sha256[:16]}…, not {wanted[:16]}…")
                elif there.mode & 0o022 or there.owner.split(":")[0] != "0":
                    tally.bad.append(f"{node.name}: others than root may change it ({there.mode:04o}, {there.owner})")
    return tally.answer(
        f"not every host carries K3s {k3s.version} as pinned", f"all {len(sight.config.nodes)} do", "fo k3s upgrade"
    )


def encryption(sight: Sight) -> Answer:
    """Every server says that secrets are encrypted, and that all servers use the same keys."""
    tally = Tally()
    for node in sight.config.controllers:
        host = tally.host(node, sight.host(node))
        if host is None:
            continue
        match hosts.said(host, hosts.ENCRYPTION):
            case Present(said) if said.code == 0:
                _judge_encryption(tally, node, said.out)
            case Present(said):
                tally.dark.append(f"{node.name}: {_last(said.err) or f'exit {said.code}'}")
            case Absent():
                tally.dark.append(f"{node.name}: there is no K3s to ask")
            case Unreadable(why):
                tally.dark.append(f"{node.name}: {why}")
    fine = f"enabled on {len(sight.config.controllers)} servers, all hashes match"
    return tally.answer("secrets are not encrypted as they shall be", fine, "k3s secrets-encrypt status on that server")


def _judge_encryption(tally: Tally, node: Node, out: str) -> None:
    """``k3s secrets-encrypt status``, recorded from a real run."""
    told = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    said = {key.strip(): value.strip() for key, value in told.items()}
    status, hashes = said.get("Encryption Status", ""), said.get("Server Encryption Hashes", "")
    stage = said.get("Current Rotation Stage", "")
    if not status:
        tally.dark.append(f"{node.name}: K3s said nothing of its encryption")
    elif status != "Enabled":
        tally.bad.append(f"{node.name}: {status}")
    elif hashes != "All hashes match":
        tally.bad.append(f"{node.name}: {hashes or 'nothing is said of the hashes'}")
    elif stage not in ("start", "reencrypt_finished"):
        tally.odd.append(f"{node.name}: a rotation of the keys is under way (stage {stage})")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def certificates(sight: Sight) -> Answer:
    """90 days are what K3s itself renews at; with fewer than 14 a restart must not be put off."""
    tally, now = Tally(), sight.world.clock.now()
    ends: list[tuple[float, str]] = []
    for node in sight.config.nodes:
        host = tally.host(node, sight.host(node))
        if host is None:
            continue
        match hosts.said(host, hosts.CERTIFICATES):
            case Present(said) if found := parse(node.name, said.out + said.err):
                ends.append(k3s_certificates.judge(tally, node.name, found, now))
            case Present(said):
                tally.dark.append(f"{node.name}: K3s shows no certificate ({_last(said.err) or f'exit {said.code}'})")
            case Absent():
                tally.dark.append(f"{node.name}: there is no K3s to ask")
            case Unreadable(why):
                tally.dark.append(f"{node.name}: {why}")
    first = min(ends, default=(0.0, ""))
    fine = f"the first to end is {first[1]}, in {first[0] / DAY:.0f} days"
    return tally.answer("certificates of K3s come to their end", fine, "fo k3s rotate-certificates")


def modes(sight: Sight) -> Answer:
    """No file of K3s is open wider than K3s itself makes it, and all belong to root."""
    tally, seen = Tally(), 0
    for node in sight.config.nodes:
        host = tally.host(node, sight.host(node))
        if host is None:
            continue
        seen += len(host.modes)
        for told, line in k3s_files.faults(node, host.modes):
            (tally.bad if told else tally.dark).append(f"{node.name}: {line}")
    fix = "chmod those paths back, and find out what opened them"
    return tally.answer("files of K3s are not as closed as they shall be", f"{seen} paths are", fix)


def running(node: Object) -> dict[str, tuple[str, ...]] | None:
    """The flags that the node's K3s was started with; None where it does not tell."""
    text = (node["metadata"].get("annotations") or {}).get(ARGUMENTS, "")
    try:
        words = json.loads(text)
    except ValueError:
        return None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return None
    return classes.unfolded(words)


def flags(sight: Sight) -> Answer:
    """What must not differ between servers is the same, and as the env file has it."""
    nodes = nodes_by_name(sight)
    if isinstance(nodes, tuple):
        return nodes
    tally = Tally()
    seen: dict[str, dict[str, tuple[str, ...]]] = {}
    for node in sight.config.controllers:
        told = running(nodes[node.name]) if node.name in nodes else None
        if told is None:
            tally.dark.append(f"{node.name}: the cluster does not tell how it was started")
            continue
        seen[node.name] = told
        wanted = files.settings(sight.config, node)
        for key in classes.differing(wanted, told):
            if classes.class_of(key) is classes.Class.IMMUTABLE:
                tally.bad.append(f"{node.name}: {key} is {_shown(told, key)}, not {wanted.get(key, 'unset')}")
    _compare(tally, seen)
    return tally.answer("the servers do not run with the same flags", f"{len(seen)} servers agree", AGAIN)


def _compare(tally: Tally, seen: Mapping[str, dict[str, tuple[str, ...]]]) -> None:
    """Every server against the first. Values are only told of flags that hold no secret."""
    if not seen:
        return
    first, *others = seen
    for other in others:
        keys = seen[first].keys() | seen[other].keys()
        for key in sorted(keys - classes.ENTRY - classes.SECRETS - classes.LIVE - OWN):
            if _parts(seen[first].get(key, ())) == _parts(seen[other].get(key, ())):
                continue
            if key in CRITICAL:
                values = f"{_shown(seen[first], key)} on {first}, {_shown(seen[other], key)} on {other}"
                tally.bad.append(f"{key}: {values}")
            else:
                tally.odd.append(f"{key} differs between {first} and {other}")


def _shown(flags: Mapping[str, tuple[str, ...]], key: str) -> str:
    return ",".join(flags.get(key, ())) or "unset"


def _parts(values: tuple[str, ...]) -> list[str]:
    """A list may come as several flags or with commas; false and unset are the same."""
    return sorted(part for value in values for part in value.split(",") if part not in ("", "false"))


def kernel(sight: Sight) -> Answer:
    """The kubelet refuses to start where these differ, so they must outlive a reboot."""
    tally = Tally()
    for node in sight.config.nodes:
        host = tally.host(node, sight.host(node))
        if host is None:
            continue
        for name, wanted in hardening.KERNEL.items():
            seen = host.sysctls.get(name)
            if seen is None or str(seen) == "":
                tally.dark.append(f"{node.name}: {name} could not be read")
            elif str(seen) != str(wanted):
                tally.bad.append(f"{node.name}: {name} is {seen}, not {wanted}")
    return tally.answer("kernel settings are not as the kubelet wants them", "they are on all hosts", AGAIN)


def profile(sight: Sight) -> Answer:
    """The arguments of the profile are those of the running components, and the files that they name are there."""
    nodes = nodes_by_name(sight)
    if isinstance(nodes, tuple):
        return nodes
    tally = Tally()
    for node in sight.config.nodes:
        told = running(nodes[node.name]) if node.name in nodes else None
        if told is None:
            tally.dark.append(f"{node.name}: the cluster does not tell how it was started")
            continue
        if told.get("protect-kernel-defaults", ("false",))[-1] != "true":
            tally.bad.append(f"{node.name}: protect-kernel-defaults is off")
        for key, arguments in _hardened(sight.config, node).items():
            missing = [argument for argument in arguments if argument not in told.get(key, ())]
            tally.bad += [f"{node.name}: {key} lacks {argument}" for argument in missing]
        if node.role is Role.CONTROLLER and (host := tally.host(node, sight.host(node))):
            for path in (hardening.AUDIT_POLICY, hardening.POD_SECURITY):
                if not isinstance(host.modes.get(path), Present):
                    tally.bad.append(f"{node.name}: {path} is not there")
    if not sight.config.k3s.secrets_encryption:
        tally.bad.append("SECRETS_ENCRYPTION is off, and the profile asks for it")
    return tally.answer("the CIS profile is not in force everywhere", "it is on all nodes", AGAIN)


def _hardened(config: ClusterConfig, node: Node) -> dict[str, list[str]]:
    found = hardening.kubelet_arguments(config)
    return {**found, **hardening.server_arguments(config)} if node.role is Role.CONTROLLER else found


def labels(sight: Sight) -> Answer:
    """Every Node carries the labels and taints of the env file; it may carry others."""
    nodes = nodes_by_name(sight)
    if isinstance(nodes, tuple):
        return nodes
    tally = Tally()
    for node in sight.config.nodes:
        there = nodes.get(node.name)
        if there is None:
            tally.dark.append(f"{node.name}: the cluster does not know it")
            continue
        carried = there["metadata"].get("labels") or {}
        tally.bad += [f"{node.name}: lacks the label {k}={v}" for k, v in node.labels if carried.get(k) != v]
        taints = {_taint(taint) for taint in there.get("spec", {}).get("taints") or []}
        tally.bad += [f"{node.name}: lacks the taint {taint}" for taint in node.taints if _plain(taint) not in taints]
    count = sum(len(node.labels) + len(node.taints) for node in sight.config.nodes)
    return tally.answer("labels or taints are not as the env file says", f"all {count} are there", AGAIN)


def _taint(taint: Mapping[str, Any]) -> str:
    return f"{taint.get('key', '')}={taint.get('value') or ''}:{taint.get('effect', '')}"


def _plain(text: str) -> str:
    """``key:Effect`` and ``key=:Effect`` are the same taint."""
    key, _, effect = text.rpartition(":")
    return f"{key}:{effect}" if "=" in key else f"{key}=:{effect}"


def authority(sight: Sight) -> Answer:
    """The address of the API serves the authority that the kubeconfig holds, and so do all hosts' own disks."""
    kept: Reading[kubeconfig.Kubeconfig] = kubeconfig.read(sight.config.kubeconfig)
    if isinstance(kept, Unreadable):
        return unknown(kept.why)
    if isinstance(kept, Absent):
        return failed("fo has no kubeconfig", fix=AGAIN)
    wanted, tally, address = kept.value.ca_hash, Tally(), str(sight.config.api)
    match Supervisor(sight.config, sight.world.routes).ca_hash(address):
        case Present(found) if found != wanted:
            tally.bad.append(f"{address} serves {found[:16]}…, the kubeconfig holds {wanted[:16]}…")
        case Present():
            pass
        case Absent():
            tally.dark.append(f"nothing listens on {address}:6443")
        case Unreadable(why):
            tally.dark.append(why)
    for node in sight.config.nodes:
        if host := tally.host(node, sight.host(node)):
            _judge_authority(tally, node, host, wanted)
    fix = "more than one cluster answers here: change nothing before it is known which is the right one"
    return tally.answer("not everything is of the kubeconfig's authority", f"{wanted[:16]}… everywhere", fix)


def _judge_authority(tally: Tally, node: Node, host: HostFacts, wanted: str) -> None:
    path = hosts.authority(node)
    match host.file(path):
        case Present(there) if there.sha256 != wanted:
            tally.bad.append(f"{node.name}: its K3s is of another authority ({there.sha256[:16]}…)")
        case Absent():
            tally.bad.append(f"{node.name}: {path} is absent")
        case Unreadable(why):
            tally.dark.append(f"{node.name}: {why}")
