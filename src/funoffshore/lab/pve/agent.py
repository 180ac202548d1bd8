"""What the guest agent is asked: passed on to whatever runs the machine, its answers shaped as Proxmox shapes them.

Facts from qemu-server ``PVE/API2/Qemu/Agent.pm`` and ``PVE/QemuServer/Agent.pm``; refusals recorded from a real 8.4
API.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from funoffshore.lab.guests import AgentError, AgentSilentError
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.refusal import absent_config, die

AGENT_SECONDS = 3.0
"""How long Proxmox waits for a guest agent that does not answer."""
CHUNK = 1 << 20
MOST = 16 << 20
"""Bytes of a file that one call reads."""


def _tell(call: Call, command: str, arguments: dict[str, Any]) -> Any:
    """Raises AgentSilentError when the agent does not answer; refuses what it refuses."""
    machine = call.house.machines.find(call.vmid)
    if machine is None or machine.node != call.node:
        raise die(absent_config(call.node, call.vmid))
    if not machine.agent:
        raise die("No QEMU guest agent configured")
    if not call.house.machines.is_on(machine):
        raise die(f"VM {call.vmid} is not running")
    try:
        return call.house.guests.agent(call.vmid, command, arguments)
    except AgentError as why:
        raise die(f"Agent error: {why}") from None


def _ask(call: Call, command: str, arguments: dict[str, Any]) -> Any:
    try:
        return _tell(call, command, arguments)
    except AgentSilentError:
        if call.house.kit.latencies.api > 0:
            call.house.kit.clock.sleep(AGENT_SECONDS)
        raise die("QEMU guest agent is not running") from None


def plain(command: str) -> Callable[[Call], Any]:
    """The handler of a call without arguments, say ``network-get-interfaces``."""
    return lambda call: {"result": _ask(call, command, {})}


def read_file(call: Call) -> dict[str, Any]:
    """GET …/agent/file-read: bytes as characters of the same number, or with ``decode=0`` in base64."""
    handle = _open(call)
    content, ended = b"", False
    try:
        wanted = call.number("offset") + call.number("count", MOST)
        while len(content) < wanted and not ended:
            part = _ask(call, "file-read", {"handle": handle, "count": min(CHUNK, wanted - len(content))})
            content += base64.b64decode(part["buf-b64"])
            ended = bool(part["eof"])
    finally:
        _ask(call, "file-close", {"handle": handle})
    length, content = len(content), content[call.number("offset") :]
    text = base64.b64encode(content).decode() if call.text("decode", "1") == "0" else content.decode("latin-1")
    return {"content": text, "bytes-read": length, **({} if ended else {"truncated": 1})}


def _open(call: Call) -> int:
    """A handle. An agent that answers otherwise is not silent: it cannot open the file."""
    try:
        return int(_tell(call, "file-open", {"path": call.text("file"), "mode": "r"}))
    except AgentSilentError as why:
        _ask(call, "ping", {})
        raise die(f"Agent error: {why}") from None


def execute(call: Call) -> dict[str, Any]:
    """POST …/agent/exec: begins it and answers with its process ID."""
    arguments = {"command": json.dumps(call.list("command")), "input": call.text("input-data")}
    return {"pid": _ask(call, "exec", arguments)["pid"]}


def outcome(call: Call) -> dict[str, Any]:
    """GET …/agent/exec-status."""
    found = _ask(call, "exec-status", {"pid": call.text("pid")})
    return {key: int(value) if isinstance(value, bool) else value for key, value in found.items()}
