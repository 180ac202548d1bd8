"""New tokens for the lab's cluster, through every death of the computer that gives them out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from life_kit import Killed, Life, dying
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.config import ClusterConfig, envfile
from funoffshore.plan import Action
from funoffshore.reading import Present, Unreadable
from funoffshore.run import Step
from funoffshore.stages.k3s import escrow, offbox, restore, rotation, snapshots, upkeep
from funoffshore.world.supervisor import Supervisor
from funoffshore.world.world import World

OLD_AGENT = "fedcba9876543210fedcba9876543210"


class House:
    """A cluster with the env file that its tokens stand in."""

    def __init__(self, folder: Path, controllers: int, workers: int) -> None:
        self.life = Life(folder, controllers, workers)
        self.env_file = folder / "config" / "env" / "lab.env"
        self.env_file.parent.mkdir(parents=True)
        k3s = self.life.config.k3s
        lines = [f"K3S_TOKEN={k3s.token.get_secret_value()}", f"K3S_AGENT_TOKEN={k3s.agent_token.get_secret_value()}"]
        self.env_file.write_text("\n".join(["# mine", *lines, ""]))
        self.env_file.chmod(0o600)

    @property
    def config(self) -> ClusterConfig:
        """As a fresh ``fo`` reads it from the env file."""
        told = self.told()
        return dataclasses.replace(
            self.life.config,
            k3s=dataclasses.replace(
                self.life.config.k3s,
                token=SecretStr(told["K3S_TOKEN"]),
                agent_token=SecretStr(told["K3S_AGENT_TOKEN"]),
                token_next=SecretStr(told["K3S_TOKEN_NEXT"]) if told.get("K3S_TOKEN_NEXT") else None,
                agent_token_next=SecretStr(told["K3S_AGENT_TOKEN_NEXT"]) if told.get("K3S_AGENT_TOKEN_NEXT") else None,
            ),
        )

    def told(self) -> dict[str, str]:
        data, problems = envfile.read(self.env_file)
        assert data is not None
        assert not problems
        return {key: entry.value for key, entry in envfile.parse(data).entries.items()}

    def rotate(self, world: World | None = None) -> None:
        """As ``fo k3s rotate-token`` does it."""
        if not rotation.begun(self.config):
            rotation.begin(self.env_file)
        config = self.config
        attempt = rotation.attempt(config)
        done, earlier, _ = upkeep.unfinished(config.state, rotation.RUN, attempt=attempt)
        actions = rotation.plan(config, snapshots.observe(self.life.world, config), done, earlier)

        def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
            rotation.apply(world, config, self.env_file, action, step)

        self.life.carry(actions, apply, rotation.RUN, world=world, earlier=earlier, config=config, attempt=attempt)

    def settled_on(self, token: str, agent_token: str) -> None:
        """Every server takes the new tokens and no other, and nothing is left to do."""
        config = self.config
        assert (config.k3s.token.get_secret_value(), config.k3s.agent_token.get_secret_value()) == (token, agent_token)
        assert not rotation.begun(config)
        assert rotation.problem(config) is None
        assert {upkeep.token_on_disk(self.life.world, node)[1] for node in config.controllers} == {token}
        (ca_hash,) = self.life.authorities()
        for node in config.controllers:
            door = Supervisor(config)
            assert door.accepts(str(node.address), ca_hash, SecretStr(token)) == Present(True)
            assert door.accepts(str(node.address), ca_hash, SecretStr("0" * 32)) == Present(False)
        assert not self.life.lab.plan(config)
        assert self.life.members() == {node.name for node in config.controllers}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, 2, 1)
    yield house
    house.life.close()


def test_every_node_gets_both_new_tokens(house: House) -> None:
    before = house.told()
    authority = house.life.authorities()
    house.rotate()
    after = house.told()
    assert not {before["K3S_TOKEN"], before["K3S_AGENT_TOKEN"]} & {after["K3S_TOKEN"], after["K3S_AGENT_TOKEN"]}
    assert after["K3S_TOKEN"] != after["K3S_AGENT_TOKEN"]
    assert house.env_file.read_text().startswith("# mine\n")
    assert house.env_file.stat().st_mode & 0o777 == 0o600
    assert house.life.authorities() == authority
    house.settled_on(after["K3S_TOKEN"], after["K3S_AGENT_TOKEN"])


def test_the_journal_holds_neither_old_nor_new_ones(house: House) -> None:
    before = set(house.told().values())
    house.rotate()
    tokens = before | set(house.told().values()) - {""}
    texts = [path.read_text() for path in (house.config.state / "runs").rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts for token in tokens if token in text]


def test_killed_around_every_change_it_goes_on_with_the_same_tokens(tmp_path: Path) -> None:
    house = House(tmp_path, 2, 1)
    deaths = 0
    try:
        for at, made in itertools.product(range(1, 40), (False, True)):
            try:
                house.rotate(dying(house.life, at, made=made))
                break
            except Killed:
                deaths += 1
            config = house.config
            assert rotation.begun(config)
            problem = rotation.problem(config)
            assert problem is not None
            assert "rotate-token" in problem.fix
            wanted = rotation.turned(config).k3s
            house.rotate()
            house.settled_on(wanted.token.get_secret_value(), wanted.agent_token.get_secret_value())
        assert deaths >= 10
    finally:
        house.life.close()


def test_an_answer_that_was_lost_is_looked_up(house: House) -> None:
    """The cluster got its new token, and the computer died before it heard so."""
    rotation.begin(house.env_file)
    config = house.config
    fresh = rotation.turned(config)
    (ca_hash,) = house.life.authorities()
    address = str(config.controllers[0].address)
    Supervisor(config).rotate_token(address, ca_hash, config.k3s.token, fresh.k3s.token)
    house.rotate()
    house.settled_on(fresh.k3s.token.get_secret_value(), fresh.k3s.agent_token.get_secret_value())


def test_a_server_that_restarts_in_between_with_the_old_token_is_brought_back(house: House) -> None:
    """With two servers that costs the quorum, so the API cannot be asked for anything."""
    with pytest.raises(Killed):
        house.rotate(dying(house.life, 1, made=False))  # right after the cluster got its new token
    life = house.life
    for name in ("lab-c1", "lab-c2"):
        life.world.hosts.change(life.node(name), {"before": upkeep.stops(life.node(name))})
        life.world.hosts.change(life.node(name), {"units": upkeep.starts(life.node(name))})
    assert isinstance(life.world.kube.list("v1/Node"), Unreadable)
    wanted = rotation.turned(house.config).k3s
    house.rotate()
    house.settled_on(wanted.token.get_secret_value(), wanted.agent_token.get_secret_value())


def test_an_attempt_that_was_given_up_settles_nothing_for_the_next(house: House) -> None:
    """Somebody puts other tokens into the env file: every node still needs them."""
    with pytest.raises(Killed):
        house.rotate(dying(house.life, 3, made=True))
    first, state = rotation.attempt(house.config), house.config.state
    done, _, again = upkeep.unfinished(state, rotation.RUN, attempt=first)
    assert (again, "token/cluster" in done) == (True, True)
    rotation.begin(house.env_file)
    second = rotation.attempt(house.config)
    assert second != first
    assert upkeep.unfinished(state, rotation.RUN, attempt=second) == (frozenset(), {}, False)


def test_snapshots_of_before_keep_their_token_and_come_back_with_it(house: House) -> None:
    life, old = house.life, house.config
    life.mark("old-days")
    snapshots.run_k3s(life.world, life.node("lab-c1"), ["etcd-snapshot", "save", "--name", "old"], 60)
    house.rotate()
    name = next(one.name for one in life.stored().snapshots if one.name.startswith("old-"))
    kept = offbox.folder(old) / name
    assert escrow.read(old, kept).token.get_secret_value() == old.k3s.token.get_secret_value()
    with pytest.raises(errors.RefusedError, match="another server token"):
        restore.choose(life.world, house.config, name)
    life.carry(
        snapshots.plan_save(life.world, house.config, "new"), snapshots.apply, snapshots.RUN, config=house.config
    )
    fresh = next(one.name for one in life.stored().snapshots if one.name.startswith("new-"))
    told = escrow.read(old, offbox.folder(old) / fresh).token.get_secret_value()
    assert told == house.config.k3s.token.get_secret_value()
    back = dataclasses.replace(house.config, k3s=dataclasses.replace(house.config.k3s, token=old.k3s.token))
    life.restore(name, config=back)
    assert "old-days" in life.marks()
    assert not life.lab.plan(back)
    assert life.members() == {"lab-c1", "lab-c2"}


def test_a_server_whose_snapshots_cannot_be_seen_stops_it_before_it_begins(house: House) -> None:
    rotation.begin(house.env_file)
    config = house.config
    unseen = dataclasses.replace(snapshots.observe(house.life.world, config), unread=("lab-c2: it does not answer",))
    with pytest.raises(errors.UnreachableError, match="not every snapshot"):
        rotation.plan(config, unseen)
    house.life.lab.machines.power_off(house.life.node("lab-w1").vmid)
    with pytest.raises(errors.UnreachableError, match="lab-w1"):
        rotation.require_all(house.life.world, config)


def test_no_token_is_sent_to_another_authority(house: House) -> None:
    config = house.config
    door, address = Supervisor(config), str(config.controllers[0].address)
    with pytest.raises(errors.TrustError, match="another authority"):
        door.rotate_token(address, "ab" * 32, config.k3s.token, SecretStr("1" * 32))
    with pytest.raises(errors.TrustError):
        door.accepts(address, "ab" * 32, config.k3s.token)
    (ca_hash,) = house.life.authorities()
    with pytest.raises(errors.RefusedError, match="answers 401"):
        door.rotate_token(address, ca_hash, SecretStr("0" * 32), SecretStr("1" * 32))
    house.settled_on(config.k3s.token.get_secret_value(), OLD_AGENT)


def test_a_server_that_does_not_answer_is_not_taken_for_one_with_the_old_token(house: House) -> None:
    rotation.begin(house.env_file)
    config = house.config
    node = house.life.node("lab-c2")
    house.life.world.hosts.change(node, {"before": upkeep.stops(node)})
    action = next(a for a in rotation.plan(config, house.life.stored()) if a.key == "token/cluster")

    def apply(world: World, config: ClusterConfig, action: Action, step: Step) -> None:
        rotation.apply(world, config, house.env_file, action, step)

    with pytest.raises(errors.UnreachableError, match="cannot be told"):
        house.life.carry([action], apply, rotation.RUN, config=config)
    house.life.world.hosts.change(node, {"units": upkeep.starts(node)})
