"""Every command of the K3s guide, executed in the lab in the situation that its chapter is about."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path

import pytest
from operator_home import PROJECT, Ended, Operator
from road_kit import served

from funoffshore import config
from funoffshore.lab import lab
from funoffshore.reading import Present
from funoffshore.stages.k3s import escrow, look, offbox
from funoffshore.stages.k3s.facts import NodeFact
from funoffshore.world.world import open_world

PAGE = (PROJECT / "docs" / "guide" / "k3s.md").read_text()
EXAMPLE = "before-the-move-home-c1-1795492695"


def blocks(chapter: str) -> list[list[str]]:
    """The code blocks of a chapter that hold commands, a list of lines each."""
    text = re.split(rf"^## {re.escape(chapter)}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = [[line.partition("#")[0].strip() for line in block.splitlines()] for block in found]
    return [block for block in lines if block[0].startswith("fo ")]


class Reader:
    """An operator who follows the guide; his cluster is called ``lab`` instead of ``home``."""

    def __init__(self, home: Operator) -> None:
        self.home = home

    def follow(self, line: str, *more: str, name: str = EXAMPLE) -> Ended:
        """Types a line of the guide; it must end well. ``name``: the snapshot that he has instead of the example's."""
        words = shlex.split(re.sub(r"\bhome\b", "lab", line.replace(EXAMPLE, name)))[1:]
        ended = self.home.fo(*words, *more)
        assert ended.code == 0, f"{line}\n{ended.out}\n{ended.err}"
        return ended

    @property
    def config(self) -> config.ClusterConfig:
        return config.load(self.home.env_file, self.home.folder)

    def snapshots(self) -> dict[str, set[str]]:
        """Places by name."""
        body = self.home.fo("k3s", "snapshot", "list", "--json").json
        assert body["unread"] == []
        return {row["name"]: set(row["places"]) for row in body["snapshots"]}

    def moved(self) -> str:
        return next(name for name in self.snapshots() if name.startswith("before-the-move-"))

    def facts(self) -> dict[str, NodeFact]:
        """The Nodes that are Ready."""
        with lab.running(self.config) as clock:
            doors = open_world(self.config, clock, self.home.folder / "cache")
            try:
                reading = look.node_facts(doors.kube.list("v1/Node"))
            finally:
                doors.close()
        assert isinstance(reading, Present)
        return {name: node for name, node in reading.value.items() if node.ready}

    def nodes(self) -> set[str]:
        return set(self.facts())

    def versions(self) -> set[str]:
        """What the kubelets say they run."""
        return {node.version for node in self.facts().values()}

    def settled(self) -> None:
        assert self.home.fo("bootstrap", "--until", "k3s").code == 0
        left = [action for action in self.home.fo("plan", "--json").json["actions"] if action["stage"] != "flux"]
        assert left == []


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    home = Operator(tmp_path_factory.mktemp("k3s-guide") / "home", CONTROLLERS=1, WORKERS=1)
    ended = home.fo("bootstrap", "--until", "k3s")
    assert ended.code == 0, ended.err
    return Reader(home)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Three controllers and two workers, of an older release."""
    home = Operator(tmp_path_factory.mktemp("k3s-crowd") / "home", CONTROLLERS=3, WORKERS=2)
    ended = home.fo("bootstrap", "--until", "k3s")
    assert ended.code == 0, ended.err
    return Reader(home)


def test_more_nodes_fewer_nodes(crowd: Reader) -> None:
    raised, planned, lowered = blocks("More nodes, fewer nodes")[0]
    crowd.home.set("WORKERS", "4")
    crowd.follow(raised, "--until", "k3s")
    assert crowd.nodes() == {"lab-c1", "lab-c2", "lab-c3", "lab-w1", "lab-w2", "lab-w3", "lab-w4"}
    crowd.home.set("WORKERS", "2")
    assert "--remove lab-w4" in crowd.follow(planned).out
    crowd.follow(lowered, "--until", "k3s")
    assert crowd.nodes() == {"lab-c1", "lab-c2", "lab-c3", "lab-w1", "lab-w2"}


def test_the_way_in(crowd: Reader) -> None:
    fetched, merged = blocks("The way in for your own tools")[0]
    assert str(crowd.config.kubeconfig) in crowd.follow(fetched).out
    crowd.follow(merged)
    assert (crowd.home.folder / ".kube" / "config").exists()


def test_another_release(crowd: Reader) -> None:
    dry, upgrade = blocks("Another release")[0]
    before = crowd.versions()
    crowd.follow(dry)
    assert crowd.versions() == before
    crowd.follow(upgrade)
    assert crowd.versions() == {"v1.37.1+k3s1"} != before
    assert any(name.startswith("before-v1.37.1-k3s1-") for name in crowd.snapshots())
    crowd.settled()


def test_a_node_that_is_lost(crowd: Reader) -> None:
    (replaced,) = blocks("A node that is lost")[0]
    crowd.follow(replaced)
    assert crowd.nodes() == {"lab-c1", "lab-c2", "lab-c3", "lab-w1", "lab-w2"}
    crowd.settled()


def test_snapshots(reader: Reader) -> None:
    listed, saved, copied, pruned = blocks("Snapshots")[0]
    reader.follow(listed)
    told = reader.follow(saved).err
    name = reader.moved()
    assert name in told
    assert reader.snapshots()[name] == {"lab-c1", "off-box"}
    assert name in reader.follow(listed).out
    reader.follow(copied)
    assert all("off-box" in places for places in reader.snapshots().values())
    for _ in range(2):
        reader.follow(saved)
    few = pruned.replace("--keep 20", "--keep 2")
    assert few != pruned
    reader.follow(few)
    assert len(reader.snapshots()) == 2
    assert reader.home.fo("k3s", "snapshot", "prune", "--keep", "0").code == 2


def test_restore(reader: Reader) -> None:
    name = reader.moved()
    refused = reader.home.fo("k3s", "restore", name)
    assert (refused.code, "--yes" in refused.err, "is undone, too" in refused.err) == (2, True, True)
    reader.follow(blocks("Restore")[0][0], "--yes", name=name)
    assert any(one.startswith("before-restore-") for one in reader.snapshots())
    reader.settled()
    assert reader.home.fo("k3s", "restore", "nowhere", "--yes").code == 3


def test_restore_of_a_cluster_that_is_gone(reader: Reader) -> None:
    name = reader.moved()
    machines, restored, rest = blocks("Restore")[1]
    ended = reader.home.fo("destroy", "--confirm", "lab")
    assert ended.code == 0, ended.err
    reader.follow(machines)
    reader.follow(restored, name=name)
    reader.follow(rest, "--until", "k3s")
    reader.settled()


def test_a_restore_that_was_killed_is_finished_before_anything_else(reader: Reader) -> None:
    name = reader.moved()
    runs = reader.config.state / "runs"
    with served(reader.home):
        before = set(runs.iterdir())
        with reader.home.start("k3s", "restore", name, "--yes") as fo:
            while not _intends(runs, before, '"restore/start/lab-c1"') and fo.poll() is None:
                pass
            fo.send_signal(signal.SIGKILL)
            fo.communicate()
        refused = reader.home.fo("bootstrap", "--until", "k3s")
        if not _ended(runs, before):
            assert refused.code == 3, refused.err
            assert f"fo k3s restore {name}" in refused.err
        again = reader.home.fo("k3s", "restore", name, "--yes")
        assert again.code == 0, again.err
    reader.settled()


def _intends(runs: Path, before: set[Path], words: str) -> bool:
    fresh = [folder / "journal.jsonl" for folder in runs.iterdir() if folder not in before]
    return any(words in path.read_text() for path in fresh if path.exists())


def _ended(runs: Path, before: set[Path]) -> bool:
    return _intends(runs, before, '"outcome": "done"')


def test_tokens(reader: Reader) -> None:
    old = {key: reader.home.value(key) for key in ("K3S_TOKEN", "K3S_AGENT_TOKEN")}
    ended = reader.follow(blocks("Tokens")[0][0])
    new = {key: reader.home.value(key) for key in old}
    assert not set(old.values()) & set(new.values())
    assert not [value for value in (*old.values(), *new.values()) if value in ended.out + ended.err]
    name = reader.moved()
    kept = escrow.read(reader.config, offbox.folder(reader.config) / name)
    refused = reader.home.fo("k3s", "restore", name, "--yes")
    if kept.token.get_secret_value() != new["K3S_TOKEN"]:
        assert (refused.code, "--escrowed-token" in refused.err) == (6, True)
        ended = reader.home.fo("k3s", "restore", name, "--yes", "--escrowed-token")
        assert ended.code == 0, ended.err
        assert reader.home.value("K3S_TOKEN") == kept.token.get_secret_value()
    reader.settled()


def test_certificates(reader: Reader) -> None:
    shown, renewed = blocks("Certificates")[0]
    ended = reader.follow(shown)
    assert "client-admin.crt" in ended.out
    rows = json.loads(reader.home.fo("k3s", "certificates", "--json").out)["certificates"]
    assert {row["node"] for row in rows} == {"lab-c1", "lab-w1"}
    before = reader.config.kubeconfig.read_text()
    reader.follow(renewed)
    assert reader.config.kubeconfig.read_text() != before
    reader.settled()
    reader.home.fo("lab", "faults", "-c", "lab", "--on", "certificates-old,node=lab-w1,days=20")
    assert "ends soon" in reader.home.fo("k3s", "certificates").out
    reader.home.fo("lab", "faults", "-c", "lab", "--off", "all")


def test_no_secret_is_in_what_these_commands_left_behind(reader: Reader) -> None:
    secrets = {reader.home.value(key) for key in ("K3S_TOKEN", "K3S_AGENT_TOKEN", "SOPS_AGE_KEY")}
    folders = (reader.config.state, offbox.folder(reader.config))
    texts = [path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(texts) > 10
    assert not [text[:40] for text in texts for secret in secrets if secret.encode() in text]


def test_every_command_is_tried_here() -> None:
    chapters = re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    assert {chapter: len(blocks(chapter)) for chapter in chapters if blocks(chapter)} == {
        "More nodes, fewer nodes": 1,
        "The way in for your own tools": 1,
        "Another release": 1,
        "A node that is lost": 1,
        "Snapshots": 1,
        "Restore": 2,
        "Tokens": 1,
        "Certificates": 1,
    }
    lines = [line for chapter in chapters for block in blocks(chapter) for line in block]
    assert [line for line in lines if not line.startswith("fo ")] == []
