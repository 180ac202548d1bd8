"""The parts of the bench's machines that need neither root nor a machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ssh_machines import config_of, subnet

from bench import offers
from bench.hosts import agent, cgroup, seed
from bench.image import build, recipe
from funoffshore import seed as seeds
from funoffshore.lab.guests import AgentError, AgentSilentError


def test_the_machine_gets_the_very_files_of_the_iso(tmp_path: Path) -> None:
    config = config_of(tmp_path, subnet())
    iso = tmp_path / "seed.iso"
    iso.write_bytes(seeds.iso(config, config.nodes[0]))
    seed.insert(tmp_path / "root", iso)
    folder = tmp_path / "root" / seed.PLACE
    assert sorted(p.name for p in folder.iterdir()) == ["meta-data", "network-config", "user-data"]
    assert str(config.nodes[0].identity) in (folder / "meta-data").read_text()
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
    seed.insert(tmp_path / "root", None)
    assert not folder.exists()


def test_the_machine_gets_the_files_of_a_cloud_init_drive(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    (drive / "user-data").write_text("#cloud-config\n")
    seed.insert(tmp_path / "root", drive)
    [file] = (tmp_path / "root" / seed.PLACE).iterdir()
    assert (file.name, file.read_text(), file.stat().st_mode & 0o777) == ("user-data", "#cloud-config\n", 0o600)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200_000))
def test_what_is_no_iso_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    iso = tmp_path_factory.mktemp("iso") / "x.iso"
    iso.write_bytes(content)
    with pytest.raises(ValueError, match="is no ISO 9660 image"):
        seed.read(iso)


@contextmanager
def guest(folder: Path, answer: bytes, asked: list[object] | None = None) -> Iterator[Path]:
    """A guest agent that says ``answer`` to whatever it is asked, and keeps the question in ``asked``."""
    path = folder / "qga.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            question = client.recv(4096)
            if asked is not None:
                asked.append(json.loads(question))
            client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path
    thread.join(5)
    listener.close()


def test_the_agent_is_asked_in_its_own_protocol(tmp_path: Path) -> None:
    with guest(tmp_path, json.dumps({"return": {"host-name": "c1"}}).encode() + b"\n") as path:
        assert agent.Agent(path).ask("get-host-name", {}) == {"host-name": "c1"}


@pytest.mark.parametrize("answer", [b"", b"not json\n", b'{"error": "x"}\n', b"5\n"])
def test_any_other_answer_is_silence(tmp_path: Path, answer: bytes) -> None:
    with guest(tmp_path, answer) as path, pytest.raises(AgentSilentError):
        agent.Agent(path).ask("ping", {})


def test_what_the_agent_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    answer = {"error": {"class": "GenericError", "desc": "failed to open file '/x' (mode: 'r')"}}
    with guest(tmp_path, json.dumps(answer).encode() + b"\n") as path, pytest.raises(AgentError, match="file '/x'"):
        agent.Agent(path).ask("file-open", {"path": "/x", "mode": "r"})


@pytest.mark.parametrize(
    ("command", "arguments", "own"),
    [
        ("file-read", {"handle": 1000, "count": 5}, {"handle": 1000, "count": 5}),
        ("exec-status", {"pid": "7"}, {"pid": 7}),
        (
            "exec",
            {"command": '["cat", "-n"]', "input": "hi"},
            {"path": "cat", "arg": ["-n"], "input-data": "aGk=", "capture-output": True},
        ),
    ],
)
def test_the_agent_gets_the_arguments_that_it_knows(
    command: str, arguments: dict[str, object], own: dict[str, object], tmp_path: Path
) -> None:
    asked: list[object] = []
    with guest(tmp_path, b'{"return": {}}\n', asked) as path:
        agent.Agent(path).ask(command, arguments)
    assert asked == [{"execute": f"guest-{command}", "arguments": own}]


def test_what_a_program_said_comes_as_text(tmp_path: Path) -> None:
    with guest(tmp_path, b'{"return": {"exited": true, "exitcode": 0, "out-data": "aGk="}}\n') as path:
        answer = agent.Agent(path).ask("exec-status", {"pid": 7})
    assert answer == {"exited": True, "exitcode": 0, "out-data": "hi"}


def test_no_agent_is_silence(tmp_path: Path) -> None:
    with pytest.raises(AgentSilentError):
        agent.Agent(tmp_path / "none").ask("ping", {})


def test_every_process_below_a_cgroup_is_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder, pids in ((tmp_path, "1\n2\n"), (tmp_path / "a", ""), (tmp_path / "a" / "b", "77\n")):
        (folder / "cgroup.procs").write_text(pids)
    assert cgroup.processes(tmp_path) == {1, 2, 77}


def test_another_authority_makes_another_image() -> None:
    assert build.key(b"one") != build.key(b"two")
    assert build.key(b"one") == build.key(b"one")
    assert build.path(b"one").name == f"debian-12-bench-{build.key(b'one')}.qcow2"


def test_nothing_that_is_linked_or_run_at_boot_is_missing_from_the_tree() -> None:
    for target in recipe.WANTED.values():
        inside = recipe.TREE / target.removeprefix("/")
        assert inside.exists() or target.startswith("/lib/")
    for program in ("machine", "runc"):
        assert (recipe.TREE / "usr/local/lib/bench" / program).stat().st_mode & 0o111


def test_digests_are_listed_as_their_publishers_do(tmp_path: Path) -> None:
    (tmp_path / "k3s").write_bytes(b"x")
    [line] = offers._sums("sha256", {"k3s": tmp_path / "k3s"}).decode().splitlines()
    assert line == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  k3s"
