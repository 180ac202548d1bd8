"""Every command of the backup guide, executed in the lab in the situation that its chapter is about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from operator_home import PROJECT, Ended, Operator, subnet

from funoffshore import config
from funoffshore.config import ClusterConfig
from funoffshore.lab import lab
from funoffshore.reading import Present
from funoffshore.run import Step
from funoffshore.stages import machines
from funoffshore.world.ssh import FileWrite
from funoffshore.world.world import World, open_world

PAGE = (PROJECT / "docs" / "guide" / "backup.md").read_text()
DIARY = "/var/lib/diary"
ELSEWHERE = ("VM_BACKUP_", "sudo systemctl stop k3s; sudo k3s server --cluster-reset; sudo systemctl start k3s")
"""Lines of code blocks that are no command of fo: settings, and what the lab's K3s does not play."""


def blocks(chapter: str) -> list[list[str]]:
    """The code blocks of a chapter, a list of lines each, without comments."""
    text = re.split(rf"^## {re.escape(chapter)}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [[line.partition("#")[0].strip() for line in block.splitlines()] for block in found]


class Quiet(Step):
    """Nobody listens."""

    def say(self, sentence: str) -> None: ...

    def record(self, **ids: str) -> None: ...

    def recorded(self, name: str) -> str | None:
        return None

    def checkpoint(self) -> None: ...


class Reader:
    """An operator who follows the guide; his cluster is called ``lab`` instead of ``home``."""

    def __init__(self, home: Operator) -> None:
        self.home = home

    def follow(self, line: str) -> Ended:
        """Types a line of the guide; it must end well."""
        ended = self.home.fo(*shlex.split(re.sub(r"\bhome\b", "lab", line))[1:])
        assert ended.code == 0, f"{line}\n{ended.out}\n{ended.err}"
        return ended

    def follow_all(self, lines: list[str]) -> list[Ended]:
        return [self.follow(line) for line in lines]

    @property
    def config(self) -> ClusterConfig:
        return config.load(self.home.env_file, self.home.folder)

    @contextmanager
    def world(self) -> Iterator[World]:
        with lab.running(self.config) as clock:
            doors = open_world(self.config, clock, self.home.folder / "cache")
            try:
                yield doors
            finally:
                doors.close()

    def stop(self, world: World, *names: str, delete: bool = False) -> None:
        """Somebody pulls the plug of machines, and deletes them with their disks."""
        seen = machines.observe(world, self.config)
        for name in names:
            reading = seen.machine(name)
            assert isinstance(reading, Present)
            where = reading.value.hypervisor, reading.value.vmid
            if reading.value.running:
                world.proxmox.wait_task(world.proxmox.stop(*where), Quiet(), "it to stop")
            if delete:
                world.proxmox.wait_task(world.proxmox.delete(*where), Quiet(), "it to go")

    def lose(self, *names: str) -> None:
        with self.world() as world:
            self.stop(world, *names, delete=True)

    def write(self, name: str, text: str) -> None:
        with self.world() as world:
            world.hosts.write(self.config.node(name), [FileWrite(DIARY, text.encode())])

    def look(self, name: str) -> tuple[str, str, str]:
        """What the machine's disk says, its host key, and its SMBIOS UUID."""
        node = self.config.node(name)
        with self.world() as world:
            said, key = world.hosts.read_file(node, DIARY), world.hosts.shown_key(node)
            reading = machines.observe(world, self.config).machine(name)
            assert isinstance(said, Present)
            assert isinstance(reading, Present)
            return said.value.decode(), str(key), reading.value.config.identity


def settled(folder: Path, controllers: int) -> Operator:
    """An operator whose lab runs somewhat faster than the wall: most of a backup is waiting."""
    home = Operator(folder / "home", CONTROLLERS=controllers, WORKERS=1, VM_BACKUP_STORAGE="backup")
    lab.write_settings(home.lab, lab.Settings(speed=5.0))
    ended = home.fo("bootstrap", *(() if controllers == 1 else ("--until", "k3s")))
    assert ended.code == 0, ended.err
    return home


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(settled(tmp_path_factory.mktemp("guide"), 1))


def test_what_is_there(reader: Reader) -> None:
    reader.write("lab-w1", "before")
    reader.write("lab-c1", "before")
    listed, _, _ = reader.follow_all(blocks("What is there")[0])
    assert listed.out == "lab-c1  no backup\nlab-w1  no backup\n"
    body = reader.home.fo("backup", "list", "--json").json
    assert [(m["name"], len(m["backups"])) for m in body["machines"]] == [("lab-c1", 2), ("lab-w1", 1)]
    assert reader.home.fo("postcheck").code == 0
    said = reader.home.fo("status", "--json").json["vm_backup"]
    assert (said["outcome"], said["last"].split(";")[0]) == ("pass", "all 2 machines have one")
    assert "all 2 machines have one" in reader.home.fo("status").out
    assert "nothing to do" in reader.home.fo("bootstrap").err


def test_one_worker(reader: Reader) -> None:
    lost, replaced = blocks("One worker")
    before = reader.look("lab-w1")
    reader.write("lab-w1", "after")
    reader.lose("lab-w1")
    reader.follow_all(lost)
    assert reader.look("lab-w1") == before
    refused = reader.home.fo(*shlex.split(replaced[0].replace("home", "lab"))[1:])
    assert (refused.code, "is running" in refused.err) == (3, True)
    with reader.world() as world:
        reader.stop(world, "lab-w1")
    wrong = reader.home.fo("backup", "restore", "lab-w1", "--force", "--confirm", "lab")
    assert (wrong.code, "nothing was restored" in wrong.err) == (2, True)
    assert reader.home.fo("backup", "restore", "lab-w1", "--force").code == 2
    reader.follow_all(replaced)
    assert reader.home.fo("bootstrap").code == 0
    assert reader.look("lab-w1") == before


def test_the_only_controller(reader: Reader) -> None:
    before = reader.look("lab-c1")
    reader.lose("lab-c1")
    reader.follow_all(blocks("A controller")[1])
    assert reader.look("lab-c1") == before


def test_the_whole_cluster(reader: Reader) -> None:
    before = reader.look("lab-c1"), reader.look("lab-w1")
    reader.lose("lab-c1", "lab-w1")
    reader.follow_all(blocks("The whole cluster")[0])
    assert (reader.look("lab-c1"), reader.look("lab-w1")) == before


def test_one_controller_of_three(tmp_path: Path) -> None:
    home = settled(tmp_path, 3)
    assert home.fo("backup", "now").code == 0
    reader = Reader(home)
    gone, broken = blocks("A controller")[0]
    reader.lose("lab-c2")
    refused = home.fo("backup", "restore", "lab-c2")
    assert (refused.code, "a member that has forgotten" in refused.err) == (3, True)
    reader.follow(gone)
    reader.follow(broken)
    reader.lose("lab-c1", "lab-c2", "lab-c3")
    assert home.fo("backup", "restore", "lab-c1").code == 0
    reader.follow(blocks("The whole cluster")[1][0])


def test_the_drill(tmp_path: Path) -> None:
    home = Operator(tmp_path / "home")
    for line in blocks("Try it")[0]:
        ended = home.fo(*shlex.split(line.replace("127.79.0.0/24", subnet()))[1:])
        assert ended.code == 0, f"{line}\n{ended.err}"


def test_every_command_is_tried_here() -> None:
    chapters = re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    assert {chapter: len(blocks(chapter)) for chapter in chapters if blocks(chapter)} == {
        "Switching it on": 1,  # settings, which every case here has
        "What is there": 1,
        "One worker": 2,
        "A controller": 2,
        "The whole cluster": 2,
        "Try it": 1,
    }
    lines = [line for chapter in chapters for block in blocks(chapter) for line in block]
    assert [line for line in lines if not line.startswith(("fo ", *ELSEWHERE))] == []
