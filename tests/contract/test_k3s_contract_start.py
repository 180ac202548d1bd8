"""K3s where it does not come up, on the embedded lab's and on the bench's stand-in: versions, exit codes, the one line
that says why, and what fo makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from k3s_backends import CONFIG, SERVER, Place, await_end, cause_of, place, write

from funoffshore.world.ssh.facts import k3s_version


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(request.param, tmp_path_factory.mktemp(f"k3s-{request.param}")) as made:
        yield made


def test_the_version_is_the_first_of_two_lines(where: Place) -> None:
    machine = where.machine("lab-v1", 41)
    ran = machine.run("--version")
    assert ran.code == 0
    first, second = ran.out.splitlines()
    assert k3s_version({"code": 0, "out": first}) == machine.version
    assert second.startswith("go version go")
    assert machine.run("--help").code == 0
    assert not machine.path(SERVER).exists()


TOLD = "its config.yaml is not understood"
UNKNOWN = "its config.yaml has a key that K3s does not know"
BAD = [
    ("server", "a: b: c\n", (), "yaml: mapping values are not allowed in this context", TOLD),
    ("server", "token: x\na: b: c\n", (), "yaml: line 2: mapping values are not allowed in this context", TOLD),
    ("agent", "token: x\na: b: c\n", (), "yaml: line 2: mapping values are not allowed in this context", TOLD),
    ("server", "cluster-cidr: nonsense\n", (), "invalid cluster-cidr nonsense: invalid CIDR address: nonsense", TOLD),
    ("server", "disable-agent: maybe\n", (),
     r"invalid boolean value \"maybe\" for -disable-agent: parse error", TOLD),
    ("server", "token: x\n", ("--nosuch",), "flag provided but not defined: -nosuch", UNKNOWN),
    ("agent", "cluster-init: true\n", (), "flag provided but not defined: -cluster-init", UNKNOWN),
    ("agent", "server: https://127.0.0.1:6443\n", (), "Error: --token is required", "its config.yaml has no token"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_start_up_error_is_one_fatal_line_and_exit_1(where: Place, number: int) -> None:
    role, text, argv, said, says = BAD[number]
    machine = where.machine("lab-b1", 50 + number)
    write(machine, CONFIG, text)
    machine.start(role, *argv)
    assert await_end(machine) == 1
    fatal = [line for line in machine.lines() if "level=fatal" in line]
    assert len(fatal) == 1
    assert re.match(r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" level=fatal msg="', fatal[0])
    assert said in fatal[0]
    assert fatal[0] == machine.lines()[-1]
    cause = cause_of(machine)
    assert cause is not None
    assert (cause.says, cause.hopeless) == (says, True)
    assert not machine.path(f"{SERVER}/db").exists()


def test_no_server_no_snapshots(where: Place) -> None:
    ran = where.machine("lab-w9", 42).run("etcd-snapshot", "ls")
    assert ran.code == 1
    assert "server/token: no such file or directory" in ran.err
