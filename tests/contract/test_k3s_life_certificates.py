"""Certificates of the lab's nodes: seen, warned of, renewed one node after another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from life_kit import Killed, Life, dying

from funoffshore import kubeconfig
from funoffshore.reading import Present
from funoffshore.stages.k3s import certificates, upkeep
from funoffshore.world.world import World

LINES = """
time="2026-11-24T03:57:25Z" level=info msg="Server detected, checking agent and server certificates"
time="2026-11-24T03:57:25Z" level=info msg="client-admin.crt: certificate system:admin (ClientAuth) is ok, expires at 2027-11-24T02:57:25Z"
time="2026-11-24T03:57:25Z" level=info msg="client-ca.crt: certificate k3s-client-ca@1795489045 (CertSign) is ok, expires at 2036-11-21T02:57:25Z"
time="2026-11-24T03:57:25Z" level=warning msg="client-kubelet.crt: certificate system:node:a (b) (ClientAuth,ServerAuth) will expire within 120 days at 2027-01-01T00:00:00Z"
time="2026-11-24T03:57:25Z" level=error msg="old.crt: certificate system:old (ClientAuth) expired at 2026-01-01T00:00:00+00:00"
time="2026-11-24T03:57:25Z" level=error msg="early.crt: certificate system:early (ClientAuth) is not valid before 2028-01-01T00:00:00Z"
time="2026-11-24T03:57:25Z" level=info msg="broken.crt: certificate system:x (ClientAuth) is ok, expires at never"
"""  # noqa: E501  recorded lines
NOW = 1_795_500_000.0
"""24 November 2026."""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    life = Life(tmp_path_factory.mktemp("certificates"), 2, 1)
    yield life
    life.close()


def serials(life: Life, name: str) -> dict[str, bytes]:
    """Every certificate file of a host that is no authority's."""
    root = Path(life.lab.host(name).path("/var/lib/rancher/k3s"))
    folders = ["server/tls", "agent"] if name.startswith("lab-c") else ["agent"]
    found = {path.name: path.read_bytes() for folder in folders for path in (root / folder).glob("*.crt")}
    return {file: data for file, data in found.items() if "-ca" not in file}


def rotate(life: Life, world: World | None = None) -> None:
    done, earlier, _ = upkeep.unfinished(life.config.state, certificates.RUN)
    wanted = certificates.plan(life.config, done)
    life.carry(wanted, certificates.apply, certificates.RUN, world=world, earlier=earlier)


def test_what_k3s_tells_is_read_line_by_line() -> None:
    found = {one.file: one for one in certificates.parse("home-c1", LINES)}
    assert set(found) == {"client-admin.crt", "client-ca.crt", "client-kubelet.crt", "old.crt", "early.crt"}
    assert found["client-admin.crt"].days(NOW) == 364
    assert (found["client-kubelet.crt"].subject, found["client-kubelet.crt"].uses) == (
        "system:node:a (b)",
        "ClientAuth,ServerAuth",
    )
    assert [file for file, one in sorted(found.items()) if not one.valid] == ["early.crt", "old.crt"]
    assert found["old.crt"].days(NOW) < 0
    ending = {one.file for one in certificates.Checked(tuple(found.values())).ending(NOW)}
    assert ending == {"client-kubelet.crt", "early.crt", "old.crt"}


def test_every_node_tells_of_its_own(life: Life) -> None:
    found = certificates.observe(life.world, life.config)
    assert found.unread == ()
    assert {one.node for one in found.certificates} == {"lab-c1", "lab-c2", "lab-w1"}
    assert {"client-admin.crt", "server-ca.crt"} <= {one.file for one in found.certificates if one.node == "lab-c1"}
    assert list(found.certificates) == sorted(found.certificates, key=lambda one: (one.until, one.node, one.file))
    assert found.ending(life.world.clock.now()) == []
    assert found.ending(life.world.clock.now() + 300 * certificates.DAY)


def test_all_leaves_are_new_and_the_authority_stays(life: Life) -> None:
    authority = life.authorities()
    before = {name: serials(life, name) for name in ("lab-c1", "lab-c2", "lab-w1")}
    old = life.config.kubeconfig.read_text()
    rotate(life)
    for name, certificates_before in before.items():
        after = serials(life, name)
        assert certificates_before.keys() <= after.keys()
        kept = [file for file, data in certificates_before.items() if after[file] == data]
        assert kept == [], name
    assert life.authorities() == authority
    assert life.config.kubeconfig.read_text() != old
    assert isinstance(kubeconfig.read(life.config.kubeconfig), Present)
    assert not life.lab.plan()
    assert life.members() == {"lab-c1", "lab-c2"}


def test_killed_around_every_change_it_goes_on(life: Life) -> None:
    deaths = 0
    for at, made in itertools.product(range(1, 30), (False, True)):
        try:
            rotate(life, dying(life, at, made=made))
            break
        except Killed:
            deaths += 1
        rotate(life)
        assert not life.lab.plan()
        assert life.members() == {"lab-c1", "lab-c2"}
    assert deaths == 12  # two changes for each of three nodes, made or not


def test_nodes_that_are_done_are_left_alone_by_the_next_attempt(life: Life) -> None:
    with pytest.raises(Killed):
        rotate(life, dying(life, 3, made=False))
    before = serials(life, "lab-c1")
    done, _, again = upkeep.unfinished(life.config.state, certificates.RUN)
    assert (again, "certificates/lab-c1" in done, "certificates/lab-c2" in done) == (True, True, False)
    rotate(life)
    assert serials(life, "lab-c1") == before
    assert upkeep.unfinished(life.config.state, certificates.RUN)[2] is False


def test_a_node_that_cannot_be_asked_is_told(life: Life) -> None:
    life.lab.machines.power_off(life.node("lab-w1").vmid)
    try:
        found = certificates.observe(life.world, life.config)
        assert [line.split(":")[0] for line in found.unread] == ["lab-w1"]
        assert {one.node for one in found.certificates} == {"lab-c1", "lab-c2"}
    finally:
        life.lab.boot(life.node("lab-w1"))
        life.lab.converge()
