"""Faults that somebody has switched on, where they strike the API: on the wire, before a task, in a guest.

Their words are those of the real servers: recorded from a real 8.4 API, and pve-common ``PVE/RESTEnvironment.pm``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote

from funoffshore import pveapi
from funoffshore.lab.base import Kit
from funoffshore.lab.guests import AgentSilentError, Guests
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.wire import Reply, Request

STUCK_SECONDS = 30.0
"""How long the real front waits for the daemon behind it."""
_PAGE = """<!DOCTYPE html>
<html><head><title>Sign in to the network</title></head>
<body><h1>Please sign in</h1><form method="post" action="/login"><input name="user"></form></body></html>
"""


def instead(kit: Kit, request: Request) -> Reply | None:
    """What somebody on the way answers in the API's place; None when the request arrives."""
    path = unquote(request.target.partition("?")[0]).removeprefix("/api2/json").removeprefix("/api2/extjs")
    about = {"method": request.method, "path": path}
    if kit.faults.hits("pve-html", **about):
        return Reply(200, "OK", _PAGE.encode(), content_type="text/html; charset=utf-8")
    if kit.faults.hits("pve-redirect", **about):
        where = f"http://{request.headers.get('host', 'localhost')}{request.target}"
        return Reply(302, "Found", b"", content_type="text/html", extra=[("Location", where)])
    return None


def on_the_way_back(call: Call, operation: pveapi.Operation, reply: Reply) -> Reply:
    """The answer as it arrives: what was asked for has been done, and yet nobody hears of it."""
    kit = call.house.kit
    path = operation.path
    for name, value in call.values.items():
        path = path.replace(f"{{{name}}}", str(value))
    about = {"method": operation.method, "path": path, **_named(call)}
    if _strikes(kit, "pve-596", about):
        if kit.latencies.api > 0:
            kit.clock.sleep(STUCK_SECONDS)
        return Reply(596, "Connection timed out", b"", content_type="text/plain")
    if _strikes(kit, "pve-cut", about):
        return Reply(cut=True)
    return reply


def _strikes(kit: Kit, name: str, about: Mapping[str, str]) -> bool:
    """Only writes, unless the fault names a method."""
    known = kit.faults.all().get(name)
    if known is None or (about["method"] == "GET" and "method" not in known):
        return False
    return kit.faults.hits(name, **about)


def _named(call: Call) -> dict[str, str]:
    return {name: call.text(name) for name in ("node", "vmid", "storage") if name in call.values}


def take_the_id(call: Call, vmid: int) -> None:
    """``vmid-race``: somebody else's machine is there a moment before the one that is asked for."""
    machines, kit = call.house.machines, call.house.kit
    if machines.find(vmid) is None and kit.faults.hits("vmid-race", vmid=str(vmid)):
        machine = machines.reserve(call.node, vmid, kit.clock.now())
        machine.config = {"name": f"stranger-{vmid}", "memory": "2048", "boot": " "}
        machines.save(machine)
        machines.release(vmid)


class Hushed:
    """The guests, of whom some have an agent that is told to be silent."""

    def __init__(self, kit: Kit, guests: Guests) -> None:
        self._kit = kit
        self._guests = guests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guests, name)

    def agent(self, vmid: int, command: str, arguments: dict[str, Any]) -> object:
        """As the guest answers. Raises AgentSilentError when it does not."""
        if self._kit.faults.hits("agent-silent", vmid=str(vmid), command=command):
            raise AgentSilentError
        return self._guests.agent(vmid, command, arguments)


def hushed(kit: Kit, guests: Guests) -> Guests:
    """The same guests, with the fault ``agent-silent`` in between."""
    return cast(Guests, Hushed(kit, guests))
