"""Small documents of the datacenter, by kind and name: firewall options, HA resources, backup jobs, mappings."""

from __future__ import annotations

import threading
from typing import Any

from funoffshore.lab.base import Kit


class Shelf:
    """Every document of one kind, in memory and in the store."""

    def __init__(self, kit: Kit, kind: str) -> None:
        self._kit = kit
        self._bucket = f"pve/{kind}"
        self._documents: dict[str, dict[str, Any]] = dict(kit.store.scan(self._bucket))
        self.guard = threading.RLock()
        """Hold it from reading to writing where two may write."""

    def all(self) -> dict[str, dict[str, Any]]:
        """By name; copies."""
        with self.guard:
            return {name: dict(body) for name, body in sorted(self._documents.items())}

    def get(self, name: str) -> dict[str, Any] | None:
        """A copy, or None."""
        with self.guard:
            found = self._documents.get(name)
            return dict(found) if found is not None else None

    def put(self, name: str, body: dict[str, Any]) -> None:
        with self.guard:
            self._documents[name] = dict(body)
            self._kit.store.put(self._bucket, name, body)

    def delete(self, name: str) -> bool:
        """Whether there was one."""
        with self.guard:
            self._kit.store.delete(self._bucket, name)
            return self._documents.pop(name, None) is not None


class Shelves:
    """The shelf of every kind, made when first asked for."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._guard = threading.Lock()
        self._shelves: dict[str, Shelf] = {}

    def __call__(self, kind: str) -> Shelf:
        with self._guard:
            if kind not in self._shelves:
                self._shelves[kind] = Shelf(self._kit, kind)
            return self._shelves[kind]
