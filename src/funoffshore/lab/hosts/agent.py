"""The QEMU guest agent on a host: its answers, in the words of QEMU's ``qga/qapi-schema.json``."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from typing import Any

from funoffshore.lab.guests import AgentError, AgentSilentError
from funoffshore.lab.hosts.machine import Host


def answer(host: Host, command: str, arguments: dict[str, Any]) -> object:
    """Raises AgentSilentError for a command that nobody here knows, AgentError for one that cannot be done."""
    known = _COMMANDS.get(command)
    if known is None:
        raise AgentSilentError(f"The command {command} has not been found")
    return known(host, arguments)


def open_file(host: Host, arguments: dict[str, Any]) -> int:
    """As root, whatever the file's mode. A handle is good until it is closed or the power goes."""
    try:
        with host.path(str(arguments["path"])).open("rb") as stream:
            host.opened[len(host.opened) + 1000] = io.BytesIO(stream.read())
    except OSError as why:
        text = f"failed to open file '{arguments['path']}' (mode: 'r'): {os.strerror(why.errno or 0)}"
        raise AgentError(text) from None
    return len(host.opened) + 999


def read_file(host: Host, arguments: dict[str, Any]) -> dict[str, Any]:
    stream = _stream(host, arguments)
    part = stream.read(int(arguments.get("count", 4096)))
    ended = stream.tell() == len(stream.getbuffer())
    return {"buf-b64": base64.b64encode(part).decode(), "count": len(part), "eof": ended}


def close_file(host: Host, arguments: dict[str, Any]) -> dict[str, Any]:
    _stream(host, arguments).close()
    return {}


def _stream(host: Host, arguments: dict[str, Any]) -> io.BytesIO:
    found = host.opened.get(int(arguments["handle"]))
    if found is None or found.closed:
        raise AgentError(f"handle '{arguments['handle']}' has not been found")
    return found


def execute(host: Host, arguments: dict[str, Any]) -> dict[str, int]:
    """Programs of the lab are quick: the command is over when this returns."""
    argv = [str(word) for word in json.loads(arguments["command"])]
    result = host.run(argv, arguments.get("input", "").encode("latin-1", "replace"))
    out, err = result.out.decode("latin-1"), result.err.decode("latin-1")
    found: dict[str, Any] = {"exited": True, "exitcode": result.code}
    found |= {"out-data": out} if out else {}
    host.executed.append({**found, "err-data": err} if err else found)
    return {"pid": 1000 + len(host.executed)}


def outcome(host: Host, arguments: dict[str, Any]) -> dict[str, Any]:
    """A process is forgotten by the next boot, not by being asked for."""
    index = int(arguments["pid"]) - 1001
    if not 0 <= index < len(host.executed):
        raise AgentError("Invalid parameter 'pid'")
    return host.executed[index]


def interfaces(host: Host) -> list[dict[str, Any]]:
    """As QEMU's guest-network-get-interfaces answers (qga/qapi-schema.json)."""
    found = [interface("lo", "00:00:00:00:00:00", "127.0.0.1", 8)]
    for number, mac in enumerate(host.hardware.macs):
        address = host.address if number == 0 else ""
        found.append(interface(f"eth{number}", mac.lower(), address, host.prefix))
    return found


def interface(name: str, mac: str, address: str, prefix: int) -> dict[str, Any]:
    addresses = [{"ip-address": address, "ip-address-type": "ipv4", "prefix": prefix}] if address else []
    return {"name": name, "hardware-address": mac, "ip-addresses": addresses}


_COMMANDS: dict[str, Callable[[Host, dict[str, Any]], object]] = {
    "ping": lambda host, _: {},
    "get-host-name": lambda host, _: {"host-name": host.name},
    "get-osinfo": lambda host, _: {
        "id": "debian",
        "version-id": "12",
        "name": "Debian GNU/Linux",
        "machine": "x86_64",
    },
    "network-get-interfaces": lambda host, _: interfaces(host),
    "get-time": lambda host, _: int(host.kit.clock.now() * 1e9),
    "file-open": open_file,
    "file-read": read_file,
    "file-close": close_file,
    "exec": execute,
    "exec-status": outcome,
}
