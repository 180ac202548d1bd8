"""What is said about K3s: labels, taints, snapshots, registries, hardening, both IP families."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from config_samples import ROOT, edit, existing, expect, home, problems
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import config
from funoffshore.config import ClusterConfig, kubernetes

SIX = {
    "CLUSTER_CIDR_V6": "fd00:42::/56",
    "SERVICE_CIDR_V6": "fd00:43::/112",
    "SUBNET_V6": "fd00:7::/64",
    "GATEWAY_V6": "fe80::1",
}
S3 = {
    "ETCD_S3_ENDPOINT": "s3.lan:9000",
    "ETCD_S3_BUCKET": "homelab",
    "ETCD_S3_ACCESS_KEY": "access-geheim",
    "ETCD_S3_SECRET_KEY": "secret-geheim",
}
_LABELS = 'Kubernetes labels, like "disk=ssd,zone=attic"'
_TAINTS = 'Kubernetes taints, like "gpu=true:NoSchedule", with commas between them'
_RESERVED = "sets a label of funoffshore.io or k3s.io; those are fo's and K3s' own"
_CRON = 'a schedule of cron with five fields, like "0 */6 * * *"'


def _parse(text: str) -> ClusterConfig:
    return config.parse(text, "home", ROOT)


def test_what_is_not_said_is_as_it_always_was() -> None:
    k3s = _parse(home()).k3s
    assert (k3s.source, k3s.folder, k3s.protect_kernel, k3s.cis, k3s.audit) == ("hosts", None, True, False, False)
    assert (k3s.mirrors, k3s.embedded_registry, k3s.upgrade_batch) == ((), False, 1)
    assert k3s.snapshots == config.Snapshots()
    assert (k3s.cluster_cidr_v6, k3s.service_cidr_v6, k3s.token_next, k3s.agent_token_next) == (None,) * 4
    assert all(n.address_v6 is None and not n.labels and not n.taints for n in _parse(home()).nodes)


def test_everything_said_is_read(tmp_path: Path) -> None:
    (tmp_path / "k3s").write_text("")
    more = {
        **S3,
        "K3S_FOLDER": str(tmp_path),
        "K3S_CIS": "true",
        "K3S_AUDIT": "true",
        "EMBEDDED_REGISTRY": "true",
        "UPGRADE_BATCH": "3",
        "REGISTRY_MIRRORS": "docker.io=https://mirror.lan;*=https://mirror.lan:5000/all",
        "ETCD_SNAPSHOT_SCHEDULE": '"30 2 * * mon-fri"',
        "ETCD_SNAPSHOT_KEEP": "7",
        "ETCD_S3_FOLDER": "k3s/home",
        "ETCD_SNAPSHOT_NFS": "nas.lan:/backup/etcd",
        "K3S_TOKEN_NEXT": "t" * 32,
        "NODE_W1_LABELS": '"disk=ssd,example.org/zone=attic,empty="',
        "NODE_W1_TAINTS": "gpu=true:NoSchedule,gpu:NoExecute",
        "CONTROLLER_TAINTS": "node-role.kubernetes.io/control-plane:NoSchedule",
        "NODE_C2_TAINTS": "spare:PreferNoSchedule",
    }
    found = _parse(edit(home(), more))
    assert (found.k3s.source, found.k3s.folder) == ("push", tmp_path)
    assert (found.k3s.cis, found.k3s.audit, found.k3s.embedded_registry, found.k3s.upgrade_batch) == (
        True,
        True,
        True,
        3,
    )
    assert found.k3s.mirrors == (("docker.io", "https://mirror.lan"), ("*", "https://mirror.lan:5000/all"))
    shots = found.k3s.snapshots
    assert (shots.schedule, shots.keep, shots.nfs) == ("30 2 * * mon-fri", 7, "nas.lan:/backup/etcd")
    assert shots.s3 is not None
    assert (shots.s3.endpoint, shots.s3.region, shots.s3.bucket) == ("s3.lan:9000", "us-east-1", "homelab")
    assert shots.s3.folder == "k3s/home"
    assert shots.s3.secret_key.get_secret_value() == "secret-geheim"
    assert "geheim" not in repr(found)
    assert found.k3s.token_next is not None
    worker = found.node("home-w1")
    assert worker.labels == (("disk", "ssd"), ("example.org/zone", "attic"), ("empty", ""))
    assert worker.taints == ("gpu=true:NoSchedule", "gpu:NoExecute")
    assert found.node("home-c1").taints == ("node-role.kubernetes.io/control-plane:NoSchedule",)
    assert found.node("home-c2").taints == ("spare:PreferNoSchedule",)
    assert found.node("home-w2").taints == ()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("NODE_W1_LABELS", "disk", f'"disk" is not {_LABELS}'),
        ("NODE_W1_LABELS", "a=b=c", f'"a=b=c" is not {_LABELS}'),
        ("NODE_W1_LABELS", "-a=b", f'"-a=b" is not {_LABELS}'),
        ("NODE_W1_LABELS", "a=b.", f'"a=b." is not {_LABELS}'),
        ("NODE_W1_LABELS", "A.org/a=b", f'"A.org/a=b" is not {_LABELS}'),
        ("NODE_W1_LABELS", f"a={'b' * 64}", f"the value is not {_LABELS}"),
        ("NODE_W1_LABELS", "a=b,a=c", "sets a label twice"),
        ("NODE_W1_LABELS", "funoffshore.io/x=1", _RESERVED),
        (
            "NODE_W1_LABELS",
            "node-role.kubernetes.io/worker=true",
            (
                "sets a label of kubernetes.io or k8s.io with which the kubelet would not start; allowed are "
                "topology.kubernetes.io/region and /zone and those below node.kubernetes.io and kubelet.kubernetes.io"
            ),
        ),
        ("NODE_W1_TAINTS", "gpu", f'"gpu" is not {_TAINTS}'),
        ("NODE_W1_TAINTS", "gpu=true:Never", f'"gpu=true:Never" is not {_TAINTS}'),
        ("NODE_W1_TAINTS", "gpu=:NoSchedule", f'"gpu=:NoSchedule" is not {_TAINTS}'),
        ("NODE_W1_TAINTS", "a:NoSchedule,a=1:NoSchedule", "sets a taint twice"),
        ("K3S_FOLDER", "airgap", "the value is not an absolute path on this computer"),
        ("K3S_FOLDER", "/nowhere/at/all", "cannot be looked at: No such file or directory"),
        ("K3S_FOLDER", "/dev/null", "is not a folder"),
        (
            "K3S_FOLDER",
            "/proc",
            "holds no file k3s that can be read; put the binary of K3S_VERSION there (k3s, k3s-arm64)",
        ),
        ("K3S_SOURCE", "usb", '"usb" is not "hosts" or "push"'),
        ("UPGRADE_BATCH", "0", '"0" is not a whole number between 1 and 10'),
        (
            "REGISTRY_MIRRORS",
            "docker.io",
            (
                "the value is not registries and their mirrors, like "
                '"docker.io=https://mirror.lan;ghcr.io=https://mirror.lan"'
            ),
        ),
        ("REGISTRY_MIRRORS", "docker.io=http://mirror.lan", "names an http:// one, which is only for LAB=embedded"),
        (
            "REGISTRY_MIRRORS",
            "a.io=https://u:geheim@mirror.lan",
            ("holds a user or password; a URL here never does, secrets have keys of their own"),
        ),
        ("REGISTRY_MIRRORS", "a.io=https://m.lan;a.io=https://n.lan", "names a registry twice"),
        ("ETCD_SNAPSHOT_SCHEDULE", "daily", f'"daily" is not {_CRON}'),
        ("ETCD_SNAPSHOT_SCHEDULE", '"0 2 31 2 *"', "names a day that none of its months has"),
        ("ETCD_S3_ENDPOINT", "https://s3.lan", "is a URL; give the host alone, https is always spoken to it"),
        ("ETCD_S3_BUCKET", "b/folder", "holds more than the bucket; the folder belongs in ETCD_S3_FOLDER"),
        ("ETCD_SNAPSHOT_NFS", "nas.lan", '"nas.lan" is not an NFS export, like nas.lan:/backup/etcd'),
        ("K3S_EXTRA_CONFIG", "node-label=a=b", "sets node-label, which fo sets itself (NODE_C1_LABELS)"),
        ("K3S_EXTRA_CONFIG", "etcd-s3-bucket=geheim", "sets a key of etcd-s3, which fo sets itself"),
        (
            "K3S_EXTRA_CONFIG",
            "etcd-snapshot-retention=5",
            "sets etcd-snapshot-retention, which fo sets itself (ETCD_SNAPSHOT_KEEP)",
        ),
        ("K3S_TOKEN_NEXT", "short", "the value is not 16 to 128 letters and digits"),
        ("CLUSTER_CIDR_V6", "fd00::/56", ""),
        ("SUBNET_V6", "fd00:7::/64", "is given, and CLUSTER_CIDR_V6 and SERVICE_CIDR_V6 are not"),
        ("NODE_W1_IPV6", "fd00:7::1", "is given, and CLUSTER_CIDR_V6 and SERVICE_CIDR_V6 are not"),
        ("SUBNET_V6", "fd00:7::1/64", "has bits set behind its prefix; the network is fd00:7::/64"),
        ("SUBNET_V6", "fd00:7::", "has no prefix length, like /64"),
        ("GATEWAY_V6", "fe80::1%eth0", '"fe80::1%eth0" is not an IPv6 address'),
        ("GATEWAY_V6", "::ffff:10.0.0.1", '"::ffff:10.0.0.1" is not an IPv6 address'),
    ],
)
def test_one_wrong_value(name: str, value: str, problem: str) -> None:
    text = edit(home(), {name: value})
    if name == "CLUSTER_CIDR_V6":
        expect(
            text,
            "SERVICE_CIDR_V6: is required beside CLUSTER_CIDR_V6",
            "SUBNET_V6: is required for the IPv6 address of home-c1, or give NODE_C1_IPV6",
            *(
                f"SUBNET_V6: is required for the IPv6 address of {node}, or give NODE_{node[5:].upper()}_IPV6"
                for node in ("home-c2", "home-c3", "home-w1", "home-w2")
            ),
        )
    else:
        expect(text, f"{name}: {problem}")


@pytest.mark.parametrize("missing", sorted(S3))
def test_s3_comes_whole_or_not_at_all(missing: str) -> None:
    text = edit(home(), {key: value for key, value in S3.items() if key != missing})
    first = "ETCD_S3_BUCKET" if missing == "ETCD_S3_ENDPOINT" else "ETCD_S3_ENDPOINT"
    expect(text, f"{missing}: is required beside {first}")


def test_a_region_alone_is_no_s3() -> None:
    wanted = [f"{key}: is required beside ETCD_S3_REGION" for key in S3]
    expect(edit(home(), {"ETCD_S3_REGION": "eu-central-1"}), *wanted)


def test_some_machine_takes_applications() -> None:
    keep_away = {"CONTROLLER_TAINTS": "CriticalAddonsOnly=true:NoExecute", "WORKERS": "0", "WORKER_FIRST_IP": ""}
    said = "CONTROLLER_TAINTS: leaves no machine without a taint, so that no application could run anywhere"
    expect(edit(home(), keep_away), said)
    assert _parse(edit(home(), {**keep_away, "CONTROLLER_TAINTS": "busy:PreferNoSchedule"})).controllers[0].taints
    assert _parse(edit(home(), {**keep_away, "NODE_C3_TAINTS": "busy:PreferNoSchedule"})).controllers[0].taints
    every = {f"NODE_{node}_TAINTS": "a:NoSchedule" for node in ("C1", "C2", "C3", "W1", "W2")}
    expect(
        edit(home(), every),
        "NODE_W2_TAINTS: leaves no machine without a taint, so that no application could run anywhere",
    )


def test_the_cis_profile_asks_for_what_it_rests_on() -> None:
    expect(
        edit(home(), {"K3S_CIS": "true", "K3S_PROTECT_KERNEL": "false", "SECRETS_ENCRYPTION": "false"}),
        "K3S_PROTECT_KERNEL: is false, and the CIS profile (K3S_CIS) asks for it",
        "SECRETS_ENCRYPTION: is false, and the CIS profile (K3S_CIS) asks for it",
    )


def test_next_tokens_differ_from_the_other_s() -> None:
    same = {"K3S_AGENT_TOKEN": "a" * 32, "K3S_TOKEN_NEXT": "a" * 32}
    expect(edit(home(), same), "K3S_AGENT_TOKEN: is the same as K3S_TOKEN_NEXT; a worker could join as a server")


# Both IP families


def test_addresses_follow_from_the_ipv4_ones() -> None:
    found = _parse(edit(home(), {**SIX, "NODE_W2_IPV6": "fd00:7::beef"}))
    assert found.k3s.cluster_cidr_v6 == IPv6Network("fd00:42::/56")
    assert (found.network.subnet_v6, found.network.gateway_v6) == (IPv6Network("fd00:7::/64"), IPv6Address("fe80::1"))
    for node in found.nodes[:-1]:
        assert node.address_v6 == IPv6Address("fd00:7::") + (int(node.address) & 0xFFFF)
    assert found.node("home-c1").address_v6 == IPv6Address("fd00:7::729")
    assert found.node("home-w2").address_v6 == IPv6Address("fd00:7::beef")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "NODE_W2_IPV6",
            "fd00:7::729",
            "NODE_W2_IPV6: home-w2 would have fd00:7::729, which home-c1 has already (SUBNET_V6)",
        ),
        (
            "NODE_W2_IPV6",
            "fd00:8::1",
            "NODE_W2_IPV6: home-w2 would have fd00:8::1, which is outside SUBNET_V6 fd00:7::/64",
        ),
        (
            "NODE_W2_IPV6",
            "fd00:7::",
            "NODE_W2_IPV6: home-w2 would have fd00:7::, the network address of SUBNET_V6 fd00:7::/64",
        ),
        ("NODE_W2_IPV6", "ff02::1", "NODE_W2_IPV6: home-w2 would have ff02::1, which no machine can have"),
        (
            "GATEWAY_V6",
            "fd00:9::1",
            "GATEWAY_V6: the gateway would have fd00:9::1, which is outside SUBNET_V6 fd00:7::/64",
        ),
        (
            "GATEWAY_V6",
            "fd00:7::729",
            "SUBNET_V6: home-c1 would have fd00:7::729, which the gateway has already (GATEWAY_V6)",
        ),
        ("SUBNET_V6", "fd00:7::/120", "SUBNET_V6: has a prefix outside /32 to /112"),
        (
            "CLUSTER_CIDR_V6",
            "fd00:42::/62",
            "CLUSTER_CIDR_V6: fd00:42::/62 has room for 4 machines (a /64 each), not for 5",
        ),
        (
            "CLUSTER_CIDR_V6",
            "fd00:42::/40",
            "CLUSTER_CIDR_V6: has a prefix outside /48 to /64; each machine gets a /64 of it",
        ),
        ("SERVICE_CIDR_V6", "fd00:43::/64", "SERVICE_CIDR_V6: has a prefix outside /108 to /120"),
        (
            "SERVICE_CIDR_V6",
            "fd00:42::/112",
            "SERVICE_CIDR_V6: fd00:42::/112 overlaps with CLUSTER_CIDR_V6 fd00:42::/56",
        ),
        ("SUBNET_V6", "fe80::/64", "SUBNET_V6: fe80::/64 is not a network for machines, pods or services"),
    ],
)
def test_one_wrong_ipv6_value(name: str, value: str, problem: str) -> None:
    """Another problem may follow from it; this one is named, behind the key that is to blame."""
    said = problems(edit(home(), {**SIX, name: value}))
    assert any(line.endswith(f": {problem}") for line in said), said


def test_existing_machines_may_have_ipv6_addresses_from_anywhere() -> None:
    own = {"NODE_C1_IPV6": "2001:db8::1", "NODE_W1_IPV6": "fd00:7::51", "NODE_W2_IPV6": "fd12::7"}
    whole = {"CLUSTER_CIDR_V6": "fd00:42::/56", "SERVICE_CIDR_V6": "fd00:43::/112", **own}
    found = _parse(edit(existing(), whole))
    assert [str(n.address_v6) for n in found.nodes] == list(own.values())
    expect(
        edit(existing(), {**whole, "NODE_W2_IPV6": "fd00:42::9"}),
        "NODE_W2_IPV6: home-w2 would have fd00:42::9, which is in CLUSTER_CIDR_V6 fd00:42::/56",
    )


# Schedules


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "0 */6 * * *", "5,35 1-5 1 jan,JUN mon-fri", "0/15 0 29 2 *", "0 0 31 2 0", "? ? ? ? ?", "@daily"],
)
def test_schedules_that_k3s_takes(text: str) -> None:
    assert kubernetes.CRON.parse(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "5-1 * * * *",
     "*/0 * * * *", "* * * foo *", "* * * * mon-", "*-5 * * * *", "1,, * * * *", "@every 5s",
     "0  0 * * *", "0 0 30 feb *"],
)  # fmt: skip
def test_schedules_that_it_does_not_take(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - a kind gives no reason where "is not …" says it all
        kubernetes.CRON.parse(text)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(1, 31), st.integers(1, 12), st.integers(0, 6))
def test_any_time_is_a_schedule(minute: int, hour: int, day: int, month: int, weekday: int) -> None:
    kubernetes.CRON.parse(f"{minute} {hour} {day} {month} {weekday}")
