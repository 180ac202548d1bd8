"""The K3s stage without a world: facts in, actions out. What must never happen is a second cluster."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from funoffshore.config import ClusterConfig, Node, loader, new
from funoffshore.config.model import Role as NodeRole
from funoffshore.kubeconfig import Kubeconfig
from funoffshore.plan import Action, Plan, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages import k3s
from funoffshore.stages.k3s import K3sFacts, NodeFact, facts, files, graph, kube_vip
from funoffshore.world.ssh import FileFact, HostFacts, UnitFact

PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)
HASH = "c" * 64
SHUT = Unreadable("the door is shut")


@cache
def config() -> ClusterConfig:
    """Three controllers, two workers."""
    whole = loader.parse(new.generate("lab", PINS, lab=True), "lab", Path("/nowhere"))
    names = ("lab-c1", "lab-c2", "lab-c3", "lab-w1", "lab-w2")
    return replace(whole, nodes=tuple(whole.node(name) for name in names))


def entry(node: Node, founder: bool) -> dict[str, Any]:
    if founder:
        return {"cluster-init": True, "token": config().k3s.token.get_secret_value()}
    server = node.role is NodeRole.CONTROLLER
    user, secret = ("server", config().k3s.token) if server else ("node", config().k3s.agent_token)
    token = f"K10{HASH}::{user}:{secret.get_secret_value()}"
    return {"server": f"https://{config().network.vip}:6443", "token": token}


def file(content: str = "", mode: int = 0o600, sha256: str = "") -> Reading[FileFact]:
    return Present(FileFact("file", mode, "0:0", len(content), sha256, SecretStr(content)))


def host(node: Node, *, data: bool = True, **changed: Any) -> HostFacts:
    """As desired, or new when ``data`` is False; ``changed`` replaces files by path and ``unit`` by state."""
    server = node.role is NodeRole.CONTROLLER
    own = (facts.TOKEN, facts.ETCD) if server else (facts.AGENT,)
    seen: dict[str, Reading[FileFact]] = {path: Absent() for path in (facts.TOKEN, facts.ETCD, facts.AGENT)}
    units: dict[str, Reading[UnitFact]] = {"k3s.service": Absent(), "k3s-agent.service": Absent()}
    if data:
        seen |= {path: file() for path in own}
        seen[files.BINARY] = file(mode=0o755, sha256=config().k3s.sha256)
        seen |= {one.path: file(one.content, one.mode, one.sha256) for one in files.beside(config(), node)}
        text = files.config_yaml(config(), node, entry(node, founder=False))
        seen[files.CONFIG] = file(text)
        active = changed.pop("unit", "active")
        enabled = changed.pop("enabled", "enabled")
        units[files.unit_name(node)] = Present(UnitFact(active, "", enabled, "success", 0, 0))
    else:
        seen |= {path: Absent() for path in (files.BINARY, files.unit_path(node), files.CONFIG)}
    seen |= changed.pop("files", {})
    return HostFacts(
        hostname=node.name, uuid=str(node.identity), boot_id="", arch="x86_64", os="debian 13", kernel="",
        clock_skew=0.0, clock_synced=True, cloud_init="done", memory_mib=1, swap_mib=0, cpus=1, cgroup2=True,
        default_route="", listening=frozenset(), files=seen, units=units,
    )  # fmt: skip


def node_fact(node: Node, **changed: Any) -> NodeFact:
    whole = NodeFact(
        ready=True, voter=node.role is NodeRole.CONTROLLER, version=config().k3s.version, uuid=str(node.identity),
        fingerprint=files.fingerprint(config(), node), said="",
    )  # fmt: skip
    return replace(whole, **changed)


def desired(**changed: Any) -> K3sFacts:
    """Everything as it shall be."""
    whole = K3sFacts(
        hosts={node.name: Present(host(node)) for node in config().nodes},
        nodes=Present({node.name: node_fact(node) for node in config().nodes}),
        kubeconfig=Present(Kubeconfig("lab", f"https://{config().network.vip}:6443", HASH)),
    )
    return replace(whole, **changed)


def with_hosts(**hosts: Reading[HostFacts]) -> K3sFacts:
    """``c1=…`` replaces lab-c1; the Nodes are those of the cluster as desired."""
    whole = desired()
    return replace(whole, hosts={**whole.hosts, **{f"lab-{name}": reading for name, reading in hosts.items()}})


def planned(seen: K3sFacts) -> dict[str, Action]:
    return dict(Plan.of(k3s.plan(config(), seen)).actions)


def nothing() -> K3sFacts:
    return K3sFacts(hosts={node.name: Absent() for node in config().nodes})


def test_from_nothing_the_whole_graph_is_planned() -> None:
    actions = planned(nothing())
    assert {key: action.verb for key, action in actions.items()} == {
        **{f"k3s/{node.name}": Verb.CREATE for node in config().nodes},
        "kubeconfig": Verb.CREATE,
    }
    assert actions["k3s/lab-c1"].reason == graph.FOUNDS
    assert actions["k3s/lab-c1"].after == {"host/lab-c1"}
    assert actions["k3s/lab-c2"].after == {"host/lab-c2", "k3s/lab-c1"}
    assert actions["k3s/lab-c3"].after == {"host/lab-c3", "k3s/lab-c1", "k3s/lab-c2"}
    assert actions["k3s/lab-w1"].after == {"host/lab-w1", "k3s/lab-c1"}
    assert actions["kubeconfig"].after == {"k3s/lab-c1"}
    assert {actions[f"k3s/lab-c{n}"].lane for n in (1, 2, 3)} == {"etcd"}
    assert actions["k3s/lab-w1"].lane == "agents"
    assert [a for a in actions.values() if a.reason == graph.FOUNDS] == [actions["k3s/lab-c1"]]


def test_as_desired_nothing_is_planned() -> None:
    assert planned(desired()) == {}


def test_new_hosts_that_prove_to_be_empty_found_a_cluster() -> None:
    seen = K3sFacts(hosts={node.name: Present(host(node, data=False)) for node in config().nodes})
    assert planned(seen)["k3s/lab-c1"].reason == graph.FOUNDS


EMPTY, DATA = "empty", "data"


@pytest.mark.parametrize("states", list(itertools.product(["absent", EMPTY, DATA, "shut", "half"], repeat=3)))
def test_a_cluster_is_founded_only_where_every_controller_proves_that_there_is_none(states: tuple[str, ...]) -> None:
    def reading(node: Node, state: str) -> Reading[HostFacts]:
        match state:
            case "absent":
                return Absent()
            case "shut":
                return SHUT
            case "half":
                unseen = dict.fromkeys((facts.TOKEN, facts.ETCD), SHUT)
                return Present(host(node, data=False, files=unseen))
        return Present(host(node, data=state == DATA))

    hosts = {n.name: reading(n, s) for n, s in zip(config().controllers, states, strict=True)}
    hosts |= {n.name: Absent() for n in config().workers}
    actions = planned(K3sFacts(hosts=hosts))
    founders = [a for a in actions.values() if a.reason == graph.FOUNDS]
    proven = all(state in ("absent", EMPTY) for state in states)
    assert len(founders) == (1 if proven else 0)
    for node, state in zip(config().controllers, states, strict=True):
        if state in ("shut", "half"):
            assert actions[f"k3s/{node.name}"].verb is Verb.WAIT
        if state in ("absent", EMPTY) and DATA not in states and not proven:
            assert actions[f"k3s/{node.name}"].verb is Verb.WAIT


def test_a_cluster_that_only_the_api_shows_is_never_founded_again() -> None:
    hosts = {node.name: Present(host(node, data=False)) for node in config().nodes}
    actions = planned(desired(hosts=hosts))
    assert all(action.reason != graph.FOUNDS for action in actions.values())


def test_a_rebuilt_first_server_joins_after_those_that_hold_the_cluster() -> None:
    first = config().controllers[0]
    second = config().controllers[1]
    actions = planned(with_hosts(c1=Present(host(first, data=False)), c2=Present(host(second, unit="failed"))))
    assert actions["k3s/lab-c1"].verb is Verb.CREATE
    assert "still remembers" in actions["k3s/lab-c1"].reason
    assert "k3s/lab-c2" in actions["k3s/lab-c1"].after
    assert actions["k3s/lab-c2"].verb is Verb.CHANGE
    assert actions["k3s/lab-c2"].after == {"host/lab-c2"}


def test_stopped_servers_start_side_by_side_as_they_need_each_other() -> None:
    stopped = {f"c{n}": Present(host(config().node(f"lab-c{n}"), unit="inactive")) for n in (1, 2, 3)}
    actions = planned(replace(with_hosts(**stopped), nodes=SHUT))
    for n in (1, 2, 3):
        assert actions[f"k3s/lab-c{n}"].after == {f"host/lab-c{n}"}
        assert actions[f"k3s/lab-c{n}"].lane == ""


CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("c2", {"files": {files.BINARY: file(mode=0o755, sha256="b" * 64)}}, "its K3s is"),
    ("c2", {"files": {files.BINARY: Absent()}}, "is absent"),
    ("c2", {"files": {"/etc/systemd/system/k3s.service": file("[Unit]", 0o644)}}, "k3s.service differs"),
    ("w1", {"files": {files.CONFIG: Absent()}}, "config.yaml is absent"),
    ("w1", {"files": {files.CONFIG: file("][")}}, "no YAML"),
    ("c1", {"enabled": "disabled"}, "not enabled"),
    ("c1", {"unit": "failed"}, "k3s.service is failed"),
    ("w2", {"unit": "inactive"}, "k3s-agent.service is inactive"),
]


@pytest.mark.parametrize(("name", "changed", "reason"), CHANGES)
def test_a_node_that_differs_is_changed(name: str, changed: dict[str, Any], reason: str) -> None:
    node = config().node(f"lab-{name}")
    actions = planned(with_hosts(**{name: Present(host(node, **changed))}))
    assert set(actions) == {f"k3s/lab-{name}"}
    assert actions[f"k3s/lab-{name}"].verb is Verb.CHANGE
    assert reason in actions[f"k3s/lab-{name}"].reason


def test_a_founder_that_could_found_again_is_told_to_join_without_a_restart() -> None:
    node = config().controllers[0]
    text = files.config_yaml(config(), node, entry(node, founder=True))
    seen = with_hosts(c1=Present(host(node, files={files.CONFIG: file(text)})))
    need = graph.need_of(config(), seen, node)
    assert need is not None
    assert need.kind is graph.Kind.LIVE
    assert "would let it found another cluster" in need.reason


def test_a_config_that_others_can_read_is_rewritten() -> None:
    node = config().node("lab-c2")
    text = files.config_yaml(config(), node, entry(node, founder=False))
    actions = planned(with_hosts(c2=Present(host(node, files={files.CONFIG: file(text, 0o644)}))))
    assert "mode 0644" in actions["k3s/lab-c2"].reason


def test_a_reason_names_keys_and_no_values() -> None:
    node = config().node("lab-c2")
    table = yaml.safe_load(files.config_yaml(config(), node, entry(node, founder=False)))
    table["agent-token"] = "canary-old-token"
    table["tls-san"] = []
    text = yaml.safe_dump(table)
    reason = planned(with_hosts(c2=Present(host(node, files={files.CONFIG: file(text)}))))["k3s/lab-c2"].reason
    assert "agent-token" in reason
    assert "tls-san" in reason
    assert "canary" not in reason
    assert config().k3s.agent_token.get_secret_value() not in reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token": "another"}, "another token"),
        ({"cluster-cidr": "10.99.0.0/16"}, "cluster-cidr cannot be changed"),
        ({"service-cidr": "10.98.0.0/16"}, "service-cidr cannot be changed"),
        ({"secrets-encryption": False}, "secrets-encryption cannot be changed"),
    ],
)
def test_what_a_living_cluster_does_not_survive_is_refused(change: dict[str, Any], said: str) -> None:
    node = config().node("lab-c1")
    table = yaml.safe_load(files.config_yaml(config(), node, entry(node, founder=True))) | change
    action = planned(with_hosts(c1=Present(host(node, files={files.CONFIG: file(yaml.safe_dump(table))}))))[
        "k3s/lab-c1"
    ]
    assert action.verb is Verb.WAIT
    assert said in action.reason
    assert "another" in said or str(table["token"]) not in action.reason


STATES: list[tuple[str, dict[str, Any] | None, Verb, str]] = [
    ("c2", {"ready": False, "said": "Kubelet stopped posting node status."}, Verb.WAIT, "not Ready"),
    ("c2", {"voter": False}, Verb.WAIT, "does not vote"),
    ("c2", {"fingerprint": "0" * 16}, Verb.CHANGE, "other settings"),
    ("c2", None, Verb.WAIT, "does not know it"),
    ("w1", None, Verb.CHANGE, "joins again"),
    ("w1", {"ready": False, "said": "x"}, Verb.WAIT, "not Ready"),
]


@pytest.mark.parametrize(("name", "change", "verb", "reason"), STATES)
def test_what_the_api_shows_counts(name: str, change: dict[str, Any] | None, verb: Verb, reason: str) -> None:
    node = config().node(f"lab-{name}")
    nodes = {n.name: node_fact(n) for n in config().nodes if n != node}
    if change is not None:
        nodes[node.name] = node_fact(node, **change)
    actions = planned(desired(nodes=Present(nodes)))
    assert [(a.key, a.verb) for a in actions.values()] == [(f"k3s/{node.name}", verb)]
    assert reason in actions[f"k3s/{node.name}"].reason


def test_a_silent_api_is_waited_for_and_nothing_else() -> None:
    actions = planned(desired(nodes=SHUT))
    assert {a.verb for a in actions.values()} == {Verb.WAIT}
    assert set(actions) == {f"k3s/{node.name}" for node in config().nodes}


KUBECONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"server": "https://127.0.0.1:6443"}, "VIP"),
    ({"name": "default"}, "names"),
    ({"mode": 0o644}, "mode is 0644"),
]


@pytest.mark.parametrize(("change", "reason"), KUBECONFIGS)
def test_a_kubeconfig_that_differs_is_changed(change: dict[str, Any], reason: str) -> None:
    kept = Kubeconfig("lab", f"https://{config().network.vip}:6443", HASH)
    actions = planned(desired(kubeconfig=Present(replace(kept, **change))))
    assert [(a.key, a.verb) for a in actions.values()] == [("kubeconfig", Verb.CHANGE)]
    assert reason in actions["kubeconfig"].reason


def test_a_kubeconfig_of_an_earlier_cluster_is_replaced() -> None:
    kept = desired().kubeconfig
    actions = planned(replace(nothing(), kubeconfig=kept))
    assert actions["kubeconfig"].verb is Verb.CHANGE
    assert actions["k3s/lab-c1"].reason == graph.FOUNDS
    actions = planned(desired(nodes=SHUT, ca_hash=Present("d" * 64)))
    assert "another authority" in actions["kubeconfig"].reason


def test_a_kubeconfig_that_cannot_be_read_is_not_overwritten() -> None:
    assert planned(desired(kubeconfig=SHUT, nodes=Absent()))["kubeconfig"].verb is Verb.WAIT


def test_servers_differ_only_in_who_they_are() -> None:
    own = ("node-name", "node-ip")
    tables = [files.settings(config(), node) for node in config().controllers]
    assert all({k: v for k, v in t.items() if k not in own} == {k: v for k, v in tables[0].items() if k not in own}
               for t in tables)  # fmt: skip


def test_agents_get_no_key_of_a_server() -> None:
    from funoffshore.lab.k3s import flags

    for node in config().nodes:
        text = files.config_yaml(config(), node, entry(node, founder=False))
        role = "server" if node.role is NodeRole.CONTROLLER else "agent"
        assert set(yaml.safe_load(text)) <= set(flags.KINDS[role])


def test_a_fingerprint_holds_no_secret_and_changes_with_every_setting() -> None:
    node = config().controllers[0]
    before = files.fingerprint(config(), node)
    other = replace(config(), k3s=replace(config().k3s, agent_token=SecretStr("x"), token=SecretStr("y")))
    assert files.fingerprint(other, node) == before
    live = replace(config(), k3s=replace(config().k3s, kube_vip_image="x", sha256="b" * 64))
    assert files.fingerprint(live, replace(node, labels=(("a", "b"),), taints=("a=b:NoSchedule",))) == before
    changes: list[dict[str, Any]] = [{"disable": ("servicelb",)}, {"extra_config": {"v": "4"}}, {"audit": True}]
    for change in [*changes, {"mirrors": (("docker.io", "https://mirror.lan"),)}, {"cis": True}]:
        assert files.fingerprint(replace(config(), k3s=replace(config().k3s, **change)), node) != before


def test_the_unit_never_blocks_a_start_and_lets_containers_live() -> None:
    text = files.unit(config().controllers[0])
    for line in ("Type=notify", "KillMode=process", "Delegate=yes", "Restart=always", "RestartSec=5s",
                 "TimeoutStartSec=0", "ExecStart=/usr/local/bin/k3s server"):  # fmt: skip
        assert line in text.splitlines()
    assert "ExecStart=/usr/local/bin/k3s agent" in files.unit(config().workers[0])


def test_kube_vip_carries_the_vip_in_arp_mode_for_the_control_plane_only() -> None:
    documents = list(yaml.safe_load_all(kube_vip.manifest(config())))
    assert [d["kind"] for d in documents] == ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet"]
    container = documents[-1]["spec"]["template"]["spec"]["containers"][0]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert env["address"] == str(config().network.vip)
    assert (env["vip_arp"], env["cp_enable"], env["svc_enable"]) == ("true", "true", "false")
    assert container["image"] == config().k3s.kube_vip_image


@pytest.mark.parametrize(
    ("extra", "takes"),
    [
        ("", False),
        ("kubelet-arg=max-pods=150", False),
        ("kubelet-arg=fail-cgroupv1=true", False),
        ("kubelet-arg=fail-cgroupv1=false", True),
        ("kubelet-arg=[max-pods=150, fail-cgroupv1=false]", True),
    ],
)
def test_cgroup_v1_is_taken_only_where_the_operator_told_the_kubelet_so(extra: str, takes: bool) -> None:
    key, _, value = extra.partition("=")
    told = replace(config(), k3s=replace(config().k3s, extra_config={key: value} if key else {}))
    assert files.takes_cgroup1(told) is takes
