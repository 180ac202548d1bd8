"""The thread on which the cluster's controllers run: one place at a time, each as often as it changed."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Iterable

from funoffshore.lab.base import Kit
from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.core import Core
from funoffshore.lab.kube.objects import Event, Objects, Place

_log = logging.getLogger(__name__)


class Follower:
    """Hears every commit, in order, on a thread of its own."""

    def __init__(self, objects: Objects, name: str, hear: Callable[[Event], None]) -> None:
        self._objects = objects
        self._hear = hear
        self._seen = objects.version
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        with self._objects.changed:
            self._objects.changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stopped:
            events = self._objects.since(self._seen)
            for event in events:
                self._seen = event.version
                try:
                    self._hear(event)
                except Exception:  # a listener's bug must not stop the others
                    _log.exception("a listener of the cluster failed")
                if self._stopped:
                    return
            if not events:
                self._objects.wait(self._seen, 60)


class Worker:
    """Holds the queue. Controllers register with ``handle`` and ``notice``, then ``start``."""

    def __init__(self, kit: Kit, core: Core) -> None:
        self.kit = kit
        self.core = core
        self._handlers: dict[str, list[Callable[[Place], None]]] = {}
        self._noticers: list[Callable[[Event], Iterable[Place]]] = []
        self._queue: collections.OrderedDict[Place, None] = collections.OrderedDict()
        self._wake = threading.Condition()
        self._stopped = False
        self._busy = False
        self._thread = threading.Thread(target=self._loop, name="kube-controllers", daemon=True)
        self._follower: Follower | None = None

    def handle(self, bucket: str, reconcile: Callable[[Place], None]) -> None:
        """``reconcile`` runs for every place of ``bucket`` that changed or was put in the queue."""
        self._handlers.setdefault(bucket, []).append(reconcile)

    def notice(self, look: Callable[[Event], Iterable[Place]]) -> None:
        """``look`` names other places that an event concerns."""
        self._noticers.append(look)

    def start(self) -> None:
        """Looks at everything there is once, then follows the changes."""
        self._follower = Follower(self.core.objects, "kube-events", self._hear)
        for bucket in self._handlers:
            for stored in self.core.objects.scan(bucket):
                self.soon(place_of(bucket, stored.body))
        self._thread.start()

    def stop(self) -> None:
        if self._follower:
            self._follower.stop()
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def soon(self, *places: Place) -> None:
        """Puts places in the queue; one that waits there already is not doubled."""
        with self._wake:
            for place in places:
                self._queue[place] = None
            self._wake.notify()

    def later(self, seconds: float, place: Place) -> None:
        """The same, after lab seconds."""
        if seconds <= 0:
            self.soon(place)
        else:
            self.kit.clock.after(seconds, lambda: self.soon(place))

    def _hear(self, event: Event) -> None:
        places = [event.place] if event.place[0] in self._handlers else []
        for look in self._noticers:
            places += look(event)
        if places:
            self.soon(*places)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._stopped:
                    self._wake.wait()
                if self._stopped:
                    return
                place, _ = self._queue.popitem(last=False)
            for reconcile in self._handlers.get(place[0], ()):
                try:
                    reconcile(place)
                except ApiError as why:  # e.g. its namespace is going away: the next event decides
                    _log.debug("%s: %s", "/".join(place), why)
                except Exception:
                    _log.exception("the controller of %s failed", "/".join(place))


def place_of(bucket: str, obj: Object) -> Place:
    return bucket, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def controller_of(obj: Object) -> Object | None:
    """The owner reference that says ``controller: true``."""
    return next((o for o in obj["metadata"].get("ownerReferences", []) if o.get("controller")), None)


def owner_place(obj: Object) -> Place | None:
    """Where the controlling owner is kept."""
    owner = controller_of(obj)
    if owner is None:
        return None
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    kind = str(owner.get("kind", ""))
    return (f"{kind}.{group}" if group else kind), obj["metadata"].get("namespace", ""), str(owner.get("name", ""))
