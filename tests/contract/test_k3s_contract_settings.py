"""What fo writes into K3s' settings beyond the least, on the embedded lab's K3s and on the bench's stand-in with a real
kube-apiserver and kubelet: labels, taints, audit, admission, sysctls, registries, snapshots by schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from k3s_backends import (
    AGENT_SECRET,
    DATA,
    SECRET,
    SERVER,
    Machine,
    Place,
    ask,
    await_end,
    await_ready,
    condition,
    place,
    read,
    settings,
    tail,
    thing,
    things,
    until,
    write,
)

SYSCTLS = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1}
"""What a kubelet wants that must not change them: Kubernetes ``pkg/kubelet/cm``."""
KEYS = {"kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000}
"""As well, and so since Linux 3.17."""
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "Metadata", "resources": [{"group": "", "resources": ["configmaps"]}]}, {"level": "None"}],
}
ADMISSION = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AdmissionConfiguration",
    "plugins": [{
        "name": "PodSecurity",
        "configuration": {
            "apiVersion": "pod-security.admission.config.k8s.io/v1",
            "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "restricted", "enforce-version": "latest"},
            "exemptions": {"namespaces": ["kube-system"]},
        },
    }],
}  # fmt: skip
REGISTRIES = {"mirrors": {"docker.io": {"endpoint": ["https://mirror.lan"]}, "*": {}}}
FILES = {"audit.yaml": POLICY, "psa.yaml": ADMISSION}
TOLD = {
    "node-label": ["rack=a", "funoffshore.io/test=yes"],
    "node-taint": ["gpu=true:NoSchedule", "slow:PreferNoSchedule"],
    "kubelet-arg": ["max-pods=42"],
    "embedded-registry": True,
    "protect-kernel-defaults": True,
    "etcd-snapshot-schedule-cron": "@every 3s",
    "etcd-snapshot-retention": 2,
    "kube-apiserver-arg": [
        f"audit-policy-file={SERVER}/audit.yaml",
        f"audit-log-path={SERVER}/logs/audit.log",
        f"admission-control-config-file={SERVER}/psa.yaml",
    ],
}


@dataclass
class Scene:
    """A server with all of that, and bare machines."""

    place: Place
    first: Machine

    def bare(self, number: int) -> Machine:
        return self.place.machine("lab-c2", number)


def right_kernel(machine: Machine) -> None:
    for name, value in (SYSCTLS | KEYS).items():
        machine.sysctl(name, value)


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with place(request.param, tmp_path_factory.mktemp(f"k3s-{request.param}")) as made:
        first = made.machine("lab-c1", 11)
        right_kernel(first)
        for name, content in FILES.items():
            write(first, f"{SERVER}/{name}", yaml.safe_dump(content))
        write(first, "/etc/rancher/k3s/registries.yaml", yaml.safe_dump(REGISTRIES))
        first.configure(**settings(first, token=SECRET, **{"cluster-init": True}, **TOLD))
        first.start()
        await_ready(first)
        until(lambda: condition(first, "lab-c1").get("status") == "True", said=lambda: tail(first))
        yield Scene(made, first)


def test_nothing_of_it_is_unknown(scene: Scene) -> None:
    assert "Unknown flag" not in "\n".join(scene.first.lines())


def test_labels_and_taints_are_on_the_node(scene: Scene) -> None:
    node = thing(scene.first, "nodes/lab-c1")
    assert node is not None
    labels = node["metadata"]["labels"]
    assert (labels["rack"], labels["funoffshore.io/test"]) == ("a", "yes")
    taints = {(taint["key"], taint.get("value", ""), taint["effect"]) for taint in node["spec"]["taints"]}
    assert {("gpu", "true", "NoSchedule"), ("slow", "", "PreferNoSchedule")} <= taints


def test_kubelet_s_own_settings_reach_it(scene: Scene) -> None:
    node = thing(scene.first, "nodes/lab-c1")
    assert node is not None
    assert node["status"]["capacity"]["pods"] == "42"
    assert node["status"]["nodeInfo"]["kubeletVersion"] == scene.first.version


def test_the_embedded_registry_is_a_setting_that_all_servers_share(scene: Scene) -> None:
    answer = ask(scene.first.address, "/v1-k3s/config", user=f"node:{AGENT_SECRET}")
    assert json.loads(answer.body)["EmbeddedRegistry"] is True
    other = scene.bare(12)
    right_kernel(other)
    told = settings(other, token=SECRET, server=f"https://{scene.first.address}:6443", **{"disable-agent": True})
    other.configure(**told)
    other.start()
    assert await_end(other) == 1
    assert "critical configuration mismatched: embedded-registry" in "\n".join(other.lines())


def test_registries_yaml_becomes_containerd_s_hosts(scene: Scene) -> None:
    text = read(scene.first, f"{DATA}/agent/etc/containerd/certs.d/docker.io/hosts.toml")
    assert '"https://mirror.lan' in text


def audited(scene: Scene) -> list[dict[str, Any]]:
    path = scene.first.path(f"{SERVER}/logs/audit.log")
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def test_what_the_policy_names_is_in_the_audit_log_and_nothing_else(scene: Scene) -> None:
    first = scene.first
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "audited"}, "data": {"a": "hidden"}}
    path = "/api/v1/namespaces/default/configmaps"
    assert ask(first.address, path, admin=first, method="POST", body=body).status == 201

    def found() -> list[dict[str, Any]]:
        return [event for event in audited(scene) if event.get("objectRef", {}).get("name") == "audited"]

    until(found, said=lambda: tail(first))
    event = found()[-1]
    assert (event["kind"], event["level"], event["verb"]) == ("Event", "Metadata", "create")
    assert event["user"]["username"] == "system:admin"
    assert "requestObject" not in event
    assert {event.get("objectRef", {}).get("resource") for event in audited(scene)} == {"configmaps"}


def test_admission_refuses_what_its_configuration_forbids(scene: Scene) -> None:
    first = scene.first
    until(lambda: thing(first, "namespaces/default/serviceaccounts/default") is not None)
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rude"},
        "spec": {"hostNetwork": True, "containers": [{"name": "a", "image": "a"}]},
    }  # fmt: skip
    answer = ask(first.address, "/api/v1/namespaces/default/pods", admin=first, method="POST", body=pod)
    assert answer.status == 403
    assert 'violates PodSecurity "restricted:latest"' in answer.message


def scheduled(scene: Scene) -> list[str]:
    """Names of the files, oldest first."""
    found = [path.name for path in scene.first.path(f"{SERVER}/db/snapshots").glob("etcd-snapshot-lab-c1-*")]
    return sorted(name for name in found if not name.endswith(".part"))


def test_snapshots_come_by_schedule_and_the_oldest_go(scene: Scene) -> None:
    first = scene.first
    until(lambda: scheduled(scene), said=lambda: tail(first))
    oldest = scheduled(scene)[0]
    until(lambda: oldest not in scheduled(scene), said=lambda: tail(first))
    until(lambda: len(scheduled(scene)) == 2, said=lambda: scheduled(scene))

    def shown() -> list[str]:
        return sorted(
            item["spec"]["snapshotName"] for item in things(first, "/apis/k3s.cattle.io/v1/etcdsnapshotfiles")
        )

    until(lambda: shown() == scheduled(scene), said=lambda: (shown(), scheduled(scene)))


@pytest.mark.parametrize("name", SYSCTLS)
def test_a_kernel_that_is_not_as_the_kubelet_wants_it_ends_k3s(scene: Scene, name: str) -> None:
    """Exit 0: only its words tell that it failed."""
    machine = scene.bare(30 + list(SYSCTLS).index(name))
    right_kernel(machine)
    machine.sysctl(name, 1 - SYSCTLS[name] if SYSCTLS[name] < 2 else 0)
    told = settings(machine, token=SECRET, **{"cluster-init": True, "protect-kernel-defaults": True})
    machine.configure(**told)
    machine.start()
    assert await_end(machine) == 0
    said = "\n".join(machine.lines())
    assert f"invalid kernel flag: {name}, expected value: {SYSCTLS[name]}" in said
    assert "Shutdown request received" in machine.lines()[-1]


def test_an_audit_policy_that_is_not_there_ends_k3s(scene: Scene) -> None:
    machine = scene.bare(40)
    arguments = ["audit-policy-file=/nowhere.yaml", "audit-log-path=-"]
    told = settings(machine, token=SECRET, **{"cluster-init": True, "disable-agent": True})
    machine.configure(**told, **{"kube-apiserver-arg": arguments})
    machine.start()
    assert await_end(machine) == 0
    assert "/nowhere.yaml" in "\n".join(machine.lines())
    assert "Shutdown request received" in machine.lines()[-1]


def test_a_registries_yaml_that_is_no_yaml_is_said(scene: Scene) -> None:
    machine = scene.bare(41)
    write(machine, "/etc/rancher/k3s/registries.yaml", "mirrors: [")
    machine.configure(**settings(machine, token=SECRET, **{"cluster-init": True}))
    machine.start()
    waits = "Waiting to retrieve agent configuration; server is not ready: "
    until(lambda: any(waits in line and "yaml: " in line for line in machine.lines()), said=lambda: tail(machine))
    machine.stop()
