"""From what hosts showed to what is wrong with them: every question, well and unwell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doctor_kit import host, text
from preflight_kit import BASE, C1, C2, W1

from funoffshore import errors
from funoffshore.config import ClusterConfig
from funoffshore.doctor import clusters, hosts, look
from funoffshore.doctor.hosts import Trouble
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world.ssh import ConnectFact, FileFact, FileSystem, HostFacts, Space, UnitFact, UnknownKeyError

PASS, WARN, FAIL, UNKNOWN = Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.UNKNOWN
SECRET = BASE.k3s.token.get_secret_value()
OURS, THEIRS = "a1" * 32, "b2" * 32


def existing(config: ClusterConfig = BASE) -> ClusterConfig:
    """The same nodes on machines that fo does not make."""
    return replace(config, nodes=tuple(replace(node, made=False) for node in config.nodes))


ALL = existing()
UP = Present(UnitFact("active", "running", "enabled", "success", 0, 0))


def served(number: int = 1, sha256: str = OURS, **changed: Any) -> HostFacts:
    """A host that runs a server of the cluster with that authority."""
    files = {clusters.TOKEN: text(f"K10{sha256}::server:{SECRET}\n"), **changed.pop("files", {})}
    return host(number, files=files, units={"k3s.service": UP, "k3s-agent.service": Absent()}, **changed)


def agent(number: int, sha256: str = OURS) -> HostFacts:
    files = {clusters.AGENT_CA: Present(FileFact("file", 0o600, "0:0", 1, sha256))}
    return host(number, files=files, units={"k3s.service": Absent(), "k3s-agent.service": UP})


def test_good_hosts_have_no_problems() -> None:
    seen = {node.name: host(number) for number, node in enumerate(ALL.nodes)}
    assert hosts.problems(ALL, seen) == []


FS = {"/": Present(FileSystem("btrfs", 1, "sda1", 1, "sda", 1, 0))}
CASES: list[tuple[Callable[..., Any], dict[str, Any], Outcome, str]] = [
    (hosts.systemd, {"systemd": False}, FAIL, "home-c1 is not run by systemd"),
    (hosts.architecture, {"arch": "riscv64"}, FAIL, "riscv64"),
    (hosts.architecture, {"arch": "aarch64"}, FAIL, "no K3s for it is pinned"),
    (hosts.identity, {"hostname": "HOST2"}, FAIL, "home-c1 and home-c2 share the hostname host2"),
    (hosts.identity, {"uuid": "0000-2"}, FAIL, "home-c1 and home-c2 share the system UUID 0000-2"),
    (hosts.identity, {"files": {hosts.MACHINE_ID: text(f"{2:032x}\n")}}, FAIL, "share the machine ID 0000"),
    (hosts.identity, {"files": {hosts.MACHINE_ID: text("\n")}}, FAIL, "home-c1 has no machine ID"),
    (hosts.identity, {"files": {hosts.MACHINE_ID: Absent()}}, FAIL, "home-c1 has no machine ID"),
    (hosts.identity, {"files": {hosts.MACHINE_ID: Unreadable("shut")}}, UNKNOWN, "could not be read (shut)"),
    (hosts.clocks, {"clock_skew": 5.9}, WARN, "the clock of home-c1 is +6 s off"),
    (hosts.clocks, {"clock_skew": -4.99}, WARN, "the clocks of home-c1 and home-c2 are 5 s apart"),
    (hosts.clocks, {"clock_skew": -600.0}, FAIL, "the clock of home-c1 is -600 s off"),
    (hosts.clocks, {"clock_skew": 301.0}, FAIL, "the clock of home-c1 is +301 s off"),
    (hosts.route, {"default_route": ""}, FAIL, "home-c1 has no default route"),
    (hosts.cgroups, {"memory_cgroup": False}, FAIL, "the kernel of home-c1 does not limit memory"),
    (hosts.cgroups, {"cgroup2": False}, FAIL, "home-c1 has no cgroup v2"),
    (hosts.swap, {"swap_mib": 512}, WARN, "home-c1 swaps (512 MiB)"),
    (hosts.ports, {"listening": frozenset({22, 2379, 6443})}, FAIL, "listens on home-c1: 6443, 2379"),
    (hosts.room, {"space": {hosts.DATA: Present(Space(2 << 30, 1_000_000))}}, WARN, "2048 MiB free"),
    (hosts.room, {"space": {hosts.DATA: Present(Space(64 << 10, 1_000_000))}}, FAIL, "0 MiB free"),
    (hosts.room, {"space": {hosts.DATA: Present(Space(50 << 30, 50_000))}}, WARN, "50000 inodes left"),
    (hosts.room, {"space": {hosts.DATA: Present(Space(50 << 30, 0))}}, FAIL, "0 inodes left"),
    (hosts.room, {"space": {hosts.DATA: Unreadable("an I/O error")}}, UNKNOWN, "an I/O error"),
    (hosts.room, {"space": {}}, UNKNOWN, "could not be read"),
]


@pytest.mark.parametrize(("judge", "changed", "outcome", "said"), CASES)
def test_what_is_wrong_is_named(
    judge: Callable[..., Any], changed: dict[str, Any], outcome: Outcome, said: str
) -> None:
    seen = {"home-c1": host(1, **changed), "home-c2": host(2)}
    found: list[Trouble] = list(judge(ALL, seen))
    assert found, "nothing was found"
    assert found[0].outcome is outcome
    assert said in found[0].said
    assert found[0].fix


def test_what_is_no_problem() -> None:
    assert not list(hosts.room(ALL, {"home-c1": host(space={hosts.DATA: Present(Space(9 << 30, 0))}, file_systems=FS)}))
    assert not list(hosts.ports(ALL, {"home-w1": host(listening=frozenset({6443, 2379}))}))
    assert not list(hosts.ports(ALL, {"home-c1": served(listening=frozenset({6443, 10250}))}))
    assert not list(hosts.identity(ALL, {"home-c1": host(1, uuid=""), "home-c2": host(2, uuid="")}))
    two = replace(ALL, k3s=replace(ALL.k3s, sha256_arm64="c" * 64))
    assert not list(hosts.architecture(two, {"home-w1": host(arch="aarch64")}))


def test_a_machine_of_fo_is_known_by_the_uuid_that_it_was_given() -> None:
    assert not list(hosts.identity(BASE, {"home-c1": host(uuid=str(C1.identity))}))
    (found,) = hosts.identity(BASE, {"home-c1": host(uuid=str(C2.identity))})
    assert "is not home-c1" in found.said


def test_cgroup_v1_is_odd_where_the_kubelet_takes_it() -> None:
    told = replace(ALL, k3s=replace(ALL.k3s, extra_config={"kubelet-arg": "fail-cgroupv1=false"}))
    (found,) = hosts.cgroups(told, {"home-c1": host(cgroup2=False)})
    assert found.outcome is WARN


# Findings


def test_an_unseen_host_leaves_a_question_open_unless_something_failed() -> None:
    assert hosts.finding("FO-DOC-030", [], "fine", 0).outcome is PASS
    open_ = hosts.finding("FO-DOC-030", [hosts.warn("w swaps")], "fine", 1)
    assert (open_.outcome, open_.fix, open_.evidence) == (UNKNOWN, "see FO-DOC-023", ("w swaps",))
    assert hosts.finding("FO-DOC-030", [hosts.fail("bad", "mend")], "fine", 1).outcome is FAIL


def test_the_gravest_comes_first() -> None:
    found = hosts.finding("FO-DOC-027", [hosts.warn("odd"), hosts.dark("dark", ""), hosts.fail("bad", "mend")], "", 0)
    assert (found.outcome, found.said) == (FAIL, "bad, and 2 more")
    assert found.evidence == ("bad → mend", "dark", "odd")
    assert hosts.finding("FO-DOC-027", [hosts.warn("odd"), hosts.dark("dark")], "", 0).outcome is UNKNOWN


def test_who_is_not_let_in_is_told_why() -> None:
    refused = errors.RefusedError("home-c1 did not run the helper: sudo: a password is required", fix="NOPASSWD")
    silent, unknown = errors.UnreachableError("no route"), UnknownKeyError("the host key is not known yet")
    found = hosts.login(ALL, {"home-c1": refused}, {})
    assert (found.outcome, found.fix) == (FAIL, "NOPASSWD")
    assert hosts.login(ALL, {"home-c1": silent}, {}).outcome is UNKNOWN
    assert hosts.login(ALL, {"home-c1": silent, "home-c2": refused}, {}).outcome is FAIL
    assert hosts.login(ALL, {}, {"home-c1": host()}).outcome is PASS
    learned = hosts.login(ALL, {"home-c1": unknown, "home-c2": unknown}, {})
    assert (learned.outcome, learned.said) == (WARN, "2 host keys not known yet")
    assert "SSH_KNOWN_HOSTS" in learned.fix
    assert hosts.login(BASE, {"home-c1": unknown}, {}).outcome is UNKNOWN


# Belonging


def belonging(
    seen: Mapping[str, HostFacts], authority: str = "", config: ClusterConfig = ALL
) -> list[tuple[Outcome, str]]:
    return [(one.outcome, one.said) for one in clusters.belonging(config, seen, authority)]


def test_empty_hosts_and_hosts_of_this_cluster_belong() -> None:
    assert belonging({"home-c1": host(1), "home-w1": host(2)}) == []
    assert belonging({"home-c1": served(1), "home-c2": served(2), "home-w1": agent(3)}, OURS) == []
    assert belonging({"home-c1": served(1), "home-w1": agent(3)}) == []
    # a kubeconfig of an earlier cluster is not the hosts' fault
    assert belonging({"home-c1": served(1), "home-w1": agent(3)}, THEIRS) == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"home-c1": served(1), "home-c2": served(2, THEIRS)}, "home-c2 carries a K3s of another authority"),
        ({"home-c1": served(1), "home-w1": agent(3, THEIRS)}, "home-w1 carries a K3s of another authority"),
        ({"home-c1": served(1), "home-w1": served(2)}, "home-w1 shall be a worker, and carries a server"),
        ({"home-c1": agent(1)}, "home-c1 shall be a controller, and carries an agent"),
        ({"home-c1": served(1, files={clusters.SQLITE: text("x")})}, "keeps its data in SQLite"),
        ({"home-c1": served(1, files={clusters.TOKEN: text(f"K10{OURS}::server:other")})}, "has another token"),
        (
            {"home-c1": host(1), "home-c2": host(2), "home-c3": host(3), "home-w1": agent(4)},
            "home-w1 belong to a cluster that no controller carries",
        ),
    ],
)
def test_strangers_are_named(seen: dict[str, HostFacts], said: str) -> None:
    found = belonging(seen, OURS)
    assert [outcome for outcome, line in found if said in line] == [FAIL], found
    assert SECRET not in str(found)


def test_what_could_not_be_read_may_be_a_stranger() -> None:
    for reading in (Unreadable("shut"), text("nonsense")):
        assert belonging({"home-c1": served(1, files={clusters.TOKEN: reading})})[0][0] is UNKNOWN


# Reaching


def test_who_has_to_reach_whom() -> None:
    seen = {"home-c1": served(1), "home-c2": host(2), "home-w1": agent(3)}
    api = (str(ALL.api), 6443)
    first, worker = str(C1.address), str(W1.address)
    assert set(clusters.targets(ALL, seen, C1)) == {(worker, 10250), api}
    assert set(clusters.targets(ALL, seen, C2)) == {
        (first, 6443), (first, 2379), (first, 2380), (first, 10250), (worker, 10250), api,
    }  # fmt: skip
    assert set(clusters.targets(ALL, seen, W1)) == {(first, 6443), api}
    assert clusters.targets(ALL, {"home-c1": host(1), "home-w1": host(2)}, C1) == ()


def test_a_port_that_is_shut_is_named_from_where_to_where() -> None:
    seen = {"home-c1": served(1), "home-w1": host(3)}
    place, api = f"{C1.address}:6443", f"{ALL.api}:6443"
    good, shut = Present(ConnectFact(True, "")), Present(ConnectFact(False, "timed out"))

    def found(results: dict[str, Any]) -> list[Trouble]:
        tried = {"home-c1": host(1, connect={api: good}), "home-w1": host(3, connect=results)}
        return list(clusters.reaching(ALL, seen, tried))

    assert found({place: good, api: good}) == []
    (blocked,) = found({place: shut, api: good})
    assert blocked.outcome is FAIL
    assert blocked.said == f"home-w1 does not reach home-c1 ({C1.address}) on 6443: timed out"
    assert "8472/udp" in blocked.fix
    (dark,) = found({place: good})
    assert (dark.outcome, dark.said) == (
        UNKNOWN,
        f"whether home-w1 reaches the VIP ({ALL.api}) on 6443 could not be tried",
    )


# A folder


def airgap(folder: Path) -> ClusterConfig:
    """K3S_FOLDER with everything for amd64, and a config that pins it."""
    folder.mkdir(exist_ok=True)
    (folder / "k3s").write_bytes(b"binary")
    (folder / "k3s-airgap-images-amd64.tar.zst").write_bytes(b"images")
    images = hashlib.sha256(b"images").hexdigest()
    (folder / "sha256sum-amd64.txt").write_text(f"{images}  k3s-airgap-images-amd64.tar.zst\n")
    pinned = replace(BASE.k3s, folder=folder, sha256=hashlib.sha256(b"binary").hexdigest())
    return replace(ALL, k3s=pinned)


def test_a_folder_that_holds_everything(tmp_path: Path) -> None:
    assert list(look.folder_problems(airgap(tmp_path), tmp_path, "amd64")) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("k3s", None, "k3s cannot be read"),
        ("k3s", b"another", "k3s is not what the digest that is pinned says"),
        ("k3s-airgap-images-amd64.tar.zst", None, "has no images for amd64"),
        ("k3s-airgap-images-amd64.tar.zst", b"cut", "is not what sha256sum-amd64.txt says"),
        ("sha256sum-amd64.txt", None, "cannot be checked"),
    ],
)
def test_what_a_folder_lacks(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    config = airgap(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (found,) = look.folder_problems(config, tmp_path, "amd64")
    assert found.outcome is FAIL
    assert said in found.said
    assert found.fix
