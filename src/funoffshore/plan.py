"""What would be done, and why. Pure values: this module never touches disk, network or clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Verb(StrEnum):
    """What an action does to its object. WAIT changes nothing: it is over when the object is as desired."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    WAIT = "wait for"


@dataclass(frozen=True, slots=True)
class Action:
    """One change to one thing. Reads as a sentence: *create machine/home-c1, because it is absent*."""

    verb: Verb
    key: str
    """What is changed, stable across runs: ``machine/home-c1``, ``k3s/home-c1``, ``flux/source``."""
    reason: str
    """Completes "because …"; names the difference that was seen, never a secret."""
    after: frozenset[str] = frozenset()
    """Keys whose actions must have ended well before this one starts. Keys not in the plan need nothing."""
    lane: str = ""
    """Resource whose capacity limits how many such actions run at once: ``storage``, ``etcd``, ``agents``."""
    stage: str = ""
    """``machines``, ``k3s`` or ``flux``: who applies it."""
    on: str = ""
    """Node the action concerns, for the line in the live display; empty when it is the whole cluster."""
    values: Mapping[str, str] = field(default_factory=dict)
    """What the plan chose and the effect follows (``hypervisor``, ``vmid``); never a secret."""

    def __str__(self) -> str:
        return f"{self.verb} {self.key}, because {self.reason}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph of actions, one per key. Empty means: everything is as desired."""

    actions: Mapping[str, Action] = field(default_factory=dict)

    @classmethod
    def of(cls, actions: Iterable[Action]) -> Plan:
        """Raises ValueError for two actions on one key, or a cycle; both are bugs in a stage."""
        by_key: dict[str, Action] = {}
        for action in actions:
            if action.key in by_key:
                raise ValueError(f"two actions for {action.key}: {by_key[action.key]}; {action}")
            by_key[action.key] = action
        plan = cls(by_key)
        list(plan.in_order())
        return plan

    def ready(self, done: frozenset[str]) -> list[Action]:
        """Actions not yet done whose predecessors in this plan all are."""
        return [a for a in self.actions.values() if a.key not in done and (a.after & self.actions.keys()) <= done]

    def in_order(self) -> Iterator[Action]:
        """Every action once, predecessors first. Raises ValueError when actions wait for each other."""
        done: frozenset[str] = frozenset()
        while len(done) < len(self.actions):
            batch = self.ready(done)
            if not batch:
                raise ValueError(f"actions wait for each other: {sorted(self.actions.keys() - done)}")
            yield from batch
            done |= {a.key for a in batch}

    def until(self, stage: str) -> Plan:
        """The part of the plan up to and including ``stage`` (``machines``, ``k3s`` or ``flux``)."""
        order = ("machines", "k3s", "flux")
        wanted = order[: order.index(stage) + 1]
        return Plan({k: a for k, a in self.actions.items() if a.stage in wanted})

    def __bool__(self) -> bool:
        return bool(self.actions)


@dataclass(frozen=True, slots=True)
class Permits:
    """What the operator allows this run to do that is never done unasked."""

    reboots: bool = False
    replace: frozenset[str] = frozenset()
    """Names of machines that may be deleted and made anew."""
    remove: frozenset[str] = frozenset()
    """Names of machines no longer in the env file that may be deleted."""
    upgrade: bool = False
    """Whether K3s may be brought to the pinned release."""

    def __bool__(self) -> bool:
        return self.reboots or self.upgrade or bool(self.replace) or bool(self.remove)


NONE = Permits()


@dataclass(frozen=True, slots=True)
class Held:
    """One change that waits for the operator's word."""

    key: str
    """As the action would have it: ``restart/home-w1``."""
    reason: str
    permit: str
    """What allows it: ``--allow-reboots``, ``--replace home-w1``, ``fo k3s upgrade``; empty when nothing does."""
