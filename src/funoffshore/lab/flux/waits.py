"""What a reconciler is waiting for after it applied: which objects, since when, until when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from funoffshore.lab.flux import kstatus
from funoffshore.lab.flux.queue import Key
from funoffshore.lab.kube.api import Object


@dataclass(frozen=True, slots=True)
class Wait:
    """A health check under way."""

    inputs: tuple[object, ...]
    """What was applied; when it changes, the wait is void."""
    targets: tuple[Key, ...]
    started: float
    deadline: float
    """Lab time."""
    timeout: float
    detail: dict[str, str] = field(default_factory=dict)
    """What the reconciler wants to remember until the end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the targets are: ``pending`` holds ``Kind/namespace/name status: 'InProgress'``."""

    pending: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        return not self.pending and not self.failed


class Waits:
    """The waits of one controller, and which objects concern which of them."""

    def __init__(self) -> None:
        self._waits: dict[Key, Wait] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Wait | None:
        with self._lock:
            return self._waits.get(key)

    def begin(self, key: Key, wait: Wait) -> None:
        with self._lock:
            self._waits[key] = wait

    def end(self, key: Key) -> None:
        with self._lock:
            self._waits.pop(key, None)

    def concerned(self, target: Key) -> list[Key]:
        """Who waits for ``target``."""
        with self._lock:
            return [key for key, wait in self._waits.items() if target in wait.targets]


def look(
    wait: Wait, get: Callable[[Key], Object | None], judge: Callable[[Object | None], str] = kstatus.status
) -> Outcome:
    """How the targets are now."""
    pending: list[str] = []
    failed: list[str] = []
    for target in wait.targets:
        state = judge(get(target))
        if state == kstatus.CURRENT:
            continue
        kind, namespace, name = target
        words = f"{'/'.join(filter(None, (kind.rsplit('/', 1)[1], namespace, name)))} status: '{state}'"
        (failed if state == kstatus.FAILED else pending).append(words)
    return Outcome(tuple(pending), tuple(failed))
