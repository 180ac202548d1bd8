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
from funoffshore.lab.guests import AgentSilentError


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


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200_000))
def test_what_is_no_iso_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    iso = tmp_path_factory.mktemp("iso") / "x.iso"
    iso.write_bytes(content)
    with pytest.raises(ValueError, match="is no ISO 9660 image"):
        seed.read(iso)


@contextmanager
def guest(folder: Path, answer: bytes) -> Iterator[Path]:
    """A guest agent that says ``answer`` to whatever it is asked."""
    path = folder / "qga.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(4096)
            client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path
    thread.join(5)
    listener.close()


def test_the_agent_is_asked_in_its_own_protocol(tmp_path: Path) -> None:
    with guest(tmp_path, json.dumps({"return": {"host-name": "c1"}}).encode() + b"\n") as path:
        assert agent.Agent(path).ask("get-host-name", {}) == {"host-name": "c1"}


@pytest.mark.parametrize("answer", [b"", b"not json\n", b'{"error": {"class": "x"}}\n', b"5\n"])
def test_any_other_answer_is_silence(tmp_path: Path, answer: bytes) -> None:
    with guest(tmp_path, answer) as path, pytest.raises(AgentSilentError):
        agent.Agent(path).ask("ping", {})


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
