"""The objects of one cluster on disk and in memory, the one counter of their versions, and what changed when."""

from __future__ import annotations

import collections
import json
import threading
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.base import Store
from funoffshore.lab.kube.api import Object

Place = tuple[str, str, str]
"""Bucket of the kind (``Deployment.apps``), namespace, name."""

_REMEMBERED = 20_000
"""Events kept for watches; who asks for older ones is told 410 Gone."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as committed. ``body`` must never be changed; ``copy()`` gives one that may."""

    body: Object
    text: str
    version: int

    def copy(self) -> Object:
        fresh: Object = json.loads(self.text)
        return fresh


@dataclass(frozen=True, slots=True)
class Event:
    version: int
    type: str
    """ADDED, MODIFIED or DELETED."""
    place: Place
    now: Stored
    """For DELETED, the last state, with the version of the deletion."""
    before: Stored | None


class Objects:
    """Call everything that changes within ``with objects.lock``; reading needs no lock."""

    def __init__(self, store: Store, bucket: str) -> None:
        self._store = store
        self._bucket = bucket
        self.lock = threading.RLock()
        self.changed = threading.Condition()
        """Notified after each commit."""
        self._kept: dict[str, dict[tuple[str, str], Stored]] = {}
        self._by_uid: dict[str, Place] = {}
        self._owned: dict[str, set[Place]] = {}
        self._events: collections.deque[Event] = collections.deque(maxlen=_REMEMBERED)
        self.version = 0
        """The newest resourceVersion."""
        self._load()
        self.oldest = self.version
        """Watches may begin here or later."""

    def _load(self) -> None:
        self.version = int((self._store.get(f"{self._bucket}/meta", "version") or {}).get("n", 0))
        for key, body in self._store.scan(self._bucket):
            bucket, namespace, name = key.split("|")
            version = int(body["metadata"]["resourceVersion"])
            self.version = max(self.version, version)
            stored = Stored(body, json.dumps(body), version)
            self._kept.setdefault(bucket, {})[namespace, name] = stored
            self._index((bucket, namespace, name), None, body)

    def _index(self, place: Place, before: Object | None, now: Object | None) -> None:
        for owner in metadata(before).get("ownerReferences", ()):
            self._owned.get(owner["uid"], set()).discard(place)
        for owner in metadata(now).get("ownerReferences", ()):
            self._owned.setdefault(owner["uid"], set()).add(place)
        if before is not None:
            self._by_uid.pop(before["metadata"]["uid"], None)
        if now is not None:
            self._by_uid[now["metadata"]["uid"]] = place

    def by_uid(self, uid: str) -> Stored | None:
        place = self._by_uid.get(uid)
        return self.get(place) if place else None

    def owned(self, uid: str) -> list[Stored]:
        """Objects with an owner reference to ``uid``, sorted by place."""
        with self.lock:
            found = [self.get(place) for place in sorted(self._owned.get(uid, ()))]
        return [stored for stored in found if stored]

    def get(self, place: Place) -> Stored | None:
        return self._kept.get(place[0], {}).get((place[1], place[2]))

    def scan(self, bucket: str, namespace: str | None = None) -> list[Stored]:
        """Sorted by namespace and name. All namespaces when ``namespace`` is None."""
        with self.lock:
            items = list(self._kept.get(bucket, {}).items())
        if namespace is not None:
            items = [item for item in items if item[0][0] == namespace]
        items.sort(key=lambda item: item[0])
        return [stored for _, stored in items]

    def buckets(self) -> list[str]:
        with self.lock:
            return [bucket for bucket, kept in self._kept.items() if kept]

    def put(self, place: Place, body: Object) -> Stored:
        """Stores ``body``, which belongs to the store from now on, under a new version."""
        before = self.get(place)
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        stored = Stored(body, json.dumps(body), self.version)
        self._kept.setdefault(place[0], {})[place[1], place[2]] = stored
        self._index(place, before.body if before else None, body)
        self._store.put(self._bucket, "|".join(place), body)
        self._announce(Event(self.version, "MODIFIED" if before else "ADDED", place, stored, before))
        return stored

    def remove(self, place: Place) -> Stored | None:
        before = self.get(place)
        if before is None:
            return None
        self.version += 1
        del self._kept[place[0]][place[1], place[2]]
        self._index(place, before.body, None)
        self._store.delete(self._bucket, "|".join(place))
        self._store.put(f"{self._bucket}/meta", "version", {"n": self.version})
        body = before.copy()
        body["metadata"]["resourceVersion"] = str(self.version)
        last = Stored(body, json.dumps(body), self.version)
        self._announce(Event(self.version, "DELETED", place, last, before))
        return last

    def _announce(self, event: Event) -> None:
        if len(self._events) == _REMEMBERED:
            self.oldest = self._events[0].version
        self._events.append(event)
        with self.changed:
            self.changed.notify_all()

    def forget(self) -> None:
        """Drops all events, as a compaction of etcd does: older watches and pages are 410 Gone from now on."""
        with self.lock:
            self._events.clear()
            self.oldest = self.version

    def since(self, version: int) -> list[Event]:
        """Events after ``version``, oldest first. Empty when there are none yet."""
        if self.version <= version:
            return []
        found: list[Event] = []
        with self.lock:
            for event in reversed(self._events):
                if event.version <= version:
                    break
                found.append(event)
        found.reverse()
        return found

    def wait(self, version: int, seconds: float) -> None:
        """Returns when there is something after ``version``, or ``seconds`` real seconds have passed."""
        with self.changed:
            if self.version <= version:
                self.changed.wait(seconds)


def metadata(obj: Any) -> dict[str, Any]:
    """``obj["metadata"]``, or an empty one when it is not a mapping."""
    found = obj.get("metadata") if isinstance(obj, dict) else None
    return found if isinstance(found, dict) else {}
