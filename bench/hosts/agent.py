"""Talks to a machine's real guest agent (QEMU Guest Agent protocol reference) over its socket."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from funoffshore.lab.guests import AgentSilentError

SECONDS = 3.0
"""How long Proxmox waits for an answer."""


class Agent:
    """One channel; the agent serves one client at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def ask(self, command: str, arguments: dict[str, str]) -> object:
        """What ``guest-<command>`` returns. Raises AgentSilentError without an answer, or for an error as answer."""
        request: dict[str, object] = {"execute": f"guest-{command}"}
        if arguments:
            request["arguments"] = arguments
        with self._lock:
            try:
                answer = self._exchange(json.dumps(request))
            except (OSError, ValueError) as why:
                raise AgentSilentError(str(why)) from why
        if not isinstance(answer, dict) or "return" not in answer:
            raise AgentSilentError("the guest agent answered with an error")
        return answer["return"]

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
