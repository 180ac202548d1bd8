"""How the doctor's findings are made, which ids they have, and what is asked of the network."""

from __future__ import annotations

import ast
import os
import re
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from preflight_kit import BASE, all_there, facts

from funoffshore import doctor, errors
from funoffshore.config import ClusterConfig, Lab, keys
from funoffshore.doctor import findings, network, proxmox
from funoffshore.findings import Finding, Outcome
from funoffshore.reading import Unreadable
from funoffshore.stages.machines import MachineFacts
from funoffshore.stages.machines.preflight_subjects import Subject
from funoffshore.world.reach import Reach
from funoffshore.world.routes import Routes

PASS, WARN, FAIL, UNKNOWN = Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.UNKNOWN
SOURCE = Path(doctor.__file__).parents[1]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "doctor.md"
BLIND = errors.UnreachableError("nobody answers", fix="wait")
WRONG = errors.PreflightError("it is wrong", fix="mend it", evidence=("a line",))


def test_every_finding_has_its_section_in_the_reference() -> None:
    sections = re.findall(r"^## (FO-DOC-\d{3}): (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    assert dict(sections) == doctor.TITLES
    assert [id_ for id_, _ in sections] == sorted(doctor.TITLES)


@pytest.mark.parametrize("page", ["reference/doctor.md", "guide/hardware.md"])
def test_every_key_that_is_named_exists(page: str) -> None:
    words = re.findall(r"`([A-Z][A-Z_0-9]{3,})(?:=[^`]*)?`", (PAGE.parents[1] / page).read_text())
    assert words
    assert [word for word in words if keys.known().find(word) is None] == []


SOURCES = [*(SOURCE / "doctor").glob("*.py"), *(SOURCE / "stages" / "machines").glob("pr[ei]*.py")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_key_that_a_message_names_exists(source: Path) -> None:
    texts = [node.value for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Constant)]
    words = re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z_0-9]*[A-Z0-9]\b", "\n".join(t for t in texts if isinstance(t, str)))
    assert [word for word in words if keys.known().find(word) is None and word not in keys.NODE_FIELDS] == []


def test_every_subject_but_the_addresses_has_an_id_of_its_own() -> None:
    assert set(proxmox.IDS) == set(Subject) - {Subject.ADDRESSES}
    assert len(set(proxmox.IDS.values())) == len(proxmox.IDS)
    assert set(proxmox.IDS.values()) < set(doctor.TITLES)


@pytest.mark.parametrize(
    ("found", "outcome", "said", "evidence", "fix"),
    [
        ([WRONG], FAIL, "it is wrong", ("a line",), "mend it"),
        ([BLIND], UNKNOWN, "nobody answers", (), "wait"),
        ([BLIND, BLIND], UNKNOWN, "2 things could not be looked at", ("nobody answers → wait",) * 2,
         "do what each line says"),
        ([BLIND, WRONG], FAIL, "2 things are in the way", ("nobody answers → wait", "it is wrong → mend it", "a line"),
         "do what each line says"),
    ],
)  # fmt: skip
def test_all_that_is_wrong_with_one_thing_is_one_finding(
    found: list[errors.FoError], outcome: Outcome, said: str, evidence: tuple[str, ...], fix: str
) -> None:
    made = findings.failed("FO-DOC-012", found)
    assert (made.outcome, made.said, made.evidence, made.fix) == (outcome, said, evidence, fix)


@pytest.mark.parametrize(("number", "words"), [(0, "0 machines"), (1, "1 machine"), (2, "2 machines")])
def test_counts(number: int, words: str) -> None:
    assert proxmox.count(number, "machine") == words


# Addresses

NET = f"127.{80 + os.getpid() % 9}.{os.getpid() // 9 % 250 + 1}"
MACHINES, VIP, GATEWAY = "FO-DOC-020", "FO-DOC-021", "FO-DOC-022"


def cluster(*, lab: bool = False) -> ClusterConfig:
    """BASE, moved to loopback so that nothing leaves this computer."""
    nodes = tuple(replace(node, address=IPv4Address(f"{NET}.{n + 50}")) for n, node in enumerate(BASE.nodes))
    net = replace(
        BASE.network,
        subnet=IPv4Network(f"{NET}.0/24"),
        gateway=IPv4Address(f"{NET}.1"),
        vip=IPv4Address(f"{NET}.40"),
    )
    return replace(BASE, nodes=nodes, network=net, lab=Lab(Path("/nowhere"), "http://127.0.0.1") if lab else None)


def asked(
    config: ClusterConfig, seen: object, taken: Iterable[str] = (), founded: bool | None = False
) -> dict[str, Finding]:
    """The findings while ``taken`` (last bytes) listen."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_server((f"{NET}.254", 0)))
        port = first.getsockname()[1]
        for byte in taken:
            stack.enter_context(socket.create_server((f"{NET}.{byte}", port)))
        found = list(network.examine(config, seen, Reach((port,), Routes()), founded))  # type: ignore[arg-type]
    assert all(finding.title == doctor.TITLES[finding.id] for finding in found)
    return {finding.id: finding for finding in found}


def test_free_addresses() -> None:
    found = asked(cluster(), facts(), ["1"])
    assert {id_: one.outcome for id_, one in found.items()} == {MACHINES: PASS, VIP: PASS, GATEWAY: PASS}
    assert found[MACHINES].said == f"nobody answers at {len(BASE.nodes)} addresses"


def test_taken_addresses_are_all_named() -> None:
    found = asked(cluster(), facts(), ["50", "53", "40"])
    assert {id_: one.outcome for id_, one in found.items()} == {MACHINES: FAIL, VIP: FAIL, GATEWAY: WARN}
    assert f"{NET}.50 of home-c1 takes connections on port" in found[MACHINES].said
    assert "home-w1" in found[MACHINES].evidence[0]
    assert f"{NET}.40 takes connections" in found[VIP].said


def test_machines_that_exist_may_answer() -> None:
    found = asked(cluster(), all_there(), ["50", "40"])
    assert {id_: one.outcome for id_, one in found.items()} == {MACHINES: PASS, VIP: PASS, GATEWAY: WARN}


def test_what_the_look_itself_saw_counts_as_well() -> None:
    found = asked(cluster(), facts(answering=("home-c2", "VIP")))
    assert (found[MACHINES].outcome, found[VIP].outcome) == (FAIL, FAIL)
    assert "home-c2 takes connections on port 22" in found[MACHINES].said


def test_nobody_knows_whose_address_it_is_while_machines_are_not_seen() -> None:
    lost = {node.name: Unreadable("shut") for node in BASE.nodes}
    found = asked(cluster(), facts(lost), ["50"])
    assert (found[MACHINES].outcome, found[VIP].outcome) == (UNKNOWN, UNKNOWN)
    found = asked(cluster(), all_there(seen={"home-w1": Unreadable("shut")}))
    assert (found[MACHINES].outcome, found[VIP].outcome) == (UNKNOWN, PASS)


def test_a_lab_has_no_gateway() -> None:
    assert set(asked(cluster(lab=True), facts())) == {MACHINES, VIP}


def standing(config: ClusterConfig) -> ClusterConfig:
    """The same nodes on machines that fo does not make, in a network that the env file says nothing of."""
    nodes = tuple(replace(node, made=False) for node in config.nodes)
    net = replace(config.network, gateway=IPv4Address("0.0.0.0"))  # noqa: S104  no address at all
    return replace(config, nodes=nodes, network=net)


@pytest.mark.parametrize(
    ("founded", "taken", "outcome"),
    [(False, [], PASS), (False, ["40"], FAIL), (True, ["40"], PASS), (None, [], UNKNOWN), (None, ["40"], UNKNOWN)],
)
def test_of_machines_that_stand_there_only_the_vip_is_asked(
    founded: bool | None, taken: list[str], outcome: Outcome
) -> None:
    found = asked(standing(cluster()), MachineFacts(), [*taken, "50"], founded)
    assert {id_: one.outcome for id_, one in found.items()} == {VIP: outcome}
    if founded is None:
        assert found[VIP].fix == "see FO-DOC-023"


def test_without_a_vip_nobody_asks_for_it() -> None:
    base = cluster()
    (first, *_), workers = base.controllers, base.workers
    alone = replace(base, nodes=(first, *workers), network=replace(base.network, vip=first.address))
    assert set(asked(alone, facts(), ["1"])) == {MACHINES, GATEWAY}
