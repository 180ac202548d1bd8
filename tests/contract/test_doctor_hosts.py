"""What the doctor says of hosts: lab machines that are well, and one thing wrong at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import k3s_homelab
import k3s_operator
import pytest
from k3s_homelab import Homelab

from funoffshore import doctor, hostkeys
from funoffshore.config import ClusterConfig
from funoffshore.doctor import clusters, hosts, look
from funoffshore.findings import Finding, Outcome
from funoffshore.world.world import open_world

PASS, WARN, FAIL, UNKNOWN = Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.UNKNOWN


def existing(lab: Homelab) -> ClusterConfig:
    """The lab's machines as if nobody had made them."""
    return replace(lab.config, nodes=tuple(replace(node, made=False) for node in lab.config.nodes))


def findings(lab: Homelab, config: ClusterConfig | None = None) -> dict[str, Finding]:
    wanted = config or existing(lab)
    found = list(look.examine(lab.world, wanted, wanted.nodes))
    assert [finding.id for finding in found] == sorted({finding.id for finding in found})
    assert all(finding.title == doctor.TITLES[finding.id] for finding in found)
    return {finding.id: finding for finding in found}


def told(lab: Homelab, id_: str, config: ClusterConfig | None = None) -> tuple[Outcome, str]:
    """Outcome and all words of one finding."""
    found = findings(lab, config)[id_]
    return found.outcome, "\n".join((found.said, *found.evidence, found.fix))


def built(tmp: Path, controllers: int, workers: int) -> Homelab:
    """Booted hosts whose keys the operator has listed."""
    config = k3s_homelab._config(tmp, controllers, workers)
    seed = config.ssh.host_key_seed.get_secret_value()
    lines = [
        f"[{node.address}]:{config.ssh.port} {hostkeys.openssh_public(hostkeys.private(seed, node.name))}"
        for node in config.nodes
    ]
    lab = Homelab(tmp, config=replace(config, ssh=replace(config.ssh, known_hosts="\n".join(lines))))
    lab.boot()
    return lab


@contextlib.contextmanager
def changed(lab: Homelab, host: str, path: str, content: str | None) -> Iterator[None]:
    """A file on a host's disk with other content, or gone, until the end."""
    files = lab.host(host).files
    before = files.read(path) if files.exists(path) else None
    if content is None:
        files.unlink(path)
    else:
        files.write(path, content, 0o600)
    try:
        yield
    finally:
        if before is None:
            files.unlink(path)
        else:
            files.write(path, before, 0o600)


@contextlib.contextmanager
def fault(lab: Homelab, name: str, **parameters: str) -> Iterator[None]:
    lab.kit.faults.on(name, **parameters)
    try:
        yield
    finally:
        lab.kit.faults.off(name)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homelab]:
    """Two hosts without K3s. Whoever changes something puts it back."""
    lab = built(tmp_path_factory.mktemp("bare"), 1, 1)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homelab]:
    """Two servers and an agent that run."""
    lab = built(tmp_path_factory.mktemp("ready"), 2, 1)
    lab.converge()
    yield lab
    lab.close()


def test_bare_hosts_are_well(bare: Homelab) -> None:
    found = findings(bare)
    assert {id_: finding.said for id_, finding in found.items() if finding.outcome is not PASS} == {}
    assert set(found) == {f"FO-DOC-0{n}" for n in (23, 24, 25, 26, 27, 28, 29, 30, 31, 33, 34, 35)}
    assert found["FO-DOC-025"].said == "amd64"
    assert found["FO-DOC-035"].said.startswith("2 hosts can fetch it from ")


def test_without_hosts_nothing_is_asked(bare: Homelab) -> None:
    assert list(look.examine(bare.world, bare.config, ())) == []


def test_hosts_of_a_cluster_are_well(ready: Homelab) -> None:
    before = ready.world.hosts.round_trips
    found = findings(ready)
    assert ready.world.hosts.round_trips - before == 2 * len(ready.config.nodes)
    assert {id_: finding.said for id_, finding in found.items() if finding.outcome is not PASS} == {}
    assert found["FO-DOC-032"].said.startswith("15 connections tried; 8472/udp")
    assert found["FO-DOC-035"].said == "all of them have it"


# Login


def test_a_host_that_does_not_answer_leaves_everything_open(bare: Homelab) -> None:
    config = existing(bare)
    ghost = replace(config.nodes[1], name="lab-w9", address=IPv4Address(int(config.network.vip) + 90))
    found = findings(bare, replace(config, nodes=(*config.nodes, ghost)))
    assert found["FO-DOC-023"].outcome is UNKNOWN
    assert "lab-w9" in found["FO-DOC-023"].said
    assert {finding.outcome for finding in found.values()} == {UNKNOWN}
    assert {finding.fix for id_, finding in found.items() if id_ != "FO-DOC-023"} == {"see FO-DOC-023"}


def test_a_host_without_python(bare: Homelab) -> None:
    with fault(bare, "no-python3", node="lab-w1"):
        outcome, said = told(bare, "FO-DOC-023")
    assert outcome is FAIL
    assert "install python3 on the host" in said


def test_a_host_whose_key_is_not_known_yet(bare: Homelab) -> None:
    """With SSH_TRUST=first-use a bootstrap learns it, and a doctor learns nothing."""
    config = replace(bare.config, ssh=replace(bare.config.ssh, known_hosts=""))
    world = open_world(config, bare.kit.clock, bare.kit.directory / "cache")
    unlisted = tuple(replace(node, made=False) for node in config.nodes)
    found = {f.id: f for f in look.examine(world, replace(config, nodes=unlisted), unlisted)}
    world.close()
    assert (found["FO-DOC-023"].outcome, found["FO-DOC-023"].said) == (WARN, "2 host keys not known yet")
    assert {finding.outcome for id_, finding in found.items() if id_ != "FO-DOC-023"} == {UNKNOWN}


def test_sudo_that_wants_a_password(bare: Homelab) -> None:
    folder = bare.host("lab-w1").path("/etc/sudoers.d")
    (granting,) = [file.name for file in folder.iterdir() if "NOPASSWD" in file.read_text()]
    path = f"/etc/sudoers.d/{granting}"
    text = bare.host("lab-w1").files.read(path)
    with changed(bare, "lab-w1", path, text.replace("NOPASSWD:", "")):
        outcome, said = told(bare, "FO-DOC-023")
    assert outcome is FAIL
    assert "sudo" in said
    assert told(bare, "FO-DOC-023")[0] is PASS


# The machine


def test_clones(bare: Homelab) -> None:
    machine_id = bare.host("lab-c1").files.read(hosts.MACHINE_ID)
    with changed(bare, "lab-w1", hosts.MACHINE_ID, machine_id):
        outcome, said = told(bare, "FO-DOC-026")
    assert outcome is FAIL
    assert "lab-c1 and lab-w1 share the machine ID" in said
    with changed(bare, "lab-w1", "/etc/hostname", "lab-c1\n"):
        # the lab's hosts are found by that name, so only the door to them is used meanwhile
        found = list(look.examine(bare.world, existing(bare), existing(bare).nodes))
        bare_host = bare.machines._hosts[bare.config.node("lab-w1").vmid]
        bare_host.files.write("/etc/hostname", "lab-w1\n")
    (named,) = [finding for finding in found if finding.id == "FO-DOC-026"]
    assert (named.outcome, named.said) == (FAIL, "lab-c1 and lab-w1 share the hostname lab-c1")


def test_another_machine_at_an_address_of_ours(bare: Homelab) -> None:
    with changed(bare, "lab-w1", "/sys/class/dmi/id/product_uuid", "11111111-2222-3333-4444-555555555555\n"):
        outcome, said = told(bare, "FO-DOC-026", bare.config)
    assert outcome is FAIL
    assert "is not lab-w1: its system UUID is 11111111" in said


@pytest.mark.parametrize(("minutes", "outcome"), [("10", FAIL), ("1", WARN), ("-1", WARN)])
def test_a_clock_that_is_off(bare: Homelab, minutes: str, outcome: Outcome) -> None:
    with fault(bare, "clock-off", node="lab-w1", minutes=minutes):
        seen, said = told(bare, "FO-DOC-027")
    assert seen is outcome
    assert "the clock of lab-w1" in said
    assert "the clocks of " in said


def test_no_default_route(bare: Homelab) -> None:
    with changed(bare, "lab-w1", "/proc/net/route", "Iface Destination Gateway\n"):
        outcome, said = told(bare, "FO-DOC-028")
    assert outcome is FAIL
    assert "lab-w1 has no default route" in said


def test_a_kernel_without_the_memory_controller(bare: Homelab) -> None:
    with changed(bare, "lab-w1", "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n"):
        outcome, said = told(bare, "FO-DOC-029")
    assert outcome is FAIL
    assert "cgroup_enable=memory" in said
    with changed(bare, "lab-w1", "/sys/fs/cgroup/cgroup.controllers", None):
        outcome, said = told(bare, "FO-DOC-029")
    assert outcome is FAIL
    assert "lab-w1 has no cgroup v2" in said


def test_a_host_that_swaps(bare: Homelab) -> None:
    memory = bare.host("lab-w1").files.read("/proc/meminfo")
    lines = [line for line in memory.splitlines() if not line.startswith("SwapTotal")]
    with changed(bare, "lab-w1", "/proc/meminfo", "\n".join([*lines, "SwapTotal:  1048576 kB", ""])):
        outcome, said = told(bare, "FO-DOC-030")
    assert outcome is WARN
    assert "lab-w1 swaps (1024 MiB)" in said


def test_a_stranger_on_the_ports_of_k3s(bare: Homelab) -> None:
    machine = bare.host("lab-c1")
    machine.listen_port(2379)
    try:
        outcome, said = told(bare, "FO-DOC-031")
    finally:
        machine.unlisten_port(2379)
    assert outcome is FAIL
    assert "something that is not K3s listens on lab-c1: 2379" in said


def test_a_disk_without_room(ready: Homelab) -> None:
    with fault(ready, "disk-full", node="lab-w1"):
        outcome, said = told(ready, "FO-DOC-033")
    assert outcome is FAIL
    assert "lab-w1 has 0 MiB free for K3s" in said


def test_an_init_that_is_not_systemd(bare: Homelab) -> None:
    real = bare.host("lab-w1").path("/run/systemd")
    real.rename(real.with_name("elsewhere"))
    try:
        outcome, said = told(bare, "FO-DOC-024")
    finally:
        real.with_name("elsewhere").rename(real)
    assert outcome is FAIL
    assert "lab-w1 is not run by systemd" in said


# Where K3s comes from


def test_releases_that_nobody_reaches(bare: Homelab) -> None:
    config = existing(bare)
    nowhere = replace(config.k3s, download_url=f"http://{config.network.vip}:8088/k3s")
    outcome, said = told(bare, "FO-DOC-035", replace(config, k3s=nowhere))
    assert outcome is FAIL
    assert "lab-w1 does not reach" in said
    assert "K3S_SOURCE=push" in said
    outcome, said = told(bare, "FO-DOC-035", replace(config, k3s=replace(nowhere, source="push")))
    assert outcome is FAIL
    assert "sha256sum-amd64.txt" in said
    pushed = replace(config, k3s=replace(config.k3s, source="push"))
    assert told(bare, "FO-DOC-035", pushed) == (PASS, "this computer reaches the releases\n")


def test_a_folder_that_lacks_something(bare: Homelab, tmp_path: Path) -> None:
    config = existing(bare)
    outcome, said = told(bare, "FO-DOC-035", replace(config, k3s=replace(config.k3s, folder=tmp_path, source="push")))
    assert outcome is FAIL
    assert f"{tmp_path} has no images for amd64" in said
    assert f"{tmp_path / 'k3s'} cannot be read" in said


def test_an_architecture_without_a_pin(bare: Homelab) -> None:
    config = existing(bare)
    outcome, said = told(bare, "FO-DOC-025", replace(config, k3s=replace(config.k3s, sha256="", sha256_arm64="a" * 64)))
    assert outcome is FAIL
    assert "lab-c1" in said


# Together


def test_a_port_that_is_blocked_between_hosts(ready: Homelab) -> None:
    with fault(ready, "port-blocked", **{"from": "lab-w1", "port": "6443"}):
        outcome, said = told(ready, "FO-DOC-032")
    assert outcome is FAIL
    assert "lab-w1 does not reach lab-c1" in said
    assert "lab-c2 does not reach" not in said


def test_a_server_of_another_cluster(ready: Homelab) -> None:
    text = ready.host("lab-c2").files.read(clusters.TOKEN)
    with changed(ready, "lab-c2", clusters.TOKEN, text.replace("K10", "K10" + "0" * 8)[:67] + text[67:]):
        outcome, said = told(ready, "FO-DOC-034")
        assert outcome in (FAIL, UNKNOWN)
    other = "K10" + "ab" * 32 + text[67:]
    with changed(ready, "lab-c2", clusters.TOKEN, other):
        outcome, said = told(ready, "FO-DOC-034")
    assert outcome is FAIL
    assert "lab-c2 carries a K3s of another authority (abababab" in said
    with changed(ready, "lab-c2", clusters.TOKEN, text.replace("::server:", "::server:not")):
        outcome, said = told(ready, "FO-DOC-034")
    assert outcome is FAIL
    assert "the K3s on lab-c2 has another token than the env file" in said
    assert ready.config.k3s.token.get_secret_value() not in said


def test_an_agent_of_another_cluster(ready: Homelab) -> None:
    text = ready.host("lab-w1").files.read(clusters.AGENT_CA)
    with changed(ready, "lab-w1", clusters.AGENT_CA, text + "\n"):
        outcome, said = told(ready, "FO-DOC-034")
    assert outcome is FAIL
    assert "lab-w1 carries a K3s of another authority" in said


def test_a_server_where_a_worker_belongs(ready: Homelab) -> None:
    token = ready.host("lab-c1").files.read(clusters.TOKEN)
    with changed(ready, "lab-w1", clusters.TOKEN, token):
        outcome, said = told(ready, "FO-DOC-034")
    assert outcome is FAIL
    assert "lab-w1 shall be a worker, and carries a server of K3s" in said


# The whole examination


def test_where_fo_makes_no_machine_proxmox_is_never_asked(bare: Homelab) -> None:
    config = existing(bare)
    found = {finding.id: finding for finding in doctor.examine(bare.world, config)}
    assert not {f"FO-DOC-0{n:02d}" for n in (5, *range(7, 21))} & set(found)
    assert {"FO-DOC-021", "FO-DOC-023", "FO-DOC-035"} <= set(found)
    assert found["FO-DOC-021"].outcome is PASS
    assert bare.world.proxmox.calls == 0


def test_the_command_for_machines_that_stood_there_already(tmp_path: Path) -> None:
    home = k3s_operator.existing(tmp_path / "home", CONTROLLERS=1, WORKERS=1)
    for until in ("", "k3s"):
        if until:
            k3s_operator.done(home, "bootstrap", "--until", until)
        ended = home.fo("doctor", "--json")
        assert ended.code == 0, ended.out + ended.err
        outcomes = {one["id"]: one["outcome"] for one in ended.json["findings"]}
        assert set(outcomes.values()) == {"pass"}, ended.out
        assert not {"FO-DOC-005", "FO-DOC-009", "FO-DOC-020"} & set(outcomes)
        assert ("FO-DOC-032" in outcomes) == bool(until)
