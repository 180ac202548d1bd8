"""The Kubernetes API of hosts behind a jump host: a port of loopback for each, led there through SSH.

What goes through is TLS from here to the server, checked as everywhere else; the jump host sees where it goes to.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from funoffshore import errors
from funoffshore.world.routes import Routes
from funoffshore.world.ssh.way import Stream

PORT = 6443
CHUNK = 32768
Open = Callable[[str, int], Stream]
"""Makes a connection to (address, port). Raises an FoError."""


class Forwards(Routes):
    """Routes that lead to the API of ``addresses`` over ``way``, and for anything else as ``routes`` do.

    Thread safe. A listener lives until ``close``, each of its connections as long as both ends want it to.
    """

    def __init__(self, routes: Routes, addresses: Iterable[str], way: Open) -> None:
        super().__init__()
        self._routes = routes
        self._addresses = frozenset(addresses)
        self._way = way
        self._lock = threading.Lock()
        self._listeners: dict[str, socket.socket] = {}

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """The place on loopback, listening when this returns."""
        if port != PORT or host not in self._addresses:
            return self._routes.resolve(host, port)
        with self._lock:
            if host not in self._listeners:
                self._listeners[host] = self._listen(host)
            address, local = self._listeners[host].getsockname()
            return str(address), int(local)

    def close(self) -> None:
        """No new connection is taken; the next ``resolve`` listens anew."""
        with self._lock:
            listeners, self._listeners = list(self._listeners.values()), {}
        for listener in listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _listen(self, host: str) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, args=(listener, host), name=f"forward {host}", daemon=True).start()
        return listener

    def _serve(self, listener: socket.socket, host: str) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near, host), daemon=True).start()

    def _join(self, near: socket.socket, host: str) -> None:
        """Both directions until either ends; a host that is not reached is a connection that ends at once."""
        with near:
            try:
                far = self._way(host, PORT)
            except errors.FoError:
                return
            far.settimeout(None)
            back = threading.Thread(target=_pour, args=(far, near), daemon=True)
            back.start()
            _pour(near, far)
            back.join()
            with suppress(OSError, EOFError):
                far.close()


def _pour(source: Stream, target: Stream) -> None:
    """Everything from one to the other, and then that there is no more."""
    with suppress(OSError, EOFError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError, EOFError):
        # A socket and an SSH channel name the end of one direction differently.
        target.shutdown_write() if hasattr(target, "shutdown_write") else target.shutdown(socket.SHUT_WR)
