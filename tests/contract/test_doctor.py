"""``fo doctor`` against the lab's Proxmox: the token's privileges, one by one, and what each trouble looks like."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from machines_house import SECRET, House, built
from operator_home import Operator

from funoffshore import doctor
from funoffshore.config import Backup
from funoffshore.findings import Finding, Outcome
from funoffshore.stages.machines import privileges
from funoffshore.world import download, git, kube, routes
from funoffshore.world.proxmox import Grants
from funoffshore.world.world import World

PASS, WARN, FAIL, UNKNOWN = Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.UNKNOWN
NODES = ("pve", "pve2", "pve3")


def examined(house: House) -> dict[str, Finding]:
    """The findings, by their ids."""
    config, ways = house.config, routes.Routes(house.kit.directory / "routes.json")
    world = World(
        clock=house.doors.clock,
        proxmox=house.doors.proxmox,
        hosts=house.doors.hosts,
        kube=kube.Kube(config.kubeconfig, ways, house.doors.clock),
        repo=git.Repo(config, ways),
        downloads=download.Downloads(house.kit.directory / "cache", ways),
        reach=house.doors.reach,
    )
    found = doctor.examine(world, config)
    assert len({finding.id for finding in found}) == len(found)
    assert all(finding.title == doctor.TITLES[finding.id] for finding in found)
    return {finding.id: finding for finding in found}


def acl(lines: tuple[str, ...]) -> dict[str, list[str]]:
    """What the shell lines grant, as the lab's tokens hold it."""
    roles: dict[str, list[str]] = {}
    paths: dict[str, list[str]] = {}
    for line in lines:
        words = shlex.split(line)
        if "--privs" in words:
            roles[words[words.index("role") + 2]] = words[words.index("--privs") + 1].split(",")
        else:
            paths[words[words.index("modify") + 1]] = roles[words[words.index("--roles") + 1]]
    return paths


def dressed(house: House) -> House:
    """Everything that asks for further privileges is switched on."""
    config = house.config
    house.api.add_storage("saved", "dir", ("backup",))
    lent = replace(config.proxmox, vlan=10, high_availability=True)
    shape = replace(config.shape, firewall=True, watchdog=True, startup="order=3")
    first = replace(config.nodes[0], pci=("gpu",), usb=("zigbee",))
    ssh = replace(config.ssh, trust="agent")
    nodes = (first, *config.nodes[1:])
    house.config = replace(config, proxmox=lent, shape=shape, ssh=ssh, nodes=nodes, backup=Backup("saved"))
    return house


# Privileges


@pytest.mark.parametrize("dress", [lambda house: house, dressed], ids=["plain", "dressed"])
@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_a_token_gets_by_the_lines_what_it_lacks_and_no_more(
    tmp_path: Path, release: str, dress: Callable[[House], House]
) -> None:
    with built(tmp_path, release=release) as house:
        dress(house)
        known, token = house.doors.proxmox.release(), house.config.proxmox.token_id

        def lacking(paths: dict[str, list[str]]) -> list[tuple[str, str]]:
            house.api.add_token(token, SECRET, paths)
            found = privileges.missing(house.config, house.doors.proxmox.grants(), known)
            return [(lack.path, lack.privilege) for lack in found]

        everything = privileges.missing(house.config, Grants({}), known)
        assert lacking({}) == [(lack.path, lack.privilege) for lack in everything]
        granted = acl(privileges.remedy(house.config, everything, known))
        assert lacking(granted) == []
        for path, privs in granted.items():
            for one in privs:
                assert lacking({**granted, path: [p for p in privs if p != one]}) == [(path, one)]


@pytest.mark.parametrize("dress", [lambda house: house, dressed], ids=["plain", "dressed"])
@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_a_bootstrap_needs_nothing_that_the_lines_do_not_grant(
    tmp_path: Path, release: str, dress: Callable[[House], House]
) -> None:
    with built(tmp_path, release=release, nodes=NODES) as house:
        config = dress(house).config
        # The lab's machines have neither such devices nor such a network.
        plain = (replace(config.nodes[0], pci=(), usb=()), *config.nodes[1:])
        lent, ssh = replace(config.proxmox, vlan=None), replace(config.ssh, trust="seed")
        house.config = replace(config, nodes=plain, proxmox=lent, ssh=ssh)
        known = house.doors.proxmox.release()
        lines = privileges.remedy(house.config, privileges.missing(house.config, Grants({}), known), known)
        house.api.add_token(house.config.proxmox.token_id, SECRET, acl(lines))
        house.settle()
        house.destroy()
        assert house.doors.proxmox.resources().guests == []


def test_the_doctor_names_every_missing_privilege_with_the_lines_that_grant_it(tmp_path: Path) -> None:
    with built(tmp_path) as house:
        house.api.add_token(house.config.proxmox.token_id, SECRET, {})
        found = examined(house)
        rights = found["FO-DOC-007"]
        assert rights.outcome is FAIL
        assert "VM.Allocate on /vms" in rights.said
        lines = tuple(line.strip() for line in rights.fix.splitlines()[1:])
        house.api.add_token(house.config.proxmox.token_id, SECRET, acl(lines))
        assert examined(house)["FO-DOC-007"].outcome is PASS
        hidden = {
            id_ for id_, finding in found.items() if finding.outcome is UNKNOWN and finding.fix == "see FO-DOC-007"
        }
        assert {"FO-DOC-010", "FO-DOC-012", "FO-DOC-013", "FO-DOC-017"} <= hidden


# Troubles


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with built(tmp_path) as made:
        yield made


def test_passes_are_shown_too(tmp_path: Path) -> None:
    with built(tmp_path, nodes=NODES) as house:
        found = examined(house)
        assert found["FO-DOC-005"].outcome is PASS
        assert found["FO-DOC-008"].said == "it is Proxmox VE 9.1"
        assert found["FO-DOC-009"].said == "3 Proxmox nodes, quorate"
        assert found["FO-DOC-010"].said.startswith("0 of 2 machines")
        assert found["FO-DOC-020"].said == "nobody answers at 2 addresses"
        bad = {id_ for id_, finding in found.items() if finding.outcome is not PASS}
        assert bad <= {"FO-DOC-003", "FO-DOC-004", "FO-DOC-006"}, [found[id_] for id_ in bad]  # there is no Git here
        assert not bad & {"FO-DOC-022"}
        assert house.calls() == []


def test_a_cluster_that_is_there_is_well(house: House) -> None:
    house.settle()
    found = examined(house)
    assert found["FO-DOC-010"].said.startswith("2 of 2 machines")
    assert found["FO-DOC-015"].said == "no machine has to be made"
    assert found["FO-DOC-021"].said.endswith("is for the controllers that exist")


def test_strangers_where_ours_belong(house: House) -> None:
    pinned = replace(house.config.nodes[0], vmid_pinned=True)
    house.config = replace(house.config, nodes=(pinned, *house.config.nodes[1:]))
    house.api.add_stranger(pinned.vmid, "pbx")
    house.api.add_stranger(4711, "lab-w1")
    found = examined(house)
    assert found["FO-DOC-010"].outcome is FAIL
    assert "VM 4711 on pve is called lab-w1 and is not ours" in found["FO-DOC-010"].said
    assert found["FO-DOC-017"].outcome is FAIL
    assert re.search(rf"VM {pinned.vmid}, which the env file pins for lab-c1, is pbx", found["FO-DOC-017"].said)


def test_what_storages_and_bridges_do_not_lend(house: House) -> None:
    house.api.add_storage("local", "dir", ("vztmpl",))
    house.config = replace(house.config, proxmox=replace(house.config.proxmox, bridge="vmbr7"))
    rights = privileges.needed(house.config, (9, 1))
    house.api.add_token(house.config.proxmox.token_id, SECRET, {path: list(privs) for path, privs in rights.items()})
    found = examined(house)
    assert found["FO-DOC-012"].outcome is FAIL
    assert "pvesm set local --content import,iso,vztmpl" in found["FO-DOC-012"].fix
    assert found["FO-DOC-013"].outcome is FAIL
    assert "no bridge vmbr7 on pve" in found["FO-DOC-013"].said


def test_a_proxmox_node_that_is_off_is_a_remark_while_there_is_room_elsewhere(tmp_path: Path) -> None:
    with built(tmp_path, nodes=NODES) as house:
        free = tuple(replace(node, hypervisor="") for node in house.config.nodes)
        house.config = replace(house.config, nodes=free)
        house.api.take_down("pve3")
        found = examined(house)
        assert found["FO-DOC-009"].outcome is WARN
        assert found["FO-DOC-009"].said == "pve3 gets no new machine: it is offline"
        assert found["FO-DOC-017"].outcome in (PASS, WARN)


def test_a_proxmox_node_that_nobody_knows(house: House) -> None:
    house.config = replace(house.config, proxmox=replace(house.config.proxmox, nodes=("pve", "pve9")))
    found = examined(house)["FO-DOC-009"]
    assert found.outcome is FAIL
    assert "there is no Proxmox node pve9 (there is pve)" in found.said


def test_addresses_that_somebody_has(house: House) -> None:
    with ExitStack() as stack:
        for address, port in ((house.config.nodes[0].address, house.config.ssh.port), (house.config.network.vip, 6443)):
            stranger = stack.enter_context(socket.create_server((str(address), port)))
            stranger.listen()
        found = examined(house)
    assert found["FO-DOC-020"].outcome is FAIL
    assert f"{house.config.nodes[0].address} of lab-c1 takes connections on port" in found["FO-DOC-020"].said
    assert found["FO-DOC-021"].outcome is FAIL
    assert f"{house.config.network.vip} takes connections on port 6443" in found["FO-DOC-021"].said


def test_an_image_that_proxmox_cannot_fetch(house: House) -> None:
    url = house.config.image.url.replace("debian", "nothing")
    house.config = replace(house.config, image=replace(house.config.image, url=url))
    found = examined(house)["FO-DOC-015"]
    assert found.outcome is FAIL
    assert f"pve cannot fetch {url}" in found.said
    assert "IMAGE_URL" in found.fix


def test_what_only_some_clusters_ask_for(house: House) -> None:
    found = examined(dressed(house))
    assert found["FO-DOC-016"].outcome is FAIL
    assert "no resource mapping gpu, which lab-c1 shall have" in "".join(found["FO-DOC-016"].evidence)
    assert found["FO-DOC-018"].said == "saved takes backups"
    assert found["FO-DOC-019"].outcome is WARN
    assert any("1 are online" in line for line in found["FO-DOC-019"].evidence)


def test_a_shut_door_leaves_the_rest_unknown(house: House) -> None:
    pin = replace(house.config.proxmox, fingerprint="0" * 64)
    house.config = replace(house.config, proxmox=pin)
    house.doors = replace(house.doors, proxmox=house.another_client(fingerprint="0" * 64))
    found = examined(house)
    assert found["FO-DOC-005"].outcome is FAIL
    assert "certificate" in found["FO-DOC-005"].said
    shut = {id_ for id_, finding in found.items() if finding.fix == "see FO-DOC-005"}
    assert {"FO-DOC-007", "FO-DOC-009", "FO-DOC-012", "FO-DOC-017"} <= shut
    assert all(found[id_].outcome is UNKNOWN for id_ in shut)
    assert found["FO-DOC-020"].outcome is UNKNOWN


# The command


def test_the_command_ends_well_on_a_lab_that_is_well(tmp_path: Path) -> None:
    home = Operator(tmp_path / "home", CONTROLLERS=1, WORKERS=1)
    ended = home.fo("doctor", "--json")
    assert ended.code == 0, ended.out + ended.err
    outcomes = {one["id"]: one["outcome"] for one in ended.json["findings"]}
    assert set(outcomes.values()) == {"pass"}, ended.out
    assert "FO-DOC-009" in outcomes
