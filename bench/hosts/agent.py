"""Talks to a machine's real guest agent (QEMU Guest Agent protocol reference) over its socket."""

from __future__ import annotations

import base64
import json
import socket
import threading
from pathlib import Path
from typing import Any

from funoffshore.lab.guests import AgentError, AgentSilentError

SECONDS = 3.0
"""How long Proxmox waits for an answer."""


class Agent:
    """One channel; the agent serves one client at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def ask(self, command: str, arguments: dict[str, Any]) -> object:
        """What ``guest-<command>`` returns. Raises AgentSilentError without an answer, AgentError when it refuses."""
        request: dict[str, object] = {"execute": f"guest-{command}"}
        if arguments:
            request["arguments"] = _own(command, arguments)
        with self._lock:
            try:
                answer = self._exchange(json.dumps(request))
            except (OSError, ValueError) as why:
                raise AgentSilentError(str(why)) from why
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise AgentError(str(answer["error"].get("desc", "the guest agent answered with an error")))
        if not isinstance(answer, dict) or "return" not in answer:
            raise AgentSilentError("the guest agent answered with something else")
        return _plain(answer["return"]) if command == "exec-status" else answer["return"]

    def _exchange(self, request: str) -> object:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(SECONDS)
            channel.connect(str(self._path))
            channel.sendall(request.encode() + b"\n")
            received = b""
            while not received.endswith(b"\n"):
                chunk = channel.recv(65536)
                if not chunk:
                    raise OSError("the guest agent hung up")
                received += chunk
        return json.loads(received)


def _own(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as the agent itself names them; Proxmox' API has other words for those about programs."""
    if command == "exec":
        path, *words = json.loads(arguments["command"])
        typed = base64.b64encode(str(arguments.get("input", "")).encode("latin-1", "replace")).decode()
        return {"path": path, "arg": words, "input-data": typed, "capture-output": True}
    return {"pid": int(arguments["pid"])} if command == "exec-status" else arguments


def _plain(outcome: dict[str, Any]) -> dict[str, Any]:
    """What a program has said as text, which Proxmox' API makes of the agent's base64."""
    said: dict[str, Any] = {
        key: base64.b64decode(outcome[key]).decode("latin-1") for key in ("out-data", "err-data") if key in outcome
    }
    return {**outcome, **said}
