"""A settled K3s cluster in the lab for the commands of its life, with a journal, and a computer that may die."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from k3s_homelab import Homelab, _config
from pydantic import SecretStr
from ssh_machines import until

from funoffshore import journal, redact, run
from funoffshore.config import ClusterConfig, Node, age
from funoffshore.lab.k3s import binary, digest
from funoffshore.plan import Action, Permits, Plan
from funoffshore.reading import Present
from funoffshore.run import Events, Step
from funoffshore.stages import k3s
from funoffshore.stages.k3s import restore, restoring, snapshots, upkeep
from funoffshore.world.world import World

Apply = Callable[[World, ClusterConfig, Action, Step], None]
KEY = age.identity(bytes(range(32)))


class Killed(BaseException):
    """The computer that fo runs on is off."""


class Mortal:
    """The door to the hosts until the computer dies: around its ``at``-th change, which is made or not."""

    def __init__(self, hosts: Any, at: int, *, made: bool) -> None:
        self._hosts, self._at, self._made = hosts, at, made
        self._count = itertools.count(1)
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise Killed
        return getattr(self._hosts, name)

    def change(self, *args: Any, **named: Any) -> Any:
        last = next(self._count) == self._at
        if self.dead or (last and not self._made):
            self.dead = True
            raise Killed
        answer = self._hosts.change(*args, **named)
        if last:
            self.dead = True
            raise Killed
        return answer


class Deaf(Events):
    """Nobody watches."""

    def planned(self, plan: Plan) -> None: ...

    def started(self, action: Action) -> None: ...

    def said(self, action: Action, sentence: str) -> None: ...

    def ended(self, action: Action, error: BaseException | None) -> None: ...


class Life:
    """The cluster, and what carries out the plans of its life as the commands do."""

    def __init__(self, folder: Path, controllers: int = 1, workers: int = 0) -> None:
        config = _config(folder, controllers, workers)
        self.lab = Homelab(folder, config=dataclasses.replace(config, sops_age_key=SecretStr(KEY)))
        self.lab.boot()
        self.lab.converge()

    @property
    def config(self) -> ClusterConfig:
        return self.lab.config

    @property
    def world(self) -> World:
        return self.lab.world

    def node(self, name: str) -> Node:
        return self.config.node(name)

    def carry(
        self, actions: Iterable[Action], apply: Apply, what: str, *, world: World | None = None,
        earlier: Mapping[str, Mapping[str, str]] | None = None, config: ClusterConfig | None = None, attempt: str = "",
    ) -> None:  # fmt: skip
        """One run with its journal. A killed one leaves no word of its end, as kill -9 does."""
        asked = config or self.config
        redactor = redact.Redactor(redact.secrets_of(asked))
        about = {"cluster": asked.name, "until": what, **({"attempt": attempt} if attempt else {})}
        log = journal.Journal.begin(asked.state, self.world.clock.now, redactor, **about)
        door = world or self.world

        def act(action: Action, step: Step) -> None:
            apply(door, asked, action, step)

        try:
            run.execute(Plan.of(actions), act, log, Deaf(), threading.Event(), earlier or {})
            log.write("end", "", sync=True, outcome="done")
        finally:
            log.close()

    def save(self, name: str = "hand") -> str:
        """Name of a fresh snapshot, which lies on a server and off-box."""
        kept = self.stored().snapshots
        before, newest = {one.name for one in kept}, max((one.at for one in kept), default=0.0)
        until(lambda: self.world.clock.now() >= newest + 1.5)  # K3s names them by the second, rounded
        self.carry(snapshots.plan_save(self.world, self.config, name), snapshots.apply, snapshots.RUN)
        (fresh,) = {one.name for one in self.stored().snapshots} - before
        return fresh

    def stored(self) -> snapshots.Stored:
        return snapshots.observe(self.world, self.config)

    def restore(self, name: str, *, world: World | None = None, config: ClusterConfig | None = None) -> None:
        """As ``fo k3s restore NAME --yes`` does it, without the safety copy."""
        asked = config or self.config
        begun = restore.going_on(asked.state, name)
        choice = restore.choose(self.world, asked, name, begun)
        actions = restore.remaining(restore.plan(asked, choice), begun)
        self.carry(
            actions, restoring.apply, restore.RUN, world=world, earlier=begun.records if begun else {}, config=asked
        )
        for _ in range(restoring.ROUNDS):
            wanted, unread = restoring.settling(self.world, asked)
            assert not unread
            if not wanted:
                return
            self.carry(wanted.actions.values(), k3s.apply, restore.RUN, config=asked)
        raise AssertionError([str(action) for action in wanted.actions.values()])

    def upgrade(self, version: str) -> None:
        """Every node to another release, as ``fo k3s upgrade`` does it."""
        self.lab.web.add(f"/k3s/{version}/k3s", binary(version))
        pinned = dataclasses.replace(self.config.k3s, version=version, sha256=digest(version))
        self.lab.config = dataclasses.replace(self.config, k3s=pinned)
        facts = self.lab.facts()
        permits = Permits(upgrade=True)
        wanted = k3s.plan(self.config, facts, permits)
        self.carry(wanted, functools.partial(k3s.apply, permits=permits), "k3s")
        assert not self.lab.plan()

    def versions(self) -> set[str]:
        """What the kubelets say they run."""
        facts = self.lab.facts()
        assert isinstance(facts.nodes, Present)
        return {node.version for node in facts.nodes.value.values()}

    def mark(self, name: str) -> None:
        """An object in the API."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {}}
        self.world.kube.apply([body], "test")

    def marks(self) -> set[str]:
        reading = self.world.kube.list("v1/ConfigMap", "default")
        return {str(item["metadata"]["name"]) for item in reading.value} - {"kube-root-ca.crt"}  # type: ignore[union-attr]

    def authorities(self) -> set[str]:
        """CA hashes on the servers' disks: more than one would be a second cluster."""
        return {upkeep.token_on_disk(self.world, node)[0] for node in self.config.controllers}

    def members(self) -> set[str]:
        """Voting members of etcd, in the one cluster that has servers; fails when there are two."""
        (plane,) = [plane for plane in self.lab.k3s.planes.all() if plane.servers]
        return {name for name, member in plane.members.items() if member["voter"]}

    def close(self) -> None:
        self.lab.close()


def dying(life: Life, at: int, *, made: bool) -> World:
    """The doors of ``life`` for a computer that dies around its ``at``-th change of a host."""
    hosts: Any = Mortal(life.world.hosts, at, made=made)
    return dataclasses.replace(life.world, hosts=hosts)
